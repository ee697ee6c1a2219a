"""Scores of pictures and labels against other libraries, values by hand, and laws."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import skimage.metrics
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_ssl.metrics.intervals import bootstrap_interval, paired_gain, seed_interval
from poyo_ssl.metrics.labels import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    frame_identity_within,
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


def test_movie_frames_count_as_identified_up_to_the_tolerance():
    true = np.array([100, 100, 100, 100], dtype=np.uint16)
    predicted = np.array([100, 70, 131, 899], dtype=np.uint16)
    assert frame_identity_within(predicted, true, 0) == 0.25
    assert frame_identity_within(predicted, true, 30) == 0.5
    assert frame_identity_within(predicted, true, 31) == 0.75
    with pytest.raises(ValueError, match="tolerance_frames"):
        frame_identity_within(predicted, true, -1)


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


# uncertainty -----------------------------------------------------------------------------------


def test_the_interval_of_three_seeds_is_known_by_hand():
    # mean 2, standard error 1 / sqrt(3), t quantile of 2 degrees of freedom 4.302653
    interval = seed_interval(np.array([1.0, 2.0, 3.0]))
    assert interval == pytest.approx((2.0, 2.0 - 4.302653 / 3**0.5, 2.0 + 4.302653 / 3**0.5))
    assert interval == (interval.mean, interval.low, interval.high)


def test_one_seed_has_a_mean_but_no_bounds():
    for interval in (seed_interval(np.array([0.5])), bootstrap_interval(np.array([0.5]), seed=0)):
        assert interval.mean == 0.5
        assert np.isnan(interval.low)
        assert np.isnan(interval.high)


def test_equal_seeds_have_an_interval_of_no_width():
    assert seed_interval(np.full(4, 0.25)) == (0.25, 0.25, 0.25)
    assert bootstrap_interval(np.full(4, 0.25), seed=0) == (0.25, 0.25, 0.25)


def test_seed_intervals_cover_the_truth_as_often_as_they_say(rng):
    hits = [
        low <= 1.0 <= high
        for _, low, high in (
            seed_interval(rng.normal(1.0, 2.0, size=5), confidence=0.8) for _ in range(500)
        )
    ]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.06)


def test_bootstrap_intervals_agree_with_the_normal_approximation_on_many_trials(rng):
    values = rng.random(400)
    mean, low, high = bootstrap_interval(values, seed=1)
    half = 1.96 * scipy.stats.sem(values)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)


def test_bootstrap_intervals_repeat_with_the_seed_and_widen_with_confidence(rng):
    values = rng.random(50)
    one = bootstrap_interval(values, seed=3, num_resamples=500)
    assert one == bootstrap_interval(values, seed=3, num_resamples=500)
    assert one != bootstrap_interval(values, seed=4, num_resamples=500)
    wider = bootstrap_interval(values, seed=3, confidence=0.99, num_resamples=500)
    assert wider.low < one.low < one.high < wider.high


def test_a_paired_gain_is_known_by_hand():
    gain = paired_gain(np.array([0.55, 0.60, 0.65]), np.array([0.50, 0.50, 0.50]))
    assert gain["mean_difference"] == pytest.approx(0.1)
    assert gain["relative_gain"] == pytest.approx(0.2)
    half = 4.302653 * 0.05 / 3**0.5
    assert (gain["low"], gain["high"]) == pytest.approx((0.1 - half, 0.1 + half))
    # t = 0.1 / (0.05 / sqrt(3)) = 2 sqrt(3) with 2 degrees of freedom: p = 1 - t / sqrt(t² + 2)
    t = 2 * 3**0.5
    assert gain["p_value"] == pytest.approx(1 - t / (t**2 + 2) ** 0.5)


def test_pairing_by_seed_sees_a_small_gain_under_a_large_spread_of_seeds(rng):
    baseline = rng.normal(0.5, 0.2, size=8)
    arm = baseline + rng.normal(0.03, 0.01, size=8)
    assert paired_gain(arm, baseline)["p_value"] < 0.001
    assert scipy.stats.ttest_ind(arm, baseline).pvalue > 0.1


def test_what_pairs_cannot_tell_is_nan():
    single = paired_gain(np.array([0.6]), np.array([0.5]))
    assert single["relative_gain"] == pytest.approx(0.2)
    assert np.isnan([single["low"], single["high"], single["p_value"]]).all()
    same = paired_gain(np.array([0.5, 0.6]), np.array([0.5, 0.6]))
    assert same["mean_difference"] == 0.0
    assert np.isnan(same["p_value"])
    assert np.isnan(paired_gain(np.array([0.1, 0.2]), np.zeros(2))["relative_gain"])


@pytest.mark.parametrize("interval", [seed_interval, lambda values: bootstrap_interval(values, 0)])
def test_scores_that_cannot_be_averaged_are_refused(interval):
    with pytest.raises(ValueError, match="non-empty"):
        interval(np.array([]))
    with pytest.raises(ValueError, match="non-empty"):
        interval(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        interval(np.array([0.1, np.nan]))


def test_gains_of_different_seeds_or_impossible_confidence_are_refused():
    with pytest.raises(ValueError, match="same seeds"):
        paired_gain(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="confidence"):
        seed_interval(np.zeros(3), confidence=95)
