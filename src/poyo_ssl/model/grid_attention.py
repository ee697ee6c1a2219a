"""Cross-attention from latents to a grid of units x time, without a projection per token.

A token carries its unit and its time. Attention needs, for latent ``l``, head ``h`` and the token
of unit ``u`` at time ``t`` (rotary matrices ``R``, token ``x``, latent time ``τ``)::

    score(l, h, t, u) = <R(τ_l) W_q q_l, R(t) W_k x_tu> = < W_k^T R(-t) R(τ_l) W_q q_l , x_tu >

Latent queries are the same for every window, so the bracket's left side is computed once per step
and the keys are never formed. Likewise the values::

    Σ_u a_tu R(t) W_v x_tu = R(t) W_v Σ_u a_tu x_tu

so tokens are pooled over units first and projected afterwards. What is left per window is two
matrix products with the tokens themselves, ``(latents x heads) x dim x (units x timesteps)`` each;
the 2 x dim x inner_dim operations per token of the textbook form disappear. The result is the same
up to rounding (``tests/model/test_grid_attention.py`` compares with torch-brain's own attention).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_brain.nn import RotaryTimeEmbedding


class GridCrossAttention(nn.Module):
    """Latents read a grid of tokens; rotary in time, on queries, keys and values.

    The tokens are not normalised: a unit that is twice as active is twice as loud, which is what
    tells units apart when the value scales the unit's embedding.

    Args:
        dim: Size of latents and tokens.
        num_heads: Attention heads.
        dim_head: Size of a head.
    """

    def __init__(self, *, dim: int, num_heads: int, dim_head: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dim_head = dim_head
        self.norm = nn.LayerNorm(dim)
        self.to_query = nn.Linear(dim, num_heads * dim_head, bias=False)
        self.to_key = nn.Linear(dim, num_heads * dim_head, bias=False)
        self.to_value = nn.Linear(dim, num_heads * dim_head, bias=False)
        self.to_out = nn.Linear(num_heads * dim_head, dim)

    def forward(
        self,
        latents: Tensor,
        tokens: Tensor,
        latent_rotary: Tensor,
        token_rotary: Tensor,
        is_hidden: Tensor | None = None,
    ) -> Tensor:
        """Reads the tokens of every window.

        Args:
            latents: Latent queries, the same for every window, (L, D).
            tokens: One token per patch of time and unit, (B, T, U, D).
            latent_rotary: Rotary embedding of the latent times, (L, 2 * dim_head).
            token_rotary: Rotary embedding of the patch times, (T, 2 * dim_head).
            is_hidden: True where a token must not be read, (B, T, U). In a window that is wholly
                hidden the latents read nothing.

        Returns:
            What each latent read, (B, L, D).
        """
        num_windows, num_times, num_units, dim = tokens.shape
        num_latents, heads, size = len(latents), self.num_heads, self.dim_head
        rotate, invert = RotaryTimeEmbedding.rotate, RotaryTimeEmbedding.invert

        queries = self.to_query(self.norm(latents)).view(num_latents, heads, size)
        queries = rotate(queries, latent_rotary, unsqueeze_dim=1) * size**-0.5  # (L, H, E)
        # fold the keys' rotation and projection into the queries: one query per patch time
        queries = rotate(
            queries.reshape(1, -1, size), invert(token_rotary), unsqueeze_dim=1
        )  # (T, L*H, E)
        key_weight = self.to_key.weight.view(heads, size, dim)
        folded = torch.einsum(
            "tlhe,hed->tlhd", queries.view(num_times, num_latents, heads, size), key_weight
        ).reshape(num_times, num_latents * heads, dim)

        scores = folded @ tokens.transpose(-1, -2)  # (B, T, L*H, U)
        if is_hidden is not None:
            is_empty = is_hidden.flatten(1).all(1)  # (B,); a softmax over nothing would be NaN
            is_left_out = is_hidden & ~is_empty[:, None, None]
            scores = scores.masked_fill(is_left_out[:, :, None, :], float("-inf"))
        scores = scores.transpose(1, 2)  # softmax runs over all times and units together
        attention = scores.flatten(-2).softmax(-1).view(num_windows, -1, num_times, num_units)
        pooled = attention.transpose(1, 2) @ tokens  # (B, T, L*H, D)

        value_weight = self.to_value.weight.view(heads, size, dim)
        pooled = pooled.view(num_windows, num_times, num_latents, heads, dim)
        values = torch.einsum("btlhd,hed->btlhe", pooled, value_weight).flatten(2, 3)
        values = rotate(values, token_rotary, unsqueeze_dim=1).sum(1)  # (B, L*H, E)
        if is_hidden is not None:
            values = values.masked_fill(is_empty[:, None, None], 0.0)
        values = values.view(num_windows, num_latents, heads, size)
        values = rotate(values, invert(latent_rotary), unsqueeze_dim=1)
        out: Tensor = self.to_out(values.flatten(-2))
        return out
