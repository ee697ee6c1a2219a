"""Cross-attention from latents to a grid of units x time, without a projection per token.

A token carries its unit and its time. Attention needs, for latent ``l``, head ``h`` and the token
of unit ``u`` at time ``t`` (rotary matrices ``R``, token ``x``, latent time ``τ``)::

    score(l, h, t, u) = <R(τ_l) W_q q_l, R(t) W_k x_tu>
    read(l, h)        = R(-τ_l) Σ_tu softmax(score)_tu R(t) W_v x_tu

Latent queries are the same for every window, and a value only scales or shifts what belongs to
its unit. So almost all of it is done once per step for all windows of a recording:

**Gain tokens** ``x = unit ⊙ (W patch + b)``, not normalised. Rotation and ``W_k`` fold into the
queries, ``<W_k^T R(-t) R(τ) W_q q, x>``, so keys are never formed; tokens are pooled over units
first and projected afterwards, ``R(t) W_v Σ_u a_tu x_tu``. With ``R`` = latents x heads readers
the operations per token fall from ``4 D H E + 4 R E`` (projections, scores, pooling) to ``4 R D``.

A gain token is also a combination of ``P + 1`` tokens of its unit, ``unit ⊙ column of [W b]``, by
its patch and a one; its scores and values are the same combination of theirs. Those are shared by
all windows, so that where there are enough windows a token costs ``2 (P + 1) (R + H E) + 2 R E``.

**Concatenated tokens** ``x = LN([a w + b ; unit])``, as published. The layer norm of a sum: with
``w`` and ``c_u = [b ; unit]`` centred over their features, and ``c_u`` split into a part along
``w``, ``α_u w``, and a rest ``o_u``, the variance is ``((a + α_u)² |w|² + |o_u|²) / D`` (a sum of
squares, so nothing cancels) and the token ``s (a w + c_u) γ + β`` with ``s`` one over its root.
Keys and values are linear in that::

    R(t) W x_tu = (a R(t) W γw + R(t) W γc_u) s_tu + R(t) W β

Three projections that no window repeats, rotated once; the scores of a window are the shared
products of queries and keys, scaled and shifted, without any product of its own.

Which order of operations is fastest depends on the device. A CPU takes one block of windows at a
time (:mod:`poyo_ssl.model.blockwise`); an accelerator forms the tokens (gain) or the keys and
values (concatenated) of all windows and leaves the rest to its fused kernels. Both are textbook
attention up to rounding: ``tests/model/test_grid_attention.py`` compares with torch-brain's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poyo_ssl.model.blockwise import BITS, AttendScaledGrid, PoolCombinedTokens, PoolGainTokens
from poyo_ssl.model.rotary import rotate

SPEED_OF_TOKENS = 1.4
"""Multiply-adds of gain tokens in the time of one of their combinations, whose products are small
(measured on a CPU)."""


class GridAttention(nn.Module):
    """What an encoder must know of a kind of token; here what holds for most kinds."""

    @staticmethod
    def token_dim(dim: int) -> int:
        """Size of a unit embedding."""
        return dim

    @staticmethod
    def problem(dim: int, patch_length: float) -> str:
        """What an encoder of this size, with patches of so many seconds, lacks; empty: nothing."""
        return ""

    @staticmethod
    def begin(value_map: nn.Linear) -> None:
        """Changes the first weights of the map from patches to features; most keep them."""


class UnnormalisedAttention(GridAttention):
    """Weights of an attention that normalises its queries, and reads tokens as loud as they are.

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


