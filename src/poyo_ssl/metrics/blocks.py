"""Blocks of neighbours in time, long enough to be of little likeness to each other."""

from __future__ import annotations

import math

import numpy as np
import scipy.stats


def edges_of_blocks(values: np.ndarray, min_blocks: int) -> np.ndarray:
    """Cuts a series where its parts are about independent.

    A block is one value where the order of the values looks random, else twice as long as values
    resemble each other; but there are at least ``min_blocks``, or as many as there are values.

    Args:
        values: In order of time, shape (num_values,).
        min_blocks: Blocks at least.

    Returns:
        Where each block begins, and where the last ends, (num_blocks + 1,).
    """
    reach = reach_of_likeness(values)
    length = min(1 if reach == 1 else 2 * reach, max(1, len(values) // min_blocks))
    return np.linspace(0, len(values), len(values) // length + 1).round().astype(int)


def reach_of_likeness(values: np.ndarray) -> int:
    """The lag from which on the autocorrelation of the ranks is that of a random order."""
    ranks = scipy.stats.rankdata(values)
    ranks -= ranks.mean()
    total = float(ranks @ ranks)
    if total == 0:
        return len(values)
    for lag in range(1, len(values)):
        if ranks[lag:] @ ranks[:-lag] / total < 2 / math.sqrt(len(values)):
            return lag
    return len(values)
