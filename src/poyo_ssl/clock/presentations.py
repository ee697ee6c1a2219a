"""From the table of a stimulus to the design that it was shown in."""

from __future__ import annotations

import numpy as np
import pandas as pd

from poyo_ssl.clock.designs import MIN_GAP, MIN_PRESENTATIONS, Design, Film, Onsets, Trials

_TIMES = ("start", "end", "repeat")
"""Columns that say when, not what."""


class NotComparableError(ValueError):
    """A stimulus whose times no activity can contradict; the message says why."""


def find_design(table: pd.DataFrame) -> Design:
    """How a stimulus was shown.

    Args:
        table: ``start``, ``end`` (s) and what was shown, as in ``Recording.stimuli``.

    Raises:
        NotComparableError: If nothing was shown twice and there is no pause before onsets.
    """
    table, condition = _shown(table.sort_values("start", kind="stable"))
    starts, ends = table["start"].to_numpy(float), table["end"].to_numpy(float)
    if len(table) < 2:
        raise NotComparableError("shown once")
    duration = float(np.median(ends - starts))
    gap = float(np.median(starts[1:] - ends[:-1]))
    is_fixed = _has_fixed_order(condition)
    if is_fixed and gap < MIN_GAP and condition.max() > 0:
        return _film(starts, ends, condition)
    if len(table) < MIN_PRESENTATIONS:
        raise NotComparableError(f"only {len(table)} presentations")
    period = float(np.median(np.diff(starts)))
    comes_back = len(condition) >= 2 * (condition.max() + 1)
    if comes_back and condition.max() > 0:
        # where the order never changes, a neighbour's response looks like one's own, a period off
        max_lag = period / 2 if is_fixed else np.inf
        return Trials(
            starts=starts, duration=duration, gap=gap, max_lag=max_lag, condition=condition
        )
    if gap < MIN_GAP:
        raise NotComparableError("nothing came back often, and there is no pause before onsets")
    return Onsets(starts=starts, duration=duration, gap=gap, max_lag=period / 2)


def _shown(table: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """The presentations without blank sweeps, and the index of what each of them showed."""
    what = table.drop(columns=[column for column in _TIMES if column in table])
    if not len(what.columns):
        return table, np.zeros(len(table), dtype=int)
    is_blank = what.isna().all(axis=1)
    if "image" in what:
        is_blank |= what["image"] < 0
    table, what = table[~is_blank], what[~is_blank]
    return table, what.groupby(list(what.columns), dropna=False).ngroup().to_numpy()


def _has_fixed_order(condition: np.ndarray) -> bool:
    """Whether the same condition nearly always comes after another one."""
    if not len(condition) or condition.max() == 0:
        return True
    pairs = pd.Series(condition[1:]).groupby(condition[:-1])
    usual = pairs.agg(lambda after: after.value_counts().iloc[0]).sum()
    return bool(usual >= 0.9 * (len(condition) - 1))


def _film(starts: np.ndarray, ends: np.ndarray, condition: np.ndarray) -> Film:
    begins = np.flatnonzero(condition == condition[0])
    length = int(np.median(np.diff(begins))) if len(begins) > 1 else len(condition)
    begins = begins[begins + length <= len(condition)]
    if len(begins) < 2:
        raise NotComparableError("shown once")
    lasts = ends[begins + length - 1] - starts[begins]
    duration = float(np.median(lasts))
    is_whole = np.abs(lasts - duration) < 0.5  # a showing with a break is none
    if is_whole.sum() < 2:
        raise NotComparableError("shown once without a break")
    return Film(starts=starts[begins[is_whole]], duration=duration)
