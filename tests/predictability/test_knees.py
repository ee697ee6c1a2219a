"""How sure the knees in the means of Cre lines are."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kneed import KneeLocator

from poyo_ssl.predictability.knees import bootstrap_knees, locate_knee

MEANS = {"A": 4.0, "B": 5.0, "C": 6.0, "D": 7.0, "E": 8.0, "F": 40.0, "G": 80.0, "H": 120.0}
"""Kurtosis per line: a flat part up to E, a steep one after it."""


def draw_units(
    rng: np.random.Generator,
    spread: float,
    num_units: int = 40,
    means: dict[str, float] = MEANS,
) -> pd.DataFrame:
    """Measured units of every line in two recordings; skewness is a tenth of kurtosis."""
    tables = []
    for line, mean in means.items():
        kurtosis = mean * (1 + spread * rng.normal(size=num_units))
        number = np.arange(num_units)
        tables.append(
            pd.DataFrame(
                {
                    "recording_id": [f"{line}-{i % 2}" for i in number],
                    "unit_id": [f"{line}/{i}" for i in number],
                    "cre_line": line,
                    "skewness": kurtosis / 10,
                    "kurtosis": kurtosis,
                    "excluded": "",
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize(
    ("means", "knee"),
    [
        ([1, 1, 1, 1, 1, 10, 20, 30], 4),  # known by hand: the last of the flat part
        ([1, 2, 3, 4, 5, 6], None),  # a straight line bends nowhere
        ([1, 11, 12, 13, 14], None),  # concave: steep first
        ([2, 2, 2, 2, 2], None),
        ([0, 1, 2, 200], 2),  # as few means as can show one
    ],
)
def test_the_knee_is_where_a_flat_part_turns_steep(means, knee):
    assert locate_knee(np.array(means, dtype=float)) == knee


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.integers(1, 1000), min_size=4, max_size=13),
    scale=st.sampled_from([0.5, 4.0, 64.0]),
)
def test_the_knee_does_not_depend_on_the_unit_of_measurement_and_is_never_an_end(values, scale):
    means = np.sort(np.array(values, dtype=float))
    knee = locate_knee(means)
    assert locate_knee(means * scale) == knee
    assert knee is None or 0 < knee < len(means) - 1


def test_units_that_agree_within_their_lines_leave_no_doubt(rng):
    found = bootstrap_knees(draw_units(rng, spread=0.0), num_resamples=50)
    assert found.intervals["kurtosis"] == pytest.approx((8.0, 8.0))
    assert found.intervals["skewness"] == pytest.approx((0.8, 0.8))
    assert found.knee_shares == {"skewness": {"E": 1.0}, "kurtosis": {"E": 1.0}}
    assert found.share_without_knee == {"skewness": 0.0, "kurtosis": 0.0}


def test_the_interval_is_as_wide_as_the_standard_error_of_the_knees_mean_says(rng):
    """Where the knee is always the same line, its mean's own interval is known in closed form."""
    units = draw_units(rng, spread=0.05, num_units=100)
    found = bootstrap_knees(units, num_resamples=4000)
    assert found.knee_shares["kurtosis"] == {"E": 1.0}
    values = units.loc[units["cre_line"] == "E", "kurtosis"]
    error = values.std(ddof=0) / 10
    expected = values.mean() + 1.96 * error * np.array([-1, 1])
    assert found.intervals["kurtosis"] == pytest.approx(expected, abs=0.15 * error)


def test_resamples_agree_with_a_plain_loop_over_units(rng):
    units = draw_units(rng, spread=1.0, num_units=6)
    values = [group["kurtosis"].to_numpy() for _, group in units.groupby("cre_line")]
    means = []
    for _ in range(2000):
        drawn = np.array([rng.choice(line, len(line)).mean() for line in values])
        order = np.argsort(drawn)
        knee = locate_knee(drawn[order])
        means.append(None if knee is None else ("ABCDEFGH"[order[knee]], drawn[order[knee]]))
    lines = Counter(mean[0] for mean in means if mean)
    found = bootstrap_knees(units, num_resamples=2000)
    assert found.share_without_knee["kurtosis"] == pytest.approx(means.count(None) / 2000, abs=0.04)
    for line, count in lines.items():
        assert found.knee_shares["kurtosis"].get(line, 0.0) == pytest.approx(count / 2000, abs=0.05)
    expected = np.quantile([mean[1] for mean in means if mean], [0.025, 0.975])
    assert found.intervals["kurtosis"] == pytest.approx(expected, rel=0.15)


