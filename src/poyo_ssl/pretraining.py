"""Self-supervised pretraining of the encoder on predictable units."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poyo_ssl.model.encoder import Encoder, EncoderConfig, QueryDecoder
from poyo_ssl.model.losses import effective_rank
from poyo_ssl.model.masking import PATTERNS, hide_last_steps
from poyo_ssl.population import Population
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.sampling import (
    EvaluationBatches,
    TrainingBatches,
    WindowBatch,
    thin,
)
from poyo_ssl.recordings.tasks import DIRECTION
from poyo_ssl.training import Fit, TrainingConfig, WindowModule, fit


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """What the encoder learns from before it sees labels."""

    objective: Literal["masked_activity", "masked_latents"] = "masked_activity"
    """Predict hidden ΔF/F (ours), or the latents of the unmasked view (as published)."""
    pattern: Literal["units", "random_patches", "future"] = "units"
    """masked_activity: what is hidden from the encoder."""
    hidden_fraction: float = 0.5
    """Part of the units, patches or latent time steps that is hidden."""
    num_queries: int = 64
    """masked_activity: hidden patches asked about in each window."""
    label_weight: float = 0.01
    """masked_latents: weight of the cross-entropy of the grating direction; 0 uses no labels."""
    window_length: float = 2.0
    """Seconds (published: 1.9)."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(max_steps=300, unit_dropout=0.3, jitter=0.0)
    )
    """How it is fitted."""

    def __post_init__(self) -> None:
        if self.objective not in ("masked_activity", "masked_latents"):
            raise ValueError(
                f"objective must be masked_activity or masked_latents, got '{self.objective}'."
            )
        if self.pattern not in PATTERNS:
            raise ValueError(f"pattern must be one of {', '.join(PATTERNS)}, got '{self.pattern}'.")
        if not 0 < self.hidden_fraction < 1:
            raise ValueError(f"hidden_fraction must lie in (0, 1), got {self.hidden_fraction}.")
        if self.num_queries < 1 or self.label_weight < 0 or self.window_length <= 0:
            raise ValueError(
                "num_queries must be at least 1, label_weight not negative and window_length "
                f"positive; got {self}."
            )


class MaskedActivityNetwork(nn.Module):
    """Encoder, and a query decoder asked "what did this unit do at this time?"."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.query_decoder = QueryDecoder(encoder.config)
        self.readout = nn.Linear(encoder.config.dim, encoder.patch_timesteps)

    def forward(
        self,
        activity: Tensor,
        unit_index: Tensor,
        is_hidden: Tensor,
        asked_unit: Tensor,
        asked_patch: Tensor,
    ) -> Tensor:
        """Predicts patches that were hidden.

        Args:
            activity: (B, timesteps, U).
            unit_index: Rows of the unit embedding, (U,).
            is_hidden: What the encoder must not read, (B, T, U).
            asked_unit: Column of each unit asked about, (B, Q).
            asked_patch: Patch asked about, (B, Q).

        Returns:
            Predicted activity, (B, Q, patch_timesteps).
        """
        latents = self.encoder(activity, unit_index, is_hidden)
        queries = self.encoder.unit_embedding(unit_index[asked_unit])  # (B, Q, D)
        times = self.encoder.patch_times(activity.shape[1])[asked_patch]  # (B, Q)
        answers = self.query_decoder(
            queries,
            latents,
            self.encoder.rotary(times),
            self.encoder.latent_rotary(activity.shape[1]),
        )
        predicted: Tensor = self.readout(answers)
        return predicted


class MaskedActivity(WindowModule):
    """Predicts the activity that was hidden from the encoder; mean squared error.

    Args:
        encoder: What is pretrained.
        config: Pattern and fraction.
        seed: Of the masks.
    """

    network: MaskedActivityNetwork

    def __init__(self, encoder: Encoder, config: PretrainingConfig, seed: int) -> None:
        super().__init__(MaskedActivityNetwork(encoder), config.training)
        self.config = config
        self.seed = seed

    def losses(self, batch: list[WindowBatch]) -> dict[str, Tensor]:
        """``loss`` and ``r2``: variance of hidden patches explained."""
        # every validation hides the same, so that their losses can be compared
        step = self.global_step if self.training else -1
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        errors, spreads = [], []
        for group in batch:
            predicted, true = self.predict_hidden(group, generator)
            errors.append((predicted - true).square().mean())
            spreads.append((true - true.mean()).square().mean())
        error, spread = torch.stack(errors).mean(), torch.stack(spreads).mean()
        return {"loss": error, "r2": 1 - error / spread}

    def predict_hidden(
        self, group: WindowBatch, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Hides a part of some windows and predicts it: predicted and true, (B, Q, timesteps)."""
        patch = self.network.encoder.patch_timesteps
        num_windows, num_timesteps, num_units = group.activity.shape
        num_patches = num_timesteps // patch
        is_hidden = PATTERNS[self.config.pattern](
            num_windows, num_patches, num_units, self.config.hidden_fraction, generator
        )
        asked = choose_hidden(is_hidden, self.config.num_queries, generator)
        asked, is_hidden = asked.to(group.activity.device), is_hidden.to(group.activity.device)
        asked_patch, asked_unit = asked // num_units, asked % num_units
        patches = group.activity.unflatten(1, (num_patches, patch))
        windows = torch.arange(num_windows, device=asked.device)[:, None]
        true = patches[windows, asked_patch, :, asked_unit]  # (B, Q, patch)
        predicted = self.network(
            group.activity, group.unit_index, is_hidden, asked_unit, asked_patch
        )
        return predicted, true


