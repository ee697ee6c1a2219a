"""What values a metric can take, and whether neighbouring test windows err alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The possible values of a score, and what its test windows are to one another."""

    lowest: float = -math.inf
    highest: float = math.inf
    has_trials: bool = False
    """Whether every window is a trial of its own, right or wrong. Elsewhere a window scores any
    value and is like its neighbours in time, which are then averaged before anything is inferred.
    """

    @property
    def of_differences(self) -> Scale:
        """The scale of the difference between two scores."""
        width = self.highest - self.lowest
        return Scale(lowest=-width, highest=width, has_trials=self.has_trials)

    def clip(self, value: float) -> float:
        """The nearest possible value; NaN stays NaN."""
        return float(np.clip(value, self.lowest, self.highest))


_SHARE = Scale(lowest=0.0, highest=1.0)
_SIMILARITY = Scale(lowest=-1.0, highest=1.0)
SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        "accuracy": Scale(lowest=0.0, highest=1.0, has_trials=True),
        "balanced_accuracy": _SHARE,
        "within_1s": _SHARE,
        "within_200ms": _SHARE,
        "ssim": _SIMILARITY,
        "correlation": _SIMILARITY,
        "r2": Scale(highest=1.0),
        "psnr": Scale(lowest=0.0),
    }
)
"""Metric to its scale."""


def scale_of(metric: str) -> Scale:
    """The scale of a metric; one that is not known may take any value."""
    return SCALES.get(metric, Scale())
