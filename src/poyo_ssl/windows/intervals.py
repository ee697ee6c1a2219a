"""Sets of intervals in seconds: arrays of starts and ends, shape (num_intervals, 2)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def as_intervals(pairs: Iterable[tuple[float, float]]) -> np.ndarray:
    """Pairs of start and end, in order of time."""
    return np.array(sorted(pairs), dtype=np.float64).reshape(-1, 2)


def merge(intervals: np.ndarray) -> np.ndarray:
    """The same time as intervals that neither overlap nor touch."""
    merged: list[tuple[float, float]] = []
    for start, end in as_intervals(tuple(pair) for pair in intervals):
        if merged and start <= merged[-1][1] + 1e-9:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return as_intervals(merged)


def cut_out(intervals: np.ndarray, blocked: np.ndarray) -> np.ndarray:
    """What is left of the intervals after the blocked ones are cut out."""
    left = [tuple(pair) for pair in intervals]
    for start, end in blocked:
        cut = []
        for a, b in left:
            cut += [(a, min(b, start)), (max(a, end), b)] if a < end and b > start else [(a, b)]
        left = [(a, b) for a, b in cut if b > a]
    return as_intervals(left)


def lie_inside(
    starts: np.ndarray, ends: np.ndarray, intervals: np.ndarray, tolerance: float = 1e-6
) -> np.ndarray:
    """Which of the spans [start, end] (s) lie wholly inside one of the intervals.

    Returns:
        Booleans of the shape of ``starts``.
    """
    inside = np.zeros(len(starts), dtype=bool)
    for start, end in intervals:
        inside |= (starts >= start - tolerance) & (ends <= end + tolerance)
    return inside


def begin_inside(onsets: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Which onsets (s) lie in one of the half-open intervals.

    A stimulus that begins where a part ends belongs to what comes after it.

    Returns:
        Booleans of the shape of ``onsets``.
    """
    tolerance = 1e-6
    inside = np.zeros(len(onsets), dtype=bool)
    for start, end in intervals:
        inside |= (onsets >= start - tolerance) & (onsets < end - tolerance)
    return inside