def choose_hidden(is_hidden: Tensor, num_chosen: int, generator: torch.Generator) -> Tensor:
    """Draws hidden positions to ask about, without replacement.

    Args:
        is_hidden: (B, T, U).
        num_chosen: At most so many; fewer where some window hides fewer.
        generator: Of the draw.

    Returns:
        Flat positions into (T, U), shape (B, Q).
    """
    flat = is_hidden.flatten(1)
    num_chosen = min(num_chosen, int(flat.sum(1).min()))
    draw = torch.rand(flat.shape, generator=generator).masked_fill(~flat, -1.0)
    return draw.topk(num_chosen, dim=1).indices


class MaskedLatentsNetwork(nn.Module):
    """Encoder, a token for what is masked, and a linear readout of the grating direction."""

    def __init__(self, encoder: Encoder, num_directions: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.masked_token = nn.Parameter(torch.randn(encoder.config.dim))
        self.readout = nn.Linear(encoder.config.dim, num_directions) if num_directions else None

    def forward(
        self, activity: Tensor, unit_index: Tensor, hidden_steps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Two views of the same windows.

        After the encoding cross-attention the hidden latent time steps are replaced by the masked
        token plus the latent's own embedding (latents of one step could not differ otherwise).

        Args:
            activity: (B, timesteps, U).
            unit_index: (U,).
            hidden_steps: Latent time steps to hide, (num_steps,).

        Returns:
            Latents of the masked and of the unmasked view, each (B, L, D).
        """
        encoder = self.encoder
        latents = encoder.read_windows(activity, unit_index)
        per_step = encoder.config.latents_per_step
        is_hidden = hidden_steps.repeat_interleave(per_step)[:, None]  # (L, 1)
        token = (self.masked_token + encoder.latent_embedding).repeat(len(hidden_steps), 1)
        num_timesteps = activity.shape[1]
        masked = encoder.process(torch.where(is_hidden, token, latents), num_timesteps)
        return masked, encoder.process(latents, num_timesteps)


class MaskedLatents(WindowModule):
    """The masked view must equal the unmasked one, as published.

    L1 on the hidden latents to the stop-gradient unmasked view (without it a constant solves the
    objective), plus ``label_weight`` x cross-entropy of the direction from the unmasked view. Both
    views are made without dropout, so that masking is their only difference. Watch
    ``target_variance`` and ``effective_rank``: this objective is known to collapse or explode.

    References:
        Bae et al., arXiv:2510.18516, pretraining objective.
    """

    network: MaskedLatentsNetwork

    def __init__(self, encoder: Encoder, config: PretrainingConfig, num_directions: int) -> None:
        super().__init__(
            MaskedLatentsNetwork(encoder, num_directions),
            config.training,
        )
        self.config = config
        self.network.eval()

    def losses(self, batch: list[WindowBatch]) -> dict[str, Tensor]:
        """``loss``, its terms, and the collapse monitors."""
        reconstruction, labels, targets = [], [], []
        for group in batch:
            num_steps = len(self.network.encoder.latent_times(group.activity.shape[1]))
            hidden = hide_last_steps(num_steps, self.config.hidden_fraction).to(self.device)
            masked, unmasked = self.network(group.activity, group.unit_index, hidden)
            is_hidden = hidden.repeat_interleave(self.network.encoder.config.latents_per_step)
            target = unmasked.detach()[:, is_hidden]
            reconstruction.append((masked[:, is_hidden] - target).abs().mean())
            targets.append(target.flatten(0, 1))
            if self.network.readout is not None:
                logits = self.network.readout(unmasked.mean(1))
                labels.append(F.cross_entropy(logits, group.target))
        features = torch.cat(targets)
        terms = {
            "reconstruction": torch.stack(reconstruction).mean(),
            "target_variance": features.var(0).mean(),
            "effective_rank": effective_rank(features),
        }
        terms["loss"] = terms["reconstruction"]
        if labels:
            terms["direction"] = torch.stack(labels).mean()
            terms["loss"] = terms["loss"] + self.config.label_weight * terms["direction"]
        return terms


def pretrain(
    population: Population,
    encoder_config: EncoderConfig,
    config: PretrainingConfig,
    *,
    seed: int,
    checkpoint_directory: Path | None = None,
    log_directory: Path | None = None,
    show_progress: bool = False,
) -> tuple[Encoder, Fit]:
    """Pretrains a fresh encoder on unlabelled activity of the training part.

    Args:
        population: The recordings, the units to learn from, and the training part.
        encoder_config: Size of the encoder.
        config: Objective.
        seed: Of weights, masks and batches.
        checkpoint_directory: Where the fit can be gone on with; None keeps no checkpoints.
        log_directory: Where TensorBoard finds the curves; None writes none.
        show_progress: Draw a progress bar.

    Returns:
        The encoder, and its learning curves.

    Raises:
        RecordingError: If directions are to be learned and no recording shows any.
    """
    torch.manual_seed(seed)
    encoder = Encoder(encoder_config, population.sampling_rate)
    encoder.add_units(population.unit_ids)
    num_timesteps = encoder.window_timesteps(config.window_length)
    with_labels = config.objective == "masked_latents" and config.label_weight > 0
    if with_labels and not population.answering(DIRECTION):
        raise RecordingError(
            f"No recording was divided for the task '{DIRECTION.name}' ({DIRECTION.stimulus}), "
            "whose labels the objective masked_latents learns from. Divide the recordings for it "
            "too, or set label_weight: 0."
        )
    if with_labels:
        sources = population.labelled_sources(encoder, DIRECTION, "train", num_timesteps)
        valid = population.labelled_sources(encoder, DIRECTION, "valid", num_timesteps)
    else:
        sources = population.unlabelled_sources(encoder, num_timesteps)
        valid = population.unlabelled_sources(
            encoder, num_timesteps, part="valid", stride=num_timesteps
        )
    module: WindowModule
    if config.objective == "masked_activity":
        module = MaskedActivity(encoder, config, seed)
    else:
        num_directions = len(population.classes(DIRECTION)) if with_labels else 0
        module = MaskedLatents(encoder, config, num_directions)
    training = config.training
    batches = TrainingBatches(
        sources,
        batch_size=training.batch_size,
        num_timesteps=num_timesteps,
        seed=seed,
        jitter=round(training.jitter * population.sampling_rate) if with_labels else 0,
        unit_dropout=training.unit_dropout,
    )
    valid = thin(valid, training.max_valid_windows)
    valid_batches = EvaluationBatches(valid, batch_size=64, num_timesteps=num_timesteps)
    result = fit(
        module,
        batches,
        valid_batches if valid else None,
        seed=seed,
        checkpoint_directory=checkpoint_directory,
        identity={"encoder": asdict(encoder_config)},
        log_directory=log_directory,
        show_progress=show_progress,
    )
    return encoder, result
