"""Intervals hold the truth as often as they say; benchmarks/coverage.py asks the same of more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats

from poyo_ssl.metrics.intervals import (
    gain_interval,
    mean_interval,
    proportion_interval,
    seed_interval,
)
from poyo_ssl.metrics.scales import scale_of

ACCURACY, SSIM = scale_of("accuracy"), scale_of("ssim")
REPEATS = 600


def coverage(covers: Callable[[np.random.Generator], bool]) -> float:
    rng = np.random.default_rng(0)
    return float(np.mean([covers(rng) for _ in range(REPEATS)]))


@pytest.mark.parametrize("num_trials", [8, 16, 64])
def test_wilsons_interval_covers_true_accuracies_in_95_percent_on_average(num_trials):
    shares = np.linspace(0.005, 0.995, 199)[:, None]
    bounds = np.array([proportion_interval(k, num_trials)[1:] for k in range(num_trials + 1)])
    chances = scipy.stats.binom.pmf(np.arange(num_trials + 1), num_trials, shares)
    is_covered = (bounds[:, 0] <= shares) & (shares <= bounds[:, 1])
    covered = (chances * is_covered).sum(axis=1)
    assert covered.mean() == pytest.approx(0.95, abs=0.01)
    assert covered.min() > 0.84


def right(rng: np.random.Generator, skill: np.ndarray, hardness: np.ndarray) -> np.ndarray:
    """Right and wrong answers of seeds (skill) to trials (hardness)."""
    noise = rng.normal(size=(len(skill), len(hardness)))
    return (skill[:, None] + hardness + noise > 0).astype(float)


@pytest.mark.parametrize("num_seeds", [1, 2, 3, 5])
def test_means_and_gains_cover_the_truth(num_seeds):
    """Of probit models, whose expectation is known; over seeds only where there are three."""

    def truth(centre: float, skill: np.ndarray) -> float:
        if num_seeds >= 3:
            return float(scipy.stats.norm.cdf(centre / np.sqrt(2 + 0.3**2)))
        return float(scipy.stats.norm.cdf(skill / np.sqrt(2)).mean())

    def draw(rng: np.random.Generator) -> tuple[list[np.ndarray], list[float]]:
        hardness, scores, truths = rng.normal(size=64), [], []
        for centre in (0.8, 0.4):
            skill = centre + rng.normal(0, 0.3, num_seeds)
            scores.append(right(rng, skill, hardness))
            truths.append(truth(centre, skill))
        return scores, truths

    def mean(rng: np.random.Generator) -> bool:
        scores, truths = draw(rng)
        _, low, high = mean_interval(scores[:1], ACCURACY)
        return low <= truths[0] <= high

    def gain(rng: np.random.Generator) -> bool:
        scores, truths = draw(rng)
        _, low, high, _ = gain_interval(scores[:1], scores[1:], ACCURACY)
        return low <= truths[0] - truths[1] <= high

    for covers in (mean, gain):
        assert 0.93 < coverage(covers) < 0.99


def test_recordings_cover_other_recordings():
    def covers(rng: np.random.Generator) -> bool:
        level = 0.5 + rng.normal(0, 0.4, 5)
        recordings = [right(rng, np.full(1, each), rng.normal(size=64)) for each in level]
        _, low, high = mean_interval(recordings, ACCURACY)
        return low <= scipy.stats.norm.cdf(0.5 / np.sqrt(2 + 0.4**2)) <= high

    assert 0.93 < coverage(covers) < 0.98


def test_seed_intervals_cover_the_truth_as_often_as_they_say():
    def covers(rng: np.random.Generator) -> bool:
        _, low, high = seed_interval(rng.normal(1.0, 2.0, size=5), confidence=0.8)
        return low <= 1.0 <= high

    assert coverage(covers) == pytest.approx(0.8, abs=0.05)


def test_windows_of_a_movie_cover_the_truth_though_they_resemble_their_neighbours():
    def covers(rng: np.random.Generator) -> bool:
        values = 0.4 + np.convolve(rng.normal(0, 0.05, 410), np.ones(11), mode="valid") / 3
        _, low, high = mean_interval([values[None]], SSIM)
        return low <= 0.4 <= high

    assert 0.91 < coverage(covers) < 0.98
