"""Bringing a pretrained encoder to new recordings in one call, and saying what that took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.evaluation.evaluate import score_test_parts
from poyo_ssl.finetuning.config import DecodingConfig
from poyo_ssl.finetuning.finetune import finetune
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.predictability.partition import partition_by_predictability
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.identify_units import identify_units
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.training.transfer import known_units
from poyo_ssl.windows.divide import Divided, divide
from poyo_ssl.windows.label_budget import LabelBudget
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import Task


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig(DecodingConfig):
    """How a pretrained encoder is brought to new recordings."""

    units: Literal["unpredictable", "predictable", "all"] = "all"
    """Units to decode from: unpredictable, predictable or all."""
    labels: LabelBudget = field(default_factory=LabelBudget)
    """Labelled training windows to learn from."""
    identify: bool = False
    """First learn embeddings of new units from unlabelled activity; then they count as known."""
    identification: PretrainingConfig = field(default_factory=PretrainingConfig)
    """Used by identify: objective and training."""

    @property
    def budget(self) -> LabelBudget:
        """``labels``."""
        return self.labels


@dataclass(frozen=True, kw_only=True, eq=False)
class Adaptation:
    """What it took to bring an encoder to new recordings, and what came of it."""

    seconds: dict[str, float]
    """Step to the time it took, in order."""
    num_units: int
    """Units that are decoded from."""
    num_known_units: int
    """Those whose embedding came with the encoder."""
    is_placed: bool
    """Whether the others were placed by their response to a shared stimulus; else they were
    learned."""
    scores: list[dict[str, Any]]
    """One row of scores a recording, as ``evaluation.evaluate.describe_evaluation`` gives it."""
    predictions: pd.DataFrame
    """Every answer, one row a test window, as ``evaluation.evaluate.PREDICTIONS`` lists."""
    curves: dict[str, pd.DataFrame]
    """Fit (``identification``, ``finetuning``) to its learning curves: step, metric, value."""
    divided: Divided
    """The recordings and their parts."""

    @property
    def facts(self) -> dict[str, Any]:
        """Seconds, units and scores, JSON-ready."""
        names = ("seconds", "num_units", "num_known_units", "is_placed", "scores")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        """One line: how long, how many units, how well."""
        names = ", ".join(row["recording_id"] for row in self.scores)
        [metric, *_] = self.scores[0]["scores"]
        score = np.mean([row["scores"][metric] for row in self.scores])
        chance = self.scores[0]["chance"]
        return (
            f"Adapted to {names} in {sum(self.seconds.values()):.0f} s: "
            f"{self.num_known_units} of {self.num_units} units known, "
            f"{self.num_units - self.num_known_units} {'placed' if self.is_placed else 'learned'}; "
            f"{metric} {score:.2f}" + (f" (chance {chance:.3f})" if chance is not None else "")
        )


_DEFAULT = AdaptationConfig()


def adapt(
    encoder: Encoder | str | Path,
    recordings: Recording | list[Recording],
    task: Task | str,
    config: AdaptationConfig = _DEFAULT,
    *,
    unit_ids: Mapping[str, list[str]] | None = None,
    checkpoint_directory: Path | None = None,
    log_directory: Path | None = None,
    show_progress: bool = False,
) -> tuple[FittedDecoder, Adaptation]:
    """Fits a decoder of new recordings on a pretrained encoder, and scores it on the test part.

    Args:
        encoder: A pretrained encoder, which is not changed, or what ``Encoder.from_pretrained``
            takes: a directory, ``simulated``, which comes with the package, or a repository of the
            Hugging Face Hub.
        recordings: Sampled at the encoder's rate.
        task: What to decode, such as ``direction``.
        config: Units, way to transfer and training.
        unit_ids: Recording id to the ids of the units to decode from, in column order; None
            takes those that the config says.
        checkpoint_directory: Where the fits can be resumed from; None keeps no checkpoints.
        log_directory: Where the logger writes curves while it runs; None writes none.
        show_progress: Draw progress bars.

    Returns:
        The fitted decoder, and what it took.

    Raises:
        CheckpointError: If the directory holds no encoder.
        RecordingError: If no recording can answer the task or the sampling rates differ.
        TransferError: If the encoder cannot be transferred as asked.
    """
    if not isinstance(encoder, Encoder | str | Path):
        raise TypeError(
            f"encoder must be a pretrained Encoder or the directory of one, got {encoder!r:.80}. "
            "To learn without one, use finetune."
        )
    encoder = encoder if isinstance(encoder, Encoder) else Encoder.from_pretrained(encoder)
    seconds: dict[str, float] = {}
    with _timing(seconds, "choosing units"):
        divided = divide(recordings, task, config.splits)
        chosen = _choose_units(divided, config) if unit_ids is None else unit_ids
        population = Population(divided, chosen)
    is_kept = config.finetuning.embeddings != "reset"
    num_known = len(known_units(encoder, population.unit_ids)) if is_kept else 0

    def directories(fit: str) -> dict[str, Any]:
        return {
            "checkpoint_directory": checkpoint_directory and checkpoint_directory / fit,
            "log_directory": log_directory and log_directory / fit,
            "show_progress": show_progress,
        }

    curves, finetuning = {}, config.finetuning
    if config.identify:
        with _timing(seconds, "identification"):
            encoder = identify_units(
                encoder,
                population,
                config.identification,
                embeddings=finetuning.embeddings,
                seed=config.seed,
                **directories("identification"),
            )
        assert encoder.fit is not None
        curves["identification"] = encoder.fit.curves
        finetuning = replace(finetuning, embeddings="tracked")
    with _timing(seconds, "finetuning"):
        decoder = finetune(
            population,
            task,
            encoder,
            finetuning,
            arm="adapted",
            seed=config.seed,
            labels=config.labels,
            **directories("finetuning"),
        )
    assert decoder.fit is not None
    decoder.origin = config.origin
    curves["finetuning"] = decoder.fit.curves
    with _timing(seconds, "scoring"):
        scores, predictions = score_test_parts(decoder, population.divided)
    return decoder, Adaptation(
        seconds=seconds,
        num_units=len(population.unit_ids),
        num_known_units=num_known,
        is_placed=encoder.placement is not None,
        scores=scores,
        predictions=predictions,
        curves=curves,
        divided=divided,
    )


def _choose_units(divided: Divided, config: AdaptationConfig) -> Mapping[str, list[str]]:
    partition = partition_by_predictability(
        divided, config.predictability, may_be_empty=config.units != "predictable"
    )
    return partition.choose(divided, config.units)


@contextmanager
def _timing(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Notes how long a step takes."""
    started = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - started
