"""Encoders that come with the package, one folder each (``benchmarks/shipped_encoder.py``)."""

from pathlib import Path

SHIPPED = Path(__file__).parent
"""Where their folders lie."""


def shipped_names() -> list[str]:
    """What they are called."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))
