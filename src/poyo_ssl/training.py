"""The engine all training shares: optimiser, schedule, early stopping, averaging, seeds."""

from __future__ import annotations

import ctypes
import logging
import math
import platform
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    RichProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from poyo_ssl.model.checkpoints import network_tensors, restore
from poyo_ssl.recordings.sampling import WindowBatch

UNIT_EMBEDDING = "unit_embedding"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of mallopt(3)."""
LARGEST_KEPT_BUFFER = 2**26
"""Bytes up to which a freed array is kept for reuse; four times as much is kept in all."""
LOG_EVERY = 10
"""Steps between points of a learning curve."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a network is fitted."""

    max_steps: int = 300
    """Optimiser steps."""
    batch_size: int = 32
    """Windows in a step."""
    lr: float = 2e-3
    """Largest learning rate."""
    unit_lr_factor: float = 10.0
    """Learning rate of the unit embeddings relative to the rest: each is in few windows' way."""
    weight_decay: float = 0.01
    """Decoupled weight decay of everything but the unit embeddings."""
    optimizer: Literal["adamw", "lamb"] = "adamw"
    """LAMB (You et al. 2020), the published choice, needs the extra poyo-ssl[lamb]."""
    warmup_fraction: float = 0.1
    """Part of the steps over which the learning rate rises from zero; then cosine to zero."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    ema_decay: float | None = 0.98
    """Decay of the moving average of weights that is kept in the end; None keeps the last."""
    valid_every: int = 50
    """Steps between validations, where there is a validation part."""
    max_valid_windows: int = 512
    """Validate on at most so many windows, evenly spaced: neighbours differ little."""
    patience: int | None = 6
    """Validations without improvement before stopping; None never stops early. The weights of
    the best validation are kept whenever there is a validation part and patience is given."""
    jitter: float = 0.2
    """Windows start up to so many seconds earlier or later in training."""
    unit_dropout: float = 0.5
    """Each step leaves out units at a rate drawn from U(0, unit_dropout)."""

    def __post_init__(self) -> None:
        problems = []
        counts = (self.max_steps, self.batch_size, self.valid_every, self.max_valid_windows)
        if min(counts) < 1:
            problems.append(
                "max_steps, batch_size, valid_every and max_valid_windows must be at least 1"
            )
        if self.lr <= 0 or self.unit_lr_factor <= 0 or self.gradient_clip <= 0:
            problems.append("lr, unit_lr_factor and gradient_clip must be positive")
        if not 0 <= self.warmup_fraction < 1 or not 0 <= self.unit_dropout < 1:
            problems.append("warmup_fraction and unit_dropout must lie in [0, 1)")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            problems.append("ema_decay must lie in (0, 1) or be null")
        if self.patience is not None and self.patience < 1:
            problems.append("patience must be at least 1 or null")
        if self.jitter < 0 or self.weight_decay < 0:
            problems.append("jitter and weight_decay must not be negative")
        if self.optimizer not in ("adamw", "lamb"):
            problems.append("optimizer must be adamw or lamb")
        if problems:
            raise ValueError("; ".join(problems) + f". Got {self}.")


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Learning rate relative to its peak: linear from above zero, then cosine down to zero."""
    warmup = round(config.warmup_fraction * config.max_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, config.max_steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class WindowModule(L.LightningModule):
    """A network and how it is trained; one subclass per objective.

    Args:
        network: What is trained.
        config: How.
    """

    def __init__(self, network: nn.Module, config: TrainingConfig) -> None:
        super().__init__()
        self.network = network
        self.training_config = config

    def losses(self, batch: list[WindowBatch]) -> dict[str, Tensor]:
        """The terms of the loss by name; ``loss`` is what is minimised."""
        raise TypeError(f"{type(self).__name__} must say what it minimises.")

    def trainable_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """What the optimiser may change: everything, unless a subclass freezes a part."""
        return [(name, p) for name, p in self.named_parameters() if p.requires_grad]

    def training_step(self, batch: list[WindowBatch], batch_index: int) -> Tensor:
        """One step: forward, loss, log."""
        terms = self.losses(batch)
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()})
        return terms["loss"]

    def validation_step(self, batch: list[WindowBatch], batch_index: int) -> None:
        """The same loss on the validation part."""
        terms = self.losses(batch)
        num_windows = sum(len(group.target) for group in batch)
        self.log_dict(
            {f"valid/{name}": value for name, value in terms.items()}, batch_size=num_windows
        )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW or LAMB with warm-up and cosine decay, stepped every step."""
        config = self.training_config
        units: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in self.trainable_parameters():
            (units if UNIT_EMBEDDING in name else rest).append(parameter)
        groups = [
            {"params": rest, "lr": config.lr},
            # not decayed: a unit that no batch shows must keep its embedding
            {"params": units, "lr": config.lr * config.unit_lr_factor, "weight_decay": 0.0},
        ]
        optimizer = _make_optimizer([group for group in groups if group["params"]], config)
        schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, config))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def _make_optimizer(groups: list[dict[str, Any]], config: TrainingConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    try:
        from pytorch_optimizer import Lamb
    except ImportError as error:
        raise ImportError(
            "optimizer: lamb needs pytorch-optimizer. Run 'pip install poyo-ssl[lamb]' "
            "or set optimizer: adamw."
        ) from error
    optimizer: torch.optim.Optimizer = Lamb(groups, weight_decay=config.weight_decay)
    return optimizer


def _keep_large_buffers() -> None:
    """Lets glibc reuse freed buffers of megabytes instead of asking the kernel for new pages.

    A training step on a CPU allocates and frees the same large arrays again and again; page
    faults were a fifth of its time (71 ms to 56 ms a step at 254 units). Elsewhere than on glibc
    nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BUFFER)
    libc.mallopt(M_TRIM_THRESHOLD, 4 * LARGEST_KEPT_BUFFER)


