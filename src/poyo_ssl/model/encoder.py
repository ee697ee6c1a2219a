"""The encoder: windows of ΔF/F in, latents out. The whole of it in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poyo_ssl.alignment.placement import Placement
from poyo_ssl.alignment.shared_response import Loadings
from poyo_ssl.kinds_of_arguments import require_numbers
from poyo_ssl.model.cross_attention import RotaryCrossAttention
from poyo_ssl.model.fit import Fit
from poyo_ssl.model.grid_attention import ConcatenatedCrossAttention, GainCrossAttention
from poyo_ssl.model.model_card import ModelCard, list_names
from poyo_ssl.model.projected_attention import ProjectedCrossAttention
from poyo_ssl.model.rotary import RotaryTimeEmbedding
from poyo_ssl.model.self_attention import RotarySelfAttention
from poyo_ssl.model.sharing import Shareable
from poyo_ssl.model.taught import Taught
from poyo_ssl.model.unit_embedding import UnitEmbedding
from poyo_ssl.windows.activity import Windows

SHORTEST_PERIOD = 0.1
"""Shortest rotary period in seconds; calcium is smooth below it."""
CROSS_ATTENTIONS = {
    "gain": GainCrossAttention,
    "concatenated": ConcatenatedCrossAttention,
    "projected": ProjectedCrossAttention,
}
"""Kind of token to the attention that reads a grid of them."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Size and time scales of the encoder; 84 thousand parameters beside the unit embeddings."""

    dim: int = 64
    """Size of tokens, latents and queries."""
    tokens: Literal["gain", "concatenated", "projected"] = "gain"
    """How activity and unit become a token: ``gain``, the value scales the unit's embedding
    (ours); ``concatenated``, ``[value ; unit embedding]`` under a layer norm, one token for every
    imaging sample (as published; set patch_length to 0); ``projected``, the gain tokens of all
    units summed to one a time step, so that units tell nothing but their projection (for
    embeddings that animals share)."""
    depth: int = 1
    """Self-attention blocks over the latents."""
    num_heads: int = 2
    """Heads of every attention."""
    read_heads: int | None = None
    """Heads of the attention that reads windows; None for as many as the others have."""
    dim_head: int = 32
    """Size of an attention head."""
    latents_per_step: int = 4
    """Latent tokens at every latent time step."""
    latent_step: float = 0.5
    """Seconds between latent time steps."""
    patch_length: float = 1 / 3
    """Seconds of activity in one token; at least one imaging sample."""
    feedforward_factor: int = 2
    """Width of the feed-forward networks relative to dim."""
    dropout: float = 0.1
    """Dropout in the feed-forward networks."""
    longest_period: float = 4.0
    """Longest rotary period in seconds; the shortest is SHORTEST_PERIOD."""

    def __post_init__(self) -> None:
        require_numbers(self)
        for name in ("dim", "num_heads", "dim_head", "latents_per_step", "feedforward_factor"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.read_heads is not None and self.read_heads < 1:
            raise ValueError(f"read_heads must be at least 1 or None, got {self.read_heads}.")
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
        if self.patch_length < 0 or self.latent_step <= 0:
            raise ValueError(
                "latent_step must be a positive number of seconds and patch_length not negative, "
                f"got {self.latent_step} and {self.patch_length}."
            )
        if self.tokens not in CROSS_ATTENTIONS:
            raise ValueError(
                f"tokens must be one of {', '.join(CROSS_ATTENTIONS)}, got '{self.tokens}'."
            )
        problem = CROSS_ATTENTIONS[self.tokens].problem(self.dim, self.patch_length)
        if problem:
            raise ValueError(problem)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}.")

    def patch_timesteps(self, sampling_rate: float) -> int:
        """Imaging samples in a patch at an imaging rate in Hz."""
        return max(1, round(self.patch_length * sampling_rate))

    def window_timesteps(self, window_length: float, sampling_rate: float) -> int:
        """Imaging samples of a window of so many seconds: a whole number of patches."""
        patch = self.patch_timesteps(sampling_rate)
        return max(1, round(window_length * sampling_rate / patch)) * patch


def _describe(fit: Fit | None) -> str:
    return "" if fit is None else f", {fit}"


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


