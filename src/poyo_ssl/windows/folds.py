"""Which trials train, validate and test: in order of time, or dealt to folds of even classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from poyo_ssl.windows.splits import SplitConfig


def roles_in_order(number: int, config: SplitConfig) -> np.ndarray:
    """Parts of trials in a row: the last ones test and those before validate, (number,)."""
    first_test = max(0, number - round(number * config.test_fraction))
    return roles_beside(number, first_test, number, round(number * config.valid_fraction))


def roles_beside(number: int, first: int, stop: int, num_valid: int) -> np.ndarray:
    """Parts of things in a row of which first ... stop - 1 test, (number,).

    Those before them validate, or those after them where too few come before.
    """
    roles = np.full(number, "train", dtype="<U5")
    if first == stop:
        return roles
    roles[first:stop] = "test"
    if first >= min(num_valid, number - stop):
        roles[max(0, first - num_valid) : first] = "valid"
    else:
        roles[stop : stop + num_valid] = "valid"
    return roles


def roles_of_fold(strata: list[np.ndarray], config: SplitConfig) -> list[np.ndarray]:
    """Parts of the trials of every block, where runs of them are dealt to folds.

    Every block is cut into ``runs_per_fold`` runs a fold, fewer where it is short, and every fold
    gets equally many of them. Fold ``config.fold`` tests; of those after it, as many trials
    validate as ``valid_fraction`` says.

    Args:
        strata: What the trials of every block show, (num_trials, num_strata); see
            :func:`strata_of`.
        config: How many folds and runs a fold, which fold tests, how much validates, the seed.

    Returns:
        Parts of the trials of every block, (num_trials,) each.
    """
    folds = config.folds
    assert folds is not None
    runs, owner = [], []
    for block, shown in enumerate(strata):
        num_runs = folds * max(1, min(config.runs_per_fold, len(shown) // folds))
        runs += [shown[run] for run in np.array_split(np.arange(len(shown)), num_runs)]
        owner += [block] * num_runs
    totals = np.array([run.sum(axis=0) for run in runs])
    fold_of_run = deal(totals, np.array(owner), folds, config.seed)
    fold_of_trial = np.repeat(fold_of_run, [len(run) for run in runs])
    roles, first = [], 0
    for shown in strata:
        turn = (fold_of_trial[first : first + len(shown)] - config.fold) % folds
        first += len(shown)
        held_out = np.argsort(turn, kind="stable")
        num_test, num_valid = np.sum(turn == 0), round(len(shown) * config.valid_fraction)
        parts = np.full(len(shown), "train", dtype="<U5")
        parts[held_out[: num_test + num_valid]] = "valid"
        parts[held_out[:num_test]] = "test"
        roles.append(parts)
    return roles


def deal(totals: np.ndarray, block: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Deals runs of trials to folds so that all folds show about the same.

    The runs of every block are shuffled into hands of one run a fold. One hand after the other is
    dealt so that the folds become as alike as it can make them (an assignment problem), again and
    again until no hand can be dealt better.

    Args:
        totals: How often a run shows each stratum, whole numbers, (num_runs, num_strata).
        block: Block of every run, (num_runs,); each has a multiple of ``folds`` runs.
        folds: Number of folds.
        seed: Draws other hands.

    Returns:
        Fold of every run, (num_runs,).
    """
    rng = np.random.default_rng(seed)
    hands = [
        hand
        for number in np.unique(block)
        for hand in rng.permutation(np.flatnonzero(block == number)).reshape(-1, folds)
    ]
    fold = np.empty(len(block), dtype=int)
    shown = np.zeros((folds, totals.shape[1]), dtype=int)
    for hand in hands:
        fold[hand] = _deal_hand(totals[hand], shown)
        shown[fold[hand]] += totals[hand]
    waiting = list(hands)
    while waiting:
        hand = waiting.pop()
        others = shown.copy()
        others[fold[hand]] -= totals[hand]
        better = _deal_hand(totals[hand], others)
        if np.sum(totals[hand] * (others[better] - others[fold[hand]])) < 0:
            fold[hand], shown = better, others
            shown[better] += totals[hand]
            waiting = list(hands)
    return fold


def _deal_hand(totals: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """The fold of each run of a hand that makes what folds show most alike, (folds,).

    That is the smallest sum of squares of what they show in the end, of which only the product of
    a run and what its fold shows already depends on the dealing.
    """
    _, fold = linear_sum_assignment(totals @ shown.T)
    return fold


def strata_of(table: pd.DataFrame) -> np.ndarray:
    """What every trial shows: 1, then one column for each value that a column holds repeatedly.

    Values of one trial only, such as its number, tell nothing of what it shares with others.

    Args:
        table: Presentations of a stimulus.

    Returns:
        Ones and zeros, shape (num_trials, num_strata).
    """
    strata = [np.ones((len(table), 1), dtype=int)]
    for name in table.columns.drop(["start", "end"]):
        values = table[name].to_numpy()
        counts = table[name].value_counts()
        repeated = counts.index[counts > 1].to_numpy()
        strata.append((values[:, None] == repeated).astype(int))
    return np.concatenate(strata, axis=1)
