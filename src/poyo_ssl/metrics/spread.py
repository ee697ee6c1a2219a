"""How far a mean over seeds, recordings and trials would move with others of them.

Scores of one recording are a table, (num_seeds, num_trials): every seed answers the same trials.
The two are crossed like the readers and the cases of a study in radiology, so the variance of the
mean is found as there (Obuchowski and Rockette 1995; Hillis 2007): what seeds add, and what trials
add beyond the noise of single answers, which is in both. From three recordings on, recordings take
the place of trials. Fewer than three seeds, or recordings, say too little of others: the spread is
then about those alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special

from poyo_ssl.metrics.blocks import edges_of_blocks

MIN_TO_GENERALISE = 3
"""Fewer seeds, or recordings, have no spread worth the name: t of one degree of freedom is 12.7."""
_MIN_BLOCKS = 8
"""Blocks of neighbouring windows in a recording at least, where it has as many windows."""
_SMALLEST_P_VALUE = 1e-12


class Spread(NamedTuple):
    """Squared standard error of a mean: what cases (trials or recordings) and seeds add to it."""

    of_cases: float
    freedom_of_cases: float
    """Degrees of freedom, infinite where the variance is known."""
    of_seeds: float = 0.0
    freedom_of_seeds: float = math.inf

    @property
    def variance(self) -> float:
        """Of both."""
        return self.of_cases + self.of_seeds

    def quantile(self, confidence: float) -> float:
        """Standard errors that an interval reaches to either side.

        Seeds and cases each have a t of their own; the mean of the two counts by what each adds to
        the variance (Cochran and Cox 1957), so that a few seeds which happen to agree do not narrow
        the interval as much as a common t would.
        """
        level = 0.5 + 0.5 * confidence
        of_cases = _t_quantile(self.freedom_of_cases, level)
        if self.of_seeds == 0:
            return of_cases
        of_seeds = _t_quantile(self.freedom_of_seeds, level)
        return (self.of_cases * of_cases + self.of_seeds * of_seeds) / self.variance

    def p_value(self, mean: float) -> float:
        """What confidence leaves to 1 where the interval just reaches 0; NaN without a spread."""
        if not self.variance > 0:
            return math.nan
        distance = abs(mean) / math.sqrt(self.variance)
        if self.of_seeds == 0:
            return float(2 * scipy.special.stdtr(self.freedom_of_cases, -distance))
        if self.quantile(1 - _SMALLEST_P_VALUE) <= distance:
            return _SMALLEST_P_VALUE
        return float(
            scipy.optimize.brentq(
                lambda p: self.quantile(1 - p) - distance, _SMALLEST_P_VALUE, 1, rtol=1e-9
            )
        )


def _t_quantile(freedom: float, level: float) -> float:
    return float(scipy.special.stdtrit(freedom, level))


def spread_of_seeds(values: np.ndarray) -> Spread:
    """Of a mean over seeds alone, (num_seeds,)."""
    return Spread(float(np.var(values, ddof=1)) / len(values), len(values) - 1)


def spread_of_mean(
    recordings: Sequence[np.ndarray],
    cases: Sequence[np.ndarray],
    *,
    num_imagined: int | None = None,
) -> Spread:
    """Of the mean over recordings of the mean over seeds and trials.

    Args:
        recordings: Scores, (num_seeds, num_trials) each.
        cases: What is independent within a recording, (num_seeds, num_cases) each: trials, or
            blocks of them.
        num_imagined: Cases of right and wrong trials that were only imagined: they count for the
            variance, which has no degrees of freedom to lose, and not for the number. None for
            cases of any value.
    """
    num_seeds, num_recordings = len(recordings[0]), len(recordings)
    spread, noise = _over_trials(cases, num_imagined), _noise(recordings)
    means = np.stack([scores.mean(axis=1) for scores in recordings], axis=1)
    if num_recordings >= MIN_TO_GENERALISE:
        between = float(means.mean(axis=0).var(ddof=1)) / num_recordings
        if not between <= spread.variance:
            spread, noise = Spread(between, num_recordings - 1), _noise([means])
    if num_seeds < MIN_TO_GENERALISE:
        return spread
    of_seeds = float(means.mean(axis=1).var(ddof=1)) / num_seeds
    # seeds that happen to agree do not make a mean surer than its single answers let it be
    of_cases = max(spread.of_cases - noise, noise - of_seeds, 0.0)
    return Spread(of_cases, spread.freedom_of_cases, of_seeds, num_seeds - 1)


def _over_trials(cases: Sequence[np.ndarray], num_imagined: int | None) -> Spread:
    """Over trials of the same recordings and seeds; NaN where one has fewer than two cases."""
    per_case = [table.mean(axis=0) for table in cases]
    freedom: float = sum(len(values) - 1 for values in per_case)
    if any(len(values) < 2 for values in per_case):
        return Spread(math.nan, math.nan)
    if num_imagined is None:
        variance = sum(values.var(ddof=1) / len(values) for values in per_case)
    else:
        variance = sum(values.var() / (len(values) - num_imagined) for values in per_case)
        freedom = math.inf
    return Spread(float(variance) / len(cases) ** 2, freedom)


def _noise(recordings: Sequence[np.ndarray]) -> float:
    """What single answers add, beyond seeds and trials, to the squared error; 0 for one seed."""
    total = 0.0
    for scores in recordings:
        num_seeds, num_trials = scores.shape
        if num_seeds > 1 and num_trials > 1:
            rest = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
            total += float(np.square(rest).mean()) / ((num_seeds - 1) * (num_trials - 1))
    return total / len(recordings) ** 2


def with_trials(scores: np.ndarray, *values: float) -> np.ndarray:
    """The trials of a recording, (num_seeds, num_trials), and others, of one score for all."""
    imagined = np.broadcast_to(values, (len(scores), len(values)))
    return np.concatenate([scores, imagined], axis=1)


def means_of_blocks(scores: np.ndarray) -> np.ndarray:
    """Means over blocks of neighbouring windows, (num_seeds, num_blocks)."""
    edges = edges_of_blocks(scores.mean(axis=0), _MIN_BLOCKS)
    return np.add.reduceat(scores, edges[:-1], axis=1) / np.diff(edges)
