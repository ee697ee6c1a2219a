"""Where the curves of a fit can be watched while it runs.

What a fit keeps in the end, ``Fit.curves`` and ``curves.csv``, does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from poyo_ssl.extras import import_extra

PROJECT = "poyo-ssl"
"""Project of Weights & Biases."""
_INSTEAD = "Or set logger: csv."


def _csv(directory: Path, every: int) -> Logger:
    """A new ``version_*/metrics.csv`` whenever a fit starts or resumes."""
    return CSVLogger(directory, name="", flush_logs_every_n_steps=every)


def _tensorboard(directory: Path, every: int) -> Logger:
    import_extra("tensorboard", "tensorboard", "logger: tensorboard", _INSTEAD)
    return TensorBoardLogger(directory, name="", version="")


def _wandb(directory: Path, every: int) -> Logger:
    """One run of the project a fit; ``WANDB_MODE=offline`` keeps it in the directory."""
    import_extra("wandb", "wandb", "logger: wandb", _INSTEAD)
    directory.mkdir(parents=True, exist_ok=True)
    return WandbLogger(name="/".join(directory.parts[-3:]), save_dir=directory, project=PROJECT)


LOGGERS: dict[str, Callable[[Path, int], Logger]] = {
    "csv": _csv,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
"""Name of a logger to a function of its directory and the steps between two points."""
