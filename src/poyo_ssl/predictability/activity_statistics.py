"""What else tells units apart: event rate, Fano factor, autocorrelation and noise.

Skewness and kurtosis decide who is predictable (:mod:`poyo_ssl.predictability.partition`). The
statistics here are the alternatives: a study of the choice joins their table to the units' on
``unit_id``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

from poyo_ssl.recordings.recording import Recording

STATISTICS = ("event_rate", "fano_factor", "autocorrelation", "noise_level")
"""Columns of the table, in order."""

_MEDIAN_STEP_OF_NOISE = float(np.sqrt(2.0) * ndtri(0.75))
"""Median |x(t+1) - x(t)| of white normal noise with standard deviation 1: about 0.954."""

_BYTES_AT_A_TIME = 2**26
"""Traces held in float64 at a time; the steps on the way take about four times as much."""


@dataclass(frozen=True, kw_only=True)
class ActivityConfig:
    """What counts as an event, and where events are counted."""

    event_threshold: float = 4.0
    """Noise standard deviations above the median that a trace must cross upwards. White noise
    alone does so every 17 minutes at 30 Hz."""
    bin_length: float = 1.0
    """Seconds in which events are counted for the Fano factor; at least one timestep."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be positive, got {value}."
            for name, value in vars(self).items()
            if not (np.isfinite(value) and value > 0)
        ]
        if problems:
            raise ValueError(" ".join(problems))


_DEFAULT_CONFIG = ActivityConfig()


def measure_activity(
    recording: Recording, intervals: np.ndarray, config: ActivityConfig = _DEFAULT_CONFIG
) -> pd.DataFrame:
    """Measures every unit of a recording on its training time alone.

    Args:
        recording: The recording.
        intervals: Training intervals in seconds, shape (num_intervals, 2), half-open.
        config: What counts as an event.

    Returns:
        One row per unit in column order: ``recording_id``, ``unit_id`` and the columns of
        :func:`compute_activity_statistics`.
    """
    runs = find_runs(recording, intervals)
    statistics = compute_activity_statistics(
        recording.df_over_f, recording.sampling_rate, runs, config
    )
    statistics.insert(0, "recording_id", recording.recording_id)
    statistics.insert(1, "unit_id", recording.unit_ids)
    return statistics


def find_runs(recording: Recording, intervals: np.ndarray) -> np.ndarray:
    """The stretches of timesteps inside the intervals that no gap and no border divides.

    Args:
        recording: The recording.
        intervals: Start and end in seconds, shape (num_intervals, 2), half-open.

    Returns:
        First timestep and one past the last of every run, shape (num_runs, 2).
    """
    borders = np.searchsorted(recording.timestamps, np.ravel(intervals))
    edges = np.unique(np.concatenate([recording.segments.ravel(), borders]))
    runs = np.stack([edges[:-1], edges[1:]], axis=1)
    return runs[recording.is_inside(intervals)[runs[:, 0]]]


