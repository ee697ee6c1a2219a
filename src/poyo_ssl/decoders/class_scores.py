"""What scores classes in closed form, saved and loaded whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from poyo_ssl.decoders.condition_posterior import ConditionReadout
from poyo_ssl.decoders.frame_templates import FrameTemplates, GaussianTemplates
from poyo_ssl.decoders.linear import LinearReadout

LabelScores = LinearReadout | ConditionReadout
"""What scores labels."""
ClassScores = LabelScores | FrameTemplates
"""What scores classes, movie frames among them."""
KINDS: dict[str, type[ClassScores]] = {
    kind.__name__: kind
    for kind in (LinearReadout, ConditionReadout, FrameTemplates, GaussianTemplates)
}
"""By the name in saved settings."""


def save_scores(scores: ClassScores) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings (JSON-ready), among them the kind, and tensors."""
    settings, tensors = scores.state()
    return {**settings, "scores": type(scores).__name__}, tensors


def load_scores(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of :func:`save_scores`.

    Raises:
        KeyError: If the kind, or a part of it, is not there.
    """
    return KINDS[settings["scores"]].of(settings, tensors)
