"""Fitting a decoder: from scratch or from a pretrained encoder, with or without a teacher."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from poyo_ssl.decoders.fitted_decoder import DecoderFrame
from poyo_ssl.decoders.linear import LinearReadout
from poyo_ssl.decoders.movie_reference import PictureReadout
from poyo_ssl.decoders.network import NetworkDecoder, teacher_scores
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.modules import LabelDecoding, MovieDecoding
from poyo_ssl.model.checkpoints import digest, network_tensors
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.model.readouts import LabelDecoder, MovieDecoder
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.training.engine import Fit, WindowModule, fit
from poyo_ssl.training.transfer import EMBEDDINGS, LearningRates, full_rates
from poyo_ssl.windows.evaluation_batches import EvaluationBatches
from poyo_ssl.windows.label_budget import LabelBudget, take_labels
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import Task
from poyo_ssl.windows.training_batches import MixedBatches, TrainingBatches, WindowSource, thin


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureTeacher:
    """A linear decoder whose pictures a network learns to correct."""

    pixels: PictureReadout
    """For every recording of the population."""
    training_scores: dict[str, np.ndarray]
    """Recording id to the component scores of its labelled training windows, cross-fitted so that
    they are as wrong as on new movie frames, (num_windows, num_components)."""


def finetune(
    population: Population,
    task: Task,
    encoder: Encoder | EncoderConfig,
    config: FinetuningConfig,
    *,
    arm: str,
    seed: int,
    labels: LabelBudget | float = 1.0,
    teacher: LinearReadout | PictureTeacher | None = None,
    checkpoint_directory: Path | None = None,
    log_directory: Path | None = None,
    show_progress: bool = False,
) -> tuple[NetworkDecoder, Fit]:
    """Fits a decoder of one task on the chosen units of a population.

    Args:
        population: Recordings, units and parts; learns from ``train``, stops early on ``valid``.
        task: What is asked.
        encoder: A pretrained encoder, which is copied and not changed, or the config of a fresh
            one. Units that it does not know get new embeddings; what else transfers, and what of
            it learns on, the config says.
        config: Loss, training, and way to transfer.
        arm: Name of the decoder in results.
        seed: Of weights, batches and the choice of labels.
        labels: Labelled training windows that may be used; a number is the fraction of every
            class.
        teacher: Closed-form decoder fitted on the same labels. Label tasks: the network learns
            its answers on unlabelled windows too, and is added to it. Image tasks: the network
            corrects its pictures.
        checkpoint_directory: Where the fit can be gone on with; None keeps no checkpoints.
        log_directory: Where TensorBoard finds the curves; None writes none.
        show_progress: Draw a progress bar.

    Returns:
        The fitted decoder, and its learning curves.

    Raises:
        RecordingError: If a pretrained encoder is of another imaging rate.
        TransferError: If it cannot be transferred as asked.
    """
    torch.manual_seed(seed)
    start = "fresh" if isinstance(encoder, EncoderConfig) else digest(network_tensors(encoder))
    encoder, rates = begin(encoder, population, config, seed)
    num_timesteps = encoder.window_timesteps(task.window_length)
    labelled = choose_labels(
        population.labelled_sources(encoder, task, "train", num_timesteps), labels, seed
    )
    valid = thin(
        population.labelled_sources(encoder, task, "valid", num_timesteps),
        config.training.max_valid_windows,
    )
    module: WindowModule
    batches: TrainingBatches | MixedBatches
    readout = teacher.pixels.readout if isinstance(teacher, PictureTeacher) else teacher
    if task.kind == "images":
        assert not isinstance(teacher, LinearReadout), "image tasks take a PictureTeacher"
        module = _movie_module(population, task, encoder, config, labelled, teacher, rates)
        if teacher is not None:
            labelled = [_with_training_scores(source, teacher) for source in labelled]
            valid = [_with_scores(s, teacher.pixels.readout, num_timesteps) for s in valid]
        # the teacher's scores are of the windows as they stand
        training = replace(config.training, jitter=0.0) if teacher else config.training
        batch_size = training.batch_size
        batches = _stream(labelled, training, batch_size, num_timesteps, population, seed)
    else:
        assert not isinstance(teacher, PictureTeacher), "label tasks take a LinearReadout"
        num_classes = len(population.classes(task))
        query_time = 0.5 * task.window_length if task.kind == "labels" else -task.window_offset
        module = LabelDecoding(
            LabelDecoder(encoder, num_classes=num_classes, query_time=query_time), config, rates
        )
        batches = _label_batches(
            population, encoder, labelled, config, num_timesteps, seed, teacher
        )
    result = fit(
        module,
        batches,
        EvaluationBatches(valid, batch_size=64, num_timesteps=num_timesteps) if valid else None,
        seed=seed,
        checkpoint_directory=checkpoint_directory,
        identity={"task": task.name, "arm": arm, "start": start, "encoder": asdict(encoder.config)},
        log_directory=log_directory,
        show_progress=show_progress,
    )
    network = module.network
    assert isinstance(network, LabelDecoder | MovieDecoder)
    frame = DecoderFrame(
        arm=arm,
        task=task,
        classes=population.classes(task),
        num_timesteps=num_timesteps,
        sampling_rate=population.sampling_rate,
        scale=population.scale,
    )
    decoder = NetworkDecoder(frame, network, readout, config.teacher.blend)
    if task.kind != "images" and readout is not None:
        decoder = balance(decoder, labelled)
    return decoder, result


def begin(
    encoder: Encoder | EncoderConfig, population: Population, config: FinetuningConfig, seed: int
) -> tuple[Encoder, LearningRates]:
    """The encoder that fine-tuning starts from, with every unit, and how fast its parts learn.

    All of a fresh encoder learns, whatever the way to transfer.

    Raises:
        RecordingError: If the encoder was pretrained at another imaging rate.
        TransferError: If the pretrained encoder cannot be transferred as asked.
    """
    if isinstance(encoder, EncoderConfig):
        encoder = Encoder(encoder, population.sampling_rate)
        encoder.add_units(population.unit_ids)
        return encoder, full_rates(encoder)
    if not 0.98 < encoder.sampling_rate / population.sampling_rate < 1.02:
        raise RecordingError(
            f"The encoder was pretrained at {encoder.sampling_rate:.2f} Hz, the recordings are "
            f"sampled at {population.sampling_rate:.2f} Hz. Pretrain at that rate, or resample "
            "the recordings."
        )
    encoder = copy.deepcopy(encoder).train()
    is_known = EMBEDDINGS[config.embeddings](encoder, population.unit_ids, seed)
    return encoder, config.way.rates(encoder, is_known)


def _movie_module(
    population: Population,
    task: Task,
    encoder: Encoder,
    config: FinetuningConfig,
    labelled: list[WindowSource],
    teacher: PictureTeacher | None,
    rates: LearningRates,
) -> MovieDecoding:
    pictures = population.pictures(task)
    if teacher is None:
        shown = np.unique(np.concatenate([source.target for source in labelled]))
        mean_frame, components = pictures[shown].mean(0), None
    else:
        mean_frame = torch.from_numpy(teacher.pixels.mean_picture).float()
        components = torch.from_numpy(teacher.pixels.components).float()
    network = MovieDecoder(
        encoder,
        mean_frame=mean_frame,
        query_time=-task.window_offset,
        num_queries=config.num_queries,
        components=components,
    )
    return MovieDecoding(network, config, pictures, rates)


def _with_training_scores(source: WindowSource, teacher: PictureTeacher) -> WindowSource:
    scores = teacher.training_scores[source.activity.recording_id]
    return replace(source, teacher_answer=torch.from_numpy(scores).float())


def _with_scores(source: WindowSource, readout: LinearReadout, num_timesteps: int) -> WindowSource:
    features = source.activity.binned(source.first_timestep, num_timesteps, readout.num_bins)
    scores = readout.scores(features, source.activity.unit_ids)
    return replace(source, teacher_answer=torch.from_numpy(scores).float())


def choose_labels(
    sources: list[WindowSource], labels: LabelBudget | float, seed: int
) -> list[WindowSource]:
    """Keeps the labelled windows that a budget and a seed allow, in every recording."""
    return [source.take(take_labels(source.target, labels, seed)) for source in sources]


def _stream(
    sources: list[WindowSource],
    config: TrainingConfig,
    batch_size: int,
    num_timesteps: int,
    population: Population,
    seed: int,
) -> TrainingBatches:
    return TrainingBatches(
        sources,
        batch_size=batch_size,
        num_timesteps=num_timesteps,
        seed=seed,
        jitter=round(config.jitter * population.sampling_rate),
        unit_dropout=config.unit_dropout,
    )


def _label_batches(
    population: Population,
    encoder: Encoder,
    labelled: list[WindowSource],
    config: FinetuningConfig,
    num_timesteps: int,
    seed: int,
    teacher: LinearReadout | None,
) -> TrainingBatches | MixedBatches:
    """Labelled windows and, with a teacher, unlabelled ones that it has answered."""
    training = config.training
    if teacher is None:
        return _stream(labelled, training, training.batch_size, num_timesteps, population, seed)
    taught = []
    for source in population.unlabelled_sources(encoder, num_timesteps):
        scores = teacher_scores(teacher, source.activity, source.first_timestep, num_timesteps)
        answers = torch.from_numpy(scores / config.teacher.temperature).float().softmax(1)
        taught.append(replace(source, teacher_answer=answers))
    num_taught = round(config.teacher.unlabelled_fraction * training.batch_size)
    # every position of an unlabelled window is a candidate already
    steady = replace(training, jitter=0.0)
    return MixedBatches(
        [
            _stream(
                labelled,
                training,
                training.batch_size - num_taught,
                num_timesteps,
                population,
                seed,
            ),
            _stream(taught, steady, num_taught, num_timesteps, population, seed),
        ]
    )


def balance(decoder: NetworkDecoder, labelled: list[WindowSource]) -> NetworkDecoder:
    """Measures the spread of teacher and network on training windows, so that they add fairly."""
    assert decoder.teacher is not None
    taught, learned = [], []
    for source in labelled:
        windows = source.activity, source.first_timestep
        taught.append(teacher_scores(decoder.teacher, *windows, decoder.frame.num_timesteps))
        learned.append(decoder.network_scores(*windows))
    spread = float(np.concatenate(taught).std()), float(np.concatenate(learned).std())
    return NetworkDecoder(decoder.frame, decoder.network, decoder.teacher, decoder.blend, spread)
