"""What all arms of a comparison share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from poyo_ssl.decoders.fitted_decoder import Question
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.windows.divide import Divided, DividedRecording
from poyo_ssl.windows.label_budget import LabelBudget, LeftOut, take_labels
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.task_windows import TaskWindows
from poyo_ssl.windows.tasks import Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """What all arms of a comparison share: same units, same training windows, same test windows."""

    population: Population
    task: Task
    encoder: EncoderConfig
    config: FinetuningConfig
    seed: int
    labels: LabelBudget | float
    """Labelled training windows that may be learned from; a number is a fraction."""
    pretrained: Callable[[], Encoder] | None = None
    """Gives the pretrained encoder, for the arm that needs one."""
    earlier: Divided = field(default_factory=Divided)
    """Recordings that came before these, to learn from as pretraining does."""
    left_out: LeftOut | None = None
    """Labelled windows that are left out; None: none."""

    @property
    def num_timesteps(self) -> int:
        """Imaging samples in a window, the same for every arm."""
        rate = self.population.sampling_rate
        return self.encoder.window_timesteps(self.task.length, rate)

    def question(self, arm: str) -> Question:
        """The question as a fitted decoder holds it."""
        return Question.about(self.population, self.task, self.num_timesteps, arm)

    def training_windows(self, divided: DividedRecording) -> TaskWindows:
        """The labelled training windows of one recording that the budget leaves."""
        windows = self._labelled_windows(divided)
        if self.left_out is None:
            return windows
        return windows.take(self.left_out.kept(windows.target))

    def left_out_windows(self, divided: DividedRecording) -> TaskWindows:
        """Those of one recording that are left out.

        Raises:
            ValueError: If none are.
        """
        if self.left_out is None:
            raise ValueError("This setting leaves no window out; see Setting.leaving_out.")
        windows = self._labelled_windows(divided)
        return windows.take(self.left_out.left(windows.target))

    def leaving_out(self, num_folds: int) -> list[Setting]:
        """The same setting so many times, each without another part of its training windows."""
        parts = [LeftOut(fold, num_folds, self.left_out) for fold in range(num_folds)]
        return [replace(self, left_out=part) for part in parts]

    def _labelled_windows(self, divided: DividedRecording) -> TaskWindows:
        windows = self.population.divided.windows(divided, self.task, "train", self.num_timesteps)
        return windows.take(take_labels(windows.target, self.labels, self.seed))

    def features(
        self, divided: DividedRecording, windows: TaskWindows, num_bins: int
    ) -> np.ndarray:
        """Binned activity of windows, (num_windows, num_bins * num_units)."""
        activity = self.population.activity[divided.recording.recording_id]
        return activity.binned(windows.first_timestep, windows.num_timesteps, num_bins)

    def num_bins(self, wanted: int) -> int:
        """So many bins, or as many as a window has imaging samples."""
        return min(wanted, self.num_timesteps)

    def unit_ids(self, divided: DividedRecording) -> list[str]:
        """Chosen units of a recording in column order."""
        return self.population.activity[divided.recording.recording_id].unit_ids

    def pictures(self) -> np.ndarray:
        """What the task shows, in [0, 1], (num_pictures, 64, 128)."""
        pictures: np.ndarray = self.population.divided.pictures(self.task).numpy()
        return pictures
