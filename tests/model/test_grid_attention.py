"""Attention over the grid is textbook attention, computed in another order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_brain.nn import RotaryCrossAttention
from torch_brain.nn import RotaryTimeEmbedding as TextbookTimes

from poyo_ssl.model import blockwise
from poyo_ssl.model.grid_attention import ConcatenatedCrossAttention, GainCrossAttention
from poyo_ssl.model.rotary import RotaryTimeEmbedding

ATTENTIONS = {"gain": GainCrossAttention, "concatenated": ConcatenatedCrossAttention}
DIM, HEADS, DIM_HEAD = 12, 3, 8
WINDOWS, TIMES, UNITS, LATENTS = 4, 5, 7, 6
HIDDEN = ["nothing", "random tokens", "whole units", "last times", "a whole window among others"]


@dataclass(frozen=True)
class Grid:
    """An attention and all that it reads; differentiated with respect to everything but times."""

    attention: GainCrossAttention | ConcatenatedCrossAttention
    latents: Tensor
    patches: Tensor
    value_map: nn.Linear
    units: Tensor
    rotary: RotaryTimeEmbedding
    latent_times: Tensor
    patch_times: Tensor
    is_hidden: Tensor | None

    def read(self) -> Tensor:
        """What our attention gives: block by block, as long as the activity is only data."""
        return self.attention(
            self.latents,
            self.patches,
            self.value_map,
            self.units,
            self.rotary(self.latent_times),
            self.rotary(self.patch_times),
            self.is_hidden,
        )

    def dense(self) -> Grid:
        """The same grid, to be read as accelerators do: all windows at once."""
        return replace(self, patches=self.patches.clone().requires_grad_())

    def read_by_the_textbook(self) -> Tensor:
        """The same from torch-brain's attention over a flat list of tokens."""
        num_windows, num_times, num_units, _ = self.patches.shape
        values, units = self.value_map(self.patches), self.units
        if isinstance(self.attention, GainCrossAttention):
            tokens = values * units
        else:
            tokens = torch.cat([values, units.expand(num_windows, num_times, -1, -1)], dim=-1)
        textbook, weights = textbook_layer(self.attention)
        rotary = TextbookTimes(DIM_HEAD, DIM_HEAD // 2, t_min=0.1, t_max=4.0).to(values)
        token_rotary = rotary(self.patch_times).repeat_interleave(num_units, dim=0)
        may_read, is_empty = None, torch.zeros(num_windows, dtype=torch.bool)
        if self.is_hidden is not None:
            is_empty = self.is_hidden.flatten(1).all(1)
            may_read = ~self.is_hidden.flatten(1) | is_empty[:, None]
        arguments = (
            self.latents.expand(num_windows, -1, -1),
            tokens.flatten(1, 2),
            rotary(self.latent_times).expand(num_windows, -1, -1),
            token_rotary.expand(num_windows, -1, -1),
            may_read,
        )
        read: Tensor = torch.func.functional_call(textbook, weights, arguments, strict=True)
        return torch.where(is_empty[:, None, None], self.attention.to_out.bias, read)

    def parameters(self) -> dict[str, Tensor]:
        """All that learns, by name."""
        of_map = {f"value_map.{name}": value for name, value in self.value_map.named_parameters()}
        named = dict(self.attention.named_parameters())
        return {"latents": self.latents, "units": self.units} | of_map | named


def textbook_layer(
    attention: GainCrossAttention | ConcatenatedCrossAttention,
) -> tuple[nn.Module, dict[str, Tensor]]:
    """torch-brain's layer and the weights of ours under its names."""
    dim, inner = attention.norm.normalized_shape[0], attention.to_out.in_features
    textbook = RotaryCrossAttention(
        dim=dim,
        heads=attention.num_heads,
        dim_head=inner // attention.num_heads,
        rotate_value=True,
    )
    weights = dict(attention.named_parameters())
    if isinstance(attention, GainCrossAttention):
        textbook.norm_context = nn.Identity()
        weights["to_q.weight"] = weights.pop("to_query.weight")
        key, value = weights.pop("to_key.weight"), weights.pop("to_value.weight")
        weights["to_kv.weight"] = torch.cat([key, value])
    return textbook, weights


def make_grid(
    kind: str,
    *,
    dtype: torch.dtype = torch.float64,
    hidden: str = "nothing",
    sizes: tuple[int, int, int, int] = (WINDOWS, TIMES, UNITS, LATENTS),
    num_heads: int = HEADS,
    seed: int = 0,
) -> Grid:
    """Random weights and windows; the same for every type of numbers."""
    generator = torch.Generator().manual_seed(seed)
    num_windows, num_times, num_units, num_latents = sizes
    patch = 3 if kind == "gain" else 1
    token_dim = DIM if kind == "gain" else DIM // 2

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    attention = ATTENTIONS[kind](dim=DIM, num_heads=num_heads, dim_head=DIM_HEAD).to(dtype)
    value_map = nn.Linear(patch, token_dim, dtype=dtype)
    with torch.no_grad():
        for parameter in [*attention.parameters(), *value_map.parameters()]:
            parameter.copy_(draw(*parameter.shape) * parameter.shape[-1] ** -0.5)
    return Grid(
        attention=attention,
        latents=draw(num_latents, DIM).requires_grad_(),
        patches=draw(num_windows, num_times, num_units, patch),
        value_map=value_map,
        units=draw(num_units, token_dim).requires_grad_(),
        rotary=RotaryTimeEmbedding(DIM_HEAD, DIM_HEAD // 2, shortest=0.1, longest=4.0).to(dtype),
        latent_times=draw(num_latents),
        patch_times=torch.arange(num_times, dtype=dtype) * 0.4,
        is_hidden=hide(hidden, (num_windows, num_times, num_units), generator),
    )


def hide(which: str, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor | None:
    if which == "nothing":
        return None
    is_hidden = torch.zeros(shape, dtype=torch.bool)
    if which == "random tokens":
        is_hidden = torch.rand(shape, generator=generator) < 0.5
    elif which == "whole units":
        for window in range(shape[0]):
            is_hidden[window, :, torch.randperm(shape[2], generator=generator)[::2]] = True
    elif which == "last times":
        is_hidden[:, -(-shape[1] // 2) :] = True
    else:
        is_hidden[shape[0] // 2] = True
    return is_hidden


def gradients(out: Tensor, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a fixed random combination of the outputs."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    found = torch.autograd.grad((out * weight).sum(), list(wanted.values()))
    return dict(zip(wanted, found, strict=True))


def assert_near(our: Tensor, their: Tensor, tolerance: float, name: str = "output") -> None:
    """Differences are at most ``tolerance`` of the largest number, or of one where all are less."""
    allowed = tolerance * max(1.0, float(their.detach().abs().max()))
    torch.testing.assert_close(our, their, atol=allowed, rtol=0, msg=lambda text: f"{name}: {text}")


def both_ways(grid: Grid) -> list[Tensor]:
    """What is read from tokens and from combinations, whichever would take less time."""
    read = []
    for is_combined in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(GainCrossAttention, "_combining_pays", lambda *_, way=is_combined: way)
            read.append(grid.read())
    return read


def assert_equals_the_textbook(grid: Grid, of_outputs: float, of_gradients: float) -> None:
    wanted = grid.parameters()
    theirs = grid.read_by_the_textbook()
    their_gradients = gradients(theirs, wanted)
    for ours in (*both_ways(grid), grid.dense().read()):
        assert_near(ours, theirs, of_outputs)
        for name, gradient in gradients(ours, wanted).items():
            assert_near(gradient, their_gradients[name], of_gradients, name)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_it_equals_the_attention_of_torch_brain_with_all_gradients(kind, hidden):
    grid = make_grid(kind, hidden=hidden)
    assert_equals_the_textbook(grid, 1e-12, 1e-10)
    assert all(g.abs().max() > 1e-3 for g in gradients(grid.read(), grid.parameters()).values())
    assert_equals_the_textbook(make_grid(kind, hidden=hidden, dtype=torch.float32), 1e-5, 1e-4)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(ATTENTIONS)),
    sizes=st.tuples(*(st.integers(1, largest) for largest in (5, 4, 6, 3))),
    num_heads=st.integers(1, 3),
    hidden=st.sampled_from(HIDDEN),
    tokens_in_cache=st.sampled_from([1, 40, 300, 2**18]),
    seed=st.integers(0, 2**16),
)
def test_it_equals_the_textbook_for_grids_of_any_shape(
    kind, sizes, num_heads, hidden, tokens_in_cache, seed
):
    grid = make_grid(kind, hidden=hidden, sizes=sizes, num_heads=num_heads, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "TOKENS_IN_CACHE", tokens_in_cache)
        assert_equals_the_textbook(grid, 1e-12, 1e-10)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_the_gradient_of_the_activity_is_that_of_the_textbook(kind, hidden):
    grid = make_grid(kind, hidden=hidden).dense()
    wanted = {"patches": grid.patches}
    ours = gradients(grid.read(), wanted)["patches"]
    theirs = gradients(grid.read_by_the_textbook(), wanted)["patches"]
    assert theirs.abs().max() > 1e-3
    assert_near(ours, theirs, 1e-10)


VALUE_MAPS = {
    "a huge value map": 1e6,
    "a small value map": 1e-6,
    "a value map whose square vanishes": 1e-21,
    "a value map of zero": 0.0,
}
EDGES = [
    *VALUE_MAPS,
    "activity of ten thousand",
    "no activity",
    "features that hardly differ",
    "units that are all alike",
]


@torch.no_grad()
def spoil(grid: Grid, how: str) -> Grid:
    """Numbers at the edge of what a layer meets."""
    weight, bias = grid.value_map.weight, grid.value_map.bias
    if how in VALUE_MAPS:
        weight.mul_(VALUE_MAPS[how])
    elif how == "activity of ten thousand":
        grid.patches.mul_(1e4)
    elif how == "no activity":
        grid.patches.zero_()
    elif how == "features that hardly differ":
        for part in (weight, bias, grid.units):
            part.mul_(1e-4)
        bias.add_(1.0)
        grid.units.add_(1.0)
    else:
        grid.units.copy_(grid.units[:1].expand_as(grid.units))
    return grid


@pytest.mark.parametrize("how", EDGES)
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_at_the_edge_of_numbers_it_is_as_exact_as_the_textbook(kind, how):
    exact = spoil(make_grid(kind), how)
    true = read_and_gradients(exact, exact.read_by_the_textbook())
    grid = spoil(make_grid(kind, dtype=torch.float32), how)
    theirs = read_and_gradients(grid, grid.read_by_the_textbook())
    for out in (grid.read(), grid.dense().read()):
        for name, ours in read_and_gradients(grid, out).items():
            size = max(1.0, float(true[name].abs().max()))
            their_error, our_error = (
                float((x - true[name]).abs().max()) for x in (theirs[name], ours)
            )
            assert our_error <= 10 * their_error + 1e-6 * size, name


def read_and_gradients(grid: Grid, out: Tensor) -> dict[str, Tensor]:
    return {"output": out.detach()} | gradients(out, grid.parameters())


def test_single_precision_keeps_its_digits_where_activity_cancels_the_bias():
    # the variance of a token is then a small difference of large squares
    exact, grid = (make_grid("concatenated", dtype=d) for d in (torch.float64, torch.float32))
    for each in (exact, grid):
        with torch.no_grad():
            each.value_map.bias.copy_(-each.value_map.weight[:, 0])
            each.patches.mul_(0.01).add_(1.0)
            each.units.mul_(0.02)
    true = read_and_gradients(exact, exact.read_by_the_textbook())
    for name, ours in read_and_gradients(grid, grid.read()).items():
        assert_near(ours.double(), true[name], 1e-5 if name == "output" else 1e-4, name)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_activity_that_is_no_number_spoils_its_own_window_only(kind):
    grid = make_grid(kind)
    good = grid.read()
    grid.patches[1, 2, 3] = torch.nan
    for out in (grid.read(), grid.dense().read()):
        assert out[1].isnan().all()
        torch.testing.assert_close(out[[0, 2, 3]], good[[0, 2, 3]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_hiding_all_tokens_of_units_is_removing_the_units(kind):
    grid = make_grid(kind)
    is_hidden = torch.zeros(WINDOWS, TIMES, UNITS, dtype=torch.bool)
    is_hidden[:, :, [1, 4]] = True
    kept = [0, 2, 3, 5, 6]
    removed = replace(grid, patches=grid.patches[:, :, kept], units=grid.units[kept])
    torch.testing.assert_close(
        replace(grid, is_hidden=is_hidden).read(), removed.read(), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_hidden_tokens_are_not_read_whatever_they_hold(kind):
    grid = make_grid(kind, hidden="random tokens")
    garbage = replace(grid, patches=torch.where(grid.is_hidden[..., None], 1e6, grid.patches))
    assert torch.equal(grid.read(), garbage.read())
    assert torch.equal(grid.dense().read(), garbage.dense().read())
    assert not torch.allclose(grid.read(), replace(garbage, is_hidden=None).read())


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_only_differences_of_time_matter(kind):
    grid = make_grid(kind)
    later = replace(grid, latent_times=grid.latent_times + 3.7, patch_times=grid.patch_times + 3.7)
    torch.testing.assert_close(grid.read(), later.read(), atol=1e-11, rtol=0)
    apart = replace(grid, patch_times=grid.patch_times + 0.2)
    assert (grid.read() - apart.read()).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_a_window_with_everything_hidden_reads_nothing_and_spoils_no_gradient(kind):
    grid = make_grid(kind, hidden="a whole window among others").dense()
    (window,) = grid.is_hidden.flatten(1).all(1).nonzero().flatten().tolist()
    with torch.no_grad():
        grid.patches[window] = 1e6
    for out in (grid.read(), replace(grid, patches=grid.patches.detach()).read()):
        bias = grid.attention.to_out.bias.expand(LATENTS, -1)
        torch.testing.assert_close(out[window], bias, atol=0, rtol=0)
        assert all(g.isfinite().all() for g in gradients(out, grid.parameters()).values())
    of_activity = gradients(grid.read(), {"patches": grid.patches})["patches"]
    assert of_activity.isfinite().all()
    assert not of_activity[window].any()
    assert of_activity[window - 1].any()


@pytest.mark.parametrize(
    ("sizes", "num_samples", "pays"),
    [
        ((32, 6, 190), 10, True),
        ((128, 6, 190), 10, True),
        ((32, 30, 190), 1, True),
        ((8, 6, 190), 10, False),
        ((4, 6, 2000), 10, False),
    ],
)
def test_tokens_are_combined_where_enough_windows_share_what_they_are_made_of(
    sizes, num_samples, pays
):
    attention = GainCrossAttention(dim=64, num_heads=2, dim_head=32)
    patches = torch.empty(*sizes, num_samples, device="meta")
    assert attention._combining_pays(patches, num_latents=16) is pays
