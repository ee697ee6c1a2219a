"""How simulated visual cells respond to pixels: the motion-energy model."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy import signal, sparse

from poyo_ssl.recordings.simulation.visual_stimuli import (
    GRATING_CONTRAST,
    REFRESH_RATE,
    pixel_positions,
)

_LATENCY = 0.04
"""Seconds from the screen to the cortex (mouse V1 responds from about 40 ms on)."""
_FILTER_STAGES = 2
"""Leaky integrators in a row; two give broad temporal tuning and fast onsets."""
_FILTER_DURATION = 1.2
"""Seconds after which the slowest temporal filter has decayed to below one per cent."""
_HALF_SATURATION = 0.2
"""Drive at which the response to contrast is about half its maximum (Naka-Rushton)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReceptiveFields:
    """Spatiotemporal receptive fields of some cells; every field has shape (num_units,)."""

    rightwards: np.ndarray
    """Centre, degrees from the middle of the screen."""
    upwards: np.ndarray
    """Centre, degrees from the middle of the screen."""
    size: np.ndarray
    """Standard deviation of the Gaussian envelope, degrees."""
    direction: np.ndarray
    """Preferred direction of motion, degrees from rightwards to upwards."""
    spatial_frequency: np.ndarray
    """Preferred spatial frequency, cycles per degree."""
    temporal_frequency: np.ndarray
    """Preferred temporal frequency, Hz."""
    direction_selectivity: np.ndarray
    """0: opposite directions drive the cell alike; 1: only the preferred one does."""
    linearity: np.ndarray
    """0: complex cell, blind to the phase; 1: simple cell, a rectified linear filter."""
    phase: np.ndarray
    """Phase that the linear part prefers, radians."""

    def __len__(self) -> int:
        return len(self.direction)

    def select(self, units: slice) -> ReceptiveFields:
        """The receptive fields of some of the units."""
        return ReceptiveFields(**{f.name: getattr(self, f.name)[units] for f in fields(self)})

    def spatial_filters(self, height: int, width: int) -> np.ndarray:
        """Gabor filters: even part real, odd part imaginary; blind to uniform light.

        The scale is such that the best grating gives an amplitude of 1.

        Returns:
            Shape (height * width, num_units), complex64.
        """
        rightwards, upwards = pixel_positions(height, width)
        x = rightwards[None, :, None] - self.rightwards.astype(np.float32)  # (1, width, num_units)
        y = upwards[:, None, None] - self.upwards.astype(np.float32)  # (height, 1, num_units)
        variance = (2 * self.size**2).astype(np.float32)
        envelope = np.exp(-(x**2) / variance) * np.exp(-(y**2) / variance)
        angle = np.deg2rad(self.direction)
        wave_x = (2 * np.pi * self.spatial_frequency * np.cos(angle)).astype(np.float32)
        wave_y = (2 * np.pi * self.spatial_frequency * np.sin(angle)).astype(np.float32)
        carrier = np.exp(1j * wave_x * x) * np.exp(1j * wave_y * y)  # (height, width, num_units)
        envelope /= envelope.sum(axis=(0, 1))
        uniform = (envelope * carrier).sum(axis=(0, 1))
        filters = envelope * (carrier - uniform) * (2 / GRATING_CONTRAST)
        return filters.reshape(height * width, len(self)).astype(np.complex64)

    def temporal_filters(self) -> np.ndarray:
        """Complex gamma filters that pass the preferred frequency forwards in time only.

        Returns:
            One value per screen refresh, shape (num_refreshes, num_units), complex64.
        """
        times = np.arange(round(_FILTER_DURATION * REFRESH_RATE))[:, None] / REFRESH_RATE
        since = np.maximum(times - _LATENCY, 0)
        decay = 1 / (2 * np.pi * self.temporal_frequency)
        envelope = (since / decay) ** (_FILTER_STAGES - 1) * np.exp(-since / decay)
        envelope /= envelope.sum(axis=0)
        wave = np.exp(2j * np.pi * self.temporal_frequency * since)
        return (envelope * wave).astype(np.complex64)


def compute_visual_drive(
    receptive_fields: ReceptiveFields, pictures: np.ndarray, mixture: sparse.csr_array
) -> np.ndarray:
    """The visual input of each cell at every refresh of the screen.

    Pixels pass a quadrature pair of Gabor filters and complex temporal filters, whose modulus is
    the motion energy (a complex cell) and whose real part, rectified, is a simple cell's drive.
    A contrast response function saturates the sum.

    Args:
        receptive_fields: The cells.
        pictures: Contrast, shape (num_pictures, height, width), float32.
        mixture: Which pictures are on the screen, shape (num_refreshes, num_pictures).

    Returns:
        Drive, shape (num_refreshes, num_units), float32: 0 for grey, 1 for the best grating.

    References:
        Adelson and Bergen, J. Opt. Soc. Am. A 2, 284 (1985), for the motion energy;
        Albrecht and Hamilton, J. Neurophysiol. 48, 217 (1982), for the contrast response.
    """
    num_pictures, height, width = pictures.shape
    filters = receptive_fields.spatial_filters(height, width)  # (pixels, num_units)
    pixels = pictures.reshape(num_pictures, -1)
    temporal = receptive_fields.temporal_filters()

    def pass_filters(spatial: np.ndarray) -> np.ndarray:
        seen = mixture @ (pixels @ np.ascontiguousarray(spatial))  # (num_refreshes, num_units)
        return signal.oaconvolve(seen, temporal, axes=0)[: mixture.shape[0]]

    even, odd = pass_filters(filters.real), pass_filters(filters.imag)
    forwards = even + 1j * odd
    backwards = even.conj() + 1j * odd.conj()
    opposite = (1 - receptive_fields.direction_selectivity).astype(np.float32)
    linear = _rotated(forwards, receptive_fields.phase) + opposite * _rotated(
        backwards, receptive_fields.phase
    )
    energy = np.sqrt(np.abs(forwards) ** 2 + opposite * np.abs(backwards) ** 2)
    linearity = receptive_fields.linearity.astype(np.float32)
    drive = (1 - linearity) * energy + linearity * np.maximum(linear, 0)
    return ((1 + _HALF_SATURATION) * drive / (_HALF_SATURATION + drive)).astype(np.float32)


def _rotated(response: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """The real part of a complex response at some phase."""
    cosine, sine = np.cos(phase).astype(np.float32), np.sin(phase).astype(np.float32)
    return response.real * cosine + response.imag * sine
