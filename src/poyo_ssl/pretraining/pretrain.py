"""Pretraining of the encoder: an objective, the windows it learns from, and the fit."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from poyo_ssl.kinds_of_arguments import require_kind
from poyo_ssl.model.checkpoints import digest, network_tensors
from poyo_ssl.model.encoder import Encoder, EncoderConfig, starting_encoder
from poyo_ssl.model.fit import NO_CURVES, Fit
from poyo_ssl.model.provenance import Provenance
from poyo_ssl.model.taught import Taught
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.mode_embeddings import embed_by_modes
from poyo_ssl.pretraining.objectives import OBJECTIVES
from poyo_ssl.pretraining.objectives.activity_modes import ActivityModes
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.training.engine import fit
from poyo_ssl.training.transfer import LearningRates, Weights, known_units, prepare_encoder
from poyo_ssl.windows.evaluation_batches import (
    EvaluationBatches,
    MixedValidation,
    ValidationBatches,
)
from poyo_ssl.windows.population import MADE_BY, Population
from poyo_ssl.windows.tasks import Task, find_task
from poyo_ssl.windows.training_batches import (
    MixedBatches,
    TrainingBatches,
    TrainingSteps,
    WindowSource,
    thin,
)

VALIDATION_BATCH_SIZE = 64
_DEFAULT_CONFIG = PretrainingConfig()


def pretrain(
    population: Population,
    config: PretrainingConfig = _DEFAULT_CONFIG,
    *,
    encoder: Encoder | EncoderConfig | None = None,
    rates: LearningRates | None = None,
    seed: int = 0,
    checkpoint_directory: Path | None = None,
    log_directory: Path | None = None,
    show_progress: bool = False,
) -> Encoder:
    """Pretrains an encoder on activity of the training part.

    Args:
        population: The recordings, the units to learn from, and the training part.
        config: Objective, labels and training.
        encoder: The config of a fresh encoder, or an encoder to start from, which is copied and
            not changed; None: a fresh one of the default size. Units that it does not know get
            new embeddings.
        rates: What of an encoder of all units is frozen, by a rate of 0; None: nothing.
        seed: Seed of weights, masks and batches.
        checkpoint_directory: Where the fit can be resumed from; None keeps no checkpoints.
        log_directory: Where the logger writes curves while it runs; None writes none.
        show_progress: Draw a progress bar.

    Returns:
        The encoder, with its learning curves in ``fit``.

    Raises:
        RecordingError: If labels are to be learned and no recording was divided for their task,
            the encoder is of another imaging rate, or a recording has too few units.
    """
    require_kind(population, Population, MADE_BY)
    encoder = starting_encoder(encoder)
    torch.manual_seed(seed)
    task = find_task(config.label_task) if config.label_weight else None
    if task is not None:
        _require_labels(population, task)
    start = "fresh" if isinstance(encoder, EncoderConfig) else digest(network_tensors(encoder))
    known = _known_units(encoder, population, rates)
    encoder = prepare_encoder(encoder, population.sampling_rate)
    if config.alignment is not None and encoder.placement is None:
        asked = [task.stimulus] if task is not None else []
        encoder.placement = config.alignment.fit(population, asked)
    if encoder.placement is not None:
        placed = encoder.placement.place(population)
        population = encoder.placement.centred(population, placed)
        encoder.place_units(placed)
        is_known = torch.ones(len(encoder.unit_embedding.weight), dtype=torch.bool)
        rates = rates or Weights().rates(encoder, is_known)
    encoder.add_units(population.unit_ids)
    if config.embedding_modes:
        started = time.perf_counter()
        embed_by_modes(
            encoder, population, config.embedding_modes, config.window_length, known=known
        )
        if not OBJECTIVES[config.objective].is_trained:
            seconds = time.perf_counter() - started
            encoder.fit = Fit(curves=NO_CURVES, seconds=seconds, best_step=0)
            encoder.provenance = Provenance.of(population.divided.recordings, encoder.fit)
            return encoder
    if rates is not None:
        rates.freeze(encoder)
    streams = [
        _unlabelled(population, encoder, config)
        if stream == "unlabelled"
        else _labelled(population, encoder, config)
        for stream in config.streams
    ]
    num_windows = sum(len(source.half_apart()) for source in streams[0].train)
    training = config.training.for_windows(num_windows, config.window_length)
    config = replace(config, training=training)
    num_classes = len(population.divided.classes(task)) if task is not None else 0
    module = OBJECTIVES[config.objective](encoder, config, seed, num_classes)
    if module.num_removed_modes:
        [unlabelled, *_] = streams
        module.modes = ActivityModes.measure(unlabelled.train, module.num_removed_modes)
    encoder.fit = fit(
        module,
        _training_steps(streams, config, seed),
        _validation(streams),
        seed=seed,
        checkpoint_directory=checkpoint_directory,
        identity={"start": start, "encoder": asdict(encoder.config)},
        log_directory=log_directory,
        show_progress=show_progress,
    )
    encoder.provenance = Provenance.of(population.divided.recordings, encoder.fit)
    encoder.taught = None
    if task is not None and module.labels is not None:
        encoder.taught = Taught(
            task=task.name,
            classes=population.divided.classes(task),
            tensors=network_tensors(module.labels),
        )
    return encoder


def _require_labels(population: Population, task: Task) -> None:
    if not population.divided.answering(task):
        raise RecordingError(
            f"No recording was divided for the task '{task.name}' ({task.stimulus}), whose labels "
            "the objective learns from. Divide the recordings for it too, choose another "
            "label_task, or set label_weight: 0."
        )


def _known_units(
    encoder: Encoder | EncoderConfig, population: Population, rates: LearningRates | None
) -> frozenset[str]:
    """Units whose embeddings were there before; where rates freeze some, those are meant."""
    if isinstance(encoder, EncoderConfig):
        return frozenset()
    known = known_units(encoder, population.unit_ids)
    if rates is not None:
        frozen = rates.units[encoder.unit_embedding.tokenizer(known)] == 0
        known = [unit_id for unit_id, is_frozen in zip(known, frozen, strict=True) if is_frozen]
    return frozenset(known)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Stream:
    """Windows of one kind, one source per recording that has any."""

    train: list[WindowSource]
    valid: list[WindowSource]
    jitter: int
    """Timesteps by which training windows may move."""


def _unlabelled(population: Population, encoder: Encoder, config: PretrainingConfig) -> _Stream:
    """All windows of the training part; they begin everywhere already and are not moved."""
    num_timesteps = encoder.window_timesteps(config.window_length)
    valid = population.unlabelled_sources(
        encoder, num_timesteps, part="valid", stride=num_timesteps
    )
    return _Stream(
        train=population.unlabelled_sources(encoder, num_timesteps),
        valid=thin(valid, config.training.max_valid_windows),
        jitter=0,
    )


def _labelled(population: Population, encoder: Encoder, config: PretrainingConfig) -> _Stream:
    """The windows of the label task.

    They are as long as the task's, so that pretraining asks what decoding will ask; but as long
    as the objective's where it takes its own loss of them, too.
    """
    task = find_task(config.label_task)
    num_timesteps = encoder.window_timesteps(
        OBJECTIVES[config.objective].labelled_window_length(config)
    )
    valid = population.labelled_sources(encoder, task, "valid", num_timesteps)
    training = config.training.for_windows(0, task.length)
    return _Stream(
        train=population.labelled_sources(encoder, task, "train", num_timesteps),
        valid=thin(valid, config.training.max_valid_windows),
        jitter=round(training.largest_shift * population.sampling_rate),
    )


def _training_steps(streams: list[_Stream], config: PretrainingConfig, seed: int) -> TrainingSteps:
    """Batches of one stream, or half of each."""
    batches = [
        TrainingBatches(
            stream.train,
            batch_size=config.training.batch_size // len(streams),
            seed=seed,
            jitter=stream.jitter,
            unit_dropout=config.training.unit_dropout,
        )
        for stream in streams
    ]
    return batches[0] if len(batches) == 1 else MixedBatches(batches)


def _validation(streams: list[_Stream]) -> ValidationBatches | None:
    """None where some stream has no validation window: what is left would be another loss."""
    if not all(stream.valid for stream in streams):
        return None
    if len(streams) > 1:
        return MixedValidation(
            [stream.valid for stream in streams],
            batch_size=VALIDATION_BATCH_SIZE * len(streams),
        )
    [stream] = streams
    return EvaluationBatches(stream.valid, batch_size=VALIDATION_BATCH_SIZE)
