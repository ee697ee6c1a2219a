"""What a fit learns about itself on the way: its curves, and the weights that validated best."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from poyo_ssl.model.checkpoints import network_tensors
from poyo_ssl.progress_bars import stage_progress

LOG_EVERY = 10
"""Steps between points of a learning curve."""


class ShowBar(Callback):
    """Draws a bar of the steps taken, of how many at most, with the time that is left."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._report: Callable[[str, int, int], None] | None = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """The bar of the first process; the others do as much."""
        if trainer.is_global_zero:
            self._report = self._open.enter_context(stage_progress())
            self._report("training steps", trainer.global_step, trainer.max_steps)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, out: Any, batch: Any, batch_index: int
    ) -> None:
        """A step further."""
        if self._report is not None:
            self._report("training steps", trainer.global_step, trainer.max_steps)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """The bar stays as it is."""
        self._open.close()

    def on_exception(
        self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException
    ) -> None:
        """The terminal gets its cursor back."""
        self._open.close()


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


@dataclass
class Best:
    """What validated best of one part."""

    loss: float = math.inf
    step: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    num_worse: int = 0
    """Validations since then."""


class KeepBest(Callback):
    """Remembers the weights that validated best, and stops when none has improved for long.

    Weights are averaged ones under EMA. Parts that are validated apart are kept and stopped
    apart.

    Args:
        patience: Validations without improvement before a part stops; None never stops.
    """

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.parts: dict[str, Best] = {}

    @property
    def weights(self) -> dict[str, Tensor]:
        """The best of every part; empty before the first validation."""
        return {name: value for part in self.parts.values() for name, value in part.weights.items()}

    @property
    def step(self) -> int:
        """The last step of which something is kept."""
        return max((part.step for part in self.parts.values()), default=0)

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Parts that had stopped in an earlier run stay so."""
        module.finished.update(self._finished())

    def on_validation_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
        """Copies the weights of every part that is better than before."""
        for prefix, metric in module.validated_apart.items():
            if prefix in module.finished:
                continue
            best = self.parts.setdefault(prefix, Best())
            loss = float(trainer.callback_metrics[metric])
            if loss < best.loss:
                best.loss, best.step, best.num_worse = loss, trainer.global_step, 0
                best.weights = {
                    name: value.clone()
                    for name, value in network_tensors(module).items()
                    if name.startswith(prefix)
                }
            else:
                best.num_worse += 1
        module.finished.update(self._finished())
        if len(module.finished) == len(module.validated_apart):
            trainer.should_stop = True

    def _finished(self) -> list[str]:
        if self.patience is None:
            return []
        return [name for name, part in self.parts.items() if part.num_worse >= self.patience]

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {name: vars(part) for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.parts = {name: Best(**state) for name, state in state_dict.items()}
