"""How a stimulus was shown, and how its listed times are held beside the activity.

- :class:`Trials`: conditions that came back, in any order or with pauses;
- :class:`Onsets`: presentations with a pause before each, none of which came back;
- :class:`Film`: one series without a pause that was shown several times in the same order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from poyo_ssl.clock.activity import BinnedActivity
from poyo_ssl.clock.statistics import correlate_showings, paired_p_values, variance_explained

MIN_PRESENTATIONS = 8
"""Presentations, wholly imaged, below which no test over them is worth its name."""
MIN_GAP = 0.3
"""Seconds of pause between presentations that are enough for a baseline before an onset."""
_MAX_BASELINE = 1.0
"""Seconds before an onset that are its baseline, at most."""
_MIN_IMAGED = 0.5
"""Part of the presentations that must be imaged at a lag for it to be compared with others."""
_CLEARLY_BETTER = 4.0
"""Standard errors by which a lag must fit better than another one to be told from it."""
_MIN_OUTSIDE = 5.0
"""Seconds imaged around a film that show when it begins or stops."""
_PHASE = 0.25
"""Seconds that the parts of a film last which showings are compared in."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LagProfile:
    """How well the activity fits a stimulus when it is read some seconds after the listed times."""

    lags: np.ndarray
    """Seconds, shape (num_lags,), increasing."""
    fit: np.ndarray
    """Shape (num_lags,); NaN where too little was imaged."""
    as_good: np.ndarray
    """Which lags cannot be told from the best one, shape (num_lags,)."""

    @property
    def best_lag(self) -> float:
        """Seconds after the listed times at which the activity fits best."""
        return float(self.lags[np.nanargmax(self.fit)])

    def best_between(self, low: float, high: float) -> float:
        """The best lag (s) of a range, or its lowest where none is known."""
        is_inside = (self.lags >= low) & (self.lags <= high)
        fit = np.where(is_inside & np.isfinite(self.fit), self.fit, -np.inf)
        return float(self.lags[np.argmax(fit)]) if np.isfinite(fit).any() else low


