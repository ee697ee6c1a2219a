"""The encoder: windows of ΔF/F in, latents out. The whole of it in one file."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_brain.nn import (
    InfiniteVocabEmbedding,
    RotaryCrossAttention,
    RotarySelfAttention,
    RotaryTimeEmbedding,
)

from poyo_ssl.model.grid_attention import GridCrossAttention

SHORTEST_PERIOD = 0.1
"""Shortest rotary period in seconds; calcium is smooth below it."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Size and time scales of the encoder; 84 thousand parameters beside the unit embeddings."""

    dim: int = 64
    """Size of tokens, latents and queries."""
    depth: int = 1
    """Self-attention blocks over the latents."""
    num_heads: int = 2
    """Heads of every attention."""
    dim_head: int = 32
    """Size of an attention head."""
    latents_per_step: int = 4
    """Latent tokens at every latent time step."""
    latent_step: float = 0.5
    """Seconds between latent time steps."""
    patch_length: float = 1 / 3
    """Seconds of activity in one token (the published model: one imaging sample)."""
    feedforward_factor: int = 2
    """Width of the feed-forward networks relative to dim."""
    dropout: float = 0.1
    """Dropout in the feed-forward networks."""
    longest_period: float = 4.0
    """Longest rotary period in seconds; the shortest is SHORTEST_PERIOD."""

    def __post_init__(self) -> None:
        for name in ("dim", "num_heads", "dim_head", "latents_per_step", "feedforward_factor"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.depth < 0:
            raise ValueError(f"depth must not be negative, got {self.depth}.")
        if self.dim_head % 4 or self.dim_head < 8:
            raise ValueError(
                f"dim_head must be a multiple of 4 and at least 8 (rotary), got {self.dim_head}."
            )
        if self.longest_period <= SHORTEST_PERIOD:
            raise ValueError(
                f"longest_period must exceed {SHORTEST_PERIOD} s, got {self.longest_period}."
            )
        if self.patch_length <= 0 or self.latent_step <= 0:
            raise ValueError("patch_length and latent_step must be positive numbers of seconds.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}.")

    def patch_timesteps(self, sampling_rate: float) -> int:
        """Imaging samples in a patch at an imaging rate in Hz."""
        return max(1, round(self.patch_length * sampling_rate))

    def window_timesteps(self, window_length: float, sampling_rate: float) -> int:
        """Imaging samples of a window of so many seconds: a whole number of patches."""
        patch = self.patch_timesteps(sampling_rate)
        return max(1, round(window_length * sampling_rate / patch)) * patch


class FeedForward(nn.Module):
    """Pre-norm GEGLU feed-forward network (Shazeer 2020), as in POYO+."""

    def __init__(self, *, dim: int, factor: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, 2 * factor * dim)
        self.narrow = nn.Linear(factor * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        value, gate = self.widen(self.norm(x)).chunk(2, dim=-1)
        out: Tensor = self.dropout(self.narrow(value * F.gelu(gate)))
        return out


class GainTokens(nn.Module):
    """Tokens whose value scales the embedding of their unit: ``unit ⊙ (W patch + b)``.

    Unlike ``[value ; unit]`` or ``value + unit``, the score of a latent is then linear in the
    unit's activity with a weight of its own for every unit, as in a linear decoder, from the
    first step on.

    Args:
        dim: Size of a token.
        patch_timesteps: Imaging samples in one patch.
    """

    def __init__(self, *, dim: int, patch_timesteps: int) -> None:
        super().__init__()
        self.patch_timesteps = patch_timesteps
        self.value_map = nn.Linear(patch_timesteps, dim)

    def forward(self, activity: Tensor, units: Tensor) -> Tensor:
        """Activity (B, timesteps, U) and unit embeddings (U, D) -> tokens (B, T, U, D)."""
        num_patches = activity.shape[1] // self.patch_timesteps
        patches = activity.unflatten(1, (num_patches, self.patch_timesteps)).transpose(-1, -2)
        tokens: Tensor = self.value_map(patches) * units
        return tokens


class ProcessLayer(nn.Module):
    """One block of rotary self-attention over the latents and a feed-forward network."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = RotarySelfAttention(
            dim=config.dim,
            heads=config.num_heads,
            dim_head=config.dim_head,
            rotate_value=True,
        )
        self.feedforward = FeedForward(
            dim=config.dim, factor=config.feedforward_factor, dropout=config.dropout
        )

    def forward(self, latents: Tensor, rotary: Tensor) -> Tensor:
        """Latents (B, L, D) at the times of ``rotary`` (B, L, 2 * dim_head)."""
        latents = latents + self.attention(latents, rotary)
        return latents + self.feedforward(latents)


class Encoder(nn.Module):
    """POYO+ style encoder for a grid of calcium activity, with gain-modulated tokens.

    Args:
        config: Sizes and time scales.
        sampling_rate: Imaging rate in Hz of every recording it will see.

    References:
        Azabou et al., NeurIPS 2023 (POYO); Azabou et al., ICLR 2025 (POYO+).
    """

    def __init__(self, config: EncoderConfig, sampling_rate: float) -> None:
        super().__init__()
        self.config = config
        self.sampling_rate = sampling_rate
        self.patch_timesteps = config.patch_timesteps(sampling_rate)
        self.unit_embedding = InfiniteVocabEmbedding(config.dim, init_scale=1.0)
        self.unit_embedding.initialize_vocab([])
        self.latent_embedding = nn.Parameter(torch.randn(config.latents_per_step, config.dim))
        self.rotary = RotaryTimeEmbedding(
            head_dim=config.dim_head,
            rotate_dim=config.dim_head // 2,
            t_min=SHORTEST_PERIOD,
            t_max=config.longest_period,
        )
        self.tokenize = GainTokens(dim=config.dim, patch_timesteps=self.patch_timesteps)
        self.read = GridCrossAttention(
            dim=config.dim, num_heads=config.num_heads, dim_head=config.dim_head
        )
        self.read_feedforward = FeedForward(
            dim=config.dim, factor=config.feedforward_factor, dropout=config.dropout
        )
        self.process_layers = nn.ModuleList(ProcessLayer(config) for _ in range(config.depth))

    def add_units(self, unit_ids: list[str]) -> None:
        """Gives a new embedding to every unit that has none yet; the others keep theirs."""
        self.unit_embedding.extend_vocab(list(unit_ids), exist_ok=True)

    def window_timesteps(self, window_length: float) -> int:
        """Imaging samples of a window of so many seconds: a whole number of patches."""
        return self.config.window_timesteps(window_length, self.sampling_rate)

    def latent_times(self, num_timesteps: int) -> Tensor:
        """Times of the latent steps in a window, seconds from its start, (num_steps,)."""
        duration = num_timesteps / self.sampling_rate
        num_steps = max(1, round(duration / self.config.latent_step))
        steps = torch.arange(num_steps, device=self.latent_embedding.device)
        return (steps + 0.5) * (duration / num_steps)

    def patch_times(self, num_timesteps: int) -> Tensor:
        """Times of the patch centres, seconds from the window's start, (num_patches,)."""
        num_patches = num_timesteps // self.patch_timesteps
        steps = torch.arange(num_patches, device=self.latent_embedding.device)
        return (steps + 0.5) * (self.patch_timesteps / self.sampling_rate)

    def read_windows(
        self, activity: Tensor, unit_index: Tensor, is_hidden: Tensor | None = None
    ) -> Tensor:
        """Cross-attention only: what the latents read from the windows.

        Args:
            activity: Normalised activity, (B, timesteps, U); timesteps a multiple of the patch.
            unit_index: Row of each unit's embedding, (U,).
            is_hidden: True where a patch of a unit is hidden from the latents, (B, patches, U).

        Returns:
            Latents ordered by time, (B, latent steps * latents_per_step, D).
        """
        num_timesteps = activity.shape[1]
        tokens = self.tokenize(activity, self.unit_embedding(unit_index))  # (B, T, U, D)
        times = self.latent_times(num_timesteps)
        latents = self.latent_embedding.repeat(len(times), 1)  # (L, D)
        latent_rotary = self.latent_rotary(num_timesteps)  # (L, 2E)
        patch_rotary = self.rotary(self.patch_times(num_timesteps))  # (T, 2E)
        latents = latents + self.read(latents, tokens, latent_rotary, patch_rotary, is_hidden)
        return latents + self.read_feedforward(latents)

    def latent_rotary(self, num_timesteps: int) -> Tensor:
        """Rotary embedding of every latent of a window, (L, 2 * dim_head)."""
        times = self.latent_times(num_timesteps).repeat_interleave(self.config.latents_per_step)
        rotary: Tensor = self.rotary(times)
        return rotary

    def process(self, latents: Tensor, num_timesteps: int) -> Tensor:
        """Self-attention over the latents of each window, (B, L, D) -> (B, L, D)."""
        rotary = self.latent_rotary(num_timesteps).expand(len(latents), -1, -1)
        for layer in self.process_layers:
            latents = layer(latents, rotary)
        return latents

    def forward(
        self, activity: Tensor, unit_index: Tensor, is_hidden: Tensor | None = None
    ) -> Tensor:
        """Windows of activity (B, timesteps, U) -> latents (B, L, D)."""
        latents = self.read_windows(activity, unit_index, is_hidden)
        return self.process(latents, activity.shape[1])


class QueryDecoder(nn.Module):
    """Queries at given times read the latents by one rotary cross-attention, as in POYO+.

    Args:
        config: The encoder's config.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = RotaryCrossAttention(
            dim=config.dim, heads=config.num_heads, dim_head=config.dim_head, rotate_value=True
        )
        self.feedforward = FeedForward(
            dim=config.dim, factor=config.feedforward_factor, dropout=config.dropout
        )

    def forward(
        self, queries: Tensor, latents: Tensor, query_rotary: Tensor, latent_rotary: Tensor
    ) -> Tensor:
        """Reads the latents.

        Args:
            queries: (B, Q, D).
            latents: (B, L, D).
            query_rotary: Rotary embedding of the times asked about, (B, Q, 2 * dim_head).
            latent_rotary: Rotary embedding of the latents' times, (L, 2 * dim_head).

        Returns:
            Answers, (B, Q, D).
        """
        latent_rotary = latent_rotary.expand(len(latents), -1, -1)
        out = queries + self.attention(queries, latents, query_rotary, latent_rotary)
        return out + self.feedforward(out)
