"""Where the sorted means of Cre lines turn upwards, and how sure that place is."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from kneed import KneeLocator

STATISTICS = ("skewness", "kurtosis")

_CONFIDENCE = 0.95
_FEW = 2
"""Drawing again from a line of so few units (or recordings) hardly varies its mean."""
_DRAWS_PER_BLOCK = 2**20
"""Units drawn at a time: bounds the bootstrap's memory to tens of megabytes."""


@dataclass(frozen=True, kw_only=True)
class KneeBootstrap:
    """How far both knees move when other units of the same Cre lines are drawn."""

    resampled: Literal["unit", "recording"]
    """What was drawn, with replacement, within every line."""
    num_resamples: int
    intervals: Mapping[str, tuple[float, float]]
    """Statistic to the 95 % percentile interval of its knee, over the resamples that have one;
    without the statistic where none has."""
    share_without_knee: Mapping[str, float]
    """Statistic to the share of resamples whose line means rise without a knee."""
    knee_shares: Mapping[str, Mapping[str, float]]
    """Statistic to Cre line to the share of resamples in which that line is the knee."""
    small_lines: tuple[str, ...]
    """Lines of one or two units (or recordings): the intervals understate how unsure these lines'
    means are, and the mean of a single one does not vary at all."""


def locate_knee(means: np.ndarray) -> int | None:
    """Position of the knee in increasing means; None where they rise without one.

    References:
        Satopaa et al. 2011 (kneedle).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kneed warns when it finds none; callers say it better
        knee = KneeLocator(
            np.arange(len(means)), means, curve="convex", direction="increasing"
        ).knee
    # a knee at an end divides nothing
    return int(knee) if knee is not None and 0 < knee < len(means) - 1 else None


def bootstrap_knees(
    units: pd.DataFrame,
    *,
    resampled: Literal["unit", "recording"] = "unit",
    num_resamples: int = 1000,
    seed: int = 0,
) -> KneeBootstrap:
    """Draws units of every Cre line again and again, and looks for the knees each time.

    A unit that was recorded in several sessions is drawn with all of them. Units of one recording
    share the state of the animal, so intervals over units are rather too narrow; with
    ``resampled="recording"`` whole recordings are drawn, which needs several in every line.

    Args:
        units: Measured units of all recordings, as :func:`measure_units` returns them.
        resampled: What is drawn, with replacement, within every line.
        num_resamples: How often.
        seed: Seed of the draws, which do not depend on the order of the units.

    References:
        Efron and Tibshirani 1993, percentile intervals.
    """
    measured = units[units["excluded"] == ""]
    clusters = measured.groupby(["cre_line", f"{resampled}_id"], observed=True).agg(
        skewness=("skewness", "sum"), kurtosis=("kurtosis", "sum"), num_units=("kurtosis", "size")
    )
    rng = np.random.default_rng(seed)
    by_line = {str(line): rows for line, rows in clusters.groupby(level="cre_line", observed=True)}
    means = np.stack([_resample_mean(rows, num_resamples, rng) for rows in by_line.values()])
    knees = {
        name: _knees_of(means[:, :, column], list(by_line))
        for column, name in enumerate(STATISTICS)
    }
    return KneeBootstrap(
        resampled=resampled,
        num_resamples=num_resamples,
        intervals={name: _percentile_interval(found) for name, found in knees.items() if found},
        share_without_knee={name: 1 - len(found) / num_resamples for name, found in knees.items()},
        knee_shares={
            name: {
                line: count / num_resamples
                for line, count in Counter(line for line, _ in found).most_common()
            }
            for name, found in knees.items()
        },
        small_lines=tuple(line for line, rows in by_line.items() if len(rows) <= _FEW),
    )


def _resample_mean(
    clusters: pd.DataFrame, num_resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Mean skewness and kurtosis of one line in every resample, shape (num_resamples, 2)."""
    sums = clusters[list(STATISTICS)].to_numpy()
    num_units = clusters["num_units"].to_numpy()
    per_block = max(1, _DRAWS_PER_BLOCK // len(clusters))
    means = []
    for first in range(0, num_resamples, per_block):
        num_rows = min(per_block, num_resamples - first)
        drawn = rng.integers(len(clusters), size=(num_rows, len(clusters)))
        means.append(sums[drawn].sum(axis=1) / num_units[drawn].sum(axis=1, keepdims=True))
    return np.concatenate(means)


def _knees_of(means: np.ndarray, lines: Sequence[str]) -> list[tuple[str, float]]:
    """Line and mean of the knee of every resample that has one.

    Args:
        means: Means of one statistic, shape (num_lines, num_resamples).
        lines: Names of the lines.
    """
    found = []
    for resample in means.T:
        order = np.argsort(resample, kind="stable")
        knee = locate_knee(resample[order])
        if knee is not None:
            found.append((lines[order[knee]], float(resample[order[knee]])))
    return found


def _percentile_interval(knees: Sequence[tuple[str, float]]) -> tuple[float, float]:
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile([mean for _, mean in knees], [tail, 1 - tail])
    return float(low), float(high)