class ProcessLayer(nn.Module):
    """One block of rotary self-attention over the latents and a feed-forward network."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = RotarySelfAttention(
            dim=config.dim, num_heads=config.num_heads, dim_head=config.dim_head
        )
        self.feedforward = FeedForward(
            dim=config.dim, factor=config.feedforward_factor, dropout=config.dropout
        )

    def forward(self, latents: Tensor, phases: Tensor) -> Tensor:
        """Latents (B, L, D) at times with rotary phases (L, dim_head / 2)."""
        latents = latents + self.attention(latents, phases)
        return latents + self.feedforward(latents)


class Encoder(nn.Module, Shareable):
    """POYO+ style encoder for a grid of calcium activity.

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
        attention = CROSS_ATTENTIONS[config.tokens]
        token_dim = attention.token_dim(config.dim)
        self.unit_embedding = UnitEmbedding(token_dim)
        self.latent_embedding = nn.Parameter(torch.randn(config.latents_per_step, config.dim))
        self.rotary = RotaryTimeEmbedding(
            config.dim_head,
            config.dim_head // 2,
            shortest=SHORTEST_PERIOD,
            longest=config.longest_period,
        )
        self.value_map = nn.Linear(self.patch_timesteps, token_dim)
        attention.begin(self.value_map)
        self.read = attention(
            dim=config.dim,
            num_heads=config.read_heads or config.num_heads,
            dim_head=config.dim_head,
        )
        self.read_feedforward = FeedForward(
            dim=config.dim, factor=config.feedforward_factor, dropout=config.dropout
        )
        self.process_layers = nn.ModuleList(ProcessLayer(config) for _ in range(config.depth))
        self.placement: Placement | None = None
        """How units of new recordings get their embeddings; None: at random, and they learn."""
        self.taught: Taught | None = None
        """What it learned to answer in pretraining; None: nothing, or it was not pretrained."""
        self.fit: Fit | None = None
        """Curves and seconds of its pretraining, where it was pretrained in this process."""

    def __repr__(self) -> str:
        num_parameters = sum(p.numel() for p in self.parameters())
        num_units = len(self.unit_embedding.vocab) - 1
        return (
            f"<encoder of {num_units} units at {self.sampling_rate:.4g} Hz, "
            f"{num_parameters:,} parameters{_describe(self.fit)}>"
        )

    def write_weights(self, directory: Path) -> None:
        """Saves weights, config and units."""
        from poyo_ssl.model.checkpoints import save_encoder  # which builds encoders

        save_encoder(self, directory)

    @classmethod
    def read_weights(cls, directory: Path) -> Self:
        """Inverse of :meth:`write_weights`."""
        from poyo_ssl.model.checkpoints import load_encoder

        return cast("Self", load_encoder(directory))

    def model_card(self, source: str, scores: Mapping[str, float]) -> ModelCard:
        """What others should know."""
        return ModelCard(
            title="Encoder of calcium activity",
            usage=(
                f"import poyo_ssl as ps\n\nencoder = ps.Encoder.from_pretrained({source!r})\n"
                'recordings = ps.load_recordings("session.nwb")\n'
                'decoder, adaptation = ps.adapt(encoder, recordings, "direction")'
            ),
            facts={
                "Kind": "encoder: windows of ΔF/F of known units in, latents out",
                "Parameters": f"{sum(p.numel() for p in self.parameters()):,}",
                "Units": list_names(list(self.unit_embedding.vocab)[1:]),
                "Imaging rate": f"{self.sampling_rate:.4g} Hz",
            },
            provenance=self.provenance,
            config=asdict(self.config),
            scores=scores,
        )

    def add_units(self, unit_ids: list[str]) -> None:
        """Gives a new embedding to every unit that has none yet; the others keep theirs."""
        self.unit_embedding.extend_vocab(unit_ids)

    def place_units(self, placed: Mapping[str, Loadings]) -> None:
        """Gives units that have no embedding yet the one that their responses tell.

        Args:
            placed: Recording id to loadings in the space of :attr:`placement`, which is there.

        Raises:
            ValueError: If the space has more dimensions than embeddings have.
        """
        assert self.placement is not None
        for loadings in placed.values():
            embeddings = self.placement.embeddings(loadings, self.unit_embedding.embedding_dim)
            is_new = [unit_id not in self.unit_embedding.vocab for unit_id in loadings.unit_ids]
            new = [u for u, is_it in zip(loadings.unit_ids, is_new, strict=True) if is_it]
            self.add_units(new)
            with torch.no_grad():
                self.unit_embedding.weight[self.unit_rows(new)] = embeddings[is_new]

    def unit_rows(self, unit_ids: list[str]) -> Tensor:
        """Rows of the units' embeddings, (U,)."""
        return torch.tensor(self.unit_embedding.tokenizer(unit_ids), dtype=torch.long)

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
        num_steps = len(self.latent_times(num_timesteps))
        latents = self.latent_embedding.repeat(num_steps, 1)  # (L, D)
        latents = latents + self.read(
            latents,
            self.cut_patches(activity),
            self.value_map,
            self.unit_embedding(unit_index),
            self.latent_phases(num_timesteps),
            self.rotary(self.patch_times(num_timesteps)),
            is_hidden,
        )
        return latents + self.read_feedforward(latents)

    def cut_patches(self, activity: Tensor) -> Tensor:
        """Activity (B, timesteps, U) -> patches (B, patches, U, patch_timesteps)."""
        num_patches = activity.shape[1] // self.patch_timesteps
        patches = activity.unflatten(1, (num_patches, self.patch_timesteps))
        return patches.transpose(-1, -2)

    def latent_phases(self, num_timesteps: int) -> Tensor:
        """Rotary phases of every latent of a window, (L, dim_head / 2), complex."""
        times = self.latent_times(num_timesteps).repeat_interleave(self.config.latents_per_step)
        phases: Tensor = self.rotary(times)
        return phases

    def process(self, latents: Tensor, num_timesteps: int) -> Tensor:
        """Self-attention over the latents of each window, (B, L, D) -> (B, L, D)."""
        phases = self.latent_phases(num_timesteps)
        for layer in self.process_layers:
            latents = layer(latents, phases)
        return latents

    def forward(
        self, activity: Tensor, unit_index: Tensor, is_hidden: Tensor | None = None
    ) -> Tensor:
        """Windows of activity (B, timesteps, U) -> latents (B, L, D)."""
        latents = self.read_windows(activity, unit_index, is_hidden)
        return self.process(latents, activity.shape[1])

    def encode_groups(self, groups: Sequence[Windows]) -> Tensor:
        """Windows of several recordings -> latents (all windows, L, D), in order.

        Every group is read with its own units; what follows does not know units any more and
        runs once for all. The windows are equally long.
        """
        latents = torch.cat([self.read_windows(activity, units) for activity, units in groups])
        return self.process(latents, groups[0].activity.shape[1])


