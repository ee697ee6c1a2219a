"""Whether the times of imaging samples are those of a microscope with one steady rate."""

from __future__ import annotations

import numpy as np

LONGEST_PERIOD = 5.0
"""Seconds; no one images cells as slowly, but times in ms look as if."""
GAP = 1.5
"""Sampling periods; a longer interval is a gap in the imaging."""
_LONGEST_ODD = 3.0  # periods; a longer interval is a real gap, however many there are
_SHORTEST_ODD = 0.65  # periods; jitter moves a sample by less
_MOST_ODD = 0.2  # share of intervals that may be odd: single frames that were lost
_RUN = 20  # intervals in a row that make a rate
_CHANGE = 1.17  # times the rate of most runs of samples


def problem_of_times(times: np.ndarray) -> str | None:
    """What is wrong with the times of imaging samples and what to do; None if nothing is.

    They must be finite, increase, and have one rate from beginning to end, but for gaps: windows
    are counted in samples, and would last less where the rate is higher. Jitter of a third of a
    period, and the loss of every tenth frame, do no harm.

    Args:
        times: Seconds, shape (num_timesteps,), of at least two samples.
    """
    with np.errstate(invalid="ignore"):  # of infinite ones
        intervals = np.diff(times)
    bad = np.flatnonzero(~((intervals > 0) & (intervals < np.inf)))
    if len(bad):
        first = bad[0]
        return (
            f"timestamps must be finite and strictly increasing, but timestep {first} is at "
            f"{times[first]:.6g} s and the next at {times[first + 1]:.6g} s. Correct the times, "
            "or give a sampling rate instead."
        )
    period = float(np.quantile(intervals, 0.5, method="lower"))  # one there is, between two
    if period > LONGEST_PERIOD:
        return (
            f"its samples are {period:.6g} s apart in the median, too far for imaging. Are the "
            "times in ms, or counts of frames? Divide them by 1000, or by the imaging rate."
        )
    intervals /= period
    return _problem_of_rate(intervals, times, period)


def _problem_of_rate(periods: np.ndarray, times: np.ndarray, period: float) -> str | None:
    """What is wrong where the intervals, in sampling periods, are not all alike."""
    change = _find_run((periods < _SHORTEST_ODD) | (periods > GAP)) or _find_drift(periods)
    if change is not None:
        other = float(np.mean(periods[change])) * period
        return (
            f"its imaging rate changes at timestep {change.start} ({times[change.start]:.6g} s): "
            f"samples are {1000 * other:.4g} ms apart there, and {1000 * period:.4g} ms in the "
            "median. A recording has one rate: interpolate the traces onto steady times, or make "
            "each part a recording of its own."
        )
    is_odd = (periods < _SHORTEST_ODD) | ((periods > GAP) & (periods < _LONGEST_ODD))
    if len(periods) >= 2 * _RUN and is_odd.mean() > _MOST_ODD:  # fewer may be gaps
        usual, other = (1000 * period * np.median(periods[odd]) for odd in (~is_odd, is_odd))
        return (
            f"its samples have no steady rate: {is_odd.sum()} of {len(is_odd)} intervals last "
            f"about {other:.3g} ms, the others about {usual:.3g} ms. Interpolate the traces onto "
            "steady times; or, if the frames were taken steadily, give sampling_rate instead of "
            "timestamps."
        )
    return None


def _find_run(is_odd: np.ndarray) -> slice | None:
    """The first run of odd intervals that is too long for lost frames."""
    edges = np.flatnonzero(np.diff(is_odd, prepend=False, append=False)).reshape(-1, 2)
    long = edges[edges[:, 1] - edges[:, 0] >= _RUN]
    return slice(int(long[0, 0]), int(long[0, 1])) if len(long) else None


def _find_drift(periods: np.ndarray) -> slice | None:
    """The first run of samples without a gap whose mean interval is not that of most runs."""
    steady = np.flatnonzero(periods <= GAP)
    if len(steady) < 2 * _RUN:
        return None
    lasted = np.cumsum(periods[steady])
    mean = (lasted[_RUN:] - lasted[:-_RUN]) / _RUN
    usual = np.median(mean)
    found = np.flatnonzero(~((mean > usual / _CHANGE) & (mean < usual * _CHANGE)))
    if not len(found):
        return None
    first = steady[found[0]]
    return slice(int(first), int(first) + _RUN)
