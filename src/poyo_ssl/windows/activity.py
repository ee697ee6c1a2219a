"""Normalised activity of chosen units, ready to be cut into windows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from poyo_ssl.recordings.recording import Recording

LARGEST_Z = 8.0
"""Standard deviations beyond which activity is clipped; a few artefacts would dominate it."""
VALUES_AT_A_TIME = 2**18
"""Samples of a recording that are looked at together: 1 MB in float32, so they stay in cache."""


@dataclass(frozen=True, eq=False)
class UnitScale:
    """What normalises every unit's ΔF/F, measured on the training timesteps.

    A cell that is tracked across sessions has one row for each: expression, depth of focus and
    neuropil differ between days, and with them the scale of its ΔF/F.
    """

    tables: Mapping[str, pd.DataFrame]
    """Recording id to a table indexed by ``unit_id``, columns ``mean`` and ``sd``; where units
    were placed in a space also ``rest``, the normalised activity that networks count as zero."""

    @staticmethod
    def measure(recording: Recording, intervals: np.ndarray, unit_ids: list[str]) -> UnitScale:
        """Measures the scale of the named units inside the intervals (seconds, (n, 2))."""
        columns = np.flatnonzero(np.isin(recording.unit_ids, unit_ids))
        is_inside = recording.is_inside(intervals)

        def blocks() -> Iterator[np.ndarray]:
            for rows in _row_blocks(recording.num_timesteps, len(columns)):
                yield recording.df_over_f[rows][:, columns][is_inside[rows]].astype(np.float64)

        zero = np.zeros(len(columns))
        mean = sum((block.sum(axis=0) for block in blocks()), zero) / is_inside.sum()
        squares = sum((np.square(block - mean).sum(axis=0) for block in blocks()), zero)
        sd = np.sqrt(squares / is_inside.sum())
        index = pd.Index(recording.unit_ids[columns], name="unit_id")
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
            Indexed by ``unit_id``, columns as in :attr:`tables`.
        """
        if recording_id not in self.tables:
            return self._average
        return self.tables[recording_id]

    def statistics(self, recording_id: str, unit_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of known units of a recording, (U,) each, float32.

        The deviation of a unit that was constant is given as 1: it is only shifted.
        """
        table = self.table_for(recording_id)
        mean, sd = table.loc[unit_ids, ["mean", "sd"]].to_numpy(dtype=np.float32).T
        return mean, np.where(sd > 0, sd, 1)

    def rest(self, recording_id: str, unit_ids: list[str]) -> Tensor | None:
        """Normalised activity of known units that networks count as zero, (U,); None for 0."""
        table = self.table_for(recording_id)
        if "rest" not in table:
            return None
        rest = table.loc[unit_ids, "rest"].to_numpy(dtype=np.float32)
        return torch.from_numpy(rest.copy()) if rest.any() else None

    @cached_property
    def _average(self) -> pd.DataFrame:
        everything = pd.concat(self.tables.values())
        return everything.groupby(level="unit_id", sort=False).mean()


def normalise(df_over_f: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Signed square root of clipped z-scores.

    The square root tames the long tail of calcium transients; it is worth 0.03 to 0.1 of accuracy
    to linear decoders and transformers alike on the sessions we measured.

    Args:
        df_over_f: ΔF/F, shape (..., num_units), dimensionless. A sample that is not a number
            counts as the unit's mean, as a missing unit does.
        mean: Mean of every unit, (num_units,).
        sd: Standard deviation of every unit, (num_units,), above zero.

    Returns:
        The shape of ``df_over_f``.
    """
    z = np.clip((df_over_f - mean) / sd, -LARGEST_Z, LARGEST_Z)
    z[np.isnan(z)] = 0.0
    result: np.ndarray = np.sign(z) * np.sqrt(np.abs(z))
    return result


class Windows(NamedTuple):
    """Windows of one recording, as a network reads them."""

    activity: Tensor
    """Normalised, (B, timesteps, U)."""
    unit_index: Tensor
    """Row of each unit in the encoder's unit embedding, (U,)."""


def _row_blocks(num_timesteps: int, num_units: int) -> Iterator[slice]:
    """Stretches of a recording that cover it, each small enough to stay in cache."""
    length = max(1, VALUES_AT_A_TIME // max(1, num_units))
    for first in range(0, num_timesteps, length):
        yield slice(first, first + length)


@dataclass(frozen=True, kw_only=True, eq=False)
class Activity:
    """Activity of some units of one recording, normalised by :func:`normalise`."""

    recording_id: str
    values: Tensor
    """Shape (num_timesteps, num_units), float32 or float16, on any device."""
    unit_ids: list[str]
    """In column order."""
    rest: Tensor | None = None
    """What windows are taken relative to, (num_units,); see :class:`UnitScale`."""
    segments: np.ndarray | None = None
    """Runs of timesteps without a gap, first and one past last, (num_segments, 2); None: one."""

    @staticmethod
    def of(recording: Recording, unit_ids: list[str], scale: UnitScale) -> Activity:
        """Cuts out and normalises the units with these ids, in this order.

        Traces that are mapped from disk are read once, a block at a time: the result is all that
        comes into memory.

        Args:
            recording: The session.
            unit_ids: Units of the recording that the scale knows there.
            scale: Mean and standard deviation from training data, of which those for this
                recording are used; a unit that was constant there is only shifted.
        """
        column = {unit_id: i for i, unit_id in enumerate(recording.unit_ids)}
        columns = [column[unit_id] for unit_id in unit_ids]
        mean, sd = scale.statistics(recording.recording_id, unit_ids)
        values = np.empty((recording.num_timesteps, len(unit_ids)), dtype=np.float32)
        for rows in _row_blocks(*values.shape):
            values[rows] = normalise(recording.df_over_f[rows][:, columns], mean, sd)
        return Activity(
            recording_id=recording.recording_id,
            values=torch.from_numpy(values),
            unit_ids=list(unit_ids),
            rest=scale.rest(recording.recording_id, unit_ids),
            segments=recording.segments,
        )

    @cached_property
    def digest(self) -> str:
        """A name for these very values, the same in either precision and on any device."""
        summary = hashlib.sha256()
        for rows in _row_blocks(*self.values.shape):
            block = self.values[rows].to("cpu", torch.float16)
            summary.update(np.ascontiguousarray(block.numpy()).data)
        return summary.hexdigest()[:16]

    def imaged_since(self, first_timestep: np.ndarray) -> np.ndarray:
        """First timestep without a gap from there to each of these, (num_windows,)."""
        if self.segments is None:
            return np.zeros_like(first_timestep)
        firsts = self.segments[:, 0]
        since: np.ndarray = firsts[np.searchsorted(firsts, first_timestep, side="right") - 1]
        return since

    def to(self, device: torch.device, dtype: torch.dtype) -> Activity:
        """The same activity on a device and in a precision.

        Values lie within sqrt(``LARGEST_Z``) = 2.83 of zero, so float16 is at most 2^-10, a
        thousandth of a standard deviation, away from them.

        Raises:
            ValueError: If the device has no room for it.
        """
        try:
            values = self.values.to(device, dtype)
        except torch.OutOfMemoryError as error:
            megabytes = self.values.numel() * dtype.itemsize / 1e6
            raise ValueError(
                f"The activity of recording '{self.recording_id}' ({megabytes:,.0f} MB as "
                f"{dtype}) does not fit on {device} beside what is there. Set "
                "training.activity_on: memory, training.activity_precision: float16, or train on "
                "fewer recordings."
            ) from error
        return replace(
            self, values=values, rest=None if self.rest is None else self.rest.to(device)
        )

    def windows(
        self, first_timestep: np.ndarray, num_timesteps: int, columns: np.ndarray | None = None
    ) -> Tensor:
        """Gathers windows of some units, or of all, where the activity lies, for a network.

        Args:
            first_timestep: First sample of every window, (num_windows,).
            num_timesteps: Imaging samples in a window.
            columns: Positions of the units, (U,); None for all in order.

        Returns:
            Shape (num_windows, num_timesteps, U), float32.
        """
        gather = gather_in_memory if self.values.device.type == "cpu" else gather_on_device
        windows = gather(self.values, first_timestep, num_timesteps, columns).float()
        if self.rest is None:
            return windows
        return windows - (self.rest if columns is None else self.rest[torch.from_numpy(columns)])

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
        within = np.linspace(0, num_timesteps, num_bins + 1).round().astype(int)
        sums = sums_until(self.values.numpy(), np.asarray(first_timestep)[:, None] + within)
        means = np.diff(sums, axis=1) / np.diff(within)[:, None]
        result: np.ndarray = means.reshape(len(means), num_bins * len(self.unit_ids)).astype(
            np.float32
        )
        return result


def sums_until(values: np.ndarray, timesteps: np.ndarray) -> np.ndarray:
    """Sums of a recording from some common timestep on, of which differences are meant.

    Only what lies between the timesteps is added up, once: a running sum over the whole recording
    would be written and read in double precision.

    Args:
        values: (num_timesteps of the recording, num_units).
        timesteps: Where sums end, exclusive, of any shape.

    Returns:
        In double precision, (*shape of timesteps, num_units).
    """
    edges, place = np.unique(timesteps, return_inverse=True)
    sums = np.zeros((len(edges), values.shape[1]))
    for row, (start, end) in enumerate(pairwise(edges.tolist()), start=1):
        np.add.reduce(values[start:end], axis=0, dtype=np.float64, out=sums[row])
    np.cumsum(sums, axis=0, out=sums)
    result: np.ndarray = sums[place.reshape(timesteps.shape)]
    return result


def gather_in_memory(
    values: Tensor, first_timestep: np.ndarray, num_timesteps: int, columns: np.ndarray | None
) -> Tensor:
    """Windows by numpy, a third of the time that indexing a tensor in memory takes.

    Args:
        values: Activity, (num_timesteps of the recording, num_units).
        first_timestep: First sample of every window, (num_windows,).
        num_timesteps: Imaging samples in a window.
        columns: Positions of the units, (U,); None for all in order.

    Returns:
        Shape (num_windows, num_timesteps, U), of the precision of ``values``.
    """
    rows = values.numpy()
    if columns is None:
        return torch.from_numpy(rows.take(first_timestep[:, None] + np.arange(num_timesteps), 0))
    windows = np.empty((len(first_timestep), num_timesteps, len(columns)), dtype=rows.dtype)
    for window, first in zip(windows, first_timestep.tolist(), strict=True):
        # mode="raise" would write through a buffer; the columns are known to be there
        rows[first : first + num_timesteps].take(columns, axis=1, out=window, mode="clip")
    return torch.from_numpy(windows)


def gather_on_device(
    values: Tensor, first_timestep: np.ndarray, num_timesteps: int, columns: np.ndarray | None
) -> Tensor:
    """The same as one indexing operation of the device; only positions travel to it."""
    first = torch.from_numpy(np.asarray(first_timestep)).to(values.device)
    rows = first[:, None] + torch.arange(num_timesteps, device=values.device)
    if columns is None:
        return values[rows]
    return values[rows[..., None], torch.from_numpy(columns).to(values.device)]