class QueryDecoder(nn.Module):
    """Queries at given times read the latents by one rotary cross-attention, as in POYO+.

    Args:
        config: The encoder's config.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = RotaryCrossAttention(
            dim=config.dim, num_heads=config.num_heads, dim_head=config.dim_head, rotate_value=True
        )
        self.feedforward = FeedForward(
            dim=config.dim, factor=config.feedforward_factor, dropout=config.dropout
        )

    def forward(
        self, queries: Tensor, latents: Tensor, query_phases: Tensor, latent_phases: Tensor
    ) -> Tensor:
        """Reads the latents.

        Args:
            queries: (B, Q, D).
            latents: (B, L, D).
            query_phases: Rotary phases of the times asked about, (B, Q, dim_head / 2), complex.
            latent_phases: Those of the latents' times, (L, dim_head / 2), complex.

        Returns:
            Answers, (B, Q, D).
        """
        out = queries + self.attention(queries, latents, query_phases, latent_phases)
        return out + self.feedforward(out)


def starting_encoder(encoder: Encoder | EncoderConfig | None) -> Encoder | EncoderConfig:
    """What a fit starts from: what is given, or where nothing is, a fresh one of default size.

    Raises:
        TypeError: If it is neither an encoder nor the config of one.
    """
    if encoder is None:
        return EncoderConfig()
    if not isinstance(encoder, Encoder | EncoderConfig):
        raise TypeError(
            f"encoder must be an Encoder, an EncoderConfig or None, got {encoder!r:.80}. Load a "
            "saved one with load_encoder."
        )
    return encoder
