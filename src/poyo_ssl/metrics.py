"""Scores of pictures and labels, and how sure one can be of them: arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.stats
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix
from torchmetrics.functional.image import peak_signal_noise_ratio

from poyo_ssl.similarity import WINDOW, structural_similarity_of

_DATA_RANGE = 1.0
"""Pictures span [0, 1]. Left to guess, the libraries take the range of each batch instead, and
scores of different batches stop being comparable."""

_PIXELS_PER_CHUNK = 128 * 128
"""Pixels scored at a time: keeps memory flat, and the filter's intermediate pictures in cache,
where it runs twice as fast as on a whole batch."""

_MIN_FOR_SPREAD = 2
"""One value has a mean but no spread, so no interval and no test."""


class Interval(NamedTuple):
    """A mean and its confidence interval; the bounds are NaN where they cannot be known."""

    mean: float
    low: float
    high: float


# pictures --------------------------------------------------------------------------------------


def structural_similarity(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Structural similarity (SSIM) of each pair of pictures.

    Gaussian window of 11 x 11 pixels with σ = 1.5 and a data range of 1, which is
    ``gaussian_weights=True, use_sample_covariance=False`` in scikit-image; pixels closer than
    half a window to the edge are not averaged, as in the original.

    Args:
        predicted: Grey pictures in [0, 1], shape (num_images, height, width).
        true: What was shown, the same shape.

    Returns:
        SSIM, shape (num_images,); 1 for identical pictures.

    Raises:
        ValueError: If the pictures do not fit each other, leave [0, 1] or are smaller than the
            window.

    References:
        Wang et al. 2004, Image quality assessment: from error visibility to structural similarity.
    """
    _check_images(predicted, true)
    if min(predicted.shape[1:]) < WINDOW:
        raise ValueError(
            f"SSIM needs pictures of at least {WINDOW} x {WINDOW} pixels, got "
            f"{predicted.shape[1]} x {predicted.shape[2]}. Decode at a higher resolution."
        )
    return _score_in_chunks(structural_similarity_of, predicted, true)


