"""Ridge to pixels finds what was planted, and says nothing of unseen pictures."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from poyo_ssl.decoders.movie_reference import (
    NUM_FOLDS,
    cross_fit,
    find_components,
    fit_ridge_to_pixels,
)

UNITS = ["a", "b", "c", "d"]


@pytest.fixture
def linear_pictures(rng):
    """Forty movie frames made of three patterns, whose weights four units carry linearly."""
    height, width = np.mgrid[:16, :16] / 16
    patterns = np.stack([np.sin(6 * height), np.cos(5 * width), np.sin(7 * height * width)])
    weights = rng.uniform(-0.1, 0.1, size=(40, 3))
    pictures = (0.5 + np.tensordot(weights, patterns, axes=1)).astype(np.float32)
    movie_frame = np.resize(np.arange(30), 120)
    responses = 30 * weights @ rng.normal(size=(3, 4))
    features = responses[movie_frame] + 0.01 * rng.normal(size=(120, 4))
    return features.astype(np.float32), movie_frame, responses, pictures


@pytest.mark.parametrize("has_valid", [True, False])
def test_ridge_to_pixels_rebuilds_pictures_that_are_linear_in_the_activity(
    linear_pictures, has_valid
):
    features, movie_frame, responses, pictures = linear_pictures
    components = find_components(pictures, movie_frame)
    valid = np.arange(30, 35) if has_valid else np.array([], dtype=int)
    fitted, _ = fit_ridge_to_pixels(
        features,
        movie_frame,
        responses[valid].astype(np.float32),
        valid,
        pictures,
        components,
        UNITS,
    )
    unseen = np.arange(35, 40)
    found = fitted.pictures(fitted.readout.scores(responses[unseen].astype(np.float32), UNITS))
    assert found.dtype == np.float32
    assert found.shape == (5, 16, 16)
    spread = pictures[unseen].std()
    assert np.abs(found - pictures[unseen]).mean() < 0.15 * spread


def test_components_come_from_the_pictures_shown_each_once(linear_pictures):
    _, movie_frame, _, pictures = linear_pictures
    often = np.concatenate([movie_frame, np.full(500, 3)])
    once = find_components(pictures, np.arange(30))
    assert np.allclose(find_components(pictures, often).mean_, once.mean_)
    changed = pictures.copy()
    changed[30:] = 1.0
    assert np.array_equal(find_components(changed, often).components_, once.components_)


def test_pictures_of_a_linear_decoder_stay_grey_values(linear_pictures):
    features, movie_frame, _, pictures = linear_pictures
    components = find_components(pictures, movie_frame)
    nothing = np.array([], dtype=int)
    fitted, _ = fit_ridge_to_pixels(
        features, movie_frame, features[:0], nothing, pictures, components, UNITS
    )
    wild = fitted.pictures(np.full((2, len(fitted.components)), 1e6))
    assert wild.min() >= 0
    assert wild.max() <= 1


def test_cross_fitted_predictions_of_a_part_do_not_depend_on_its_targets(rng):
    movie_frame = np.resize(np.arange(16), 80)
    features, scores = rng.normal(size=(80, 4)), rng.normal(size=(80, 2))
    part = np.array_split(np.arange(16), NUM_FOLDS)[2]
    is_in_part = np.isin(movie_frame, part)
    changed = np.where(is_in_part[:, None], 1e3, scores)
    before = cross_fit(features, scores, movie_frame, 1.0)
    after = cross_fit(features, changed, movie_frame, 1.0)
    assert np.array_equal(before[is_in_part], after[is_in_part])
    assert not np.allclose(before[~is_in_part], after[~is_in_part])


def test_cross_fitting_is_a_ridge_on_the_other_parts_of_the_movie(rng):
    movie_frame = np.resize(np.arange(NUM_FOLDS), 40)  # one movie frame in each part
    features, scores = rng.normal(size=(40, 4)), rng.normal(size=(40, 2))
    predicted = cross_fit(features, scores, movie_frame, 3.0)
    others = movie_frame != 5
    model = Ridge(alpha=3.0).fit(features[others], scores[others])
    assert np.allclose(predicted[~others], model.predict(features[~others]))
