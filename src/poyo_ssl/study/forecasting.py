"""How well the next second of every unit can be forecast: arrays in, scores out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.stats

from poyo_ssl.metrics.intervals import Interval
from poyo_ssl.study.forecast_windows import ForecastWindows

NUM_RESAMPLES = 2_000
"""Resamples of recordings and units, for a bootstrap interval."""
MEANS = ["error", "absolute_error", "spread"]
SIDES = [
    "recording_id",
    "num_predictable",
    "num_unpredictable",
    "median_predictable",
    "median_unpredictable",
    "probability",
    "p_value",
]


def score_units(
    train: ForecastWindows, test: ForecastWindows, forecast: np.ndarray
) -> pd.DataFrame:
    """Scores the forecast of every unit at every step ahead.

    Args:
        train: Training windows, whose mean R² is measured from.
        test: What was asked.
        forecast: What was answered, the shape of ``test.future``.

    Returns:
        One row per unit and step: ``recording_id``, ``unit_id``, ``step`` (from 1), ``error`` (mean
        squared, of z-scores), ``absolute_error`` (mean) and ``spread``, the mean squared distance
        from the unit's training mean: R² is 1 - error / spread.
    """
    left = test.future - forecast
    from_mean = test.future - train.past.mean(axis=(0, 1))
    num_steps, num_units = left.shape[1:]
    return pd.DataFrame(
        {
            "recording_id": test.recording_id,
            "unit_id": np.tile(test.unit_ids, num_steps),
            "step": np.repeat(np.arange(1, num_steps + 1), num_units),
            "error": np.square(left).mean(axis=0).ravel(),
            "absolute_error": np.abs(left).mean(axis=0).ravel(),
            "spread": np.square(from_mean).mean(axis=0).ravel(),
        }
    )


def score_windows(
    train: ForecastWindows, test: ForecastWindows, forecast: np.ndarray
) -> np.ndarray:
    """Scores every window, whose mean is R² of all units and steps together, (num_windows,)."""
    spread = np.square(test.future - train.past.mean(axis=(0, 1))).mean()
    scores: np.ndarray = 1 - np.square(test.future - forecast).mean(axis=(1, 2)) / spread
    return scores


def over_horizon(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of every unit over all steps ahead.

    Args:
        scores: As :func:`score_units` returns them, of one forecast or of many (such as seeds),
            over which errors are averaged.

    Returns:
        One row per unit: ``recording_id``, ``unit_id``, ``error``, ``absolute_error``, ``spread``
        and ``r2``, which is NaN where a unit never moved on test time.
    """
    means = scores.groupby(["recording_id", "unit_id"], sort=False)[MEANS].mean()
    return means.assign(r2=variance_explained(means)).reset_index()


def by_step(scores: pd.DataFrame, copied: pd.DataFrame) -> pd.DataFrame:
    """Scores of all units together at every step ahead, recordings with equal weight.

    Args:
        scores: As :func:`score_units` returns them, of one or more recordings.
        copied: Those of the forecast that copies the last bin.

    Returns:
        Indexed by ``step``: ``r2`` (errors and spreads of all units are summed before they are
        divided), ``absolute_error`` (as ZAPBench reports), and ``above_copy``, 1 less the squared
        error over that of copying (as POCO reports).

    References:
        Lueckmann et al. 2025, ZAPBench (ICLR); Duan et al. 2025, POCO (arXiv:2506.14957).
    """
    keys = ["recording_id", "step"]
    means = scores.groupby(keys, sort=False)[MEANS].mean()
    means["r2"] = variance_explained(means)
    means["above_copy"] = 1 - means["error"] / copied.groupby(keys, sort=False)["error"].mean()
    return means.groupby("step")[["r2", "absolute_error", "above_copy"]].mean()


def variance_explained(means: pd.DataFrame) -> pd.Series:
    """R² from columns ``error`` and ``spread``; NaN without a spread."""
    return 1 - means["error"] / means["spread"].where(means["spread"] > 0)


def r2_of_units(units: pd.DataFrame, *, seed: int) -> Interval:
    """R² of all units together, the mean over recordings, and its 95 % bootstrap interval.

    Recordings are drawn with replacement and, within each, units. Of a single recording the
    interval is about other units of it, and says nothing of other recordings.

    Args:
        units: As :func:`over_horizon` returns them.
        seed: Of the draws.

    Returns:
        R², low and high (percentiles).
    """
    groups = [
        group[["error", "spread"]].to_numpy()
        for _, group in units.groupby("recording_id", sort=False)
    ]
    rng = np.random.default_rng(seed)
    of_recordings = np.stack([_resample(group, rng) for group in groups])
    drawn = rng.integers(len(groups), size=of_recordings.shape)
    low, high = np.quantile(
        np.take_along_axis(of_recordings, drawn, axis=0).mean(axis=0), [0.025, 0.975]
    )
    return Interval(float(np.mean([_r2(group) for group in groups])), float(low), float(high))


def _r2(units: np.ndarray) -> np.ndarray:
    """R² from errors and spreads (..., num_units, 2), (...,)."""
    error, spread = np.moveaxis(units.sum(axis=-2), -1, 0)
    r2: np.ndarray = 1 - error / spread
    return r2


def _resample(units: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """R² of units drawn with replacement, (NUM_RESAMPLES,)."""
    return _r2(units[rng.integers(len(units), size=(NUM_RESAMPLES, len(units)))])


def compare_sides(units: pd.DataFrame) -> pd.DataFrame:
    """Are predictable units forecast better than unpredictable ones?

    Args:
        units: As :func:`over_horizon` returns them, and ``is_predictable``. Units without R² are
            left out.

    Returns:
        One row per recording that has units of both kinds: ``recording_id``, ``num_predictable``,
        ``num_unpredictable``, ``median_predictable`` and ``median_unpredictable`` (R²),
        ``probability`` that a predictable unit has the higher R² (0.5: no difference), and
        ``p_value`` of the two-sided test of Mann and Whitney.
    """
    rows = []
    for recording_id, table in units.dropna(subset="r2").groupby("recording_id", sort=False):
        one, other = (
            table.loc[side, "r2"] for side in (table["is_predictable"], ~table["is_predictable"])
        )
        if len(one) and len(other):
            test = scipy.stats.mannwhitneyu(one, other)
            medians = one.median(), other.median()
            probability = test.statistic / (len(one) * len(other))
            row = (recording_id, len(one), len(other), *medians, probability, test.pvalue)
            rows.append(row)
    return pd.DataFrame(rows, columns=SIDES)
