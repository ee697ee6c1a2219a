"""A module of a few weights and windows of a few numbers: a fit of it takes a blink."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poyo_ssl.model.fit import Fit
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.training.engine import fit
from poyo_ssl.training.window_module import WindowModule
from poyo_ssl.windows.activity import Activity
from poyo_ssl.windows.evaluation_batches import EvaluationBatches
from poyo_ssl.windows.task_windows import TaskWindows
from poyo_ssl.windows.training_batches import (
    MixedBatches,
    TrainingBatches,
    WindowBatch,
    WindowSource,
)

NUM_UNITS, NUM_TIMESTEPS = 4, 5

QUICK = TrainingConfig(
    max_steps=12,
    batch_size=8,
    lr=0.05,
    ema_decay=None,
    patience=None,
    valid_every=4,
    unit_dropout=0.0,
    jitter=0.0,
)


class MeanDecoding(WindowModule):
    """Tells two classes apart by mean activity; remembers its weights after every step."""

    def __init__(self, config: TrainingConfig, dropout: float = 0.0) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Dropout(dropout), nn.Linear(NUM_UNITS, 2)), config)
        self.history: list[Tensor] = []

    def losses(self, batch: list[WindowBatch]) -> dict[str, Tensor]:
        logits = torch.cat([self.network(group.activity.mean(1)) for group in batch])
        target = torch.cat([group.target for group in batch])
        return {"loss": F.cross_entropy(logits, target)}

    def on_train_batch_end(self, *args) -> None:
        self.history.append(self.weight.clone())

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self.network[1].weight.detach()
        return weight


class StopError(Exception):
    """Ends a fit as if its process had been killed."""


class Watched(MeanDecoding):
    """Writes down the loss of every part, and stops after a step."""

    def __init__(self, config: TrainingConfig, dropout: float, stop_after: int | None) -> None:
        super().__init__(config, dropout)
        self.stop_after = stop_after
        self.seen: list[tuple[int, float, float]] = []

    def losses(self, batch: list[WindowBatch]) -> dict[str, Tensor]:
        terms = super().losses(batch)
        if self.training:
            total = float(sum(group.activity.sum() for group in batch))
            self.seen.append((self.global_step, total, float(terms["loss"].detach())))
        return terms

    def on_before_zero_grad(self, optimizer) -> None:
        if self.stop_after is not None and self.global_step >= self.stop_after:
            raise StopError


def make_source(seed: int, is_flipped: bool = False) -> WindowSource:
    """Windows whose first unit tells the class, truly or falsely."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, 40)
    values = rng.normal(size=(40, NUM_TIMESTEPS, NUM_UNITS)).astype(np.float32)
    values[..., 0] += np.where(target[:, None] == 1, 1.0, -1.0) * (-1 if is_flipped else 1)
    return WindowSource(
        activity=Activity(
            recording_id="a",
            values=torch.from_numpy(values.reshape(-1, NUM_UNITS)),
            unit_ids=[str(i) for i in range(NUM_UNITS)],
        ),
        unit_index=torch.arange(1, NUM_UNITS + 1),
        windows=TaskWindows(
            first_timestep=NUM_TIMESTEPS * np.arange(40), num_timesteps=NUM_TIMESTEPS, target=target
        ),
        may_start=np.arange(40 * NUM_TIMESTEPS) <= 39 * NUM_TIMESTEPS,
    )


def make_batches(
    config: TrainingConfig, seed: int = 0, source: WindowSource | None = None
) -> TrainingBatches:
    return TrainingBatches(
        [make_source(0) if source is None else source],
        batch_size=config.batch_size,
        seed=seed,
        jitter=round(5 * config.jitter),
        unit_dropout=0.0,
    )


def run(
    module: MeanDecoding,
    *,
    seed: int = 0,
    batch_seed: int = 0,
    train: WindowSource | None = None,
    valid: WindowSource | None = None,
    is_mixed: bool = False,
    **options: Any,
) -> Fit:
    config = module.training_config
    batches: TrainingBatches | MixedBatches = make_batches(config, batch_seed, train)
    if is_mixed:
        half = replace(config, batch_size=config.batch_size // 2)
        batches = MixedBatches([make_batches(half), make_batches(half, seed=7)])
    valid_batches = EvaluationBatches([valid], batch_size=16) if valid else None
    return fit(module, batches, valid_batches, seed=seed, **options)