def test_shares_of_lines_and_of_no_knee_add_up_to_one(rng):
    nearly_straight = {line: 10.0 * (1 + place) for place, line in enumerate("ABCDEF")}
    units = draw_units(rng, spread=0.3, num_units=5, means=nearly_straight)
    found = bootstrap_knees(units, num_resamples=300)
    for name in ("skewness", "kurtosis"):
        without = found.share_without_knee[name]
        assert 0 < without < 1
        assert sum(found.knee_shares[name].values()) == pytest.approx(1 - without)


def test_means_that_never_bend_have_no_interval(rng):
    straight = {line: 10.0 * (1 + place) for place, line in enumerate("ABCDEF")}
    found = bootstrap_knees(draw_units(rng, 0.0, means=straight), num_resamples=20)
    assert found.intervals == {}
    assert found.share_without_knee == {"skewness": 1.0, "kurtosis": 1.0}


def test_the_same_seed_gives_the_same_interval_whatever_the_order_of_units(rng):
    units = draw_units(rng, spread=0.3)
    shuffled = units.sample(frac=1.0, random_state=1, ignore_index=True)
    one, two = (bootstrap_knees(table, num_resamples=100) for table in (units, shuffled))
    assert one == two
    assert bootstrap_knees(units, num_resamples=100, seed=1) != one


def test_skewness_and_kurtosis_are_drawn_together(rng):
    found = bootstrap_knees(draw_units(rng, spread=0.5), num_resamples=200)
    assert found.intervals["skewness"] == pytest.approx(np.array(found.intervals["kurtosis"]) / 10)


def test_excluded_units_are_not_drawn(rng):
    units = draw_units(rng, spread=0.2)
    broken = units.iloc[:5].assign(
        unit_id=list("vwxyz"), skewness=np.nan, kurtosis=np.nan, excluded="constant"
    )
    with_broken = pd.concat([broken, units], ignore_index=True)
    assert bootstrap_knees(with_broken, num_resamples=50) == bootstrap_knees(
        units, num_resamples=50
    )


def test_lines_of_one_or_two_units_are_named(rng):
    units = draw_units(rng, spread=0.1)
    few = ~units["unit_id"].isin([f"A/{i}" for i in range(1, 40)] + [f"B/{i}" for i in range(38)])
    assert bootstrap_knees(units[few], num_resamples=20).small_lines == ("A", "B")


def test_drawing_recordings_is_less_sure_where_units_of_a_recording_agree(rng):
    units = draw_units(rng, spread=0.01)
    units.loc[units["recording_id"] == "E-1", ["skewness", "kurtosis"]] *= 1.5
    over_units = bootstrap_knees(units, num_resamples=300)
    over_recordings = bootstrap_knees(units, resampled="recording", num_resamples=300)
    assert np.ptp(over_recordings.intervals["kurtosis"]) > 2 * np.ptp(
        over_units.intervals["kurtosis"]
    )
    assert over_recordings.small_lines == tuple(MEANS)


def test_a_unit_of_two_sessions_is_drawn_with_both(rng):
    """Copies of every unit must not make the knees look surer than the units are."""
    units = draw_units(rng, spread=0.2)
    copies = units.assign(recording_id=units["recording_id"] + "-again")
    twice = bootstrap_knees(pd.concat([units, copies], ignore_index=True), num_resamples=200)
    assert twice.intervals["kurtosis"] == pytest.approx(
        bootstrap_knees(units, num_resamples=200).intervals["kurtosis"]
    )


def test_lines_larger_than_a_block_of_draws_are_drawn_in_parts(rng, monkeypatch):
    units = draw_units(rng, spread=0.2)
    expected = bootstrap_knees(units, num_resamples=64)
    monkeypatch.setattr("poyo_ssl.predictability.knees._DRAWS_PER_BLOCK", 100)
    assert bootstrap_knees(units, num_resamples=64) == expected


def test_the_knee_is_that_of_kneed_itself(rng):
    means = np.sort(rng.exponential(size=13))
    locator = KneeLocator(np.arange(13), means, curve="convex", direction="increasing")
    assert locate_knee(means) == locator.knee


def test_the_bootstrap_is_ready_for_json(rng):
    found = bootstrap_knees(draw_units(rng, spread=0.2), num_resamples=20)
    assert json.loads(json.dumps(asdict(found)))["num_resamples"] == 20
