"""Fitting a decoder: from scratch or from a pretrained encoder, with or without a teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from poyo_ssl.alignment.shared_response import Loadings
from poyo_ssl.decoders.class_scores import ClassScores
from poyo_ssl.decoders.fitted_decoder import FittedDecoder, Question
from poyo_ssl.decoders.network import NetworkDecoder
from poyo_ssl.finetuning.answering import LEARNING, Lesson, Member, PictureTeacher
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.kinds_of_arguments import require_kind
from poyo_ssl.model.checkpoints import digest, network_tensors
from poyo_ssl.model.encoder import Encoder, EncoderConfig, starting_encoder
from poyo_ssl.model.provenance import Provenance
from poyo_ssl.training.engine import fit
from poyo_ssl.training.members import Members, MemberSteps, member_seeds
from poyo_ssl.training.transfer import EMBEDDINGS, full_rates, prepare_encoder
from poyo_ssl.windows.evaluation_batches import EvaluationBatches
from poyo_ssl.windows.label_budget import LabelBudget, LeftOut, take_labels
from poyo_ssl.windows.population import MADE_BY, Population
from poyo_ssl.windows.tasks import Task
from poyo_ssl.windows.training_batches import WindowSource, thin

_DEFAULT = FinetuningConfig()


def finetune(
    population: Population,
    task: Task | str,
    encoder: Encoder | EncoderConfig | NetworkDecoder | None = None,
    config: FinetuningConfig = _DEFAULT,
    *,
    arm: str = "",
    seed: int = 0,
    labels: LabelBudget | float = 1.0,
    left_out: LeftOut | None = None,
    teacher: ClassScores | PictureTeacher | None = None,
    checkpoint_directory: Path | None = None,
    log_directory: Path | None = None,
    show_progress: bool = False,
) -> FittedDecoder:
    """Fits a decoder of one task on the chosen units of a population.

    Args:
        population: Recordings, units and parts; learns from ``train``, stops early on ``valid``.
        task: What is asked.
        encoder: A pretrained encoder, which is copied and not changed, or the config of a fresh
            one; None: a fresh one of the default size. Units that it does not know get new
            embeddings; what else transfers, and what of it learns on, the config says. If it was
            pretrained on labels of the same task, query and readout transfer, too. A decoder
            fitted before, such as one of other animals, gives every member an encoder and its
            query, and the readout too where the answers are the same.
        config: Loss, training, and way to transfer.
        arm: Name of the decoder in results; empty: ``scratch`` or ``pretrained``.
        seed: Seed of weights, batches and the choice of labels.
        labels: Labelled training windows that may be used; a number is the fraction of every
            class.
        left_out: A part of those that is not used, to choose something by; None: none.
        teacher: Closed-form decoder fitted on the same labels. Label and frame tasks: the network
            learns its answers on unlabelled windows too, and is added to it. Image tasks: the
            network corrects its pictures.
        checkpoint_directory: Where the fit can be resumed from; None keeps no checkpoints.
        log_directory: Where the logger writes curves while it runs; None writes none.
        show_progress: Draw a progress bar.

    Returns:
        The fitted decoder, with its learning curves in ``fit``.

    Raises:
        RecordingError: If a pretrained encoder is of another imaging rate, or the recordings were
            not divided for the task.
        TransferError: If it cannot be transferred as asked.
    """
    require_kind(population, Population, MADE_BY)
    task = population.divided.task(task)
    starts = find_starts(encoder, task, population.divided.classes(task))
    starts, population = place_units(starts, population, task)
    is_fresh = isinstance(starts[0].encoder, EncoderConfig)
    arm = arm or ("scratch" if is_fresh else "pretrained")
    start = "fresh" if is_fresh else digest(name_tensors(starts))
    lesson = prepare_lesson(population, task, starts, config, labels, left_out, teacher, seed)
    question = Question.about(population, task, lesson.num_timesteps, arm)
    learning = LEARNING[task.kind](lesson)
    settings = asdict(lesson.members[0].encoder.config)
    fitted = fit(
        Members(learning.modules, [member.seed for member in lesson.members]),
        MemberSteps(learning.batches),
        EvaluationBatches(learning.valid, batch_size=64) if learning.valid else None,
        seed=seed,
        checkpoint_directory=checkpoint_directory,
        identity={"task": task.name, "arm": arm, "start": start, "encoder": settings},
        log_directory=log_directory,
        show_progress=show_progress,
    )
    decoder = learning.finish(question)
    decoder.fit = fitted
    decoder.provenance = Provenance.of(population.divided.recordings, fitted)
    return decoder


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """What a member starts from."""

    encoder: Encoder | EncoderConfig
    answering: Mapping[str, Tensor] = field(default_factory=dict)
    """Weights of query and readout; see :class:`Member`."""

    def placing(self, placed: Mapping[str, Loadings]) -> Start:
        """The same with an encoder that knows the units that were placed."""
        encoder = copy.deepcopy(self.encoder)
        assert isinstance(encoder, Encoder)
        encoder.place_units(placed)
        return replace(self, encoder=encoder)


def find_starts(
    encoder: Encoder | EncoderConfig | NetworkDecoder | None,
    task: Task,
    classes: np.ndarray,
) -> list[Start]:
    """What members start from, each from the next one in turn.

    Args:
        encoder: See :func:`finetune`.
        task: What is asked.
        classes: Every answer that may be given, (num_classes,).
    """
    if not isinstance(encoder, NetworkDecoder):
        start = Start(encoder=starting_encoder(encoder))
        taught = start.encoder.taught if isinstance(start.encoder, Encoder) else None
        if taught is not None and taught.suits(task.name, classes):
            start = replace(start, answering=taught.tensors)
        return [start]
    left_out: tuple[str, ...] = ("reader.encoder.",)
    if not np.array_equal(encoder.question.classes, classes):
        left_out += ("readout.",)
    return [
        Start(
            encoder=network.encoder,
            answering={
                name: value
                for name, value in network_tensors(network).items()
                if not name.startswith(left_out)
            },
        )
        for network in encoder.networks
    ]


def place_units(
    starts: list[Start], population: Population, task: Task
) -> tuple[list[Start], Population]:
    """What an encoder that places units makes of a population: its units' embeddings, its zero.

    Any other encoder leaves things as they are.

    Raises:
        RecordingError: If a recording does not show what units are placed by, or the task tests
            it.
    """
    placement = None
    if isinstance(starts[0].encoder, Encoder):
        placement = starts[0].encoder.placement
    if placement is None:
        return starts, population
    placed = placement.place_unscored(population, task)
    return [start.placing(placed) for start in starts], placement.centred(population, placed)


def name_tensors(starts: list[Start]) -> dict[str, Tensor]:
    """All weights that members start from, each by a name of its own."""
    return {
        f"{index}.{name}": value
        for index, start in enumerate(starts)
        if isinstance(start.encoder, Encoder)
        for name, value in {**network_tensors(start.encoder), **start.answering}.items()
    }


def prepare_lesson(
    population: Population,
    task: Task,
    starts: list[Start],
    config: FinetuningConfig,
    labels: LabelBudget | float,
    left_out: LeftOut | None,
    teacher: ClassScores | PictureTeacher | None,
    seed: int,
) -> Lesson:
    """The encoders that fine-tuning starts from, and the windows that they learn from.

    Raises:
        RecordingError: If the encoder was pretrained at another imaging rate.
        TransferError: If the pretrained encoder cannot be transferred as asked.
    """
    members = [
        transfer_encoder(start, population, config, of_member)
        for start, of_member in zip(cycle(starts), member_seeds(seed, config.members), strict=False)
    ]
    known = members[0].encoder
    num_timesteps = known.window_timesteps(task.length)
    train = population.labelled_sources(known, task, "train", num_timesteps)
    valid = population.labelled_sources(known, task, "valid", num_timesteps)
    labelled = choose_labels(train, labels, seed)
    if left_out is not None:
        labelled = [source.take(left_out.kept(source.windows.target)) for source in labelled]
    training = config.training.for_windows(sum(map(len, labelled)), task.length)
    return Lesson(
        population=population,
        task=task,
        members=members,
        config=replace(config, training=training),
        labelled=labelled,
        valid=thin(valid, config.training.max_valid_windows),
        teacher=teacher,
    )


def transfer_encoder(
    start: Start, population: Population, config: FinetuningConfig, seed: int
) -> Member:
    """What one member starts from: an encoder of every unit, and how fast its parts learn.

    All of a fresh encoder learns, whatever the way to transfer.

    Raises:
        RecordingError: If the encoder was pretrained at another imaging rate.
        TransferError: If the pretrained encoder cannot be transferred as asked.
    """
    torch.manual_seed(seed)
    prepared = prepare_encoder(start.encoder, population.sampling_rate)
    if isinstance(start.encoder, EncoderConfig):
        prepared.add_units(population.unit_ids)
        return Member(encoder=prepared, rates=full_rates(prepared), seed=seed)
    is_known = EMBEDDINGS[config.embeddings](prepared, population.unit_ids, seed)
    rates = config.way.rates(prepared, is_known)
    return Member(encoder=prepared, rates=rates, seed=seed, answering=start.answering)


def choose_labels(
    sources: list[WindowSource], labels: LabelBudget | float, seed: int
) -> list[WindowSource]:
    """Keeps the labelled windows that a budget and a seed allow, in every recording."""
    return [source.take(take_labels(source.windows.target, labels, seed)) for source in sources]
