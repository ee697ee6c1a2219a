"""Predict the activity that was hidden from the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from poyo_ssl.model.encoder import Encoder, QueryDecoder
from poyo_ssl.model.masking import PATTERNS, choose_hidden
from poyo_ssl.pretraining.objectives.objective import Objective
from poyo_ssl.windows.training_batches import WindowBatch

if TYPE_CHECKING:
    from poyo_ssl.pretraining.config import PretrainingConfig


@dataclass(frozen=True, kw_only=True)
class MaskedActivityConfig:
    """What is hidden, and what is asked about it."""

    pattern: Literal["units", "random_patches", "future"] = "units"
    """What is hidden from the encoder. ``units`` is co-smoothing: what some units did is told from
    the others."""
    hidden_fraction: float = 0.5
    """Part of the units or patches hidden."""
    num_queries: int = 64
    """Hidden patches asked about in each window."""
    remove_modes: int = 0
    """Leading principal components of every recording's training activity that are left out of
    what is predicted."""

    def __post_init__(self) -> None:
        problems = []
        if self.pattern not in PATTERNS:
            problems.append(f"pattern must be one of {', '.join(PATTERNS)}, got '{self.pattern}'")
        if not 0 < self.hidden_fraction < 1:
            problems.append(f"hidden_fraction must lie in (0, 1), got {self.hidden_fraction}")
        if self.num_queries < 1:
            problems.append(f"num_queries must be at least 1, got {self.num_queries}")
        if self.remove_modes < 0:
            problems.append(f"remove_modes must not be negative, got {self.remove_modes}")
        if problems:
            raise ValueError(f"masked_activity: {'; '.join(problems)}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class HiddenPatches:
    """What is hidden of a group of windows, and what is asked about it."""

    group: WindowBatch
    is_hidden: Tensor
    """What the encoder must not read, (B, patches, U)."""
    asked_unit: Tensor
    """Column of each unit asked about, (B, Q)."""
    asked_patch: Tensor
    """Patch asked about, (B, Q)."""

    def truth(self, activity: Tensor, patch_timesteps: int) -> Tensor:
        """What was asked about in an activity (B, timesteps, U), (B, Q, patch_timesteps)."""
        patches = activity.unflatten(1, (-1, patch_timesteps))
        windows = torch.arange(len(patches), device=patches.device)[:, None]
        return patches[windows, self.asked_patch, :, self.asked_unit]

    def visible_mean(self, patch_timesteps: int) -> Tensor:
        """Mean over the visible units at the times asked about, (B, Q, patch_timesteps).

        Zero where all units are hidden, as by the pattern ``future``.
        """
        patches = self.group.activity.unflatten(1, (-1, patch_timesteps))
        is_visible = ~self.is_hidden[:, :, None]  # (B, patches, 1, U)
        mean = (patches * is_visible).sum(-1) / is_visible.sum(-1).clamp_min(1)
        windows = torch.arange(len(mean), device=mean.device)[:, None]
        return mean[windows, self.asked_patch]


class MaskedActivityNetwork(nn.Module):
    """Encoder, and a query decoder asked "what did this unit do at this time?"."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.query_decoder = QueryDecoder(encoder.config)
        self.readout = nn.Linear(encoder.config.dim, encoder.patch_timesteps)
        dim, unit_dim = encoder.config.dim, encoder.unit_embedding.embedding_dim
        # concatenated tokens have embeddings of half the size
        self.query_map = nn.Identity() if unit_dim == dim else nn.Linear(unit_dim, dim)

    def forward(self, questions: list[HiddenPatches]) -> tuple[list[Tensor], Tensor]:
        """Predicts patches that were hidden.

        Returns:
            Predicted activity of every group, (B, Q, patch_timesteps); and the latents of all
            windows, (all windows, L, D).
        """
        groups = [question.group for question in questions]
        num_timesteps = groups[0].activity.shape[1]
        read = [self.encoder.read_windows(*q.group.windows, q.is_hidden) for q in questions]
        latents = self.encoder.process(torch.cat(read), num_timesteps)
        latent_phases = self.encoder.latent_phases(num_timesteps)
        patch_times = self.encoder.patch_times(num_timesteps)
        answers = []
        parts = latents.split([len(group.activity) for group in groups])
        for question, part in zip(questions, parts, strict=True):
            rows = question.group.unit_index[question.asked_unit]
            phases = self.encoder.rotary(patch_times[question.asked_patch])
            queries = self.query_map(self.encoder.unit_embedding(rows))  # (B, Q, D)
            answers.append(self.readout(self.query_decoder(queries, part, phases, latent_phases)))
        return answers, latents


