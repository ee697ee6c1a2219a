"""What the files of a checkpoint are called, and what is raised where they are none."""

from __future__ import annotations

WEIGHTS, CONFIG = "weights.safetensors", "config.json"


NOT_AS_WRITTEN = (
    KeyError, IndexError, TypeError, AttributeError, ValueError, ArithmeticError, AssertionError,
    RuntimeError,
)  # fmt: skip
"""What building from settings and tensors raises where they are no longer as they were written."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; the message says why and what to do."""
