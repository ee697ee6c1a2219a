"""Structural similarity of pictures as four matrix products: 50 times faster than by convolution.

A Gaussian window is separable, and blurring along one axis is a product with a banded matrix, so
the five local moments of SSIM are ``rows @ pictures @ columns``. On 32 pictures of 64 x 128, with
gradient, one core: 0.019 s, against 0.92 s for torchmetrics' 11 x 11 convolution
(``benchmarks/ssim.py``). Both are compared in ``tests/test_similarity.py``.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

WINDOW = 11
"""Pixels across the Gaussian window (Wang et al. 2004)."""
SIGMA = 1.5
"""Standard deviation of the window in pixels (Wang et al. 2004)."""
LUMINANCE_CONSTANT = 0.01**2
"""Keeps the luminance term defined; for pictures that span [0, 1] (Wang et al. 2004)."""
CONTRAST_CONSTANT = 0.03**2
"""Keeps the contrast term defined."""


def structural_similarity_of(one: Tensor, two: Tensor) -> Tensor:
    """SSIM of each pair of pictures, averaged where the window lies wholly inside; differentiable.

    Args:
        one: Pictures in [0, 1], (B, H, W).
        two: Pictures in [0, 1], (B, H, W).

    Returns:
        (B,).

    References:
        Wang et al. 2004, Image quality assessment: from error visibility to structural similarity.
    """
    # local variances are small differences of squares: bfloat16 would make them negative
    with torch.autocast(one.device.type, enabled=False):
        one, two = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (one, two))
        rows = _blur_matrix(one.shape[-2], one.dtype, one.device)  # (H - 10, H)
        columns = _blur_matrix(one.shape[-1], one.dtype, one.device)  # (W - 10, W)
        pictures = torch.stack([one, two, one * one, two * two, one * two])
        mean_one, mean_two, square_one, square_two, product = rows @ pictures @ columns.T
    variance = square_one - mean_one**2 + square_two - mean_two**2
    covariance = product - mean_one * mean_two
    luminance = (2 * mean_one * mean_two + LUMINANCE_CONSTANT) / (
        mean_one**2 + mean_two**2 + LUMINANCE_CONSTANT
    )
    contrast = (2 * covariance + CONTRAST_CONSTANT) / (variance + CONTRAST_CONSTANT)
    return (luminance * contrast).mean(dim=(-2, -1))


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept may be asked for a gradient later
def _blur_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Banded matrix that blurs one axis of ``size`` pixels, (size - WINDOW + 1, size)."""
    offsets = torch.arange(WINDOW, device=device, dtype=dtype) - (WINDOW - 1) / 2
    kernel = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel = kernel / kernel.sum()
    matrix = torch.zeros(size - WINDOW + 1, size, device=device, dtype=dtype)
    for row in range(len(matrix)):
        matrix[row, row : row + WINDOW] = kernel
    return matrix
