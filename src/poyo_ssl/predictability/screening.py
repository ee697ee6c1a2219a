"""Who is predictable among the units of many recordings, read one at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd

from poyo_ssl.parallel import map_in_parallel
from poyo_ssl.predictability.activity_statistics import ActivityConfig, measure_activity
from poyo_ssl.predictability.partition import Partition, partition_measured
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.predictability.unit_statistics import measure_units
from poyo_ssl.recordings.loading import (
    find_recording_files,
    how_to_tell_apart,
    load_recording,
)
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.windows.splits import SplitConfig, Splits, training_intervals
from poyo_ssl.windows.tasks import TASKS, can_answer, split_task
from poyo_ssl.windows.trial_splits import AFTER_LAST_TRIAL

logger = logging.getLogger(__name__)

_NAMED = 5
"""Recordings that an error names; the log names all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Screening:
    """What was measured in many recordings, and what could not be."""

    units: pd.DataFrame
    """One row per unit, in order of file and column: the columns of ``Partition.units`` except
    ``is_predictable``."""
    activity: pd.DataFrame | None
    """The same units' :func:`measure_activity`, where it was asked for."""
    left_out: Mapping[Path, str]
    """File to the reason why it is not among the units."""
    undivided: pd.DataFrame
    """``recording_id``, ``task`` and ``reason`` of every task that a recording could answer but
    cannot be divided for. All time that showed the task's stimulus was left unmeasured."""
    config: PredictabilityConfig

    @cached_property
    def partition(self) -> Partition:
        """The units, divided into predictable and unpredictable ones over all recordings.

        Raises:
            ValueError: If knees are asked for and there are none; the units stay at hand.
        """
        return partition_measured(self.units, self.config)


def screen(
    paths: str | Path | Iterable[str | Path],
    *,
    splits: SplitConfig,
    predictability: PredictabilityConfig,
    source: SourceConfig,
    activity: ActivityConfig | None = None,
    jobs: int = 1,
    address: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Screening:
    """Measures every unit of every recording on its training time alone.

    Every recording is divided for all tasks it can answer, measured and dropped, so memory is that
    of one recording per worker, and some hundred bytes for each unit. A recording that cannot be
    read does not stop the others.

    Args:
        paths: Files and folders, as for :func:`find_recording_files`. Their order is of no
            importance. Where files have the same recording id, the first by name is measured.
        splits: Valid and test parts of every stimulus, which are not measured.
        predictability: Which units count as predictable.
        source: What the files do not say about themselves.
        activity: Measures event rate, Fano factor, autocorrelation and noise, too.
        jobs: Recordings measured at a time; see :func:`map_in_parallel`.
        address: A Ray cluster to run on.
        on_progress: Called with the recordings done and those in all.

    Raises:
        RecordingError: If no recording can be measured.
    """
    files = find_recording_files(paths)
    measure = partial(
        _measure_file,
        splits=splits,
        predictability=predictability,
        source=source,
        activity=activity,
    )
    outcomes = map_in_parallel(
        measure, files, workers=jobs, address=address, on_progress=on_progress
    )
    measured: dict[str, _Measured] = {}
    first_files: dict[str, Path] = {}
    left_out: dict[Path, str] = {}
    for file, outcome in zip(files, outcomes, strict=True):
        if outcome.value is None:
            left_out[file] = str(outcome.error)
        elif outcome.value.recording_id in measured:
            left_out[file] = (
                f"'{file}' holds recording '{outcome.value.recording_id}', as "
                f"'{first_files[outcome.value.recording_id]}' does. {how_to_tell_apart(file)}"
            )
        else:
            measured[outcome.value.recording_id] = outcome.value
            first_files[outcome.value.recording_id] = file
    _report(left_out, measured)
    return _collect(list(measured.values()), left_out, predictability)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Measured:
    """What is kept of a recording."""

    recording_id: str
    units: pd.DataFrame
    activity: pd.DataFrame | None
    undivided: Mapping[str, str]


def _measure_file(
    path: Path,
    splits: SplitConfig,
    predictability: PredictabilityConfig,
    source: SourceConfig,
    activity: ActivityConfig | None,
) -> _Measured:
    recording = load_recording(path, source)
    training, undivided = find_training_time(recording, splits)
    return _Measured(
        recording_id=recording.recording_id,
        units=measure_units(recording, training, predictability),
        activity=None if activity is None else measure_activity(recording, training, activity),
        undivided=undivided,
    )


def find_training_time(
    recording: Recording, config: SplitConfig
) -> tuple[np.ndarray, dict[str, str]]:
    """The time of a recording that trains every task that it can answer.

    Where it cannot be divided for a task (too few trials, a table that lacks the answer), all
    time of that stimulus is withheld: however someone divides it later, no test was measured.

    Returns:
        Intervals in seconds, shape (num_intervals, 2), and task to the reason of every failure.
    """
    parts, undivided = [], {}
    for task in TASKS.values():
        if can_answer(recording, task):
            try:
                parts.append(split_task(recording, task, config))
            except (ValueError, LookupError) as error:
                undivided[task.name] = str(error)
                parts.append(_withhold(recording.stimulus(task.stimulus)))
    return training_intervals(recording, parts), undivided


def _withhold(presentations: pd.DataFrame) -> Splits:
    """All time of a stimulus, with what the last presentations evoked, as a test part."""
    times = presentations[["start", "end"]].sort_values("start").to_numpy(dtype=float)
    starts, ends = times[:, 0], np.maximum.accumulate(times[:, 1]) + AFTER_LAST_TRIAL
    begins = np.append(True, starts[1:] > ends[:-1])
    shown = np.stack([starts[begins], ends[np.append(begins[1:], True)]], axis=1)
    nothing = np.empty((0, 2))
    return Splits(train=nothing, valid=nothing, test=shown)


def _report(left_out: Mapping[Path, str], measured: Mapping[str, _Measured]) -> None:
    for reason in left_out.values():
        logger.warning("Left out: %s", reason)
    for recording_id, found in measured.items():
        for task, reason in found.undivided.items():
            logger.warning(
                "'%s' is measured without the time of '%s': %s", recording_id, task, reason
            )
    if not measured:
        reasons = list(left_out.values())
        more = f"\n- and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
        raise RecordingError(
            f"None of {len(reasons)} recordings can be measured:\n- "
            + "\n- ".join(reasons[:_NAMED])
            + more
        )


def _collect(
    measured: list[_Measured], left_out: Mapping[Path, str], config: PredictabilityConfig
) -> Screening:
    activities = [found.activity for found in measured if found.activity is not None]
    undivided = [
        (found.recording_id, task, reason)
        for found in measured
        for task, reason in found.undivided.items()
    ]
    return Screening(
        units=pd.concat([found.units for found in measured], ignore_index=True),
        activity=pd.concat(activities, ignore_index=True) if activities else None,
        left_out=left_out,
        undivided=pd.DataFrame(undivided, columns=["recording_id", "task", "reason"]),
        config=config,
    )
