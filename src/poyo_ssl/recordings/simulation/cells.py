"""Simulated cells: 13 Cre lines, from visual drive over spikes to the ΔF/F of GCaMP6f."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy import signal

from poyo_ssl.recordings.simulation.receptive_fields import ReceptiveFields
from poyo_ssl.recordings.simulation.visual_stimuli import SCREEN_WIDTH

RISE_TIME = 0.01747
"""Time constant of the calcium rise in seconds: a single spike peaks after 45 ms
(GCaMP6f; Chen et al., Nature 499, 295 (2013))."""
DECAY_TIME = 0.17835
"""Time constant of the calcium decay in seconds: 142 ms from the peak to half of it
(GCaMP6f; Chen et al. 2013)."""
HALF_SATURATION = 8.0
"""ΔF/F at which the indicator gives half of what a linear one would."""
MAX_RATE = 100.0
"""Spikes per second that no cell exceeds."""
NOISE_MEDIAN = 0.06
"""Median over units of the noise per sample, ΔF/F (measured on session 527745328-StimA of the
Allen Brain Observatory: 5 to 95 per cent of the units lie between 0.046 and 0.077)."""
NOISE_SPREAD = 0.16
"""Standard deviation over units of the logarithm of the noise (measured as above)."""
DRIFT = 0.01
"""Standard deviation of the slow drift of the baseline, ΔF/F."""
_DRIFT_SECONDS = 60.0
_MEMBRANE_NOISE = 0.15
"""Standard deviation of the fast fluctuations of the input, in units of the best grating's drive.
Before a threshold they turn into sparse, variable spiking (Anderson et al., Science 290, 2000)."""
_MEMBRANE_SECONDS = 0.1
_SHARED_MEMBRANE = 0.1
"""Fraction of the variance of these fluctuations that all cells of a recording share."""
_SHARED_GAIN_SECONDS = 15.0
_PRIVATE_GAIN_SECONDS = 4.0
_SHARED_GAIN = 0.3
"""Fraction of the variance of the log gain that all cells of a recording share; multiplicative
shared gain is the largest part of correlated variability (Goris et al., Nat. Neurosci. 2014)."""


@dataclass(frozen=True, kw_only=True)
class LineProfile:
    """What the cells of one Cre line are like.

    The order of the lines and of their properties follows the literature (interneurons are
    active and broadly tuned, pyramidal cells sparse and sharply tuned; Vip and Sst cells are
    driven by running). The numbers are ours: chosen so that the skewness and kurtosis of the
    lines come near the published means and ridge reads directions well but not perfectly, and
    never by looking at how a pretrained model fares.
    """

    imaging_depth_um: float
    """Depth of the imaging plane."""
    baseline_rate: float
    """Median over units of the rate without visual input, spikes per second."""
    evoked_rate: float
    """Median over units of the rate that the best grating adds, spikes per second."""
    threshold: float
    """Mean over units of the drive (1: the best grating) below which nothing is added."""
    bandwidth: float
    """Median over units of the receptive field's standard deviation in cycles: more cycles,
    sharper tuning."""
    direction_selectivity: float
    """Mean over units, from 0 to 1."""
    gain_spread: float
    """Standard deviation of the logarithm of the slow gain."""
    running_gain: float
    """Relative change of the rate from rest to running."""
    spike_amplitude: float
    """Median over units of the peak ΔF/F of one spike."""


def _line(*values: float) -> LineProfile:
    return LineProfile(**dict(zip(LineProfile.__dataclass_fields__, values, strict=True)))


LINES: Mapping[str, LineProfile] = MappingProxyType(
    {
        # depth, baseline, evoked, threshold, bandwidth, direction, gain, running, amplitude
        "Sst": _line(275, 0.6, 14.0, 0.40, 0.28, 0.40, 0.30, 0.5, 0.12),
        "Vip": _line(175, 0.8, 11.0, 0.45, 0.25, 0.40, 0.30, 0.8, 0.12),
        "Pvalb": _line(275, 2.0, 20.0, 0.35, 0.25, 0.30, 0.30, 0.3, 0.08),
        "Ntsr1": _line(550, 0.6, 14.0, 0.40, 0.35, 0.50, 0.30, 0.2, 0.12),
        "Cux2": _line(175, 0.04, 18.0, 0.80, 0.45, 0.55, 0.50, 0.3, 0.22),
        "Rorb": _line(275, 0.06, 18.0, 0.80, 0.45, 0.55, 0.50, 0.3, 0.22),
        "Emx1": _line(275, 0.03, 20.0, 0.85, 0.45, 0.55, 0.60, 0.3, 0.25),
        "Slc17a7": _line(175, 0.03, 20.0, 0.85, 0.45, 0.50, 0.60, 0.3, 0.25),
        "Scnn1a": _line(350, 0.05, 18.0, 0.80, 0.45, 0.55, 0.50, 0.2, 0.22),
        "Nr5a1": _line(350, 0.03, 18.0, 0.80, 0.45, 0.55, 0.55, 0.2, 0.22),
        "Rbp4": _line(375, 0.06, 20.0, 0.85, 0.40, 0.60, 0.60, 0.4, 0.25),
        "Tlx3": _line(350, 0.02, 30.0, 0.95, 0.40, 0.65, 0.70, 0.2, 0.30),
        "Fezf2": _line(350, 0.04, 20.0, 0.85, 0.40, 0.55, 0.60, 0.3, 0.25),
    }
)
"""The 13 Cre lines; the first four are the lines that Bae et al. find predictable."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """The properties of some cells; every array has shape (num_units,)."""

    receptive_fields: ReceptiveFields
    """How they respond to pixels."""
    baseline_rate: np.ndarray
    """Spikes per second without visual input."""
    evoked_rate: np.ndarray
    """Spikes per second that the best grating adds."""
    threshold: np.ndarray
    """Drive below which nothing is added; 1 is the drive of the best grating."""
    gain_spread: np.ndarray
    """Standard deviation of the logarithm of the slow gain."""
    running_gain: np.ndarray
    """Relative change of the rate from rest to running."""
    spike_amplitude: np.ndarray
    """Peak ΔF/F of one spike."""
    noise: np.ndarray
    """Standard deviation of the noise per sample at rest, ΔF/F."""

    def __len__(self) -> int:
        return len(self.receptive_fields)

    def select(self, units: slice) -> Cells:
        """Some of the cells."""
        arrays = {name: array for name, array in vars(self).items() if name != "receptive_fields"}
        return Cells(
            receptive_fields=self.receptive_fields.select(units),
            **{name: array[units] for name, array in arrays.items()},
        )


def draw_receptive_fields(
    line: LineProfile, num_units: int, screen_height: float, rng: np.random.Generator
) -> ReceptiveFields:
    """Receptive fields of a line, spread over the screen.

    Args:
        line: The Cre line.
        num_units: Cells to draw.
        screen_height: Degrees of visual angle.
        rng: Source of randomness.

    References:
        Niell and Stryker, J. Neurosci. 28, 7520 (2008), for the ranges in mouse V1.
    """
    spatial_frequency = np.clip(0.04 * rng.lognormal(0, 0.4, num_units), 0.015, 0.12)
    cycles = line.bandwidth * rng.lognormal(0, 0.15, num_units)
    selectivity = line.direction_selectivity
    return ReceptiveFields(
        rightwards=rng.uniform(-0.38, 0.38, num_units) * SCREEN_WIDTH,
        upwards=rng.uniform(-0.38, 0.38, num_units) * screen_height,
        size=np.clip(cycles / spatial_frequency, 4, 14),
        direction=rng.uniform(0, 360, num_units),
        spatial_frequency=spatial_frequency,
        temporal_frequency=np.clip(2.5 * rng.lognormal(0, 0.7, num_units), 0.7, 12),
        direction_selectivity=rng.beta(3 * selectivity, 3 * (1 - selectivity), num_units),
        linearity=rng.beta(0.8, 1.2, num_units),
        phase=rng.uniform(0, 2 * np.pi, num_units),
    )


def draw_cells(
    line: LineProfile, num_units: int, screen_height: float, rng: np.random.Generator
) -> Cells:
    """Cells of a line: rates, amplitudes and noise vary log-normally from cell to cell."""

    def vary(median: float, spread: float) -> np.ndarray:
        return median * rng.lognormal(0, spread, num_units)

    return Cells(
        receptive_fields=draw_receptive_fields(line, num_units, screen_height, rng),
        baseline_rate=vary(line.baseline_rate, 0.8),
        evoked_rate=vary(line.evoked_rate, 0.7),
        threshold=rng.normal(line.threshold, 0.1, num_units),
        gain_spread=vary(line.gain_spread, 0.2),
        running_gain=line.running_gain * rng.normal(1, 0.5, num_units),
        spike_amplitude=vary(line.spike_amplitude, 0.3),
        noise=vary(NOISE_MEDIAN, NOISE_SPREAD),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class BrainState:
    """What all cells of a recording share; every array has shape (num_timesteps,)."""

    running: np.ndarray
    """From 0 at rest to 1 when running."""
    gain: np.ndarray
    """Slow fluctuation of the log gain, zero mean, unit variance."""
    membrane: np.ndarray
    """Fast fluctuation of the input, zero mean, unit variance."""


def draw_brain_state(
    running: np.ndarray, sampling_rate: float, rng: np.random.Generator
) -> BrainState:
    """Shared fluctuations for a given course of running (num_timesteps,), 0 to 1."""
    shape = (len(running), 1)
    gain = fluctuate(shape, _SHARED_GAIN_SECONDS, sampling_rate, rng)[:, 0]
    membrane = fluctuate(shape, _MEMBRANE_SECONDS, sampling_rate, rng)[:, 0]
    return BrainState(running=running, gain=gain, membrane=membrane)


def fluctuate(
    shape: tuple[int, int], seconds: float, sampling_rate: float, rng: np.random.Generator
) -> np.ndarray:
    """Ornstein-Uhlenbeck noise of zero mean and unit variance, independent in every column.

    Args:
        shape: (num_timesteps, num_columns).
        seconds: Correlation time.
        sampling_rate: Hz.
        rng: Source of randomness.

    Returns:
        Shape ``shape``, float32.
    """
    keep = float(np.exp(-1 / (seconds * sampling_rate)))
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise[1:] *= np.float32(np.sqrt(1 - keep**2))
    feedback = np.array([1, -keep], dtype=np.float32)
    return signal.lfilter(np.ones(1, dtype=np.float32), feedback, noise, axis=0)


def compute_firing_rates(
    cells: Cells,
    drive: np.ndarray,
    state: BrainState,
    sampling_rate: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Spikes per second: a noisy threshold on the visual drive, times slow gains and running.

    Args:
        cells: The cells.
        drive: Visual drive, shape (num_timesteps, num_units).
        state: What the cells share.
        sampling_rate: Hz.
        rng: Source of the private fluctuations.

    Returns:
        Shape (num_timesteps, num_units), float32.
    """
    private = fluctuate(drive.shape, _MEMBRANE_SECONDS, sampling_rate, rng)
    private *= _MEMBRANE_NOISE * np.sqrt(1 - _SHARED_MEMBRANE)
    shared = _MEMBRANE_NOISE * np.sqrt(_SHARED_MEMBRANE) * state.membrane[:, None]
    threshold = cells.threshold.astype(np.float32)
    above = np.maximum(drive + private + shared - threshold, 0) / (1 - np.minimum(threshold, 0.9))
    rates = cells.baseline_rate.astype(np.float32) + cells.evoked_rate.astype(np.float32) * above
    log_gain = fluctuate(drive.shape, _PRIVATE_GAIN_SECONDS, sampling_rate, rng)
    log_gain *= np.sqrt(1 - _SHARED_GAIN)
    log_gain += np.sqrt(_SHARED_GAIN) * state.gain[:, None]
    rates *= np.exp(log_gain * cells.gain_spread.astype(np.float32))
    rates *= np.maximum(1 + np.outer(state.running, cells.running_gain), 0)
    return np.minimum(rates, MAX_RATE).astype(np.float32)


