"""Options of pretraining: which objective, on which windows, with which labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from poyo_ssl.model.masking import PATTERNS
from poyo_ssl.pretraining.objectives import OBJECTIVES
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.windows.tasks import find_task

FIELDS_OF = {
    "masked_activity": ("pattern", "hidden_fraction", "num_queries", "remove_modes"),
    "masked_latents": ("hidden_fraction", "target", "teacher_decay"),
    "split_units": ("remove_modes",),
    "labels": (),
    "modes": (),
}
"""Objective to the options that it alone, or it and some others, read."""


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """What the encoder learns before it is fine-tuned.

    An option that the chosen objective does not read must keep its default.
    """

    objective: Literal["masked_activity", "masked_latents", "split_units", "labels", "modes"] = (
        "masked_activity"
    )
    """Predict hidden ΔF/F (ours), the latents of the unmasked view (as published), the other half
    of the units (Barlow twins), or labels alone; or train nothing beyond ``embedding_modes``."""
    embedding_modes: int = 0
    """New units' embeddings begin as loadings on so many modes of unlabelled activity, in closed
    form; 0: at random. Every objective may go on from there."""
    pattern: Literal["units", "random_patches", "future"] = "units"
    """masked_activity: what is hidden from the encoder. ``units`` is co-smoothing: what some units
    did is told from the others."""
    hidden_fraction: float = 0.5
    """masked_activity, masked_latents: part of the units, patches or latent time steps hidden."""
    num_queries: int = 64
    """masked_activity: hidden patches asked about in each window."""
    remove_modes: int = 0
    """Leading principal components of every recording's training activity that are left out: by
    masked_activity of what is predicted, by split_units of what the encoder reads. Without one,
    split_units learns the gain that all units share and little else."""
    target: Literal["stop_gradient", "ema"] = "stop_gradient"
    """masked_latents: whose latents are predicted, the encoder's own or those of a teacher whose
    weights are a moving average of the encoder's."""
    teacher_decay: float = 0.996
    """masked_latents with target ema: part of the teacher's weights that a step keeps."""
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

    def _wrong_values(self) -> list[str]:
        problems = []
        for name, allowed in (
            ("objective", FIELDS_OF),
            ("pattern", PATTERNS),
            ("target", ("stop_gradient", "ema")),
        ):
            if getattr(self, name) not in allowed:
                problems.append(
                    f"{name} must be one of {', '.join(allowed)}, got '{getattr(self, name)}'"
                )
        for name in ("hidden_fraction", "teacher_decay"):
            if not 0 < getattr(self, name) < 1:
                problems.append(f"{name} must lie in (0, 1), got {getattr(self, name)}")
        if self.num_queries < 1 or self.window_length <= 0:
            problems.append(
                "num_queries must be at least 1 and window_length positive, "
                f"got {self.num_queries} and {self.window_length}"
            )
        for name in ("label_weight", "remove_modes", "embedding_modes"):
            if getattr(self, name) < 0:
                problems.append(f"{name} must not be negative, got {getattr(self, name)}")
        if (kind := find_task(self.label_task).kind) != "labels":
            problems.append(f"label_task must ask for labels; {self.label_task} asks for {kind}")
        return problems

    def _ignored_options(self) -> list[str]:
        """Options that were set and would do nothing."""
        read = FIELDS_OF.get(self.objective, ())
        problems = [
            f"{self.objective} does not read {name}: leave it out"
            for name in dict.fromkeys(name for names in FIELDS_OF.values() for name in names)
            if name not in read and self._is_set(name)
        ]
        if "target" in read and self.target != "ema" and self._is_set("teacher_decay"):
            problems.append("teacher_decay needs target: ema")
        if not self.label_weight and self._is_set("label_task"):
            problems.append("label_task does nothing with label_weight: 0")
        return problems

    def _wrong_batches(self) -> list[str]:
        """Batches that cannot be halved."""
        training, problems = self.training, []
        per_stream, rest = divmod(training.batch_size, len(self.streams))
        if rest or per_stream % training.accumulate:
            problems.append(
                "labelled and unlabelled windows share a batch: training.batch_size must be a "
                f"multiple of 2 x training.accumulate, got {training.batch_size} and "
                f"{training.accumulate}"
            )
        return problems

    def _is_set(self, name: str) -> bool:
        default: Any = type(self).__dataclass_fields__[name].default
        return bool(getattr(self, name) != default)