class MaskedActivity(Objective):
    """Predicts the activity that was hidden from the encoder; mean squared error.

    With the pattern ``units`` this is co-smoothing: hidden units are predicted from the others at
    the same time. With ``remove_modes`` what is predicted lacks the leading components of the
    population, which most units could be predicted from.

    Args:
        encoder: What is pretrained.
        config: Pattern, fraction and modes, labels and training.
        seed: Seed of the masks.
        num_classes: Answers of the label task; 0 uses no labels.
    """

    network: MaskedActivityNetwork

    def __init__(
        self, encoder: Encoder, config: PretrainingConfig, seed: int, num_classes: int
    ) -> None:
        super().__init__(MaskedActivityNetwork(encoder), config, seed, num_classes)
        self.options = config.masked_activity

    @property
    def num_removed_modes(self) -> int:
        """Modes that are not asked for."""
        return self.options.remove_modes

    def self_supervised(self, groups: list[WindowBatch]) -> tuple[dict[str, Tensor], Tensor]:
        """``loss``, ``r2`` and ``r2_above_population_mean``; latents of the view with holes.

        ``r2`` is the variance of hidden patches explained. Above the population mean: less the
        ``r2`` of the best line, fitted to this batch, from the mean over the visible units at the
        same time.
        """
        size = self.encoder.patch_timesteps
        questions = [self.hide(group) for group in groups]
        answers, latents = self.network(questions)
        num_windows = sum(len(group.target) for group in groups)
        error = spread = shared = mean_spread = torch.zeros((), device=latents.device)
        for question, predicted in zip(questions, answers, strict=True):
            share = len(predicted) / num_windows
            true = question.truth(self.target_of(question.group), size)
            error = error + share * (predicted - true).square().mean()
            deviation = true - true.mean()
            spread = spread + share * deviation.square().mean()
            if self.is_monitored:
                visible = question.visible_mean(size)
                visible = visible - visible.mean()
                shared = shared + share * (visible * deviation).mean()
                mean_spread = mean_spread + share * visible.square().mean()
        r2 = 1 - error.detach() / spread
        terms = {"loss": error, "r2": r2}
        if self.is_monitored:
            r2_of_mean = shared.square() / (mean_spread * spread).clamp_min(1e-12)
            terms["r2_above_population_mean"] = r2 - r2_of_mean
        return terms, latents

    def target_of(self, group: WindowBatch) -> Tensor:
        """The activity to predict, (B, timesteps, U)."""
        return group.activity if self.modes is None else self.modes.remove(group)

    def hide(self, group: WindowBatch) -> HiddenPatches:
        """Draws what is hidden of some windows and what is asked about it.

        Drawn for all windows of the step, of which the group takes its rows: however a step is
        divided, each window hides the same.
        """
        device, generator = group.activity.device, self.generator()
        num_windows, num_timesteps, num_units = group.activity.shape
        rows = torch.arange(num_windows)
        if group.position is not None:
            rows, num_windows = group.position.cpu(), self.config.training.batch_size
        num_patches = num_timesteps // self.encoder.patch_timesteps
        is_hidden = PATTERNS[self.options.pattern](
            num_windows, num_patches, num_units, self.options.hidden_fraction, generator
        )
        asked = choose_hidden(is_hidden, self.options.num_queries, generator)[rows].to(device)
        return HiddenPatches(
            group=group,
            is_hidden=is_hidden[rows].to(device),
            asked_unit=asked % num_units,
            asked_patch=asked // num_units,
        )
