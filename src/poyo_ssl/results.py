"""From fitted decoders to tables: long scores, and means with intervals and paired gains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.metrics import bootstrap_interval, paired_gain, seed_interval

KEYS = ["task", "split", "units", "arm", "kind", "label_fraction"]
BASELINE = "scratch"


def summarize(scores: pd.DataFrame, per_window: pd.DataFrame) -> pd.DataFrame:
    """Averages scores over recordings, with intervals over seeds and over trials.

    Per seed, the recordings' scores are averaged; ``mean`` and the seed interval (Student t) are
    over those. The trial interval is a bootstrap over test windows of the windows' scores
    averaged over seeds. Gains are paired by seed with the arm ``scratch`` on the same task, units
    and label fraction.

    Args:
        scores: One row per recording, arm, seed and metric (``KEYS``, ``recording_id``, ``seed``,
            ``metric``, ``value``, ``num_test``).
        per_window: One row per test window, arm and seed (``KEYS``, ``metric``,
            ``recording_id``, ``seed``, ``window``, ``value``), for the main metrics.

    Returns:
        One row per arm, label fraction and metric.
    """
    per_seed = scores.groupby([*KEYS, "metric", "seed"], sort=False)["value"].mean()
    rows = []
    for key, group in scores.groupby([*KEYS, "metric"], sort=False):
        named: dict[str, Any] = dict(zip([*KEYS, "metric"], key, strict=True))
        values = _of_arm(per_seed, named)
        interval = seed_interval(values.to_numpy())
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
                **_gain(per_seed, named, values),
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


def _gain(per_seed: pd.Series, named: dict[str, Any], values: pd.Series) -> dict[str, float]:
    """Difference to training from scratch with the same seeds, and its interval."""
    empty = dict.fromkeys(["gain_over_scratch", "gain_low", "gain_high", "p_value"], np.nan)
    baseline = _of_arm(per_seed, {**named, "arm": BASELINE})
    if named["arm"] == BASELINE or named["kind"] != "network":
        return empty
    shared = values.index.intersection(baseline.index)
    if len(shared) == 0:
        return empty
    gain = paired_gain(values.loc[shared].to_numpy(), baseline.loc[shared].to_numpy())
    return {
        "gain_over_scratch": gain["mean_difference"],
        "gain_low": gain["low"],
        "gain_high": gain["high"],
        "p_value": gain["p_value"],
    }


def _of_arm(per_seed: pd.Series, named: dict[str, Any]) -> pd.Series:
    """Scores of one arm indexed by seed; empty where there are none."""
    levels = [per_seed.index.get_level_values(name) == value for name, value in named.items()]
    return per_seed[np.logical_and.reduce(levels)].droplevel(list(named))
