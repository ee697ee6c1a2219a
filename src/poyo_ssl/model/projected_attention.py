"""Cross-attention from latents to the activity as the unit embeddings project it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from poyo_ssl.model.grid_attention import UnnormalisedAttention
from poyo_ssl.model.rotary import rotate


class ProjectedCrossAttention(UnnormalisedAttention):
    """Latents read one token a time step: what all units say together.

    The embeddings are a read-in matrix, as in LFADS with several sessions: the activity of all
    units, each times its embedding, is summed before anything is attended to, so that units tell
    nothing but their projection. Where embeddings say where a unit lies in a space that animals
    share, what is learned of one animal's projection holds for another's; attention to single
    units would learn by heart which animal it reads.

    References:
        Pandarinath et al., Nature Methods 2018 (stitching of sessions by read-in matrices).
    """

    @staticmethod
    def begin(value_map: nn.Linear) -> None:
        """The mean of a patch: random weights of its samples would blur where units lie."""
        nn.init.constant_(value_map.weight, 1 / value_map.in_features)
        nn.init.zeros_(value_map.bias)

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
        """Reads every window; arguments and result are those of ``GainCrossAttention``.

        A time at which all units are hidden is not attended to.
        """
        may_read = None
        if is_hidden is not None:
            may_read = ~is_hidden.all(-1)[:, None, None]  # (B, 1, 1, T)
            is_empty = ~may_read.any(-1, keepdim=True)
            may_read = may_read | is_empty  # a softmax over nothing would be NaN
        tokens = project(patches, value_map, units, is_hidden)  # (B, T, D)
        size = self.num_heads, self.dim_head
        query = rotate(
            self.to_query(self.norm(latents)).unflatten(-1, size), latent_phases[:, None]
        )
        key, value = (
            rotate(to(tokens).unflatten(-1, size), patch_phases[:, None]).transpose(1, 2)
            for to in (self.to_key, self.to_value)
        )  # (B, H, T, E)
        query = query.transpose(0, 1).expand(len(tokens), -1, -1, -1)  # (B, H, L, E)
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=may_read)
        if is_hidden is not None:
            read = read.masked_fill(is_empty, 0.0)
        read = rotate(read.transpose(1, 2), latent_phases.conj()[:, None])
        out: Tensor = self.to_out(read.flatten(-2))
        return out


def project(
    patches: Tensor, value_map: nn.Linear, units: Tensor, is_hidden: Tensor | None = None
) -> Tensor:
    """Activity times unit embeddings, summed over units.

    Args:
        patches: Activity, (B, T, U, P).
        value_map: P samples to the D factors that scale the unit's embedding; its bias is added
            once, whatever the units.
        units: Embedding of every unit, (U, D).
        is_hidden: True where a patch of a unit does not count, (B, T, U).

    Returns:
        (B, T, D), divided by the square root of the number of units: of unit variance where
        independent units and embeddings are. What hidden units would have added is made up for by
        the others.
    """
    samples = patches.transpose(-1, -2)  # (B, T, P, U), as the activity lies in memory
    share: float | Tensor = 1.0
    if is_hidden is not None:
        samples = samples.masked_fill(is_hidden[:, :, None], 0.0)
        share = (~is_hidden).float().mean(-1, keepdim=True).clamp(min=1 / len(units))  # (B, T, 1)
    projected = samples @ (units * len(units) ** -0.5)  # (B, T, P, D)
    return (projected * value_map.weight.T).sum(-2) / share + value_map.bias
