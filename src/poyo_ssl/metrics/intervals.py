"""How sure one can be of a mean, and of a difference of two.

No interval leaves the values that are possible, and none speaks of other seeds, or of other
recordings, where there are fewer than three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from poyo_ssl.metrics.scales import Scale
from poyo_ssl.metrics.spread import (
    MIN_TO_GENERALISE,
    Spread,
    means_of_blocks,
    spread_of_mean,
    spread_of_seeds,
    with_trials,
)

_ANY_VALUE = Scale()


class Interval(NamedTuple):
    """A mean and its confidence interval; the bounds are NaN where they cannot be known."""

    mean: float
    low: float
    high: float


class Gain(NamedTuple):
    """A mean difference, its interval, and p of the two-sided test that there is none."""

    mean: float
    low: float
    high: float
    p_value: float


NO_GAIN = Gain(math.nan, math.nan, math.nan, math.nan)
"""Of what has nothing to be compared with."""


def proportion_interval(num_right: float, num_trials: float, confidence: float = 0.95) -> Interval:
    """Share of trials that were right, with Wilson's score interval.

    Args:
        num_right: Trials that were right.
        num_trials: Independent trials.
        confidence: Coverage of the interval.

    Raises:
        ValueError: If there is no trial, or more are right than there are.
    """
    if not 0 <= num_right <= num_trials or num_trials <= 0:
        raise ValueError(
            f"num_right must lie between 0 and num_trials, which must be positive, got {num_right} "
            f"of {num_trials}."
        )
    _check_confidence(confidence)
    share = num_right / num_trials
    return _wilson(share, num_trials, Spread(share * (1 - share), math.inf).quantile(confidence))


def seed_interval(
    values: np.ndarray, scale: Scale = _ANY_VALUE, confidence: float = 0.95
) -> Interval:
    """Mean over seeds and its Student t interval; bounds are NaN below three seeds.

    Args:
        values: One score per seed, shape (num_seeds,).
        scale: Of the scores; the interval is cut where it ends.
        confidence: Coverage of the interval.
    """
    return Interval(*_over_seeds(values, scale, confidence)[:3])


def paired_gain(
    arm: np.ndarray, baseline: np.ndarray, scale: Scale = _ANY_VALUE, confidence: float = 0.95
) -> Gain:
    """How much an arm gains over a baseline run with the same seeds, by seeds alone.

    Args:
        arm: One score per seed, shape (num_seeds,).
        baseline: Scores of the same seeds in the same order.
        scale: Of the scores.
        confidence: Coverage of the interval.

    Returns:
        The mean difference with Student's t interval and the p value of the paired t-test; these
        are NaN below three seeds, and p for differences that are all the same.
    """
    if arm.shape != baseline.shape:
        raise ValueError(
            "arm and baseline must hold one score for each of the same seeds, got shapes "
            f"{arm.shape} and {baseline.shape}."
        )
    return _over_seeds(arm - baseline, scale.of_differences, confidence)


def mean_interval(
    recordings: Sequence[np.ndarray], scale: Scale, confidence: float = 0.95
) -> Interval:
    """Mean over recordings of the mean over seeds and trials, and its interval over all of them.

    Of right and wrong trials it is Wilson's interval of as many independent trials as would be as
    sure (Korn and Graubard 1998), so that it has a width where all are right. Of other scores it is
    Student's t or, where every block of windows has the best or the worst score there is, Wilson's
    of the blocks. All rest on :func:`poyo_ssl.metrics.spread.spread_of_mean`.

    Args:
        recordings: Scores of each recording, (num_seeds, num_trials) each, trials in order of time.
        scale: Of the scores.
        confidence: Coverage of the interval.

    Returns:
        The mean and its bounds. These are about other trials; from three recordings on about other
        recordings, too, and from three seeds on about networks of other seeds. NaN where there are
        fewer than two blocks of windows to tell the spread from.
    """
    _check_recordings(recordings, confidence)
    mean = float(np.mean([scores.mean() for scores in recordings]))
    if not scale.has_trials:
        blocks = [means_of_blocks(scores) for scores in recordings]
        spread = spread_of_mean(recordings, blocks)
        if spread.variance == 0 and mean in (scale.lowest, scale.highest):
            num_blocks = sum(means.shape[1] for means in blocks)
            return _at_the_end(mean, num_blocks, scale, confidence)
        return _t_interval(mean, spread, scale, confidence)
    # both the variance and that of independent trials are taken as if one more trial had been right
    # and one wrong, so that their ratio is known where all trials are right
    smoothed = [with_trials(scores, 0.0, 1.0) for scores in recordings]
    spread = spread_of_mean(recordings, smoothed, num_imagined=2)
    share = float(np.mean([scores.mean() for scores in smoothed]))
    num_effective = share * (1 - share) / spread.variance
    return _wilson(mean, num_effective, spread.quantile(confidence))


def gain_interval(
    arm: Sequence[np.ndarray],
    baseline: Sequence[np.ndarray],
    scale: Scale,
    confidence: float = 0.95,
) -> Gain:
    """How much an arm gains over a baseline that answered the same trials with the same seeds.

    Of right and wrong trials the spread is taken as if the arm alone had got one more trial right,
    and the baseline alone another (after Bonett and Price 2012), so that the interval has a width
    where both got the same trials right.

    Args:
        arm: Scores of each recording, (num_seeds, num_trials) each, trials in order of time.
        baseline: Those of the other arm, of the same shapes.
        scale: Of the scores.
        confidence: Coverage of the interval.

    Returns:
        The mean difference, its bounds as those of :func:`mean_interval`, and p of the same test.

    Raises:
        ValueError: If the two did not answer the same trials with as many seeds.
    """
    shapes = [scores.shape for scores in arm], [scores.shape for scores in baseline]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "arm and baseline must have answered the same trials with the same seeds, got shapes "
            f"{shapes[0]} and {shapes[1]}."
        )
    differences = [one - other for one, other in zip(arm, baseline, strict=True)]
    _check_recordings(differences, confidence)
    cases = (
        [with_trials(scores, -1.0, 1.0) for scores in differences]
        if scale.has_trials
        else [means_of_blocks(scores) for scores in differences]
    )
    spread = spread_of_mean(differences, cases)
    mean = float(np.mean([scores.mean() for scores in differences]))
    interval = _t_interval(mean, spread, scale.of_differences, confidence)
    return Gain(*interval, p_value=spread.p_value(mean))


def _over_seeds(values: np.ndarray, scale: Scale, confidence: float) -> Gain:
    _check_values(values, confidence)
    mean = float(np.mean(values))
    if len(values) < MIN_TO_GENERALISE:
        return Gain(mean, math.nan, math.nan, math.nan)
    spread = spread_of_seeds(values)
    return Gain(*_t_interval(mean, spread, scale, confidence), p_value=spread.p_value(mean))


def _wilson(share: float, num_trials: float, quantile: float) -> Interval:
    weight = quantile**2 / num_trials
    centre = (share + weight / 2) / (1 + weight)
    variance = share * (1 - share) / num_trials + weight / (4 * num_trials)
    half = quantile * math.sqrt(variance) / (1 + weight)
    # by rounding alone a bound could pass the share itself where all or none are right
    return Interval(share, max(min(centre - half, share), 0.0), min(max(centre + half, share), 1.0))


def _at_the_end(mean: float, num_blocks: int, scale: Scale, confidence: float) -> Interval:
    """Where every block has the best or the worst score: Wilson's, as if each were a trial."""
    if not math.isfinite(scale.highest - scale.lowest):
        return Interval(mean, mean, mean)
    width = scale.highest - scale.lowest
    num_right = num_blocks if mean == scale.highest else 0
    _, low, high = proportion_interval(num_right, num_blocks, confidence)
    return Interval(mean, scale.lowest + width * low, scale.lowest + width * high)


