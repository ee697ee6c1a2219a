"""What a run is going to do: recordings divided, units partitioned, decoders listed."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from poyo_ssl.comparison.config import RunConfig
from poyo_ssl.comparison.experiment import Experiment
from poyo_ssl.comparison.problems import find_problems
from poyo_ssl.file_names import EXPERIMENT
from poyo_ssl.model.checkpoints import CONFIG, encoder_digest, save_encoder
from poyo_ssl.predictability.partition import partition_by_predictability
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.result_files import read_json
from poyo_ssl.whole_files import write_json
from poyo_ssl.windows.divide import Divided, DividedRecording, divide, require_one_rate
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import TASKS, Task, can_answer, stimulus_tasks

logger = logging.getLogger(__name__)

MAY_CHANGE = (
    "jobs", "title", "baseline", "num_seeds", "arms", "label_fractions", "labels_per_class",
)  # fmt: skip
"""Options that change no fit: arms, seeds and numbers of labels can be added to a run later."""
DEFAULT_TASKS = ("direction", "orientation", "movie_held_out")


def plan(
    recordings: list[Recording],
    directory: Path,
    config: RunConfig,
    earlier: Sequence[Recording] = (),
) -> Experiment:
    """Divides the recordings and partitions their units, before any long work starts.

    Args:
        recordings: What decoders are fitted to and scored on.
        directory: Where results go.
        config: Every option.
        earlier: Recordings to pretrain on instead. They are divided for every task that they can
            answer, so that their test parts stay unseen, too.

    Raises:
        RecordingError: If the recordings cannot answer the tasks, a part has no window, a class
            too few labels, or an encoder nothing to be pretrained on.
    """
    if not recordings:
        raise RecordingError("There is no recording to decode. Give at least one.")
    _require_different(recordings, earlier)
    require_one_rate([*recordings, *earlier])
    tasks = config.asked() or _default_tasks(recordings)
    divided = divide(recordings, tasks, config.splits)
    divided_earlier = _divide_for_every_task(
        earlier,
        tasks,
        config.earlier_splits or replace(config.splits, train=(), valid=(), test=()),
    )
    is_pretraining = any(
        name in config.arms and not arm.encoder for name, arm in config.pretrainings.items()
    )
    partition = partition_by_predictability(
        divided + divided_earlier,
        config.predictability,
        may_be_empty="predictable" not in config.units and not is_pretraining,
    )
    experiment = Experiment(divided, divided_earlier, partition, config, directory)
    problems = find_problems(experiment)
    if problems:
        raise RecordingError(" ".join(problems))
    _warn_of_encoders_that_know_recordings(experiment)
    return experiment


def _warn_of_encoders_that_know_recordings(experiment: Experiment) -> None:
    """Encoders that are given have learned from parts which this run knows nothing of."""
    decoded = {divided.recording.recording_id for divided in experiment.divided}
    for arm in experiment.pretrained_arms:
        source = experiment.config.pretrainings[arm].encoder
        learned = experiment.given_encoder(arm).provenance if source else None
        shared = decoded.intersection(learned.recordings) if learned else set()
        if shared:
            logger.warning(
                "Arm '%s': its encoder '%s' has learned from %s, which is decoded here. Its scores "
                "count only if that was from the training parts of this run; otherwise give one of "
                "other recordings, or leave encoder out.",
                arm,
                source,
                ", ".join(sorted(shared)),
            )


def _default_tasks(recordings: list[Recording]) -> list[Task]:
    names = [
        TASKS[name] for name in DEFAULT_TASKS if any(can_answer(r, TASKS[name]) for r in recordings)
    ]
    if not names:
        found = sorted({name for r in recordings for name in r.stimuli})
        remedy = (
            "For another question name it in tasks, such as stimulus/column."
            if found
            else "Tables of what was shown are named in the source of recordings."
        )
        raise RecordingError(
            f"None of {len(recordings)} recordings can answer any default task "
            f"({', '.join(DEFAULT_TASKS)}; found stimuli: {', '.join(found) or 'none'}). The "
            "tasks need drifting gratings, static gratings, or natural movie one with its "
            f"pictures. {remedy}"
        )
    return names


def _require_different(recordings: list[Recording], earlier: Sequence[Recording]) -> None:
    """Refuses recordings that count twice, and to pretrain on those that decoders are scored on.

    Whatever they are called.
    """
    known: dict[str, str] = {}
    for recording in recordings:
        one = known.setdefault(recording.fingerprint(), recording.recording_id)
        if one != recording.recording_id:
            raise RecordingError(
                f"'{one}' and '{recording.recording_id}' hold the same traces, and would count as "
                "two recordings. Leave one of them out."
            )
    shared = [
        f"'{recording.recording_id}'"
        for recording in earlier
        if recording.recording_id in known.values() or recording.fingerprint() in known
    ]
    if shared:
        raise RecordingError(
            f"Given both to decode and to pretrain on: {', '.join(shared)}. Leave each out of one "
            "of the two. Without recordings to pretrain on, encoders are pretrained on the "
            "training parts of those to decode."
        )


def _divide_for_every_task(
    recordings: Sequence[Recording], asked: Sequence[Task], config: SplitConfig
) -> Divided:
    """Divides recordings for tasks that have a name, and for those of the run's own."""
    named = stimulus_tasks(recordings)
    names = {task.name for task in named}
    own = [t for t in asked if t.name not in names and any(can_answer(r, t) for r in recordings)]
    return divide(recordings, [*named, *own], config)


def claim(experiment: Experiment) -> None:
    """Makes the directory this run's own, or refuses one that belongs to another run.

    Encoders that are given are kept there: workers read them, and a Hub or a directory elsewhere
    may hold another one tomorrow.

    Raises:
        ValueError: If recordings, config or given encoders are not those of the run that is there.
    """
    directory = experiment.directory
    given = {arm: encoder_digest(experiment.given_encoder(arm)) for arm in experiment.given_arms}
    mine = {
        "config": json.loads(json.dumps(asdict(experiment.config))),
        "recordings": _fingerprints(experiment.divided),
        "earlier": _fingerprints(experiment.earlier),
    }
    for name in MAY_CHANGE:
        mine["config"].pop(name)
    path = directory / EXPERIMENT
    known: dict[str, str] = {}
    if path.is_file():
        stored = read_json(path, {})
        known = stored.pop("given", {})
        if stored != mine:
            raise ValueError(
                f"'{directory}' holds a run of other recordings or another config. Choose a new "
                "output directory, or delete it to start over."
            )
        for arm in given:
            _require_same_encoder(experiment, arm, known.get(arm, given[arm]), given[arm])
        logger.info("Resuming the run in %s", directory)
    directory.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or known != known | given:
        write_json(path, mine | {"given": known | given})
    for arm in given:
        if not (experiment.given_directory(arm) / CONFIG).is_file():
            save_encoder(experiment.given_encoder(arm), experiment.given_directory(arm))


def _require_same_encoder(experiment: Experiment, arm: str, known: str, found: str) -> None:
    """Refuses to average seeds that begin with one encoder with those that begin with another."""
    if known != found:
        raise ValueError(
            f"Arm '{arm}': the encoder '{experiment.config.pretrainings[arm].encoder}' has changed "
            f"since the run in '{experiment.directory}' began (digest {known} then, {found} now). "
            f"Put back the earlier one, of which '{experiment.given_directory(arm)}' is a copy, or "
            "choose a new output directory."
        )


def _fingerprints(divided: Sequence[DividedRecording]) -> dict[str, str]:
    return {d.recording.recording_id: d.recording.fingerprint() for d in divided}