def peak_signal_to_noise(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each pair of pictures in dB, for a peak of 1.

    Args:
        predicted: Grey pictures in [0, 1], shape (num_images, height, width).
        true: What was shown, the same shape.

    Returns:
        -10 log10 of the mean squared error, shape (num_images,); infinite for identical pictures.

    Raises:
        ValueError: If the pictures do not fit each other or leave [0, 1].
    """
    _check_images(predicted, true)
    return _score_in_chunks(
        lambda one, two: peak_signal_noise_ratio(
            one, two, data_range=_DATA_RANGE, reduction="none", dim=(1, 2)
        ),
        predicted,
        true,
    )


def pixel_correlation(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Pearson's correlation over the pixels of each pair of pictures.

    Args:
        predicted: Grey pictures in [0, 1], shape (num_images, height, width).
        true: What was shown, the same shape.

    Returns:
        Correlations, shape (num_images,). A picture of one grey everywhere says nothing about
        the other, so its correlation, strictly undefined, counts as 0.

    Raises:
        ValueError: If the pictures do not fit each other or leave [0, 1].
    """
    _check_images(predicted, true)
    return _score_in_chunks(_correlate, predicted, true)


def score_images(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Means over all pictures of ``ssim``, ``psnr`` (dB) and ``correlation``.

    Args:
        predicted: Grey pictures in [0, 1], shape (num_images, height, width).
        true: What was shown, the same shape.
    """
    return {
        "ssim": float(structural_similarity(predicted, true).mean()),
        "psnr": float(peak_signal_to_noise(predicted, true).mean()),
        "correlation": float(pixel_correlation(predicted, true).mean()),
    }


def _correlate(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    one, two = one.flatten(1).double(), two.flatten(1).double()
    # asked of the pixels, not of the spread, where rounding makes a constant picture look varied
    is_constant = (one.amax(1) == one.amin(1)) | (two.amax(1) == two.amin(1))
    one, two = one - one.mean(1, keepdim=True), two - two.mean(1, keepdim=True)
    correlation = (one * two).sum(1) / (one.norm(dim=1) * two.norm(dim=1))
    return torch.where(is_constant, 0.0, correlation)


def _score_in_chunks(
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    predicted: np.ndarray,
    true: np.ndarray,
) -> np.ndarray:
    """One score per pair of pictures, a few pictures at a time in single precision."""
    num_images, height, width = predicted.shape
    step = max(1, _PIXELS_PER_CHUNK // (height * width))
    scores = np.empty(num_images)
    for first in range(0, num_images, step):
        chunk = slice(first, first + step)
        one, two = (
            torch.from_numpy(np.ascontiguousarray(images[chunk], dtype=np.float32))
            for images in (predicted, true)
        )
        scores[chunk] = score(one, two).numpy()
    return scores


def _check_images(predicted: np.ndarray, true: np.ndarray) -> None:
    if predicted.ndim != 3 or predicted.shape != true.shape:
        raise ValueError(
            "predicted and true must both have shape (num_images, height, width), got "
            f"{predicted.shape} and {true.shape}. For one picture, use image[None]."
        )
    if predicted.size == 0:
        raise ValueError(f"There are no pictures to score (shape {predicted.shape}).")
    for name, images in (("predicted", predicted), ("true", true)):
        lowest, highest = float(images.min()), float(images.max())
        if not (lowest >= 0.0 and highest <= 1.0):  # also refuses NaN
            raise ValueError(
                f"{name} pictures must lie in [0, 1], got {lowest:.4g} to {highest:.4g}. "
                "Divide uint8 pictures by 255; clip a decoder's output with np.clip."
            )


# labels ----------------------------------------------------------------------------------------


def accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    """Fraction of labels that are right.

    Args:
        predicted: Integer labels, shape (num_trials,).
        true: What was shown, the same shape.
    """
    _check_labels(predicted, true)
    return float(np.mean(predicted == true))


def balanced_accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    """Mean over the classes that were shown of the fraction of their trials that is right.

    Chance is one over the number of classes even where some were shown more often than others.

    Args:
        predicted: Integer labels, shape (num_trials,).
        true: What was shown, the same shape.
    """
    _check_labels(predicted, true)
    return float(np.mean([np.mean(predicted[true == shown] == shown) for shown in np.unique(true)]))


def confusion_matrix(predicted: np.ndarray, true: np.ndarray, num_classes: int) -> np.ndarray:
    """How often each class was taken for each.

    Args:
        predicted: Integer labels in [0, num_classes), shape (num_trials,).
        true: What was shown, the same shape.
        num_classes: Number of classes, whether or not all were shown.

    Returns:
        Counts, shape (num_classes, num_classes): row shown, column predicted.
    """
    _check_labels(predicted, true)
    for name, labels in (("predicted", predicted), ("true", true)):
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f"{name} labels must lie in 0 to {num_classes - 1} for {num_classes} classes, got "
                f"{labels.min()} to {labels.max()}. Leave blank sweeps out before scoring."
            )
    one, two = (torch.from_numpy(labels.astype(np.int64)) for labels in (predicted, true))
    return multiclass_confusion_matrix(one, two, num_classes=num_classes).numpy()


def score_labels(predicted: np.ndarray, true: np.ndarray, num_classes: int) -> dict[str, float]:
    """``accuracy`` and ``balanced_accuracy`` of labels in [0, num_classes)."""
    confusion_matrix(predicted, true, num_classes)  # refuses labels that are no class
    return {
        "accuracy": accuracy(predicted, true),
        "balanced_accuracy": balanced_accuracy(predicted, true),
    }


def frame_identity_within(
    predicted_frame: np.ndarray, true_frame: np.ndarray, tolerance_frames: int
) -> float:
    """Fraction of movie frames identified to within a tolerance; 30 movie frames are 1 s.

    Args:
        predicted_frame: Numbers of the movie frames said to be shown, shape (num_instants,).
        true_frame: Those that were, the same shape.
        tolerance_frames: Largest distance in movie frames that still counts as right.
    """
    _check_labels(predicted_frame, true_frame)
    if tolerance_frames < 0:
        raise ValueError(f"tolerance_frames must not be negative, got {tolerance_frames}.")
    distance = np.abs(predicted_frame.astype(np.int64) - true_frame.astype(np.int64))
    return float(np.mean(distance <= tolerance_frames))


def _check_labels(predicted: np.ndarray, true: np.ndarray) -> None:
    if predicted.ndim != 1 or predicted.shape != true.shape:
        raise ValueError(
            "predicted and true labels must both have shape (num_trials,), got "
            f"{predicted.shape} and {true.shape}. Take the argmax of logits first."
        )
    if predicted.size == 0:
        raise ValueError("There are no labels to score.")
    for name, labels in (("predicted", predicted), ("true", true)):
        if labels.dtype.kind not in "iu":
            raise ValueError(
                f"{name} labels must be integers, got {labels.dtype}. "
                "Number the classes from 0, and leave blank (NaN) sweeps out."
            )


# uncertainty -----------------------------------------------------------------------------------


def seed_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Mean over seeds and its Student t interval; the bounds of a single seed are NaN.

    Args:
        values: One score per seed, shape (num_seeds,).
        confidence: Coverage of the interval.
    """
    _check_values(values, confidence)
    mean = float(np.mean(values))
    if len(values) < _MIN_FOR_SPREAD:
        return Interval(mean, np.nan, np.nan)
    quantile = scipy.stats.t.ppf(0.5 + 0.5 * confidence, df=len(values) - 1)
    half = float(quantile * scipy.stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def bootstrap_interval(
    values: np.ndarray, seed: int, confidence: float = 0.95, num_resamples: int = 10_000
) -> Interval:
    """Mean over trials and its percentile bootstrap interval.

    Trials are drawn independently: give one value per trial or per repeat of a movie, not one
    per movie frame, since neighbours in time share their errors.

    Args:
        values: One score per trial, shape (num_trials,).
        seed: Seed of the resampling.
        confidence: Coverage of the interval.
        num_resamples: Bootstrap samples.
    """
    _check_values(values, confidence)
    mean = float(np.mean(values))
    if len(values) < _MIN_FOR_SPREAD:
        return Interval(mean, np.nan, np.nan)
    bounds = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=num_resamples,
        batch=max(1, 2**20 // len(values)),  # 8 MB of resampled values at a time
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(bounds.low), float(bounds.high))


def paired_gain(
    arm: np.ndarray, baseline: np.ndarray, confidence: float = 0.95
) -> dict[str, float]:
    """How much an arm gains over a baseline run with the same seeds.

    Args:
        arm: One score per seed, shape (num_seeds,).
        baseline: Scores of the same seeds in the same order.
        confidence: Coverage of the interval.

    Returns:
        ``mean_difference`` with its Student t interval ``low`` and ``high``, ``relative_gain``
        (the mean difference as a fraction of the baseline's mean; NaN if that is 0) and
        ``p_value`` of the two-sided paired t-test. What a single pair, or pairs that all differ
        by exactly the same, cannot tell is NaN.
    """
    if arm.shape != baseline.shape:
        raise ValueError(
            "arm and baseline must hold one score for each of the same seeds, got shapes "
            f"{arm.shape} and {baseline.shape}."
        )
    _check_values(baseline, confidence)
    difference = arm - baseline
    gain = seed_interval(difference, confidence)
    baseline_mean = float(np.mean(baseline))
    has_spread = len(difference) >= _MIN_FOR_SPREAD and np.ptp(difference) > 0
    return {
        "mean_difference": gain.mean,
        "low": gain.low,
        "high": gain.high,
        "relative_gain": gain.mean / baseline_mean if baseline_mean else np.nan,
        "p_value": float(scipy.stats.ttest_rel(arm, baseline).pvalue) if has_spread else np.nan,
    }


def _check_values(values: np.ndarray, confidence: float) -> None:
    if values.ndim != 1 or values.size == 0:
        raise ValueError(
            f"Scores must be a non-empty array of shape (num_scores,), got shape {values.shape}."
        )
    if not np.all(np.isfinite(values)):
        raise ValueError(
            f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} scores are NaN or "
            "infinite; find out which runs failed before averaging."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
