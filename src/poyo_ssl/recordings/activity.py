"""Normalised activity of chosen units, ready to be cut into windows."""

from __future__ import annotations

from dataclasses import dataclass

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

    Attributes:
        table: Indexed by ``unit_id``, columns ``mean`` and ``sd``.
    """

    table: pd.DataFrame

    @staticmethod
    def measure(recording: Recording, intervals: np.ndarray, unit_ids: list[str]) -> UnitScale:
        """Measures the scale of the named units inside the intervals (seconds, (n, 2))."""
        is_chosen = np.isin(recording.unit_ids, unit_ids)
        recording = recording.select_units(is_chosen)
        traces = recording.df_over_f[recording.is_inside(intervals)]
        mean = traces.mean(axis=0, dtype=np.float64)
        sd = traces.std(axis=0, dtype=np.float64)
        index = pd.Index(recording.unit_ids, name="unit_id")
        return UnitScale(pd.DataFrame({"mean": mean, "sd": sd}, index=index))

    @staticmethod
    def merge(scales: list[UnitScale]) -> UnitScale:
        """One table for several recordings; a cell seen twice keeps its first scale."""
        table = pd.concat([scale.table for scale in scales])
        return UnitScale(table[~table.index.duplicated()])


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
            unit_ids: Units that the recording and the scale both know.
            scale: Mean and standard deviation from training data; a unit that was constant there
                is only shifted.
        """
        column = {unit_id: i for i, unit_id in enumerate(recording.unit_ids)}
        traces = recording.df_over_f[:, [column[unit_id] for unit_id in unit_ids]]
        mean, sd = scale.table.loc[unit_ids, ["mean", "sd"]].to_numpy(dtype=np.float32).T
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
