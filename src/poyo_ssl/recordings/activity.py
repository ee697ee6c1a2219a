"""Normalised activity of chosen units, ready to be cut into windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from poyo_ssl.recordings.recording import Recording

LARGEST_Z = 8.0
"""Standard deviations beyond which activity is clipped; a few artefacts would dominate it."""


@dataclass(frozen=True, eq=False)
class UnitScale:
    """Mean and standard deviation of every unit's ΔF/F on the training timesteps.

    A cell that is tracked across sessions has one row for each: expression, depth of focus and
    neuropil differ between days, and with them the scale of its ΔF/F.
    """

    tables: Mapping[str, pd.DataFrame]
    """Recording id to a table indexed by ``unit_id``, columns ``mean`` and ``sd``."""

    @staticmethod
    def measure(recording: Recording, intervals: np.ndarray, unit_ids: list[str]) -> UnitScale:
        """Measures the scale of the named units inside the intervals (seconds, (n, 2))."""
        is_chosen = np.isin(recording.unit_ids, unit_ids)
        recording = recording.select_units(is_chosen)
        traces = recording.df_over_f[recording.is_inside(intervals)]
        mean = traces.mean(axis=0, dtype=np.float64)
        sd = traces.std(axis=0, dtype=np.float64)
        index = pd.Index(recording.unit_ids, name="unit_id")
        table = pd.DataFrame({"mean": mean, "sd": sd}, index=index)
        return UnitScale({recording.recording_id: table})

    @staticmethod
    def merge(scales: Iterable[UnitScale]) -> UnitScale:
        """The scale of several recordings, each of which keeps its own."""
        return UnitScale({name: table for scale in scales for name, table in scale.tables.items()})

    def table_for(self, recording_id: str) -> pd.DataFrame:
        """What normalises the units of a recording; a unit that is not in it is not known there.

        - A recording that was measured, or another part of it under its name: its own statistics
          and no other unit's, even if another session knows more of its cells. A decoder then
          sees in a recording just the units that it learned from in it.
        - Any other recording, such as another day of the same cells: the statistics of the
          sessions that know the cell, averaged with equal weight. Nothing of the new recording
          is looked at, so its scores owe nothing to its own samples. Where the scale of ΔF/F
          has drifted too far for that, fine-tune on a part of the new day.

        Returns:
            Indexed by ``unit_id``, columns ``mean`` and ``sd``.
        """
        if recording_id not in self.tables:
            return self._average
        return self.tables[recording_id]

    @cached_property
    def _average(self) -> pd.DataFrame:
        everything = pd.concat(self.tables.values())
        return everything.groupby(level="unit_id", sort=False).mean()


@dataclass(frozen=True, kw_only=True, eq=False)
class Activity:
    """Normalised activity of some units of one recording: signed square root of clipped z-scores.

    The square root tames the long tail of calcium transients; it is worth 0.03 to 0.1 of accuracy
    to linear decoders and transformers alike on the sessions we measured.
    """

    recording_id: str
    values: Tensor
    """Shape (num_timesteps, num_units), float32."""
    unit_ids: list[str]
    """In column order."""

    @staticmethod
    def of(recording: Recording, unit_ids: list[str], scale: UnitScale) -> Activity:
        """Cuts out and normalises the units with these ids, in this order.

        A sample that is not a number counts as the unit's mean, as a missing unit does.

        Args:
            recording: The session.
            unit_ids: Units of the recording that the scale knows there.
            scale: Mean and standard deviation from training data, of which those for this
                recording are used; a unit that was constant there is only shifted.
        """
        column = {unit_id: i for i, unit_id in enumerate(recording.unit_ids)}
        traces = recording.df_over_f[:, [column[unit_id] for unit_id in unit_ids]]
        table = scale.table_for(recording.recording_id)
        mean, sd = table.loc[unit_ids, ["mean", "sd"]].to_numpy(dtype=np.float32).T
        z = np.clip((traces - mean) / np.where(sd > 0, sd, 1), -LARGEST_Z, LARGEST_Z)
        z[np.isnan(z)] = 0.0
        values = np.sign(z) * np.sqrt(np.abs(z))
        return Activity(
            recording_id=recording.recording_id,
            values=torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)),
            unit_ids=list(unit_ids),
        )

    def windows(self, first_timestep: np.ndarray, num_timesteps: int) -> Tensor:
        """Gathers windows, shape (num_windows, num_timesteps, num_units)."""
        steps = torch.from_numpy(np.asarray(first_timestep))[:, None] + torch.arange(num_timesteps)
        return self.values[steps]

    def binned(self, first_timestep: np.ndarray, num_timesteps: int, num_bins: int) -> np.ndarray:
        """Mean activity in equal bins of every window, shape (num_windows, num_bins * num_units).

        Bins differ by one timestep at most where the window does not divide evenly.

        Raises:
            ValueError: If there are more bins than timesteps.
        """
        if num_bins > num_timesteps:
            raise ValueError(
                f"A window cannot be divided into {num_bins} bins: it has {num_timesteps} imaging "
                "samples. Ask for fewer bins or a longer window."
            )
        total = torch.cumsum(self.values.double(), dim=0)
        total = torch.cat([torch.zeros_like(total[:1]), total])
        edges = np.linspace(0, num_timesteps, num_bins + 1).round().astype(int)
        at = total[torch.from_numpy(np.asarray(first_timestep)[:, None] + edges)]
        means = at.diff(dim=1) / torch.from_numpy(np.diff(edges))[:, None]
        return means.flatten(1).float().numpy()
