"""Rotary time embedding in one pass: a rotation of feature pairs is a complex multiplication."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_brain.nn import RotaryTimeEmbedding


def rotary_phases(rotary: RotaryTimeEmbedding, times: Tensor) -> Tensor:
    """Unit complex numbers that rotate every pair of features of a head at the given times.

    Args:
        rotary: Angular frequencies; pairs that are not rotated have frequency 0.
        times: Seconds, (...).

    Returns:
        (..., dim_head / 2), complex.
    """
    angles = times[..., None].to(rotary.omega.dtype) * rotary.omega
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, phases: Tensor) -> Tensor:
    """Rotates pairs of features as torch-brain's ``RotaryTimeEmbedding.rotate`` does.

    That takes seven passes over ``x``, this one. Complex numbers exist in single and double
    precision only, so half precision passes through single.

    Args:
        x: (..., dim_head).
        phases: Broadcastable to (..., dim_head / 2), from :func:`rotary_phases`.

    Returns:
        (..., dim_head), of the type of ``x``.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    pairs = torch.view_as_complex(wide.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * phases).flatten(-2).to(x.dtype)
