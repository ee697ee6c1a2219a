"""scikit-learn's own checks, and what trials of neurons add to them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import poyo_ssl as ps
from poyo_ssl.model.checkpoints import network_tensors

TINY = ps.EncoderConfig(
    dim=16, num_heads=1, dim_head=8, depth=0, latents_per_step=1, feedforward_factor=1, dropout=0.0
)
RATE = 10.0  # patches of 3 samples
SHAPE = 7, 12  # timesteps, units


def classifier(**options) -> ps.PoyoClassifier:
    return ps.PoyoClassifier(**{"encoder": TINY, "sampling_rate": RATE, "max_steps": 2} | options)


def regressor(**options) -> ps.PoyoRegressor:
    return ps.PoyoRegressor(**{"encoder": TINY, "sampling_rate": RATE, "max_steps": 2} | options)


def encoder(**options) -> ps.PoyoEncoder:
    return ps.PoyoEncoder(**{"encoder": TINY, "sampling_rate": RATE, "max_steps": 2} | options)


def make_trials(num_trials: int = 90, num_units: int = SHAPE[1], seed: int = 0):
    """Trials of three kinds, of which each raises the activity of a third of the units."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(num_trials) % 3
    X = rng.normal(size=(num_trials, SHAPE[0], num_units))
    X[:, 2:] += 2.0 * (np.arange(num_units) % 3 == kinds[:, None])[:, None]
    return X, np.array(["away", "left", "right"])[kinds]


@parametrize_with_checks(
    [
        ps.PoyoClassifier(encoder=TINY, max_steps=2),
        ps.PoyoRegressor(encoder=TINY, max_steps=2, learning_rate=0.02, unit_dropout=0.0),
        ps.PoyoEncoder(encoder=TINY, max_steps=2),
    ]
)
def test_scikit_learn_finds_nothing_wrong(estimator, check):
    if check.func.__name__ == "check_regressors_train":  # of which some R² is asked
        estimator.set_params(max_steps=30)
    check(estimator)


# labels ----------------------------------------------------------------------------------------


def test_a_classifier_learns_what_units_tell():
    X, y = make_trials()
    learned = classifier(max_steps=20).fit(X[:60], y[:60])
    assert learned.score(X[60:], y[60:]) > 0.9
    assert learned.classes_.tolist() == ["away", "left", "right"]
    probabilities = learned.predict_proba(X[60:])
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(learned.classes_[probabilities.argmax(axis=1)], learned.predict(X[60:]))


def test_without_a_teacher_probabilities_are_the_networks_own():
    X, y = make_trials()
    alone = classifier(teacher=False).fit(X, y)
    scores = alone.decision_function(X)
    logarithms = np.log(alone.predict_proba(X))
    difference = logarithms - scores  # log-probabilities less their mean
    assert np.allclose(difference, difference.mean(axis=1, keepdims=True), atol=1e-5)


def test_flat_rows_are_the_same_trials():
    X, y = make_trials()
    flat = X.reshape(len(X), -1)
    of_trials = classifier().fit(X, y).decision_function(X)
    of_rows = classifier(window_shape=SHAPE).fit(flat, y).decision_function(flat)
    assert np.array_equal(of_trials, of_rows)


def test_the_scale_and_offset_of_a_trace_do_not_matter(rng):
    X, y = make_trials()
    scaled = X * 2.0 ** rng.integers(-3, 4, SHAPE[1]) + 4.0
    assert np.allclose(
        classifier().fit(X, y).decision_function(X),
        classifier().fit(scaled, y).decision_function(scaled),
        atol=1e-3,
    )


@pytest.mark.parametrize("estimator", [classifier(), regressor(), encoder()])
def test_an_answer_depends_on_no_other_trial(estimator, rng):
    X, _ = make_trials(47)
    fitted = estimator.fit(X, np.arange(47) % 3)
    answer = fitted.transform if hasattr(fitted, "transform") else fitted.predict
    order = rng.permutation(47)
    assert np.array_equal(answer(X)[order], answer(X[order]))
    assert np.array_equal(answer(X)[:3], np.concatenate([answer(X[i : i + 1]) for i in range(3)]))


def test_a_fitted_estimator_can_be_pickled_and_saved(tmp_path):
    X, y = make_trials()
    fitted = classifier(members=2, validation_fraction=0.2).fit(X, y)
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict(X), fitted.predict(X))
    fitted.decoder_.save(tmp_path / "decoder")
    assert len(ps.load_decoder(tmp_path / "decoder").networks) == 2


@pytest.mark.parametrize("num_timesteps", [1, 2, 3, 8])
def test_trials_of_any_length_are_read(num_timesteps, rng):
    X = rng.normal(size=(12, num_timesteps, 4))
    y = np.arange(12) % 2
    assert classifier().fit(X, y).predict(X).shape == (12,)
    assert len(encoder().fit_transform(X)) == 12


# together with scikit-learn --------------------------------------------------------------------


def test_groups_and_grids_of_scikit_learn():
    X, y = make_trials()
    groups = np.arange(90) // 15
    scores = cross_val_score(classifier(), X, y, groups=groups, cv=GroupKFold(3))
    assert scores.shape == (3,)
    grid = GridSearchCV(classifier(), {"teacher": [True, False]}, cv=GroupKFold(2))
    assert grid.fit(X, y, groups=groups).best_params_ == {"teacher": True}


