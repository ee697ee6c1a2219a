"""Tokens of all units together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_brain.nn import RotaryCrossAttention
from torch_brain.nn import RotaryTimeEmbedding as TextbookTimes

from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.model.projected_attention import ProjectedCrossAttention, project
from poyo_ssl.model.rotary import RotaryTimeEmbedding

WINDOWS, TIMES, UNITS, SAMPLES, LATENTS, DIM, HEADS, DIM_HEAD = 3, 4, 7, 2, 5, 12, 3, 8


@pytest.fixture
def grid() -> dict[str, Tensor | nn.Module]:
    torch.manual_seed(0)
    rotary = RotaryTimeEmbedding(DIM_HEAD, DIM_HEAD // 2, shortest=0.1, longest=4.0)
    return {
        "latents": torch.randn(LATENTS, DIM),
        "patches": torch.randn(WINDOWS, TIMES, UNITS, SAMPLES),
        "value_map": nn.Linear(SAMPLES, DIM),
        "units": torch.randn(UNITS, DIM),
        "latent_phases": rotary(torch.arange(LATENTS) * 0.3),
        "patch_phases": rotary(torch.arange(TIMES) * 0.4),
    }


def attention() -> ProjectedCrossAttention:
    torch.manual_seed(1)
    return ProjectedCrossAttention(dim=DIM, num_heads=HEADS, dim_head=DIM_HEAD)


def test_a_token_is_the_sum_over_units_of_gain_tokens(grid):
    tokens = project(grid["patches"], grid["value_map"], grid["units"])
    value_map = grid["value_map"]
    gain = (value_map(grid["patches"]) - value_map.bias) * grid["units"]
    torch.testing.assert_close(tokens, gain.sum(2) / UNITS**0.5 + value_map.bias)


def test_it_is_torch_brains_attention_over_those_tokens(grid):
    ours = attention()
    textbook = RotaryCrossAttention(dim=DIM, heads=HEADS, dim_head=DIM_HEAD, rotate_value=True)
    textbook.norm_context = nn.Identity()
    weights = dict(ours.named_parameters())
    weights["to_q.weight"] = weights.pop("to_query.weight")
    weights["to_kv.weight"] = torch.cat(
        [weights.pop("to_key.weight"), weights.pop("to_value.weight")]
    )
    rotary = TextbookTimes(DIM_HEAD, DIM_HEAD // 2, t_min=0.1, t_max=4.0)
    arguments = (
        grid["latents"].expand(WINDOWS, -1, -1),
        project(grid["patches"], grid["value_map"], grid["units"]),
        rotary(torch.arange(LATENTS) * 0.3).expand(WINDOWS, -1, -1),
        rotary(torch.arange(TIMES) * 0.4).expand(WINDOWS, -1, -1),
        None,
    )
    expected = torch.func.functional_call(textbook, weights, arguments, strict=True)
    torch.testing.assert_close(ours(**grid), expected, rtol=1e-4, atol=1e-5)


def test_the_order_of_units_tells_nothing(grid):
    order = torch.randperm(UNITS)
    turned = {**grid, "patches": grid["patches"][:, :, order], "units": grid["units"][order]}
    torch.testing.assert_close(attention()(**turned), attention()(**grid))


def test_hidden_activity_is_not_seen_and_visible_units_make_up_for_it(grid):
    is_hidden = torch.rand(WINDOWS, TIMES, UNITS) < 0.5
    is_hidden[..., 0] = False
    tokens = project(grid["patches"], grid["value_map"], grid["units"], is_hidden)
    changed = torch.where(is_hidden[..., None], 99.0, grid["patches"])
    torch.testing.assert_close(
        project(changed, grid["value_map"], grid["units"], is_hidden), tokens
    )
    alike = {"patches": torch.ones(1, 1, UNITS, SAMPLES), "units": torch.ones(UNITS, DIM)}
    every_other = (torch.arange(UNITS) % 2 == 0)[None, None]
    torch.testing.assert_close(
        project(**alike, value_map=grid["value_map"], is_hidden=every_other),
        project(**alike, value_map=grid["value_map"]),
    )


def test_times_that_are_wholly_hidden_are_not_attended_to(grid):
    is_hidden = torch.zeros(WINDOWS, TIMES, UNITS, dtype=torch.bool)
    is_hidden[:, -1] = True
    shorter = {
        **grid,
        "patches": grid["patches"][:, :-1],
        "patch_phases": grid["patch_phases"][:-1],
    }
    read = attention()(**grid, is_hidden=is_hidden)
    torch.testing.assert_close(read, attention()(**shorter))
    is_hidden[1] = True
    read = attention()(**grid, is_hidden=is_hidden)
    torch.testing.assert_close(read[1], attention().to_out.bias.expand(LATENTS, -1))


def test_an_encoder_begins_with_the_mean_of_every_patch():
    encoder = Encoder(EncoderConfig(tokens="projected", dim=8, patch_length=0.5), 10.0)
    encoder.add_units(["a", "b", "c"])
    units = encoder.unit_embedding(encoder.unit_rows(["a", "b", "c"]))
    activity = torch.randn(2, 10, 3)
    tokens = project(encoder.cut_patches(activity), encoder.value_map, units)
    torch.testing.assert_close(tokens, activity.unflatten(1, (2, 5)).mean(2) @ units / 3**0.5)
