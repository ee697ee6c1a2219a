"""From fitted decoders to tables: long scores, and means with intervals and paired gains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.comparison.config import SCRATCH
from poyo_ssl.metrics.intervals import bootstrap_interval, paired_gain, seed_interval

KEYS = ["task", "split", "units", "arm", "kind", "labels", "label_fraction"]
NO_GAIN = {"mean_difference": np.nan, "low": np.nan, "high": np.nan, "p_value": np.nan}


def summarize(
    scores: pd.DataFrame, per_window: pd.DataFrame, baseline: str = SCRATCH
) -> pd.DataFrame:
    """Averages scores over recordings, with intervals over seeds and over trials.

    Per seed, the recordings' scores are averaged; ``mean`` and the seed interval (Student t) are
    over those. The trial interval is a bootstrap over test windows of the windows' scores
    averaged over seeds. Gains are paired by seed with another arm on the same task, units and
    labels: those of networks with ``scratch``, those of every arm with the baseline.

    Args:
        scores: One row per recording, arm, seed and metric (``KEYS``, ``recording_id``, ``seed``,
            ``metric``, ``value``, ``num_test``, ``seconds`` of fitting, and
            ``pretraining_seconds``).
        per_window: One row per test window, arm and seed (``KEYS``, ``metric``,
            ``recording_id``, ``seed``, ``window``, ``value``), for the main metrics.
        baseline: Another arm to measure gains against. What does not depend on the seed and was
            fitted once counts for every seed.

    Returns:
        One row per arm, labels and metric.
    """
    per_seed = scores.groupby([*KEYS, "metric", "seed"], sort=False)["value"].mean()
    rows = []
    for key, group in scores.groupby([*KEYS, "metric"], sort=False):
        named: dict[str, Any] = dict(zip([*KEYS, "metric"], key, strict=True))
        values = _of_arm(per_seed, named)
        interval = seed_interval(values.to_numpy())
        seconds = group.drop_duplicates("seed")[["pretraining_seconds", "seconds"]].mean()
        over_scratch = _gain(per_seed, named, SCRATCH) if named["kind"] == "network" else NO_GAIN
        over_baseline = _gain(per_seed, named, baseline)
        rows.append(
            {
                **named,
                "mean": interval.mean,
                "seed_low": interval.low,
                "seed_high": interval.high,
                **_trial_interval(per_window, named),
                "num_seeds": len(values),
                "num_recordings": group["recording_id"].nunique(),
                "num_test": int(group.groupby("recording_id")["num_test"].first().sum()),
                "gain_over_scratch": over_scratch["mean_difference"],
                "gain_low": over_scratch["low"],
                "gain_high": over_scratch["high"],
                "p_value": over_scratch["p_value"],
                "baseline": baseline,
                "gain_over_baseline": over_baseline["mean_difference"],
                "baseline_gain_low": over_baseline["low"],
                "baseline_gain_high": over_baseline["high"],
                "baseline_p_value": over_baseline["p_value"],
                **seconds.round(2),
            }
        )
    return pd.DataFrame(rows)


def _trial_interval(per_window: pd.DataFrame, named: dict[str, Any]) -> dict[str, float]:
    is_here = np.logical_and.reduce([per_window[name] == value for name, value in named.items()])
    values = per_window[is_here].groupby(["recording_id", "window"])["value"].mean()
    if len(values) < 2:
        return {"trial_low": np.nan, "trial_high": np.nan}
    interval = bootstrap_interval(values.to_numpy(), seed=0, num_resamples=2000)
    return {"trial_low": interval.low, "trial_high": interval.high}


def _gain(per_seed: pd.Series, named: dict[str, Any], other: str) -> dict[str, float]:
    """Difference to another arm with the same seeds, and its interval; NaN where there is none."""
    values = _of_arm(per_seed, named)
    everyone = {name: value for name, value in named.items() if name != "kind"}
    others = _of_arm(per_seed.droplevel("kind"), {**everyone, "arm": other})
    if named["arm"] == other or others.empty:
        return NO_GAIN
    if len(others) == 1 and len(values) > 1:
        others = pd.Series(others.iloc[0], index=values.index)
    shared = values.index.intersection(others.index)
    if len(shared) == 0:
        return NO_GAIN
    return paired_gain(values.loc[shared].to_numpy(), others.loc[shared].to_numpy())


def _of_arm(per_seed: pd.Series, named: dict[str, Any]) -> pd.Series:
    """Scores of one arm indexed by seed; empty where there are none."""
    levels = [per_seed.index.get_level_values(name) == value for name, value in named.items()]
    return per_seed[np.logical_and.reduce(levels)].droplevel(list(named))
