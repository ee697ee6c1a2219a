"""What all arms of a comparison share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from poyo_ssl.decoders.fitted_decoder import Question
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.windows.divide import Divided, DividedRecording
from poyo_ssl.windows.label_budget import LabelBudget, take_labels
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
        windows = self.population.divided.windows(divided, self.task, "train", self.num_timesteps)
        return windows.take(take_labels(windows.target, self.labels, self.seed))

    def features(
        self, divided: DividedRecording, windows: TaskWindows, num_bins: int
    ) -> np.ndarray:
        """Binned activity of windows, (num_windows, num_bins * num_units)."""
        activity = self.population.activity[divided.recording.recording_id]
        return activity.binned(windows.first_timestep, windows.num_timesteps, num_bins)

    def unit_ids(self, divided: DividedRecording) -> list[str]:
        """Chosen units of a recording in column order."""
        return self.population.activity[divided.recording.recording_id].unit_ids

    def pictures(self) -> np.ndarray:
        """What the task shows, in [0, 1], (num_pictures, 64, 128)."""
        pictures: np.ndarray = self.population.divided.pictures(self.task).numpy()
        return pictures