def _t_interval(mean: float, spread: Spread, scale: Scale, confidence: float) -> Interval:
    if spread.variance == 0:
        return Interval(mean, mean, mean)
    half = spread.quantile(confidence) * math.sqrt(spread.variance)
    return Interval(mean, scale.clip(mean - half), scale.clip(mean + half))


def _check_recordings(recordings: Sequence[np.ndarray], confidence: float) -> None:
    shapes = [scores.shape for scores in recordings]
    if (
        not shapes
        or any(len(shape) != 2 or 0 in shape for shape in shapes)
        or len({shape[0] for shape in shapes}) > 1
    ):
        raise ValueError(
            "Scores must be one non-empty array (num_seeds, num_trials) for each recording, of the "
            f"same seeds, got shapes {shapes}."
        )
    _check_values(np.concatenate([scores.ravel() for scores in recordings]), confidence)


def _check_values(values: np.ndarray, confidence: float) -> None:
    if values.ndim != 1 or values.size == 0:
        raise ValueError(
            f"Scores must be a non-empty array of shape (num_scores,), got shape {values.shape}."
        )
    if not np.all(np.isfinite(values)):
        raise ValueError(
            f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} scores are NaN or "
            "infinite; find out which runs failed before averaging."
        )
    _check_confidence(confidence)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
