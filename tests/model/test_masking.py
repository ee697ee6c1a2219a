"""Every pattern hides exactly what its name says, and never all there is."""

from __future__ import annotations

import pytest
import torch

from poyo_ssl.model.masking import (
    PATTERNS,
    choose_hidden,
    hide_future,
    hide_last_steps,
    hide_random_patches,
    hide_units,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("num_steps", "fraction", "num_hidden"),
    [(8, 0.5, 4), (4, 0.25, 1), (4, 0.75, 3), (2, 0.99, 1), (3, 0.01, 1), (10, 0.99, 9)],
)
def test_the_last_steps_are_hidden_at_least_one_and_never_all(num_steps, fraction, num_hidden):
    expected = [False] * (num_steps - num_hidden) + [True] * num_hidden
    assert hide_last_steps(num_steps, fraction).tolist() == expected


def test_hiding_the_last_of_a_single_step_is_refused():
    with pytest.raises(ValueError, match="at least two latent time steps, got 1"):
        hide_last_steps(1, 0.5)


def test_the_future_is_the_same_last_patches_of_every_unit_and_window():
    is_hidden = hide_future(3, 6, 4, 0.5, seeded())
    assert is_hidden.shape == (3, 6, 4)
    assert not is_hidden[:, :3].any()
    assert is_hidden[:, 3:].all()


@pytest.mark.parametrize(
    ("num_units", "fraction", "num_hidden"), [(10, 0.3, 3), (2, 0.99, 1), (5, 0.01, 1), (7, 0.5, 4)]
)
def test_whole_units_are_hidden_as_many_as_asked(num_units, fraction, num_hidden):
    is_hidden = hide_units(20, 4, num_units, fraction, seeded())
    assert is_hidden.shape == (20, 4, num_units)
    assert torch.equal(is_hidden.all(1), is_hidden.any(1))
    assert is_hidden[:, 0].sum(1).tolist() == [num_hidden] * 20


def test_windows_hide_different_units_and_no_unit_is_favoured():
    is_hidden = hide_units(4000, 1, 8, 0.5, seeded())[:, 0]
    assert len(torch.unique(is_hidden, dim=0)) == 70  # all choices of 4 out of 8
    # each count is binomial with mean 2000 and standard deviation 32
    assert (is_hidden.sum(0) - 2000).abs().max() < 4 * 32


def test_random_patches_are_hidden_at_the_rate_asked():
    is_hidden = hide_random_patches(20, 10, 30, 0.3, seeded())
    assert is_hidden.shape == (20, 10, 30)
    # 6000 draws: standard error 0.006, in every direction of the grid
    assert is_hidden.float().mean() == pytest.approx(0.3, abs=4 * 0.006)
    assert is_hidden.float().mean((0, 1)).std() == pytest.approx((0.3 * 0.7 / 200) ** 0.5, rel=0.5)
    assert is_hidden.float().mean((0, 2)).std() == pytest.approx((0.3 * 0.7 / 600) ** 0.5, rel=0.7)


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_random_patches_hide_something_and_leave_something_in_every_window(fraction):
    is_hidden = hide_random_patches(500, 1, 2, fraction, seeded()).flatten(1)
    assert is_hidden.sum(1).tolist() == [1] * 500


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_is_a_function_of_its_generator(pattern):
    hide = PATTERNS[pattern]
    first = hide(4, 6, 9, 0.5, seeded(1))
    assert first.dtype == torch.bool
    assert torch.equal(first, hide(4, 6, 9, 0.5, seeded(1)))
    if pattern != "future":
        assert not torch.equal(first, hide(4, 6, 9, 0.5, seeded(2)))


def test_only_hidden_positions_are_asked_about_and_none_twice():
    is_hidden = torch.rand(50, 6, 8, generator=seeded()) < 0.4
    asked = choose_hidden(is_hidden, 5, seeded())
    assert asked.shape == (50, 5)
    assert is_hidden.flatten(1).gather(1, asked).all()
    assert all(len(set(row.tolist())) == 5 for row in asked)


def test_no_more_is_asked_than_the_window_that_hides_least_can_answer():
    is_hidden = torch.zeros(2, 3, 4, dtype=torch.bool)
    is_hidden[0] = True
    is_hidden[1, 2, 1:3] = True
    asked = choose_hidden(is_hidden, 64, seeded())
    assert asked.shape == (2, 2)
    assert sorted(asked[1].tolist()) == [9, 10]


def test_every_hidden_position_may_be_asked_about():
    is_hidden = torch.zeros(400, 3, 4, dtype=torch.bool)
    is_hidden[:, :, ::2] = True
    counts = choose_hidden(is_hidden, 2, seeded()).flatten().bincount(minlength=12)
    assert (counts > 0).tolist() == [True, False, True, False] * 3
    assert counts[counts > 0].min() > 80  # 800 draws of six positions
