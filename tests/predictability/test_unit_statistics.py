"""Skewness and kurtosis of units are those that scipy finds, whatever the traces are kept in."""

from __future__ import annotations

import tracemalloc

import h5py
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.predictability.unit_statistics import compute_predictability, measure_units
from tiny_traces import draw_traces, make_recording

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
