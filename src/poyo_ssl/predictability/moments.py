"""Central moments of every unit in one pass over the traces, however long they are.

Traces are cut into blocks that fit the processor's cache. The moments of blocks, chunks and whole
files are pooled without a second look at the data, and come out the same in any order.

References:
    Pébay, Sandia report SAND2008-6212 (2008): pooling of central moments up to any order.
    Samuelson, JASA 63 (1968), 1522: none of n samples lies further than √(n - 1) standard
    deviations from their mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import reduce

import h5py
import numpy as np

_BLOCK_TIMESTEPS, _BLOCK_UNITS = 1024, 256
"""Largest block: so large that numpy's calls cost little, yet 2 MB in float64 stay in cache."""

_BYTES_AT_A_TIME = 2**25
"""Traces read at a time, unless one chunk of an HDF5 file is larger."""

_MODERATE_EXPONENT = 200
"""Sums of fourth powers stay well inside float64 for spans between 2^-200 and 2^200, so for all
of float32."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Moments:
    """Count, extremes and the first four moments of every unit, ready to be merged.

    The moments are those of (value - minimum) / scale, so that neither a large offset nor an odd
    unit of measurement costs precision. Nothing but the counts of a unit with non-finite values
    means anything. Arrays have the shape (num_units,).
    """

    count: int
    """Timesteps measured."""
    num_non_finite: np.ndarray
    """NaN and infinite values."""
    minimum: np.ndarray
    """Smallest value."""
    maximum: np.ndarray
    """Largest value."""
    rise: np.ndarray
    """(mean - minimum) / scale."""
    m2: np.ndarray
    """Sum of ((value - mean) / scale)²."""
    m3: np.ndarray
    """The same with the third power."""
    m4: np.ndarray
    """The same with the fourth power."""

    @classmethod
    def of(cls, chunk: np.ndarray) -> Moments:
        """Measures a chunk of traces that is in memory.

        Args:
            chunk: Real numbers, shape (num_timesteps, num_units); at least one timestep.

        Raises:
            ValueError: If the chunk is not two-dimensional or has no timestep.
        """
        if chunk.ndim != 2 or len(chunk) == 0:
            raise ValueError(
                "A chunk must have shape (num_timesteps, num_units) and at least one timestep, "
                f"got {chunk.shape}. Leave empty chunks out."
            )
        timesteps = _slices(len(chunk), _BLOCK_TIMESTEPS)
        parts = np.empty((6, len(timesteps), chunk.shape[1]))
        with np.errstate(invalid="ignore", over="ignore"):
            for units in _slices(chunk.shape[1], _BLOCK_UNITS):
                _measure_blocks(chunk[:, units], timesteps, parts[:, :, units])
        is_finite = np.isfinite(parts[:2]).all(axis=(0, 1))  # extremes show any other value
        num_non_finite = np.zeros(chunk.shape[1], dtype=int)
        num_non_finite[~is_finite] = (~np.isfinite(chunk[:, ~is_finite])).sum(axis=0)
        lengths = np.array([rows.stop - rows.start for rows in timesteps])
        with np.errstate(invalid="ignore", over="ignore"):
            _center(lengths[:, None], parts[2:])
        return _pool(lengths, num_non_finite, parts)

    def merge(self, other: Moments) -> Moments:
        """Moments of the timesteps of both; the units are the same."""
        both = np.stack([self._parts(), other._parts()], axis=1)
        counts = np.array([self.count, other.count])
        return _pool(counts, self.num_non_finite + other.num_non_finite, both)

    def _parts(self) -> np.ndarray:
        return np.stack([self.minimum, self.maximum, self.rise, self.m2, self.m3, self.m4])

    @property
    def scale(self) -> np.ndarray:
        """What the moments are counted in: a power of two, 1 for spans of moderate size."""
        return _scale(self.minimum, self.maximum)

    @property
    def mean(self) -> np.ndarray:
        """Arithmetic mean."""
        return (self.minimum / self.scale + self.rise) * self.scale

    @property
    def skewness(self) -> np.ndarray:
        """m3 / m2^1.5 of the population; NaN for a constant unit."""
        with np.errstate(invalid="ignore"):
            return np.sqrt(self.count) * self.m3 / self.m2**1.5

    @property
    def kurtosis(self) -> np.ndarray:
        """Pearson's m4 / m2² of the population (normal: 3); NaN for a constant unit."""
        with np.errstate(invalid="ignore"):
            return self.count * self.m4 / self.m2**2


def compute_moments(df_over_f: np.ndarray, is_inside: np.ndarray) -> Moments:
    """Reads traces once, some 30 MB at a time, and measures every unit.

    Args:
        df_over_f: Traces of shape (num_timesteps, num_units): an array, a memory map or an
            ``h5py.Dataset``, of which whole stored chunks are read.
        is_inside: The timesteps to use, at least one; booleans of shape (num_timesteps,).
    """
    num_timesteps, num_units = df_over_f.shape
    timesteps_at_a_time, units_at_a_time = _shape_at_a_time(df_over_f)
    timesteps = _slices(num_timesteps, timesteps_at_a_time)
    return _join(
        [
            reduce(Moments.merge, _measure_chunks(df_over_f, is_inside, timesteps, units))
            for units in _slices(num_units, units_at_a_time)
        ]
    )


