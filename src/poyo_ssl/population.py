"""Recordings divided into parts, and chosen units of them: what every stage learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from poyo_ssl.model.encoder import Encoder
from poyo_ssl.model.movie_decoder import IMAGE_SIZE
from poyo_ssl.recordings.activity import Activity, UnitScale
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sampling import WindowSource
from poyo_ssl.recordings.splits import SplitConfig, Splits, training_intervals
from poyo_ssl.recordings.tasks import (
    Task,
    TaskWindows,
    can_answer,
    find_any_windows,
    find_classes,
    find_windows,
    split_task,
)

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


class Population:
    """Chosen units of divided recordings, each normalised on its recording's training part.

    Units are chosen recording by recording. A cell that is tracked across sessions may be chosen
    in some of them only, such as a cell that was predictable on one day and not on the other; in
    those it has one embedding and as many scales as sessions.

    Args:
        divided: Recordings and their parts.
        unit_ids: Recording id to the ids of its chosen units, in column order.

    Raises:
        RecordingError: If no unit is chosen, the recordings' sampling rates differ, or the tasks
            leave nothing of a recording to train on.
    """

    def __init__(self, divided: list[DividedRecording], unit_ids: Mapping[str, list[str]]) -> None:
        self.divided = [d for d in divided if unit_ids.get(d.recording.recording_id)]
        if not self.divided:
            raise RecordingError(
                f"No unit is chosen in any of {len(divided)} recordings; nothing can be learned."
            )
        require_one_rate([d.recording for d in self.divided])
        self.sampling_rate = float(np.median([d.recording.sampling_rate for d in self.divided]))
        _require_training_time(self.divided)
        chosen = {key: [str(unit_id) for unit_id in ids] for key, ids in unit_ids.items()}
        self.scale = UnitScale.merge(
            UnitScale.measure(d.recording, d.training, chosen[d.recording.recording_id])
            for d in self.divided
        )
        self.activity = {
            d.recording.recording_id: Activity.of(
                d.recording, chosen[d.recording.recording_id], self.scale
            )
            for d in self.divided
        }

    @property
    def unit_ids(self) -> list[str]:
        """Every unit once, in order of recording and column."""
        return list(dict.fromkeys(u for a in self.activity.values() for u in a.unit_ids))

    def answering(self, task: Task) -> list[DividedRecording]:
        """The recordings that can answer a task."""
        return [d for d in self.divided if task.name in d.splits]

    def classes(self, task: Task) -> np.ndarray:
        """Every answer that occurs in the recordings, sorted."""
        return find_classes([d.recording for d in self.divided], task)

    def pictures(self, task: Task) -> Tensor:
        """The pictures a task asks for, grey in [0, 1], (num_pictures, 64, 128).

        Raises:
            RecordingError: If recordings show different pictures under one name.
        """
        templates = [d.recording.templates[task.stimulus] for d in self.answering(task)]
        if any(not np.array_equal(templates[0], other) for other in templates[1:]):
            raise RecordingError(
                f"The recordings show different pictures as {task.stimulus}; run them separately."
            )
        return resize_pictures(templates[0])

    def windows(
        self, divided: DividedRecording, task: Task, part: Part, num_timesteps: int
    ) -> TaskWindows:
        """The windows of a task in one part of one recording."""
        splits = divided.splits[task.name]
        return find_windows(
            divided.recording,
            task,
            splits.part(part),
            self.classes(task),
            num_timesteps,
            reach=splits.reach(part),
        )

    def source(
        self,
        encoder: Encoder,
        divided: DividedRecording,
        windows: TaskWindows,
        intervals: np.ndarray,
    ) -> WindowSource:
        """Labelled windows of one recording, free to move inside the intervals."""
        activity = self.activity[divided.recording.recording_id]
        may_start = np.zeros(divided.recording.num_timesteps, dtype=bool)
        may_start[find_any_windows(divided.recording, intervals, windows.num_timesteps)] = True
        return WindowSource(
            activity=activity,
            unit_index=unit_rows(encoder, activity.unit_ids),
            first_timestep=windows.first_timestep,
            target=windows.target,
            may_start=may_start,
        )

    def labelled_sources(
        self, encoder: Encoder, task: Task, part: Part, num_timesteps: int
    ) -> list[WindowSource]:
        """All labelled windows of a part, one source per recording that has any."""
        sources = []
        for divided in self.answering(task):
            windows = self.windows(divided, task, part, num_timesteps)
            intervals = divided.splits[task.name].reach(part)
            if len(windows):
                sources.append(self.source(encoder, divided, windows, intervals))
        return sources

    def unlabelled_sources(
        self,
        encoder: Encoder,
        num_timesteps: int,
        *,
        part: Literal["train", "valid"] = "train",
        stride: int = 1,
    ) -> list[WindowSource]:
        """All windows of the training or validation part whatever was shown; never of the test."""
        sources = []
        for divided in self.divided:
            intervals = {"train": divided.training, "valid": divided.validation}[part]
            first = find_any_windows(divided.recording, intervals, num_timesteps)[::stride]
            windows = TaskWindows(
                first_timestep=first,
                num_timesteps=num_timesteps,
                target=np.full(len(first), -1),
            )
            if len(first):
                sources.append(self.source(encoder, divided, windows, intervals))
        return sources


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


def _require_training_time(divided: list[DividedRecording]) -> None:
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


def unit_rows(encoder: Encoder, unit_ids: list[str]) -> Tensor:
    """Rows of the units' embeddings, (U,)."""
    return torch.tensor(encoder.unit_embedding.tokenizer(unit_ids), dtype=torch.long)


def resize_pictures(pictures: np.ndarray) -> Tensor:
    """Grey pictures (n, height, width), uint8, to float in [0, 1] of 64 x 128 pixels."""
    scaled = torch.tensor(np.ascontiguousarray(pictures)).float()[:, None] / 255.0
    if scaled.shape[-2:] != IMAGE_SIZE:
        scaled = torch.nn.functional.interpolate(
            scaled, size=IMAGE_SIZE, mode="bilinear", antialias=True
        )
    return scaled[:, 0].clamp(0, 1)
