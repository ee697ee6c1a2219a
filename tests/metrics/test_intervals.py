"""Intervals and gains against other libraries, values by hand, and laws."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from poyo_ssl.metrics.intervals import (
    gain_interval,
    mean_interval,
    paired_gain,
    proportion_interval,
    seed_interval,
)
from poyo_ssl.metrics.scales import Scale, scale_of
from poyo_ssl.metrics.spread import Spread

ACCURACY, SSIM = scale_of("accuracy"), scale_of("ssim")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def trials(num_right: int, num_trials: int) -> np.ndarray:
    """One seed of a recording."""
    return (np.arange(num_trials) < num_right).astype(float)[None]


# one accuracy ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_right", "num_trials"), [(0, 1), (1, 1), (7, 16), (16, 16), (3, 400)])
def test_the_interval_of_an_accuracy_is_wilsons(num_right, num_trials):
    expected = scipy.stats.binomtest(num_right, num_trials).proportion_ci(method="wilson")
    for interval in (
        proportion_interval(num_right, num_trials),
        mean_interval([trials(num_right, num_trials)], ACCURACY),
    ):
        assert interval.mean == num_right / num_trials
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_all_right_or_all_wrong_still_has_a_width():
    assert mean_interval([trials(16, 16)], ACCURACY).low == pytest.approx(0.806, abs=1e-3)
    assert mean_interval([trials(0, 16)], ACCURACY).high == pytest.approx(0.194, abs=1e-3)
    gain = gain_interval([trials(16, 16)], [trials(16, 16)], ACCURACY)
    assert gain.low < gain.mean == 0.0 < gain.high
    assert gain.p_value == 1.0
    three_seeds = [np.ones((3, 16))]
    assert mean_interval(three_seeds, ACCURACY).low == pytest.approx(0.806, abs=1e-3)
    assert mean_interval([np.ones((1, 16))] * 3, ACCURACY).low < 0.95


@pytest.mark.parametrize(("num_right", "num_trials"), [(1, 0), (5, 4), (-1, 4)])
def test_impossible_counts_are_refused(num_right, num_trials):
    with pytest.raises(ValueError, match="num_right must lie between 0 and num_trials"):
        proportion_interval(num_right, num_trials)


# means -----------------------------------------------------------------------------------------


def test_two_seeds_have_an_interval_over_trials_that_is_possible():
    seeds = np.concatenate([trials(8, 16), trials(14, 16)])
    interval = mean_interval([seeds], ACCURACY)
    assert 0.45 < interval.low < interval.mean == 11 / 16 < interval.high < 0.9
    assert np.isnan(seed_interval(seeds.mean(axis=1), ACCURACY)[1:]).all()


def test_an_interval_over_seeds_and_trials_is_wider_than_over_either(rng):
    skill = rng.normal(size=(5, 1))
    scores = (skill + rng.normal(size=60) + rng.normal(size=(5, 60)) > 0).astype(float)
    both = mean_interval([scores], ACCURACY)
    of_trials = mean_interval([scores.mean(axis=0)[None]], ACCURACY)
    of_seeds = seed_interval(scores.mean(axis=1), ACCURACY)
    for one in (of_trials, of_seeds):
        assert one.mean == pytest.approx(both.mean)
        assert both.high - both.low > 0.95 * (one.high - one.low)
    assert both.high - both.low > of_trials.high - of_trials.low


def test_three_recordings_that_differ_tell_more_than_their_trials():
    different = [trials(20, 100), trials(50, 100), trials(80, 100)]
    alike = [trials(50, 100)] * 3
    wide, narrow = (mean_interval(each, ACCURACY) for each in (different, alike))
    assert wide.mean == narrow.mean == 0.5
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    two = mean_interval(different[::2], ACCURACY)
    assert two.high - two.low < 0.15  # about these two alone


def test_windows_that_resemble_their_neighbours_count_for_fewer(rng):
    values = np.repeat(rng.normal(0.5, 0.1, 50), 20)
    shuffled = rng.permutation(values)
    in_runs, mixed = (mean_interval([each[None]], SSIM) for each in (values, shuffled))
    # 1,000 windows in runs of 20 are worth 50, or fewer, as far as one can see from them
    half = scipy.stats.t.ppf(0.975, 49) * values[::20].std(ddof=1) / np.sqrt(50)
    assert 0.8 * half < in_runs.high - in_runs.mean < 2 * half
    assert mixed.high - mixed.mean == pytest.approx(half / np.sqrt(20), rel=0.4)


def test_seeds_that_agree_by_chance_leave_an_interval_its_width():
    """Each of three seeds gets four other trials of fifteen right: 45 answers apart."""
    scores = np.zeros((3, 15))
    for seed, of_seed in enumerate(scores):
        of_seed[4 * seed : 4 * seed + 4] = 1
    interval, independent = mean_interval([scores], ACCURACY), proportion_interval(12, 45)
    assert interval.mean == independent.mean
    width = independent.high - independent.low
    assert interval.high - interval.low == pytest.approx(width, rel=0.2)


shares = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 12)).flatmap(
    lambda shape: hnp.arrays(float, (2, *shape), elements=st.sampled_from([0.0, 1.0]))
)


@settings(max_examples=150, deadline=None)
@given(shares)
def test_no_interval_leaves_what_is_possible(scores):
    arm, baseline = scores  # (recordings, seeds, trials)
    for scale in (ACCURACY, SSIM):
        interval = mean_interval(list(arm), scale)
        assert scale.lowest <= interval.low <= interval.mean <= interval.high <= scale.highest
        gain = gain_interval(list(arm), list(baseline), scale)
        width = scale.highest - scale.lowest
        assert -width <= gain.low <= gain.mean <= gain.high <= width
        if not np.isnan(gain.p_value):
            assert 0 <= gain.p_value <= 1


@settings(max_examples=50, deadline=None)
@given(shares)
def test_intervals_of_trials_do_not_depend_on_who_comes_first(scores):
    arm, baseline = scores
    forth = gain_interval(list(arm), list(baseline), ACCURACY)
    back = gain_interval(list(baseline)[::-1], list(arm)[::-1], ACCURACY)
    assert forth.mean == pytest.approx(-back.mean)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    assert forth.p_value == pytest.approx(back.p_value)


# seeds -----------------------------------------------------------------------------------------


def test_the_interval_of_three_seeds_is_known_by_hand():
    # mean 2, standard error 1 / sqrt(3), t quantile of 2 degrees of freedom 4.302653
    interval = seed_interval(np.array([1.0, 2.0, 3.0]))
    assert interval == pytest.approx((2.0, 2.0 - 4.302653 / 3**0.5, 2.0 + 4.302653 / 3**0.5))
    assert interval == (interval.mean, interval.low, interval.high)


@pytest.mark.parametrize("values", [[0.5], [0.4, 0.6]])
def test_fewer_than_three_seeds_have_a_mean_but_no_bounds(values):
    interval = seed_interval(np.array(values))
    assert interval.mean == 0.5
    assert np.isnan([interval.low, interval.high]).all()


@pytest.mark.parametrize(("score", "known"), [(1.0, (0.676, 1.0)), (0.0, (0.0, 0.324))])
def test_windows_that_all_score_best_or_worst_still_have_a_width(score, known):
    _, low, high = mean_interval([np.full((1, 400), score)], scale_of("within_1s"))
    assert (low, high) == pytest.approx(known, abs=5e-4)  # Wilson's of eight blocks


def test_equal_seeds_have_an_interval_of_no_width():
    assert seed_interval(np.full(4, 0.25)) == (0.25, 0.25, 0.25)


def test_an_interval_over_seeds_ends_where_the_scale_does():
    assert seed_interval(np.array([0.5, 1.0, 1.0]), ACCURACY).high == 1.0
    assert seed_interval(np.array([0.5, 1.0, 1.0])).high > 1.0


def test_confidence_widens_an_interval():
    values = np.array([0.3, 0.5, 0.6, 0.4])
    wide, narrow = (seed_interval(values, confidence=c) for c in (0.99, 0.9))
    assert wide.low < narrow.low < narrow.high < wide.high


# gains -----------------------------------------------------------------------------------------


def test_a_paired_gain_is_known_by_hand():
    gain = paired_gain(np.array([0.55, 0.60, 0.65]), np.array([0.50, 0.50, 0.50]))
    assert gain.mean == pytest.approx(0.1)
    half = 4.302653 * 0.05 / 3**0.5
    assert (gain.low, gain.high) == pytest.approx((0.1 - half, 0.1 + half))
    # t = 0.1 / (0.05 / sqrt(3)) = 2 sqrt(3) with 2 degrees of freedom: p = 1 - t / sqrt(t² + 2)
    t = 2 * 3**0.5
    assert gain.p_value == pytest.approx(1 - t / (t**2 + 2) ** 0.5)


def test_pairing_by_seed_sees_a_small_gain_under_a_large_spread_of_seeds(rng):
    baseline = rng.normal(0.5, 0.2, size=8)
    arm = baseline + rng.normal(0.03, 0.01, size=8)
    assert paired_gain(arm, baseline).p_value < 0.001
    assert scipy.stats.ttest_ind(arm, baseline).pvalue > 0.1


def test_pairing_by_trial_sees_a_small_gain_under_trials_of_different_hardness(rng):
    hardness = rng.uniform(0, 1, size=(1, 60))
    baseline = hardness + rng.normal(0, 0.01, (1, 60))
    arm = hardness + 0.02 + rng.normal(0, 0.01, (1, 60))
    assert gain_interval([arm], [baseline], Scale()).p_value < 0.001
    assert scipy.stats.ttest_ind(arm[0], baseline[0]).pvalue > 0.1


def test_one_seed_has_a_gain_with_an_interval_over_trials(rng):
    difference = rng.normal(0.1, 0.2, 30)
    gain = gain_interval([difference[None]], [np.zeros((1, 30))], Scale())
    expected = scipy.stats.ttest_1samp(difference, 0)
    assert gain.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (gain.low, gain.high) == pytest.approx((interval.low, interval.high))


def test_p_and_interval_of_a_gain_agree(rng):
    for _ in range(40):
        scores = rng.integers(0, 2, (2, 2, 3, 20)).astype(float)
        gain = gain_interval(list(scores[0]), list(scores[1]), ACCURACY)
        assert (gain.p_value < 0.05) == (gain.low > 0 or gain.high < 0)


def test_what_pairs_cannot_tell_is_nan():
    for values in ([0.6], [0.6, 0.7]):
        few = paired_gain(np.array(values), np.full(len(values), 0.5))
        assert few.mean == pytest.approx(np.mean(values) - 0.5)
        assert np.isnan([few.low, few.high, few.p_value]).all()
    same = paired_gain(np.array([0.5, 0.6, 0.7]), np.array([0.5, 0.6, 0.7]))
    assert same[:3] == (0.0, 0.0, 0.0)
    assert np.isnan(same.p_value)
    one_window = gain_interval([np.ones((1, 1))], [np.zeros((1, 1))], SSIM)
    assert one_window.mean == 1.0
    assert np.isnan(one_window[1:]).all()


def test_each_term_of_a_spread_has_its_own_t():
    alone = Spread(0.02, 9).quantile(0.95)
    assert alone == pytest.approx(scipy.stats.t.ppf(0.975, 9))
    both = Spread(0.02, 9, 0.02, 2).quantile(0.95)
    assert both == pytest.approx((alone + scipy.stats.t.ppf(0.975, 2)) / 2)
    for spread in (Spread(0.02, 9), Spread(0.02, 9, 0.02, 2)):
        edge = spread.quantile(0.95) * spread.variance**0.5
        assert spread.p_value(edge) == pytest.approx(0.05)
        assert spread.p_value(1e3) < 1e-6
    assert np.isnan(Spread(0.0, 9).p_value(0.1))


# refusals --------------------------------------------------------------------------------------


def test_scores_that_cannot_be_averaged_are_refused():
    with pytest.raises(ValueError, match="non-empty"):
        seed_interval(np.array([]))
    with pytest.raises(ValueError, match="non-empty"):
        seed_interval(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        seed_interval(np.array([0.1, np.nan]))
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        mean_interval([np.array([[0.1, np.nan]])], ACCURACY)
    for scores in ([], [np.zeros(3)], [np.zeros((2, 0))], [np.zeros((2, 3)), np.zeros((1, 3))]):
        with pytest.raises(ValueError, match=r"\(num_seeds, num_trials\)"):
            mean_interval(scores, ACCURACY)


def test_gains_of_different_seeds_or_impossible_confidence_are_refused():
    with pytest.raises(ValueError, match="same seeds"):
        paired_gain(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="same trials with the same seeds"):
        gain_interval([np.zeros((1, 3))], [np.zeros((1, 4))], ACCURACY)
    with pytest.raises(ValueError, match="confidence"):
        seed_interval(np.zeros(3), confidence=95)


def test_scales_know_what_is_possible():
    assert ACCURACY.clip(1.2) == 1.0
    assert (ACCURACY.of_differences.lowest, ACCURACY.of_differences.highest) == (-1.0, 1.0)
    assert scale_of("r2").clip(-40.0) == -40.0
    assert scale_of("a metric of one's own").clip(1e9) == 1e9
    assert np.isnan(SSIM.clip(np.nan))