class Design(ABC):
    """A way of showing a stimulus. All times are in seconds."""

    fit_name: str
    """What the fit of a lag is, in words."""

    @abstractmethod
    def moved(self, scale: float, shift: float) -> Design:
        """The same presentations at ``scale * time + shift``; a negative scale reverses them."""

    @abstractmethod
    def p_values(self, activity: BinnedActivity, lag: float) -> np.ndarray | None:
        """Tests whether each unit responds.

        Args:
            activity: Of one recording.
            lag: Seconds after the listed times at which responses are read.

        Returns:
            Shape (num_units,); None where too little was imaged.
        """

    def fit_p_values(self, activity: BinnedActivity, lag: float) -> np.ndarray | None:
        """Tests whether each unit fits at a lag, by what :meth:`profile` compares lags by."""
        return self.p_values(activity, lag)

    @abstractmethod
    def profile(self, activity: BinnedActivity, lags: np.ndarray) -> LagProfile | None:
        """The fit at every lag; None where no lag can be told from another one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Onsets(Design):
    """Presentations with a pause before each, whatever they show."""

    fit_name = "rise of the activity at onsets (effect size)"

    starts: np.ndarray
    """Shape (num_presentations,)."""
    duration: float
    """Of a presentation."""
    gap: float
    """From the end of a presentation to the next onset, in the median."""
    max_lag: float
    """Beyond it a neighbour is nearer, so that no lag is looked for."""

    def moved(self, scale: float, shift: float) -> Onsets:
        """See :meth:`Design.moved`."""
        begin = self.starts if scale > 0 else self.starts + self.duration
        size = abs(scale)
        return replace(
            self,
            starts=scale * begin + shift,
            duration=size * self.duration,
            gap=size * self.gap,
            max_lag=size * self.max_lag,
        )

    def halves(self) -> tuple[Onsets, Onsets]:
        """The earlier and the later presentations."""
        half = len(self.starts) // 2
        return self.take(slice(None, half)), self.take(slice(half, None))

    def take(self, some: slice) -> Onsets:
        """A part of the presentations."""
        return replace(self, starts=self.starts[some])

    def p_values(self, activity: BinnedActivity, lag: float) -> np.ndarray | None:
        """By a paired t test of the activity before and after onsets."""
        change = self._changes(activity)(self.starts, lag)
        if len(change) < MIN_PRESENTATIONS:
            return None
        return paired_p_values(change)

    def profile(self, activity: BinnedActivity, lags: np.ndarray) -> LagProfile | None:
        """By the mean rise at the onset, in standard deviations over presentations."""
        changes = self._changes(activity)

        def rise(lag: float) -> np.ndarray | None:
            change = changes(self.starts + lag, 0.0)
            if len(change) < max(MIN_PRESENTATIONS, _MIN_IMAGED * len(self.starts)):
                return None
            spread = change.std(axis=0)
            return change.mean(axis=0) / np.where(spread > 0, spread, np.inf)

        return _profile_over_units(rise, lags[np.abs(lags) <= self.max_lag])

    def _changes(self, activity: BinnedActivity) -> Callable[[np.ndarray, float], np.ndarray]:
        """Activity after onsets (read ``lag`` later) less that before, (num_imaged, num_units)."""
        baseline = min(self.gap, _MAX_BASELINE)
        before, after = activity.over(baseline), activity.over(self.duration)

        def change(starts: np.ndarray, lag: float) -> np.ndarray:
            old, is_old = before.at(starts - baseline)
            new, is_new = after.at(starts + lag)
            both = is_old & is_new
            return after.means[new[both]] - before.means[old[both]]

        return change


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials(Onsets):
    """Conditions that came back."""

    fit_name = "variance explained by the condition (mean of units)"

    condition: np.ndarray
    """Index of what was shown, shape (num_presentations,)."""

    def take(self, some: slice) -> Trials:
        """A part of the presentations."""
        return replace(self, starts=self.starts[some], condition=self.condition[some])

    def p_values(self, activity: BinnedActivity, lag: float) -> np.ndarray | None:
        """By the condition (Kruskal-Wallis) or the onset (paired t); the smaller one, doubled."""
        by_condition = self.fit_p_values(activity, lag)
        by_onset = super().p_values(activity, lag) if self.gap >= MIN_GAP else None
        if by_condition is None or by_onset is None:
            return by_condition
        return np.minimum(2 * np.minimum(by_condition, by_onset), 1.0)

    def fit_p_values(self, activity: BinnedActivity, lag: float) -> np.ndarray | None:
        """By the condition alone: onsets at equal distances look alike a period off."""
        windows = activity.over(self.duration)
        first, is_imaged = windows.at(self.starts + lag)
        if is_imaged.sum() < MIN_PRESENTATIONS:
            return None
        ranks = stats.rankdata(windows.means[first[is_imaged]], axis=0)
        return variance_explained(ranks, self.condition[is_imaged])[1]

    def profile(self, activity: BinnedActivity, lags: np.ndarray) -> LagProfile | None:
        """By the variance that the condition explains."""
        windows = activity.over(self.duration)

        def explained(lag: float) -> np.ndarray | None:
            first, is_imaged = windows.at(self.starts + lag)
            if is_imaged.sum() < max(MIN_PRESENTATIONS, _MIN_IMAGED * len(is_imaged)):
                return None
            return variance_explained(windows.means[first[is_imaged]], self.condition[is_imaged])[0]

        return _profile_over_units(explained, lags[np.abs(lags) <= self.max_lag])


@dataclass(frozen=True, kw_only=True, eq=False)
class Film(Design):
    """One series without a pause, such as a movie, shown several times in the same order."""

    fit_name = "where the film begins and stops to be followed (correlation)"

    starts: np.ndarray
    """Of every showing, shape (num_showings,)."""
    duration: float
    """Of a showing."""

    def moved(self, scale: float, shift: float) -> Film:
        """See :meth:`Design.moved`."""
        begin = self.starts if scale > 0 else (self.starts + self.duration)[::-1]
        return replace(self, starts=scale * begin + shift, duration=abs(scale) * self.duration)

    def p_values(self, activity: BinnedActivity, lag: float) -> np.ndarray | None:
        """By the correlation between showings, beside that of showings turned against each other.

        Under random circular shifts of every showing the mean correlation of all pairs has mean 0
        and a variance that follows from the power spectra, whatever the autocorrelation.
        """
        correlation, error = self.reliability(activity, lag)
        if correlation is None or error is None:
            return None
        return stats.norm.sf(correlation / np.where(error > 0, error, np.inf))

    def reliability(
        self, activity: BinnedActivity, lag: float
    ) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Mean correlation between showings of each unit, and its standard error by chance.

        Both have shape (num_units,); None where fewer than two showings are imaged as a whole.
        """
        phases = self._phases(activity, 0.0)
        if phases.num_parts < MIN_PRESENTATIONS:
            return None, None
        values, is_imaged = phases.read(self.starts + lag)
        showings = values[is_imaged.all(axis=1)]
        if len(showings) < 2:
            return None, None
        return correlate_showings(showings)

    def profile(self, activity: BinnedActivity, lags: np.ndarray) -> LagProfile | None:
        """By the edges: showings resemble each other from the first frame to the last one.

        Inside a film that is shown without a pause all lags look alike. So the likeness of each
        moment to the other showings at the same phase is held beside whether the film runs then,
        if all times are moved by the lag.
        """
        reach = float(np.abs(lags).max())
        phases = self._phases(activity, reach)
        values, is_imaged = phases.read(self.starts)
        ends = self.starts + self.duration
        pause = self.starts[1:] - ends[:-1]
        is_free = pause >= reach  # a shorter pause comes again like the film, as a part of it
        before = np.where(np.append(True, is_free), reach, 0.0)
        after = np.where(np.append(is_free, True), reach, 0.0)
        offsets = phases.offsets
        is_own = (offsets >= -before[:, None] - 1e-6) & (
            offsets < self.duration + after[:, None] - 1e-6
        )
        likeness = _likeness(values, is_imaged, self._weights(activity))
        is_used = is_own & np.isfinite(likeness)
        times = (self.starts[:, None] + offsets)[is_used] + phases.part / 2
        runs = np.stack(
            [self.starts[np.append(True, is_free)], ends[np.append(is_free, True)]], axis=1
        )
        is_outside = ~_is_running(times, runs)
        if is_outside.sum() * phases.part < _MIN_OUTSIDE:
            return None
        known = likeness[is_used]
        fit = np.array([_fit_of_edges(_is_running(times, runs + lag), known) for lag in lags])
        if not np.isfinite(fit).any():
            return None
        unexplained = 1 - np.square(np.clip(fit, 0, 1))
        is_running = _is_running(times, runs + lags[np.nanargmax(fit)])
        levels = np.where(is_running, known[is_running].mean(), known[~is_running].mean())
        size = _effective_size(known - levels)
        loss = size / 2 * np.log(unexplained / np.nanmin(unexplained))
        return LagProfile(lags=lags, fit=fit, as_good=loss < _CLEARLY_BETTER**2 / 2)

    def _weights(self, activity: BinnedActivity) -> np.ndarray:
        """How reliable each unit is, none below 0, shape (num_units,)."""
        correlation, _ = self.reliability(activity, 0.0)
        if correlation is None:
            return np.ones(activity.values.shape[1])
        weights: np.ndarray = np.maximum(correlation, 0.0)
        return weights

    def _phases(self, activity: BinnedActivity, reach: float) -> _Phases:
        return _Phases(activity, self.duration, reach)


