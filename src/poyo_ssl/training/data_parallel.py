"""Processes that share a fit: which parts of every step are whose."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy

_TORCHRUN = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_CONNECTION_LOST = re.compile("gloo|nccl|peer|timeout|timed out", re.IGNORECASE)


class LostProcessError(ConnectionError):
    """Another process of a fit died or does not answer."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes of a fit and the place of this one among them."""

    rank: int = 0
    """This process; the first, 0, is the one that writes files."""
    world_size: int = 1
    """Processes in all."""
    local_world_size: int = 1
    """Processes on this machine."""

    def parts(self, accumulate: int) -> range:
        """The parts of every step that this process takes, of ``num_parts``."""
        return range(self.rank * accumulate, (self.rank + 1) * accumulate)

    def num_parts(self, accumulate: int) -> int:
        """Parts that a step is divided into."""
        return self.world_size * accumulate

    def trainer_options(self, timeout: float) -> dict[str, Any]:
        """How Lightning finds the other processes.

        Args:
            timeout: Seconds to wait for another process before the run ends with an error.
        """
        if self.world_size == 1:
            # said outright, so that a batch system's variables are not taken for more processes
            return {"devices": 1, "plugins": [LightningEnvironment()]}
        strategy = DDPStrategy(
            cluster_environment=TorchElasticEnvironment(),
            timeout=timedelta(seconds=timeout),
            find_unused_parameters=True,  # a part may hold nothing that some readout is asked
            broadcast_buffers=False,  # they never change, and processes validate unequal numbers
        )
        return {
            "devices": self.local_world_size,
            "num_nodes": self.world_size // self.local_world_size,
            "strategy": strategy,
            "use_distributed_sampler": False,
        }


def find_processes() -> Processes:
    """What ``torchrun`` says about this process; one process where there is no torchrun.

    Raises:
        ValueError: If something else has started several processes.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return Processes()
    missing = [name for name in _TORCHRUN if name not in os.environ]
    if missing:
        raise ValueError(
            f"WORLD_SIZE is {world_size} but {', '.join(missing)} not set. Start several processes "
            "with 'torchrun --nproc_per_node N -m poyo_ssl ...', or unset WORLD_SIZE for one."
        )
    return Processes(
        rank=int(os.environ["RANK"]),
        world_size=world_size,
        local_world_size=int(os.environ["LOCAL_WORLD_SIZE"]),
    )


def is_first_process() -> bool:
    """Whether this process is the one that writes files and prints."""
    return find_processes().rank == 0


@contextmanager
def naming_lost_processes(timeout: float) -> Iterator[None]:
    """Says so where an error of the connection means that another process is gone.

    Args:
        timeout: Seconds that were waited for it.

    Raises:
        LostProcessError: Instead of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if find_processes().world_size == 1 or not _CONNECTION_LOST.search(str(error)):
            raise
        raise LostProcessError(
            f"Another process of this fit died, or did not answer for {timeout:g} s. "
            "Look for its own error above; where a step takes longer, raise rank_timeout. The same "
            "command resumes from the last checkpoint. "
            f"({str(error).splitlines()[0]})"
        ) from error


class SeedParts(Callback):
    """Makes what is random in a part, such as dropout, a function of seed, step and part.

    However many processes there are, the same parts are the same.

    Args:
        seed: Seed of the fit.
        parts: Those of this process.
    """

    def __init__(self, seed: int, parts: range) -> None:
        self.seed = seed
        self.parts = parts

    def on_train_batch_start(
        self, trainer: L.Trainer, module: Any, batch: Any, batch_index: int
    ) -> None:
        """Seeds one part."""
        part = self.parts[batch_index % len(self.parts)]
        module.draw_from(self.seed, trainer.global_step, part)
