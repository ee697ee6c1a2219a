"""Options of every fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from poyo_ssl.kinds_of_arguments import require_numbers

PASSES = 32
"""Times that every window is seen where the number of steps is not given."""
FEWEST_STEPS, MOST_STEPS = 300, 3_000
"""Of that number."""
JITTER = 0.1
"""Part of their length by which windows are moved where it is not given."""

LoggerName = Literal["csv", "tensorboard", "wandb"]
"""Those of ``training/loggers.py``."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a network is fitted."""

    max_steps: int | None = None
    """Optimiser steps; none: so many that every labelled window is seen 32 times, but 300 at least
    and 3,000 at most."""
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
    jitter: float | None = None
    """Windows start up to so many seconds earlier or later in training; none: a tenth of their
    length, since what is moved further tells less of a short stimulus."""
    unit_dropout: float = 0.5
    """Each step leaves out units at a rate drawn from U(0, unit_dropout)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 computes matrix products in it and keeps the weights in float32."""
    accumulate: int = 1
    """Parts that the windows of a step are processed in, one after the other: the same step in
    less memory. With several processes, parts of each."""
    activity_on: Literal["memory", "device"] = "memory"
    """Where recordings lie: in the computer's memory, from which the windows of every step are
    copied, or on the device that trains, where they are gathered."""
    activity_precision: Literal["float32", "float16"] = "float32"
    """How they are kept: float16 takes half the space and is off by a thousandth of a standard
    deviation at most."""
    checkpoint_every: int = 100
    """Steps between checkpoints, where there is a directory for them."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep."""
    logger: LoggerName = "csv"
    """Where curves can be watched, in the folder logs; the others need the extras
    poyo-ssl[tensorboard] and poyo-ssl[wandb]."""
    rank_timeout: float = 600.0
    """Several processes: seconds to wait for one that does not answer before ending the run."""

    def __post_init__(self) -> None:
        require_numbers(self)
        problems = []
        counts = (self.batch_size, self.valid_every, self.max_valid_windows)
        if min(counts) < 1 or (self.max_steps is not None and self.max_steps < 1):
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
        if (self.jitter or 0.0) < 0 or self.weight_decay < 0:
            problems.append("jitter and weight_decay must not be negative")
        if self.optimizer not in ("adamw", "lamb"):
            problems.append("optimizer must be adamw or lamb")
        if self.precision not in ("float32", "bfloat16"):
            problems.append("precision must be float32 or bfloat16")
        if self.logger not in get_args(LoggerName):
            problems.append(f"logger must be one of {', '.join(get_args(LoggerName))}")
        if self.activity_on not in ("memory", "device"):
            problems.append("activity_on must be memory or device")
        if self.activity_precision not in ("float32", "float16"):
            problems.append("activity_precision must be float32 or float16")
        if min(self.accumulate, self.checkpoint_every, self.keep_checkpoints) < 1:
            problems.append("accumulate, checkpoint_every and keep_checkpoints must be at least 1")
        elif self.batch_size % self.accumulate:
            problems.append("batch_size must be a multiple of accumulate")
        if self.rank_timeout <= 0:
            problems.append("rank_timeout must be positive")
        if problems:
            raise ValueError("; ".join(problems) + f". Got {self}.")

    @property
    def num_steps(self) -> int:
        """Optimiser steps.

        Raises:
            ValueError: If they are not known; see :meth:`for_windows`.
        """
        if self.max_steps is None:
            raise ValueError("max_steps is not given, and nothing says how many windows there are.")
        return self.max_steps

    @property
    def largest_shift(self) -> float:
        """Seconds by which windows are moved at most.

        Raises:
            ValueError: If they are not known; see :meth:`for_windows`.
        """
        if self.jitter is None:
            raise ValueError("jitter is not given, and nothing says how long windows are.")
        return self.jitter

    def for_windows(self, num_windows: int, length: float) -> TrainingConfig:
        """The same with what is not given, steps and jitter, as suits windows.

        Args:
            num_windows: Windows to learn from.
            length: Of each, seconds.
        """
        steps, jitter = self.max_steps, self.jitter
        if steps is None:
            passes = -(-PASSES * num_windows // self.batch_size)
            steps = min(max(passes, FEWEST_STEPS), MOST_STEPS)
        if jitter is None:
            jitter = JITTER * length
        return replace(self, max_steps=steps, jitter=jitter)
