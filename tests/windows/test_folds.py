"""Folds show the same as far as blocks allow, whatever was shown when."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_ssl.windows.folds import deal, roles_of_fold, strata_of
from poyo_ssl.windows.splits import SplitConfig

law = settings(max_examples=60, deadline=None)


def unevenness(totals: np.ndarray, fold: np.ndarray, folds: int) -> float:
    """Variance between folds of how often they show each stratum, summed over strata."""
    shown = [totals[fold == number].sum(axis=0) for number in range(folds)]
    return float(np.var(shown, axis=0).sum())


@st.composite
def runs_of_blocks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """What the runs of some blocks show, their blocks, and the number of folds."""
    folds, num_strata = draw(st.integers(2, 5)), draw(st.integers(1, 6))
    block = np.repeat(np.arange(draw(st.integers(1, 3))), folds * draw(st.integers(1, 3)))
    counts = st.lists(st.integers(0, 9), min_size=num_strata, max_size=num_strata)
    totals = draw(st.lists(counts, min_size=len(block), max_size=len(block)))
    return np.array(totals), block, folds


@law
@given(runs=runs_of_blocks(), seed=st.integers(0, 99))
def test_one_run_a_fold_of_a_block_could_not_be_dealt_so_that_folds_are_more_alike(runs, seed):
    totals, block, folds = runs
    fold = deal(totals, block, folds, seed)
    found = unevenness(totals, fold, folds)
    for number in np.unique(block):
        of_block = np.flatnonzero(block == number)
        assert len(set(np.bincount(fold[of_block], minlength=folds))) == 1
        if len(of_block) == folds:
            for order in permutations(range(folds)):
                other = fold.copy()
                other[of_block] = order
                assert unevenness(totals, other, folds) >= found - 1e-9


@law
@given(runs=runs_of_blocks())
def test_dealt_folds_are_more_alike_than_shuffled_ones(runs):
    totals, block, folds = runs
    rng = np.random.default_rng(0)
    shuffled = []
    for _ in range(50):
        fold = np.empty(len(block), dtype=int)
        for number in np.unique(block):
            of_block = block == number
            fold[of_block] = rng.permutation(np.arange(of_block.sum()) % folds)
        shuffled.append(unevenness(totals, fold, folds))
    dealt = [unevenness(totals, deal(totals, block, folds, seed), folds) for seed in range(5)]
    assert np.mean(dealt) <= np.mean(shuffled) + 1e-9


@pytest.mark.parametrize("seed", range(10))
def test_directions_in_the_same_order_in_every_block_test_equally_often_in_every_fold(seed):
    # four blocks of 5 trials of 0, then 90, 180 and 270 degrees: the second of four runs of every
    # block would test 90 degrees alone
    block = pd.DataFrame({"start": 0.0, "end": 1.0, "angle": np.repeat([0, 90, 180, 270], 5)})
    strata = [strata_of(block)] * 4
    for fold in range(4):
        config = SplitConfig(folds=4, fold=fold, runs_per_fold=1, valid_fraction=0.25, seed=seed)
        roles = np.concatenate(roles_of_fold(strata, config))
        angles = np.tile(block["angle"], 4)
        assert np.unique(angles[roles == "test"], return_counts=True)[1].tolist() == [5] * 4
        assert np.sum(roles == "valid") == 20


@law
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    folds=st.integers(2, 6),
    runs_per_fold=st.integers(1, 3),
    valid_fraction=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_every_trial_tests_in_one_fold_and_as_many_validate_as_asked(
    sizes, folds, runs_per_fold, valid_fraction
):
    rng = np.random.default_rng(sum(sizes))
    strata = [rng.integers(0, 2, (size, 3)) for size in sizes]
    tested = [np.zeros(size, dtype=int) for size in sizes]
    for fold in range(folds):
        config = SplitConfig(
            folds=folds, fold=fold, runs_per_fold=runs_per_fold, valid_fraction=valid_fraction
        )
        for count, roles in zip(tested, roles_of_fold(strata, config), strict=True):
            count += roles == "test"
            room = len(roles) - np.sum(roles == "test")
            assert np.sum(roles == "valid") == min(room, round(valid_fraction * len(roles)))
    assert all(np.all(count == 1) for count in tested)


def test_another_seed_deals_otherwise_and_the_same_deals_the_same():
    rng = np.random.default_rng(0)
    strata = [rng.integers(0, 2, (60, 4))]
    dealt = {
        seed: tuple(roles_of_fold(strata, SplitConfig(folds=5, seed=seed))[0]) for seed in range(6)
    }
    assert len(set(dealt.values())) > 1
    assert dealt[3] == tuple(roles_of_fold(strata, SplitConfig(folds=5, seed=3))[0])


def test_strata_are_the_values_that_several_trials_share():
    table = pd.DataFrame(
        {"start": [0.0, 1, 2], "end": [1.0, 2, 3], "angle": [45.0, np.nan, 45.0],
         "name": ["a", "b", "b"], "number": [0, 1, 2]}
    )  # fmt: skip
    assert strata_of(table).tolist() == [[1, 1, 0], [1, 0, 1], [1, 1, 1]]