class GainCrossAttention(UnnormalisedAttention):
    """Latents read tokens whose value scales the embedding of their unit.

    Unlike ``[value ; unit]`` or ``value + unit``, the score of a latent is then linear in the
    unit's activity with a weight of its own for every unit, as in a linear decoder, from the
    first step on. The tokens are not normalised: a unit that is twice as active is twice as loud.
    """

    def forward(
        self,
        latents: Tensor,
        patches: Tensor,
        value_map: nn.Linear,
        units: Tensor,
        latent_phases: Tensor,
        patch_phases: Tensor,
        is_hidden: Tensor | None = None,
    ) -> Tensor:
        """Reads every window.

        Args:
            latents: Latent queries, the same for every window, (L, D).
            patches: Activity, (B, T, U, P): P imaging samples in each of T patches.
            value_map: P samples to the D factors that scale the unit's embedding.
            units: Embedding of every unit, (U, D).
            latent_phases: Rotary phases of the latents' times, (L, dim_head / 2), complex.
            patch_phases: Rotary phases of the patches' times, (T, dim_head / 2), complex.
            is_hidden: True where a token must not be read, (B, T, U). In a window that is wholly
                hidden the latents read nothing.

        Returns:
            What each latent read, (B, L, D).
        """
        num_latents, heads, size = len(latents), self.num_heads, self.dim_head
        num_times = len(patch_phases)
        is_empty, is_left_out = _split_hidden(is_hidden)

        queries = self.to_query(self.norm(latents)).view(num_latents, heads, size)
        queries = rotate(queries, latent_phases[:, None]) * size**-0.5  # (L, H, E)
        queries = rotate(queries.expand(num_times, -1, -1, -1), _of_minus(patch_phases))

        is_combined = _is_blockwise(patches) and self._combining_pays(patches, num_latents)
        pool = self._pool_combined if is_combined else self._pool_tokens
        values = pool(queries, patches, value_map, units, is_left_out)  # (B, T, L, H, E)
        read = rotate(values, patch_phases[:, None, None]).sum(1)  # (B, L, H, E)
        if is_empty is not None:
            read = read.masked_fill(is_empty[:, None, None, None], 0.0)
        out: Tensor = self.to_out(rotate(read, latent_phases.conj()[:, None]).flatten(-2))
        return out

    def _pool_tokens(
        self,
        queries: Tensor,
        patches: Tensor,
        value_map: nn.Linear,
        units: Tensor,
        is_left_out: Tensor | None,
    ) -> Tensor:
        """Pools tokens by queries (T, L, H, E) and then takes their values, (B, T, L, H, E)."""
        num_latents, heads, size = queries.shape[1:]
        folded = torch.einsum("tlhe,hed->tlhd", queries, self.to_key.weight.view(heads, size, -1))
        pool = PoolGainTokens.apply if _is_blockwise(patches) else pool_gain_tokens
        pooled = pool(
            patches, units, value_map.weight, value_map.bias, folded.flatten(1, 2), is_left_out
        )
        pooled = pooled.unflatten(2, (num_latents, heads))  # (B, T, L, H, D)
        value_weight = self.to_value.weight.view(heads, size, -1)
        return torch.einsum("btlhd,hed->btlhe", pooled, value_weight)

    def _pool_combined(
        self,
        queries: Tensor,
        patches: Tensor,
        value_map: nn.Linear,
        units: Tensor,
        is_left_out: Tensor | None,
    ) -> Tensor:
        """The same, from scores and values of the P + 1 tokens that the unit's are made of."""
        size = self.num_heads, self.dim_head
        parts = units[:, None] * torch.cat([value_map.weight.T, value_map.bias[None]])
        keys, values = (to(parts).unflatten(-1, size) for to in (self.to_key, self.to_value))
        scores = torch.einsum("tlhe,uphe->tuphl", queries * BITS, keys)
        pooled: Tensor = PoolCombinedTokens.apply(patches, scores, values, is_left_out)
        return pooled.permute(1, 0, 3, 2, 4)

    def _combining_pays(self, patches: Tensor, num_latents: int) -> bool:
        """Whether scores and values of all windows take less time without their tokens."""
        num_windows, num_times, _, num_samples = patches.shape
        dim, inner = self.to_key.in_features, self.to_key.out_features
        of_tokens = dim * (num_samples + 2 * num_latents * self.num_heads)
        shared = num_latents * inner + 2 * dim * inner / num_times
        shared /= max(1, num_windows)  # no windows are read like one
        combined = (num_samples + 1) * (num_latents * self.num_heads + inner + shared)
        return of_tokens > SPEED_OF_TOKENS * (combined + num_latents * inner)


