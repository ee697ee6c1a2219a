"""Rotary time embedding in one pass: a rotation of feature pairs is a complex multiplication."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RotaryTimeEmbedding(nn.Module):
    """Turns times into the phases by which pairs of features of an attention head are rotated.

    Equal to torch-brain's layer of the same name, whose buffer has the same name; periods are
    spaced evenly in their logarithm.

    Args:
        dim_head: Size of an attention head.
        rotate_dim: Features that are rotated, an even number; the rest stays as it is.
        shortest: Period of the fastest pair, seconds.
        longest: Period of the slowest pair, seconds.

    References:
        Su et al. 2021 (RoFormer); Azabou et al., NeurIPS 2023 (POYO).
    """

    omega: Tensor
    """Angular frequency of every pair, (dim_head / 2,); 0 where it is not rotated."""

    def __init__(self, dim_head: int, rotate_dim: int, *, shortest: float, longest: float) -> None:
        super().__init__()
        if rotate_dim % 2 or rotate_dim > dim_head:
            raise ValueError(
                f"rotate_dim must be a multiple of 2 and at most dim_head ({dim_head}), got "
                f"{rotate_dim}."
            )
        if not 0 < shortest < longest:
            raise ValueError(
                f"shortest must be positive and below longest, got {shortest} and {longest}."
            )
        start, end = torch.tensor([shortest, longest]).log()
        periods = torch.lerp(start, end, torch.linspace(0, 1, rotate_dim // 2)).exp()
        omega = torch.zeros(dim_head // 2)
        omega[: rotate_dim // 2] = 2 * math.pi / periods
        self.register_buffer("omega", omega)

    def forward(self, times: Tensor) -> Tensor:
        """Times in seconds, (...) -> complex numbers of size 1, (..., dim_head / 2)."""
        angles = times[..., None].to(self.omega.dtype) * self.omega
        return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, phases: Tensor) -> Tensor:
    """Rotates pairs of features as torch-brain's ``RotaryTimeEmbedding.rotate`` does.

    That takes seven passes over ``x``, this one. Complex numbers exist in single and double
    precision only, so half precision passes through single.

    Args:
        x: (..., dim_head).
        phases: Broadcastable to (..., dim_head / 2), from :class:`RotaryTimeEmbedding`.

    Returns:
        (..., dim_head), of the type of ``x``.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    pairs = torch.view_as_complex(wide.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * phases).flatten(-2).to(x.dtype)
