"""Scores of fitted decoders on recordings, without ever scoring what they learned from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.decoders.loading import load_decoder
from poyo_ssl.evaluation.evaluate import describe_evaluation, evaluate_recording
from poyo_ssl.file_names import DECODERS, EXPERIMENT, SPLITS
from poyo_ssl.model.checkpoints import CONFIG
from poyo_ssl.recordings.loading import load_recordings
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.result_files import ResultsError, naming_damage, read_json
from poyo_ssl.whole_files import write_csv, write_json
from poyo_ssl.windows.divide import DividedRecording
from poyo_ssl.windows.splits import Splits
from poyo_ssl.windows.tasks import Task, can_answer

logger = logging.getLogger(__name__)

_DEFAULT_SOURCE = SourceConfig()


def evaluate_run(
    run: Path,
    files: list[Path],
    output: Path,
    *,
    source: SourceConfig = _DEFAULT_SOURCE,
    arms: Sequence[str] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Scores every fitted decoder of a run on recordings of cells that it knows.

    A recording that the run learned from, or any stretch of it, is scored on its test part only,
    which is refused where there is none. Any other, such as another day of the same cells or a
    part of the session that the run was not given, is scored whole.

    Args:
        run: Directory that ``poyo-ssl run`` or ``poyo-ssl finetune`` wrote.
        files: Recordings.
        output: JSON of the scores. Every answer goes beside it: ``scores.predictions.csv`` for
            ``scores.json``.
        source: What the files do not say about themselves.
        arms: Decoders of these names alone; none: all.
        on_progress: Called with the decoders done and those in all.

    Returns:
        One row per decoder and recording: scores, chance, and the units that were known to both,
        missing from the recording, or unknown to the decoder.

    Raises:
        ResultsError: If the directory is no run, holds no decoder, or none knows a unit of any
            recording.
    """
    learned = LearnedFrom.read(run)
    recordings = load_recordings(files, source)
    names = {r.recording_id: learned.name_of(r) for r in recordings}
    for recording_id, name in names.items():
        if name is None and recording_id in learned.digests:
            logger.info(
                "'%s' has the name of a recording that the run learned from, but was imaged at "
                "other times; it is scored whole, as a part that was never seen.",
                recording_id,
            )
    rows, tables, problems = [], [], []
    for decoder in _decoders(run, arms, on_progress):
        for recording in recordings:
            task = decoder.question.task
            if not can_answer(recording, task):
                problems.append(f"'{recording.recording_id}' cannot answer {task.name}.")
                continue
            try:
                name = names[recording.recording_id]
                parts = None if name is None else learned.parts(name, task)
                # under the name that the decoder knows it by, it has the statistics of its own
                known = recording if name is None else replace(recording, recording_id=name)
                found = evaluate_recording(decoder, known, parts)
            except RecordingError as error:
                problems.append(str(error))
                continue
            row = describe_evaluation(decoder, known, parts, found)
            rows.append({**row, "recording_id": recording.recording_id})
            tables.append(found.predictions.assign(recording=recording.recording_id))
    if not rows:
        raise ResultsError(
            f"No decoder in '{run}' could be scored: " + " ".join(dict.fromkeys(problems))
        )
    for problem in dict.fromkeys(problems):
        logger.warning("Not scored: %s", problem)
    write_csv(output.with_suffix(".predictions.csv"), pd.concat(tables))
    write_json(output, {"run": str(run), "files": [str(f) for f in files], "scores": rows})
    return rows


def _decoders(
    run: Path, arms: Sequence[str], on_progress: Callable[[int, int], None]
) -> Iterator[FittedDecoder]:
    """The fitted decoders of some arms below a directory, in order of name; none: of all."""
    configs = sorted(
        path for path in [run / CONFIG, *run.glob(f"{DECODERS}/**/{CONFIG}")] if path.is_file()
    )
    if not configs:
        raise ResultsError(
            f"'{run}' holds no fitted decoder. Give the directory that 'poyo-ssl run' or "
            "'poyo-ssl finetune' wrote."
        )
    found = set()
    for done, path in enumerate(configs):
        on_progress(done, len(configs))
        decoder = load_decoder(path.parent)
        found.add(decoder.question.arm)
        if not arms or decoder.question.arm in arms:
            yield decoder
    on_progress(len(configs), len(configs))
    if unknown := set(arms) - found:
        raise ResultsError(
            f"'{run}' holds no decoder called {', '.join(sorted(unknown))}. "
            f"It holds: {'; '.join(sorted(found))}."
        )


