"""What a simulated mouse sees: gratings, a naturalistic movie, and the screen that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage, sparse
from sklearn.datasets import load_sample_image

SCREEN_WIDTH = 120.0
"""Horizontal extent of the screen in degrees of visual angle (de Vries et al. 2020: 120 x 95);
the height follows from the pictures, whose pixels are square."""
REFRESH_RATE = 60.0
"""Screen refreshes per second. At the movie's 30 Hz, gratings of 15 Hz would have no direction."""
MOVIE_RATE = 30.0
"""Movie frames per second (de Vries et al. 2020)."""
GRATING_CONTRAST = 0.8
"""Contrast of the gratings (de Vries et al. 2020)."""
DRIFTING_DIRECTIONS = tuple(45.0 * step for step in range(8))
"""Directions of the drifting gratings in degrees: 0 moves right, 90 moves up."""
DRIFTING_TEMPORAL_FREQUENCIES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Temporal frequencies of the drifting gratings in Hz (de Vries et al. 2020)."""
DRIFTING_SPATIAL_FREQUENCY = 0.04
"""Spatial frequency of the drifting gratings in cycles per degree (de Vries et al. 2020)."""
STATIC_ORIENTATIONS = tuple(30.0 * step for step in range(6))
"""Orientations of the static gratings in degrees (de Vries et al. 2020)."""
STATIC_SPATIAL_FREQUENCIES = (0.02, 0.04, 0.08, 0.16, 0.32)
"""Spatial frequencies of the static gratings in cycles per degree (de Vries et al. 2020)."""
STATIC_PHASES = (0.0, 0.25, 0.5, 0.75)
"""Phases of the static gratings in cycles (de Vries et al. 2020)."""

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
"""The scenes of the movie: the two sample photographs of scikit-learn."""
_SHOT_SECONDS = (1.5, 4.0)
_CAMERA_PERIOD_SECONDS = (4.0, 9.0)
_TAKES_PER_SHOT = 3
_NARROWEST_VIEW = 0.35  # of the widest crop that fits the photograph
_WIDEST_VIEW = 0.65


def render_movie(num_frames: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Films two photographs with a camera that pans, zooms and cuts.

    Natural movies are smooth within a shot and jump at a cut; both drive visual cortex. Every
    shot shows another part of a photograph, swaying and zooming along slow sinusoids.

    Args:
        num_frames: Movie frames, shown at 30 Hz.
        height: Pixels from top to bottom.
        width: Pixels from left to right.
        rng: Decides the cuts and the camera's path.

    Returns:
        Grey movie frames, shape (num_frames, height, width), uint8.
    """
    photographs = [_load_grey_photograph(name) for name in PHOTOGRAPHS]
    movie = np.empty((num_frames, height, width), dtype=np.uint8)
    first, shot = 0, int(rng.integers(len(photographs)))
    while first < num_frames:
        stop = min(num_frames, first + round(rng.uniform(*_SHOT_SECONDS) * MOVIE_RATE))
        photograph = photographs[shot % len(photographs)]
        if rng.random() < 0.5:
            photograph = photograph[:, ::-1]
        takes = [
            _film_shot(photograph, stop - first, height, width, rng) for _ in range(_TAKES_PER_SHOT)
        ]
        movie[first:stop] = max(takes, key=_least_contrast)  # no shot of nothing but sky
        first, shot = stop, shot + 1
    return movie


def _load_grey_photograph(name: str) -> np.ndarray:
    """A photograph as grey levels 0 to 255, its histogram stretched, shape (427, 640), float32."""
    grey = load_sample_image(name).mean(axis=2, dtype=np.float32)
    dark, bright = np.percentile(grey, [1, 99])
    return np.clip((grey - dark) / (bright - dark), 0, 1).astype(np.float32) * 255


