"""Event rate, Fano factor, autocorrelation and noise: values known by hand, and no leak at gaps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from poyo_ssl.predictability import activity_statistics
from poyo_ssl.predictability.activity_statistics import (
    STATISTICS,
    ActivityConfig,
    compute_activity_statistics,
    find_runs,
    measure_activity,
)
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.predictability.unit_statistics import measure_units
from poyo_ssl.recordings.recording import Recording


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def make_recording(df_over_f: np.ndarray, timestamps: np.ndarray) -> Recording:
    units = pd.DataFrame({"unit_id": [f"unit {index}" for index in range(df_over_f.shape[1])]})
    return Recording(
        recording_id="mouse-1", df_over_f=df_over_f, timestamps=timestamps, units=units
    )


def draw_transients(rng: np.random.Generator, is_event: np.ndarray, noise: float) -> np.ndarray:
    """Noise, and one timestep of ΔF/F 1 at every event."""
    return noise * rng.normal(size=is_event.shape) + is_event


# statistics ------------------------------------------------------------------------------------


def test_a_trace_of_five_timesteps_has_statistics_known_by_hand():
    trace = np.array([0.0, 1.0, 0.0, 9.0, 0.0])[:, None]
    # steps 1, 1, 9, 9: median 5, noise 5 / 0.9539 = 5.24; median of the trace 0
    config = ActivityConfig(event_threshold=1.5, bin_length=0.5)  # 7.86; bins of 2 timesteps
    (row,) = compute_activity_statistics(trace, 4.0, config=config).itertuples()
    assert row.noise_level == pytest.approx(100.0 * 5.0 / 2.0)
    assert row.event_rate == pytest.approx(1 / 5 * 4.0)
    # bins hold 0 and 1 events: mean 0.5, sample variance 0.5
    assert row.fano_factor == pytest.approx(1.0)
    assert row.autocorrelation == pytest.approx(np.corrcoef([0, 1, 0, 9], [1, 0, 9, 0])[0, 1])


def test_white_noise_has_its_standard_deviation_as_noise_and_hardly_an_event(rng):
    statistics = compute_activity_statistics(0.1 * rng.normal(size=(50_000, 4)), 25.0)
    median_step = 0.1 * np.sqrt(2.0) * scipy.stats.norm.ppf(0.75)
    assert statistics["noise_level"].to_numpy() == pytest.approx(20.0 * median_step, rel=0.02)
    assert statistics["autocorrelation"].abs().max() < 0.02
    expected = 25.0 * scipy.stats.norm.sf(4.0)  # 1.6 in 2,000 s
    assert statistics["event_rate"].mean() == pytest.approx(expected, abs=4 * expected)


def test_poisson_events_are_found_and_have_a_fano_factor_of_one(rng):
    is_event = rng.random((40_000, 6)) < 0.02
    traces = draw_transients(rng, is_event, noise=0.03)
    statistics = compute_activity_statistics(traces, 20.0)
    # an event right after another is no new crossing
    num_crossings = (is_event[1:] & ~is_event[:-1]).sum(axis=0)
    found = statistics["event_rate"] * 40_000 / 20.0
    assert found.to_numpy() == pytest.approx(num_crossings, rel=0.01, abs=2)
    assert statistics["fano_factor"].to_numpy() == pytest.approx(1.0, abs=0.1)


def test_events_in_volleys_have_a_larger_fano_factor_than_a_clock(rng):
    clock, volleys = np.zeros((2, 12_000))
    clock[::20] = 1.0
    volleys[np.add.outer(np.arange(0, 12_000, 200), 2 * np.arange(10)).ravel()] = 1.0
    traces = draw_transients(rng, np.stack([clock, volleys], axis=1), noise=0.02)
    one, two = compute_activity_statistics(traces, 20.0).itertuples()
    assert one.event_rate == pytest.approx(two.event_rate, rel=0.02)
    assert one.fano_factor < 0.05
    assert two.fano_factor > 5.0


def test_a_slow_trace_has_the_autocorrelation_it_was_drawn_with(rng):
    trace = np.zeros(40_000)
    for index, step in enumerate(rng.normal(size=39_999), start=1):
        trace[index] = 0.8 * trace[index - 1] + step
    statistics = compute_activity_statistics(trace[:, None], 30.0)
    assert statistics["autocorrelation"][0] == pytest.approx(0.8, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3), offset=st.floats(-10, 10))
def test_only_noise_follows_the_scale_of_a_trace_and_nothing_its_offset(seed, scale, offset):
    traces = np.random.default_rng(seed).gamma(0.2, size=(300, 2))
    one = compute_activity_statistics(traces, 10.0)
    two = compute_activity_statistics(scale * (traces + offset), 10.0)
    two["noise_level"] /= scale
    assert_frame_equal(one, two, rtol=1e-6)


# gaps and borders ------------------------------------------------------------------------------


def test_a_jump_is_a_step_and_an_event_inside_a_run_but_not_between_two(rng):
    traces = 0.01 * rng.normal(size=(400, 3))
    traces[200:] += 1.0
    jumps = ActivityConfig(event_threshold=8.0)
    apart = compute_activity_statistics(traces, 10.0, [[0, 200], [200, 400]], jumps)
    whole = compute_activity_statistics(traces, 10.0, config=jumps)
    assert (apart["event_rate"] == 0.0).all()
    assert apart["fano_factor"].isna().all()
    assert (whole["event_rate"] == 1 / 40.0).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_statistics_of_runs_equal_a_loop_over_them(seed):
    rng = np.random.default_rng(seed)
    trace = rng.gamma(0.3, size=200)
    edges = np.sort(rng.choice(201, size=8, replace=False))
    runs = edges.reshape(-1, 2)
    pieces = [trace[start:stop] for start, stop in runs]
    pairs = np.concatenate([np.stack([piece[:-1], piece[1:]], axis=1) for piece in pieces])
    step = np.median(np.abs(pairs[:, 1] - pairs[:, 0]))
    noise = step / (np.sqrt(2.0) * scipy.stats.norm.ppf(0.75))
    kept = np.concatenate(pieces)
    threshold = np.median(kept) + 4.0 * noise
    num_events, counts = 0, []
    for piece in pieces:
        rises = [
            index for index in range(1, len(piece)) if piece[index - 1] <= threshold < piece[index]
        ]
        num_events += len(rises)
        for first in range(0, len(piece) - 4, 5):
            counts.append(sum(first <= index < first + 5 for index in rises))
    config = ActivityConfig(bin_length=0.5)  # 5 timesteps
    (row,) = compute_activity_statistics(trace[:, None], 10.0, runs, config).itertuples()
    assert row.noise_level == pytest.approx(100.0 * step / np.sqrt(10.0))
    assert row.event_rate == pytest.approx(num_events / (len(kept) / 10.0))
    if len(pairs) > 2:
        assert row.autocorrelation == pytest.approx(np.corrcoef(pairs.T)[0, 1])
    if len(counts) > 1 and any(counts):
        assert row.fano_factor == pytest.approx(np.var(counts, ddof=1) / np.mean(counts))
    else:
        assert np.isnan(row.fano_factor)


def test_runs_end_at_gaps_and_at_borders_of_intervals(rng):
    timestamps = np.concatenate([np.arange(50), np.arange(100, 150)]) / 10.0
    recording = make_recording(rng.normal(size=(100, 2)), timestamps)
    touching = np.array([[1.0, 3.0], [3.0, 12.0], [14.0, 99.0]])
    runs = find_runs(recording, touching)
    assert runs.tolist() == [[10, 30], [30, 50], [50, 70], [90, 100]]
    is_covered = np.zeros(100, dtype=bool)
    for start, stop in runs:
        is_covered[start:stop] = True
    assert np.array_equal(is_covered, recording.is_inside(touching))
    assert find_runs(recording, np.empty((0, 2))).shape == (0, 2)


def test_timesteps_outside_the_intervals_change_nothing(rng):
    traces = rng.gamma(0.3, size=(1000, 3))
    changed = traces.copy()
    changed[600:] = 1000.0 * rng.normal(size=(400, 3))
    intervals = np.array([[0.0, 20.0], [30.0, 60.0]])
    one, two = (
        measure_activity(make_recording(version, np.arange(1000) / 10.0), intervals)
        for version in (traces, changed)
    )
    assert_frame_equal(one, two)


# units and populations -------------------------------------------------------------------------


def test_the_table_joins_that_of_predictability_on_unit_id(rng):
    recording = make_recording(rng.normal(size=(1000, 5)), np.arange(1000) / 10.0)
    intervals = recording.segment_intervals
    units = measure_units(recording, intervals, PredictabilityConfig())
    activity = measure_activity(recording, intervals)
    joined = units.merge(activity, on=["recording_id", "unit_id"], validate="one_to_one")
    assert len(joined) == 5
    assert joined[list(STATISTICS)].notna().any(axis=None)
    assert not set(STATISTICS) & set(units.columns)


def test_units_that_cannot_be_measured_get_nan_and_disturb_no_other(rng):
    traces = rng.gamma(0.3, size=(400, 4))
    expected = compute_activity_statistics(traces, 10.0)
    traces[7, 1] = np.nan
    traces[:, 2] = 0.3
    statistics = compute_activity_statistics(traces, 10.0)
    assert statistics.loc[[1, 2]].isna().all(axis=None)
    assert_frame_equal(statistics.loc[[0, 3]], expected.loc[[0, 3]])


@pytest.mark.parametrize("runs", [np.empty((0, 2), dtype=int), [[3, 4], [9, 9], [20, 21]]])
def test_without_two_successive_timesteps_nothing_is_measured(rng, runs):
    statistics = compute_activity_statistics(rng.normal(size=(50, 3)), 10.0, runs)
    assert statistics.shape == (3, 4)
    assert statistics.isna().all(axis=None)


def test_a_large_population_is_measured_in_groups_with_the_same_result(rng, monkeypatch):
    traces = rng.gamma(0.3, size=(300, 23)).astype(np.float32)
    expected = compute_activity_statistics(traces, 10.0)
    monkeypatch.setattr(activity_statistics, "_BYTES_AT_A_TIME", 8 * 300 * 4)
    assert_frame_equal(compute_activity_statistics(traces, 10.0), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"df_over_f": np.zeros(10)}, "num_timesteps, num_units"),
        ({"sampling_rate": 0.0}, "positive number of Hz, got 0"),
        ({"runs": [[0, 5], [5, 11]]}, "Run 1 spans timesteps 5 to 11, but the traces have 10"),
        ({"runs": [[5, 2]]}, "Run 0 spans"),
    ],
)
def test_impossible_traces_rates_and_runs_are_refused(options, message):
    given = {"df_over_f": np.zeros((10, 2)), "sampling_rate": 10.0, **options}
    with pytest.raises(ValueError, match=message):
        compute_activity_statistics(**given)


@pytest.mark.parametrize("field", ["event_threshold", "bin_length"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_impossible_options_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be positive"):
        ActivityConfig(**{field: value})
