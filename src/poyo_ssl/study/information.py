"""How much activity says about a stimulus: linear Fisher information, and what labels are worth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve


class Estimate(NamedTuple):
    """A number and how sure it is."""

    value: float
    standard_error: float


def linear_fisher_information(one: np.ndarray, other: np.ndarray, difference: float = 1.0) -> float:
    """Linear Fisher information about a stimulus, from responses to two of its values.

    The squared distance of the mean responses in units of the trial-to-trial noise that both
    share, without the bias that few trials give it: its expectation is that of infinitely many,
    where noise is gaussian, so single estimates may be negative.

    Args:
        one: Responses to one value, (num_trials, num_units).
        other: Responses to the other, (num_other_trials, num_units).
        difference: Between the values; 1 gives the squared sensitivity index d'.

    Returns:
        Information in 1 / (unit of the difference) squared.

    Raises:
        ValueError: If units differ, or trials are too few: both together must be more than the
            units and three.

    References:
        Kanitscheider et al. 2015, Measuring Fisher information accurately in correlated neural
        populations (equation 7, here for unequal numbers of trials).
    """
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise ValueError(
            "Responses must be (num_trials, num_units) of the same units, got shapes "
            f"{one.shape} and {other.shape}."
        )
    num_units = one.shape[1]
    freedom = len(one) + len(other) - 2
    if freedom <= num_units + 1 or min(len(one), len(other)) < 2:
        raise ValueError(
            f"{len(one)} and {len(other)} trials are too few for {num_units} units: together they "
            f"must be more than {num_units + 3}. Take fewer units."
        )
    apart = one.mean(axis=0) - other.mean(axis=0)
    residuals = np.concatenate([one - one.mean(axis=0), other - other.mean(axis=0)])
    noise = residuals.T @ residuals / freedom
    naive = float(apart @ cho_solve(cho_factor(noise), apart))
    shrunk = naive * (freedom - num_units - 1) / freedom
    return (shrunk - num_units * (1 / len(one) + 1 / len(other))) / difference**2


def information_of_neighbours(
    responses: np.ndarray, stimulus: np.ndarray, period: float | None = None
) -> float:
    """Linear Fisher information between values that follow each other, in the mean of all pairs.

    Args:
        responses: (num_trials, num_units).
        stimulus: Value shown, (num_trials,).
        period: Values so far apart are the same, so that the largest has the smallest as its
            neighbour; None for no period.

    Returns:
        In 1 / (unit of the stimulus) squared.
    """
    values = np.unique(stimulus)
    pairs = list(pairwise(values))
    if period is not None:
        pairs.append((values[-1] - period, values[0]))
    found = [
        linear_fisher_information(
            responses[np.isclose(np.mod(stimulus - low, period or np.inf), 0)],
            responses[stimulus == high],
            high - low,
        )
        for low, high in pairs
    ]
    return float(np.mean(found))


def jackknife(values_without: np.ndarray, value: float) -> Estimate:
    """A number that all trials give, from those without one group of trials after the other.

    Args:
        values_without: The number without each group, (num_groups,).
        value: The number of all trials.

    Returns:
        The number itself, and its standard error (Efron & Stein 1981).
    """
    num_groups = len(values_without)
    if num_groups < 2:
        raise ValueError(f"A jackknife needs at least two groups of trials, got {num_groups}.")
    spread = np.square(values_without - values_without.mean()).sum()
    return Estimate(value, float(np.sqrt(spread * (num_groups - 1) / num_groups)))


def equivalent_labels(labels: Sequence[float], scores: Sequence[float], score: float) -> float:
    """How many labels a learning curve needs to reach a score.

    Args:
        labels: Numbers of labels of the curve, ascending.
        scores: What they reach.
        score: What is to be reached.

    Returns:
        Labels, by lines between the points over the logarithm of labels; the ends of the curve
        where the score lies beyond them. A curve that falls counts as level there.
    """
    reached = np.maximum.accumulate(np.asarray(scores, dtype=float))
    rising = np.concatenate([[True], np.diff(reached) > 0])
    steps = np.log(np.asarray(labels, dtype=float))[rising]
    return float(np.exp(np.interp(score, reached[rising], steps)))
