"""Fitting a decoder: from scratch or from a pretrained encoder, with or without a teacher."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from poyo_ssl.decoders.fitted_decoder import FittedDecoder, Question
from poyo_ssl.decoders.linear import LinearReadout
from poyo_ssl.finetuning.answering import LEARNING, Lesson, Member, PictureTeacher
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.model.checkpoints import digest, network_tensors
from poyo_ssl.model.encoder import Encoder, EncoderConfig, starting_encoder
from poyo_ssl.training.engine import fit
from poyo_ssl.training.members import Members, MemberSteps, member_seeds
from poyo_ssl.training.transfer import EMBEDDINGS, full_rates, prepare_encoder
from poyo_ssl.windows.evaluation_batches import EvaluationBatches
from poyo_ssl.windows.label_budget import LabelBudget, take_labels
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import Task
from poyo_ssl.windows.training_batches import WindowSource, thin

_DEFAULT = FinetuningConfig()


def finetune(
    population: Population,
    task: Task | str,
    encoder: Encoder | EncoderConfig | None = None,
    config: FinetuningConfig = _DEFAULT,
    *,
    arm: str = "",
    seed: int = 0,
    labels: LabelBudget | float = 1.0,
    teacher: LinearReadout | PictureTeacher | None = None,
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
            embeddings; what else transfers, and what of it learns on, the config says.
        config: Loss, training, and way to transfer.
        arm: Name of the decoder in results; empty: ``scratch`` or ``pretrained``.
        seed: Seed of weights, batches and the choice of labels.
        labels: Labelled training windows that may be used; a number is the fraction of every
            class.
        teacher: Closed-form decoder fitted on the same labels. Label tasks: the network learns
            its answers on unlabelled windows too, and is added to it. Image tasks: the network
            corrects its pictures.
        checkpoint_directory: Where the fit can be resumed from; None keeps no checkpoints.
        log_directory: Where TensorBoard finds the curves; None writes none.
        show_progress: Draw a progress bar.

    Returns:
        The fitted decoder, with its learning curves in ``fit``.

    Raises:
        RecordingError: If a pretrained encoder is of another imaging rate, or the recordings were
            not divided for the task.
        TransferError: If it cannot be transferred as asked.
    """
    task = population.divided.task(task)
    encoder = starting_encoder(encoder)
    arm = arm or ("scratch" if isinstance(encoder, EncoderConfig) else "pretrained")
    start = "fresh" if isinstance(encoder, EncoderConfig) else digest(network_tensors(encoder))
    lesson = prepare_lesson(population, task, encoder, config, labels, teacher, seed)
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
    return decoder


def prepare_lesson(
    population: Population,
    task: Task,
    encoder: Encoder | EncoderConfig,
    config: FinetuningConfig,
    labels: LabelBudget | float,
    teacher: LinearReadout | PictureTeacher | None,
    seed: int,
) -> Lesson:
    """The encoders that fine-tuning starts from, and the windows that they learn from.

    Raises:
        RecordingError: If the encoder was pretrained at another imaging rate.
        TransferError: If the pretrained encoder cannot be transferred as asked.
    """
    members = [
        transfer_encoder(encoder, population, config, of_member)
        for of_member in member_seeds(seed, config.members)
    ]
    known = members[0].encoder
    num_timesteps = known.window_timesteps(task.length)
    train = population.labelled_sources(known, task, "train", num_timesteps)
    valid = population.labelled_sources(known, task, "valid", num_timesteps)
    return Lesson(
        population=population,
        task=task,
        members=members,
        config=config,
        labelled=choose_labels(train, labels, seed),
        valid=thin(valid, config.training.max_valid_windows),
        teacher=teacher,
    )


def transfer_encoder(
    encoder: Encoder | EncoderConfig, population: Population, config: FinetuningConfig, seed: int
) -> Member:
    """What one member starts from: an encoder of every unit, and how fast its parts learn.

    All of a fresh encoder learns, whatever the way to transfer.

    Raises:
        RecordingError: If the encoder was pretrained at another imaging rate.
        TransferError: If the pretrained encoder cannot be transferred as asked.
    """
    torch.manual_seed(seed)
    prepared = prepare_encoder(encoder, population.sampling_rate)
    if isinstance(encoder, EncoderConfig):
        prepared.add_units(population.unit_ids)
        return Member(encoder=prepared, rates=full_rates(prepared), seed=seed)
    is_known = EMBEDDINGS[config.embeddings](prepared, population.unit_ids, seed)
    rates = config.way.rates(prepared, is_known)
    return Member(encoder=prepared, rates=rates, seed=seed)


def choose_labels(
    sources: list[WindowSource], labels: LabelBudget | float, seed: int
) -> list[WindowSource]:
    """Keeps the labelled windows that a budget and a seed allow, in every recording."""
    return [source.take(take_labels(source.windows.target, labels, seed)) for source in sources]
