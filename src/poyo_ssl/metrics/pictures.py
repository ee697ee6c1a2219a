"""How alike pictures are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from poyo_ssl.metrics.similarity import WINDOW, structural_similarity_of

_DATA_RANGE = 1.0
"""Pictures span [0, 1]. Left to guess, the libraries take the range of each batch instead, and
scores of different batches stop being comparable."""

_PIXELS_PER_CHUNK = 128 * 128
"""Pixels scored at a time: keeps memory flat, and the filter's intermediate pictures in cache,
where it runs twice as fast as on a whole batch."""


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