class _Phases:
    """The parts of a film, and of the time around it, relative to when a showing begins."""

    def __init__(self, activity: BinnedActivity, duration: float, reach: float) -> None:
        self._windows = activity.over(_PHASE)
        self.part = self._windows.num_bins * activity.bin_length
        num_around = round(reach / self.part)
        self.num_parts = int(duration / self.part + 1e-6)
        self.offsets = np.arange(-num_around, self.num_parts + num_around) * self.part

    def read(self, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Activity of all showings, (num_showings, num_offsets, num_units), and what was imaged."""
        times = starts[:, None] + self.offsets
        first, is_imaged = self._windows.at(times.ravel())
        first, is_imaged = first.reshape(times.shape), is_imaged.reshape(times.shape)
        return np.where(is_imaged[..., None], self._windows.means[first], 0.0), is_imaged


def _profile_over_units(
    fit_at: Callable[[float], np.ndarray | None], lags: np.ndarray
) -> LagProfile | None:
    """Means over units; lags are told apart by paired differences between them."""
    known = [fit_at(lag) for lag in lags]
    units = next((fit for fit in known if fit is not None), None)
    if units is None:
        return None
    empty = np.full(len(units), np.nan)
    fits = np.stack([empty if fit is None else fit for fit in known])
    mean = fits.mean(axis=1)
    loss = fits[np.nanargmax(mean)] - fits
    error = loss.std(axis=1) / np.sqrt(max(loss.shape[1] - 1, 1))
    as_good = np.isfinite(mean) & (loss.mean(axis=1) <= _CLEARLY_BETTER * error)
    return LagProfile(lags=lags, fit=mean, as_good=as_good)


def _likeness(values: np.ndarray, is_imaged: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Correlation over units of each moment with the sum of the other showings at its phase.

    Returns:
        Shape (num_showings, num_offsets); NaN where there is no other showing.
    """
    weighted = values * np.sqrt(weights)
    others = weighted.sum(axis=0) - weighted
    size = np.sqrt(np.square(weighted).sum(axis=2) * np.square(others).sum(axis=2))
    is_known = is_imaged & (is_imaged.sum(axis=0) - is_imaged > 0) & (size > 0)
    product = (weighted * others).sum(axis=2)
    return np.where(is_known, product / np.where(size > 0, size, 1.0), np.nan)


def _is_running(times: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """Whether times lie in one of the runs, shape (num_runs, 2)."""
    run = np.searchsorted(runs[:, 0], times, side="right") - 1
    is_running: np.ndarray = (run >= 0) & (times < runs[np.maximum(run, 0), 1])
    return is_running


def _fit_of_edges(is_running: np.ndarray, likeness: np.ndarray) -> float:
    """Correlation of the likeness with whether the film runs; NaN with under 1 s of either."""
    num_running = is_running.sum()
    if min(num_running, len(likeness) - num_running) * _PHASE < 1 or np.ptp(likeness) == 0:
        return np.nan
    return float(np.corrcoef(is_running, likeness)[0, 1])


def _effective_size(residual: np.ndarray) -> float:
    """Independent values that are worth as much as residuals that resemble the one before."""
    size = float(np.square(residual).sum())
    repeated = float(np.clip((residual[1:] * residual[:-1]).sum() / size, 0, 0.99)) if size else 0.0
    return len(residual) * (1 - repeated) / (1 + repeated)