def _return_memory() -> None:
    """Gives the buffers kept during training back to the system, so that runs do not grow."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


class _KeepCurves(Callback):
    """Collects what is logged: (step, metric, value)."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, float]] = []

    def _collect(self, trainer: L.Trainer, prefix: str) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith(prefix):
                self.rows.append((trainer.global_step, name, float(value)))

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step % LOG_EVERY == 0:
            self._collect(trainer, "train/")

    def on_validation_end(self, trainer: L.Trainer, *args: Any) -> None:
        if not trainer.sanity_checking:
            self._collect(trainer, "valid/")


class _KeepBest(Callback):
    """Remembers the weights that were validated best; they are averaged ones under EMA."""

    def __init__(self) -> None:
        self.best = math.inf
        self.weights: dict[str, Tensor] = {}
        self.step = 0

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        loss = float(trainer.callback_metrics["valid/loss"])
        if not trainer.sanity_checking and loss < self.best:
            self.best, self.step = loss, trainer.global_step
            self.weights = {k: v.clone() for k, v in network_tensors(module).items()}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a training run left behind beside the weights."""

    curves: pd.DataFrame
    """Columns step, metric, value."""
    seconds: float
    best_step: int
    """Step whose weights were kept."""


def fit(
    module: WindowModule,
    train_batches: IterableDataset[list[WindowBatch]],
    valid_batches: IterableDataset[list[WindowBatch]] | None,
    *,
    seed: int,
    log_directory: Path | None = None,
    show_progress: bool = False,
) -> Fit:
    """Trains a module in place; on a CPU the same seed gives the same weights.

    Args:
        module: Network and objective.
        train_batches: Endless.
        valid_batches: Every validation window once; None trains to the last step.
        seed: Of dropout and masks; batches carry their own.
        log_directory: Where TensorBoard finds the curves; None writes none.
        show_progress: Draw a progress bar.
    """
    config = module.training_config
    _keep_large_buffers()
    curves, best = _KeepCurves(), _KeepBest()
    callbacks: list[Callback] = []
    if valid_batches is not None and config.patience is not None:
        callbacks += [best, EarlyStopping("valid/loss", patience=config.patience)]
    if config.ema_decay is not None:
        # unlike EMAWeightAveraging's, this average of equal weights is exactly that weight: what
        # is frozen stays bit-identical
        callbacks.append(WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay)))
    callbacks.append(curves)
    if show_progress:
        callbacks.append(RichProgressBar())
    logger = TensorBoardLogger(log_directory, name="", version="") if log_directory else False
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.manual_seed(seed)
    trainer = L.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=config.max_steps,
        max_epochs=1,
        gradient_clip_val=config.gradient_clip,
        val_check_interval=min(config.valid_every, config.max_steps),
        check_val_every_n_epoch=None,
        limit_val_batches=None if valid_batches is not None else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=LOG_EVERY,
        logger=logger,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=show_progress,
        enable_model_summary=False,
        deterministic=True,
    )
    started = time.perf_counter()
    with warnings.catch_warnings():
        # batches are gathered in memory, so workers would not help; no valid part, and a network
        # without dropout, are choices
        for message in (
            ".*does not have many workers",
            ".*but have no `val_dataloader`",
            ".*in eval mode at the start of training",
            ".*isinstance.treespec, LeafSpec",
        ):
            warnings.filterwarnings("ignore", message)
        trainer.fit(
            module,
            DataLoader(train_batches, batch_size=None),
            DataLoader(valid_batches, batch_size=None) if valid_batches is not None else None,
        )
    if best.weights:
        restore(module, best.weights)
    module.eval()
    _return_memory()
    return Fit(
        curves=pd.DataFrame(curves.rows, columns=["step", "metric", "value"]),
        seconds=time.perf_counter() - started,
        best_step=best.step or trainer.global_step,
    )
