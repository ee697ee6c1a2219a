"""Blocks of windows give what all windows at once give, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
from torch import Tensor, nn

from poyo_ssl.model import blockwise
from poyo_ssl.model.grid_attention import ConcatenatedCrossAttention, GainCrossAttention
from poyo_ssl.model.rotary import RotaryTimeEmbedding

DIM, DIM_HEAD, TIMES, UNITS, LATENTS = 16, 8, 5, 6, 4
ATTENTIONS = {"gain": GainCrossAttention, "concatenated": ConcatenatedCrossAttention}


class Reader(nn.Module):
    """A cross-attention with a value map, units, latents and times of its own."""

    def __init__(
        self,
        kind: str,
        *,
        dim: int = DIM,
        dim_head: int = DIM_HEAD,
        num_times: int = TIMES,
        num_units: int = UNITS,
        num_latents: int = LATENTS,
    ) -> None:
        super().__init__()
        token_dim = dim if kind == "gain" else dim // 2
        self.attention = ATTENTIONS[kind](dim=dim, num_heads=2, dim_head=dim_head)
        self.value_map = nn.Linear(1, token_dim)
        self.units = nn.Parameter(torch.randn(num_units, token_dim))
        self.latents = nn.Parameter(torch.randn(num_latents, dim))
        self.rotary = RotaryTimeEmbedding(dim_head, dim_head // 2, shortest=0.1, longest=4.0)
        self.times = torch.linspace(0, 1, num_times), torch.linspace(0, 1, num_latents)

    def forward(self, activity: Tensor, is_hidden: Tensor | None = None) -> Tensor:
        """Activity (B, T, U) -> (B, L, D)."""
        patch_phases, latent_phases = map(self.rotary, self.times)
        read: Tensor = self.attention(
            self.latents,
            activity[..., None],
            self.value_map,
            self.units,
            latent_phases,
            patch_phases,
            is_hidden,
        )
        return read

    def gradients(self, activity: Tensor, is_hidden: Tensor | None = None) -> list[Tensor]:
        """Of the sum of squares, with respect to every parameter."""
        loss = self(activity, is_hidden).square().sum()
        return list(torch.autograd.grad(loss, list(self.parameters())))


@pytest.fixture(params=["concatenated", "gain", "gain, combined"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Reader:
    kind, _, is_combined = request.param.partition(", ")
    monkeypatch.setattr(GainCrossAttention, "_combining_pays", lambda *_: bool(is_combined))
    torch.manual_seed(0)
    return Reader(kind)


def draw(num_windows: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_windows, *(shape or (TIMES, UNITS)), generator=generator)


@pytest.mark.parametrize("windows_in_cache", [0.5, 1, 2, 3, 7, 100])
def test_the_size_of_a_block_changes_nothing(reader, monkeypatch, windows_in_cache):
    reader.double()
    activity = draw(7).double()
    is_hidden = draw(7) > 0.5
    at_once, of_all = reader(activity, is_hidden), reader.gradients(activity, is_hidden)
    numbers = int(windows_in_cache * TIMES * UNITS * DIM)
    monkeypatch.setattr(blockwise, "TOKENS_IN_CACHE", numbers)
    torch.testing.assert_close(reader(activity, is_hidden), at_once, atol=1e-13, rtol=0)
    torch.testing.assert_close(
        reader.gradients(activity, is_hidden), of_all, atol=1e-11, rtol=1e-11
    )


@pytest.mark.parametrize(
    ("num_windows", "num_times", "num_units", "num_latents"),
    [(1, TIMES, UNITS, LATENTS), (3, 1, UNITS, LATENTS), (3, TIMES, 1, LATENTS), (1, 1, 1, 1)],
)
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_one_window_one_timestep_or_one_unit_is_enough(
    kind, num_windows, num_times, num_units, num_latents
):
    torch.manual_seed(0)
    reader = Reader(kind, num_times=num_times, num_units=num_units, num_latents=num_latents)
    reader.double()
    activity = draw(num_windows, num_times, num_units).double()
    dense = activity.clone().requires_grad_()
    torch.testing.assert_close(reader(activity), reader(dense), atol=1e-13, rtol=0)
    torch.testing.assert_close(
        reader.gradients(activity), reader.gradients(dense), atol=1e-11, rtol=1e-11
    )


def test_the_gradients_are_the_slopes(reader):
    reader.double()
    activity, is_hidden = draw(3).double(), draw(3) > 0.5
    parameters = dict(reader.named_parameters())

    def read(*values: Tensor) -> Tensor:
        named = dict(zip(parameters, values, strict=True))
        out: Tensor = torch.func.functional_call(reader, named, (activity, is_hidden))
        return out

    assert torch.autograd.gradcheck(read, tuple(parameters.values()), fast_mode=True)


def test_frozen_parameters_get_no_gradient_and_the_others_the_same(reader):
    activity = draw(3)
    wanted = dict(zip(dict(reader.named_parameters()), reader.gradients(activity), strict=True))
    reader.requires_grad_(False)
    reader.units.requires_grad_(True)
    reader(activity).square().sum().backward()
    torch.testing.assert_close(reader.units.grad, wanted["units"])
    assert [name for name, p in reader.named_parameters() if p.grad is not None] == ["units"]


@torch.no_grad()
def test_the_order_of_windows_is_kept(reader, monkeypatch):
    activity = draw(7)
    monkeypatch.setattr(blockwise, "TOKENS_IN_CACHE", 3 * TIMES * UNITS * DIM)
    out = reader(activity)
    for window in range(7):
        torch.testing.assert_close(
            out[window], reader(activity[window : window + 1])[0], atol=1e-5, rtol=1e-4
        )


def test_a_second_derivative_is_refused_rather_than_wrong(reader):
    loss = reader(draw(2)).square().sum()
    (gradient,) = torch.autograd.grad(loss, reader.units, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_half_precision_is_near_single_and_reads_in_single(reader, monkeypatch):
    activity, is_hidden = draw(5), draw(5) > 0.5
    single, wanted = reader(activity, is_hidden), reader.gradients(activity, is_hidden)
    types = []
    for function in (
        blockwise.PoolGainTokens,
        blockwise.PoolCombinedTokens,
        blockwise.AttendScaledGrid,
    ):
        monkeypatch.setattr(function, "apply", recording_types(function.apply, types))
    with torch.autocast("cpu", torch.bfloat16):
        half = reader(activity, is_hidden)
        loss = half.float().square().sum()
    found = torch.autograd.grad(loss, list(reader.parameters()))
    assert types == [torch.float32]
    assert half.dtype == torch.bfloat16  # the projection of what was read
    assert_within(half.float(), single, 0.03)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert_within(ours, theirs, 0.05)


def recording_types(apply: Callable[..., Tensor], types: list[torch.dtype]) -> object:
    def call(*arguments: object) -> Tensor:
        out = apply(*arguments)
        types.append(out.dtype)
        return out

    return call


def assert_within(our: Tensor, their: Tensor, part: float) -> None:
    """The difference has at most this part of the norm; bf16 keeps three digits at best."""
    assert (our - their).norm() <= part * their.norm()


def test_memory_grows_with_windows_by_their_inputs_and_outputs_only():
    num_times, num_units, num_latents, dim_head = 30, 174, 128, 64
    torch.manual_seed(0)
    reader = Reader(
        "concatenated",
        dim=64,
        dim_head=dim_head,
        num_times=num_times,
        num_units=num_units,
        num_latents=num_latents,
    )
    few, many = (peak_bytes(reader, draw(n, num_times, num_units)) for n in (4, 16))
    # the grid of activity and scales, and what two heads read: each with a gradient and a copy
    of_window = 4 * 4 * (num_times * num_units + 2 * num_latents * dim_head)
    scores_of_window = 4 * 2 * num_latents * num_times * num_units
    assert many - few <= 12 * of_window
    assert of_window < scores_of_window / 10  # so not one matrix of scores per window was kept


def peak_bytes(reader: Reader, activity: Tensor) -> int:
    """Most memory held at once by a forward and a backward pass, beyond what was held before."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        reader(activity).square().sum().backward()
    events = (e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]")
    changes = sorted((event.start_ns(), event.nbytes()) for event in events)
    return max(accumulate(change for _, change in changes))
