"""CalciumPOYOPlus as published in torch-brain 0.1.2, computed on grids.

Same parameters under the same names, same function, so weights of that model load and give its
outputs; ``tests/model/test_calcium_poyo_plus.py`` proves it on weights, inputs and outputs of the
original. Only the order of operations differs (:mod:`poyo_ssl.model.grid_attention`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from poyo_ssl.model.checkpoints import CONFIG, CheckpointError, load_checkpoint
from poyo_ssl.model.cross_attention import RotaryCrossAttention
from poyo_ssl.model.dropout import Dropout
from poyo_ssl.model.grid_attention import ConcatenatedCrossAttention
from poyo_ssl.model.rotary import RotaryTimeEmbedding
from poyo_ssl.model.self_attention import RotarySelfAttention

READOUTS = {
    "cursor_velocity_2d": 2,
    "cursor_position_2d": 2,
    "arm_velocity_2d": 2,
    "drifting_gratings_orientation": 8,
    "drifting_gratings_temporal_frequency": 5,
    "natural_movie_one_frame": 900,
    "natural_movie_two_frame": 900,
    "natural_movie_three_frame": 3600,
    "locally_sparse_noise_frame": 8000,
    "static_gratings_orientation": 6,
    "static_gratings_spatial_frequency": 5,
    "static_gratings_phase": 5,
    "natural_scenes": 119,
    "gabor_orientation": 4,
    "gabor_pos_2d": 2,
    "running_speed": 1,
    "gaze_pos_2d": 2,
    "pupil_location": 2,
    "pupil_size_2d": 2,
}
"""The modalities of torch-brain 0.1.2 and their sizes; the first has task id 1."""
NETWORK = "network"
"""Folder of the whole network in a converted checkpoint."""
_PREFIX = "weights."


@dataclass(frozen=True, kw_only=True)
class CalciumPOYOPlusConfig:
    """Sizes of the published model; the defaults are those called "1.3M" (1,255,232 weights)."""

    sequence_length: float = 1.0
    """Window in seconds."""
    latent_step: float = 0.125
    """Seconds between latent time steps."""
    num_latents_per_step: int = 16
    """Latent tokens at every latent time step."""
    dim: int = 64
    """Size of tokens and latents."""
    depth: int = 6
    """Self-attention blocks."""
    dim_head: int = 64
    """Size of an attention head."""
    cross_heads: int = 2
    """Heads of the cross-attentions."""
    self_heads: int = 8
    """Heads of the self-attentions."""
    ffn_dropout: float = 0.2
    """Dropout inside the feed-forward networks."""
    lin_dropout: float = 0.4
    """Dropout on what a self-attention block adds."""

    def __post_init__(self) -> None:
        if not (0 < self.latent_step < math.inf and 0 < self.sequence_length < math.inf):
            raise ValueError(
                "sequence_length and latent_step must be positive numbers of seconds, "
                f"got {self.sequence_length} and {self.latent_step}."
            )


class GEGLU(nn.Module):
    """Gated linear unit with a GELU gate (Shazeer 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., 2 D) -> (..., D)."""
        value, gate = x.chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Feed-forward network with GEGLU, four times as wide as its input."""

    def __init__(self, *, dim: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim, 8 * dim), GEGLU(), Dropout(dropout), nn.Linear(4 * dim, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        out: Tensor = self.net(x)
        return out


class MultitaskReadout(nn.Module):
    """One linear readout for every modality."""

    def __init__(self, *, dim: int, readouts: Mapping[str, int]) -> None:
        super().__init__()
        if unknown := sorted(readouts.keys() - READOUTS.keys()):
            raise ValueError(
                f"There is no readout {' or '.join(unknown)}; there are {', '.join(READOUTS)}."
            )
        self.projections = nn.ModuleDict(
            {name: nn.Linear(dim, size) for name, size in readouts.items()}
        )

    def forward(self, answers: Tensor, task_id: Tensor) -> dict[str, Tensor]:
        """Reads every answer with the readout of its task.

        Args:
            answers: (B, Q, D).
            task_id: (B, Q); ids without a readout are padding.

        Returns:
            Modality to (answers asked of it in row-major order, its size).
        """
        asked = set(task_id.unique().tolist())
        return {
            name: self.projections[name](answers[task_id == task])
            for task, name in enumerate(READOUTS, start=1)
            if task in asked and name in self.projections
        }


class CalciumPOYOPlus(nn.Module):
    """POYO+ for calcium imaging: windows of ΔF/F and questions in, answers out.

    Args:
        config: Sizes.
        num_units: Rows of the unit embedding (the first is for unknown units).
        num_sessions: Rows of the session embedding (the first is for unknown sessions).
        readouts: Modality to size of its answer, among :data:`READOUTS`.

    References:
        Azabou et al., ICLR 2025.
    """

    def __init__(
        self,
        config: CalciumPOYOPlusConfig,
        *,
        num_units: int,
        num_sessions: int,
        readouts: Mapping[str, int] = READOUTS,
    ) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.input_value_map = nn.Linear(1, dim // 2)
        self.unit_emb = nn.Embedding(num_units, dim // 2)
        self.session_emb = nn.Embedding(num_sessions, dim)
        self.token_type_emb = nn.Embedding(4, dim)  # never read, but part of published weights
        self.task_emb = nn.Embedding(len(READOUTS) + 1, dim)
        self.latent_emb = nn.Embedding(config.num_latents_per_step, dim)
        self.rotary_emb = RotaryTimeEmbedding(
            config.dim_head, config.dim_head // 2, shortest=1e-4, longest=2.0627
        )
        self.enc_atn = ConcatenatedCrossAttention(
            dim=dim, num_heads=config.cross_heads, dim_head=config.dim_head
        )
        self.enc_ffn = self._feedforward()
        self.proc_layers = nn.ModuleList(
            nn.Sequential(
                RotarySelfAttention(dim=dim, num_heads=config.self_heads, dim_head=config.dim_head),
                self._feedforward(),
            )
            for _ in range(config.depth)
        )
        self.dropout = Dropout(config.lin_dropout)
        self.dec_atn = RotaryCrossAttention(
            dim=dim, num_heads=config.cross_heads, dim_head=config.dim_head, rotate_value=False
        )
        self.dec_ffn = self._feedforward()
        self.readout = MultitaskReadout(dim=dim, readouts=readouts)
        self.unit_ids: tuple[str, ...] = ()
        """What the rows of the unit embedding are called, from the second; empty if not known."""
        self.session_ids: tuple[str, ...] = ()
        """What the rows of the session embedding are called, from the second."""
        self._initialise()

    def _feedforward(self) -> nn.Sequential:
        dim = self.config.dim
        return nn.Sequential(
            nn.LayerNorm(dim), FeedForward(dim=dim, dropout=self.config.ffn_dropout)
        )

    def _initialise(self) -> None:
        """Small embeddings and a small value map, as published."""
        for module in self.children():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.trunc_normal_(self.input_value_map.weight, 0, 0.02)
        nn.init.zeros_(self.input_value_map.bias)

    def latent_times(self) -> Tensor:
        """Time of every latent, seconds from the window's start, (L,)."""
        step = self.config.latent_step
        times = torch.arange(0, self.config.sequence_length, step) + step / 2
        times = times.repeat_interleave(self.config.num_latents_per_step)
        return times.to(self.latent_emb.weight)

    def encode(self, df_over_f: Tensor, timestamps: Tensor, unit_index: Tensor) -> Tensor:
        """What the latents read in windows of one recording.

        Args:
            df_over_f: (B, T, U).
            timestamps: Times of the imaging samples, seconds from the window's start, (T,).
            unit_index: Rows of the unit embedding, (U,).

        Returns:
            Latents after the encoder, (B, L, D). Windows of several recordings are concatenated
            before :meth:`process`.
        """
        times = self.latent_times()
        num_steps = len(times) // self.config.num_latents_per_step
        latents = self.latent_emb.weight.repeat(num_steps, 1)
        latents = latents + self.enc_atn(
            latents,
            df_over_f[..., None],
            self.input_value_map,
            self.unit_emb(unit_index),
            self.rotary_emb(times),
            self.rotary_emb(timestamps),
        )
        out: Tensor = latents + self.enc_ffn(latents)
        return out

    def process(self, latents: Tensor) -> Tensor:
        """Self-attention over the latents of every window, (B, L, D) -> (B, L, D)."""
        phases = self.rotary_emb(self.latent_times())
        for layer in self.proc_layers.children():
            attention, feedforward = layer.children()
            latents = latents + self.dropout(attention(latents, phases))
            latents = latents + self.dropout(feedforward(latents))
        return latents

    def answer(
        self, latents: Tensor, session_index: Tensor, task_id: Tensor, query_times: Tensor
    ) -> Tensor:
        """Query embeddings that have read the processed latents.

        Args:
            latents: (B, L, D).
            session_index: Rows of the session embedding, (B, Q).
            task_id: (B, Q).
            query_times: Instants asked about, seconds from the window's start, (B, Q).

        Returns:
            (B, Q, D).
        """
        queries = self.session_emb(session_index) + self.task_emb(task_id)
        queries = queries + self.dec_atn(
            queries,
            latents,
            self.rotary_emb(query_times),
            self.rotary_emb(self.latent_times()),
        )
        out: Tensor = queries + self.dec_ffn(queries)
        return out

    def forward(
        self,
        df_over_f: Tensor,
        timestamps: Tensor,
        unit_index: Tensor,
        session_index: Tensor,
        task_id: Tensor,
        query_times: Tensor,
    ) -> dict[str, Tensor]:
        """Answers questions about windows of one recording; see :meth:`encode` and :meth:`answer`.

        Returns:
            Modality to (answers asked of it in row-major order, its size).
        """
        latents = self.process(self.encode(df_over_f, timestamps, unit_index))
        answers = self.answer(latents, session_index, task_id, query_times)
        read: dict[str, Tensor] = self.readout(answers, task_id)
        return read


def load_calcium_poyo_plus(path: str | Path) -> CalciumPOYOPlus:
    """Loads published weights; every size is taken from the tensors.

    Args:
        path: A directory that ``poyo-ssl convert`` wrote, or a safetensors file
            with the state dict of CalciumPOYOPlus (torch-brain 0.1.2), its names with or without
            the prefix ``weights.``; other tensors are left alone. The metadata entry ``config``
            (JSON) may hold ``sequence_length`` and ``latent_step``, which no tensor tells;
            otherwise they are those of :class:`CalciumPOYOPlusConfig`.

    Raises:
        CheckpointError: If the file is damaged or holds other weights.
    """
    path = Path(path)
    for directory in (path, path / NETWORK):
        if (directory / CONFIG).is_file():
            return build_calcium_poyo_plus(*load_checkpoint(directory), origin=str(directory))
    if not path.is_file():
        raise CheckpointError(
            f"There is no file '{path}'. Give a safetensors file, or the directory that "
            "'poyo-ssl convert' wrote."
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            names = [name for name in file.keys() if name.startswith(_PREFIX)]  # noqa: SIM118
            names = names or list(file.keys())
            weights = {name.removeprefix(_PREFIX): file.get_tensor(name) for name in names}
        known = json.loads(metadata.get("config", "{}"))
    except SafetensorError as error:
        raise CheckpointError(
            f"'{path}' is damaged or no safetensors file ({error}). Copy or save it again."
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"'{path}' does not load as CalciumPOYOPlus (its config is no JSON: {error}). Save it "
            "again."
        ) from error
    return build_calcium_poyo_plus(weights, known, origin=str(path))


def build_calcium_poyo_plus(
    weights: Mapping[str, Tensor], known: Mapping[str, Any], *, origin: str
) -> CalciumPOYOPlus:
    """The network that has these weights.

    Args:
        weights: All tensors of its state dict.
        known: May hold ``sequence_length`` and ``latent_step``, and ``unit_ids`` and
            ``session_ids`` in order of row.
        origin: The file, for messages.

    Raises:
        CheckpointError: If the weights are those of another model.
    """
    try:
        model = _build(weights, known)
        model.load_state_dict(dict(weights))
    except (KeyError, ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else f"{error}"
        raise CheckpointError(
            f"'{origin}' does not load as CalciumPOYOPlus ({' '.join(reason.split())}). Save all "
            "tensors of its state_dict(), and nothing else, with safetensors."
        ) from error
    model.unit_ids = tuple(known.get("unit_ids", ()))
    model.session_ids = tuple(known.get("session_ids", ()))
    return model


def _build(weights: Mapping[str, Tensor], known: Mapping[str, Any]) -> CalciumPOYOPlus:
    """A model of the sizes that the tensors have."""
    dim_head = 2 * len(weights["rotary_emb.omega"])
    num_latents, dim = weights["latent_emb.weight"].shape
    blocks = {match[1] for name in weights if (match := re.match(r"proc_layers\.(\d+)\.", name))}
    self_width = len(weights["proc_layers.0.0.to_qkv.weight"]) // 3 if blocks else dim_head
    times = {name: known[name] for name in ("sequence_length", "latent_step") if name in known}
    config = CalciumPOYOPlusConfig(
        num_latents_per_step=num_latents,
        dim=dim,
        depth=len(blocks),
        dim_head=dim_head,
        cross_heads=len(weights["enc_atn.to_q.weight"]) // dim_head,
        self_heads=self_width // dim_head,
        **times,
    )
    readouts = re.compile(r"readout\.projections\.(\w+)\.bias")
    return CalciumPOYOPlus(
        config,
        num_units=len(weights["unit_emb.weight"]),
        num_sessions=len(weights["session_emb.weight"]),
        readouts={m[1]: len(weights[name]) for name in weights if (m := readouts.match(name))},
    )
