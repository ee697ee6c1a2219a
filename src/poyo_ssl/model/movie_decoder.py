"""From the encoder's answer for one instant to a picture: a skip-connection UNet decoder."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE_SIZE = (64, 128)
"""Height and width in pixels of every reconstructed movie frame, for every model size."""


class SkipDecoder(nn.Module):
    """Projects a vector to a map at every scale and merges the maps from coarse to fine.

    At each scale the upsampled stream is concatenated with a linear projection of the vector (the
    skip connection) and mixed by a 1x1 convolution; a 3x3 convolution then smooths what upsampling
    left blocky. The picture is a correction to the mean frame of the training part, so that an
    uninformative vector gives the mean frame.

    Args:
        dim: Size of the vector.
        mean_frame: Mean training frame in [0, 1], shape (64, 128).
        channels: Channels of the maps from 2x4 pixels upwards, each scale twice the last; scales
            beyond 16x32 take no projection of their own, which would be most of the parameters.

    References:
        Bae et al., arXiv:2510.18516 (decoder with linear projections at every scale).
    """

    def __init__(
        self, dim: int, mean_frame: Tensor, channels: tuple[int, ...] = (64, 48, 32, 16, 8, 8)
    ) -> None:
        super().__init__()
        if mean_frame.shape != IMAGE_SIZE:
            raise ValueError(f"mean_frame must have shape {IMAGE_SIZE}, got {mean_frame.shape}.")
        self.register_buffer("mean_frame", mean_frame)
        self.sizes = [(2 * 2**scale, 4 * 2**scale) for scale in range(len(channels))]
        self.project = nn.ModuleList(
            nn.Linear(dim, c * h * w)
            for c, (h, w) in zip(channels, self.sizes, strict=True)
            if h <= 16
        )
        self.mix = nn.ModuleList(
            nn.Conv2d(coarse + (fine if h <= 16 else 0), fine, kernel_size=1)
            for (coarse, fine), (h, _) in zip(pairwise(channels), self.sizes[1:], strict=True)
        )
        self.smooth = nn.ModuleList(
            nn.Conv2d(c, c, kernel_size=3, padding=1, padding_mode="replicate")
            for c in channels[1:]
        )
        self.to_grey = nn.Conv2d(channels[-1], 1, kernel_size=1, bias=False)
        nn.init.zeros_(self.to_grey.weight)

    def forward(self, vector: Tensor) -> Tensor:
        """Vectors (B, D) -> grey pictures in [0, 1], (B, 64, 128)."""
        stream = F.gelu(self.project[0](vector).unflatten(1, (-1, *self.sizes[0])))
        for scale, (mix, smooth) in enumerate(zip(self.mix, self.smooth, strict=True), start=1):
            stream = F.interpolate(
                stream, size=self.sizes[scale], mode="bilinear", align_corners=False
            )
            if scale < len(self.project):
                skip = self.project[scale](vector).unflatten(1, (-1, *self.sizes[scale]))
                stream = torch.cat([stream, skip], dim=1)
            stream = F.gelu(mix(stream))
            stream = stream + F.gelu(smooth(stream))
        correction = self.to_grey(stream).squeeze(1)
        picture: Tensor = self.mean_frame + correction
        # a plain clamp has no gradient beyond its ends: a picture once black would stay black
        return picture.clamp(0, 1).detach() + (picture - picture.detach())
