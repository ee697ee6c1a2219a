"""Activity in bins of a tenth of a second, to be read at any times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from poyo_ssl.recordings.recording import Recording

BIN = 0.1
"""Seconds that a bin lasts about: lags are not told apart more finely."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BinnedActivity:
    """Mean activity in short bins of equal length, none of which crosses a gap in the imaging."""

    values: np.ndarray
    """Mean activity of every bin, z-scored by unit; shape (num_bins, num_units), float32."""
    starts: np.ndarray
    """When every bin begins, seconds, shape (num_bins,)."""
    stop: np.ndarray
    """One past the last bin of the segment that a bin lies in, shape (num_bins,)."""
    bin_length: float
    """Seconds."""

    @classmethod
    def of(cls, recording: Recording) -> BinnedActivity:
        """Bins the traces of a recording; a sample that is not finite counts as the mean."""
        num = max(1, round(BIN * recording.sampling_rate))
        firsts = [np.arange(first, stop - num + 1, num) for first, stop in recording.segments]
        index = np.concatenate(firsts)
        values = np.zeros((len(index), recording.num_units), dtype=np.float32)
        for offset in range(num):
            values += recording.df_over_f[index + offset]
        values /= num
        is_finite = np.isfinite(values)
        values[~is_finite] = 0.0
        num_finite = np.maximum(is_finite.sum(axis=0), 1)
        values -= values.sum(axis=0, dtype=float) / num_finite
        values[~is_finite] = 0.0
        spread = np.sqrt(np.square(values).sum(axis=0, dtype=float) / num_finite)
        values /= np.where(spread > 0, spread, 1.0)
        counts = np.array([len(first) for first in firsts])
        return cls(
            values=values,
            starts=recording.timestamps[index],
            stop=np.repeat(np.cumsum(counts), counts),
            bin_length=num / recording.sampling_rate,
        )

    def over(self, length: float) -> WindowMeans:
        """The mean activity of windows of some length (s), wherever they begin."""
        num = max(1, round(length / self.bin_length))
        total = np.zeros_like(self.values)
        for offset in range(min(num, len(total))):
            total[: len(total) - offset] += self.values[offset:]
        return WindowMeans(activity=self, num_bins=num, means=total / num)


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowMeans:
    """Mean activity of the windows of one length that begin at each bin."""

    activity: BinnedActivity
    num_bins: int
    means: np.ndarray
    """Shape (num_bins of the activity, num_units); wrong where a window would cross a gap."""

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The windows that begin at some times (s).

        Returns:
            Their first bins, shape (num_times,), and which of them were imaged as a whole.
        """
        activity = self.activity
        first = np.searchsorted(activity.starts, times - 0.5 * activity.bin_length)
        inside = np.minimum(first, len(activity.starts) - 1)
        is_imaged = (
            (first < len(activity.starts))
            & (np.abs(activity.starts[inside] - times) <= 0.51 * activity.bin_length)
            & (inside + self.num_bins <= activity.stop[inside])
        )
        return inside, is_imaged
