"""Linear Fisher information has no bias, and labels are worth what the curve says."""

from __future__ import annotations

import numpy as np
import pytest

from poyo_ssl.study.information import (
    equivalent_labels,
    information_of_neighbours,
    jackknife,
    linear_fisher_information,
)


@pytest.fixture(scope="module")
def correlated():
    """Means 0 and ``apart`` with correlated noise, and the information that is in them."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(12, 12))
    noise = mixing @ mixing.T / 12 + np.eye(12)
    apart = rng.normal(size=12) * 0.5
    return np.linalg.cholesky(noise), apart, float(apart @ np.linalg.solve(noise, apart))


@pytest.mark.parametrize(("num_one", "num_other"), [(12, 12), (40, 40), (10, 30)])
def test_information_of_few_trials_is_that_of_many(correlated, num_one, num_other):
    root, apart, true = correlated
    rng = np.random.default_rng(1)
    found = [
        linear_fisher_information(
            rng.normal(size=(num_one, 12)) @ root.T,
            apart + rng.normal(size=(num_other, 12)) @ root.T,
        )
        for _ in range(2_000)
    ]
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found) - true) < 4 * error
    assert error < 0.15 * true


def test_units_that_say_nothing_have_none():
    rng = np.random.default_rng(0)
    found = [
        linear_fisher_information(rng.normal(size=(20, 8)), rng.normal(size=(20, 8)))
        for _ in range(500)
    ]
    assert abs(np.mean(found)) < 4 * np.std(found) / 500**0.5


def test_a_difference_counts_in_its_own_unit(correlated):
    _, apart, _ = correlated
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(30, 12)), apart + rng.normal(size=(30, 12))
    whole = linear_fisher_information(one, other)
    assert linear_fisher_information(one, other, 10.0) == pytest.approx(whole / 100)


def test_neighbours_close_the_circle():
    rng = np.random.default_rng(0)
    directions = np.arange(0, 360, 45.0)
    stimulus = np.repeat(directions, 40)
    tuned = np.stack([np.cos(np.radians(stimulus)), np.sin(np.radians(stimulus))], axis=1)
    responses = 3 * tuned + rng.normal(size=tuned.shape)
    found = information_of_neighbours(responses, stimulus, period=360.0)
    chord = 9 * (2 * np.sin(np.radians(22.5))) ** 2 / 45**2
    assert found == pytest.approx(chord, rel=0.2)
    # without the last pair, 315 and 0 degrees
    pairs = [
        linear_fisher_information(responses[stimulus == low], responses[stimulus == low + 45], 45)
        for low in directions[:-1]
    ]
    assert information_of_neighbours(responses, stimulus) == pytest.approx(np.mean(pairs))
    last = linear_fisher_information(responses[stimulus == 315], responses[stimulus == 0], 45)
    assert found == pytest.approx(np.mean([*pairs, last]))


def test_too_few_trials_are_refused():
    few = np.zeros((5, 9))
    with pytest.raises(ValueError, match=r"5 and 5 trials are too few for 9 units.*Take fewer"):
        linear_fisher_information(few, few)
    with pytest.raises(ValueError, match="the same units"):
        linear_fisher_information(np.zeros((5, 2)), np.zeros((5, 3)))


def test_a_jackknife_of_means_is_their_standard_error():
    values = np.random.default_rng(0).normal(size=50)
    without = (values.sum() - values) / 49
    estimate = jackknife(without, values.mean())
    assert estimate.value == values.mean()
    assert estimate.standard_error == pytest.approx(values.std(ddof=1) / 50**0.5)


def test_labels_are_read_off_the_curve():
    labels, scores = [1, 2, 4, 8], [0.2, 0.4, 0.3, 0.6]
    assert equivalent_labels(labels, scores, 0.3) == pytest.approx(2**0.5)
    assert equivalent_labels(labels, scores, 0.5) == pytest.approx(4.0)
    assert equivalent_labels(labels, scores, 0.1) == pytest.approx(1.0)
    assert equivalent_labels(labels, scores, 0.9) == pytest.approx(8.0)
