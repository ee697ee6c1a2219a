"""What a run is going to do: recordings divided, units partitioned, decoders listed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from poyo_ssl.alignment.placement import ORDERED_COLUMNS
from poyo_ssl.comparison.arms import arms_for
from poyo_ssl.comparison.config import RunConfig
from poyo_ssl.comparison.diets import choose_units
from poyo_ssl.decoders.aligned import find_shared_stimulus
from poyo_ssl.decoders.linear_transfer import shows_tuning
from poyo_ssl.file_names import EXPERIMENT, file_name, fit_folder
from poyo_ssl.finetuning.finetune import Start, transfer_encoder
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.predictability.partition import Partition, partition_by_predictability
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.training.transfer import TransferError
from poyo_ssl.whole_files import write_json
from poyo_ssl.windows.divide import Divided, DividedRecording, divide, require_one_rate
from poyo_ssl.windows.label_budget import LabelBudget
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import TASKS, Task, can_answer, find_task, stimulus_tasks

logger = logging.getLogger(__name__)

MAY_CHANGE = (
    "jobs", "title", "baseline", "num_seeds", "arms", "label_fractions", "labels_per_class",
)  # fmt: skip
"""Options that change no fit: arms, seeds and numbers of labels can be added to a run later."""
DEFAULT_TASKS = ("direction", "orientation", "movie_held_out")


@dataclass(frozen=True, kw_only=True)
class PlannedFit:
    """One decoder to be fitted and scored."""

    task: str
    units: str
    arm: str
    labels: LabelBudget
    seed: int

    @property
    def name(self) -> str:
        """Path of its results below the run's directory."""
        return fit_folder(self.task, self.units, self.arm, self.labels.text, self.seed)


@dataclass(frozen=True, eq=False)
class Experiment:
    """Everything the fits of a run share."""

    divided: Divided
    earlier: Divided
    """Recordings that are only pretrained on; none: encoders are pretrained on ``divided``."""
    partition: Partition
    config: RunConfig
    directory: Path

    @cached_property
    def tasks(self) -> list[Task]:
        """Tasks of the run, in order."""
        return list(self.divided.tasks.values())

    @property
    def pretrained_arms(self) -> list[str]:
        """Arms whose encoder is pretrained, in order."""
        return [name for name in self.config.pretrainings if name in self.config.arms]

    def population(self, units: str) -> Population:
        """The recordings with only the units of one group, made once."""
        if units not in self._populations:
            self._populations[units] = self.partition.population(self.divided, units)
        return self._populations[units]

    @cached_property
    def _populations(self) -> dict[str, Population]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """What travels to other processes: traces, not what is made of them."""
        return {k: v for k, v in self.__dict__.items() if k != "_populations"}

    def pretraining_population(self, arm: str, seed: int) -> Population:
        """What the encoder of an arm is pretrained on: the units of its diet."""
        pretraining = self.config.pretrainings[arm]
        divided = {
            "other": self.earlier if len(self.earlier) else self.divided,
            "decoded": self.divided,
            "both": self.earlier + self.divided,
        }[pretraining.recordings]
        chosen = choose_units(
            pretraining.units,
            self.partition,
            divided.recordings,
            seed=seed,
            lines=pretraining.lines,
        )
        return Population(divided, chosen)

    def pretraining_of(self, arm: str, population: Population) -> PretrainingConfig:
        """How the encoder of an arm is pretrained, with the stimulus that places its units named.

        Args:
            arm: Name of a pretraining.
            population: What it is pretrained on.

        Raises:
            RecordingError: If the decoded recordings and those show none but what is asked about.
        """
        config = self.config.pretraining_of(arm)
        if config.alignment is None or config.alignment.stimulus:
            return config
        asked = [task.stimulus for task in self.tasks]
        if config.label_weight:
            asked.append(find_task(config.label_task).stimulus)
        shared = config.alignment.shared([*population.divided, *self.divided], asked)
        named = replace(config.alignment, stimulus=f"{shared.stimulus}/{shared.column}")
        return replace(config, alignment=named)

    def has_tuning(self, task: Task, units: str) -> bool:
        """Whether an earlier day tells how the decoded cells are tuned to what a task asks."""
        chosen = self.partition.choose(self.divided, units).values()
        return shows_tuning(self.earlier, task, [u for ids in chosen for u in ids])

    def has_alignment(self, task: Task) -> bool:
        """Whether other animals saw a stimulus by which the decoded cells can be aligned."""
        answering = self.divided.answering(task)
        return find_shared_stimulus(task, answering, self.earlier) is not None

    def encoder_of(self, arm: str) -> str:
        """The arm whose encoders an arm begins with; equal ones are made once."""
        return next(name for name in self.config.pretrainings if self._learns_like(name, arm))

    def pretrained_directory(self, arm: str, seed: int) -> Path:
        """Where the pretrained encoder of an arm and seed lies."""
        return self.directory / pretrained_name(self.encoder_of(arm), seed)

    def _learns_like(self, one: str, other: str) -> bool:
        first, second = self.config.pretrainings[one], self.config.pretrainings[other]
        return (
            (first.units, first.lines, first.recordings)
            == (second.units, second.lines, second.recordings)
        ) and self.config.pretraining_of(one) == self.config.pretraining_of(other)

    def fits(self) -> list[PlannedFit]:
        """Every decoder to fit."""
        arms = self.config.all_arms
        return [
            PlannedFit(task=task.name, units=units, arm=arm, labels=labels, seed=seed)
            for task in self.tasks
            for units in self.config.units
            for arm in arms_for(
                task,
                self.config.arms,
                arms,
                has_tuning=self.has_tuning(task, units),
                has_alignment=self.has_alignment(task),
            )
            for labels in self.config.budgets(task)
            for seed in range(self._num_seeds(arms[arm].is_seeded, labels))
        ]

    def _num_seeds(self, is_seeded: bool, labels: LabelBudget) -> int:
        return self.config.num_seeds if is_seeded or not labels.is_everything else 1


