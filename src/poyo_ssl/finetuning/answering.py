"""How a network learns each kind of answer: its readout, loss and batches, and what it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType, NoneType

import numpy as np
import torch
from torch import Tensor

from poyo_ssl.decoders.class_scores import ClassScores
from poyo_ssl.decoders.condition_posterior import ConditionReadout
from poyo_ssl.decoders.fitted_decoder import FittedDecoder, Question
from poyo_ssl.decoders.frame_templates import FrameTemplates
from poyo_ssl.decoders.linear import LinearReadout
from poyo_ssl.decoders.movie_reference import PictureReadout
from poyo_ssl.decoders.network import (
    ClassNetwork,
    FrameNetwork,
    PictureNetwork,
    ValueNetwork,
    teacher_scores,
)
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.modules import (
    FrameDecoding,
    LabelDecoding,
    MovieDecoding,
    ValueDecoding,
)
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.model.readouts import LabelDecoder, MovieDecoder
from poyo_ssl.training.transfer import LearningRates
from poyo_ssl.training.window_module import WindowModule, seed_torch
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import Task, presentation_period
from poyo_ssl.windows.training_batches import (
    MixedBatches,
    TrainingBatches,
    TrainingSteps,
    WindowSource,
)

READOUT = 0x5EAD
"""Mixed into the seed of query and readout, whose first weights are not those of the encoder."""
_SAME_SCORE = 1e-9
"""Standard deviation up to which scores differ by rounding alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureTeacher:
    """A linear decoder whose pictures a network learns to correct."""

    pixels: PictureReadout
    """For every recording of the population."""
    training_scores: dict[str, np.ndarray]
    """Recording id to the component scores of its labelled training windows, cross-fitted so that
    they are as wrong as on new movie frames, (num_windows, num_components)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """One of the networks that learn side by side."""

    encoder: Encoder
    """What it starts from."""
    rates: LearningRates
    """Learning rates of the encoder."""
    seed: int
    """Seed of its query and readout, batches and dropout."""
    answering: Mapping[str, Tensor] = field(default_factory=dict)
    """Weights of query and readout to start from, by their names in the network; fresh where none
    of a name and shape is there."""

    def start(self, network: LabelDecoder | MovieDecoder) -> None:
        """Gives a network the weights of ``answering``."""
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                known = self.answering.get(name)
                if known is not None and known.shape == parameter.shape:
                    parameter.copy_(known)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """What networks learn from, whatever the kind of answer."""

    population: Population
    task: Task
    members: list[Member]
    """One at least; their encoders know the same units by the same rows."""
    config: FinetuningConfig
    labelled: list[WindowSource]
    valid: list[WindowSource]
    teacher: ClassScores | PictureTeacher | None

    @property
    def num_timesteps(self) -> int:
        """Imaging samples in a window."""
        return self.members[0].encoder.window_timesteps(self.task.length)


@dataclass(frozen=True, kw_only=True, eq=False)
class Learning:
    """Networks that are ready to be trained, one for each member."""

    modules: Sequence[WindowModule]
    batches: Sequence[TrainingSteps]
    valid: list[WindowSource]
    finish: Callable[[Question], FittedDecoder]
    """Makes the fitted decoder of the trained networks."""


def learn_labels(lesson: Lesson) -> Learning:
    """One of several classes, by cross-entropy.

    Raises:
        TypeError: If the teacher is not one of labels.
    """
    return _learn_classes(lesson, LabelDecoding, ClassNetwork, (LinearReadout, ConditionReadout))


def learn_frames(lesson: Lesson) -> Learning:
    """Movie frames, by cross-entropy with those about the one shown.

    Raises:
        TypeError: If the teacher is not one of movie frames.
    """
    shown = lesson.population.divided.learning(lesson.task)[0].recording
    period = presentation_period(shown, lesson.task)
    module = partial(FrameDecoding, frame_period=period)
    return _learn_classes(lesson, module, FrameNetwork, (FrameTemplates,))


def _learn_classes(
    lesson: Lesson,
    module: Callable[[LabelDecoder, FinetuningConfig, LearningRates], LabelDecoding],
    kind: type[ClassNetwork],
    teaching: tuple[type, ...],
) -> Learning:
    teacher = lesson.teacher
    if isinstance(teacher, PictureTeacher) or not isinstance(teacher, (*teaching, NoneType)):
        kinds = " or a ".join(kind.__name__ for kind in teaching)
        raise TypeError(
            f"The task '{lesson.task.name}' takes a {kinds} for a teacher, got a "
            f"{type(teacher).__name__}."
        )
    networks = _label_networks(lesson, len(lesson.population.divided.classes(lesson.task)))

    def finish(question: Question) -> FittedDecoder:
        decoder = kind(question, networks, teacher, lesson.config.teacher.blend)
        return decoder if teacher is None else balance(decoder, lesson.labelled)

    return Learning(
        modules=[
            module(network, lesson.config, member.rates)
            for network, member in zip(networks, lesson.members, strict=True)
        ],
        batches=_label_batches(lesson, teacher),
        valid=lesson.valid,
        finish=finish,
    )


def learn_values(lesson: Lesson) -> Learning:
    """A number, by squared error of the standardised value.

    Raises:
        TypeError: If there is a teacher.
    """
    if lesson.teacher is not None:
        raise TypeError(f"The task '{lesson.task.name}' asks for values, which have no teacher.")
    target = np.concatenate([source.windows.target for source in lesson.labelled])
    mean, sd = float(target.mean()), float(target.std()) or 1.0
    networks = _label_networks(lesson, 1)
    return Learning(
        modules=[
            ValueDecoding(network, lesson.config, member.rates, mean=mean, sd=sd)
            for network, member in zip(networks, lesson.members, strict=True)
        ],
        batches=_labelled_batches(lesson, lesson.labelled, lesson.config.training.largest_shift),
        valid=lesson.valid,
        finish=lambda question: ValueNetwork(question, networks, mean, sd),
    )


def learn_pictures(lesson: Lesson) -> Learning:
    """Pictures, by mean absolute error and structural dissimilarity.

    Raises:
        TypeError: If the teacher is one of labels.
    """
    teacher, labelled, valid = lesson.teacher, lesson.labelled, lesson.valid
    if teacher is not None and not isinstance(teacher, PictureTeacher):
        raise TypeError(f"The task '{lesson.task.name}' takes a PictureTeacher for a teacher.")
    modules = _movie_modules(lesson, teacher)
    networks = [module.network for module in modules]
    readout, jitter = None, lesson.config.training.largest_shift
    if teacher is not None:
        readout = teacher.pixels.readout
        labelled = [_with_training_scores(source, teacher) for source in labelled]
        valid = [_with_scores(source, readout) for source in valid]
        jitter = 0.0  # its scores are of the windows as they stand
    return Learning(
        modules=modules,
        batches=_labelled_batches(lesson, labelled, jitter),
        valid=valid,
        finish=lambda question: PictureNetwork(question, networks, readout),
    )


LEARNING: Mapping[str, Callable[[Lesson], Learning]] = MappingProxyType(
    {
        "labels": learn_labels,
        "values": learn_values,
        "frames": learn_frames,
        "images": learn_pictures,
    }
)
"""Kind of answer to how a network learns it."""


def _label_networks(lesson: Lesson, num_classes: int) -> list[LabelDecoder]:
    networks = []
    for member in lesson.members:
        seed_torch(member.seed, READOUT)
        network = LabelDecoder(
            member.encoder, num_classes=num_classes, query_time=lesson.task.query_time
        )
        member.start(network)
        networks.append(network)
    return networks


def _movie_modules(lesson: Lesson, teacher: PictureTeacher | None) -> list[MovieDecoding]:
    pictures = lesson.population.divided.pictures(lesson.task)
    if teacher is None:
        shown = np.unique(np.concatenate([source.windows.target for source in lesson.labelled]))
        mean_frame, components = pictures[shown].mean(0), None
    else:
        mean_frame = torch.from_numpy(teacher.pixels.mean_picture).float()
        components = torch.from_numpy(teacher.pixels.components).float()
    modules = []
    for member in lesson.members:
        seed_torch(member.seed, READOUT)
        network = MovieDecoder(
            member.encoder,
            mean_frame=mean_frame,
            query_time=lesson.task.query_time,
            num_queries=lesson.config.num_queries,
            components=components,
        )
        member.start(network)
        modules.append(MovieDecoding(network, lesson.config, pictures, member.rates))
    return modules


def _with_training_scores(source: WindowSource, teacher: PictureTeacher) -> WindowSource:
    scores = teacher.training_scores[source.activity.recording_id]
    return replace(source, teacher_answer=torch.from_numpy(scores).float())


def _with_scores(source: WindowSource, readout: LinearReadout) -> WindowSource:
    scores = readout.scores(source.binned(readout.num_bins), source.activity.unit_ids)
    return replace(source, teacher_answer=torch.from_numpy(scores).float())


def _stream(
    lesson: Lesson, sources: list[WindowSource], batch_size: int, *, seed: int, jitter: float
) -> TrainingBatches:
    return TrainingBatches(
        sources,
        batch_size=batch_size,
        seed=seed,
        jitter=round(jitter * lesson.population.sampling_rate),
        unit_dropout=lesson.config.training.unit_dropout,
    )


def _labelled_batches(
    lesson: Lesson, labelled: list[WindowSource], jitter: float
) -> list[TrainingSteps]:
    """Every member's batches of labelled windows."""
    batch_size = lesson.config.training.batch_size
    return [
        _stream(lesson, labelled, batch_size, seed=member.seed, jitter=jitter)
        for member in lesson.members
    ]


