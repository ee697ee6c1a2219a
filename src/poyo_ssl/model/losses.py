"""The losses we use, one function each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from poyo_ssl.metrics.similarity import structural_similarity_of


def label_loss(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy with label smoothing; logits (B, K), target (B,)."""
    return F.cross_entropy(logits, target, label_smoothing=smoothing)


def frame_loss(logits: Tensor, frame: Tensor, width: float, smoothing: float) -> Tensor:
    """Cross-entropy with a gaussian over movie frames, and label smoothing.

    Args:
        logits: (B, K), K movie frames in order.
        frame: The movie frame shown, (B,).
        width: SD of the gaussian, movie frames; 0 for the frame shown alone.
        smoothing: Probability spread over all movie frames.
    """
    if width == 0:
        return label_loss(logits, frame, smoothing)
    distance = torch.arange(logits.shape[1], device=logits.device) - frame[:, None]
    target = torch.softmax(-0.5 * (distance / width) ** 2, dim=1)
    return F.cross_entropy(logits, target, label_smoothing=smoothing)


def teacher_loss(logits: Tensor, probabilities: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the teacher's answer; both (B, K)."""
    return F.kl_div(logits.log_softmax(-1), probabilities, reduction="batchmean")


def picture_loss(predicted: Tensor, true: Tensor, ssim_weight: float) -> dict[str, Tensor]:
    """Mean absolute error and structural dissimilarity of pictures in [0, 1], (B, H, W).

    The focal, Fourier and perceptual terms of the paper are left out: a term stays only where a
    measurement shows that it helps.

    Args:
        predicted: Reconstructed pictures.
        true: Pictures shown.
        ssim_weight: Weight of 1 - SSIM beside the mean absolute error.

    Returns:
        ``l1``, ``dissimilarity`` and their weighted sum ``loss``.
    """
    l1 = (predicted - true).abs().mean()
    ssim = structural_similarity_of(predicted, true).mean()
    return {"l1": l1, "dissimilarity": 1 - ssim, "loss": l1 + ssim_weight * (1 - ssim)}


def cross_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation of every feature of one view with every feature of the other.

    Args:
        one: Features of all windows, (num_windows, num_features).
        other: Features of another view of the same windows, of the same shape.

    Returns:
        (num_features, num_features); a feature that does not vary correlates with nothing.
    """

    def standardise(features: Tensor) -> Tensor:
        centred = features - features.mean(0)
        # the gradient of a square root at zero is infinite
        return centred / (centred.square().mean(0) + 1e-8).sqrt()

    return standardise(one).T @ standardise(other) / len(one)


def barlow_twins_loss(correlation: Tensor, off_diagonal_weight: float) -> Tensor:
    """How far a cross-correlation is from the identity, per feature (Zbontar et al. 2021).

    Args:
        correlation: (num_features, num_features).
        off_diagonal_weight: Weight of correlations between different features.
    """
    diagonal = correlation.diagonal()
    others = correlation.square().sum() - diagonal.square().sum()
    return ((1 - diagonal).square().sum() + off_diagonal_weight * others) / len(diagonal)


def effective_rank(features: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised covariance spectrum (Roy & Vetterli 2007).

    A collapsed representation scores 1.

    Args:
        features: (num_samples, num_features).
    """
    centred = features - features.mean(0)
    spectrum = torch.linalg.svdvals(centred).square()
    weights = spectrum / spectrum.sum().clamp_min(1e-12)
    return torch.exp(-(weights * weights.clamp_min(1e-12).log()).sum())