def pool_gain_tokens(
    patches: Tensor,
    units: Tensor,
    weight: Tensor,
    bias: Tensor,
    queries: Tensor,
    is_left_out: Tensor | None,
) -> Tensor:
    """Attention-weighted means of gain-modulated tokens, for every reader and patch time.

    Args:
        patches: Activity, (B, T, U, P).
        units: Embedding of every unit, (U, D).
        weight: Weight of the value map, (D, P).
        bias: Bias of the value map, (D,).
        queries: One query per patch time and reader (latent and head), (T, R, D).
        is_left_out: True where a token must not be read, (B, T, U).

    Returns:
        (B, T, R, D); the weights of a reader sum to one over all times and units.
    """
    tokens = F.linear(patches, weight, bias) * units  # (B, T, U, D)
    scores = queries @ tokens.transpose(-1, -2)  # (B, T, R, U)
    if is_left_out is not None:
        scores = scores.masked_fill(is_left_out[:, :, None], float("-inf"))
    scores = scores.transpose(1, 2)  # softmax runs over all times and units together
    attention = scores.flatten(-2).softmax(-1).view_as(scores).transpose(1, 2)
    return attention @ tokens


class ConcatenatedCrossAttention(GridAttention):
    """Latents read tokens ``[value ; unit embedding]`` under a layer norm, as in POYO+.

    Equal to torch-brain's ``RotaryCrossAttention`` (``rotate_value=True``), whose parameters have
    the same names.

    Args:
        dim: Size of latents and tokens; values and unit embeddings have half of it each.
        num_heads: Attention heads.
        dim_head: Size of a head.

    References:
        Azabou et al., ICLR 2025 (POYO+ for calcium imaging).
    """

    @staticmethod
    def token_dim(dim: int) -> int:
        """Half: the other half is the value's."""
        return dim // 2

    @staticmethod
    def problem(dim: int, patch_length: float) -> str:
        """One imaging sample a token, in an even number of features."""
        if patch_length > 0 or dim % 2:
            return (
                "Concatenated tokens hold one imaging sample and two halves: they need "
                f"patch_length=0 and an even dim, got {patch_length} and {dim}."
            )
        return ""

    def __init__(self, *, dim: int, num_heads: int, dim_head: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dim_head = dim_head
        self.norm = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, num_heads * dim_head, bias=False)
        self.to_kv = nn.Linear(dim, 2 * num_heads * dim_head, bias=False)
        self.to_out = nn.Linear(num_heads * dim_head, dim)

    def forward(
        self,
        latents: Tensor,
        patches: Tensor,
        value_map: nn.Linear,
        units: Tensor,
        latent_phases: Tensor,
        patch_phases: Tensor,
        is_hidden: Tensor | None = None,
    ) -> Tensor:
        """Reads every window; see :meth:`GainCrossAttention.forward`.

        A patch is one imaging sample (P = 1), ``value_map`` gives D / 2 features and ``units``
        has shape (U, D / 2).
        """
        activity = patches.squeeze(-1)
        is_empty, is_left_out = _split_hidden(is_hidden)
        queries = self.to_q(self.norm(latents)).unflatten(-1, (self.num_heads, self.dim_head))
        queries = rotate(queries, latent_phases[:, None]).transpose(0, 1)  # (H, L, E)
        queries = queries * self.dim_head**-0.5

        value, of_unit = self._centre(value_map, units)  # (D,), (U, D)
        scale = self._inverse_deviation(activity, value, of_unit)  # (B, T, U)
        gamma, beta = self.norm_context.weight, self.norm_context.bias
        shared = torch.cat([(value * gamma)[None], beta[None], of_unit * gamma])
        rotated = self._rotated(shared, patch_phases)  # (2, H, T, 2 + U, E)
        keys, values = ((part[:, :, 0], part[:, :, 2:], part[:, :, 1]) for part in rotated)

        attend = _attend_blockwise if _is_blockwise(patches) else attend_scaled_grid
        read = attend(activity, scale, queries, keys, values, is_left_out)  # (B, H, L, E)
        if is_empty is not None:
            read = read.masked_fill(is_empty[:, None, None, None], 0.0)
        read = rotate(read, latent_phases.conj()).transpose(1, 2)
        out: Tensor = self.to_out(read.flatten(-2))
        return out

    def _centre(self, value_map: nn.Linear, units: Tensor) -> tuple[Tensor, Tensor]:
        """What activity scales in a token, (D,), and what its unit adds, (U, D); mean 0 each."""
        slope, bias = value_map.weight[:, 0], value_map.bias
        value = torch.cat([slope, torch.zeros_like(slope)])
        of_unit = torch.cat([bias.expand(len(units), -1), units], dim=-1)
        return value - value.mean(), of_unit - of_unit.mean(-1, keepdim=True)

    def _inverse_deviation(self, activity: Tensor, value: Tensor, of_unit: Tensor) -> Tensor:
        """One over the standard deviation of every token's features, (B, T, U).

        The square of the sum, multiplied out, has the exact gradient also where the value map is
        small or zero, but where activity and unit cancel not the exact value; the sum of squares
        has the exact value only. So the second corrects the first as a constant.
        """
        power, shared = value.square().sum(), (of_unit * value).sum(-1)
        total = (activity * power + 2 * shared) * activity + of_unit.square().sum(-1)
        with torch.no_grad():
            is_split = power > torch.finfo(power.dtype).tiny
            along = torch.where(is_split, shared / power, 0.0)  # (U,)
            rest = (of_unit - along[:, None] * value).square().sum(-1)  # (U,)
            correction = (activity + along).square() * power + rest - total
        return torch.rsqrt((total + correction) / len(value) + self.norm_context.eps)

    def _rotated(self, features: Tensor, phases: Tensor) -> Tensor:
        """Keys and values of features (N, D), rotated to every time, (2, H, T, N, E)."""
        projected = self.to_kv(features).unflatten(-1, (2, self.num_heads, self.dim_head))
        return rotate(projected.permute(1, 2, 0, 3)[:, :, None], phases[:, None])