def _label_batches(lesson: Lesson, teacher: ClassScores | None) -> list[TrainingSteps]:
    """Labelled windows and, with a teacher, unlabelled ones that it has answered."""
    training = lesson.config.training
    num_taught = 0
    if teacher is not None:
        num_labelled = sum(map(len, lesson.labelled))
        num_taught = lesson.config.teacher.num_taught(training.batch_size, num_labelled)
    if teacher is None or not num_taught:
        return _labelled_batches(lesson, lesson.labelled, training.largest_shift)
    taught, encoder = [], lesson.members[0].encoder
    for source in lesson.population.unlabelled_sources(encoder, lesson.num_timesteps):
        scores = _teacher_scores(teacher, source)
        answers = teacher.answers(scores, lesson.config.teacher.temperature)
        taught.append(replace(source, teacher_answer=torch.from_numpy(answers).float()))
    num_labelled = training.batch_size - num_taught
    return [
        MixedBatches(
            [
                _stream(
                    lesson,
                    lesson.labelled,
                    num_labelled,
                    seed=member.seed,
                    jitter=training.largest_shift,
                ),
                # every position of an unlabelled window is a candidate already
                _stream(lesson, taught, num_taught, seed=member.seed, jitter=0.0),
            ]
        )
        for member in lesson.members
    ]


def _teacher_scores(teacher: ClassScores, source: WindowSource) -> np.ndarray:
    windows = source.windows
    return teacher_scores(teacher, source.activity, windows.first_timestep, windows.num_timesteps)


def balance(decoder: ClassNetwork, labelled: list[WindowSource]) -> ClassNetwork:
    """Measures the spread of teacher and network on training windows, so that they add fairly.

    That of a teacher is over the classes that have labels: what it says of others, such as
    ``NEVER_SHOWN``, is no part of its scale.
    """
    assert decoder.teacher is not None
    shown = np.unique(np.concatenate([source.windows.target for source in labelled]))
    taught, learned = [], []
    for source in labelled:
        taught.append(_teacher_scores(decoder.teacher, source)[:, shown])
        learned.append(decoder.network_scores(source.activity, source.windows.first_timestep))
    spread = _spread(taught), _spread(learned)
    return type(decoder)(decoder.question, decoder.networks, decoder.teacher, decoder.blend, spread)


def _spread(scores: list[np.ndarray]) -> float:
    """Standard deviation of scores; 1 where all are the same, which then decide nothing."""
    sd = float(np.concatenate(scores).std())
    return sd if sd > _SAME_SCORE else 1.0
