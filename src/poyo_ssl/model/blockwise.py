"""Attention over grids of calcium activity on a CPU: block by block, in its caches.

On a CPU the textbook order of operations is bound by memory: every intermediate of a step has
hundreds of megabytes, is written once and read once. Here one block of windows at a time goes
through all operations in scratch memory that stays in the caches; the backward pass computes the
attention weights again from their saved logarithmic sums (as FlashAttention does, Dao et al.
2022). Scores are logarithms to the base 2, since ``exp2`` takes a fifth of the time of ``exp``.
Accelerators have fused kernels for this and do not come here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TOKENS_IN_CACHE = 2**18
"""Numbers in the tokens of a block of windows: 1 MB in single precision."""
BITS = math.log2(math.e)
"""A natural logarithm in units of those to the base 2."""


class PoolGainTokens(torch.autograd.Function):
    """Attention-weighted means of gain-modulated tokens, for every latent, head and patch time.

    A token is ``unit ⊙ (W patch + b)``; tokens exist for one block of windows at a time. The
    dense form is ``poyo_ssl.model.grid_attention.pool_gain_tokens``.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any,
        patches: Tensor,
        units: Tensor,
        weight: Tensor,
        bias: Tensor,
        queries: Tensor,
        is_left_out: Tensor | None,
    ) -> Tensor:
        """Patches (B, T, U, P), units (U, D), queries (T, R, D) -> pooled tokens (B, T, R, D)."""
        num_windows, num_times, num_units, _ = patches.shape
        num_readers = queries.shape[1]
        pooled = patches.new_empty(num_windows, num_times, num_readers, units.shape[1])
        log_sum = patches.new_empty(num_windows, 1, num_readers, 1)
        in_bits = queries * BITS
        for block in _blocks(num_windows, num_times * num_units * units.shape[1]):
            tokens = _gains(patches[block], weight, bias).mul_(units)
            scores = _scores(in_bits, tokens, is_left_out, block)  # (b, T, R, U)
            largest = scores.amax((1, 3), keepdim=True)
            weights = scores.sub_(largest).exp2_()
            total = weights.sum((1, 3), keepdim=True)
            torch.div(weights @ tokens, total, out=pooled[block])
            log_sum[block] = largest + total.log2()
        ctx.save_for_backward(patches, units, weight, bias, queries, pooled, log_sum)
        ctx.is_left_out = is_left_out
        return pooled

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(  # type: ignore[override]
        ctx: Any, d_pooled: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Gradients of all tensors but the patches, which are data."""
        patches, units, weight, bias, queries, pooled, log_sum = ctx.saved_tensors
        d_units, d_weight = torch.zeros_like(units), weight.new_zeros(weight.T.shape)
        d_bias, d_queries = torch.zeros_like(bias), torch.zeros_like(queries)
        in_bits = queries * BITS
        mean_gradient = (d_pooled * pooled).sum((1, 3), keepdim=True)  # (B, 1, R, 1)
        for block in _blocks(len(patches), pooled[0, :, 0].numel() * len(units)):
            gains = _gains(patches[block], weight, bias)
            tokens = gains * units
            scores = _scores(in_bits, tokens, ctx.is_left_out, block)
            attention = scores.sub_(log_sum[block]).exp2_()
            gradient = d_pooled[block]
            d_scores = (gradient @ tokens.transpose(-1, -2)).sub_(mean_gradient[block])
            d_scores.mul_(attention)  # (b, T, R, U)
            d_queries += (d_scores @ tokens).sum(0)
            d_tokens = attention.transpose(-1, -2) @ gradient
            d_tokens += d_scores.transpose(-1, -2) @ queries  # (b, T, U, D)
            d_units += gains.mul_(d_tokens).sum((0, 1))
            d_gains = d_tokens.mul_(units).flatten(0, 2)
            d_weight.addmm_(
                patches[block].flatten(0, 2).T, d_gains
            )  # the transpose is five times slower
            d_bias += d_gains.sum(0)
        return None, d_units, d_weight.T, d_bias, d_queries, None


class PoolCombinedTokens(torch.autograd.Function):
    """As :class:`PoolGainTokens`, of values and without tokens.

    The score of a token is the combination, by the P samples of its patch and a one, of P + 1
    scores that its unit has in all windows; so is its value. Blocks are of units, since it is the
    windows that share these scores and values.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any, patches: Tensor, scores: Tensor, values: Tensor, is_left_out: Tensor | None
    ) -> Tensor:
        """Attention-weighted means of the values at every time.

        Args:
            ctx: Autograd's.
            patches: Activity, (B, T, U, P).
            scores: In bits, of the tokens that a unit's tokens combine, (T, U, P + 1, H, L).
            values: Of the same, (U, P + 1, H, E).
            is_left_out: True where a token must not be read, (B, T, U).

        Returns:
            (T, B, H, L, E); the weights of a reader sum to one over all times and units.
        """
        grid = _CombinedGrid(patches, scores, values, is_left_out)
        pooled = patches.new_zeros(*grid.readers, values.shape[-1])
        largest = patches.new_full(grid.readers[1:], torch.finfo(patches.dtype).min / 2)
        total = torch.zeros_like(largest)  # (B, H, L)
        for units in grid.blocks():
            weights = grid.scores(units)  # (u, T, B, H, L)
            before, largest = largest, torch.maximum(largest, weights.amax((0, 1)))
            shrunk = (before - largest).exp2_()
            weights.sub_(largest).exp2_()
            total.mul_(shrunk).add_(weights.sum((0, 1)))
            pooled.mul_(shrunk[..., None])
            pooled.flatten(0, 2).baddbmm_(_by_reader(weights).mT, grid.values(units))
        pooled /= total[..., None]
        ctx.save_for_backward(patches, scores, values, pooled, largest + total.log2())
        ctx.is_left_out = is_left_out
        return pooled

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(  # type: ignore[override]
        ctx: Any, d_pooled: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Gradients of scores and values; the patches are data."""
        patches, scores, values, pooled, log_sum = ctx.saved_tensors
        grid = _CombinedGrid(patches, scores, values, ctx.is_left_out)
        num_times, num_windows, num_heads, _ = grid.readers
        d_scores, d_values = torch.empty_like(grid.of_scores), torch.empty_like(values)
        gradient = d_pooled.flatten(0, 2)  # (T * B * H, L, E)
        mean_gradient = (d_pooled * pooled).sum((0, -1)).expand(grid.readers)
        mean_gradient = mean_gradient.flatten(0, 2)[:, None]  # (T * B * H, 1, L)
        for units in grid.blocks():
            attention = grid.scores(units).sub_(log_sum).exp2_()
            d_own = _by_reader(attention) @ gradient  # (T * B * H, u, E)
            d_own = d_own.unflatten(0, (num_times * num_windows, num_heads))
            combining = grid.patches[units].flatten(1, 2).mT  # (u, P + 1, T * B)
            for head in range(num_heads):
                d_values[units, :, head] = combining @ d_own[:, head].transpose(0, 1)
            d_weights = torch.baddbmm(mean_gradient, grid.values(units), gradient.mT, beta=-1)
            attention.flatten(1, 3).mul_(d_weights.transpose(0, 1))
            torch.matmul(grid.patches[units].mT, attention.flatten(3), out=d_scores[units])
        d_scores = d_scores.div_(BITS).transpose(0, 1).unflatten(-1, scores.shape[-2:])
        return None, d_scores, d_values, None


class _CombinedGrid:
    """Scores and values of every block of units of :class:`PoolCombinedTokens`."""

    def __init__(
        self, patches: Tensor, scores: Tensor, values: Tensor, is_left_out: Tensor | None
    ) -> None:
        num_windows, num_times, num_units, num_samples = patches.shape
        self.readers = num_times, num_windows, *scores.shape[-2:]  # T, B, H, L
        self.patches = patches.new_ones(num_units, num_times, num_windows, num_samples + 1)
        self.patches[..., :-1] = patches.permute(2, 1, 0, 3)
        self.of_scores = scores.flatten(-2).transpose(0, 1).contiguous()  # (U, T, P + 1, H * L)
        self.of_values = values.flatten(-2).contiguous()  # (U, P + 1, H * E)
        self.head_dim = values.shape[-1]
        self.is_left_out = None if is_left_out is None else is_left_out.permute(2, 1, 0)

    def blocks(self) -> list[slice]:
        """Of units."""
        num_windows = self.readers[0] * self.readers[1]
        numbers = num_windows * (self.of_scores.shape[-1] + self.of_values.shape[-1])
        return _blocks(len(self.patches), numbers)

    def scores(self, units: slice) -> Tensor:
        """(u, T, B, H, L)."""
        scores = self.patches[units] @ self.of_scores[units]
        scores = scores.unflatten(-1, self.readers[2:])
        if self.is_left_out is not None:
            scores.masked_fill_(self.is_left_out[units, ..., None, None], float("-inf"))
        return scores

    def values(self, units: slice) -> Tensor:
        """(T * B * H, u, E), a view."""
        values = self.patches[units].flatten(1, 2) @ self.of_values[units]
        return values.unflatten(-1, (-1, self.head_dim)).flatten(1, 2).transpose(0, 1)


def _by_reader(of_units: Tensor) -> Tensor:
    """(u, T, B, H, ...) -> (T * B * H, u, ...), a view."""
    return of_units.flatten(1, 3).transpose(0, 1)


def _blocks(num_windows: int, numbers_per_window: int) -> list[slice]:
    size = max(1, TOKENS_IN_CACHE // max(1, numbers_per_window))
    return [slice(first, first + size) for first in range(0, num_windows, size)]


def _gains(patches: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What scales the unit's embedding in every token: patches (b, T, U, P) -> (b, T, U, D)."""
    flat = torch.addmm(bias, patches.flatten(0, 2), weight.T)
    return flat.view(*patches.shape[:3], len(bias))


def _scores(queries: Tensor, tokens: Tensor, is_left_out: Tensor | None, block: slice) -> Tensor:
    scores = queries @ tokens.transpose(-1, -2)  # (b, T, R, U)
    if is_left_out is not None:
        scores.masked_fill_(is_left_out[block, :, None], float("-inf"))
    return scores


class AttendScaledGrid(torch.autograd.Function):
    """Attention to keys and values that are shared by all windows but for a shift and a scale.

    The key of unit ``u`` at time ``t`` in a window with activity ``a`` is
    ``(a key_slope + key_of_unit) * scale + key_offset``, and so is the value. The products of the
    keys with the latents' queries are the same for every window, so no window multiplies queries
    by keys: its scores take three passes of one operation each. The products come in bits
    (:data:`BITS`): the weight of a score ``s`` is ``2^s``.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx: Any,
        activity: Tensor,
        scale: Tensor,
        score_slope: Tensor,
        score_of_unit: Tensor,
        score_offset: Tensor,
        value_slope: Tensor,
        value_of_unit: Tensor,
        value_offset: Tensor,
        is_left_out: Tensor | None,
    ) -> Tensor:
        """What every latent reads in every window.

        Args:
            ctx: Autograd's.
            activity: (B, T, U).
            scale: (B, T, U).
            score_slope: Products of the queries with the keys' slopes, (H, L, T).
            score_of_unit: The same for the keys of units, (H, L, T, U).
            score_offset: The same for the keys' offsets, (H, L, T).
            value_slope: (H, T, E).
            value_of_unit: (H, T, U, E).
            value_offset: (H, T, E).
            is_left_out: True where a token must not be read, (B, T, U).

        Returns:
            (B, H, L, E).
        """
        grid = _ScaledGrid(
            score_slope, score_of_unit, score_offset, value_slope, value_of_unit, value_offset
        )
        read = activity.new_empty(len(activity), *score_slope.shape[:2], value_slope.shape[-1])
        log_sum = activity.new_empty(len(activity), *score_slope.shape[:2], 1)
        for window in range(len(activity)):
            left_out = None if is_left_out is None else is_left_out[window]
            scores = grid.scores(activity[window], scale[window], score_offset, left_out)
            largest = scores.amax(-1, keepdim=True)
            weights = scores.sub_(largest).exp2_()  # (H, L, T * U)
            total = weights.sum(-1, keepdim=True)
            values = grid.values(activity[window], scale[window]).flatten(1, 2)
            torch.bmm(weights, values, out=read[window]).div_(total)
            log_sum[window] = largest + total.log2()
        ctx.save_for_backward(activity, scale, *grid.shared, read, log_sum)
        ctx.is_left_out = is_left_out
        return read

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(  # type: ignore[override]
        ctx: Any, d_read: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Gradients of all tensors but the activity, which is data."""
        activity, scale, *shared, read, log_sum = ctx.saved_tensors
        grid = _ScaledGrid(*shared)
        gradients = [torch.zeros_like(tensor) for tensor in shared]
        d_scale = torch.empty_like(scale)
        mean_gradient = (d_read * read).sum(-1, keepdim=True)  # (B, H, L, 1)
        for window in range(len(activity)):
            left_out = None if ctx.is_left_out is None else ctx.is_left_out[window]
            d_scale[window] = grid.accumulate(
                gradients,
                activity[window],
                scale[window],
                log_sum[window],
                d_read[window],
                mean_gradient[window],
                left_out,
            )
        return None, d_scale, *gradients, None


class _ScaledGrid:
    """What the windows of :class:`AttendScaledGrid` share, and scratch memory for one of them."""

    def __init__(self, *shared: Tensor) -> None:
        self.shared = shared
        self._scores = torch.empty_like(shared[1])
        self._values = torch.empty_like(shared[4])

    def scores(
        self, activity: Tensor, scale: Tensor, offset: Tensor, is_left_out: Tensor | None
    ) -> Tensor:
        """(H, L, T * U), in scratch memory; the offset (H, L, T) may be less a constant."""
        slope, of_unit, *_ = self.shared
        scores = torch.addcmul(of_unit, slope[..., None], activity, out=self._scores)
        scores.mul_(scale).add_(offset[..., None])
        if is_left_out is not None:
            scores.masked_fill_(is_left_out, float("-inf"))
        return scores.flatten(-2)

    def values(self, activity: Tensor, scale: Tensor) -> Tensor:
        """(H, T, U, E), in scratch memory."""
        *_, slope, of_unit, offset = self.shared
        values = torch.addcmul(of_unit, slope[:, :, None], activity[..., None], out=self._values)
        return values.mul_(scale[..., None]).add_(offset[:, :, None])

    def accumulate(
        self,
        gradients: list[Tensor],
        activity: Tensor,
        scale: Tensor,
        log_sum: Tensor,
        d_read: Tensor,
        mean_gradient: Tensor,
        is_left_out: Tensor | None,
    ) -> Tensor:
        """Adds one window's gradients of the shared tensors; returns that of its scale, (T, U)."""
        d_score_slope, d_score_of_unit, d_score_offset = gradients[:3]
        d_value_slope, d_value_of_unit, d_value_offset = gradients[3:]
        score_slope, score_of_unit, offset = self.shared[:3]
        attention = self.scores(activity, scale, offset - log_sum, is_left_out).exp2_()

        d_values = (attention.transpose(1, 2) @ d_read).unflatten(1, activity.shape)  # (H,T,U,E)
        unscaled = torch.addcmul(
            self.shared[4], self.shared[3][:, :, None], activity[..., None], out=self._values
        )
        d_scale = (unscaled * d_values).sum((0, 3))
        d_value_offset += d_values.sum(2)
        d_value_of_unit += d_values.mul_(scale[..., None])
        d_value_slope += d_values.mul_(activity[..., None]).sum(2)

        values = self.values(activity, scale).flatten(1, 2)
        d_weights = (d_read / BITS) @ values.transpose(1, 2)
        d_scores = d_weights.sub_(mean_gradient / BITS).mul_(attention)  # of scores in bits
        d_scores = d_scores.unflatten(2, activity.shape)  # (H, L, T, U)
        d_score_offset += d_scores.sum(-1)
        unscaled = torch.addcmul(score_of_unit, score_slope[..., None], activity, out=self._scores)
        d_scale += unscaled.mul_(d_scores).sum((0, 1))
        d_score_of_unit += d_scores.mul_(scale)
        d_score_slope += d_scores.mul_(activity).sum(-1)
        return d_scale
