"""Clocks that the listed times may have been read from instead: other units, speeds, reversed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from poyo_ssl.clock.activity import BinnedActivity
from poyo_ssl.clock.designs import Design, Film, LagProfile, Onsets
from poyo_ssl.clock.statistics import count_responding
from poyo_ssl.recordings.recording import Recording

_MAX_SCALE = 0.05
"""Part by which a clock may run fast or slow, at most, to be looked for."""
_NUM_MODES = 20
"""Principal modes of the activity in which clocks are searched, for speed."""
_MIN_BLOCK = 300
"""Seconds, and presentations, that a scale is first looked for in."""
_NUM_TRIED = 10_000
"""Clocks that a search tries, at most, about: the number its tests are corrected for."""
_MIN_UNITS = 3
"""Units that must respond for a lag, or another clock, to be named."""
_MIN_DRIFT = 0.5
"""Seconds between the lags of both halves of the presentations that are worth a warning."""


@dataclass(frozen=True, kw_only=True)
class OtherClock:
    """Times that fit better: ``scale * time + shift``."""

    scale: float
    shift: float
    """Seconds."""
    num_responding: int
    """Units that respond by it."""
    meaning: str
    """What the listed times then are, in words."""


def unit_clocks(recording: Recording) -> list[tuple[float, str]]:
    """Units that times are listed in by mistake: how many seconds one has, and its name."""
    return [
        (1e-3, "milliseconds"),
        (1e-6, "microseconds"),
        (1 / recording.sampling_rate, "imaging timesteps"),
        (60.0, "minutes"),
        (1e3, "thousands of seconds"),
    ]


def find_other_clock(
    recording: Recording, activity: BinnedActivity, design: Design, lags: np.ndarray
) -> OtherClock | None:
    """Looks for a clock by which units respond, where none does by the listed one.

    Args:
        recording: One session.
        activity: Of the recording.
        design: Of the stimulus.
        lags: Shifts (s) that are tried with each scale.

    Returns:
        The clock by which most units respond; None where hardly any responds by any of them.
    """
    first, last = recording.timestamps[[0, -1]]
    reversed_clock = (-1.0, float(first + last), "running backwards")
    found = _most_responding(activity, design, lags, [reversed_clock])
    if found is None and isinstance(design, Onsets):
        scale, shift = _find_scale(activity, design, lags)
        speed = (scale, shift, "running too fast" if scale < 1 else "running too slow")
        found = _most_responding(activity, design, lags, [speed])
    return found


def _most_responding(
    activity: BinnedActivity,
    design: Design,
    lags: np.ndarray,
    clocks: list[tuple[float, float, str]],
) -> OtherClock | None:
    """The best of some clocks (scale, shift in s, meaning), if enough units respond by it."""
    found: list[OtherClock] = []
    for scale, shift, meaning in clocks:
        moved = design.moved(scale, shift)
        profile = moved.profile(activity, lags)
        best = 0.0 if profile is None else profile.best_lag
        p_values = moved.fit_p_values(activity, best)
        if p_values is not None:
            num = count_responding(p_values, _NUM_TRIED)
            found.append(
                OtherClock(scale=scale, shift=shift + best, num_responding=num, meaning=meaning)
            )
    best_clock = max(found, key=lambda clock: clock.num_responding, default=None)
    if best_clock is None or best_clock.num_responding < _MIN_UNITS:
        return None
    return best_clock


def _find_scale(activity: BinnedActivity, design: Onsets, lags: np.ndarray) -> tuple[float, float]:
    """The scale and shift (s) that fit best: first in a block, then in all presentations."""
    modes = _principal_modes(activity)
    num = max(_MIN_BLOCK, int((design.starts < design.starts[0] + _MIN_BLOCK).sum()))
    block = design.take(slice(None, num))
    length = design.duration + 0.25
    step = min(0.5 * length / max(np.ptp(block.starts), 1.0), _MAX_SCALE / 2)
    spread = np.arange(lags.min(), lags.max(), length / 4)
    scales = 1 + np.arange(-_MAX_SCALE, _MAX_SCALE + step, step)
    scale, shift = _best(modes, block, scales, 0.0, spread)
    fine = 0.5 * length / max(np.ptp(design.starts), 1.0)
    if fine < step:
        scales = scale + np.arange(-2 * step, 2 * step + fine, fine)
        # a scale turns the times about 0 s: about the block they must stay where they fitted
        middle = float(block.starts.mean())
        scale, shift = _best(modes, design, scales, shift + scale * middle, spread / 4, middle)
    return scale, shift


def _best(
    activity: BinnedActivity,
    design: Onsets,
    scales: np.ndarray,
    at: float,
    lags: np.ndarray,
    pivot: float = 0.0,
) -> tuple[float, float]:
    """The scale and shift with the best fit, if the time ``pivot`` becomes ``at`` plus a lag."""
    best, found = -np.inf, (1.0, 0.0)
    for scale in scales:
        shift = at - scale * pivot
        profile = design.moved(scale, shift).profile(activity, lags)
        if profile is not None and np.nanmax(profile.fit) > best:
            best, found = float(np.nanmax(profile.fit)), (float(scale), shift + profile.best_lag)
    return found


def _principal_modes(activity: BinnedActivity) -> BinnedActivity:
    """The activity along its main directions, instead of units."""
    values = activity.values
    _, vectors = np.linalg.eigh(values.T @ values / len(values))
    modes = values @ vectors[:, ::-1][:, :_NUM_MODES]
    return replace(activity, values=modes / np.maximum(modes.std(axis=0), 1e-9))


def find_scale_of_film(activity: BinnedActivity, film: Film) -> float | None:
    """The scale of the clock by which showings resemble each other clearly more than as listed.

    Returns:
        The scale; None where the listed period of the showings fits as well.
    """
    listed, _ = film.reliability(activity, 0.0)
    if listed is None:
        return None
    units = np.argsort(listed)[::-1][: 2 * _NUM_MODES]
    some = replace(activity, values=activity.values[:, units])
    step = 0.25 / max(np.ptp(film.starts), 1.0)
    scales = 1 + np.arange(-40, 41) * step
    # every showing turns about the first one, so that all stay within what was imaged
    fits = []
    for scale in scales:
        moved = film.moved(scale, (1 - scale) * film.starts[0])
        correlation, _ = moved.reliability(some, 0.0)
        fits.append(np.full(len(units), -np.inf) if correlation is None else correlation)
    means = [fit.mean() for fit in fits]
    best = int(np.argmax(means))
    gain = fits[best] - listed[units]
    error = gain.std() / np.sqrt(max(len(units) - 1, 1))
    is_clear = gain.mean() > max(4 * error, 0.1 * listed[units].mean())
    return float(scales[best]) if is_clear else None


def find_drift(
    activity: BinnedActivity, design: Onsets, lags: np.ndarray
) -> tuple[float, float] | None:
    """The best lags (s) of the earlier and the later presentations, if they clearly differ."""
    best, as_good = [], []
    for half in design.halves():
        profile = half.profile(activity, lags)
        if profile is None or not responds_at_best(half, activity, profile):
            return None
        best.append(profile.best_lag)
        as_good.append(profile.lags[profile.as_good])
    is_apart = as_good[0].max() < as_good[1].min() or as_good[1].max() < as_good[0].min()
    return (best[0], best[1]) if is_apart and abs(best[0] - best[1]) >= _MIN_DRIFT else None


def responds_at_best(design: Design, activity: BinnedActivity, profile: LagProfile) -> bool:
    """Whether some units respond at the best lag, although it was chosen among many."""
    p_values = design.fit_p_values(activity, profile.best_lag)
    if p_values is None:
        return False
    return count_responding(p_values, len(profile.lags)) >= _MIN_UNITS
