"""What all objectives of pretraining share: labels beside them, and monitors of collapse."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poyo_ssl.model.encoder import Encoder
from poyo_ssl.model.losses import effective_rank
from poyo_ssl.model.readouts import LabelHead, Questions
from poyo_ssl.pretraining.objectives.activity_modes import ActivityModes
from poyo_ssl.training.progress import LOG_EVERY
from poyo_ssl.training.window_module import WindowModule
from poyo_ssl.windows.activity import Windows
from poyo_ssl.windows.tasks import find_task
from poyo_ssl.windows.training_batches import WindowBatch

if TYPE_CHECKING:
    from poyo_ssl.pretraining.config import PretrainingConfig


class Objective(WindowModule):
    """A self-supervised loss and, where labels have a weight, their cross-entropy beside it.

    The labels are asked for as decoders ask, in windows that nothing is hidden of.

    Args:
        network: What is trained; its ``encoder`` is what pretraining is for.
        config: Objective, weight of the labels, and training.
        seed: Seed of what is hidden.
        num_classes: Answers of the label task; 0 uses no labels.
    """

    shares_windows: ClassVar[bool] = False
    """Whether both losses are of the same windows where labels are used. If so,
    :meth:`self_supervised` returns latents of the view that nothing is hidden of."""

    is_trained: ClassVar[bool] = True
    """Whether there is anything to learn by steps."""

    @classmethod
    def streams(cls, label_weight: float) -> tuple[Literal["unlabelled", "labelled"], ...]:
        """What a batch is made of: random windows, labelled windows, or one half of each."""
        if not label_weight:
            return ("unlabelled",)
        return ("labelled",) if cls.shares_windows else ("unlabelled", "labelled")

    @classmethod
    def labelled_window_length(cls, config: PretrainingConfig) -> float:
        """Seconds of labelled windows: as decoders have them, so that both ask the same."""
        return find_task(config.label_task).length

    @classmethod
    def problems(cls, config: PretrainingConfig) -> list[str]:
        """What of a config makes no sense for this objective, and what to do."""
        return []

    def __init__(
        self, network: nn.Module, config: PretrainingConfig, seed: int, num_classes: int
    ) -> None:
        super().__init__(network, config.training)
        self.config: PretrainingConfig = config
        self.seed = seed
        self.modes: ActivityModes | None = None
        """Those of ``num_removed_modes``, measured before training."""
        self.labels: LabelHead | None = None
        """What answers the label task; None uses no labels."""
        if num_classes:
            time = find_task(config.label_task).query_time
            reader = Questions(self.encoder.config, num_queries=1, query_time=time)
            self.labels = LabelHead(reader, num_classes)

    @property
    def num_removed_modes(self) -> int:
        """Leading components of every recording's activity that the objective leaves out."""
        return 0

    @property
    def encoder(self) -> Encoder:
        """What is pretrained."""
        encoder = self.network.encoder
        assert isinstance(encoder, Encoder)
        return encoder

    @abstractmethod
    def self_supervised(self, groups: list[WindowBatch]) -> tuple[dict[str, Tensor], Tensor]:
        """The objective's own terms, every window with the same weight whatever its group.

        Returns:
            ``loss`` and other terms; and latents of all windows, (B, L, D), for the monitors.
        """

    def shown(self, groups: list[WindowBatch]) -> list[Windows]:
        """What the encoder reads of windows that nothing is hidden of."""
        return [group.windows for group in groups]

    def losses(self, batch: list[WindowBatch]) -> dict[str, Tensor]:
        """``loss`` and its terms; every ``LOG_EVERY`` steps and in validation the monitors, too.

        ``latent_variance`` and ``effective_rank`` are of the windows' mean latents.
        """
        labelled = [] if self.labels is None else [g for g in batch if (g.target >= 0).all()]
        own = batch if self.shares_windows or not labelled else _without(batch, labelled)
        terms, latents = self.self_supervised(own)
        if self.is_monitored:
            features = latents.detach().mean(1)
            terms["latent_variance"] = features.var(0, correction=0).mean()
            terms["effective_rank"] = effective_rank(features)
        if self.labels is not None:
            if not self.shares_windows:
                latents = self.encoder.encode_groups(self.shown(labelled))
            num_timesteps = labelled[0].activity.shape[1]
            logits = self.labels.answer(self.encoder, latents, num_timesteps)
            target = torch.cat([group.target for group in labelled])
            terms["label_loss"] = F.cross_entropy(logits, target)
            terms["label_accuracy"] = (logits.argmax(1) == target).float().mean()
            terms["loss"] = terms["loss"] + self.config.label_weight * terms["label_loss"]
        return terms

    @property
    def is_monitored(self) -> bool:
        """Whether what is computed now becomes a point of the curves."""
        return not self.training or (self.global_step + 1) % LOG_EVERY == 0

    def generator(self) -> torch.Generator:
        """Decides what is random in a step; every validation draws the same, to be comparable."""
        step = self.global_step if self.training else -1
        return torch.Generator().manual_seed(self.seed * 1_000_003 + step)


def _without(batch: list[WindowBatch], labelled: list[WindowBatch]) -> list[WindowBatch]:
    return [group for group in batch if not any(group is other for other in labelled)]