def compute_activity_statistics(
    df_over_f: np.ndarray,
    sampling_rate: float,
    runs: np.ndarray | None = None,
    config: ActivityConfig = _DEFAULT_CONFIG,
) -> pd.DataFrame:
    """Measures events, regularity and noise of each unit, a group of units at a time.

    - ``noise_level``: median |ΔF/F(t+1) - ΔF/F(t)| over the root of the sampling rate, in
      % / √Hz; about 1 is clean, 8 noisy (Rupprecht et al. 2021).
    - ``event_rate``: upward crossings a second (Hz) of the median plus ``event_threshold``
      standard deviations of the noise, which follow from the same median difference as if the
      noise were white and normal.
    - ``fano_factor``: variance over mean of the number of events in successive bins of
      ``bin_length`` seconds (1 for a Poisson process); a rest at the end of a run is left out.
    - ``autocorrelation``: Pearson's correlation of successive timesteps.

    Args:
        df_over_f: ΔF/F traces, shape (num_timesteps, num_units), dimensionless: any array that
            can be sliced, on disk or in memory.
        sampling_rate: Imaging rate in Hz.
        runs: Timesteps to use: first and one past the last of stretches without a gap, shape
            (num_runs, 2), as :func:`find_runs` gives them. No difference, event or bin reaches
            from one into the next. By default all timesteps, as one run.
        config: What counts as an event.

    Returns:
        One row per unit, in column order, with the four columns above. All are NaN for a unit
        that is constant, has non-finite values or has no two successive timesteps;
        ``fano_factor`` also for one without events.

    Raises:
        ValueError: If ``df_over_f`` is not two-dimensional, ``sampling_rate`` is not positive or
            ``runs`` lie outside the traces.

    References:
        Rupprecht et al., Nature Neuroscience 24 (2021), 1324-1337: standardised noise level.
    """
    if df_over_f.ndim != 2:
        raise ValueError(
            "df_over_f must have shape (num_timesteps, num_units), "
            f"got {df_over_f.shape}. For one trace, use df_over_f[:, None]."
        )
    if not (np.isfinite(sampling_rate) and sampling_rate > 0):
        raise ValueError(f"sampling_rate must be a positive number of Hz, got {sampling_rate}.")
    num_timesteps, num_units = df_over_f.shape
    runs = np.array([[0, num_timesteps]]) if runs is None else _check_runs(runs, num_timesteps)
    lengths = runs[:, 1] - runs[:, 0]
    statistics = np.full((num_units, len(STATISTICS)), np.nan)
    if lengths.max(initial=0) >= 2:
        units_at_a_time = max(1, _BYTES_AT_A_TIME // (8 * int(lengths.sum())))
        for first in range(0, num_units, units_at_a_time):
            group = slice(first, first + units_at_a_time)
            pieces = [df_over_f[start:stop, group] for start, stop in runs]
            traces = np.concatenate(pieces).T.astype(np.float64, order="C")
            statistics[group] = _describe(traces, lengths, sampling_rate, config)
    return pd.DataFrame(statistics, columns=list(STATISTICS))


def _check_runs(runs: np.ndarray, num_timesteps: int) -> np.ndarray:
    """The runs that hold timesteps, shape (num_runs, 2), after a look at where they lie."""
    runs = np.reshape(runs, (-1, 2))
    is_wrong = (runs[:, 0] < 0) | (runs[:, 1] < runs[:, 0]) | (runs[:, 1] > num_timesteps)
    if is_wrong.any():
        start, stop = runs[is_wrong][0]
        raise ValueError(
            f"Run {np.flatnonzero(is_wrong)[0]} spans timesteps {start} to {stop}, but the traces "
            f"have {num_timesteps}. Give first and one past the last timestep of each run."
        )
    return runs[runs[:, 1] > runs[:, 0]]


def _describe(
    traces: np.ndarray, lengths: np.ndarray, sampling_rate: float, config: ActivityConfig
) -> np.ndarray:
    """The statistics of a few units, shape (num_units, 4).

    Args:
        traces: ΔF/F of all runs, one after the other, shape (num_units, num_timesteps), float64.
        lengths: Timesteps of each run, shape (num_runs,).
        sampling_rate: Imaging rate in Hz.
        config: What counts as an event.
    """
    is_usable = np.isfinite(traces).all(axis=1) & (traces != traces[:, :1]).any(axis=1)
    traces = traces[is_usable]
    follows = np.ones(traces.shape[1], dtype=bool)  # has a timestep before it in its run
    follows[np.cumsum(lengths)[:-1]] = follows[0] = False
    later = np.flatnonzero(follows)
    before, after = traces[:, later - 1], traces[:, later]

    median_step = np.median(np.abs(after - before), axis=1)
    noise = median_step / _MEDIAN_STEP_OF_NOISE
    threshold = np.median(traces, axis=1) + config.event_threshold * noise
    is_event = np.zeros(traces.shape, dtype=bool)
    is_event[:, later] = (before <= threshold[:, None]) & (after > threshold[:, None])
    timesteps_per_bin = max(1, round(config.bin_length * sampling_rate))

    statistics = np.full((len(is_usable), len(STATISTICS)), np.nan)
    statistics[is_usable] = np.stack(
        [
            is_event.mean(axis=1) * sampling_rate,
            _fano_factor(_count_in_bins(is_event, lengths, timesteps_per_bin)),
            _correlation(before, after),
            100.0 * median_step / np.sqrt(sampling_rate),
        ],
        axis=1,
    )
    return statistics


def _count_in_bins(is_event: np.ndarray, lengths: np.ndarray, timesteps_per_bin: int) -> np.ndarray:
    """Events in every whole bin of every run, shape (num_units, num_bins)."""
    stops = np.cumsum(lengths)
    whole = lengths // timesteps_per_bin * timesteps_per_bin
    counts = [
        is_event[:, stop - length : stop - length + part]
        .reshape(len(is_event), -1, timesteps_per_bin)
        .sum(axis=2)
        for stop, length, part in zip(stops, lengths, whole, strict=True)
        if part
    ]
    return np.concatenate([np.empty((len(is_event), 0), dtype=int), *counts], axis=1)


def _fano_factor(counts: np.ndarray) -> np.ndarray:
    """Sample variance over mean of each row; NaN without events or with fewer than two bins."""
    factors = np.full(len(counts), np.nan)
    if counts.shape[1] >= 2:
        has_events = counts.any(axis=1)
        counts = counts[has_events]
        factors[has_events] = counts.var(axis=1, ddof=1) / counts.mean(axis=1)
    return factors


def _correlation(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each row with that of the other; NaN where one is constant."""
    one = one - one.mean(axis=1, keepdims=True)
    two = two - two.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.vecdot(one, one) * np.vecdot(two, two))
    return np.divide(np.vecdot(one, two), spread, out=np.full(len(one), np.nan), where=spread > 0)
