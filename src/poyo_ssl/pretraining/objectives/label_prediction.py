"""Supervised pretraining: labels and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poyo_ssl.model.encoder import Encoder
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.objectives.objective import Objective
from poyo_ssl.windows.training_batches import WindowBatch


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

    def __init__(
        self, encoder: Encoder, config: PretrainingConfig, seed: int, num_classes: int
    ) -> None:
        super().__init__(EncoderAlone(encoder), config, seed, num_classes)

    def self_supervised(self, groups: list[WindowBatch]) -> tuple[dict[str, Tensor], Tensor]:
        """A loss of zero, and the latents of the windows."""
        latents = self.encoder.encode_groups(self.shown(groups))
        return {"loss": torch.zeros((), device=latents.device)}, latents
