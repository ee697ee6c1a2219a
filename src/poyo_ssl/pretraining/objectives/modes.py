"""No training at all: embeddings in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from poyo_ssl.pretraining.objectives.objective import Objective
from poyo_ssl.windows.training_batches import WindowBatch

if TYPE_CHECKING:
    from poyo_ssl.pretraining.config import PretrainingConfig


class Modes(Objective):
    """Nothing beyond ``embedding_modes``, which every objective may begin with."""

    is_trained = False

    @classmethod
    def problems(cls, config: PretrainingConfig) -> list[str]:
        """Nothing to do, or labels that nobody reads."""
        problems = []
        if not config.embedding_modes:
            problems.append("the objective modes does nothing else: set embedding_modes: 20")
        if config.label_weight:
            problems.append("modes does not read labels: set label_weight: 0")
        return problems

    def self_supervised(self, groups: list[WindowBatch]) -> tuple[dict[str, Tensor], Tensor]:
        """Never asked for."""
        raise AssertionError("modes takes no steps")
