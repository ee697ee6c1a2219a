"""Options of every fit of a decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Literal

from poyo_ssl.decoders.fitted_decoder import Origin
from poyo_ssl.kinds_of_arguments import require_numbers
from poyo_ssl.predictability.partition import find_group
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.training.transfer import EMBEDDINGS, TRANSFERS, Layerwise, Transfer
from poyo_ssl.windows.label_budget import LabelBudget
from poyo_ssl.windows.splits import SplitConfig

MANY_LABELS = 300
"""Labelled windows beside which a teacher's answers to unlabelled ones count half as much."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """How a network learns from a closed-form linear teacher on unlabelled windows."""

    temperature: float = 0.15
    """The teacher's scores (one-hot ridge) are divided by it before the softmax."""
    unlabelled_fraction: float | None = None
    """Part of every batch that is random unlabelled training windows, answered by the teacher;
    none: a half where there are few labels, the less the more there are (a quarter at 300)."""
    blend: float = 0.5
    """The fitted decoder adds so many standard deviations of the network to the teacher; 0: the
    teacher answers alone."""

    def __post_init__(self) -> None:
        fraction = self.unlabelled_fraction or 0.0
        if self.temperature <= 0 or self.blend < 0 or not 0 <= fraction < 1:
            raise ValueError(
                "temperature must be positive, blend not negative, and unlabelled_fraction must "
                f"lie in [0, 1); got {self}."
            )

    def num_taught(self, batch_size: int, num_labelled: int) -> int:
        """Windows of a batch that the teacher answers, where so many windows have labels.

        Unless the fraction is given, a whole number of quarters of the batch, so that a step can
        be taken in parts.
        """
        if self.unlabelled_fraction is not None:
            asked = round(self.unlabelled_fraction * batch_size)
            return min(asked, batch_size - 1)  # one with a label is left
        quarter = max(1, batch_size // 4)
        return round(0.5 / (1 + num_labelled / MANY_LABELS) * batch_size / quarter) * quarter


@dataclass(frozen=True, kw_only=True)
class FinetuningConfig:
    """How a decoder is fitted."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Optimiser, steps and early stopping."""
    members: int = 4
    """Networks that learn side by side, each from its own initialisation, batches and dropout, and
    answer together: the mean of their log-probabilities, values or pictures."""
    label_smoothing: float = 0.1
    """Label and frame tasks: probability spread over all classes."""
    frame_width: float = 0.2
    """Frame tasks: what is learned is a gaussian over movie frames about the one shown, whose SD
    is so many seconds; 0 for that one alone. Neighbours look alike to calcium."""
    num_queries: int = 4
    """Image tasks: questions asked of the latents for each picture."""
    ssim_weight: float = 1.0
    """Image tasks: weight of 1 - SSIM beside the mean absolute error."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """Used by arms that have a teacher."""
    transfer: Literal["full", "layerwise", "units", "weights", "probe"] = "full"
    """What of a pretrained encoder learns beside the decoder: ``full``, everything; ``layerwise``,
    everything, the slower the further from the answer; ``units``, the embeddings of new units
    alone; ``weights``, everything but the embeddings of known or placed units; ``probe``,
    nothing."""
    layer_decay: float = 0.5
    """transfer: layerwise: learning rate of a layer relative to the next one."""
    embeddings: Literal["tracked", "reset", "shuffled"] = "tracked"
    """Embeddings of units that a pretrained encoder knows: ``tracked``, they are kept; ``reset``,
    drawn anew, so that weights alone transfer; ``shuffled``, exchanged among them, as a control."""

    def __post_init__(self) -> None:
        require_numbers(self)
        if not 0 <= self.label_smoothing < 1 or self.num_queries < 1:
            raise ValueError(
                f"label_smoothing must lie in [0, 1) and num_queries be at least 1; got {self}."
            )
        if self.ssim_weight < 0 or not 0 <= self.frame_width < float("inf"):
            raise ValueError(f"ssim_weight and frame_width (s) must not be negative; got {self}.")
        for name, known in (("transfer", TRANSFERS), ("embeddings", EMBEDDINGS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got '{getattr(self, name)}'."
                )
        if self.members < 1:
            raise ValueError(f"members must be at least 1, got {self.members}.")
        Layerwise(self.layer_decay)  # refuses an impossible one, whatever the way

    @property
    def way(self) -> Transfer:
        """The way to transfer, with its options."""
        way = TRANSFERS[self.transfer]()
        return replace(way, decay=self.layer_decay) if isinstance(way, Layerwise) else way


@dataclass(frozen=True, kw_only=True)
class DecodingConfig(ABC):
    """What every fit of one decoder to recordings is told, whatever its encoder comes from."""

    units: Literal["unpredictable", "predictable", "all"] = "unpredictable"
    """Units to decode from: unpredictable, predictable or all."""
    predictability: PredictabilityConfig = field(default_factory=PredictabilityConfig)
    """Which units count as predictable."""
    splits: SplitConfig = field(default_factory=SplitConfig)
    """Train, valid and test parts."""
    finetuning: FinetuningConfig = field(default_factory=FinetuningConfig)
    """Way to transfer, loss and training."""
    seed: int = 0
    """Seed of weights, batches and the choice of labels."""

    def __post_init__(self) -> None:
        find_group(self.units)

    @property
    @abstractmethod
    def budget(self) -> LabelBudget:
        """Labelled training windows to learn from."""

    @property
    def origin(self) -> Origin:
        """What tells the decoder from others in results."""
        return Origin.of(self.units, self.budget, self.seed, self.splits)
