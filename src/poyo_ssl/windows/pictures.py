"""Pictures as networks and metrics have them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

IMAGE_SIZE = (64, 128)
"""Height and width in pixels of every reconstructed movie frame, for every model size."""


def resize_pictures(pictures: np.ndarray) -> Tensor:
    """Grey pictures (n, height, width), uint8, to float in [0, 1] of 64 x 128 pixels."""
    scaled = torch.tensor(np.ascontiguousarray(pictures)).float()[:, None] / 255.0
    if scaled.shape[-2:] != IMAGE_SIZE:
        scaled = torch.nn.functional.interpolate(
            scaled, size=IMAGE_SIZE, mode="bilinear", antialias=True
        )
    return scaled[:, 0].clamp(0, 1)
