"""Real recordings that lie beside the checkout, where they do."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared/data"

needs_shared_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="no folder shared/data with real recordings beside the checkout"
)
