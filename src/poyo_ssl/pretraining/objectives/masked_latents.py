"""The published objective: the latents of a masked view must equal those of the whole one."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poyo_ssl.model.encoder import Encoder
from poyo_ssl.model.losses import effective_rank
from poyo_ssl.model.masking import hide_last_steps
from poyo_ssl.pretraining.objectives.objective import Objective
from poyo_ssl.windows.activity import Windows
from poyo_ssl.windows.training_batches import WindowBatch

if TYPE_CHECKING:
    from poyo_ssl.pretraining.config import PretrainingConfig


@dataclass(frozen=True, kw_only=True)
class MaskedLatentsConfig:
    """What is hidden, and whose latents are predicted."""

    hidden_fraction: float = 0.5
    """Part of the latent time steps hidden: always the last ones."""
    target: Literal["stop_gradient", "ema"] = "stop_gradient"
    """Whose latents are predicted, the encoder's own or those of a teacher whose weights are a
    moving average of the encoder's."""
    teacher_decay: float = 0.996
    """target: ema: part of the teacher's weights that a step keeps."""

    def __post_init__(self) -> None:
        problems = []
        if self.target not in ("stop_gradient", "ema"):
            problems.append(f"target must be one of stop_gradient, ema, got '{self.target}'")
        for name in ("hidden_fraction", "teacher_decay"):
            if not 0 < getattr(self, name) < 1:
                problems.append(f"{name} must lie in (0, 1), got {getattr(self, name)}")
        if self.target != "ema" and self.teacher_decay != type(self).teacher_decay:
            problems.append("teacher_decay needs target: ema")
        if problems:
            raise ValueError(f"masked_latents: {'; '.join(problems)}.")


class MaskedLatentsNetwork(nn.Module):
    """Encoder, a token for what is masked, and the teacher where there is one.

    Args:
        encoder: What is pretrained.
        with_teacher: The target comes from a copy of the encoder that has no gradient.
    """

    def __init__(self, encoder: Encoder, *, with_teacher: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.masked_token = nn.Parameter(torch.randn(encoder.config.dim))
        self.teacher = copy.deepcopy(encoder).requires_grad_(False) if with_teacher else None

    def forward(self, groups: list[Windows], hidden_steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Two views of the same windows, and what the masked one must equal.

        After the encoding cross-attention the hidden latent time steps are replaced by the masked
        token plus the latent's own embedding (latents of one step could not differ otherwise).

        Args:
            groups: Windows of every recording, equally long.
            hidden_steps: Latent time steps to hide, (num_steps,).

        Returns:
            Latents of the masked and of the unmasked view and the target, each (B, L, D). The
            target is the unmasked view, or that of the teacher, each latent normalised.
        """
        encoder = self.encoder
        latents = torch.cat([encoder.read_windows(*group) for group in groups])
        per_step = encoder.config.latents_per_step
        is_hidden = hidden_steps.repeat_interleave(per_step)[:, None]  # (L, 1)
        token = (self.masked_token + encoder.latent_embedding).repeat(len(hidden_steps), 1)
        num_timesteps = groups[0].activity.shape[1]
        masked = encoder.process(torch.where(is_hidden, token, latents), num_timesteps)
        unmasked = encoder.process(latents, num_timesteps)
        if self.teacher is None:
            return masked, unmasked, unmasked.detach()
        target = self.teacher.encode_groups(groups)
        return masked, unmasked, F.layer_norm(target, target.shape[-1:])

    @torch.no_grad()
    def move_teacher(self, decay: float) -> None:
        """Moves the teacher's weights towards the encoder's; of the rest ``decay`` stays."""
        assert self.teacher is not None
        pairs = zip(self.teacher.parameters(), self.encoder.parameters(), strict=True)
        for average, weight in pairs:
            average.lerp_(weight, 1 - decay)


class MaskedLatents(Objective):
    """The masked view must equal the unmasked one; L1 on the hidden latents.

    The target has no gradient (otherwise a constant solves the objective). With ``target: ema`` it
    comes from a teacher whose weights follow the encoder's, and each latent of it has zero mean and
    unit variance over its features, so that it can neither collapse nor grow. All views are made
    without dropout, so that masking is their only difference. Published with 0.01 x cross-entropy
    of the direction from the unmasked view of the same windows, ``label_weight: 0.01``. Watch
    ``target_variance`` and ``target_effective_rank``: as published it collapses or explodes.

    Args:
        encoder: What is pretrained.
        config: Fraction and target, labels and training.
        seed: Not used: always the last latent steps are hidden.
        num_classes: Answers of the label task; 0 uses no labels.

    References:
        Bae et al., arXiv:2510.18516, pretraining objective. Baevski et al., ICML 2022 (data2vec):
        normalised targets of a moving average.
    """

    network: MaskedLatentsNetwork
    shares_windows = True

    @classmethod
    def labelled_window_length(cls, config: PretrainingConfig) -> float:
        """As long as the objective's: it takes both losses of the same windows, as published."""
        return config.window_length

    def __init__(
        self, encoder: Encoder, config: PretrainingConfig, seed: int, num_classes: int
    ) -> None:
        options = config.masked_latents
        network = MaskedLatentsNetwork(encoder, with_teacher=options.target == "ema")
        super().__init__(network, config, seed, num_classes)
        self.options = options
        self.network.eval()

    def self_supervised(self, groups: list[WindowBatch]) -> tuple[dict[str, Tensor], Tensor]:
        """``loss``, variance and effective rank of the target; latents of the unmasked view."""
        num_steps = len(self.encoder.latent_times(groups[0].activity.shape[1]))
        hidden = hide_last_steps(num_steps, self.options.hidden_fraction).to(self.device)
        masked, unmasked, target = self.network(self.shown(groups), hidden)
        is_hidden = hidden.repeat_interleave(self.encoder.config.latents_per_step)
        error = (masked[:, is_hidden] - target[:, is_hidden]).abs().mean()
        terms = {"loss": error, "reconstruction": error}
        if self.is_monitored:
            features = target[:, is_hidden].flatten(0, 1)
            terms["target_variance"] = features.var(0, correction=0).mean()
            terms["target_effective_rank"] = effective_rank(features)
        return terms, unmasked

    def after_step(self) -> None:
        """The teacher follows the encoder."""
        if self.network.teacher is not None:
            self.network.move_teacher(self.options.teacher_decay)