def pretrained_name(arm: str, seed: int) -> str:
    """Path of a pretrained encoder below the run's directory."""
    return f"pretrained/{file_name(arm)}/seed-{seed}"


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
    _require_different(recordings, earlier)
    require_one_rate([*recordings, *earlier])
    tasks = config.asked() or _default_tasks(recordings)
    divided = divide(recordings, tasks, config.splits)
    divided_earlier = _divide_for_every_task(
        earlier,
        tasks,
        config.earlier_splits or replace(config.splits, train=(), valid=(), test=()),
    )
    is_pretraining = any(name in config.arms for name in config.pretrainings)
    partition = partition_by_predictability(
        divided + divided_earlier,
        config.predictability,
        may_be_empty="predictable" not in config.units and not is_pretraining,
    )
    experiment = Experiment(divided, divided_earlier, partition, config, directory)
    problems = [
        *_problems_of_answers(experiment),
        *_problems_of_windows(experiment),
        *_problems_of_pretraining(experiment),
        *_problems_of_tuning(experiment),
        *_problems_of_alignment(experiment),
        *_problems_of_teachers(experiment),
    ]
    if problems:
        raise RecordingError(" ".join(dict.fromkeys(problems)))
    return experiment


def _default_tasks(recordings: list[Recording]) -> list[Task]:
    names = [
        TASKS[name] for name in DEFAULT_TASKS if any(can_answer(r, TASKS[name]) for r in recordings)
    ]
    if not names:
        found = sorted({name for r in recordings for name in r.stimuli})
        raise RecordingError(
            f"None of {len(recordings)} recordings can answer any default task "
            f"({', '.join(DEFAULT_TASKS)}; found stimuli: {', '.join(found) or 'none'}). The "
            "tasks need drifting gratings, static gratings, or natural movie one with its "
            "pictures. For another question name it in tasks, such as stimulus/column."
        )
    return names


def _require_different(recordings: list[Recording], earlier: Sequence[Recording]) -> None:
    """Refuses to pretrain on a recording that decoders are scored on, whatever it is called."""
    known = {recording.fingerprint(): recording.recording_id for recording in recordings}
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


def _problems_of_answers(experiment: Experiment) -> Iterator[str]:
    """Tasks of which only one label occurs."""
    for task in experiment.tasks:
        try:
            experiment.divided.require_choice(task)
        except RecordingError as error:
            yield str(error)


def _problems_of_windows(experiment: Experiment) -> Iterator[str]:
    """Parts without a window, and classes without the labels that a budget asks for."""
    for units in experiment.config.units:
        population = experiment.population(units)
        for task in experiment.tasks:
            for part in ("train", "test"):
                parts = [d.splits[task.name].part(part) for d in population.divided.answering(task)]
                if not any(map(len, parts)):
                    yield (
                        f"No recording has a {part} part for the task '{task.name}' with units of "
                        f"the group {units}. Name recordings in splits.train and splits.test that "
                        "share units, or leave that to be divided."
                    )
            for d in population.divided.answering(task):
                yield from _problems_of_parts(experiment.config, population, d, task)


def _problems_of_parts(
    config: RunConfig, population: Population, divided: DividedRecording, task: Task
) -> Iterator[str]:
    length = config.encoder.window_timesteps(task.length, population.sampling_rate)
    name = divided.recording.recording_id
    windows = {
        part: population.divided.windows(divided, task, part, length) for part in ("train", "test")
    }
    for part, found in windows.items():
        if len(found) == 0 and len(divided.splits[task.name].part(part)):
            yield (
                f"Recording '{name}' has no {part} window for the task '{task.name}': its windows "
                f"of {task.length} s do not fit into that part. Give it more trials, "
                "give the task a shorter window_length, or leave it out."
            )
    wanted = max(labels.per_class or 0 for labels in config.budgets(task))
    if not task.answer.has_budget or not len(windows["train"]):
        return
    counts = np.bincount(windows["train"].target, minlength=len(population.divided.classes(task)))
    if wanted and wanted > counts.min():
        yield (
            f"Recording '{name}' has {counts.min()} to {counts.max()} training windows per class "
            f"of the task '{task.name}', but labels_per_class asks for {wanted}. Ask for at most "
            f"{counts.min()}."
        )


