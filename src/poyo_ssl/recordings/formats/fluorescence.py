"""ΔF/F from raw fluorescence."""

from __future__ import annotations

import logging

import numpy as np
from scipy.ndimage import percentile_filter
from scipy.stats import norm

from poyo_ssl.recordings.recording import RecordingError

logger = logging.getLogger(__name__)

_MAD_TO_SD = 1 / norm.ppf(0.75)  # of a normal distribution
_SHORTEST_WINDOW = 3
"""Timesteps; in fewer, the baseline is the trace itself."""


def compute_df_over_f(
    fluorescence: np.ndarray,
    sampling_rate: float,
    *,
    baseline_percentile: float,
    baseline_window: float,
    where: str = "fluorescence",
) -> np.ndarray:
    """Turns fluorescence into ΔF/F, ``(F - F0) / F0``, with a baseline F0 that follows bleaching.

    F0 is an exact percentile of the window centred on every timestep; beyond its ends the trace
    is mirrored, and a window longer than the trace is cut to it. Where F0 lies below the noise
    of the trace, as it may after neuropil was subtracted, dividing by it would blow the trace up
    or turn it over: there ``F - F0`` is divided by the standard deviation of the noise, as the
    Allen Institute does. A warning counts such units.

    A missing sample (NaN or infinite) is bridged linearly to find F0, and is missing (NaN) in the
    result. A trace that holds no light at all (missing throughout, or constant and not positive)
    becomes NaN throughout.

    Args:
        fluorescence: Shape (num_timesteps, num_units), any unit, background subtracted or not.
        sampling_rate: Hz.
        baseline_percentile: In [0, 100); of the samples in the window, the one of this rank.
        baseline_window: Seconds.
        where: File or series, for warnings and errors.

    Returns:
        ΔF/F, shape (num_timesteps, num_units), float32, dimensionless.

    Raises:
        ValueError: If the shape is not two-dimensional.
        RecordingError: If the baseline window, cut to the recording, holds too few samples.

    References:
        ``compute_dff_windowed_median`` in ``allensdk.brain_observatory.dff``: division by the
        larger of baseline and noise (there F0 is a median, here a low percentile).
    """
    if fluorescence.ndim != 2:
        raise ValueError(
            "fluorescence must have shape (num_timesteps, num_units), got "
            f"{fluorescence.shape}. For one trace, use fluorescence[:, None]."
        )
    window = _window_timesteps(baseline_window, sampling_rate, len(fluorescence), where)
    df_over_f = np.empty(fluorescence.shape, dtype=np.float32)
    num_noisy = 0
    for unit in range(fluorescence.shape[1]):
        trace = fluorescence[:, unit].astype(np.float64)
        is_missing = ~np.isfinite(trace)
        _bridge(trace, is_missing)
        baseline = percentile_filter(trace, baseline_percentile, size=window, mode="reflect")
        noise = _noise_level(trace)
        divisor = np.maximum(baseline, noise)
        divisor[(divisor <= 0) | is_missing] = np.nan
        df_over_f[:, unit] = (trace - baseline) / divisor
        num_noisy += bool(np.any(baseline < noise))
    if num_noisy:
        logger.warning(
            "%s: the baseline F0 of %d of %d units falls below the noise of their traces; there "
            "F - F0 is divided by the noise instead. Subtract less neuropil, or check that the "
            "traces are raw fluorescence.",
            where,
            num_noisy,
            fluorescence.shape[1],
        )
    return df_over_f


def _window_timesteps(
    baseline_window: float, sampling_rate: float, num_timesteps: int, where: str
) -> int:
    """An odd number of timesteps, so that the window has a centre, and no more than there are."""
    timesteps = min(round(baseline_window * sampling_rate) | 1, num_timesteps)
    if timesteps < _SHORTEST_WINDOW:
        raise RecordingError(
            f"{where}: a baseline window of {baseline_window} s at {sampling_rate} Hz holds "
            f"{timesteps} of {num_timesteps} samples; at least {_SHORTEST_WINDOW} are needed. "
            "Raise baseline_window, or check the sampling rate."
        )
    return timesteps if timesteps % 2 else timesteps - 1


def _bridge(trace: np.ndarray, is_missing: np.ndarray) -> None:
    """Puts straight lines where samples are missing; a trace without any sample stays NaN."""
    if is_missing.any():
        measured = np.flatnonzero(~is_missing)
        missing = np.flatnonzero(is_missing)
        trace[missing] = np.interp(missing, measured, trace[measured]) if len(measured) else np.nan


def _noise_level(trace: np.ndarray) -> float:
    """Standard deviation of white noise with the median absolute step of the trace.

    Transients are slow or rare beside the steps from sample to sample, so they hardly count.
    """
    return float(_MAD_TO_SD * np.median(np.abs(np.diff(trace))) / np.sqrt(2))
