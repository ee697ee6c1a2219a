"""The screen of the simulated observatory shows what the stimulus tables say."""

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.recordings.simulation.visual_stimuli import (
    REFRESH_RATE,
    Screen,
    pixel_positions,
    render_grating,
    render_movie,
)


@pytest.fixture(scope="module")
def movie():
    return render_movie(150, 32, 64, np.random.default_rng(0))


def test_the_movie_is_grey_pictures_of_the_asked_size(movie):
    assert movie.shape == (150, 32, 64)
    assert movie.dtype == np.uint8
    assert movie.std() > 40


def test_the_movie_pans_smoothly_and_jumps_at_cuts(movie):
    change = np.abs(np.diff(movie.astype(float), axis=0)).mean(axis=(1, 2))
    cuts = np.flatnonzero(change > 50)
    assert 1 <= len(cuts) <= 3  # shots of 1.5 to 4 s in 5 s
    assert np.all(np.diff(cuts) >= 45)
    within_shots = np.delete(change, cuts)
    assert 2 < np.median(within_shots) < 20
    assert within_shots.max() < 0.6 * change[cuts].min()


def test_no_shot_shows_an_empty_sky():
    movie = render_movie(300, 32, 64, np.random.default_rng(0))
    assert movie.std(axis=(1, 2)).min() > 10


def test_the_same_seed_films_the_same_movie(movie):
    np.testing.assert_array_equal(movie, render_movie(150, 32, 64, np.random.default_rng(0)))
    other = render_movie(150, 32, 64, np.random.default_rng(1))
    assert np.abs(movie.astype(float) - other).mean() > 10


def test_a_grating_moves_towards_its_orientation_as_its_phase_grows():
    before = render_grating(0.0, 0.04, 0.0, 32, 64)
    after = render_grating(0.0, 0.04, 0.25, 32, 64)
    rightwards, _ = pixel_positions(32, 64)
    shift = 0.25 / 0.04  # degrees
    expected = np.interp(rightwards[20:] - shift, rightwards, before[0])
    np.testing.assert_allclose(after[0, 20:], expected, atol=0.02)
    np.testing.assert_allclose(after, np.broadcast_to(after[:1], after.shape))


def test_an_orientation_of_90_degrees_points_upwards():
    grating = render_grating(90.0, 0.01, 0.0, 8, 16)
    _, upwards = pixel_positions(8, 16)
    assert upwards[0] > upwards[-1]
    np.testing.assert_allclose(grating[:, 0], 0.8 * np.cos(2 * np.pi * 0.01 * upwards), atol=1e-5)


def test_mixing_pictures_equals_rendering_every_refresh(movie):
    screen = Screen.with_movie(movie)
    stimuli = {
        "drifting_gratings": pd.DataFrame(
            {
                "start": [0.5, 1.5],
                "end": [1.0, 2.0],
                "orientation": [np.nan, 135.0],
                "temporal_frequency": [np.nan, 4.0],
                "spatial_frequency": [np.nan, 0.04],
            }
        ),
        "static_gratings": pd.DataFrame(
            {
                "start": [2.0],
                "end": [2.25],
                "orientation": [60.0],
                "spatial_frequency": [0.08],
                "phase": [0.75],
            }
        ),
        "natural_movie_one": pd.DataFrame(
            {"start": [3.0, 3.0 + 1 / 30], "end": [3.0 + 1 / 30, 3.0 + 2 / 30]}
        ).assign(movie_frame=[7, 8], repeat=0),
    }
    shown = (screen.mixture(stimuli, 240) @ screen.pictures.reshape(-1, 32 * 64)).reshape(
        240, 32, 64
    )
    expected = np.zeros_like(shown)
    times = (np.arange(240) + 0.5) / REFRESH_RATE
    for refresh in range(90, 120):
        phase = 4.0 * (times[refresh] - 1.5)
        expected[refresh] = render_grating(135.0, 0.04, phase, 32, 64)
    expected[120:135] = render_grating(60.0, 0.08, 0.75, 32, 64)
    expected[180:182] = movie[7] / 127.5 - 1
    expected[182:184] = movie[8] / 127.5 - 1
    np.testing.assert_allclose(shown, expected, atol=1e-5)
