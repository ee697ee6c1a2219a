"""Which labels may be learned from: how many of each class, and the same for everybody."""

from __future__ import annotations

import numpy as np
import pytest

from poyo_ssl.windows.label_budget import LabelBudget, take_labels

FIVE = LabelBudget(per_class=5)


def counts_of(target: np.ndarray, kept: np.ndarray) -> dict[int, int]:
    labels, counts = np.unique(target[kept], return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def test_a_label_fraction_takes_its_part_of_every_class(rng):
    target = rng.permutation(np.repeat([0, 1, 5], [40, 20, 3]))
    kept = take_labels(target, 0.1, seed=0)
    assert counts_of(target, kept) == {0: 4, 1: 2, 5: 1}
    assert np.all(np.diff(kept) > 0)


def test_a_number_per_class_takes_exactly_that_many_of_every_class(rng):
    target = rng.permutation(np.repeat([0, 1, 5], [40, 20, 5]))
    kept = take_labels(target, FIVE, seed=0)
    assert counts_of(target, kept) == {0: 5, 1: 5, 5: 5}
    assert np.all(np.diff(kept) > 0)


def test_a_class_with_too_few_windows_is_refused():
    with pytest.raises(ValueError, match=r"5 per class labels .* class 1 has 4 training windows"):
        take_labels(np.repeat([0, 1], [9, 4]), FIVE, seed=0)


def test_budgets_are_nested_and_depend_on_the_seed_alone(rng):
    target = rng.integers(0, 4, 200)
    few, tenth, quarter = (
        take_labels(target, labels, seed=3) for labels in (LabelBudget(per_class=2), 0.1, 0.25)
    )
    assert set(few) < set(tenth) < set(quarter)
    np.random.default_rng(99).random(7)
    assert take_labels(target, 0.1, seed=3).tolist() == tenth.tolist()
    assert take_labels(target, 0.1, seed=4).tolist() != tenth.tolist()
    assert take_labels(target, 1.0, seed=3).tolist() == list(range(200))


def test_the_budget_of_a_fraction_takes_what_the_fraction_takes(rng):
    target = rng.integers(0, 4, 200)
    budget = take_labels(target, LabelBudget(fraction=0.3), seed=1)
    assert budget.tolist() == take_labels(target, 0.3, seed=1).tolist()


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1])
def test_an_impossible_label_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=rf"\(0, 1\], got {fraction}"):
        take_labels(np.zeros(5), fraction, seed=0)


@pytest.mark.parametrize("options", [{"per_class": 0}, {"per_class": 5, "fraction": 0.5}])
def test_an_impossible_number_per_class_is_refused(options):
    with pytest.raises(ValueError, match="at least 1 and not go with a fraction"):
        LabelBudget(**options)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (LabelBudget(), "100%"),
        (LabelBudget(fraction=0.1), "10%"),
        (LabelBudget(fraction=0.125), "12.5%"),
        (LabelBudget(fraction=0.004), "0.4%"),
        (FIVE, "5 per class"),
    ],
)
def test_a_budget_can_be_read_back_from_its_text(labels, text):
    assert labels.text == text
    assert LabelBudget.from_text(text) == labels
