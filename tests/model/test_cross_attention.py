"""Cross-attention is torch-brain's, under the same names."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_brain.nn import RotaryCrossAttention as Textbook
from torch_brain.nn import RotaryTimeEmbedding as TextbookTimes

from poyo_ssl.model.cross_attention import RotaryCrossAttention
from poyo_ssl.model.rotary import RotaryTimeEmbedding

DIM, HEADS, DIM_HEAD, WINDOWS, QUERIES, LATENTS = 12, 3, 8, 2, 4, 7


@pytest.mark.parametrize("rotate_value", [True, False])
def test_it_equals_torch_brain_with_all_gradients(rotate_value):
    torch.manual_seed(0)
    ours = RotaryCrossAttention(
        dim=DIM, num_heads=HEADS, dim_head=DIM_HEAD, rotate_value=rotate_value
    ).double()
    for norm in (ours.norm, ours.norm_context):
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
    theirs = Textbook(dim=DIM, heads=HEADS, dim_head=DIM_HEAD, rotate_value=rotate_value).double()
    theirs.load_state_dict(ours.state_dict())
    queries, latents = (
        torch.randn(WINDOWS, length, DIM, dtype=torch.float64).requires_grad_()
        for length in (QUERIES, LATENTS)
    )
    asked = torch.rand(WINDOWS, QUERIES, dtype=torch.float64)
    known = torch.rand(LATENTS, dtype=torch.float64)
    rotary = RotaryTimeEmbedding(DIM_HEAD, DIM_HEAD // 2, shortest=0.1, longest=4.0).double()
    textbook = TextbookTimes(DIM_HEAD, DIM_HEAD // 2, t_min=0.1, t_max=4.0).double()
    our_read = ours(queries, latents, rotary(asked), rotary(known))
    their_read = theirs(queries, latents, textbook(asked), textbook(known).expand(WINDOWS, -1, -1))
    torch.testing.assert_close(our_read, their_read, atol=1e-13, rtol=0)
    weight = torch.linspace(-1, 1, our_read.numel(), dtype=torch.float64).view_as(our_read)
    found, wanted = (
        torch.autograd.grad((read * weight).sum(), [queries, latents, *layer.parameters()])
        for read, layer in ((our_read, ours), (their_read, theirs))
    )
    for our, their in zip(found, wanted, strict=True):
        torch.testing.assert_close(our, their, atol=1e-11, rtol=1e-11)
