"""Whether a decoder knows anything: answers held against permuted labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from poyo_ssl.metrics.blocks import edges_of_blocks

NUM_PERMUTATIONS = 1999
"""Drawn where not all are tried: the smallest p is then 0.0005."""
_MIN_BLOCKS = 6
"""Blocks that a recording is cut into at least, which have 720 orders."""

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

    Within every recording the labels are cut into blocks of neighbouring trials, and the blocks
    change places. A block is as long as labels resemble their neighbours: one trial if the order of
    the labels is random, longer where labels come in runs or change slowly, since answers that
    drift would fit such labels too often by luck. All orders are tried where they are few, with the
    true one among them; else ``NUM_PERMUTATIONS`` are drawn.

    Args:
        answers: Of each recording, shape (num_seeds, num_trials), trials in order of time.
        targets: What was right, shape (num_trials,) for each recording.
        agreement: How well answers fit; averaged over trials, seeds and recordings.
        seed: Of the drawing.

    Returns:
        One-sided p value; valid however few the trials, but then it cannot be small.
    """
    layouts = [tuple(edges_of_blocks(target, _MIN_BLOCKS).tolist()) for target in targets]
    num_orders = math.prod(math.factorial(len(edges) - 1) for edges in layouts)
    is_exact = num_orders <= NUM_PERMUTATIONS
    num_tried = num_orders if is_exact else NUM_PERMUTATIONS + 1
    total = np.zeros(num_tried)
    positions = _every_order(layouts) if is_exact else _some_orders(layouts, seed)
    for given, target, position in zip(answers, targets, positions, strict=True):
        # (num_tried, num_trials), the true order first; half the bytes are twice as fast
        permuted = target.astype(np.float32)[position]
        for of_seed in given.astype(np.float32):
            total += agreement(of_seed, permuted).mean(axis=1) / len(given)
    tolerance = 1e-9 * max(1.0, abs(total[0]))
    return float(np.mean(total >= total[0] - tolerance))


def _every_order(layouts: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """For each recording the trials in every order of its blocks, with every one of the others."""
    orders = [
        np.array(list(itertools.permutations(range(len(edges) - 1)))).reshape(-1, len(edges) - 1)
        for edges in layouts
    ]
    grid = np.indices([len(order) for order in orders]).reshape(len(orders), -1)
    return [
        _positions(edges, order[which])
        for edges, order, which in zip(layouts, orders, grid, strict=True)
    ]


def _some_orders(layouts: Sequence[tuple[int, ...]], seed: int) -> list[np.ndarray]:
    return [_random_orders(edges, seed + at) for at, edges in enumerate(layouts)]


@lru_cache(maxsize=64)
def _random_orders(edges: tuple[int, ...], seed: int) -> np.ndarray:
    """The true order, then random ones: all arms of a run are held against the same."""
    rng = np.random.default_rng(seed)
    orders = np.tile(np.arange(len(edges) - 1, dtype=np.int32), (NUM_PERMUTATIONS + 1, 1))
    rng.permuted(orders[1:], axis=1, out=orders[1:])
    return _positions(edges, orders)


def _positions(edges: tuple[int, ...], orders: np.ndarray) -> np.ndarray:
    """Which trial comes when blocks are in other orders, (num_orders, num_trials)."""
    lengths = np.diff(edges)
    if np.all(lengths == 1):
        return orders
    ranks = orders.argsort(axis=1)  # where each block goes
    return np.repeat(ranks, lengths, axis=1).argsort(axis=1, kind="stable").astype(np.int32)
