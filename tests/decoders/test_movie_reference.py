"""Look-up tables and ridge to pixels find what was planted, and say nothing of unseen pictures."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from poyo_ssl.decoders.movie_reference import (
    NUM_FOLDS,
    FrameTemplates,
    cross_fit,
    find_components,
    fit_frame_templates,
    fit_ridge_to_pixels,
)

UNITS = ["a", "b", "c", "d"]


@pytest.fixture
def planted(rng):
    """Eight movie frames with responses of their own, each seen five times, with little noise."""
    responses = rng.normal(size=(8, 12))
    movie_frame = np.resize(np.arange(8), 40)
    features = responses[movie_frame] + 0.1 * rng.normal(size=(40, 12))
    return features.astype(np.float32), movie_frame


def test_a_look_up_table_holds_the_mean_response_to_every_frame(planted):
    features, movie_frame = planted
    table = fit_frame_templates(features, movie_frame, 8, UNITS)
    assert table.responses.shape == (3, 4, 8)
    expected = features[movie_frame == 5].mean(axis=0).reshape(3, 4)
    assert np.allclose(table.responses[:, :, 5], expected, atol=1e-6)


def test_a_look_up_finds_the_planted_frames(planted, rng):
    features, movie_frame = planted
    table = fit_frame_templates(features[:24], movie_frame[:24], 8, UNITS)
    assert table.nearest(features[24:], UNITS).tolist() == movie_frame[24:].tolist()
    # correlation ignores a gain and an offset of all units together
    assert np.array_equal(table.nearest(3 * features + 1, UNITS), movie_frame)


def test_a_look_up_works_from_some_of_its_units_in_any_order(planted):
    features, movie_frame = planted
    table = fit_frame_templates(features, movie_frame, 8, UNITS)
    some = features.reshape(-1, 3, 4)[:, :, [3, 0, 1]].reshape(len(features), -1)
    assert np.mean(table.nearest(some, ["d", "a", "b"]) == movie_frame) > 0.95


def test_a_look_up_never_answers_with_a_frame_that_training_did_not_show(planted):
    features, movie_frame = planted
    is_shown = ~np.isin(movie_frame, [2, 7])
    table = fit_frame_templates(features[is_shown], movie_frame[is_shown], 9, UNITS)
    assert not {2, 7, 8} & set(table.nearest(features, UNITS))


def test_merged_look_ups_answer_for_the_units_of_each(planted, rng):
    features, movie_frame = planted
    other_features = rng.normal(size=features.shape).astype(np.float32)[movie_frame]
    one = fit_frame_templates(features, movie_frame, 8, UNITS)
    two = fit_frame_templates(other_features, movie_frame, 8, ["d", "e", "f", "g"])
    merged = FrameTemplates.merge([one, two])
    assert merged.unit_ids == ["a", "b", "c", "d", "e", "f", "g"]
    shared = (one.responses[:, 3] + two.responses[:, 0]) / 2
    assert np.allclose(merged.responses[:, 3], shared)
    alone = features.reshape(-1, 3, 4)[:, :, :3].reshape(len(features), -1)
    assert np.array_equal(merged.nearest(alone, ["a", "b", "c"]), one.nearest(alone, UNITS[:3]))


def test_a_unit_of_two_recordings_knows_the_frames_that_either_showed(planted):
    features, movie_frame = planted
    tables = [
        fit_frame_templates(features[is_shown], movie_frame[is_shown], 8, UNITS)
        for is_shown in (movie_frame != 3, movie_frame != 6)
    ]
    merged = FrameTemplates.merge(tables)
    assert np.array_equal(merged.nearest(features, UNITS), movie_frame)


# pictures ------------------------------------------------------------------------------------


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
