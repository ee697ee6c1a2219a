"""Who is predictable because of skewness and kurtosis, and who is said to be."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from poyo_ssl.predictability.figure import plot_predictability
from poyo_ssl.predictability.partition import (
    partition_by_predictability,
    partition_recordings,
    summarize_partition,
)
from poyo_ssl.predictability.thresholds import PredictabilityConfig, find_thresholds
from poyo_ssl.predictability.unit_statistics import compute_predictability
from poyo_ssl.predictability.verdicts import partition_units
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.divide import Divided
from tiny_fits import with_units_in_order
from tiny_traces import draw_traces, make_recording

ALLEN_SESSION = (
    Path(__file__).resolve().parents[2]
    / "../shared/data/sub-527550471_ses-527745328-StimA_ophys.nwb"
)


def draw_lines(rng: np.random.Generator, kurtoses: dict[str, float]) -> list[Recording]:
    """One recording per Cre line, all of its units with the wanted kurtosis in expectation."""
    recordings = []
    for line, kurtosis in kurtoses.items():
        # a value of 1 in a fraction p of the timesteps, else 0: kurtosis is 1 / (p (1 - p)) - 3
        fraction = 0.5 - np.sqrt(0.25 - 1.0 / (kurtosis + 3.0))
        traces = np.zeros((4000, 3))
        traces[: round(4000 * fraction)] = 1.0
        recordings.append(make_recording(rng.permuted(traces, axis=0), line, cre_line=line))
    return recordings


def whole(recordings: list[Recording]) -> dict[str, np.ndarray]:
    return {recording.recording_id: recording.segment_intervals for recording in recordings}


# thresholds ------------------------------------------------------------------------------------

LINES = {"A": 4.0, "B": 5.0, "C": 6.0, "D": 7.0, "E": 8.0, "F": 40.0, "G": 80.0, "H": 120.0}
"""Kurtosis per line: a flat part up to E, a steep one after it."""


def test_the_knee_is_the_last_line_before_the_means_turn_upwards(rng):
    recordings = draw_lines(rng, LINES)
    config = PredictabilityConfig(threshold_source="knee", by="line")
    partition = partition_recordings(recordings, whole(recordings), config)
    assert partition.thresholds.knee_lines["kurtosis"] == "E"
    assert partition.thresholds.kurtosis_max == pytest.approx(8.0, rel=0.01)
    is_kept = partition.units.groupby("cre_line")["is_predictable"].all()
    assert is_kept[is_kept].index.tolist() == list("ABCDE")


def test_knees_do_not_depend_on_the_order_of_recordings(rng):
    recordings = draw_lines(rng, LINES)
    config = PredictabilityConfig(threshold_source="knee")
    one = partition_recordings(recordings, whole(recordings), config).thresholds
    two = partition_recordings(recordings[::-1], whole(recordings), config).thresholds
    assert (one.skewness_max, one.kurtosis_max) == (two.skewness_max, two.kurtosis_max)
    assert one.knee_lines == two.knee_lines


def test_line_means_are_over_the_units_that_are_not_excluded(rng):
    traces = draw_traces(rng, 3, 0)
    traces[5, 2] = np.nan
    recordings = [
        make_recording(traces, "one", cre_line="Sst"),
        make_recording(draw_traces(rng, 2, 0), "two", cre_line="Sst"),
    ]
    partition = partition_recordings(recordings, whole(recordings), PredictabilityConfig())
    (line,) = partition.thresholds.line_means.itertuples()
    kept = partition.units[partition.units["excluded"] == ""]
    assert (line.cre_line, line.num_units) == ("Sst", 4)
    assert line.kurtosis == pytest.approx(kept["kurtosis"].mean())


def test_published_thresholds_are_used_as_given(rng):
    recordings = draw_lines(rng, LINES)
    config = PredictabilityConfig(skewness_max=2.0, kurtosis_max=7.5)
    thresholds = partition_recordings(recordings, whole(recordings), config).thresholds
    assert (thresholds.skewness_max, thresholds.kurtosis_max) == (2.0, 7.5)
    assert thresholds.source == "published"
    assert thresholds.knee_lines == {}


def test_three_lines_are_too_few_for_a_knee(rng):
    recordings = draw_lines(rng, {"Sst": 4.0, "Vip": 5.0, "Cux2": 50.0})
    config = PredictabilityConfig(threshold_source="knee")
    with pytest.raises(ValueError, match=r"found 3 \(Sst, Vip, Cux2\).*published"):
        partition_recordings(recordings, whole(recordings), config)


def test_means_without_a_knee_are_an_error_and_no_warning(rng):
    recordings = draw_lines(rng, {"A": 10.0, "B": 20.0, "C": 30.0, "D": 40.0, "E": 50.0})
    config = PredictabilityConfig(threshold_source="knee")
    with pytest.raises(ValueError, match="without a knee"):
        partition_recordings(recordings, whole(recordings), config)


# partition -------------------------------------------------------------------------------------


def test_units_within_both_thresholds_are_predictable(rng):
    recording = make_recording(draw_traces(rng, 5, 3))
    config = PredictabilityConfig()
    partition = partition_recordings([recording], whole([recording]), config)
    assert partition.is_predictable(recording).tolist() == [True] * 5 + [False] * 3
    assert partition.is_unpredictable(recording).tolist() == [False] * 5 + [True] * 3
    assert not partition.is_excluded(recording).any()


@pytest.mark.parametrize(
    ("skewness", "kurtosis", "expected"),
    [(3.51, 22.62, True), (3.52, 22.62, False), (3.51, 22.63, False), (np.nan, np.nan, False)],
)
def test_a_unit_on_both_thresholds_is_predictable_and_one_beyond_either_is_not(
    skewness, kurtosis, expected
):
    units = pd.DataFrame(
        {
            "recording_id": ["r"],
            "unit_id": ["u"],
            "cre_line": [None],
            "skewness": [skewness],
            "kurtosis": [kurtosis],
            "excluded": [""],
        }
    )
    config = PredictabilityConfig()
    partitioned = partition_units(units, find_thresholds(units, config), config)
    assert partitioned["is_predictable"].tolist() == [expected]


def test_by_line_every_unit_shares_the_fate_of_its_line(rng):
    regular = make_recording(draw_traces(rng, 9, 1), "regular", cre_line="Sst")
    bursty = make_recording(draw_traces(rng, 1, 9), "bursty", cre_line="Cux2")
    config = PredictabilityConfig(by="line")
    both = [regular, bursty]
    partition = partition_recordings(both, whole(both), config)
    assert partition.is_predictable(regular).all()
    assert partition.is_unpredictable(bursty).all()


def test_an_excluded_unit_of_a_kept_line_is_not_predictable(rng):
    traces = draw_traces(rng, 4, 0)
    traces[:, 2] = 1.0
    recording = make_recording(traces, cre_line="Sst")
    config = PredictabilityConfig(by="line")
    partition = partition_recordings([recording], whole([recording]), config)
    assert partition.is_predictable(recording).tolist() == [True, True, False, True]
    assert partition.is_excluded(recording).tolist() == [False, False, True, False]
    assert not partition.is_unpredictable(recording).any()


def test_units_without_a_line_cannot_be_judged_by_line(rng):
    known = make_recording(draw_traces(rng, 2, 0), "known", cre_line="Sst")
    unknown = make_recording(draw_traces(rng, 2, 0), "unknown")
    config = PredictabilityConfig(by="line")
    with pytest.raises(ValueError, match=r"2 of 4 units have no cre_line .*'unknown'.*by='unit'"):
        partition_recordings([known, unknown], whole([known, unknown]), config)


def test_a_recording_of_one_unit_is_partitioned(rng):
    recording = make_recording(draw_traces(rng, 1, 0))
    config = PredictabilityConfig()
    partition = partition_recordings([recording], whole([recording]), config)
    assert partition.is_predictable(recording).tolist() == [True]
    assert isinstance(plot_predictability(partition), Figure)


def test_a_partition_knows_units_by_name_whatever_their_place(rng):
    recording = make_recording(draw_traces(rng, 3, 3))
    config = PredictabilityConfig()
    partition = partition_recordings([recording], whole([recording]), config)
    last_two = with_units_in_order(recording, np.array([4, 5]))
    assert partition.is_predictable(last_two).tolist() == [False, False]
    stranger = make_recording(draw_traces(rng, 2, 0), "stranger")
    with pytest.raises(ValueError, match=r"lacks 2 of the 2 units of recording 'stranger'"):
        partition.is_predictable(stranger)


def test_no_predictable_unit_anywhere_is_an_error_with_the_lowest_statistics(rng):
    recording = make_recording(draw_traces(rng, 0, 3))
    lowest = compute_predictability(recording.df_over_f).min()
    found = rf"is {lowest['skewness']:.1f}, the lowest kurtosis {lowest['kurtosis']:.1f}\."
    with pytest.raises(ValueError, match=rf"No unit of 1 recordings .* {found}"):
        partition_recordings([recording], whole([recording]), PredictabilityConfig())


def test_no_predictable_line_is_an_error_with_the_means_of_the_lines(rng):
    recording = make_recording(draw_traces(rng, 1, 5), cre_line="Cux2")
    with pytest.raises(ValueError, match=r"mean .* of their Cre line \(Cux2 .*\)\. Set by: unit"):
        partition_recordings([recording], whole([recording]), PredictabilityConfig(by="line"))


def test_nothing_but_excluded_units_is_an_error_with_the_reasons(rng):
    recording = make_recording(np.zeros((2000, 3)))
    with pytest.raises(ValueError, match=r"all 3 units were excluded: 3 constant"):
        partition_recordings([recording], whole([recording]), PredictabilityConfig())


def test_all_problems_of_the_recordings_are_reported_at_once(rng):
    twice = [make_recording(draw_traces(rng, 1, 0), "twin") for _ in range(2)]
    with pytest.raises(ValueError, match=r"shared: twin.*no training intervals: twin"):
        partition_recordings(twice, {}, PredictabilityConfig())
    with pytest.raises(ValueError, match="no recordings"):
        partition_recordings([], {}, PredictabilityConfig())


def test_the_table_of_units_survives_csv(rng, tmp_path):
    recordings = [
        make_recording(draw_traces(rng, 2, 1), "one", cre_line="Sst"),
        make_recording(draw_traces(rng, 2, 1), "two"),
    ]
    partition = partition_recordings(recordings, whole(recordings), PredictabilityConfig())
    assert partition.units.columns.tolist() == [
        "recording_id",
        "unit_id",
        "cre_line",
        "area",
        "imaging_depth_um",
        "num_timesteps",
        "skewness",
        "kurtosis",
        "is_predictable",
        "excluded",
    ]
    partition.units.to_csv(tmp_path / "units.csv", index=False)
    loaded = pd.read_csv(tmp_path / "units.csv")
    assert loaded["unit_id"].tolist() == ["one/0", "one/1", "one/2", "two/0", "two/1", "two/2"]
    assert loaded["is_predictable"].tolist() == partition.units["is_predictable"].tolist()


def test_a_summary_is_json_and_counts_every_unit_once(rng):
    traces = draw_traces(rng, 4, 2)
    traces[:, 0] = 0.0
    traces[7, 1] = np.nan
    recording = make_recording(traces, cre_line="Sst")
    partition = partition_recordings([recording], whole([recording]), PredictabilityConfig())
    summary = json.loads(json.dumps(summarize_partition(partition), allow_nan=False))
    assert summary["num_predictable"] == 2
    assert summary["num_unpredictable"] == 2
    assert summary["excluded_reasons"] == {"constant": 1, "non-finite values": 1}
    assert summary["num_units"] == 6
    assert summary["kurtosis_definition"] == "Pearson (normal: 3)"
    assert [line["cre_line"] for line in summary["line_means"]] == ["Sst"]


@pytest.mark.parametrize(
    "fields",
    [
        {"skewness_max": 0.0},
        {"kurtosis_max": np.nan},
        {"threshold_source": "guess"},
        {"by": "mouse"},
        {"min_timesteps": 1},
    ],
)
def test_impossible_options_are_refused(fields):
    with pytest.raises(ValueError, match=f"{next(iter(fields))} must be"):
        PredictabilityConfig(**fields)


# figure ----------------------------------------------------------------------------------------


def test_the_figure_of_one_line_shows_every_measured_unit(rng, tmp_path):
    recording = make_recording(draw_traces(rng, 5, 4))
    partition = partition_recordings([recording], whole([recording]), PredictabilityConfig())
    figure = plot_predictability(partition, tmp_path / "units.png")
    assert (tmp_path / "units.png").stat().st_size > 1000
    scatter = figure.axes[0]
    assert [len(group.get_offsets()) for group in scatter.collections] == [5, 4]
    labels = [text.get_text() for text in scatter.get_legend().get_texts()]
    assert labels == ["predictable (5)", "unpredictable (4)"]


def test_the_figure_of_several_lines_names_them_and_their_knees(rng):
    recordings = draw_lines(rng, LINES)
    config = PredictabilityConfig(threshold_source="knee", by="line")
    partition = partition_recordings(recordings, whole(recordings), config)
    axes = [part.axes for part in plot_predictability(partition).subfigs]
    names = {text.get_text() for text in axes[0][0].texts}
    assert set(LINES) <= names
    assert axes[1][1].get_yticklabels()[0].get_text() == "A (3)"
    assert axes[1][1].texts[0].get_text() == f"knee {partition.thresholds.kurtosis_max:.4g}"


# real data -------------------------------------------------------------------------------------


@pytest.mark.skipif(not ALLEN_SESSION.exists(), reason="the real Allen session is not here")
def test_an_allen_session_has_many_units_of_both_kinds():
    with h5py.File(ALLEN_SESSION) as file:
        trace = file["processing/ophys/DfOverF/DfOverF"]
        df_over_f, timestamps = trace["data"][:], trace["timestamps"][:]
    units = pd.DataFrame({"unit_id": [str(index) for index in range(df_over_f.shape[1])]})
    recording = Recording(
        recording_id="527745328-StimA", df_over_f=df_over_f, timestamps=timestamps, units=units
    )
    config = PredictabilityConfig()
    partition = partition_recordings([recording], whole([recording]), config)
    # counted independently with scipy over the whole session
    assert partition.is_predictable(recording).sum() == 105
    assert partition.is_unpredictable(recording).sum() == 149


def test_all_units_of_a_short_recording_can_be_decoded_save_those_without_activity(rng):
    traces = draw_traces(rng, 1, 1)
    traces[:, 1] = 3.0
    recording = make_recording(traces)
    partition = partition_recordings(
        [recording],
        {recording.recording_id: np.array([[0.0, 30.0]])},
        PredictabilityConfig(),
        may_be_empty=True,
    )
    assert partition.units["excluded"].tolist() == ["too short (300 timesteps)", "constant"]
    assert partition.select(recording, "all").tolist() == [True, False]
    assert not partition.select(recording, "unpredictable").any()


def test_a_group_without_a_unit_says_which_group_to_take(tiny_divided):
    divided = Divided([tiny_divided])
    config = PredictabilityConfig(skewness_max=1e3, kurtosis_max=1e6, min_timesteps=100)
    partition = partition_by_predictability(divided, config)
    with pytest.raises(RecordingError, match=r"group 'unpredictable': there are 6.*units: all"):
        partition.population(divided, "unpredictable")
    assert len(partition.population(divided, "all").unit_ids) == 6
