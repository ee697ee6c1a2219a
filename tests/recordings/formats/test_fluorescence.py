"""ΔF/F is as its definition says, written out slowly, and finite where F0 vanishes."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_ssl.recordings.formats.fluorescence import compute_df_over_f
from poyo_ssl.recordings.recording import RecordingError


def brute_baseline(trace: np.ndarray, percentile: float, window: int) -> np.ndarray:
    """Sorts every mirrored window and takes the sample of that rank."""
    half = window // 2
    mirrored = np.concatenate([trace[:half][::-1], trace, trace[len(trace) - half :][::-1]])
    rank = int(window * percentile / 100)
    return np.array([np.sort(mirrored[i : i + window])[rank] for i in range(len(trace))])


def convert(traces: np.ndarray, percentile: float = 8.0, window: float = 2.1) -> np.ndarray:
    """At 10 Hz, so a window of 2.1 s holds 21 timesteps."""
    return compute_df_over_f(traces, 10.0, baseline_percentile=percentile, baseline_window=window)


def bright(rng: np.random.Generator, num_timesteps: int = 120, num_units: int = 3) -> np.ndarray:
    """Far above its noise, so that F0 alone divides."""
    return 100 + rng.exponential(5, size=(num_timesteps, num_units)).cumsum(axis=0) / 10


@settings(max_examples=60, deadline=None)
@given(
    num_timesteps=st.integers(3, 60),
    half=st.integers(1, 40),
    percentile=st.sampled_from([0.0, 8.0, 20.0, 50.0, 99.0]),
    seed=st.integers(0, 2**20),
)
def test_df_over_f_is_that_of_sorting_every_window(num_timesteps, half, percentile, seed):
    rng = np.random.default_rng(seed)
    trace = 1000 + np.round(rng.normal(size=num_timesteps), 1)  # ties occur
    window = min(2 * half + 1, num_timesteps - 1 + num_timesteps % 2)
    baseline = brute_baseline(trace, percentile, window)
    found = convert(trace[:, None], percentile, (2 * half + 1) / 10)
    np.testing.assert_allclose(found[:, 0], (trace - baseline) / baseline, rtol=1e-5, atol=1e-7)


def test_df_over_f_is_float32_of_the_same_shape(rng):
    found = convert(bright(rng).astype(np.uint16))
    assert found.dtype == np.float32
    assert found.shape == (120, 3)


def test_units_do_not_touch_each_other(rng):
    traces = bright(rng)
    np.testing.assert_array_equal(convert(traces)[:, [2, 0]], convert(traces[:, [2, 0]]))


def test_gain_of_the_microscope_does_not_matter(rng):
    traces = np.concatenate([bright(rng), rng.normal(size=(120, 3))], axis=1)
    np.testing.assert_allclose(convert(7.5 * traces), convert(traces), rtol=1e-4, atol=1e-6)


def test_bleaching_is_followed_and_transients_keep_their_height(rng):
    time = np.arange(3000) / 10
    bleaching = 200 * np.exp(-time / 200)
    true = np.zeros(3000)
    true[::150] = 2.0  # one sample in fifteen seconds
    found = convert((bleaching * (1 + true))[:, None], 8.0, 10.0)[:, 0]
    assert found[true > 0] == pytest.approx(2.0, abs=0.1)
    assert np.abs(found[true == 0]).max() < 0.06


def test_noise_divides_where_the_baseline_falls_below_it(rng, caplog):
    noise = rng.normal(size=(20_000, 1))
    with caplog.at_level(logging.WARNING):
        found = convert(3.0 * noise, 50.0, 60.0)
    assert found.std() == pytest.approx(1.0, rel=0.05)
    assert np.corrcoef(found[:, 0], noise[:, 0])[0, 1] > 0.98  # no sign was turned
    assert "1 of 1 units falls below the noise" in caplog.text


def test_a_bright_unit_causes_no_warning(rng, caplog):
    convert(bright(rng))
    assert not caplog.records


@pytest.mark.parametrize("level", [0.0, -3.0, np.nan, np.inf])
def test_a_trace_without_light_becomes_nan_and_leaves_others_alone(rng, level):
    traces = bright(rng)
    expected = convert(traces)
    traces[:, 1] = level
    found = convert(traces)
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_array_equal(found[:, [0, 2]], expected[:, [0, 2]])


def test_missing_samples_stay_missing_and_hardly_move_the_others(rng):
    traces = bright(rng, 1000)
    expected = convert(traces)
    traces[500:503, 0] = np.nan
    traces[0, 1] = np.inf
    found = convert(traces)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found[:, 0])), [500, 501, 502])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found[:, 1])), [0])
    np.testing.assert_allclose(found[510:, 0], expected[510:, 0], atol=0.01)


def test_the_traces_handed_in_are_not_changed(rng):
    traces = bright(rng)
    traces[3, 1] = np.nan
    before = traces.copy()
    convert(traces)
    np.testing.assert_array_equal(traces, before)


def test_a_window_longer_than_the_recording_is_cut_to_it(rng):
    traces = bright(rng, 101)
    np.testing.assert_array_equal(convert(traces, 8.0, 1e6), convert(traces, 8.0, 10.1))


@pytest.mark.parametrize("window", [0.0, 0.1])
def test_a_window_of_hardly_any_sample_is_refused(rng, window):
    with pytest.raises(RecordingError, match="Raise baseline_window"):
        convert(bright(rng), 8.0, window)


def test_a_single_trace_is_refused():
    with pytest.raises(ValueError, match="num_timesteps, num_units"):
        convert(np.ones(100))
