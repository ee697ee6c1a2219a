"""From the encoder's answer for one instant to a picture: a skip-connection UNet decoder."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poyo_ssl.windows.pictures import IMAGE_SIZE


class SkipDecoder(nn.Module):
    """Projects a vector to a map at every scale and merges the maps from coarse to fine.

    At each scale the upsampled stream is concatenated with a linear projection of the vector (the
    skip connection) and mixed by a 1x1 convolution; below full size a 3x3 convolution then smooths
    what upsampling left blocky. The picture is a correction, zero at first, to the mean frame of
    the training part or, where a linear teacher gives component scores, to the teacher's picture.

    Args:
        dim: Size of the vector.
        mean_frame: Mean training frame in [0, 1], shape (64, 128).
        components: Principal components of the training frames that a linear teacher scores,
            shape (num_components, 64, 128); empty without a teacher.
        channels: Channels of the maps from 2x4 pixels upwards, each scale twice the last; scales
            beyond 16x32 take no projection of their own, which would be most of the parameters.

    References:
        Bae et al., arXiv:2510.18516 (decoder with linear projections at every scale).
    """

    mean_frame: Tensor
    components: Tensor

    def __init__(
        self,
        dim: int,
        mean_frame: Tensor,
        components: Tensor,
        channels: tuple[int, ...] = (64, 48, 32, 16, 8, 4),
    ) -> None:
        super().__init__()
        if mean_frame.shape != IMAGE_SIZE:
            raise ValueError(f"mean_frame must have shape {IMAGE_SIZE}, got {mean_frame.shape}.")
        self.register_buffer("mean_frame", mean_frame)
        self.register_buffer("components", components)
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
            for c in channels[1:-1]
        )
        self.to_grey = nn.Conv2d(
            channels[-1], 1, kernel_size=3, padding=1, padding_mode="replicate", bias=False
        )
        nn.init.zeros_(self.to_grey.weight)

    def forward(self, vector: Tensor, scores: Tensor) -> Tensor:
        """Vectors (B, D) and component scores (B, num_components) -> grey pictures in [0, 1].

        Returns:
            (B, 64, 128).
        """
        stream = F.gelu(self.project[0](vector).unflatten(1, (-1, *self.sizes[0])))
        for scale, mix in enumerate(self.mix, start=1):
            stream = F.interpolate(
                stream, size=self.sizes[scale], mode="bilinear", align_corners=False
            )
            if scale < len(self.project):
                skip = self.project[scale](vector).unflatten(1, (-1, *self.sizes[scale]))
                stream = torch.cat([stream, skip], dim=1)
            stream = F.gelu(mix(stream))
            if scale <= len(self.smooth):
                stream = stream + F.gelu(self.smooth[scale - 1](stream))
        correction = self.to_grey(stream).squeeze(1)
        start = self.mean_frame + torch.tensordot(scores, self.components, dims=1)
        picture: Tensor = start + correction
        # a plain clamp has no gradient beyond its ends: a picture once black would stay black
        return picture.clamp(0, 1).detach() + (picture - picture.detach())
