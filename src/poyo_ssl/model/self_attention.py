"""Self-attention of the latents, rotary in time."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from poyo_ssl.model.rotary import rotate


class RotarySelfAttention(nn.Module):
    """Pre-norm self-attention with rotary queries, keys and values.

    Equal to torch-brain's layer of the same name (``rotate_value=True``), whose parameters have
    the same names; it rotates queries, keys and values together, in one pass instead of 21.

    Args:
        dim: Size of the latents.
        num_heads: Attention heads.
        dim_head: Size of a head.
    """

    def __init__(self, *, dim: int, num_heads: int, dim_head: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dim_head = dim_head
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * num_heads * dim_head, bias=False)
        self.to_out = nn.Linear(num_heads * dim_head, dim)

    def forward(self, latents: Tensor, phases: Tensor) -> Tensor:
        """Reads the other latents of the same window.

        Args:
            latents: (B, L, D).
            phases: Rotary phases of the latents' times, (L, dim_head / 2), complex.

        Returns:
            (B, L, D).
        """
        qkv = self.to_qkv(self.norm(latents)).unflatten(-1, (3, self.num_heads, self.dim_head))
        qkv = rotate(qkv, phases[:, None, None])  # (B, L, 3, H, E)
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))  # (B, H, L, E)
        read = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        out: Tensor = self.to_out(rotate(read, phases.conj()[:, None]).flatten(-2))
        return out
