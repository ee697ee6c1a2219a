"""What an encoder was taught to answer in pretraining, kept so that others need not learn it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

PREFIX = "taught."
"""Of the names of its tensors in an encoder's file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Taught:
    """Query and readout that learned a label task beside the encoder."""

    task: str
    """Name of the task."""
    classes: np.ndarray
    """The possible answers, (num_classes,)."""
    tensors: Mapping[str, Tensor]
    """Weights by their names in a ``LabelDecoder``."""

    def suits(self, task: str, classes: np.ndarray) -> bool:
        """Whether these are the answers to a task, in this order."""
        return task == self.task and np.array_equal(classes, self.classes)

    def settings(self) -> dict[str, Any]:
        """JSON-ready form of all but the weights."""
        return {"task": self.task, "classes": self.classes.tolist()}

    @staticmethod
    def of(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Taught:
        """Inverse of :meth:`settings`.

        Raises:
            KeyError: If something is missing.
        """
        return Taught(task=settings["task"], classes=np.array(settings["classes"]), tensors=tensors)
