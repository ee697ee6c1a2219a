"""Tables of presentations, whatever file lists them."""

from __future__ import annotations

import logging

import pandas as pd

logger = logging.getLogger(__name__)


def keep_imaged(table: pd.DataFrame, imaged: tuple[float, float], what: str) -> pd.DataFrame:
    """The presentations that at least touch the traces, in order of time.

    Args:
        table: One row per presentation with ``start`` and ``end`` in seconds; a row without
            times is left out, too.
        imaged: First and last time of the traces in seconds.
        what: File and stimulus, for the warning.
    """
    first, last = imaged
    keep = (table["end"] > first) & (table["start"] <= last)
    if not keep.all():
        logger.warning(
            "%s: %d of %d presentations lie outside the traces (%.1f to %.1f s) or have no times; "
            "left out.",
            what,
            (~keep).sum(),
            len(table),
            first,
            last,
        )
    return table[keep].sort_values("start", kind="stable", ignore_index=True)