def calcium_kernel(times: np.ndarray) -> np.ndarray:
    """The calcium response to one spike at time 0, peak 1: a double exponential.

    Args:
        times: Seconds since the spike, any shape.
    """
    since = np.maximum(times, 0)
    peak_time = np.log(DECAY_TIME / RISE_TIME) * DECAY_TIME * RISE_TIME / (DECAY_TIME - RISE_TIME)

    def response(time: np.ndarray | float) -> np.ndarray:
        return np.asarray(np.exp(-time / DECAY_TIME) - np.exp(-time / RISE_TIME))

    return response(since) / response(peak_time)


def compute_calcium(spikes: np.ndarray, sampling_rate: float) -> np.ndarray:
    """Spike counts convolved with :func:`calcium_kernel`.

    Args:
        spikes: Counts, shape (num_timesteps, num_units); a spike falls at its timestep.
        sampling_rate: Hz.

    Returns:
        Shape (num_timesteps, num_units), float32.
    """
    decay, rise = np.exp(-1 / (sampling_rate * np.array([DECAY_TIME, RISE_TIME])))
    first = float(
        calcium_kernel(np.array(1 / sampling_rate))
    )  # the recursion gives the later samples
    feedforward = np.array([0, first], dtype=np.float32)
    feedback = np.array([1, -(decay + rise), decay * rise], dtype=np.float32)
    return signal.lfilter(feedforward, feedback, spikes.astype(np.float32), axis=0)


def image_calcium(
    calcium: np.ndarray, cells: Cells, sampling_rate: float, rng: np.random.Generator
) -> np.ndarray:
    """ΔF/F as a microscope sees it: saturating indicator, shot noise and a drifting baseline.

    Args:
        calcium: Calcium in single-spike peaks, shape (num_timesteps, num_units).
        cells: The cells.
        sampling_rate: Hz.
        rng: Source of the noise.

    Returns:
        ΔF/F relative to each unit's median, shape (num_timesteps, num_units), float32.
    """
    linear = calcium * cells.spike_amplitude.astype(np.float32)
    df_over_f = linear / (1 + linear / HALF_SATURATION)
    noise = rng.standard_normal(calcium.shape, dtype=np.float32) * cells.noise.astype(np.float32)
    noise *= np.sqrt(1 + df_over_f)  # photon counting: the variance grows with the light
    drift = DRIFT * fluctuate(calcium.shape, _DRIFT_SECONDS, sampling_rate, rng)
    df_over_f += noise + drift
    df_over_f -= np.median(df_over_f, axis=0)
    return df_over_f.astype(np.float32, copy=False)
