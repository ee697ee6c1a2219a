"""How a network learns each kind of answer: its readout, loss and batches, and what it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch

from poyo_ssl.decoders.fitted_decoder import FittedDecoder, Question
from poyo_ssl.decoders.linear import LinearReadout
from poyo_ssl.decoders.movie_reference import PictureReadout
from poyo_ssl.decoders.network import NetworkDecoder, teacher_scores
from poyo_ssl.decoders.value_decoders import ValueNetwork
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.modules import LabelDecoding, MovieDecoding, ValueDecoding
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.model.readouts import LabelDecoder, MovieDecoder
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.training.engine import WindowModule
from poyo_ssl.training.transfer import LearningRates
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import Task
from poyo_ssl.windows.training_batches import MixedBatches, TrainingBatches, WindowSource


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureTeacher:
    """A linear decoder whose pictures a network learns to correct."""

    pixels: PictureReadout
    """For every recording of the population."""
    training_scores: dict[str, np.ndarray]
    """Recording id to the component scores of its labelled training windows, cross-fitted so that
    they are as wrong as on new movie frames, (num_windows, num_components)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """What a network learns from, whatever the kind of answer."""

    population: Population
    task: Task
    encoder: Encoder
    rates: LearningRates
    """Of the encoder."""
    config: FinetuningConfig
    labelled: list[WindowSource]
    valid: list[WindowSource]
    teacher: LinearReadout | PictureTeacher | None
    seed: int

    @property
    def num_timesteps(self) -> int:
        """Imaging samples in a window."""
        return self.encoder.window_timesteps(self.task.length)


@dataclass(frozen=True, kw_only=True, eq=False)
class Learning:
    """A network that is ready to be trained."""

    module: WindowModule
    batches: TrainingBatches | MixedBatches
    valid: list[WindowSource]
    finish: Callable[[Question], FittedDecoder]
    """Makes the fitted decoder of the trained network."""


def learn_labels(lesson: Lesson) -> Learning:
    """One of several classes, movie frames among them, by cross-entropy.

    Raises:
        TypeError: If the teacher is one of pictures.
    """
    teacher = lesson.teacher
    if isinstance(teacher, PictureTeacher):
        raise TypeError(f"The task '{lesson.task.name}' takes a LinearReadout for a teacher.")
    network = LabelDecoder(
        lesson.encoder,
        num_classes=len(lesson.population.divided.classes(lesson.task)),
        query_time=lesson.task.query_time,
    )

    def finish(question: Question) -> FittedDecoder:
        decoder = NetworkDecoder(question, network, teacher, lesson.config.teacher.blend)
        return decoder if teacher is None else balance(decoder, lesson.labelled)

    return Learning(
        module=LabelDecoding(network, lesson.config, lesson.rates),
        batches=_label_batches(
            lesson.population, lesson.encoder, lesson.labelled, lesson.config,
            lesson.num_timesteps, lesson.seed, teacher,
        ),
        valid=lesson.valid,
        finish=finish,
    )  # fmt: skip


def learn_values(lesson: Lesson) -> Learning:
    """A number, by squared error of the standardised value.

    Raises:
        TypeError: If there is a teacher.
    """
    if lesson.teacher is not None:
        raise TypeError(f"The task '{lesson.task.name}' asks for values, which have no teacher.")
    target = np.concatenate([source.target for source in lesson.labelled])
    mean, sd = float(target.mean()), float(target.std()) or 1.0
    network = LabelDecoder(lesson.encoder, num_classes=1, query_time=lesson.task.query_time)
    training = lesson.config.training
    return Learning(
        module=ValueDecoding(network, lesson.config, lesson.rates, mean=mean, sd=sd),
        batches=_stream(
            lesson.labelled, training, training.batch_size, lesson.num_timesteps,
            lesson.population, lesson.seed,
        ),
        valid=lesson.valid,
        finish=lambda question: ValueNetwork(question, network, mean, sd),
    )  # fmt: skip


def learn_pictures(lesson: Lesson) -> Learning:
    """Pictures, by mean absolute error and structural dissimilarity.

    Raises:
        TypeError: If the teacher is one of labels.
    """
    teacher, labelled, valid = lesson.teacher, lesson.labelled, lesson.valid
    if isinstance(teacher, LinearReadout):
        raise TypeError(f"The task '{lesson.task.name}' takes a PictureTeacher for a teacher.")
    module = _movie_module(
        lesson.population, lesson.task, lesson.encoder, lesson.config, labelled, teacher,
        lesson.rates,
    )  # fmt: skip
    training, readout = lesson.config.training, None
    if teacher is not None:
        readout = teacher.pixels.readout
        labelled = [_with_training_scores(source, teacher) for source in labelled]
        valid = [_with_scores(source, readout, lesson.num_timesteps) for source in valid]
        training = replace(training, jitter=0.0)  # its scores are of the windows as they stand
    return Learning(
        module=module,
        batches=_stream(
            labelled, training, training.batch_size, lesson.num_timesteps, lesson.population,
            lesson.seed,
        ),
        valid=valid,
        finish=lambda question: NetworkDecoder(
            question, module.network, readout, lesson.config.teacher.blend
        ),
    )  # fmt: skip


LEARNING: Mapping[str, Callable[[Lesson], Learning]] = MappingProxyType(
    {
        "labels": learn_labels,
        "values": learn_values,
        "frames": learn_labels,
        "images": learn_pictures,
    }
)
"""Kind of answer to how a network learns it."""


def _movie_module(
    population: Population,
    task: Task,
    encoder: Encoder,
    config: FinetuningConfig,
    labelled: list[WindowSource],
    teacher: PictureTeacher | None,
    rates: LearningRates,
) -> MovieDecoding:
    pictures = population.divided.pictures(task)
    if teacher is None:
        shown = np.unique(np.concatenate([source.target for source in labelled]))
        mean_frame, components = pictures[shown].mean(0), None
    else:
        mean_frame = torch.from_numpy(teacher.pixels.mean_picture).float()
        components = torch.from_numpy(teacher.pixels.components).float()
    network = MovieDecoder(
        encoder,
        mean_frame=mean_frame,
        query_time=task.query_time,
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
        taught.append(teacher_scores(decoder.teacher, *windows, decoder.question.num_timesteps))
        learned.append(decoder.network_scores(*windows))
    spread = float(np.concatenate(taught).std()), float(np.concatenate(learned).std())
    return NetworkDecoder(decoder.question, decoder.network, decoder.teacher, decoder.blend, spread)
