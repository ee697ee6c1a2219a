"""What a process draws its windows from: recordings that lie where the config wants them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils.data import DataLoader

from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.training.data_parallel import find_processes
from poyo_ssl.windows.evaluation_batches import ValidationBatches
from poyo_ssl.windows.training_batches import Place, StepParts, TrainingSteps

WindowLoader = DataLoader[list[Any]]


def make_loaders(
    train_batches: TrainingSteps,
    valid_batches: ValidationBatches | None,
    config: TrainingConfig,
    *,
    device: torch.device,
    first_step: int,
) -> tuple[WindowLoader, WindowLoader | None]:
    """This process's parts of the steps from ``first_step`` on, and its share of validation.

    Raises:
        ValueError: If recordings do not fit on the device that they are to lie on.
    """
    place = _find_place(config, device)
    processes = find_processes()
    steps = StepParts(
        train_batches.to(place),
        parts=processes.parts(config.accumulate),
        num_parts=processes.num_parts(config.accumulate),
        first_step=first_step,
    )
    loader = DataLoader(steps, batch_size=None)
    if valid_batches is None:
        return loader, None
    share = valid_batches.to(place).divided(processes.rank, processes.world_size)
    return loader, DataLoader(share, batch_size=None)


def _find_place(config: TrainingConfig, device: torch.device) -> Place:
    """Where the config wants every recording, once for all streams that draw from it."""
    target = device if config.activity_on == "device" else torch.device("cpu")
    dtype = {"float32": torch.float32, "float16": torch.float16}[config.activity_precision]
    return cache(lambda activity: activity.to(target, dtype))
