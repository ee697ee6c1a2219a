"""Options of pretraining: which objective, on which windows, with which labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Literal

from poyo_ssl.alignment.placement import AlignmentConfig
from poyo_ssl.pretraining.objectives import OBJECTIVES
from poyo_ssl.pretraining.objectives.masked_activity import MaskedActivityConfig
from poyo_ssl.pretraining.objectives.masked_latents import MaskedLatentsConfig
from poyo_ssl.pretraining.objectives.split_units import SplitUnitsConfig
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.windows.tasks import find_task


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """What the encoder learns before it is fine-tuned.

    Options that only one objective reads are in the field of its name; where another objective is
    chosen, they must keep their defaults.
    """

    objective: str = "masked_activity"
    """masked_activity, predict hidden ΔF/F (ours); masked_latents, the latents of the unmasked view
    (as published); split_units, the other half of the units (Barlow twins); labels alone; or
    modes, train nothing beyond ``embedding_modes``."""
    masked_activity: MaskedActivityConfig = field(default_factory=MaskedActivityConfig)
    """What is hidden, and what is asked about it."""
    masked_latents: MaskedLatentsConfig = field(default_factory=MaskedLatentsConfig)
    """What is hidden, and whose latents are predicted."""
    split_units: SplitUnitsConfig = field(default_factory=SplitUnitsConfig)
    """What the halves of the units do not see."""
    embedding_modes: int = 0
    """New units' embeddings begin as loadings on so many modes of unlabelled activity, in closed
    form; 0: at random. Every objective may start from there."""
    alignment: AlignmentConfig | None = None
    """Units of all recordings get embeddings that say where they lie in one space, told by a
    stimulus that all animals saw, and keep them; none: each unit learns its own. Goes with
    projected tokens of the encoder."""
    label_weight: float = 0.0
    """Weight of the cross-entropy of ``label_task`` beside the objective's own loss; 0 uses no
    labels. Published: 0.01, with masked_latents."""
    label_task: str = "direction"
    """The labels: direction, temporal_frequency or orientation."""
    window_length: float = 2.0
    """Seconds (published: 1.9), of the windows of the objective's own loss. Windows that only a
    label is asked of are as long as decoders of ``label_task`` have them."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(max_steps=300, unit_dropout=0.3, jitter=0.0)
    )
    """How it is fitted."""

    def __post_init__(self) -> None:
        problems = [*self._wrong_values(), *self._ignored_options()]
        if not problems:
            problems = [*OBJECTIVES[self.objective].problems(self), *self._wrong_batches()]
        if problems:
            raise ValueError("; ".join(problems) + ".")

    @property
    def streams(self) -> tuple[Literal["unlabelled", "labelled"], ...]:
        """What a batch is made of: random windows, labelled windows, or one half of each.

        masked_latents takes both losses of the same labelled windows, as published.
        """
        return OBJECTIVES[self.objective].streams(self.label_weight)

    def _wrong_values(self) -> Iterator[str]:
        if self.objective not in OBJECTIVES:
            yield f"objective must be one of {', '.join(OBJECTIVES)}, got '{self.objective}'"
        if self.window_length <= 0:
            yield f"window_length must be positive, got {self.window_length}"
        if self.alignment is not None and self.embedding_modes:
            yield "embeddings come from alignment or from embedding_modes, not from both"
        for name in ("label_weight", "embedding_modes"):
            if getattr(self, name) < 0:
                yield f"{name} must not be negative, got {getattr(self, name)}"
        if (kind := find_task(self.label_task).kind) != "labels":
            yield f"label_task must ask for labels; {self.label_task} asks for {kind}"

    def _ignored_options(self) -> Iterator[str]:
        """Options that were set and would do nothing."""
        idle = [f.name for f in fields(self) if f.name in OBJECTIVES and f.name != self.objective]
        for name in idle:
            options, defaults = asdict(getattr(self, name)), asdict(type(getattr(self, name))())
            yield from (
                f"{self.objective} does not read {name}.{option}: leave it out, or set "
                f"objective: {name}"
                for option in options
                if options[option] != defaults[option]
            )
        if not self.label_weight and self.label_task != type(self).label_task:
            yield "label_task does nothing with label_weight: 0"

    def _wrong_batches(self) -> Iterator[str]:
        """Batches that cannot be halved."""
        training = self.training
        per_stream, rest = divmod(training.batch_size, len(self.streams))
        if rest or per_stream % training.accumulate:
            yield (
                "labelled and unlabelled windows share a batch: training.batch_size must be a "
                f"multiple of 2 x training.accumulate, got {training.batch_size} and "
                f"{training.accumulate}"
            )
