"""What the files of a checkpoint are called, and what is raised where they are none."""

from __future__ import annotations

WEIGHTS, CONFIG = "weights.safetensors", "config.json"


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; the message says why and what to do."""
