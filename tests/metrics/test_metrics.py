"""Scores of pictures and labels against other libraries, values by hand, and laws."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.metrics
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_ssl.metrics.labels import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
)
from poyo_ssl.metrics.pictures import (
    peak_signal_to_noise,
    pixel_correlation,
    structural_similarity,
)

IMAGE_SCORES = [structural_similarity, peak_signal_to_noise, pixel_correlation]
LABEL_SCORES = [accuracy, balanced_accuracy]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def draw_pictures(rng: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth pictures and noisy versions of them, in [0, 1]."""
    height, width = shape[1:]
    phase = rng.uniform(0, 2 * np.pi, size=(shape[0], 1, 1))
    waves = np.sin(np.arange(height)[:, None] / 3 + phase) * np.cos(np.arange(width) / 5)
    true = 0.5 + 0.4 * waves
    predicted = np.clip(true + rng.normal(scale=0.1, size=shape), 0, 1)
    return predicted.astype(np.float32), true.astype(np.float32)


# pictures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 32, 48), (1, 128, 128), (70, 16, 16), (2, 11, 11)])
def test_image_scores_equal_scikit_images(rng, shape):
    predicted, true = draw_pictures(rng, *shape)
    ssim = [
        skimage.metrics.structural_similarity(
            one.astype(np.float64),
            two.astype(np.float64),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for one, two in zip(predicted, true, strict=True)
    ]
    psnr = [
        skimage.metrics.peak_signal_noise_ratio(two, one, data_range=1.0)
        for one, two in zip(predicted, true, strict=True)
    ]
    assert structural_similarity(predicted, true) == pytest.approx(ssim, abs=1e-4)
    assert peak_signal_to_noise(predicted, true) == pytest.approx(psnr, abs=1e-3)


def test_pixel_correlation_equals_numpys(rng):
    predicted, true = draw_pictures(rng, 4, 20, 30)
    expected = [
        np.corrcoef(one.ravel(), two.ravel())[0, 1]
        for one, two in zip(predicted.astype(float), true.astype(float), strict=True)
    ]
    assert pixel_correlation(predicted, true) == pytest.approx(expected)


def test_a_uniform_error_of_a_tenth_is_twenty_decibels():
    true = np.full((3, 12, 12), 0.3)
    assert peak_signal_to_noise(true + 0.1, true) == pytest.approx(20.0, abs=1e-3)


def test_ssim_of_two_uniform_greys_is_known_by_hand():
    # no variance: only the luminance term (2 a b + c1) / (a² + b² + c1) with c1 = 0.01² is left
    one, two = np.full((1, 16, 16), 0.5), np.full((1, 16, 16), 0.25)
    expected = (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    assert structural_similarity(one, two)[0] == pytest.approx(expected, abs=1e-4)


def test_identical_pictures_score_best(rng):
    _, true = draw_pictures(rng, 3, 16, 16)
    assert structural_similarity(true, true) == pytest.approx(1.0)
    assert pixel_correlation(true, true) == pytest.approx(1.0)
    assert np.all(np.isposinf(peak_signal_to_noise(true, true)))


@pytest.mark.parametrize("score", IMAGE_SCORES)
def test_every_picture_is_scored_by_itself(rng, score):
    # more pictures than fit in one chunk, whose range must not depend on its neighbours
    predicted, true = draw_pictures(rng, 150, 12, 12)
    together = score(predicted, true)
    assert together.shape == (150,)
    for index in (0, 112, 113, 114, 149):
        alone = score(predicted[index : index + 1], true[index : index + 1])
        assert alone == pytest.approx(together[index : index + 1], abs=1e-5)
    order = rng.permutation(150)
    assert score(predicted[order], true[order]) == pytest.approx(together[order], abs=1e-5)


@pytest.mark.parametrize("score", IMAGE_SCORES)
def test_scores_do_not_depend_on_which_picture_is_the_prediction(rng, score):
    predicted, true = draw_pictures(rng, 3, 16, 16)
    assert score(predicted, true) == pytest.approx(score(true, predicted), abs=1e-5)


def test_more_noise_scores_worse(rng):
    _, true = draw_pictures(rng, 4, 24, 24)
    noise = rng.normal(size=true.shape)
    noisy = [np.clip(true + a * noise, 0, 1) for a in (0.05, 0.1, 0.2)]
    for score in IMAGE_SCORES:
        values = [score(pictures, true).mean() for pictures in noisy]
        assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("grey", [0.0, 0.1, 1.0])
def test_a_constant_picture_correlates_with_nothing(rng, grey):
    predicted, true = draw_pictures(rng, 2, 16, 16)
    predicted[1] = grey
    correlations = pixel_correlation(predicted, true)
    assert correlations[0] > 0.5
    assert correlations[1] == 0.0


def test_correlation_ignores_contrast_and_sees_inversion(rng):
    _, true = draw_pictures(rng, 2, 16, 16)
    assert pixel_correlation(0.3 * true + 0.2, true) == pytest.approx(1.0)
    assert pixel_correlation(1.0 - true, true) == pytest.approx(-1.0)


@pytest.mark.parametrize("score", IMAGE_SCORES)
@pytest.mark.parametrize("bad", [-0.1, 1.1, 255.0, np.nan, np.inf])
def test_pictures_outside_zero_to_one_are_refused(rng, score, bad):
    predicted, true = draw_pictures(rng, 2, 16, 16)
    predicted[0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"predicted pictures must lie in \[0, 1\]"):
        score(predicted, true)
    with pytest.raises(ValueError, match=r"true pictures must lie in \[0, 1\]"):
        score(true, predicted)


@pytest.mark.parametrize("score", IMAGE_SCORES)
def test_pictures_that_do_not_fit_each_other_are_refused(score):
    with pytest.raises(ValueError, match=r"\(2, 16, 16\) and \(3, 16, 16\)"):
        score(np.zeros((2, 16, 16)), np.zeros((3, 16, 16)))
    with pytest.raises(ValueError, match=r"image\[None\]"):
        score(np.zeros((16, 16)), np.zeros((16, 16)))
    with pytest.raises(ValueError, match="no pictures"):
        score(np.zeros((0, 16, 16)), np.zeros((0, 16, 16)))


def test_pictures_smaller_than_the_window_have_no_ssim():
    with pytest.raises(ValueError, match="at least 11 x 11 pixels, got 16 x 10"):
        structural_similarity(np.zeros((1, 16, 10)), np.zeros((1, 16, 10)))


# labels ----------------------------------------------------------------------------------------

labels = st.integers(1, 30).flatmap(
    lambda size: st.tuples(
        st.lists(st.integers(0, 4), min_size=size, max_size=size),
        st.lists(st.integers(0, 4), min_size=size, max_size=size),
    )
)


@settings(max_examples=60, deadline=None)
@given(labels)
def test_label_scores_equal_scikit_learns(pair):
    predicted, true = np.array(pair[0]), np.array(pair[1])
    matrix = sklearn.metrics.confusion_matrix(true, predicted, labels=range(5))
    assert np.array_equal(confusion_matrix(predicted, true, 5), matrix)
    assert accuracy(predicted, true) == pytest.approx(
        sklearn.metrics.accuracy_score(true, predicted)
    )
    recall = sklearn.metrics.recall_score(
        true, predicted, labels=np.unique(true), average="macro", zero_division=0
    )
    assert balanced_accuracy(predicted, true) == pytest.approx(recall)


def test_always_guessing_the_commonest_class_is_at_chance_when_balanced():
    true = np.array([0] * 90 + [1] * 10)
    guess = np.zeros(100, dtype=int)
    assert accuracy(guess, true) == 0.9
    assert balanced_accuracy(guess, true) == 0.5


def test_rows_of_a_confusion_matrix_are_what_was_shown():
    matrix = confusion_matrix(np.array([2, 2, 0]), np.array([1, 1, 0]), 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 2], [0, 0, 0]]


@pytest.mark.parametrize("score", LABEL_SCORES)
def test_labels_that_cannot_be_compared_are_refused(score):
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        score(np.zeros(3, dtype=int), np.zeros(2, dtype=int))
    with pytest.raises(ValueError, match="no labels"):
        score(np.zeros(0, dtype=int), np.zeros(0, dtype=int))
    with pytest.raises(ValueError, match="argmax"):
        score(np.zeros((3, 8), dtype=int), np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match="true labels must be integers, got float64"):
        score(np.zeros(3, dtype=int), np.array([0.0, 1.0, np.nan]))


@pytest.mark.parametrize("bad", [-1, 8])
def test_labels_beyond_the_classes_are_refused(bad):
    with pytest.raises(ValueError, match=r"true labels must lie in 0 to 7 for 8 classes"):
        confusion_matrix(np.array([0, 1]), np.array([0, bad]), 8)
