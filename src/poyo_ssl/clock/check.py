"""For every stimulus of a recording: how many units respond, when, and whether the clock is off.

All of it describes a recording as a whole. Nothing here may choose or feed a decoder: it has seen
the test part, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.clock.activity import BinnedActivity
from poyo_ssl.clock.designs import Design, Film, LagProfile, Onsets
from poyo_ssl.clock.other_clocks import (
    find_drift,
    find_other_clock,
    find_scale_of_film,
    responds_at_best,
    unit_clocks,
)
from poyo_ssl.clock.presentations import NotComparableError, find_design
from poyo_ssl.clock.statistics import count_responding
from poyo_ssl.recordings.recording import Recording

MAX_RESPONSE_LAG = 1.0
"""Seconds after an onset within which a visual response is expected to be largest: cortex answers
in 0.1 s, and calcium follows within some tenths."""
_FEW = 0.1
"""Part of the units that may respond by chance or to a neighbouring presentation."""
_MIN_SPAN = 0.005
"""Part of the imaging that a stimulus takes at least: less comes of a wrong unit."""
_USUAL_LAG = 0.3
"""Seconds after the onset at which responses are usually largest."""
LAGS = np.concatenate(
    [np.arange(-15, -3, 0.25), np.arange(-30, 30) / 10, np.arange(3, 15.25, 0.25)]
)
"""Seconds after the listed times that are tried: finely where shifts are small."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClockCheck:
    """What the activity says about the listed times of one stimulus of one recording."""

    recording_id: str
    stimulus: str
    num_units: int
    num_responding: int | None = None
    """Units that respond (Benjamini-Hochberg, 5 % false discoveries); None if it cannot be said."""
    best_lag: float | None = None
    """Seconds after the listed times at which the activity fits best; None if all fit alike."""
    lag_range: tuple[float, float] | None = None
    """The earliest and latest lag (s) that cannot be told from the best one."""
    profile: LagProfile | None = None
    """The fit at every lag."""
    fit_name: str = ""
    """What the fit is, in words."""
    warning: str = ""
    """What is wrong and what to do next; empty if nothing is known to be."""
    note: str = ""
    """Why something cannot be checked, if so."""

    @property
    def summary(self) -> str:
        """One line for people."""
        parts = []
        if self.num_responding is not None:
            parts.append(f"{self.num_responding} of {self.num_units} units respond")
        if self.best_lag is not None and self.lag_range is not None:
            low, high = self.lag_range
            parts.append(f"best {self.best_lag:.2g} s after the onset ({low:.2g} to {high:.2g} s)")
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as saved with a run."""
        lags: list[float] = []
        fit: list[float | None] = []
        if self.profile is not None:
            lags = self.profile.lags.tolist()
            fit = [value if np.isfinite(value) else None for value in self.profile.fit.tolist()]
        return {
            "recording_id": self.recording_id,
            "stimulus": self.stimulus,
            "num_units": self.num_units,
            "num_responding": self.num_responding,
            "best_lag": self.best_lag,
            "lag_range": self.lag_range,
            "fit_name": self.fit_name,
            "lags": lags,
            "fit": fit,
            "warning": self.warning,
            "note": self.note,
        }


def check_clock(recording: Recording, stimuli: Sequence[str] | None = None) -> list[ClockCheck]:
    """Holds the listed times of every stimulus beside the activity.

    A unit responds if its activity changes at onsets (paired t test), depends on what is shown
    (Kruskal-Wallis) or, of a film, resembles itself from showing to showing (correlation, beside
    circular shifts). The lag is that at which the responses of the population fit best.

    Args:
        recording: One session.
        stimuli: Names of the stimuli to check; all by default.

    Returns:
        One check for each stimulus, in order of the first presentation.

    References:
        Benjamini & Hochberg, J. R. Stat. Soc. B 57:289 (1995).
    """
    names = list(recording.stimuli) if stimuli is None else list(stimuli)
    tables = {name: recording.stimulus(name) for name in names}
    tables = {name: table for name, table in tables.items() if len(table)}
    if not recording.num_units or not tables:
        return []
    activity = BinnedActivity.of(recording)
    by_start = sorted(tables.items(), key=lambda item: item[1]["start"].min())
    return [_check(recording, activity, name, table) for name, table in by_start]


def _check(
    recording: Recording, activity: BinnedActivity, name: str, table: pd.DataFrame
) -> ClockCheck:
    check = ClockCheck(
        recording_id=recording.recording_id, stimulus=name, num_units=recording.num_units
    )
    outside = _warn_of_outside(recording, name, table)
    if outside:
        return replace(check, warning=outside)
    try:
        design = find_design(table)
    except NotComparableError as reason:
        return replace(check, note=f"its clock cannot be checked: {reason}")
    profile = design.profile(activity, LAGS)
    lag = 0.0 if profile is None else profile.best_between(0.0, MAX_RESPONSE_LAG)
    p_values = design.p_values(activity, lag)
    num_responding = None if p_values is None else count_responding(p_values)
    check = replace(check, num_responding=num_responding, fit_name=design.fit_name)
    if profile is not None and responds_at_best(design, activity, profile):
        as_good = profile.lags[profile.as_good]
        low, high = float(as_good.min()), float(as_good.max())
        check = replace(check, profile=profile, best_lag=profile.best_lag, lag_range=(low, high))
    elif num_responding:
        check = replace(check, note="its lag cannot be told: other lags fit as well")
    fitting = design.fit_p_values(activity, lag)
    num_fitting = 0 if fitting is None else count_responding(fitting)
    return replace(check, warning=_warn(recording, activity, design, check, num_fitting))


def _warn_of_outside(recording: Recording, name: str, table: pd.DataFrame) -> str:
    """What is wrong if most presentations lie where nothing was imaged."""
    starts = table["start"].to_numpy(float)
    num = int(_is_imaged(recording, starts).sum())
    if num >= len(table) / 2:
        return ""
    first, last = recording.timestamps[[0, -1]]
    likely = [
        (scale, unit)
        for scale, unit in unit_clocks(recording)
        if _is_imaged(recording, scale * starts).mean() > 0.5
        and scale * np.ptp(starts) > _MIN_SPAN * (last - first)
    ]
    if likely:
        scale, unit = max(likely)
        reason = f"They would be imaged if the times were in {unit}: multiply them by {scale:.4g}."
    else:
        reason = "Both need one clock: check where either begins, and its unit."
    return (
        f"{num} of {len(table)} presentations of {name} were imaged: they are listed from "
        f"{starts.min():.6g} to {starts.max():.6g} s, imaging lasts from {first:.6g} to "
        f"{last:.6g} s. {reason}"
    )


def _is_imaged(recording: Recording, times: np.ndarray) -> np.ndarray:
    intervals = recording.segment_intervals
    segment = np.searchsorted(intervals[:, 0], times + 1e-6, side="right") - 1
    return (segment >= 0) & (times < intervals[np.maximum(segment, 0), 1])


def _warn(
    recording: Recording,
    activity: BinnedActivity,
    design: Design,
    check: ClockCheck,
    num_fitting: int,
) -> str:
    """What is wrong with the clock of a stimulus that was imaged, or nothing."""
    if check.best_lag is not None or num_fitting > _FEW * check.num_units:
        speed = _warn_of_speed(activity, design, check.stimulus)
        if speed or check.best_lag is None or _is_plausible(check.profile):
            return speed
        return _warn_of_shift(activity, design, check, check.best_lag)
    found = find_other_clock(recording, activity, design, LAGS)
    if found is not None and found.num_responding > 2 * num_fitting:
        return (
            f"{_name_trouble(check)} If the listed times are {found.meaning}, "
            f"{found.num_responding} do: at {found.scale:.6g} x time {found.shift:+.4g} s. "
            "Correct start and end of its table."
        )
    if check.num_responding:
        return ""
    return (
        f"{_name_trouble(check)} No shift up to {LAGS.max():g} s and no other unit or speed of the "
        "clock helps. Check that the table belongs to this recording; if it does, these units "
        "do not tell what was shown."
    )


def _name_trouble(check: ClockCheck) -> str:
    if check.num_responding is None:
        return f"Too few presentations of {check.stimulus} were imaged as a whole."
    if check.num_responding == 0:
        return f"None of {check.num_units} units responds to {check.stimulus}."
    return f"Only {check.num_responding} of {check.num_units} units respond to {check.stimulus}."


def _is_plausible(profile: LagProfile | None) -> bool:
    """Whether the lags of a visual response fit as well as any other."""
    if profile is None:
        return True
    lags = profile.lags[profile.as_good]
    return bool(((lags >= 0) & (lags <= MAX_RESPONSE_LAG)).any())


def _warn_of_shift(activity: BinnedActivity, design: Design, check: ClockCheck, best: float) -> str:
    p_values = design.fit_p_values(activity, best)
    num = "?" if p_values is None else count_responding(p_values, len(LAGS))
    side = "after" if best > 0 else "before"
    return (
        f"The units respond to {check.stimulus} {abs(best):.2g} s {side} its listed onsets, not "
        f"0 to {MAX_RESPONSE_LAG:g} s after them ({num} of {check.num_units} units then, "
        f"{check.num_responding} at the listed times). Its clock seems to be off: add about "
        f"{best - _USUAL_LAG:+.1f} s to start and end, or look for an event that both clocks share."
    )


def _warn_of_speed(activity: BinnedActivity, design: Design, name: str) -> str:
    """What is wrong if the clock runs too fast or too slow."""
    if isinstance(design, Film):
        scale = find_scale_of_film(activity, design)
        if scale is None:
            return ""
        return (
            f"Showings of {name} resemble each other clearly more if they follow each other "
            f"{scale:.4f} times as fast as listed. Its clock seems to run at another speed: check "
            "the rate that its times, or the imaging's, were made of."
        )
    drift = find_drift(activity, design, LAGS) if isinstance(design, Onsets) else None
    if drift is None:
        return ""
    return (
        f"The units respond to {name} {drift[0]:.2g} s after its onset in the first half of the "
        f"presentations and {drift[1]:.2g} s in the second half. Its clock seems to drift: check "
        "the rate that its times, or the imaging's, were made of."
    )
