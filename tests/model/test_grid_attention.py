"""Attention over the grid is textbook attention, computed in another order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_brain.nn import RotaryCrossAttention, RotaryTimeEmbedding

from poyo_ssl.model.grid_attention import GridCrossAttention

DIM, HEADS, DIM_HEAD = 12, 3, 8
WINDOWS, TIMES, UNITS, LATENTS = 2, 5, 7, 6

rotary = RotaryTimeEmbedding(head_dim=DIM_HEAD, rotate_dim=DIM_HEAD // 2, t_min=0.1, t_max=4.0)


@pytest.fixture
def grid() -> GridCrossAttention:
    torch.manual_seed(0)
    grid = GridCrossAttention(dim=DIM, num_heads=HEADS, dim_head=DIM_HEAD)
    for parameter in grid.norm.parameters():
        nn.init.normal_(parameter)
    return grid


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, tokens, and the rotary embeddings of their times."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(LATENTS, DIM, generator=generator)
    tokens = torch.randn(WINDOWS, TIMES, UNITS, DIM, generator=generator)
    return latents, tokens, rotary(torch.linspace(0.1, 1.9, LATENTS)), rotary(torch.arange(5) * 0.4)


def hidden_tokens(which: str) -> Tensor | None:
    if which == "nothing":
        return None
    is_hidden = torch.zeros(WINDOWS, TIMES, UNITS, dtype=torch.bool)
    if which == "random tokens":
        is_hidden = torch.rand(is_hidden.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    elif which == "whole units":
        is_hidden[0, :, :3] = is_hidden[1, :, 5:] = True
    else:
        is_hidden[:, 3:] = True
    return is_hidden


def textbook_attention(
    grid: GridCrossAttention,
    latents: Tensor,
    tokens: Tensor,
    latent_rotary: Tensor,
    token_rotary: Tensor,
    is_hidden: Tensor | None,
) -> Tensor:
    """torch-brain's attention over a flat list of tokens, with the weights of ``grid``."""
    textbook = RotaryCrossAttention(dim=DIM, heads=HEADS, dim_head=DIM_HEAD, rotate_value=True)
    textbook.norm_context = nn.Identity()
    weights = {
        "norm.weight": grid.norm.weight,
        "norm.bias": grid.norm.bias,
        "to_q.weight": grid.to_query.weight,
        "to_kv.weight": torch.cat([grid.to_key.weight, grid.to_value.weight]),
        "to_out.weight": grid.to_out.weight,
        "to_out.bias": grid.to_out.bias,
    }
    arguments = (
        latents.expand(WINDOWS, -1, -1),
        tokens.flatten(1, 2),
        latent_rotary.expand(WINDOWS, -1, -1),
        token_rotary.repeat_interleave(tokens.shape[2], dim=0).expand(WINDOWS, -1, -1),
        None if is_hidden is None else ~is_hidden.flatten(1),
    )
    out: Tensor = torch.func.functional_call(textbook, weights, arguments, strict=True)
    return out


WAYS = ["nothing", "random tokens", "whole units", "last times"]


@pytest.mark.parametrize("hidden", WAYS)
def test_it_equals_the_attention_of_torch_brain(grid, inputs, hidden):
    is_hidden = hidden_tokens(hidden)
    torch.testing.assert_close(
        grid(*inputs, is_hidden),
        textbook_attention(grid, *inputs, is_hidden),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("hidden", WAYS)
def test_its_gradients_equal_those_of_torch_brain(grid, inputs, hidden):
    is_hidden = hidden_tokens(hidden)
    latents, tokens = (x.requires_grad_() for x in inputs[:2])
    wanted = [latents, tokens, *grid.parameters()]
    weight = torch.randn(WINDOWS, LATENTS, DIM, generator=torch.Generator().manual_seed(3))
    ours = torch.autograd.grad((grid(*inputs, is_hidden) * weight).sum(), wanted)
    theirs = torch.autograd.grad(
        (textbook_attention(grid, *inputs, is_hidden) * weight).sum(), wanted
    )
    for our, their in zip(ours, theirs, strict=True):
        assert their.abs().max() > 0
        torch.testing.assert_close(our, their, atol=1e-4 * float(their.abs().max()), rtol=0)


def test_hiding_all_tokens_of_units_is_removing_the_units(grid, inputs):
    latents, tokens, latent_rotary, token_rotary = inputs
    is_hidden = torch.zeros(WINDOWS, TIMES, UNITS, dtype=torch.bool)
    is_hidden[:, :, [1, 4]] = True
    kept = [0, 2, 3, 5, 6]
    torch.testing.assert_close(
        grid(*inputs, is_hidden),
        grid(latents, tokens[:, :, kept], latent_rotary, token_rotary),
        atol=1e-6,
        rtol=1e-5,
    )


def test_hidden_tokens_are_not_read_whatever_they_hold(grid, inputs):
    latents, tokens, *rotaries = inputs
    is_hidden = hidden_tokens("random tokens")
    garbage = torch.where(is_hidden[..., None], 1e6, tokens)
    before = grid(latents, tokens, *rotaries, is_hidden)
    assert torch.equal(before, grid(latents, garbage, *rotaries, is_hidden))
    assert not torch.allclose(before, grid(latents, garbage, *rotaries))


def test_only_differences_of_time_matter(grid, inputs):
    latents, tokens, *_ = inputs
    times, patch_times = torch.linspace(0.1, 1.9, LATENTS), torch.arange(5) * 0.4
    here = grid(latents, tokens, rotary(times), rotary(patch_times))
    later = grid(latents, tokens, rotary(times + 3.7), rotary(patch_times + 3.7))
    apart = grid(latents, tokens, rotary(times), rotary(patch_times + 0.2))
    torch.testing.assert_close(here, later, atol=1e-5, rtol=0)
    assert (here - apart).abs().max() > 1e-2


def test_a_window_with_everything_hidden_reads_nothing_and_spoils_no_gradient(grid, inputs):
    latents, tokens, *rotaries = inputs
    is_hidden = hidden_tokens("random tokens")
    is_hidden[1] = True
    out = grid(latents, tokens.requires_grad_(), *rotaries, is_hidden)
    out.square().sum().backward()
    torch.testing.assert_close(out[1], grid.to_out.bias.expand(LATENTS, -1))
    assert torch.equal(tokens.grad[1], torch.zeros_like(tokens[1]))
    assert torch.isfinite(tokens.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in grid.parameters())
    garbage = tokens.detach().clone()
    garbage[1] = 1e6
    assert torch.equal(out, grid(latents, garbage, *rotaries, is_hidden))
