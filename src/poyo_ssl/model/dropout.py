"""Dropout whose random numbers cost less."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 2**16


class Dropout(nn.Module):
    """As ``nn.Dropout``; on a CPU each feature takes 16 random bits instead of a whole number.

    A CPU draws random numbers one after another, and the published model needs 4.7 million of
    them in a training step. Here the probability is a multiple of 2^-16.

    Args:
        p: Probability that a feature is dropped.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p must lie in [0, 1), got {p}.")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...); what is kept is scaled up so that the mean stays."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        num_dropped = round(self.p * _LEVELS)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        is_dropped = bits < num_dropped - _LEVELS // 2
        return x.masked_fill(is_dropped, 0.0).mul_(_LEVELS / (_LEVELS - num_dropped))
