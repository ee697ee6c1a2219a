"""Reference decoders are the closed forms they claim to be, and say nothing of unseen pictures."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifierCV

from poyo_ssl.decoders.reference import (
    ALPHAS,
    FEW_LABELS_ALPHA,
    NUM_FOLDS,
    FrameTemplates,
    LinearReadout,
    choose_penalty,
    cross_fit,
    find_components,
    fit_frame_templates,
    fit_logistic,
    fit_ridge,
    fit_ridge_to_pixels,
    leave_one_out_error,
)

UNITS = ["a", "b", "c", "d"]


def separable(rng, num_windows: int = 60, num_classes: int = 3, num_bins: int = 1):
    """Windows in which unit k fires for class k, in every bin."""
    target = np.resize(np.arange(num_classes), num_windows)
    features = rng.normal(size=(num_windows, num_bins, len(UNITS)))
    features[np.arange(num_windows), :, target] += 2.0
    return features.reshape(num_windows, -1).astype(np.float32), target


# linear readouts -----------------------------------------------------------------------------


@pytest.mark.parametrize("num_bins", [1, 3])
def test_scores_of_a_readout_are_the_predictions_of_the_model_it_came_from(rng, num_bins):
    features, target = separable(rng, num_bins=num_bins)
    features += 5.0
    model = Ridge(alpha=2.0).fit(features, np.eye(3)[target])
    center = features.mean(axis=0)
    # Ridge predicts intercept + x w; around the centre that is (intercept + c w) + (x - c) w
    readout = LinearReadout.from_coefficients(
        model.coef_, model.predict([center])[0], center, UNITS
    )
    assert readout.num_bins == num_bins
    assert np.allclose(readout.scores(features, UNITS), model.predict(features), atol=1e-4)


def test_scores_do_not_depend_on_the_order_of_units(rng):
    features, target = separable(rng, num_bins=3)
    readout = fit_ridge(features, target, 3, UNITS)
    shuffled = features.reshape(-1, 3, 4)[:, :, [2, 0, 3, 1]].reshape(len(features), -1)
    expected = readout.scores(features, UNITS)
    assert np.allclose(readout.scores(shuffled, ["c", "a", "d", "b"]), expected, atol=1e-5)


@pytest.mark.parametrize(("num_windows", "num_classes"), [(4, 2), (6, 3), (20, 1)])
def test_too_few_labels_leave_the_penalty_as_it_is(rng, num_windows, num_classes):
    features, target = separable(rng, num_windows, num_classes)
    assert choose_penalty(features, target) == FEW_LABELS_ALPHA


def test_enough_labels_choose_the_penalty_by_leaving_one_out(rng):
    features, target = separable(rng)
    assert (
        choose_penalty(features, target) == RidgeClassifierCV(ALPHAS).fit(features, target).alpha_
    )


@pytest.mark.parametrize("num_bins", [1, 3])
def test_a_unit_that_was_not_recorded_counts_as_its_mean(rng, num_bins):
    features, target = separable(rng, num_bins=num_bins)
    readout = fit_ridge(features, target, 3, UNITS)
    filled = features.reshape(-1, num_bins, 4).copy()
    filled[:, :, 1] = readout.center[:, 1]
    without = features.reshape(-1, num_bins, 4)[:, :, [0, 2, 3]].reshape(len(features), -1)
    expected = readout.scores(filled.reshape(len(features), -1), UNITS)
    assert np.allclose(readout.scores(without, ["a", "c", "d"]), expected, atol=1e-5)


def test_merged_recordings_without_common_units_keep_their_own_scores(rng):
    features, target = separable(rng)
    one = fit_ridge(features, target, 3, UNITS)
    two = fit_ridge(-2 * features[::-1], target, 3, ["e", "f", "g", "h"])
    # balanced classes: both intercepts are the class frequencies
    assert np.allclose(one.intercept, two.intercept, atol=1e-6)
    merged = LinearReadout.merge([one, two])
    assert merged.unit_ids == ["a", "b", "c", "d", "e", "f", "g", "h"]
    for readout in (one, two):
        expected = readout.scores(features, readout.unit_ids)
        assert np.allclose(merged.scores(features, readout.unit_ids), expected, atol=1e-5)


def test_a_unit_of_two_recordings_gets_its_mean_weights(rng):
    features, target = separable(rng)
    one = fit_ridge(features, target, 3, UNITS)
    two = fit_ridge(features[::-1].copy(), target, 3, ["d", "x", "y", "z"])
    merged = LinearReadout.merge([one, two])
    mean = (one.weights[0, 3] + two.weights[0, 0]) / 2
    assert np.allclose(merged.weights[0, merged.unit_ids.index("d")], mean)
    assert np.allclose(merged.weights[0, merged.unit_ids.index("x")], two.weights[0, 1])


# labels --------------------------------------------------------------------------------------


def test_ridge_is_the_textbook_ridge_at_the_penalty_of_least_leave_one_out_error(rng):
    features, target = separable(rng)
    features = features.astype(float)
    center, onehot = features.mean(axis=0), np.eye(3)[target]
    alpha = RidgeClassifierCV(alphas=ALPHAS).fit(features - center, target).alpha_
    x, y = features - center, onehot - onehot.mean(axis=0)
    weights = np.linalg.solve(x.T @ x + alpha * np.eye(4), x.T @ y)
    readout = fit_ridge(features, target, 3, UNITS)
    assert np.allclose(readout.weights[0], weights, atol=1e-6)
    assert np.allclose(readout.intercept, onehot.mean(axis=0), atol=1e-6)
    assert np.allclose(readout.center[0], center, atol=1e-6)


def test_logistic_regression_is_sklearns(rng):
    features, target = separable(rng)
    features = features[:8]  # two windows of some class: no search for a penalty
    target = target[:8]
    center = features.mean(axis=0)
    model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=200)
    model.fit(features - center, target)
    readout = fit_logistic(features, target, 3, UNITS, seed=0)
    expected = model.decision_function(features - center)
    assert np.allclose(readout.scores(features, UNITS), expected, atol=1e-4)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("fit", ["ridge", "logistic"])
def test_linear_decoders_learn_what_is_linearly_separable(rng, fit, num_classes):
    features, target = separable(rng, num_windows=200, num_classes=num_classes)
    train, test = slice(0, 100), slice(100, 200)
    if fit == "ridge":
        readout = fit_ridge(features[train], target[train], num_classes, UNITS)
    else:
        readout = fit_logistic(features[train], target[train], num_classes, UNITS, seed=0)
    predicted = readout.scores(features[test], UNITS).argmax(axis=1)
    assert np.mean(predicted == target[test]) > 0.8


@pytest.mark.parametrize("counts", [(10, 1), (10, 2, 10), (10, 10, 1, 2), (1, 1, 1), (7,)])
@pytest.mark.parametrize("fit", ["ridge", "logistic"])
def test_rare_and_missing_classes_do_not_stop_linear_decoders(rng, fit, counts):
    # the classes at hand are 1, 2, ... of six: class 0 and the last ones have no window
    target = np.repeat(np.arange(1, 1 + len(counts)), counts)
    features = rng.normal(size=(len(target), 4)).astype(np.float32)
    if fit == "ridge":
        readout = fit_ridge(features, target, 6, UNITS)
    else:
        readout = fit_logistic(features, target, 6, UNITS, seed=0)
    scores = readout.scores(features, UNITS)
    assert scores.shape == (len(target), 6)
    assert np.all(np.isfinite(scores))
    assert set(scores.argmax(axis=1)) <= set(target)


def test_one_window_more_of_some_classes_does_not_make_logistic_guess_them(rng):
    classes = rng.normal(size=(8, 100))
    target = np.repeat(np.arange(8), [2, 3] * 4)
    features = (0.4 * classes[target] + rng.normal(size=(20, 100))).astype(np.float32)
    readout = fit_logistic(features, target, 8, [f"u{i}" for i in range(100)], seed=0)
    asked = np.repeat(np.arange(8), 50)
    later = (0.4 * classes[asked] + rng.normal(size=(400, 100))).astype(np.float32)
    told = readout.scores(later, readout.unit_ids).argmax(axis=1)
    assert np.mean(told == asked) > 0.6
    assert 0.3 < np.mean(np.isin(told, [0, 2, 4, 6])) < 0.7


def test_logistic_scores_two_classes_like_sklearn_wherever_they_stand(rng):
    features, target = separable(rng, num_classes=2)
    at_the_ends = fit_logistic(features, 3 * target, 4, UNITS, seed=0).scores(features, UNITS)
    plain = fit_logistic(features, target, 2, UNITS, seed=0).scores(features, UNITS)
    assert np.allclose(at_the_ends[:, 3] - at_the_ends[:, 0], plain[:, 1] - plain[:, 0])


def test_leave_one_out_error_is_that_of_leaving_each_window_out(rng):
    features, target = separable(rng, num_windows=15)
    features = features.astype(float)
    coded = 2.0 * np.eye(3)[target] - 1
    errors = []
    for alpha in ALPHAS:
        squared = []
        for left_out in range(15):
            others = np.arange(15) != left_out
            model = Ridge(alpha=alpha).fit(features[others], coded[others])
            squared.append((model.predict(features[[left_out]])[0] - coded[left_out]) ** 2)
        errors.append(np.mean(squared))
    assert leave_one_out_error(features, target) == pytest.approx(min(errors), rel=1e-6)


# movie frames --------------------------------------------------------------------------------


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
