"""Who changes side when the thresholds are moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_ssl.predictability.figure import plot_predictability, plot_sensitivity
from poyo_ssl.predictability.partition import Partition
from poyo_ssl.predictability.sensitivity import ALL_UNITS, CHANGES, UNKNOWN_LINE, vary_thresholds
from poyo_ssl.predictability.thresholds import PredictabilityConfig, find_thresholds
from poyo_ssl.predictability.verdicts import partition_units

CONFIG = PredictabilityConfig(skewness_max=2.0, kurtosis_max=10.0)


def divide_units(
    skewness: object, kurtosis: object, cre_line: object = "Sst", config=CONFIG
) -> Partition:
    """A partition of measured units; NaN stands for an excluded one."""
    skewness = np.asarray(skewness, dtype=float)
    units = pd.DataFrame(
        {
            "recording_id": "session",
            "unit_id": [f"unit-{i}" for i in range(len(skewness))],
            "cre_line": cre_line,
            "skewness": skewness,
            "kurtosis": np.asarray(kurtosis, dtype=float),
            "excluded": np.where(np.isnan(skewness), "constant", ""),
        }
    )
    thresholds = find_thresholds(units, config)
    return Partition(
        units=partition_units(units, thresholds, config), thresholds=thresholds, config=config
    )


@pytest.fixture
def partition(rng) -> Partition:
    """Three hundred units of three lines around the thresholds, and ten excluded ones."""
    kurtosis = rng.lognormal(np.log(10), 0.4, size=300)
    skewness = 0.63 * np.sqrt(kurtosis) * rng.normal(1, 0.1, size=300)
    skewness[::30] = kurtosis[::30] = np.nan
    return divide_units(skewness, kurtosis, cre_line=np.resize(["Sst", "Vip", "Cux2"], 300))


def changed(table: pd.DataFrame, moved: str, change: float) -> dict[str, bool]:
    """Unit to whether it becomes predictable, of those that change side."""
    table = table[(table["moved"] == moved) & (table["change"] == change)]
    return dict(zip(table["unit_id"], table["becomes_predictable"], strict=True))


def test_units_between_old_and_new_threshold_change_side():
    """Worked out by hand: kurtosis thresholds 10 -> 9 or 11; skewness 2 -> 1.8 or 2.2."""
    partition = divide_units(
        skewness=[1.0, 1.0, 1.0, 1.0, 1.9, 2.1, 2.1], kurtosis=[8.9, 9.5, 10.5, 11.5, 5, 5, 10.5]
    )
    table = vary_thresholds(partition).changed_units
    assert changed(table, "kurtosis", -0.1) == {"unit-1": False}
    assert changed(table, "kurtosis", 0.1) == {"unit-2": True}
    assert changed(table, "kurtosis", 0.2) == {"unit-2": True, "unit-3": True}
    assert changed(table, "skewness", -0.1) == {"unit-4": False}
    assert changed(table, "skewness", 0.1) == {"unit-5": True}
    # the last unit is beyond both thresholds: neither alone can gain it
    assert changed(table, "both", 0.1) == dict.fromkeys(["unit-2", "unit-5", "unit-6"], True)


def test_raising_only_gains_units_and_lowering_only_loses_some(partition):
    table = vary_thresholds(partition).changed_units
    assert len(table) > 50
    assert (table["becomes_predictable"] == (table["change"] > 0)).all()


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    small=st.floats(0.001, 0.5),
    large=st.floats(0.5, 0.99),
    sign=st.sampled_from([-1, 1]),
)
def test_a_larger_change_moves_every_unit_that_a_smaller_one_moves(seed, small, large, sign):
    rng = np.random.default_rng(seed)
    partition = divide_units(rng.exponential(2, size=40), rng.exponential(10, size=40))
    table = vary_thresholds(partition, [sign * small, sign * large]).changed_units
    for _, rows in table.groupby("moved"):
        by_change = rows.groupby("change")["unit_id"].agg(set)
        assert by_change.get(sign * small, set()) <= by_change.get(sign * large, set())


def test_counts_agree_with_the_units_listed_and_with_a_fresh_partition(partition):
    found = vary_thresholds(partition)
    for row in found.counts.itertuples():
        rows = found.changed_units.query("moved == @row.moved and change == @row.change")
        units = partition.units[partition.units["excluded"] == ""]
        if row.cre_line != ALL_UNITS:
            rows = rows[rows["cre_line"] == row.cre_line]
            units = units[units["cre_line"] == row.cre_line]
        assert row.num_units == len(units)
        assert row.num_gained == rows["becomes_predictable"].sum()
        assert row.num_lost == (~rows["becomes_predictable"]).sum()
        by_skewness = 1 + row.change * (row.moved != "kurtosis")
        by_kurtosis = 1 + row.change * (row.moved != "skewness")
        kept = (units["skewness"] <= 2.0 * by_skewness) & (units["kurtosis"] <= 10.0 * by_kurtosis)
        assert row.num_predictable == kept.sum()


def test_lines_add_up_to_all_units(partition):
    counts = vary_thresholds(partition).counts
    numbers = ["num_units", "num_predictable", "num_gained", "num_lost"]
    is_total = counts["cre_line"] == ALL_UNITS
    lines = counts[~is_total].groupby(["moved", "change"], sort=False)[numbers].sum()
    assert np.array_equal(lines, counts.loc[is_total, numbers])


def test_no_change_moves_nobody(partition):
    assert vary_thresholds(partition, [0.0]).changed_units.empty


def test_units_without_a_line_are_counted_together():
    partition = divide_units([1.0, 1.0], [9.5, 5.0], cre_line=None)
    counts = vary_thresholds(partition).counts
    assert set(counts["cre_line"]) == {UNKNOWN_LINE, ALL_UNITS}
    assert (counts["num_units"] == 2).all()


def test_whole_lines_change_side_where_lines_are_judged():
    config = PredictabilityConfig(skewness_max=2.0, kurtosis_max=10.0, by="line")
    partition = divide_units(
        [1.0] * 4, [2.0, 17.0, 10.0, 12.0], cre_line=["Sst", "Sst", "Vip", "Vip"], config=config
    )
    table = vary_thresholds(partition).changed_units
    # means 9.5 and 11: the line Sst is lost at -10 %, Vip gained at +10 %
    assert changed(table, "kurtosis", -0.1) == {"unit-0": False, "unit-1": False}
    assert changed(table, "kurtosis", 0.1) == {"unit-2": True, "unit-3": True}


@pytest.mark.parametrize("changes", [[], [0.1, np.nan], [np.inf]])
def test_changes_that_are_no_numbers_are_refused(partition, changes):
    with pytest.raises(ValueError, match="finite numbers such as"):
        vary_thresholds(partition, changes)


# figures -----------------------------------------------------------------------------------------


def test_the_figure_shows_every_number_and_the_largest_changes(partition, tmp_path: Path):
    found = vary_thresholds(partition)
    figure = plot_sensitivity(found, tmp_path / "sensitivity.png")
    assert (tmp_path / "sensitivity.png").stat().st_size > 5000
    panels = figure.axes[:3]
    for axes, moved in zip(panels, ["skewness", "kurtosis", "both"], strict=True):
        assert axes.get_title().startswith(moved)
        shown = [text.get_text() for text in axes.texts[: len(CHANGES)]]
        expected = 100 * found.share_changed[moved].sort_index().to_numpy()
        assert [float(text) for text in shown] == pytest.approx(expected, abs=0.05)
    title = figure.get_suptitle()
    assert f"±20%: at most {found.share_changed.max():.1%}" in title


def test_the_figure_of_a_single_line_has_a_single_row(tmp_path: Path):
    figure = plot_sensitivity(vary_thresholds(divide_units([1.0, 1.0], [9.5, 5.0])))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["all units (2)"]


def test_the_figure_of_a_partition_shades_the_intervals_of_its_knees(rng):
    means = np.repeat([4.0, 5, 6, 7, 8, 40, 80, 120], 20)
    kurtosis = means * rng.uniform(0.5, 1.5, size=160)
    partition = divide_units(
        kurtosis / 10,
        kurtosis,
        cre_line=np.repeat(list("ABCDEFGH"), 20),
        config=PredictabilityConfig(threshold_source="knee"),
    )
    low, high = partition.thresholds.knee_bootstrap.intervals["kurtosis"]
    axes = plot_predictability(partition).axes[-1]
    (label,) = axes.get_legend_handles_labels()[1]
    assert f"{low:.4g} to {high:.4g}" in label
