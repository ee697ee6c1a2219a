"""Skewness and kurtosis of units, and who is predictable because of them."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from pandas.testing import assert_frame_equal

from poyo_ssl.predictability.figure import plot_predictability
from poyo_ssl.predictability.partition import partition_recordings, summarize_partition
from poyo_ssl.predictability.thresholds import PredictabilityConfig, find_thresholds
from poyo_ssl.predictability.unit_statistics import compute_predictability, measure_units
from poyo_ssl.predictability.verdicts import partition_units
from poyo_ssl.recordings.recording import Recording
from tiny_fits import with_units_in_order

ALLEN_SESSION = (
    Path(__file__).resolve().parents[2]
    / "../shared/data/sub-527550471_ses-527745328-StimA_ophys.nwb"
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def make_recording(
    df_over_f: np.ndarray, recording_id: str = "mouse-1", cre_line: str | None = None
) -> Recording:
    """A recording at 10 Hz that starts at 0 s."""
    num_timesteps, num_units = df_over_f.shape
    units = pd.DataFrame({"unit_id": [f"{recording_id}/{index}" for index in range(num_units)]})
    units["cre_line"] = cre_line
    return Recording(
        recording_id=recording_id,
        df_over_f=df_over_f.astype(np.float32),
        timestamps=np.arange(num_timesteps) / 10.0,
        units=units,
    )


def draw_traces(
    rng: np.random.Generator, num_regular: int, num_bursty: int, num_timesteps: int = 2000
) -> np.ndarray:
    """Noise, and after those units noise with one transient in a hundred timesteps."""
    noise = rng.normal(size=(num_timesteps, num_regular + num_bursty))
    is_burst = rng.random((num_timesteps, num_bursty)) < 0.01
    noise[:, num_regular:] += is_burst * 30.0
    return noise


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


# statistics ----------------------------------------------------------------------------------


def test_statistics_of_many_units_equal_scipys_on_each(rng):
    traces = rng.exponential(size=(700, 37)) + rng.normal(size=37)
    statistics = compute_predictability(traces)
    for unit in range(37):
        assert statistics["skewness"][unit] == pytest.approx(scipy.stats.skew(traces[:, unit]))
        assert statistics["kurtosis"][unit] == pytest.approx(
            scipy.stats.kurtosis(traces[:, unit], fisher=False)
        )
    assert (statistics["excluded"] == "").all()


def test_one_transient_in_ten_timesteps_has_statistics_known_by_hand():
    trace = np.array([1.0] + [0.0] * 9)
    # mean 0.1, variance 0.09, third moment 0.072, fourth moment 0.0657
    statistics = compute_predictability(trace[:, None])
    assert statistics["skewness"][0] == pytest.approx(0.072 / 0.09**1.5)
    assert statistics["kurtosis"][0] == pytest.approx(0.0657 / 0.09**2)


def test_normal_activity_scores_no_skewness_and_a_kurtosis_of_three(rng):
    statistics = compute_predictability(rng.normal(size=(20_000, 3)))
    assert statistics["skewness"].abs().max() < 0.1
    assert statistics["kurtosis"].to_numpy() == pytest.approx(3.0, abs=0.2)


def test_scores_ignore_the_scale_and_offset_of_a_trace(rng):
    traces = rng.exponential(size=(500, 3))
    assert_frame_equal(
        compute_predictability(2.0 * traces + 1.0), compute_predictability(traces), rtol=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    scale=st.floats(1e-3, 1e3),
    offset=st.floats(-1e3, 1e3),
)
def test_scores_of_a_flipped_trace_differ_in_the_sign_of_skewness_alone(seed, scale, offset):
    traces = np.random.default_rng(seed).exponential(size=(60, 2))
    one, two = compute_predictability(traces), compute_predictability(offset - scale * traces)
    assert np.allclose(one["skewness"], -two["skewness"], rtol=1e-6)
    assert np.allclose(one["kurtosis"], two["kurtosis"], rtol=1e-6)


def test_a_large_offset_does_not_swallow_a_tiny_variance(rng):
    traces = rng.exponential(size=(5000, 2))
    far = 1e6 + 1e-4 * traces
    expected, found = compute_predictability(traces), compute_predictability(far)
    assert_frame_equal(found, expected, rtol=1e-4)


def test_scores_follow_units_when_units_change_places(rng):
    traces = rng.exponential(size=(300, 20))
    order = rng.permutation(20)
    shuffled = compute_predictability(traces[:, order])
    assert_frame_equal(shuffled, compute_predictability(traces).iloc[order].reset_index(drop=True))


def test_single_precision_traces_are_scored_in_double_precision(rng):
    traces = rng.exponential(size=(3000, 4)).astype(np.float32)
    assert_frame_equal(
        compute_predictability(traces), compute_predictability(traces.astype(np.float64)), rtol=1e-9
    )


def test_scores_of_some_timesteps_are_those_of_the_traces_cut_to_them(rng):
    traces = rng.exponential(size=(400, 18))
    is_inside = rng.random(400) < 0.5
    assert_frame_equal(
        compute_predictability(traces, is_inside), compute_predictability(traces[is_inside])
    )


def test_scoring_traces_in_memory_makes_no_copy_of_them():
    traces = np.random.default_rng(0).random((30_000, 200), dtype=np.float32)
    tracemalloc.start()
    compute_predictability(traces)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < traces.nbytes / 3


def test_traces_on_disk_get_the_same_scores_and_reasons_as_in_memory(rng, tmp_path):
    traces = rng.exponential(size=(3000, 40)).astype(np.float32)
    traces[17, 3], traces[:, 5], traces[:, 8] = np.nan, 2.0, 1e4
    traces[9, 8] = np.nextafter(np.float32(1e4), np.float32(2e4))
    is_inside = rng.random(3000) < 0.7
    is_inside[[9, 17]] = True
    expected = compute_predictability(traces, is_inside)
    assert expected["excluded"].value_counts()[""] == 37
    mapped = np.memmap(tmp_path / "traces.dat", np.float32, "w+", shape=traces.shape)
    mapped[:] = traces
    assert_frame_equal(compute_predictability(mapped, is_inside), expected)
    with h5py.File(tmp_path / "traces.h5", "w") as file:
        for chunks in (None, True, (500, 7)):
            dataset = file.create_dataset(f"traces {chunks}", data=traces, chunks=chunks)
            assert_frame_equal(compute_predictability(dataset, is_inside), expected)


def test_rounding_is_judged_by_the_precision_that_traces_are_stored_in():
    trace = np.full((50, 1), 1e4)
    trace[7] = np.nextafter(np.float32(1e4), np.float32(2e4))
    assert compute_predictability(trace)["excluded"].tolist() == [""]
    single = trace.astype(np.float32)
    assert compute_predictability(single)["excluded"].tolist() == ["only rounding"]


def test_a_unit_that_changes_only_between_blocks_is_not_constant():
    traces = np.repeat([[1.0], [3.0]], 1024, axis=0)
    statistics = compute_predictability(traces)
    assert statistics["excluded"].tolist() == [""]
    assert statistics["kurtosis"][0] == pytest.approx(1.0)  # two equal halves, by hand
    assert statistics["skewness"][0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([0.0] * 50, "constant"),
        ([0.1] * 50, "constant"),
        ([1e4] * 49 + [np.nextafter(np.float32(1e4), np.float32(2e4))], "only rounding"),
        ([0.0] * 49 + [np.nan], "non-finite values (1)"),
        ([np.inf, -np.inf, *range(48)], "non-finite values (2)"),
    ],
)
def test_a_unit_without_statistics_gets_nan_and_a_reason_and_disturbs_no_other(rng, values, reason):
    traces = rng.normal(size=(50, 3)).astype(np.float32)
    expected = compute_predictability(traces)
    traces[:, 1] = values
    statistics = compute_predictability(traces)
    assert statistics["excluded"].tolist() == ["", reason, ""]
    assert statistics.loc[1, ["skewness", "kurtosis"]].isna().all()
    assert_frame_equal(statistics.drop(index=1), expected.drop(index=1))


def test_a_single_trace_is_refused():
    with pytest.raises(ValueError, match="num_timesteps, num_units"):
        compute_predictability(np.zeros(100))


def test_a_population_without_units_is_refused():
    with pytest.raises(ValueError, match="no unit"):
        compute_predictability(np.zeros((100, 0)))


def test_a_choice_of_timesteps_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="one boolean for each of 100 timesteps"):
        compute_predictability(np.zeros((100, 2)), np.ones(99, dtype=bool))


# units of a recording --------------------------------------------------------------------------


def test_units_are_measured_on_training_timesteps_alone(rng):
    traces = draw_traces(rng, 4, 4)
    changed = traces.copy()
    changed[1500:] = 1000.0 * rng.exponential(size=(500, 8)) ** 3
    training = np.array([[0.0, 100.0], [120.0, 150.0]])
    config = PredictabilityConfig()
    one = measure_units(make_recording(traces), training, config)
    two = measure_units(make_recording(changed), training, config)
    assert_frame_equal(one, two)
    assert (one["num_timesteps"] == 1300).all()
    everything = measure_units(make_recording(changed), np.array([[0.0, 200.0]]), config)
    assert (everything["kurtosis"] != two["kurtosis"]).all()


def test_units_measured_on_too_little_time_are_excluded(rng):
    recording = make_recording(draw_traces(rng, 2, 0))
    units = measure_units(recording, np.array([[0.0, 30.0]]), PredictabilityConfig())
    assert units["excluded"].tolist() == ["too short (300 timesteps)"] * 2
    assert units[["skewness", "kurtosis"]].isna().all(axis=None)
    shorter = PredictabilityConfig(min_timesteps=300)
    units = measure_units(recording, np.array([[0.0, 30.0]]), shorter)
    assert (units["excluded"] == "").all()


def test_no_training_time_at_all_excludes_every_unit(rng):
    recording = make_recording(draw_traces(rng, 2, 0))
    units = measure_units(recording, np.empty((0, 2)), PredictabilityConfig())
    assert units["excluded"].tolist() == ["too short (0 timesteps)"] * 2


def test_excess_kurtosis_lies_three_below_pearsons(rng):
    recording = make_recording(draw_traces(rng, 3, 3))
    pearson, excess = (
        measure_units(
            recording, np.array([[0.0, 200.0]]), PredictabilityConfig(is_excess_kurtosis=is_excess)
        )
        for is_excess in (False, True)
    )
    assert np.allclose(pearson["kurtosis"] - 3.0, excess["kurtosis"])
    assert np.array_equal(pearson["skewness"], excess["skewness"])


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
