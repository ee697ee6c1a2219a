"""What fitting leaves behind beside weights."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

NO_CURVES = pd.DataFrame(columns=["step", "metric", "value"])
"""The curves of what is fitted in closed form."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a training run left behind beside the weights."""

    curves: pd.DataFrame
    """Columns step, metric, value."""
    seconds: float
    """In all runs, where it was stopped and went on."""
    best_step: int
    """Step whose weights were kept."""

    def __str__(self) -> str:
        """How many steps were kept, and the time."""
        return f"fitted to step {self.best_step} in {self.seconds:.0f} s"
