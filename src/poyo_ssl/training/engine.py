"""The engine all training shares: early stopping, averaging, resuming, seeds."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback

from poyo_ssl.model.checkpoints import network_tensors, restore
from poyo_ssl.model.fit import Fit
from poyo_ssl.training.averaging import MovingAverage
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.training.data_parallel import SeedParts, find_processes, naming_lost_processes
from poyo_ssl.training.loaders import make_loaders
from poyo_ssl.training.loggers import LOGGERS
from poyo_ssl.training.memory import (
    keep_large_buffers,
    leaving_new_arrays_unfilled,
    return_memory,
)
from poyo_ssl.training.progress import LOG_EVERY, KeepBest, KeepCurves, ShowBar
from poyo_ssl.training.resuming import (
    TrainingCheckpoints,
    WriteCheckpoints,
    is_finished,
    read_checkpoint,
    step_of,
)
from poyo_ssl.training.window_module import WindowModule
from poyo_ssl.windows.evaluation_batches import ValidationBatches
from poyo_ssl.windows.training_batches import TrainingSteps

NOT_DECIDING = (
    "accumulate",
    "activity_on",
    "checkpoint_every",
    "keep_checkpoints",
    "logger",
    "rank_timeout",
)
"""Options that may differ when a fit is resumed: they do not decide what is learned."""


def fit(
    module: WindowModule,
    train_batches: TrainingSteps,
    valid_batches: ValidationBatches | None,
    *,
    seed: int,
    checkpoint_directory: Path | None = None,
    identity: dict[str, Any] | None = None,
    log_directory: Path | None = None,
    show_progress: bool = False,
) -> Fit:
    """Trains a module in place; on a CPU the same seed gives the same weights.

    With a directory for checkpoints, the same call resumes where an earlier one was stopped or
    killed, and takes the same steps as if nothing had happened; once finished, it returns at once
    what was fitted. Started by ``torchrun``, processes share the windows of every step.

    Args:
        module: Network and objective.
        train_batches: Steps without end.
        valid_batches: Every validation window once; None trains to the last step.
        seed: Seed of dropout and masks; batches carry their own.
        checkpoint_directory: A directory for this fit alone; None keeps nothing.
        identity: What else tells this fit from others, such as the encoder that it starts from;
            JSON-ready.
        log_directory: Where the logger writes curves while it runs; None writes none.
        show_progress: Draw a progress bar.

    Raises:
        CheckpointError: If the directory holds the checkpoints of another fit.
        TrainingStorageError: If checkpoints cannot be written.
        ValueError: If recordings do not fit on the device that they are to lie on.
        LostProcessError: If another process died or does not answer.
        SystemExit: On SIGTERM and Ctrl-C, after a checkpoint was written.
    """
    config = module.training_config
    keep_large_buffers()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.manual_seed(seed)
    curves, best = KeepCurves(config.accumulate), KeepBest(config.patience)
    callbacks = _callbacks(config, curves, best if valid_batches is not None else None, seed)
    writer = None
    if checkpoint_directory is not None:
        settings = _settings(module, train_batches, seed, identity)
        writer = WriteCheckpoints(
            TrainingCheckpoints(checkpoint_directory, settings, config.keep_checkpoints),
            every=config.checkpoint_every,
            valid_every=_valid_every(config) if valid_batches is not None else None,
            accumulate=config.accumulate,
        )
    trainer = _make_trainer(
        config,
        [*callbacks, *[ShowBar()] * show_progress],
        writer,
        logger=LOGGERS[config.logger](log_directory, LOG_EVERY) if log_directory else False,
        limit_val_batches=None if valid_batches is not None else 0,
        enable_progress_bar=False,
    )
    newest = writer.find_newest(trainer) if writer is not None else None
    if newest is not None and is_finished(newest):
        return _restore_fitted(module, read_checkpoint(newest))
    first_step = step_of(newest) if newest is not None else 0
    with (
        _expected_warnings(),
        _keeping_ctrl_c(),
        naming_lost_processes(config.rank_timeout),
        leaving_new_arrays_unfilled(),
    ):
        train_loader, valid_loader = make_loaders(
            train_batches,
            valid_batches,
            config,
            device=trainer.strategy.root_device,
            first_step=first_step,
        )
        trainer.fit(module, train_loader, valid_loader, ckpt_path=newest, weights_only=True)
    fitted = {
        "weights": network_tensors(module) | best.weights,
        "curves": curves.rows,
        "seconds": curves.seconds,
        "best_step": best.step or trainer.global_step,
    }
    if writer is not None:
        writer.finish(trainer, fitted)
    return_memory()
    return _restore_fitted(module, fitted)


def _callbacks(
    config: TrainingConfig, curves: KeepCurves, best: KeepBest | None, seed: int
) -> list[Callback]:
    """What happens beside the steps; ``best`` is None where nothing is validated."""
    callbacks: list[Callback] = []
    if best is not None and config.patience is not None:
        callbacks.append(best)
    if config.ema_decay is not None:
        callbacks.append(MovingAverage(config.ema_decay))
    callbacks.append(curves)
    processes = find_processes()
    callbacks.append(SeedParts(seed, processes.parts(config.accumulate)))
    return callbacks


def _settings(
    module: WindowModule,
    train_batches: TrainingSteps,
    seed: int,
    identity: dict[str, Any] | None,
) -> dict[str, Any]:
    """All that decides what is learned, and what tells this fit from others."""
    config = asdict(module.config)
    training = config.get("training", config)
    for name in NOT_DECIDING:
        training.pop(name, None)
    return {
        "config": config,
        "seed": seed,
        "batches": train_batches.describe(),
        "module": type(module).__name__,
        "weights": {name: list(value.shape) for name, value in network_tensors(module).items()},
        **(identity or {}),
    }


def _valid_every(config: TrainingConfig) -> int:
    return min(config.valid_every, config.num_steps)


def _make_trainer(
    config: TrainingConfig,
    callbacks: list[Callback],
    writer: WriteCheckpoints | None,
    **options: Any,
) -> L.Trainer:
    """Lightning's trainer; checkpoints are written last, when all others have seen the step."""
    options |= find_processes().trainer_options(config.rank_timeout)
    if writer is not None:
        callbacks.append(writer)
        options["plugins"] = [*options.get("plugins", []), writer.checkpoints]
    return L.Trainer(
        accelerator="auto",
        precision="bf16-mixed" if config.precision == "bfloat16" else "32-true",
        max_steps=config.num_steps,
        max_epochs=1,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.gradient_clip,
        val_check_interval=_valid_every(config) * config.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=LOG_EVERY,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_model_summary=False,
        deterministic=True,
        **options,
    )


@contextmanager
def _keeping_ctrl_c() -> Iterator[None]:
    """Puts back the handler of Ctrl-C, which Lightning leaves ignored once it was pressed."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGINT, before)


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """Leaves out what warns of our choices.

    Batches are gathered in memory, so workers would not help; no valid part, and a network without
    dropout, are wanted; the new name of ``broadcast_buffers`` is unknown to older torch.
    """
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers",
            ".*but have no `val_dataloader`",
            ".*in eval mode at the start of training",
            ".*isinstance.treespec, LeafSpec",
            ".*`broadcast_buffers` is deprecated",
        ):
            warnings.filterwarnings("ignore", message)
        yield


def _restore_fitted(module: WindowModule, fitted: dict[str, Any]) -> Fit:
    """Gives a module the weights that a fit has kept."""
    restore(module, fitted["weights"])
    module.eval()
    return Fit(
        curves=pd.DataFrame(fitted["curves"], columns=["step", "metric", "value"]),
        seconds=fitted["seconds"],
        best_step=fitted["best_step"],
    )
