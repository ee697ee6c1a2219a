"""Chosen units of divided recordings: what every stage learns from."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
from torch import Tensor

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.activity import Activity, UnitScale
from poyo_ssl.windows.divide import (
    Divided,
    DividedRecording,
    require_one_rate,
    require_training_time,
)
from poyo_ssl.windows.splits import Part
from poyo_ssl.windows.task_windows import TaskWindows, find_any_windows
from poyo_ssl.windows.tasks import Task
from poyo_ssl.windows.training_batches import WindowSource

MADE_BY = (
    "Choose units of divided recordings: partition_by_predictability(divided).population(divided, "
    "'all'), or Population(divided, unit_ids)."
)


class Vocabulary(Protocol):
    """What knows units by name: an encoder."""

    def unit_rows(self, unit_ids: list[str]) -> Tensor:
        """Rows of the units' embeddings, (U,)."""
        ...


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

    def __init__(
        self, divided: Sequence[DividedRecording], unit_ids: Mapping[str, list[str]]
    ) -> None:
        self.divided = Divided(d for d in divided if unit_ids.get(d.recording.recording_id))
        if not len(self.divided):
            raise RecordingError(
                f"No unit is chosen in any of {len(divided)} recordings; nothing can be learned. "
                "If all units are predictable, or none is, take all of them (units: all), or set "
                "other thresholds (skewness_max, kurtosis_max)."
            )
        require_one_rate(self.divided.recordings)
        self.sampling_rate = float(np.median([d.recording.sampling_rate for d in self.divided]))
        require_training_time(self.divided)
        chosen = {key: [str(unit_id) for unit_id in ids] for key, ids in unit_ids.items()}
        self.scale = UnitScale.merge(
            UnitScale.measure(d.recording, d.training, chosen[d.recording.recording_id])
            for d in self.divided
            if not d.is_held_out
        )
        for d in self.divided:  # nothing of a held-out recording is measured
            name = d.recording.recording_id
            known = self.scale.table_for(name).index
            chosen[name] = [unit_id for unit_id in chosen[name] if unit_id in known]
        self._chosen = chosen
        self.activity = self._normalised()

    def _normalised(self) -> dict[str, Activity]:
        return {
            d.recording.recording_id: Activity.of(
                d.recording, self._chosen[d.recording.recording_id], self.scale
            )
            for d in self.divided
        }

    def rescaled(self, scale: UnitScale) -> Population:
        """The same recordings and units, normalised otherwise."""
        population = copy.copy(self)
        population.scale = scale
        population.activity = population._normalised()
        return population

    def __repr__(self) -> str:
        num_recordings = len(self.divided)
        return (
            f"<{len(self.unit_ids)} units of {num_recordings} "
            f"recording{'s' * (num_recordings > 1)} at {self.sampling_rate:.4g} Hz>"
        )

    @property
    def unit_ids(self) -> list[str]:
        """Every unit once, in order of recording and column."""
        return list(dict.fromkeys(u for a in self.activity.values() for u in a.unit_ids))

    def source(
        self,
        encoder: Vocabulary,
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
            unit_index=encoder.unit_rows(activity.unit_ids),
            windows=windows,
            may_start=may_start,
        )

    def labelled_sources(
        self, encoder: Vocabulary, task: Task, part: Part, num_timesteps: int
    ) -> list[WindowSource]:
        """All labelled windows of a part, one source per recording that has any."""
        sources = []
        for divided in self.divided.answering(task):
            windows = self.divided.windows(divided, task, part, num_timesteps)
            intervals = divided.splits[task.name].reach(part)
            if len(windows):
                sources.append(self.source(encoder, divided, windows, intervals))
        return sources

    def unlabelled_sources(
        self,
        encoder: Vocabulary,
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