def _film_shot(
    photograph: np.ndarray, num_frames: int, height: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """One shot without a cut, shape (num_frames, height, width), uint8."""
    rows, columns = photograph.shape
    widest = min(columns / width, rows / height)  # photograph pixels per movie pixel
    seconds = np.arange(num_frames) / MOVIE_RATE

    def sway() -> np.ndarray:  # from -1 to 1
        period, phase = rng.uniform(*_CAMERA_PERIOD_SECONDS), rng.uniform(0, 2 * np.pi)
        return np.sin(2 * np.pi * seconds / period + phase)

    middle = 0.5 * (_NARROWEST_VIEW + _WIDEST_VIEW)
    scale = widest * (middle + 0.5 * (_WIDEST_VIEW - _NARROWEST_VIEW) * sway())  # (num_frames,)
    # the camera never leaves the photograph
    centre_row = rows / 2 + 0.5 * (rows - scale * height) * sway()
    centre_column = columns / 2 + 0.5 * (columns - scale * width) * sway()
    blurred = ndimage.gaussian_filter(photograph, 0.4 * float(scale.mean()))  # against aliasing
    shape = (num_frames, height, width)
    row = centre_row[:, None] + scale[:, None] * (np.arange(height) - (height - 1) / 2)
    column = centre_column[:, None] + scale[:, None] * (np.arange(width) - (width - 1) / 2)
    where = [np.broadcast_to(row[:, :, None], shape), np.broadcast_to(column[:, None, :], shape)]
    shot = ndimage.map_coordinates(blurred, where, order=1, mode="nearest")
    return np.rint(shot).astype(np.uint8)


def _least_contrast(shot: np.ndarray) -> float:
    """The standard deviation over pixels of the dullest movie frame of a shot."""
    return float(shot.std(axis=(1, 2)).min())


def pixel_positions(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where every pixel lies on the screen, in degrees from its centre.

    Returns:
        Positions rightwards of shape (width,) and upwards of shape (height,), float32.
    """
    degrees = SCREEN_WIDTH / width
    rightwards = degrees * (np.arange(width, dtype=np.float32) - (width - 1) / 2)
    upwards = -degrees * (np.arange(height, dtype=np.float32) - (height - 1) / 2)
    return rightwards, upwards


def render_grating(
    orientation: float, spatial_frequency: float, phase: float, height: int, width: int
) -> np.ndarray:
    """A sinusoidal grating: cos(2π (spatial_frequency · u - phase)), u along ``orientation``.

    A phase that grows in time moves the grating towards ``orientation``.

    Args:
        orientation: Degrees from rightwards to upwards, at right angles to the stripes.
        spatial_frequency: Cycles per degree.
        phase: Cycles.
        height: Pixels from top to bottom.
        width: Pixels from left to right.

    Returns:
        Contrast from -0.8 to 0.8, shape (height, width), float32.
    """
    rightwards, upwards = pixel_positions(height, width)
    angle = np.deg2rad(orientation)
    along = rightwards * np.cos(angle) + upwards[:, None] * np.sin(angle)
    cycles = spatial_frequency * along - phase
    return (GRATING_CONTRAST * np.cos(2 * np.pi * cycles)).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Screen:
    """All pictures of a session, and which mixture of them each refresh of the screen shows.

    A grating of any phase is a mixture of two pictures a quarter cycle apart, so the movie
    frames and two pictures for every orientation and spatial frequency make every stimulus
    exactly. Cells that sum over pixels see each picture once, however often it is shown.
    """

    pictures: np.ndarray
    """Contrast from -1 to 1 (0 is the grey of an empty screen), shape
    (num_pictures, height, width), float32; the movie frames come first."""
    gratings: tuple[tuple[float, float], ...]
    """Orientation (degrees) and spatial frequency (cycles per degree) of the gratings."""

    @classmethod
    def with_movie(cls, movie: np.ndarray) -> Screen:
        """A screen for a movie (num_frames, height, width), uint8, and all gratings."""
        height, width = movie.shape[1:]
        drifting = [(angle, DRIFTING_SPATIAL_FREQUENCY) for angle in DRIFTING_DIRECTIONS]
        static = [(a, f) for a in STATIC_ORIENTATIONS for f in STATIC_SPATIAL_FREQUENCIES]
        gratings = tuple(dict.fromkeys(drifting + static))
        pictures = np.empty((len(movie) + 2 * len(gratings), height, width), dtype=np.float32)
        pictures[: len(movie)] = movie / np.float32(127.5) - 1
        for index, (orientation, frequency) in enumerate(gratings):
            for quarter in (0, 1):
                pictures[len(movie) + 2 * index + quarter] = render_grating(
                    orientation, frequency, quarter / 4, height, width
                )
        return cls(pictures=pictures, gratings=gratings)

    def mixture(self, stimuli: Mapping[str, pd.DataFrame], num_refreshes: int) -> sparse.csr_array:
        """How much of each picture every refresh shows.

        Args:
            stimuli: Stimulus tables as in ``Recording.stimuli``; the time of refresh 0 is 0 s.
            num_refreshes: Refreshes of the session, at 60 Hz.

        Returns:
            Weights of shape (num_refreshes, num_pictures), float32; an empty row is grey.
        """
        times = (np.arange(num_refreshes) + 0.5) / REFRESH_RATE  # mid-refresh: clear of all edges
        first_grating = len(self.pictures) - 2 * len(self.gratings)
        where = {grating: first_grating + 2 * i for i, grating in enumerate(self.gratings)}
        parts = []
        for name in ("drifting_gratings", "static_gratings"):
            if name not in stimuli:
                continue
            table = stimuli[name].dropna(subset=["orientation"])
            refreshes, rows = _shown_rows(table, times)
            keys = zip(table["orientation"], table["spatial_frequency"], strict=True)
            picture = np.array([where[key] for key in keys], dtype=np.int64)[rows]
            since = times[refreshes] - table["start"].to_numpy()[rows]
            if name == "drifting_gratings":
                cycles = table["temporal_frequency"].to_numpy()[rows] * since
            else:
                cycles = table["phase"].to_numpy()[rows]
            parts.append((refreshes, picture, np.cos(2 * np.pi * cycles)))
            parts.append((refreshes, picture + 1, np.sin(2 * np.pi * cycles)))
        if "natural_movie_one" in stimuli:
            table = stimuli["natural_movie_one"]
            refreshes, rows = _shown_rows(table, times)
            picture = table["movie_frame"].to_numpy()[rows]
            parts.append((refreshes, picture, np.ones(len(picture))))
        refresh, picture, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
        shape = (num_refreshes, len(self.pictures))
        return sparse.csr_array((weight.astype(np.float32), (refresh, picture)), shape=shape)


def _shown_rows(table: pd.DataFrame, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions in ``times`` at which a row is on the screen, and which row it is."""
    rows = np.searchsorted(table["start"].to_numpy(), times, side="right") - 1
    ends = table["end"].to_numpy()
    shown = np.flatnonzero((rows >= 0) & (times < ends[np.maximum(rows, 0)]))
    return shown, rows[shown]
