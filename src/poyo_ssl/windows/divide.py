"""Recordings divided into parts: what may be learned from, validated on and tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.splits import SplitConfig, Splits, training_intervals
from poyo_ssl.windows.tasks import Task, can_answer, split_task

Part = Literal["train", "valid", "test"]


@dataclass(frozen=True, eq=False)
class DividedRecording:
    """A recording, its parts for every task, and what no task withholds."""

    recording: Recording
    splits: Mapping[str, Splits]
    """Task name to parts, for the tasks that the recording can answer."""

    @cached_property
    def training(self) -> np.ndarray:
        """Time that neither validates nor tests any task, seconds, (n, 2)."""
        return training_intervals(self.recording, list(self.splits.values()))

    @cached_property
    def validation(self) -> np.ndarray:
        """Time that validates some task and tests none: monitors pretraining, seconds, (n, 2)."""
        valid = np.concatenate([np.empty((0, 2)), *(s.valid for s in self.splits.values())])
        tested = np.concatenate([np.empty((0, 2)), *(s.test for s in self.splits.values())])
        overlaps = [np.any((tested[:, 0] < end) & (tested[:, 1] > start)) for start, end in valid]
        return valid[~np.array(overlaps, dtype=bool)]


def divide(
    recordings: list[Recording], tasks: list[Task], config: SplitConfig
) -> list[DividedRecording]:
    """Divides every recording for every task that it can answer.

    Raises:
        RecordingError: If some task can be answered by no recording.
    """
    for task in tasks:
        if not any(can_answer(recording, task) for recording in recordings):
            found = sorted({name for r in recordings for name in r.stimuli})
            raise RecordingError(
                f"None of {len(recordings)} recordings can answer the task '{task.name}', which "
                f"needs {task.stimulus}{' and its pictures' if task.kind == 'images' else ''} "
                f"(found: {', '.join(found) or 'no stimulus at all'}). Choose another task."
            )
    return [
        DividedRecording(
            recording,
            {
                task.name: split_task(recording, task, config)
                for task in tasks
                if can_answer(recording, task)
            },
        )
        for recording in recordings
    ]


def require_one_rate(recordings: list[Recording]) -> None:
    """Refuses recordings of different sampling rates.

    Raises:
        RecordingError: If the rates differ by more than 2 %.
    """
    rates = [recording.sampling_rate for recording in recordings]
    if max(rates) > 1.02 * min(rates):
        raise RecordingError(
            f"The recordings are sampled at {min(rates):.2f} to {max(rates):.2f} Hz; one model "
            "needs one rate. Run them separately, or resample them first."
        )


def require_training_time(divided: list[DividedRecording]) -> None:
    """Refuses recordings of which nothing is left to train on, and says which tasks took it."""
    problems = []
    for d in divided:
        if d.recording.is_inside(d.training).any():
            continue
        shares = {name: d.recording.is_inside(s.withheld).mean() for name, s in d.splits.items()}
        takers = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share > 0)
        problems.append(f"Recording '{d.recording.recording_id}' ({takers})")
    if problems:
        raise RecordingError(
            "Nothing is left to train on: the valid, test and guard parts of the tasks together "
            f"withhold all of {'; '.join(problems)}. Divide for fewer tasks at once, lower "
            "valid_fraction, test_fraction, held_out_blocks or guard, or leave the recording out."
        )