Grids = tuple[Tensor, Tensor, Tensor]
"""What activity adds, (H, T, E), what units are, (H, T, U, E), and the offset, (H, T, E)."""


def attend_scaled_grid(
    activity: Tensor,
    scale: Tensor,
    queries: Tensor,
    keys: Grids,
    values: Grids,
    is_left_out: Tensor | None,
) -> Tensor:
    """Attention to ``(activity * slope + of_unit) * scale + offset``, keys and values alike.

    Args:
        activity: (B, T, U).
        scale: (B, T, U).
        queries: Scaled and rotated, (H, L, E).
        keys: Rotated.
        values: Rotated.
        is_left_out: True where a token must not be read, (B, T, U).

    Returns:
        (B, H, L, E).
    """
    factors = activity[:, None, ..., None], scale[:, None, ..., None]

    def of_windows(slope: Tensor, of_unit: Tensor, offset: Tensor) -> Tensor:
        grid = torch.addcmul(of_unit, slope[:, :, None], factors[0])
        return torch.addcmul(offset[:, :, None], grid, factors[1]).flatten(2, 3)

    may_read = None if is_left_out is None else ~is_left_out.flatten(1)[:, None, None]
    return F.scaled_dot_product_attention(
        queries.expand(len(activity), -1, -1, -1),
        of_windows(*keys),
        of_windows(*values),
        attn_mask=may_read,
        scale=1.0,
    )


def _attend_blockwise(
    activity: Tensor,
    scale: Tensor,
    queries: Tensor,
    keys: Grids,
    values: Grids,
    is_left_out: Tensor | None,
) -> Tensor:
    """As :func:`attend_scaled_grid`, with the queries multiplied by the shared keys only."""
    slope, of_unit, offset = keys
    queries = queries * BITS
    of_unit_scores = (queries @ of_unit.flatten(1, 2).transpose(1, 2)).unflatten(
        -1, of_unit.shape[1:3]
    )
    read: Tensor = AttendScaledGrid.apply(
        activity,
        scale,
        queries @ slope.transpose(1, 2),
        of_unit_scores,
        queries @ offset.transpose(1, 2),
        *values,
        is_left_out,
    )
    return read


def _is_blockwise(patches: Tensor) -> bool:
    """Whether the windows are taken block by block; gradients of the activity itself are not."""
    return patches.device.type == "cpu" and not patches.requires_grad


def _of_minus(phases: Tensor) -> Tensor:
    return phases.conj()[:, None, None]


def _split_hidden(is_hidden: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Windows that are wholly hidden, (B,), and the tokens to leave out in the others."""
    if is_hidden is None:
        return None, None
    is_empty = is_hidden.flatten(1).all(1)  # a softmax over nothing would be NaN
    return is_empty, is_hidden & ~is_empty[:, None, None]
