"""Whether a decoder knows anything: answers held against permuted labels."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from poyo_ssl.metrics.blocks import reach_of_likeness

NUM_PERMUTATIONS = 1999
"""Drawn where not all are tried: the smallest p is then 0.0005."""
_MIN_LENGTHS = 4
"""Times that labels must forget themselves within a recording, or it is too short to tell."""

Agreement = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""How well answers fit targets, elementwise: the more, the better."""


def are_equal(answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """1 where a label is right."""
    return answers == targets


def minus_distance(answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """How near an answer lies, such as a movie frame."""
    return -np.abs(answers - targets)


def minus_square_error(answers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """What orders answers of the same targets as their R² does."""
    return -np.square(answers - targets)


def permutation_p_value(
    answers: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    agreement: Agreement = are_equal,
    *,
    seed: int = 0,
) -> float:
    """How often labels in another order fit the answers at least as well.

    Within every recording the labels are permuted if their order is random. Where they come in runs
    or change slowly, answers that drift would beat permuted labels too often by luck, so the labels
    are shifted against the answers instead, by any lag and around the end. All orders are tried
    where they are few, with the true one among them; else ``NUM_PERMUTATIONS`` are drawn.

    A recording in which labels resemble their neighbours for more than an eighth of it says too
    little and is left out.

    Args:
        answers: Of each recording, shape (num_seeds, num_trials), trials in order of time.
        targets: What was right, shape (num_trials,) for each recording.
        agreement: How well answers fit; averaged over trials, seeds and recordings.
        seed: Of the drawing.

    Returns:
        One-sided p value; valid however few the trials, but then it cannot be small. NaN where all
        recordings are too short.
    """
    told = [
        (given, target, found)
        for given, target in zip(answers, targets, strict=True)
        if (found := _orders_of(target)) is not None
    ]
    if not told:
        return math.nan
    orders = [each for _, _, each in told]
    is_exact = math.prod(each.count for each in orders) <= NUM_PERMUTATIONS
    positions = _every_order(orders) if is_exact else _some_orders(orders, seed)
    total = np.zeros(len(positions[0]))
    for (given, target, _), position in zip(told, positions, strict=True):
        # (num_tried, num_trials), the true order first; half the bytes are twice as fast
        moved = target.astype(np.float32)[position]
        for of_seed in given.astype(np.float32):
            total += agreement(of_seed, moved).mean(axis=1) / len(given)
    tolerance = 1e-9 * max(1.0, abs(total[0]))
    return float(np.mean(total >= total[0] - tolerance))


@dataclass(frozen=True)
class _Orders(ABC):
    """Orders that the labels of a recording might have had as well."""

    num_trials: int

    @property
    @abstractmethod
    def count(self) -> int:
        """How many there are."""

    @abstractmethod
    def every(self) -> np.ndarray:
        """Which trial comes when, the true order first, (count, num_trials)."""

    @abstractmethod
    def some(self, rng: np.random.Generator) -> np.ndarray:
        """The true order and ``NUM_PERMUTATIONS`` random ones, int32."""


class _Permutations(_Orders):
    """Of labels whose order is random."""

    @property
    def count(self) -> int:
        return math.factorial(self.num_trials)

    def every(self) -> np.ndarray:
        return np.array(list(itertools.permutations(range(self.num_trials))))

    def some(self, rng: np.random.Generator) -> np.ndarray:
        trials = np.arange(self.num_trials, dtype=np.int32)
        orders = np.tile(trials, (NUM_PERMUTATIONS + 1, 1))
        rng.permuted(orders[1:], axis=1, out=orders[1:])
        return orders


class _Shifts(_Orders):
    """Of labels that resemble their neighbours."""

    @property
    def count(self) -> int:
        return self.num_trials

    def every(self) -> np.ndarray:
        return self._by(np.arange(self.num_trials))

    def some(self, rng: np.random.Generator) -> np.ndarray:
        return self._by(np.append(0, rng.integers(self.num_trials, size=NUM_PERMUTATIONS)))

    def _by(self, lags: np.ndarray) -> np.ndarray:
        trials = np.arange(self.num_trials)
        return ((trials + lags[:, None]) % self.num_trials).astype(np.int32)


def _orders_of(target: np.ndarray) -> _Orders | None:
    """None where a recording is too short to tell."""
    reach = reach_of_likeness(target)
    if reach == 1 or np.all(target == target[0]):
        return _Permutations(len(target))
    return _Shifts(len(target)) if 2 * reach * _MIN_LENGTHS <= len(target) else None


def _every_order(orders: Sequence[_Orders]) -> list[np.ndarray]:
    """For each recording its trials in every order, with every one of the others."""
    each = [of_recording.every() for of_recording in orders]
    grid = np.indices([len(positions) for positions in each]).reshape(len(each), -1)
    return [positions[which] for positions, which in zip(each, grid, strict=True)]


def _some_orders(orders: Sequence[_Orders], seed: int) -> list[np.ndarray]:
    return [_drawn(of_recording, seed + at) for at, of_recording in enumerate(orders)]


@lru_cache(maxsize=64)
def _drawn(orders: _Orders, seed: int) -> np.ndarray:
    """The same for all arms of a run."""
    return orders.some(np.random.default_rng(seed))
