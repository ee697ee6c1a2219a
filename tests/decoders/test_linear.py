"""Reference decoders are the closed forms they claim to be, and say nothing of unseen pictures."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifierCV

from poyo_ssl.decoders.linear import (
    ALPHAS,
    FEW_LABELS_ALPHA,
    NEVER_SHOWN,
    LinearReadout,
    choose_penalty,
    fit_logistic,
    fit_ridge,
    leave_one_out_error,
)
from poyo_ssl.decoders.value_decoders import fit_value_ridge

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
    assert np.allclose(one.intercepts, two.intercepts, atol=1e-6)
    merged = LinearReadout.merge([one, two])
    assert merged.unit_ids == ["a", "b", "c", "d", "e", "f", "g", "h"]
    for readout in (one, two):
        expected = readout.scores(features, readout.unit_ids)
        assert np.allclose(merged.scores(features, readout.unit_ids), expected, atol=1e-5)


def test_merged_recordings_of_unlike_means_keep_their_own_values(rng):
    """Running speed about 5 in one mouse and about -2,500 (in other units) in another."""
    features = rng.standard_normal((50, 4))
    speeds = [features @ rng.standard_normal(4) + mean for mean in (5.0, -2500.0)]
    readouts = [
        fit_value_ridge(features, speed, units)
        for speed, units in zip(speeds, (UNITS, ["e", "f", "g", "h"]), strict=True)
    ]
    merged = LinearReadout.merge(readouts)
    for readout in readouts:
        expected = readout.scores(features, readout.unit_ids)
        assert np.allclose(merged.scores(features, readout.unit_ids), expected, atol=1e-3)


def test_the_intercept_is_that_of_the_recordings_whose_units_are_asked(rng):
    features = rng.standard_normal((50, 4))
    one, two = (
        fit_value_ridge(features, features[:, 0] + mean, units)
        for mean, units in ((3.0, UNITS), (9.0, ["d", "x", "y", "z"]))
    )
    merged = LinearReadout.merge([one, two])
    for unit_ids, expected in ((["a"], 3.0), (["x", "y"], 9.0), (["d"], 6.0), (["c", "d"], 5.0)):
        centers = merged.center[:, [merged.unit_ids.index(u) for u in unit_ids]]
        assert merged.scores(centers, unit_ids)[0, 0] == pytest.approx(expected, abs=1e-2)


def test_a_class_that_no_recording_of_the_units_showed_stays_unlikely_however_scaled(rng):
    features, target = separable(rng)
    without_2 = target < 2
    one = fit_logistic(features[without_2], target[without_2], 3, UNITS, seed=0)
    two = fit_logistic(features, target, 3, ["e", "f", "g", "h"], seed=0)
    merged = LinearReadout.merge([one, two]).scaled(0.01)
    assert (merged.scores(features, UNITS)[:, 2] == NEVER_SHOWN).all()
    assert merged.shown_to(UNITS).tolist() == [True, True, False]
    assert merged.shown_to(["e"]).all()
    assert (merged.scores(features, two.unit_ids)[:, 2] > NEVER_SHOWN).all()


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
    assert np.allclose(readout.intercepts[0], onehot.mean(axis=0), atol=1e-6)
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
