"""Self-attention of the latents is torch-brain's, under the same names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_brain.nn import RotarySelfAttention as Textbook
from torch_brain.nn import RotaryTimeEmbedding as TextbookTimes

from poyo_ssl.model.rotary import RotaryTimeEmbedding
from poyo_ssl.model.self_attention import RotarySelfAttention

DIM, HEADS, DIM_HEAD, WINDOWS, LATENTS = 12, 3, 8, 2, 7


def both(dtype: torch.dtype) -> tuple[RotarySelfAttention, Textbook]:
    """Ours and torch-brain's with the same random state dict."""
    torch.manual_seed(0)
    ours = RotarySelfAttention(dim=DIM, num_heads=HEADS, dim_head=DIM_HEAD).to(dtype)
    for parameter in ours.norm.parameters():
        nn.init.normal_(parameter)
    theirs = Textbook(dim=DIM, heads=HEADS, dim_head=DIM_HEAD, rotate_value=True).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def inputs(dtype: torch.dtype, num_latents: int = LATENTS) -> tuple[Tensor, Tensor]:
    """Latents of windows and their times, out of order and some of them equal."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(WINDOWS, num_latents, DIM, generator=generator, dtype=torch.float64)
    times = torch.randint(0, 4, (num_latents,), generator=generator) * 0.3
    return latents.to(dtype).requires_grad_(), times.to(dtype)


def make_rotary(dtype: torch.dtype) -> RotaryTimeEmbedding:
    return RotaryTimeEmbedding(DIM_HEAD, DIM_HEAD // 2, shortest=0.1, longest=4.0).to(dtype)


@pytest.mark.parametrize(
    ("dtype", "of_outputs", "of_gradients"),
    [(torch.float64, 1e-13, 1e-11), (torch.float32, 1e-5, 1e-4)],
    ids=str,
)
@pytest.mark.parametrize("num_latents", [1, LATENTS])
def test_it_equals_torch_brain_with_all_gradients(dtype, of_outputs, of_gradients, num_latents):
    ours, theirs = both(dtype)
    latents, times = inputs(dtype, num_latents)
    rotary = make_rotary(dtype)
    textbook = TextbookTimes(DIM_HEAD, DIM_HEAD // 2, t_min=0.1, t_max=4.0).to(dtype)
    our_read = ours(latents, rotary(times))
    their_read = theirs(latents, textbook(times).expand(WINDOWS, -1, -1))
    torch.testing.assert_close(our_read, their_read, atol=of_outputs, rtol=0)
    weight = torch.linspace(-1, 1, our_read.numel(), dtype=dtype).view_as(our_read)
    found, wanted = (
        torch.autograd.grad((read * weight).sum(), [latents, *layer.parameters()])
        for read, layer in ((our_read, ours), (their_read, theirs))
    )
    for our, their in zip(found, wanted, strict=True):
        torch.testing.assert_close(our, their, atol=of_gradients, rtol=of_gradients)


@torch.no_grad()
def test_only_differences_of_time_matter():
    ours, _ = both(torch.float64)
    (latents, times), rotary = inputs(torch.float64), make_rotary(torch.float64)
    here, later, wider = (ours(latents, rotary(t)) for t in (times, times + 2.9, times * 1.3))
    torch.testing.assert_close(here, later, atol=1e-12, rtol=0)
    assert (here - wider).abs().max() > 1e-2


@torch.no_grad()
def test_a_latent_is_known_by_its_time_and_not_by_its_place():
    ours, _ = both(torch.float64)
    (latents, times), rotary = inputs(torch.float64), make_rotary(torch.float64)
    order = torch.randperm(LATENTS, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        ours(latents[:, order], rotary(times[order])),
        ours(latents, rotary(times))[:, order],
    )


def test_half_precision_is_near_single():
    ours, _ = both(torch.float32)
    latents, times = inputs(torch.float32)
    phases = make_rotary(torch.float32)(times)
    single = ours(latents, phases)
    with torch.autocast("cpu", torch.bfloat16):
        half = ours(latents, phases)
    assert half.dtype == torch.bfloat16
    assert (half - single).norm() <= 0.03 * single.norm()
    half.float().square().sum().backward()
    assert latents.grad.isfinite().all()
