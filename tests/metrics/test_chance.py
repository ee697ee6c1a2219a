"""The permutation test against chance: by hand, by law, and how often it errs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from poyo_ssl.metrics.blocks import edges_of_blocks
from poyo_ssl.metrics.chance import (
    NUM_PERMUTATIONS,
    minus_distance,
    minus_square_error,
    permutation_p_value,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_of_few_trials_every_order_is_tried():
    target = np.array([0, 1, 1, 0, 2, 0])
    answers = np.array([[0, 1, 1, 0, 2, 1]])
    fits = [np.mean(answers[0] == target[list(o)]) for o in itertools.permutations(range(6))]
    expected = np.mean(np.array(fits) >= 5 / 6 - 1e-9)
    assert permutation_p_value([answers], [target]) == pytest.approx(expected)


def test_of_several_recordings_all_orders_of_each_are_tried_with_those_of_the_other():
    targets = [np.array([0, 1, 0]), np.array([1, 0, 0, 1])]
    answers = [np.array([[0, 1, 0], [0, 1, 1]]), np.array([[1, 0, 0, 1], [1, 1, 0, 1]])]
    fits = [
        sum((a == t[list(o)]).mean() for a, t, o in zip(answers, targets, orders, strict=True))
        for orders in itertools.product(
            itertools.permutations(range(3)), itertools.permutations(range(4))
        )
    ]
    assert len(fits) == 6 * 24
    expected = np.mean(np.array(fits) >= fits[0] - 1e-9)
    assert permutation_p_value(answers, targets) == pytest.approx(expected)


def test_a_perfect_decoder_of_many_trials_has_the_smallest_p(rng):
    target = rng.integers(0, 8, 120)
    assert permutation_p_value([target[None]], [target]) == 1 / (NUM_PERMUTATIONS + 1)


def test_always_the_same_answer_knows_nothing(rng):
    assert permutation_p_value([np.zeros((1, 40))], [rng.integers(0, 2, 40)]) == 1.0
    assert permutation_p_value([rng.integers(0, 2, (1, 40))], [np.zeros(40)]) == 1.0


def test_the_test_repeats(rng):
    target, answers = rng.integers(0, 8, 80), rng.integers(0, 8, (2, 80))
    assert permutation_p_value([answers], [target]) == permutation_p_value([answers], [target])


def test_numbers_and_movie_frames_are_held_against_other_orders(rng):
    speed = rng.normal(size=60)
    close = (speed + rng.normal(0, 0.3, 60))[None]
    assert permutation_p_value([close], [speed], minus_square_error) < 0.001
    frames = rng.permutation(60)
    assert permutation_p_value([frames[None] + 2], [frames], minus_distance) < 0.001
    far = rng.permutation(60)[None]
    assert permutation_p_value([far], [frames], minus_distance) > 0.01


def test_blocks_are_as_long_as_labels_resemble_their_neighbours(rng):
    mixed = rng.integers(0, 8, 160)
    assert len(edges_of_blocks(mixed, 6)) == 161
    in_runs = np.repeat(rng.permutation(np.tile(np.arange(8), 4)), 5)
    assert np.all(np.diff(edges_of_blocks(in_runs, 6)) >= 5)
    ascending = np.arange(60)
    assert np.diff(edges_of_blocks(ascending, 6)).tolist() == [10] * 6
    assert edges_of_blocks(np.ones(3), 6).tolist() == [0, 1, 2, 3]
    assert edges_of_blocks(np.ones(1), 6).tolist() == [0, 1]


def test_labels_that_resemble_their_neighbours_are_shifted(rng):
    target = np.repeat(rng.permutation(np.tile(np.arange(4), 10)), 3)
    answers = np.where(rng.random(120) < 0.3, target, rng.integers(0, 4, 120))
    fits = np.array([np.mean(answers == np.roll(target, lag)) for lag in range(120)])
    expected = np.mean(fits >= fits[0] - 1e-9)
    assert permutation_p_value([answers[None]], [target]) == pytest.approx(expected)


def test_what_changes_too_slowly_for_its_length_is_not_tested(rng):
    slow, answers = np.sin(np.arange(60) / 10), rng.normal(size=(2, 60))
    assert np.isnan(permutation_p_value([slow[None]], [slow], minus_square_error))
    speed = rng.normal(size=60)  # another recording that tells counts alone
    both = permutation_p_value([answers, speed[None]], [slow, speed], minus_square_error)
    assert both == permutation_p_value([speed[None]], [speed], minus_square_error)


@pytest.mark.parametrize("run_length", [1, 5])
def test_answers_that_drift_are_rarely_taken_for_knowledge(rng, run_length):
    def drifting() -> np.ndarray:
        return (np.cumsum(rng.normal(0, 1.5, 100)).round() % 8)[None]

    labels = [np.repeat(rng.integers(0, 8, 100 // run_length), run_length) for _ in range(200)]
    p_values = np.array([permutation_p_value([drifting()], [target]) for target in labels])
    assert np.mean(p_values <= 0.05) < 0.09
    assert 0.4 < np.nanmean(p_values) < 0.65  # one in two hundred is too short to tell


def test_slow_answers_are_rarely_taken_for_knowledge_of_slow_values(rng):
    def drifting() -> np.ndarray:
        return np.convolve(rng.normal(size=219), np.ones(20), "valid")

    pairs = [(drifting()[None], drifting()) for _ in range(200)]
    p_values = [permutation_p_value([a], [t], minus_square_error) for a, t in pairs]
    assert np.mean(np.array(p_values) <= 0.05) < 0.08  # of those too short, none
