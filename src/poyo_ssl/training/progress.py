"""What a fit learns about itself on the way: its curves, and the weights that validated best."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from poyo_ssl.model.checkpoints import network_tensors

LOG_EVERY = 10
"""Steps between points of a learning curve."""


class KeepCurves(Callback):
    """Collects what is logged, (step, metric, value), averaged over the parts of a step.

    Args:
        accumulate: Parts of a step in this process.
    """

    def __init__(self, accumulate: int) -> None:
        self.accumulate = accumulate
        self.rows: list[tuple[int, str, float]] = []
        self._seconds_before, self._started = 0.0, time.perf_counter()
        self._parts: list[dict[str, Tensor]] = []

    @property
    def seconds(self) -> float:
        """Time that the fit has taken, in all runs up to now."""
        return self._seconds_before + time.perf_counter() - self._started

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, out: Any, batch: Any, batch_index: int
    ) -> None:
        """A point of the training curves every so many steps."""
        is_last_part = (batch_index + 1) % self.accumulate == 0
        step = trainer.global_step if is_last_part else trainer.global_step + 1
        if step % LOG_EVERY:
            return
        self._parts.append(_metrics(trainer, "train/"))
        if is_last_part:
            for name in self._parts[-1]:
                value = torch.stack([part[name] for part in self._parts if name in part]).mean()
                mean = trainer.strategy.reduce(value, reduce_op="mean")
                self.rows.append((step, name, float(mean)))
            self._parts = []

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """A point of the validation curves."""
        for name, value in _metrics(trainer, "valid/").items():
            self.rows.append((trainer.global_step, name, float(value)))

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.rows, self._seconds_before = state_dict["rows"], state_dict["seconds"]


def _metrics(trainer: L.Trainer, prefix: str) -> dict[str, Tensor]:
    return {name: v for name, v in trainer.callback_metrics.items() if name.startswith(prefix)}


class KeepBest(Callback):
    """Remembers the weights that were validated best; they are averaged ones under EMA."""

    def __init__(self) -> None:
        self.best = math.inf
        self.weights: dict[str, Tensor] = {}
        self.step = 0

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Copies the weights if they are better than all before."""
        loss = float(trainer.callback_metrics["valid/loss"])
        if loss < self.best:
            self.best, self.step = loss, trainer.global_step
            self.weights = {k: v.clone() for k, v in network_tensors(module).items()}

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"best": self.best, "step": self.step, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.best, self.step = state_dict["best"], state_dict["step"]
        self.weights = state_dict["weights"]
