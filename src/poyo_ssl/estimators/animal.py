"""Trials of one animal as a recording, so that they are learned from like any other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

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
BATCH_SIZE = 32
"""Trials answered at once; a multiple of what processors add at once."""


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

    def batches(
        self, trials: np.ndarray, scale: UnitScale
    ) -> Iterator[tuple[Activity, np.ndarray]]:
        """Normalised trials, ``BATCH_SIZE`` at a time, and the first timestep of each.

        The last trial comes again until its batch is full: how a sum is rounded depends on the
        size of the batch, and the answer for a trial must not depend on the trials beside it.
        """
        mean, sd = scale.statistics(NAME, self.unit_ids)
        num_batches = -(-len(trials) // BATCH_SIZE)
        rows = np.minimum(np.arange(num_batches * BATCH_SIZE), len(trials) - 1)
        for batch in rows.reshape(num_batches, BATCH_SIZE):
            values = torch.from_numpy(normalise(self._in_a_row(trials[batch]), mean, sd))
            activity = Activity(recording_id=NAME, values=values, unit_ids=self.unit_ids)
            yield activity, np.arange(BATCH_SIZE) * self.num_timesteps

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