def _measure_chunks(
    df_over_f: np.ndarray, is_inside: np.ndarray, timesteps: list[slice], units: slice
) -> Iterator[Moments]:
    """Moments of some units in every chunk of timesteps that holds any of those wanted."""
    for rows in timesteps:
        is_wanted = is_inside[rows]
        if is_wanted.any():
            chunk = np.asarray(df_over_f[rows, units])
            yield Moments.of(chunk if is_wanted.all() else chunk[is_wanted])


def _join(groups: list[Moments]) -> Moments:
    """Moments of all units, from those of groups of units over the same timesteps."""
    names = [field.name for field in fields(Moments) if field.name != "count"]
    joined = {name: np.concatenate([getattr(group, name) for group in groups]) for name in names}
    return Moments(count=groups[0].count, **joined)


def _shape_at_a_time(df_over_f: np.ndarray) -> tuple[int, int]:
    """Timesteps and units to read at once: all units if the storage allows, in whole chunks."""
    num_units = df_over_f.shape[1]
    chunks = df_over_f.chunks if isinstance(df_over_f, h5py.Dataset) else None
    timesteps, units = chunks or (1, num_units)
    budget = _BYTES_AT_A_TIME // df_over_f.dtype.itemsize  # values
    units = min(num_units, units * max(1, budget // (timesteps * units)))
    return timesteps * max(1, budget // (timesteps * units)), units


def _slices(stop: int, step: int) -> list[slice]:
    return [slice(first, min(first + step, stop)) for first in range(0, stop, step)]


def _scale(minimum: np.ndarray, maximum: np.ndarray) -> np.ndarray:
    """1, or the power of two next to a span whose fourth power would leave float64."""
    with np.errstate(invalid="ignore", over="ignore"):
        span = np.minimum(maximum - minimum, np.finfo(np.float64).max)
    exponent = np.clip(np.frexp(span)[1], -1000, 1000)
    return np.where(np.abs(exponent) <= _MODERATE_EXPONENT, 1.0, np.ldexp(1.0, exponent))


def _measure_blocks(chunk: np.ndarray, timesteps: list[slice], out: np.ndarray) -> None:
    """Minimum, maximum and sums of the first to fourth power of every block of timesteps.

    Powers are those of (value - minimum) / scale. Sums are products with a row of ones, since
    BLAS adds rows faster than numpy does.

    Args:
        chunk: Traces, shape (num_timesteps, num_units).
        timesteps: The blocks.
        out: What is filled in, shape (6, num_blocks, num_units).
    """
    minimum, maximum, sums = out[0], out[1], out[2:]
    fits_float32 = np.can_cast(chunk.dtype, np.float32)  # then every scale is 1
    ones = np.ones(timesteps[0].stop)
    values, powers = np.empty((2, timesteps[0].stop, chunk.shape[1]))
    for index, rows in enumerate(timesteps):
        block, length = chunk[rows], rows.stop - rows.start
        x, y, one = values[:length], powers[:length], ones[:length]
        minimum[index], maximum[index] = block.min(axis=0), block.max(axis=0)
        scale = np.ones(1) if fits_float32 else _scale(minimum[index], maximum[index])
        np.copyto(x, block)
        if (scale != 1.0).any():
            x /= scale
        x -= minimum[index] / scale
        np.multiply(x, x, out=y)
        sums[0, index], sums[1, index] = one @ x, one @ y
        x *= y
        y *= y
        sums[2, index], sums[3, index] = one @ x, one @ y


def _center(count: np.ndarray, sums: np.ndarray) -> None:
    """Turns sums of powers about the minimum into the mean and sums of powers about it, in place.

    As the minimum is a sample, it lies within √1023 standard deviations of the mean (Samuelson),
    so that no more than six or seven of sixteen digits cancel.

    Args:
        count: Timesteps of each block, shape (num_blocks, 1).
        sums: Sums of the first to fourth power, shape (4, num_blocks, num_units).
    """
    first, second, third, fourth = sums
    mean = first / count
    fourth -= (4 * third - (6 * second - 3 * mean * first) * mean) * mean
    third -= (3 * second - 2 * mean * first) * mean
    second -= mean * first
    first[:] = mean


def _pool(counts: np.ndarray, num_non_finite: np.ndarray, parts: np.ndarray) -> Moments:
    """Moments of several parts together, about their common mean (Pébay 2008).

    Args:
        counts: Timesteps of each part, shape (num_parts,).
        num_non_finite: Non-finite values of all parts, shape (num_units,).
        parts: ``minimum`` to ``m4`` of each part, shape (6, num_parts, num_units).
    """
    n = counts[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        lows, highs = parts[:2]
        minimum, maximum = lows.min(axis=0), highs.max(axis=0)
        scale = _scale(minimum, maximum)
        ratio = np.where(highs > lows, _scale(lows, highs) / scale, 0.0)  # constant: no moments
        rise, m2, m3, m4 = (moment * ratio**k for k, moment in enumerate(parts[2:], start=1))
        rise += lows / scale - minimum / scale
        mean = (n * rise).sum(axis=0) / n.sum()
        d = rise - mean
        return Moments(
            count=int(n.sum()),
            num_non_finite=num_non_finite,
            minimum=minimum,
            maximum=maximum,
            rise=mean,
            m2=(m2 + n * d**2).sum(axis=0),
            m3=(m3 + 3 * d * m2 + n * d**3).sum(axis=0),
            m4=(m4 + 4 * d * m3 + 6 * d**2 * m2 + n * d**4).sum(axis=0),
        )