def test_pipelines_take_estimators_and_latents_feed_others():
    X, y = make_trials()
    flat = X.reshape(len(X), -1)
    scaled = make_pipeline(StandardScaler(), classifier(window_shape=SHAPE))
    assert scaled.fit(flat[:60], y[:60]).score(flat[60:], y[60:]) > 0.9
    read = make_pipeline(
        encoder(max_steps=0, embedding_modes=4), StandardScaler(), RidgeClassifier()
    )
    assert read.fit(X[:60], y[:60]).score(X[60:], y[60:]) > 0.5  # chance 0.33
    assert len(read[0].get_feature_names_out()) == read[0].transform(X).shape[1]


def test_an_encoder_is_where_a_classifier_starts_from():
    X, y = make_trials()
    pretrained = encoder().fit(X)
    before = network_tensors(pretrained.encoder_)
    started = classifier(encoder=pretrained.encoder_, max_steps=1).fit(X, y)
    fresh = classifier(max_steps=1).fit(X, y)
    learned = started.decoder_.networks[0].encoder.latent_embedding
    moved = (learned - pretrained.encoder_.latent_embedding).abs().max()
    assert moved < (fresh.decoder_.networks[0].encoder.latent_embedding - learned).abs().max()
    after = network_tensors(pretrained.encoder_)
    assert all(np.array_equal(after[name], value) for name, value in before.items())
    for estimator in (started, encoder(encoder=pretrained.encoder_)):
        with pytest.raises(ValueError, match=r"X has 9 units, but encoder was fitted .* of 12"):
            clone(estimator).fit(X[..., :9], y)


# other animals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [classifier(members=2), regressor()])
def test_a_decoder_is_adapted_to_units_of_another_animal(estimator):
    X, _ = make_trials()
    other, _ = make_trials(60, num_units=15, seed=1)
    fitted = estimator.fit(X, np.arange(90) % 3)
    before = fitted.predict(X)
    adapted = fitted.adapt(other, np.arange(60) % 3)
    assert adapted.predict(other).shape == (60,)
    assert np.array_equal(fitted.predict(X), before)
    old, new = (network_tensors(one.decoder_.networks[0].encoder) for one in (fitted, adapted))
    changed = {name for name in new if not np.array_equal(old[name], new[name])}
    assert changed == {"unit_embedding.weight"}
    assert new["unit_embedding.weight"].shape[0] == 16  # and one row of padding


def test_other_answers_need_another_readout():
    X, y = make_trials()
    fitted = classifier().fit(X, y)
    adapted = fitted.adapt(X, np.where(y == "left", "left", "else"))
    assert adapted.classes_.tolist() == ["else", "left"]
    assert adapted.decision_function(X).shape == (90,)


@pytest.mark.parametrize("max_steps", [0, 2])
def test_an_encoder_is_adapted_by_embeddings_alone(max_steps):
    X, _ = make_trials()
    other, _ = make_trials(60, num_units=15, seed=1)
    fitted = encoder(max_steps=max_steps).fit(X)
    adapted = fitted.adapt(other)
    assert adapted.transform(other).shape == (60, fitted.transform(X).shape[1])
    old, new = network_tensors(fitted.encoder_), network_tensors(adapted.encoder_)
    changed = {name for name in new if not np.array_equal(old[name], new[name])}
    assert changed == {"unit_embedding.weight"}


# errors ----------------------------------------------------------------------------------------


def test_units_first_is_refused_with_the_order_that_is_needed():
    X = np.zeros((20, 30, 60), np.float32)
    message = r"20 trials of .* = \(30, 60\), but y has 60 answers.*trials x timesteps x units"
    with pytest.raises(ValueError, match=message):
        ps.PoyoClassifier().fit(X, ["left", "right"] * 30)


def test_shapes_that_do_not_fit_are_refused():
    X, y = make_trials()
    with pytest.raises(ValueError, match="makes 35 features a trial, but X has 84"):
        classifier(window_shape=(7, 5)).fit(X.reshape(90, -1), y)
    with pytest.raises(ValueError, match=r"'window_shape' .* must be .* Got \(84,\) instead"):
        classifier(window_shape=(84,)).fit(X.reshape(90, -1), y)
    with pytest.raises(ValueError, match=r"'sampling_rate' .* must be a positive number of Hz"):
        classifier(sampling_rate=0.0).fit(X, y)
    with pytest.raises(ValueError, match="Leave window_shape out"):
        classifier(window_shape=(12, 7)).fit(X, y)
    with pytest.raises(ValueError, match=r"was fitted on trials of shape \(7, 12\)"):
        classifier().fit(X, y).predict(X.transpose(0, 2, 1))
    with pytest.raises(ValueError, match="reads patches of 3"):
        classifier(encoder=encoder().fit(X).encoder_).fit(X[:, :2], y)


def test_one_class_is_nothing_to_tell_apart():
    X, y = make_trials()
    with pytest.raises(ValueError, match="at least 2 classes in y, but all 90 trials"):
        classifier().fit(X, np.full_like(y, "left"))
