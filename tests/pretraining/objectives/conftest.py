"""Windows of six units, and objectives of a tiny encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.objectives import OBJECTIVES
from poyo_ssl.pretraining.objectives.objective import Objective
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.windows.training_batches import WindowBatch

Make = Callable[..., Objective]


@pytest.fixture
def group() -> WindowBatch:
    """Five windows of 20 samples (four patches) of six units, and a direction for each."""
    return WindowBatch(
        activity=torch.randn(5, 20, 6, generator=torch.Generator().manual_seed(0)),
        unit_index=torch.arange(1, 7),
        target=torch.tensor([0, 1, 2, 3, 0]),
        recording_id="tiny",
    )


@pytest.fixture
def make(tiny_encoder) -> Make:
    """An objective of the tiny encoder, always with the same weights; four classes with labels."""

    def make_objective(
        name: str, batch_size: int = 64, label_weight: float = 0.0, **options
    ) -> Objective:
        torch.manual_seed(1)
        config = PretrainingConfig(
            objective=name,
            label_weight=label_weight,
            training=TrainingConfig(batch_size=batch_size, unit_dropout=0.3, jitter=0.0),
        )
        if options:
            config = replace(config, **{name: replace(getattr(config, name), **options)})
        num_classes = 4 if config.label_weight else 0
        return OBJECTIVES[name](tiny_encoder, config, 0, num_classes)

    return make_objective