def _problems_of_pretraining(experiment: Experiment) -> Iterator[str]:
    """Diets that take no unit, and labels to pretrain on that no recording has."""
    for arm in experiment.pretrained_arms:
        try:
            population = experiment.pretraining_population(arm, seed=0)
            pretraining = experiment.pretraining_of(arm, population)
        except RecordingError as error:
            yield f"Arm '{arm}': {error}"
            continue
        task = find_task(pretraining.label_task)
        if pretraining.label_weight > 0 and not population.divided.answering(task):
            yield (
                f"Arm '{arm}': its encoder learns from labels of the task '{task.name}', which no "
                "recording that it is pretrained on was divided for. Add the task to tasks, or "
                "set label_weight: 0."
            )
        yield from _problems_of_transfer(experiment, arm, population)


def _problems_of_transfer(
    experiment: Experiment, arm: str, pretraining: Population
) -> Iterator[str]:
    """Ways to transfer that need units which the encoder will not know."""
    encoder = Encoder(experiment.config.encoder, pretraining.sampling_rate)
    encoder.add_units(pretraining.unit_ids)
    start = Start(encoder=encoder)
    is_placing = experiment.config.pretraining_of(arm).alignment is not None
    for task in experiment.tasks:
        for units in experiment.config.units:
            config = experiment.config.finetuning_of(arm, task)
            decoded = experiment.population(units)
            if is_placing:
                encoder.add_units(decoded.unit_ids)
            try:
                transfer_encoder(start, decoded, config, seed=0)
            except TransferError as error:
                yield f"Arm '{arm}': {error}"


def _problems_of_teachers(experiment: Experiment) -> Iterator[str]:
    """Encoders that would be pretrained in vain, as their teachers can answer none of the tasks."""
    kinds = dict.fromkeys(task.kind for task in experiment.tasks)
    for name in experiment.pretrained_arms:
        arm = experiment.config.all_arms[name]
        if not set(kinds) & set(arm.kinds):
            yield (
                f"Arm '{name}': its teacher '{experiment.config.pretrainings[name].teacher}' "
                f"answers {' and '.join(arm.kinds)}, but the tasks ask for {' and '.join(kinds)}. "
                "Choose another teacher or none, or leave the arm out."
            )


def _problems_of_tuning(experiment: Experiment) -> Iterator[str]:
    """Networks that learn from an earlier day where there is none of the same cells."""
    arms = experiment.config.all_arms
    needing = [name for name in experiment.config.arms if arms[name].needs_tuning]
    can_fit = any(
        experiment.has_tuning(task, units)
        for task in experiment.tasks
        for units in experiment.config.units
    )
    if needing and not can_fit:
        yield (
            f"The arms {needing} learn how cells are tuned from gratings of an earlier day, but no "
            f"task asks for an angle, or none of {len(experiment.earlier)} recordings to pretrain "
            "on shows gratings to the decoded cells. Give such a recording to pretrain on, or "
            "leave the arms out."
        )


def _problems_of_alignment(experiment: Experiment) -> Iterator[str]:
    """Networks that learn from other animals where none of them can be aligned."""
    arms = experiment.config.all_arms
    needing = [name for name in experiment.config.arms if arms[name].needs_alignment]
    if needing and not any(map(experiment.has_alignment, experiment.tasks)):
        asked = ", ".join(task.name for task in experiment.tasks)
        yield (
            f"The arms {needing} learn from other animals that saw what the decoded ones saw, but "
            f"fewer than two of {len(experiment.earlier)} recordings to pretrain on have labels of "
            f"a task ({asked}) and show a stimulus with a column "
            f"{' or '.join(ORDERED_COLUMNS)} that the decoded recordings show, too. Give such "
            "recordings to pretrain on, or leave the arms out."
        )


def claim(experiment: Experiment) -> None:
    """Makes the directory this run's own, or refuses one that belongs to another run."""
    directory = experiment.directory
    mine = {
        "config": json.loads(json.dumps(asdict(experiment.config))),
        "recordings": _fingerprints(experiment.divided),
        "earlier": _fingerprints(experiment.earlier),
    }
    for name in MAY_CHANGE:
        mine["config"].pop(name)
    path = directory / EXPERIMENT
    if path.is_file():
        if json.loads(path.read_text()) != mine:
            raise ValueError(
                f"'{directory}' holds a run of other recordings or another config. Choose a new "
                "output directory, or delete it to start over."
            )
        logger.info("Resuming the run in %s", directory)
        return
    directory.mkdir(parents=True, exist_ok=True)
    write_json(path, mine)


def _fingerprints(divided: Sequence[DividedRecording]) -> dict[str, str]:
    return {d.recording.recording_id: d.recording.fingerprint() for d in divided}