@dataclass(frozen=True, eq=False)
class LearnedFrom:
    """The recordings that a run learned from."""

    digests: dict[str, str]
    """Recording id to a digest of its traces and timestamps."""
    segments: dict[str, np.ndarray]
    """Recording id to when it was imaged, seconds, (num_segments, 2)."""
    splits: dict[tuple[str, str], Splits]
    """Recording id and task to parts."""

    @staticmethod
    def read(run: Path) -> LearnedFrom:
        """What the run's directory says; without it, training data might be scored.

        Raises:
            ResultsError: If it says nothing, or cannot be read.
        """
        missing = [name for name in (EXPERIMENT, SPLITS) if not (run / name).is_file()]
        if missing:
            found = sorted(path.name for path in run.glob("*"))[:8] if run.is_dir() else []
            raise ResultsError(
                f"'{run}' is no run: {' and '.join(missing)} missing "
                f"(found: {', '.join(found) or 'nothing'}). Give the directory that 'poyo-ssl run' "
                "or 'poyo-ssl finetune' wrote, not one inside it."
            )
        experiment = read_json(run / EXPERIMENT, {"recordings": dict})
        segments, splits = {}, {}
        with naming_damage(run / EXPERIMENT):
            digests = {**experiment["recordings"], **experiment.get("earlier", {})}
        with naming_damage(run / SPLITS):
            for row in read_json(run / SPLITS, {"recording_id": str, "task": str}):
                intervals = {
                    name: np.array(row[name], dtype=float).reshape(-1, 2)
                    for name in ("segments", "train", "valid", "test", "guard")
                }
                segments[row["recording_id"]] = intervals.pop("segments")
                splits[row["recording_id"], row["task"]] = Splits(**intervals)
        return LearnedFrom(digests, segments, splits)

    def name_of(self, recording: Recording) -> str | None:
        """The id under which the run learned from a recording; None if it did not.

        It is the same recording if its traces are, whatever it is called now, or if it has the
        name and shares imaging time: neither with units left out nor cut in time is it a new
        session. What has the name but was imaged at other times is new.
        """
        digest = recording.fingerprint()
        for name, known in self.digests.items():
            if known == digest:
                return name
        segments = self.segments.get(recording.recording_id)
        if segments is None:
            return None
        # the next part of a session may begin, by jitter, just before the last sample has ended
        jitter = np.array([0, 0.5 / recording.sampling_rate])
        is_seen = recording.is_inside(segments - jitter)
        return recording.recording_id if is_seen.any() else None

    def parts(self, name: str, task: Task) -> Splits:
        """The parts into which the run divided a recording for a task.

        Raises:
            RecordingError: If it was divided for other tasks only, so that nothing of it was
                withheld from this one.
        """
        if (name, task.name) not in self.splits:
            others = sorted(other for known, other in self.splits if known == name)
            raise RecordingError(
                f"The run learned from recording '{name}' without a test part for {task.name} "
                f"(it has one for: {', '.join(others) or 'no task'}). Score it on a recording "
                "that the run did not learn from, or run again with that task."
            )
        return self.splits[name, task.name]


def describe_splits(divided: DividedRecording) -> list[dict[str, Any]]:
    """The parts of a recording for every task, and when it was imaged, seconds; JSON-ready."""
    return [
        {
            "recording_id": divided.recording.recording_id,
            "task": task,
            "segments": divided.recording.segment_intervals.tolist(),
            **{part: getattr(parts, part).tolist() for part in ("train", "valid", "test", "guard")},
        }
        for task, parts in divided.splits.items()
    ]
