"""Spikes become the fluorescence of GCaMP6f, and thresholds make firing sparse."""

import numpy as np
import pytest

from poyo_ssl.recordings.simulation.cells import (
    LINES,
    MAX_RATE,
    NOISE_MEDIAN,
    BrainState,
    calcium_kernel,
    compute_calcium,
    compute_firing_rates,
    draw_cells,
    fluctuate,
    image_calcium,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def quiet_state(num_timesteps):
    zeros = np.zeros(num_timesteps, dtype=np.float32)
    return BrainState(running=zeros, gain=zeros, membrane=zeros)


def test_a_spike_peaks_after_45_ms_and_halves_142_ms_later():
    times = np.arange(0, 1, 1e-4)
    response = calcium_kernel(times)
    peak = response.argmax()
    half = peak + np.flatnonzero(response[peak:] < 0.5)[0]
    assert response.max() == pytest.approx(1.0, abs=1e-6)
    assert times[peak] == pytest.approx(0.045, abs=0.001)
    assert times[half] - times[peak] == pytest.approx(0.142, abs=0.001)
    assert calcium_kernel(np.array(-0.1)) == 0


@pytest.mark.parametrize("sampling_rate", [10.0, 30.0, 60.0])
def test_the_calcium_of_one_spike_is_the_kernel_at_the_imaging_times(sampling_rate):
    spikes = np.zeros((60, 2))
    spikes[5, 1] = 1
    calcium = compute_calcium(spikes, sampling_rate)
    expected = calcium_kernel((np.arange(60) - 5) / sampling_rate)
    np.testing.assert_allclose(calcium[:, 1], expected, atol=1e-5)
    np.testing.assert_array_equal(calcium[:, 0], 0)


def test_the_13_lines_are_those_of_the_paper():
    assert len(LINES) == 13
    assert list(LINES)[:4] == ["Sst", "Vip", "Pvalb", "Ntsr1"]


def test_fluctuations_have_unit_variance_and_the_stated_correlation_time(rng):
    noise = fluctuate((60_000, 4), 0.5, 30.0, rng)
    lag = 15  # half a second
    correlation = (noise[lag:] * noise[:-lag]).mean()
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(1.0, abs=0.05)
    assert correlation == pytest.approx(np.exp(-1), abs=0.05)


def test_drive_above_the_threshold_raises_the_rate_and_below_it_hardly_does(rng):
    cells = draw_cells(LINES["Cux2"], 40, 60.0, rng)
    rates = {
        level: compute_firing_rates(
            cells, np.full((600, 40), level, np.float32), quiet_state(600), 30.0, rng
        ).mean()
        for level in (0.0, 0.4, 1.0)
    }
    assert rates[0.0] < 0.2
    assert rates[0.4] < 0.1 * rates[1.0]
    assert rates[1.0] > 5


def test_running_and_gain_scale_the_rate_and_no_rate_leaves_its_bounds(rng):
    cells = draw_cells(LINES["Vip"], 40, 60.0, rng)
    drive = np.full((600, 40), 0.8, np.float32)
    zeros, ones = np.zeros(600, np.float32), np.ones(600, np.float32)
    rest = compute_firing_rates(cells, drive, quiet_state(600), 30.0, rng).mean()
    runs = BrainState(running=ones, gain=zeros, membrane=zeros)
    excited = BrainState(running=zeros, gain=2 * ones, membrane=zeros)
    extreme = BrainState(running=ones, gain=40 * ones, membrane=zeros)
    assert compute_firing_rates(cells, drive, runs, 30.0, rng).mean() > 1.4 * rest
    assert compute_firing_rates(cells, drive, excited, 30.0, rng).mean() > 1.2 * rest
    bounded = compute_firing_rates(cells, drive, extreme, 30.0, rng)
    assert bounded.min() >= 0
    assert bounded.max() <= MAX_RATE


def test_silent_cells_show_symmetric_noise_of_the_measured_size(rng):
    cells = draw_cells(LINES["Cux2"], 50, 60.0, rng)
    trace = image_calcium(np.zeros((3000, 50), np.float32), cells, 30.0, rng)
    noise = np.diff(trace, axis=0).std(axis=0) / np.sqrt(2)
    assert trace.dtype == np.float32
    np.testing.assert_allclose(np.median(trace, axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(noise, cells.noise, rtol=0.1)
    assert np.median(noise) == pytest.approx(NOISE_MEDIAN, rel=0.1)


def test_strong_signals_saturate_and_carry_more_shot_noise(rng):
    cells = draw_cells(LINES["Cux2"], 20, 60.0, rng)
    calcium = np.zeros((3000, 20), np.float32)
    calcium[2000:] = 4.0 / cells.spike_amplitude  # a linear indicator would show 4
    trace = image_calcium(calcium, cells, 30.0, rng)
    assert trace[2000:].mean() == pytest.approx(4.0 / 1.5, rel=0.05)
    assert np.diff(trace[2000:], axis=0).std() > 1.5 * np.diff(trace[:2000], axis=0).std()
