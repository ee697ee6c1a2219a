"""How sure one can be of a mean, and of a difference of two."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.stats

_MIN_FOR_SPREAD = 2
"""One value has a mean but no spread, so no interval and no test."""


class Interval(NamedTuple):
    """A mean and its confidence interval; the bounds are NaN where they cannot be known."""

    mean: float
    low: float
    high: float


def seed_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean over seeds and its Student t interval; the bounds of a single seed are NaN.

    Args:
        values: One score per seed, shape (num_seeds,).
        confidence: Coverage of the interval.
    """
    _check_values(values, confidence)
    mean = float(np.mean(values))
    if len(values) < _MIN_FOR_SPREAD:
        return Interval(mean, np.nan, np.nan)
    quantile = scipy.stats.t.ppf(0.5 + 0.5 * confidence, df=len(values) - 1)
    half = float(quantile * scipy.stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def bootstrap_interval(
    values: np.ndarray, seed: int, confidence: float = 0.95, num_resamples: int = 10_000
) -> Interval:
    """Mean over trials and its percentile bootstrap interval.

    Trials are drawn independently: give one value per trial or per repeat of a movie, not one
    per movie frame, since neighbours in time share their errors.

    Args:
        values: One score per trial, shape (num_trials,).
        seed: Seed of the resampling.
        confidence: Coverage of the interval.
        num_resamples: Bootstrap samples.
    """
    _check_values(values, confidence)
    mean = float(np.mean(values))
    if len(values) < _MIN_FOR_SPREAD:
        return Interval(mean, np.nan, np.nan)
    bounds = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=num_resamples,
        batch=max(1, 2**20 // len(values)),  # 8 MB of resampled values at a time
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(bounds.low), float(bounds.high))


def paired_gain(
    arm: np.ndarray, baseline: np.ndarray, confidence: float = 0.95
) -> dict[str, float]:
    """How much an arm gains over a baseline run with the same seeds.

    Args:
        arm: One score per seed, shape (num_seeds,).
        baseline: Scores of the same seeds in the same order.
        confidence: Coverage of the interval.

    Returns:
        ``mean_difference`` with its Student t interval ``low`` and ``high``, ``relative_gain``
        (the mean difference as a fraction of the baseline's mean; NaN if that is 0) and
        ``p_value`` of the two-sided paired t-test. What a single pair, or pairs that all differ
        by exactly the same, cannot tell is NaN.
    """
    if arm.shape != baseline.shape:
        raise ValueError(
            "arm and baseline must hold one score for each of the same seeds, got shapes "
            f"{arm.shape} and {baseline.shape}."
        )
    _check_values(baseline, confidence)
    difference = arm - baseline
    gain = seed_interval(difference, confidence)
    baseline_mean = float(np.mean(baseline))
    has_spread = len(difference) >= _MIN_FOR_SPREAD and np.ptp(difference) > 0
    return {
        "mean_difference": gain.mean,
        "low": gain.low,
        "high": gain.high,
        "relative_gain": gain.mean / baseline_mean if baseline_mean else np.nan,
        "p_value": float(scipy.stats.ttest_rel(arm, baseline).pvalue) if has_spread else np.nan,
    }


def _check_values(values: np.ndarray, confidence: float) -> None:
    if values.ndim != 1 or values.size == 0:
        raise ValueError(
            f"Scores must be a non-empty array of shape (num_scores,), got shape {values.shape}."
        )
    if not np.all(np.isfinite(values)):
        raise ValueError(
            f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} scores are NaN or "
            "infinite; find out which runs failed before averaging."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
