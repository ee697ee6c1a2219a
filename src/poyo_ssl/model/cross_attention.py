"""Cross-attention of queries to latents, rotary in time."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from poyo_ssl.model.rotary import rotate


class RotaryCrossAttention(nn.Module):
    """Pre-norm cross-attention with rotary queries and keys.

    Equal to torch-brain's layer of the same name, whose parameters have the same names.

    Args:
        dim: Size of queries and context.
        num_heads: Attention heads.
        dim_head: Size of a head.
        rotate_value: Whether values are rotated, too, and what was read is turned back.
    """

    def __init__(self, *, dim: int, num_heads: int, dim_head: int, rotate_value: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.rotate_value = rotate_value
        self.norm = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, num_heads * dim_head, bias=False)
        self.to_kv = nn.Linear(dim, 2 * num_heads * dim_head, bias=False)
        self.to_out = nn.Linear(num_heads * dim_head, dim)

    def forward(
        self, queries: Tensor, context: Tensor, query_phases: Tensor, context_phases: Tensor
    ) -> Tensor:
        """Reads the context.

        Args:
            queries: (B, Q, D).
            context: (B, C, D).
            query_phases: Rotary phases of the queries' times, (B, Q, dim_head / 2), complex.
            context_phases: Those of the context, (C, dim_head / 2), complex.

        Returns:
            (B, Q, D).
        """
        query_phases, context_phases = query_phases[:, :, None], context_phases[:, None]
        query = self.to_q(self.norm(queries)).unflatten(-1, (self.num_heads, -1))
        key_value = self.to_kv(self.norm_context(context)).unflatten(-1, (2, self.num_heads, -1))
        key, value = key_value.unbind(2)  # (B, C, H, E)
        query, key = rotate(query, query_phases), rotate(key, context_phases)
        if self.rotate_value:
            value = rotate(value, context_phases)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        read = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        if self.rotate_value:
            read = rotate(read, query_phases.conj())
        out: Tensor = self.to_out(read.flatten(-2))
        return out
