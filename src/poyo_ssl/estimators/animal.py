"""Trials of one animal as a recording, so that they are learned from like any other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from poyo_ssl.decoders.network import BATCH_SIZE
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.activity import Activity, UnitScale, normalise
from poyo_ssl.windows.divide import Divided, DividedRecording
from poyo_ssl.windows.intervals import as_intervals
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import Splits
from poyo_ssl.windows.tasks import Task

NAME = "trials"
"""What the recording is called, and its stimulus; units are called trials/0, trials/1, ..."""
ANSWER = "answer"
GAP = 4.0
"""Sampling periods from the last sample of a trial to the first of the next: no window crosses
them."""
ROWS = 32
"""Trials of the smallest batch, and a multiple of what processors add at once."""


@dataclass(frozen=True, kw_only=True)
class Animal:
    """Whose trials they are, and how long."""

    num_timesteps: int
    """Samples of a trial that are read: whole patches."""
    num_units: int
    sampling_rate: float
    """Hz."""

    @property
    def unit_ids(self) -> list[str]:
        """A name for every unit, by its column."""
        return [f"{NAME}/{column}" for column in range(self.num_units)]

    def task(self, kind: str) -> Task:
        """What is asked of its trials: ``labels`` or ``values``."""
        length = self.num_timesteps / self.sampling_rate
        return Task(stimulus=NAME, column=ANSWER, kind=kind, window_length=length)

    def population(
        self, trials: np.ndarray, answers: np.ndarray, is_valid: np.ndarray, task: Task
    ) -> Population:
        """Its units, normalised on the training trials.

        Args:
            trials: (num_trials, timesteps, num_units), float32; at least ``num_timesteps`` long.
            answers: Class of each trial, from 0, or its value, (num_trials,).
            is_valid: Whether a trial validates, (num_trials,).
            task: As :meth:`task` gives it.
        """
        order = np.argsort(is_valid, kind="stable")  # so that each part is one interval
        recording = self._recording(trials[order], answers[order])
        starts = recording.stimuli[NAME]["start"].to_numpy()
        end = float(recording.segment_intervals[-1, 1])
        num_train = int(np.sum(~is_valid))
        border = float(starts[num_train]) if num_train < len(starts) else end
        splits = Splits(
            train=as_intervals([(0.0, border)]),
            valid=as_intervals([(border, end)] if border < end else []),
            test=as_intervals([]),
        )
        divided = DividedRecording(recording, {task.name: splits}, {task.name: task})
        return Population(Divided([divided]), {NAME: self.unit_ids})

    def activity(self, trials: np.ndarray, scale: UnitScale) -> tuple[Activity, np.ndarray]:
        """Normalised trials, and the first timestep of each to be asked about.

        The last trial is asked about until whole batches are full: how a sum is rounded depends on
        the size of the batch and the place in it, and no trial's answer may depend on the others.

        Returns:
            The activity, and first timesteps, at least as many as there are trials.
        """
        mean, sd = scale.statistics(NAME, self.unit_ids)
        values = normalise(self._in_a_row(trials), mean, sd)
        activity = Activity(
            recording_id=NAME, values=torch.from_numpy(values), unit_ids=self.unit_ids
        )
        unit = ROWS if len(trials) <= BATCH_SIZE else BATCH_SIZE
        asked = np.minimum(np.arange(-(-len(trials) // unit) * unit), len(trials) - 1)
        return activity, asked * self.num_timesteps

    def _recording(self, trials: np.ndarray, answers: np.ndarray) -> Recording:
        num_timesteps, period = self.num_timesteps, 1 / self.sampling_rate
        # single samples cannot be parted by gaps, and need none: no longer window is read
        gap = GAP - 1 if num_timesteps > 1 else 0.0
        starts = np.arange(len(trials)) * (num_timesteps + gap) * period
        table = {"start": starts, "end": starts + num_timesteps * period, ANSWER: answers}
        return Recording(
            recording_id=NAME,
            df_over_f=self._in_a_row(trials),
            timestamps=(starts[:, None] + np.arange(num_timesteps) * period).ravel(),
            units=pd.DataFrame({"unit_id": self.unit_ids}),
            stimuli={NAME: pd.DataFrame(table)},
        )

    def _in_a_row(self, trials: np.ndarray) -> np.ndarray:
        """One trial after the other, (num_trials * num_timesteps, num_units)."""
        return trials[:, : self.num_timesteps].reshape(-1, self.num_units)
