"""What learns from windows: its optimiser, schedule, clipping and logged losses."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from poyo_ssl.extras import import_extra
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.training.progress import LOG_EVERY
from poyo_ssl.windows.training_batches import WindowBatch

UNIT_EMBEDDING = "unit_embedding"


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Learning rate relative to its peak: linear from above zero, then cosine down to zero."""
    warmup = round(config.warmup_fraction * config.num_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, config.num_steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def seed_torch(seed: int, *entropy: int) -> None:
    """Seeds torch with a mixture of numbers; other numbers give independent draws."""
    mixed = np.random.SeedSequence([seed, *entropy])
    number = int(mixed.generate_state(1, np.uint64)[0])
    if torch.accelerator.is_available():
        torch.manual_seed(number)
    else:  # torch.manual_seed would write down who called, in case a device comes: a millisecond
        torch.default_generator.manual_seed(number)


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
        self.config: Any = config
        """What decides the objective; checkpoints of another one are refused."""
        self.finished: set[str] = set()
        """Prefixes of the parts that no longer learn, of those in ``validated_apart``."""

    @property
    def validated_apart(self) -> dict[str, str]:
        """Prefix of every part that keeps its own best weights, to its validation loss."""
        return {"": "valid/loss"}

    def draw_from(self, seed: int, *entropy: int) -> None:
        """Makes what is random from here on a function of these numbers.

        Args:
            seed: Seed of the fit.
            entropy: Step and part.
        """
        seed_torch(seed, *entropy)

    def clip_gradients_to(self, largest_norm: float) -> None:
        """Scales the gradient down to a norm where it is longer."""
        nn.utils.clip_grad_norm_(self.parameters(), largest_norm)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clips: by torch, since Lightning takes a fused optimiser for one that scales losses."""
        self.clip_gradients_to(self.training_config.gradient_clip)

    def before_step(self) -> None:
        """What must be remembered before the optimiser moves the weights."""

    def after_step(self) -> None:
        """What follows when it has moved them."""

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """A step of the optimiser."""
        self.before_step()
        super().optimizer_step(*args, **options)
        self.after_step()

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Batches are in memory already, where that is where training happens."""
        if device.type == "cpu":
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def losses(self, batch: list[WindowBatch]) -> dict[str, Tensor]:
        """The terms of the loss by name; ``loss`` is what is minimised."""
        raise TypeError(f"{type(self).__name__} must say what it minimises.")

    def trainable_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """What the optimiser may change: everything, unless a subclass freezes a part."""
        return [(name, p) for name, p in self.named_parameters() if p.requires_grad]

    def learning_rate_factors(self) -> dict[str, float]:
        """Learning rate of parameters by name, relative to what the config says; 1 if not named."""
        return {}

    def training_step(self, batch: list[WindowBatch], batch_index: int) -> Tensor:
        """One step: forward, loss, log."""
        terms = self.losses(batch)
        self.log_training(terms)
        return terms["loss"]

    def log_training(self, terms: dict[str, Tensor]) -> None:
        """Logs the terms of a step that is a point of the training curves."""
        if (self.global_step + 1) % LOG_EVERY == 0:
            self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()})

    def validation_step(self, batch: list[WindowBatch], batch_index: int) -> None:
        """The same loss on the validation part."""
        terms = self.losses(batch)
        self.log_validation(batch, {f"valid/{name}": value for name, value in terms.items()})

    def log_validation(self, batch: list[WindowBatch], terms: dict[str, Tensor]) -> None:
        """Logs means over the windows of the validation part."""
        num_windows = sum(len(group.target) for group in batch)
        self.log_dict(
            terms,
            # a multiple of the processes, since Lightning averages whole numbers over them
            batch_size=num_windows * self.trainer.world_size,
            sync_dist=True,
        )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW or LAMB with warm-up and cosine decay, stepped every step."""
        config, factors = self.training_config, self.learning_rate_factors()
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for name, parameter in self.trainable_parameters():
            kind = UNIT_EMBEDDING in name, factors.get(name, 1.0)
            groups.setdefault(kind, []).append(parameter)
        options: list[dict[str, Any]] = []
        for is_unit, factor in sorted(groups):
            lr = config.lr * factor * (config.unit_lr_factor if is_unit else 1.0)
            # a unit that no batch shows must keep its embedding
            decay = {"weight_decay": 0.0} if is_unit else {}
            options.append({"params": groups[is_unit, factor], "lr": lr, **decay})
        optimizer = _make_optimizer(options, config)
        schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, config))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def _make_optimizer(groups: list[dict[str, Any]], config: TrainingConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
    library = import_extra(
        "pytorch_optimizer", "lamb", "optimizer: lamb", "Or set optimizer: adamw."
    )
    optimizer: torch.optim.Optimizer = library.Lamb(groups, weight_decay=config.weight_decay)
    return optimizer
