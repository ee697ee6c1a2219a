"""Thresholds say how sure they are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.predictability.thresholds import PredictabilityConfig, find_thresholds

MEANS = {"A": 4.0, "B": 5.0, "C": 6.0, "D": 7.0, "E": 8.0, "F": 40.0, "G": 80.0, "H": 120.0}


@pytest.fixture
def units(rng) -> pd.DataFrame:
    """Thirty measured units of every line."""
    line = np.repeat(list(MEANS), 30)
    kurtosis = np.repeat(list(MEANS.values()), 30) * rng.uniform(0.5, 1.5, size=240)
    return pd.DataFrame(
        {
            "recording_id": line,
            "unit_id": [f"{name}/{i}" for i, name in enumerate(line)],
            "cre_line": line,
            "skewness": kurtosis / 8,
            "kurtosis": kurtosis,
            "excluded": "",
        }
    )


def test_knees_lie_within_their_own_intervals(units):
    thresholds = find_thresholds(units, PredictabilityConfig(threshold_source="knee"))
    bootstrap = thresholds.knee_bootstrap
    low, high = bootstrap.intervals["kurtosis"]
    assert low < thresholds.kurtosis_max < high
    low, high = bootstrap.intervals["skewness"]
    assert low < thresholds.skewness_max < high
    assert bootstrap.knee_shares["kurtosis"][thresholds.knee_lines["kurtosis"]] > 0.5


def test_published_thresholds_have_no_interval(units):
    assert find_thresholds(units, PredictabilityConfig()).knee_bootstrap is None
