"""Supervised pretraining: labels and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from poyo_ssl.model.encoder import Encoder
from poyo_ssl.pretraining.objectives.objective import Objective
from poyo_ssl.windows.training_batches import WindowBatch

if TYPE_CHECKING:
    from poyo_ssl.pretraining.config import PretrainingConfig


class EncoderAlone(nn.Module):
    """An encoder under the name by which objectives know it."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder


class LabelPrediction(Objective):
    """No loss of its own: ``label_weight`` x cross-entropy of the label task.

    The arm that shows how much of pretraining is owed to labels.

    Args:
        encoder: What is pretrained.
        config: Weight, task and training.
        seed: Not used, as nothing is hidden.
        num_classes: Answers of the label task.
    """

    shares_windows = True

    @classmethod
    def problems(cls, config: PretrainingConfig) -> list[str]:
        """No labels, or windows of a length that labels do not have."""
        problems = []
        if not config.label_weight:
            problems.append("the objective labels learns from nothing else: set label_weight: 1")
        if config.window_length != type(config).window_length:
            problems.append("labels reads windows of its label_task: leave window_length out")
        return problems

    def __init__(
        self, encoder: Encoder, config: PretrainingConfig, seed: int, num_classes: int
    ) -> None:
        super().__init__(EncoderAlone(encoder), config, seed, num_classes)

    def self_supervised(self, groups: list[WindowBatch]) -> tuple[dict[str, Tensor], Tensor]:
        """A loss of zero, and the latents of the windows."""
        latents = self.encoder.encode_groups(self.shown(groups))
        return {"loss": torch.zeros((), device=latents.device)}, latents
