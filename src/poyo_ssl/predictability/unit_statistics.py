"""Skewness and kurtosis of every unit: traces in, one row per unit out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from poyo_ssl.predictability.moments import Moments, compute_moments
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.recordings.recording import Recording

NORMAL_KURTOSIS = 3.0
"""Pearson's kurtosis of a normal distribution; excess kurtosis is what lies above it."""

_MIN_ROUNDING_STEPS = 4
"""A trace whose whole range is fewer rounding steps than this shows rounding, not activity."""

TOO_SHORT = "too short"
"""Why units are not judged that have activity, but too little."""


def compute_predictability(
    df_over_f: np.ndarray, is_inside: np.ndarray | None = None
) -> pd.DataFrame:
    """Measures how regular the activity of each unit is.

    Rare, large calcium transients raise the skewness and kurtosis of a trace; a unit low in both
    is called predictable. Traces are read once and some 30 MB at a time, so they may be larger than
    memory. Statistics are computed in double precision, whatever the traces are stored in.

    Args:
        df_over_f: ΔF/F traces, shape (num_timesteps, num_units), dimensionless: an array, a
            memory map or an ``h5py.Dataset``.
        is_inside: The timesteps to use, booleans of shape (num_timesteps,); all by default.

    Returns:
        One row per unit, in column order: ``skewness``, ``kurtosis`` (Pearson's: a normal
        distribution scores 3) and ``excluded``, the reason why both are NaN, otherwise empty.

    Raises:
        ValueError: If ``df_over_f`` is not two-dimensional or has no units, or ``is_inside`` does
            not fit it.

    References:
        Bae et al., arXiv:2510.18516: low skewness and kurtosis stand for regular activity.
    """
    if df_over_f.ndim != 2:
        raise ValueError(
            "df_over_f must have shape (num_timesteps, num_units), "
            f"got {df_over_f.shape}. For one trace, use df_over_f[:, None]."
        )
    num_timesteps, num_units = df_over_f.shape
    if num_units == 0:
        raise ValueError(f"df_over_f of shape {df_over_f.shape} has no unit to measure.")
    if is_inside is None:
        is_inside = np.ones(num_timesteps, dtype=bool)
    if is_inside.shape != (num_timesteps,) or is_inside.dtype != bool:
        raise ValueError(
            f"is_inside must hold one boolean for each of {num_timesteps} timesteps, "
            f"got {is_inside.dtype} of shape {is_inside.shape}."
        )
    if not is_inside.any():
        nothing = np.full(num_units, np.nan)
        return pd.DataFrame({"skewness": nothing, "kurtosis": nothing, "excluded": "no timesteps"})
    return _describe_units(compute_moments(df_over_f, is_inside), df_over_f.dtype)


def _describe_units(moments: Moments, stored_as: np.dtype) -> pd.DataFrame:
    """Skewness, kurtosis and reason for exclusion of each unit."""
    with np.errstate(invalid="ignore", over="ignore"):
        span = moments.maximum - moments.minimum
        largest = np.maximum(np.abs(moments.minimum), np.abs(moments.maximum))
        rounding_step = np.spacing(largest.astype(stored_as)) if stored_as.kind == "f" else 0.0
        is_rounding = span < _MIN_ROUNDING_STEPS * rounding_step
    kind = np.select(
        [moments.num_non_finite > 0, span == 0, is_rounding],
        ["non-finite values", "constant", "only rounding"],
        default="",
    )
    excluded = [
        f"{reason} ({count})" if count else str(reason)
        for reason, count in zip(kind, moments.num_non_finite, strict=True)
    ]
    skewness, kurtosis = (
        np.where(kind == "", statistic, np.nan)
        for statistic in (moments.skewness, moments.kurtosis)
    )
    return pd.DataFrame({"skewness": skewness, "kurtosis": kurtosis, "excluded": excluded})


def measure_units(
    recording: Recording, intervals: np.ndarray, config: PredictabilityConfig
) -> pd.DataFrame:
    """Measures every unit of a recording on its training time alone.

    Args:
        recording: The recording.
        intervals: Training intervals in seconds, shape (num_intervals, 2), half-open.
        config: Which kurtosis to measure, and what is too short.

    Returns:
        One row per unit in column order: the columns of :attr:`Partition.units` except
        ``is_predictable``.
    """
    is_inside = recording.is_inside(intervals)
    num_timesteps = int(is_inside.sum())
    statistics = compute_predictability(recording.df_over_f, is_inside)
    if num_timesteps < config.min_timesteps:
        is_sound = statistics["excluded"] == "" if num_timesteps else slice(None)
        statistics.loc[is_sound, "excluded"] = f"{TOO_SHORT} ({num_timesteps} timesteps)"
        statistics[["skewness", "kurtosis"]] = np.nan
    if config.is_excess_kurtosis:
        statistics["kurtosis"] -= NORMAL_KURTOSIS
    labels = recording.units.reindex(columns=["cre_line", "area", "imaging_depth_um"])
    labels = labels.astype({"cre_line": object, "area": object, "imaging_depth_um": float})
    units = pd.concat([labels.reset_index(drop=True), statistics], axis=1)
    units.insert(0, "recording_id", recording.recording_id)
    units.insert(1, "unit_id", recording.unit_ids)
    units.insert(5, "num_timesteps", num_timesteps)
    return units
