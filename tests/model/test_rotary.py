"""One complex multiplication rotates as torch-brain does in seven passes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_brain.nn import RotaryTimeEmbedding as Textbook

from poyo_ssl.model.rotary import RotaryTimeEmbedding, rotate

DIM_HEAD, TIMES, HEADS = 16, 9, 3
EXACT = {torch.float64: 1e-14, torch.float32: 2e-6, torch.bfloat16: 0.05}


def make_rotary(dtype: torch.dtype = torch.float64) -> RotaryTimeEmbedding:
    """Half of the pairs rotate; the rest have frequency 0."""
    return RotaryTimeEmbedding(DIM_HEAD, DIM_HEAD // 2, shortest=0.1, longest=4.0).to(dtype)


def make_textbook(dtype: torch.dtype = torch.float64) -> Textbook:
    return Textbook(DIM_HEAD, DIM_HEAD // 2, t_min=0.1, t_max=4.0).to(dtype)


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_it_rotates_as_torch_brain_does(dtype):
    # half precision has no complex numbers: its phases are single
    precision = torch.promote_types(dtype, torch.float32)
    rotary, textbook = make_rotary(precision), make_textbook(precision)
    assert torch.equal(rotary.omega, textbook.omega)
    x, times = draw(2, TIMES, HEADS, DIM_HEAD, dtype=dtype), torch.linspace(-3, 5, TIMES)
    ours = rotate(x, rotary(times)[:, None])
    theirs = Textbook.rotate(x, textbook(times)[None])
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs, atol=EXACT[dtype], rtol=0)


def test_half_precision_loses_nothing_but_its_last_rounding():
    rotary, times = make_rotary(torch.float32), torch.linspace(-3, 5, TIMES)
    x, phases = draw(TIMES, DIM_HEAD, dtype=torch.bfloat16), rotary(times)
    assert torch.equal(rotate(x, phases), rotate(x.float(), phases).bfloat16())


def test_a_quarter_turn_by_hand():
    rotary = make_rotary()
    rotary.omega.fill_(math.pi / 2)
    turned = rotate(torch.arange(16.0, dtype=torch.float64), rotary(torch.ones(())))
    expected = torch.arange(16.0, dtype=torch.float64).view(8, 2).flip(1)
    expected[:, 0] *= -1  # (x, y) -> (-y, x)
    torch.testing.assert_close(turned, expected.flatten(), atol=1e-13, rtol=0)


def test_pairs_of_frequency_zero_stay_as_they_are():
    x = draw(TIMES, DIM_HEAD)
    turned = rotate(x, make_rotary()(torch.linspace(0.3, 5, TIMES)))
    assert torch.equal(turned[:, DIM_HEAD // 2 :], x[:, DIM_HEAD // 2 :])
    assert not torch.isclose(turned[:, : DIM_HEAD // 2], x[:, : DIM_HEAD // 2]).all(1).any()


@settings(max_examples=50, deadline=None)
@given(times=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8))
def test_conjugate_phases_undo_a_rotation_which_keeps_lengths(times):
    phases = make_rotary()(torch.tensor(times, dtype=torch.float64))
    x = draw(len(times), DIM_HEAD)
    turned = rotate(x, phases)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rotate(turned, phases.conj()), x, atol=1e-12, rtol=0)


@settings(max_examples=50, deadline=None)
@given(first=st.floats(-5, 5), second=st.floats(-5, 5), shift=st.floats(-100, 100))
def test_products_depend_on_differences_of_time_only(first, second, shift):
    rotary, query, key = make_rotary(), draw(DIM_HEAD), draw(1, DIM_HEAD)[0]

    def product(at: float, of: float) -> Tensor:
        times = torch.tensor([at, of], dtype=torch.float64)
        here, there = rotary(times)
        return rotate(query, here) @ rotate(key, there)

    torch.testing.assert_close(
        product(first, second), product(first + shift, second + shift), atol=1e-9, rtol=0
    )
    torch.testing.assert_close(
        product(first, second), product(first - second, 0.0), atol=1e-9, rtol=0
    )


def test_its_gradient_is_that_of_torch_brain():
    rotary, times = make_rotary(), torch.linspace(-3, 5, TIMES, dtype=torch.float64)
    x = draw(2, TIMES, HEADS, DIM_HEAD).requires_grad_()
    # a gradient that does not lie in memory as the features do
    weight = draw(2, DIM_HEAD, HEADS, TIMES).transpose(1, 3)
    ours = rotate(x, rotary(times)[:, None])
    theirs = Textbook.rotate(x, make_textbook()(times)[None])
    torch.testing.assert_close(*(torch.autograd.grad(y, x, weight)[0] for y in (ours, theirs)))


def test_times_may_come_in_any_shape_and_precision():
    rotary = make_rotary(torch.float32)
    times = torch.tensor([[0.0, 0.5], [1.0, 2.0]], dtype=torch.float64)
    phases = rotary(times)
    assert phases.shape == (2, 2, DIM_HEAD // 2)
    assert phases.dtype == torch.complex64
    torch.testing.assert_close(phases[1, 0], rotary(torch.tensor(1.0)))
