"""From fitted decoders to tables: long scores, and means with intervals and paired gains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.comparison.config import SCRATCH
from poyo_ssl.metrics.chance import (
    Agreement,
    are_equal,
    minus_distance,
    minus_square_error,
    permutation_p_value,
)
from poyo_ssl.metrics.intervals import (
    NO_GAIN,
    Gain,
    gain_interval,
    mean_interval,
    paired_gain,
    seed_interval,
)
from poyo_ssl.metrics.scales import Scale, scale_of

KEYS = ["task", "split", "units", "arm", "kind", "labels", "label_fraction"]
_CONDITION = [*(key for key in KEYS if key not in ("arm", "kind")), "metric"]
"""What two arms have in common that are compared."""
_AGREEMENTS: Mapping[str, Agreement] = MappingProxyType(
    {"accuracy": are_equal, "within_1s": minus_distance, "r2": minus_square_error}
)
"""Main metric to how answers are held against permuted targets; pictures are not."""


def summarize(
    scores: pd.DataFrame, per_window: pd.DataFrame, baseline: str = SCRATCH
) -> pd.DataFrame:
    """Averages scores over recordings, with intervals, paired gains and a test against chance.

    ``mean`` is over seeds of the mean over recordings. ``low`` and ``high`` say how far it would
    move with other test trials and, from three on, other seeds and other recordings
    (:func:`poyo_ssl.metrics.intervals.mean_interval`); ``seed_low`` and ``seed_high`` with other
    seeds alone, ``trial_low`` and ``trial_high`` with other trials (and recordings) alone. Gains
    are paired by seed and test window with another arm on the same task, units and labels: those
    of networks with ``scratch``, those of every arm with the baseline. ``chance_p_value`` is that
    of a permutation test.

    What needs single windows is known for main metrics only; others have gains paired by seed.

    Args:
        scores: One row per recording, arm, seed and metric (``KEYS``, ``recording_id``, ``seed``,
            ``metric``, ``value``, ``num_test``, ``seconds`` of fitting, and
            ``pretraining_seconds``).
        per_window: One row per test window, arm and seed (``KEYS``, ``metric``,
            ``recording_id``, ``seed``, ``window``, ``value``), for the main metrics; ``target`` and
            ``predicted``, NaN for pictures.
        baseline: Another arm to measure gains against. What does not depend on the seed and was
            fitted once counts for every seed.

    Returns:
        One row per arm, labels and metric.
    """
    per_seed = {
        key: group.groupby("seed")["value"].mean()
        for key, group in scores.groupby([*_CONDITION, "arm"], sort=False)
    }
    windows = {
        key: _Windows.of(group)
        for key, group in per_window.groupby([*_CONDITION, "arm"], sort=False)
    }
    rows = []
    for key, group in scores.groupby([*KEYS, "metric"], sort=False):
        named: dict[str, Any] = dict(zip([*KEYS, "metric"], key, strict=True))
        condition = tuple(named[name] for name in _CONDITION)
        mine = (*condition, named["arm"])
        values = per_seed[mine]
        scale = scale_of(named["metric"])
        over = {
            other: _gain(per_seed, windows, mine, (*condition, other), scale)
            for other in (SCRATCH, baseline)
        }
        over_scratch = over[SCRATCH] if named["kind"] == "network" else NO_GAIN
        over_baseline = over[baseline]
        of_seeds = seed_interval(values.to_numpy(), scale)
        seconds = group.drop_duplicates("seed")[["pretraining_seconds", "seconds"]].mean()
        rows.append(
            {
                **named,
                "mean": of_seeds.mean,
                "seed_low": of_seeds.low,
                "seed_high": of_seeds.high,
                **_from_windows(windows.get(mine), named["metric"]),
                "num_seeds": len(values),
                "num_recordings": group["recording_id"].nunique(),
                "num_test": int(group.groupby("recording_id")["num_test"].first().sum()),
                "gain_over_scratch": over_scratch.mean,
                "gain_low": over_scratch.low,
                "gain_high": over_scratch.high,
                "p_value": over_scratch.p_value,
                "baseline": baseline,
                "gain_over_baseline": over_baseline.mean,
                "baseline_gain_low": over_baseline.low,
                "baseline_gain_high": over_baseline.high,
                "baseline_p_value": over_baseline.p_value,
                **seconds.round(2),
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True, eq=False)
class _Windows:
    """Every test window of one arm; recordings in order of name."""

    seeds: np.ndarray
    """Shape (num_seeds,)."""
    scores: list[np.ndarray]
    """Main metric of every test window, a recording each, (num_seeds, num_windows)."""
    predicted: list[np.ndarray]
    """What was decoded, a recording each, (num_seeds, num_windows)."""
    target: list[np.ndarray]
    """What was right, a recording each, (num_windows,)."""

    @staticmethod
    def of(rows: pd.DataFrame) -> _Windows:
        rows = rows.sort_values(["recording_id", "seed", "window"], kind="stable")
        seeds = np.unique(rows["seed"])
        starts = np.flatnonzero(rows["recording_id"].ne(rows["recording_id"].shift()))

        def tables(column: str) -> list[np.ndarray]:
            parts = np.split(rows[column].to_numpy(dtype=float), starts[1:])
            return [part.reshape(len(seeds), -1) for part in parts]

        return _Windows(
            seeds=seeds,
            scores=tables("value"),
            predicted=tables("predicted"),
            target=[table[0] for table in tables("target")],
        )

    def scores_of(self, seeds: np.ndarray) -> list[np.ndarray]:
        """Scores of some seeds; what was fitted once counts for every seed."""
        if len(self.seeds) == 1:
            return [np.repeat(scores, len(seeds), axis=0) for scores in self.scores]
        return [scores[np.isin(self.seeds, seeds)] for scores in self.scores]


def _from_windows(windows: _Windows | None, metric: str) -> dict[str, float]:
    """What single test windows tell; NaN for metrics that have none."""
    if windows is None:
        names = ("low", "high", "trial_low", "trial_high", "chance_p_value", "num_right",
                 "fewest_of_a_class")  # fmt: skip
        return dict.fromkeys(names, np.nan)
    scale = scale_of(metric)
    every = mean_interval(windows.scores, scale)
    of_trials = mean_interval([scores.mean(axis=0)[None] for scores in windows.scores], scale)
    shown = np.concatenate(windows.target)
    num_right = sum(float(scores.sum()) for scores in windows.scores) / len(windows.seeds)
    p_value = np.nan
    if metric in _AGREEMENTS and not np.isnan(shown).any():
        p_value = permutation_p_value(windows.predicted, windows.target, _AGREEMENTS[metric])
    return {
        "low": every.low,
        "high": every.high,
        "trial_low": of_trials.low,
        "trial_high": of_trials.high,
        "chance_p_value": p_value,
        "num_right": num_right if scale.has_trials else np.nan,
        "fewest_of_a_class": (
            float(np.unique(shown, return_counts=True)[1].min()) if scale.has_trials else np.nan
        ),
    }


def _gain(
    per_seed: dict[tuple[Any, ...], pd.Series],
    windows: dict[tuple[Any, ...], _Windows],
    mine: tuple[Any, ...],
    others: tuple[Any, ...],
    scale: Scale,
) -> Gain:
    """Gain of one arm over another of the same condition; NaN where there is none."""
    if mine == others or others not in per_seed:
        return NO_GAIN
    arm, baseline = per_seed[mine], per_seed[others]
    if len(baseline) == 1:  # fitted once, it counts for every seed
        baseline = pd.Series(baseline.iloc[0], index=arm.index)
    elif len(arm) == 1:
        arm = pd.Series(arm.iloc[0], index=baseline.index)
    shared = arm.index.intersection(baseline.index)
    if len(shared) == 0:
        return NO_GAIN
    if mine not in windows or others not in windows:
        return paired_gain(arm.loc[shared].to_numpy(), baseline.loc[shared].to_numpy(), scale)
    seeds = shared.to_numpy()
    return gain_interval(windows[mine].scores_of(seeds), windows[others].scores_of(seeds), scale)
