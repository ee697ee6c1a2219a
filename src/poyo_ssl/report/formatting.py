"""Numbers and names as a reader expects them."""

from __future__ import annotations

import math
from numbers import Real
from typing import TypeGuard

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"

FEW_TRIALS = 100
"""Below as many, a score is shown with its counts: 15/16, not 0.938 alone."""

_DIGITS = {"psnr": 2}
_METRIC_TITLES = {
    "r2": "R²",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "within_1s": "fraction within 1 s",
    "within_200ms": "fraction within 0.2 s",
    "ssim": "SSIM",
    "psnr": "PSNR (dB)",
    "correlation": "pixel correlation",
}
_UNITS_TITLES = {
    "all": "All units",
    "predictable": "Predictable units",
    "unpredictable": "Unpredictable units",
}
_SPLIT_TITLES = {
    "trial": "held-out trials",
    "repeat": "held-out repeats",
    "held_out_frames": "held-out movie frames",
}


def metric_title(metric: str) -> str:
    """How a metric is named on the page."""
    return _METRIC_TITLES.get(metric, metric.replace("_", " "))


def units_title(units: str) -> str:
    """How a subset of units is named on the page."""
    return _UNITS_TITLES.get(units, units)


def split_title(split: str) -> str:
    """How a way of testing is named on the page."""
    return _SPLIT_TITLES.get(split, split.replace("_", " "))


def is_number(value: object) -> TypeGuard[float]:
    """Whether there is a finite number to show."""
    return isinstance(value, Real) and math.isfinite(value)


def format_number(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """A number with a fixed count of decimals, or a dash."""
    if not is_number(value):
        return NOTHING
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    return text.replace("-", MINUS)


def format_score(value: float | None, metric: str, *, signed: bool = False) -> str:
    """A score or a difference of scores with the digits that its metric deserves."""
    return format_number(value, _DIGITS.get(metric, 3), signed=signed)


def format_right(num_right: float, num_test: float) -> str:
    """How many of how many, where a share of so few says too much; else a dash."""
    if not is_number(num_right) or num_test >= FEW_TRIALS:
        return NOTHING
    return f"{num_right:.3g}/{num_test:.0f}"


def format_interval(low: float, high: float, metric: str, *, signed: bool = False) -> str:
    """An interval in brackets, or a dash where there is none."""
    if not (is_number(low) and is_number(high)):
        return NOTHING
    ends = (format_score(end, metric, signed=signed) for end in (low, high))
    return f"[{', '.join(ends)}]"


def format_p_value(value: float) -> str:
    """A p value to two significant digits, never as zero."""
    if not is_number(value):
        return NOTHING
    if value < 0.001:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def format_count(value: float | None) -> str:
    """A whole number with thousands separated."""
    return format_number(value, 0)


def format_duration(seconds: float | None) -> str:
    """A span of time in the two units that matter."""
    if not is_number(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
