"""Fitting a decoder: from scratch or from a pretrained encoder, with or without a teacher."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from poyo_ssl.decoding import DecoderFrame, NetworkDecoder, teacher_scores
from poyo_ssl.model.decoders import LabelDecoder, MovieDecoder
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.model.losses import label_loss, picture_loss, teacher_loss
from poyo_ssl.population import Population
from poyo_ssl.recordings.sampling import (
    EvaluationBatches,
    MixedBatches,
    TrainingBatches,
    WindowBatch,
    WindowSource,
)
from poyo_ssl.recordings.tasks import Task, take_label_fraction
from poyo_ssl.reference import LinearReadout
from poyo_ssl.training import Fit, TrainingConfig, WindowModule, fit


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """How a network learns from a closed-form linear teacher on unlabelled windows."""

    temperature: float = 0.15
    """The teacher's scores (one-hot ridge) are divided by it before the softmax."""
    unlabelled_fraction: float = 0.75
    """Part of every batch that is random unlabelled training windows, answered by the teacher."""
    blend: float = 0.5
    """The fitted decoder adds so many standard deviations of the network to the teacher."""

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.blend <= 0 or not 0 < self.unlabelled_fraction < 1:
            raise ValueError(
                "temperature and blend must be positive and unlabelled_fraction must lie in "
                f"(0, 1); got {self}."
            )


@dataclass(frozen=True, kw_only=True)
class FinetuningConfig:
    """How a decoder is fitted."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Optimiser, steps and early stopping."""
    label_smoothing: float = 0.1
    """Label and frame tasks: probability spread over all classes."""
    num_queries: int = 4
    """Image tasks: questions asked of the latents for each picture."""
    ssim_weight: float = 1.0
    """Image tasks: weight of 1 - SSIM beside the mean absolute error."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """Used by arms that have a teacher."""
    is_frozen: bool = False
    """Keep a pretrained encoder as it is: only embeddings of new units and the decoder learn."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1 or self.num_queries < 1 or self.ssim_weight < 0:
            raise ValueError(
                "label_smoothing must lie in [0, 1), num_queries be at least 1 and ssim_weight "
                f"not negative; got {self}."
            )


class LabelDecoding(WindowModule):
    """Cross-entropy on labelled windows; on unlabelled ones, divergence from the teacher.

    Args:
        network: Encoder, query and readout.
        config: Loss and training.
    """

    network: LabelDecoder

    def __init__(self, network: LabelDecoder, config: FinetuningConfig) -> None:
        super().__init__(network, config.training)
        self.config = config

    def losses(self, batch: list[WindowBatch]) -> dict[str, Tensor]:
        """``loss``, its terms, and the accuracy on the labelled windows."""
        labelled = [group for group in batch if group.soft_target is None]
        taught = [group for group in batch if group.soft_target is not None]
        terms: dict[str, Tensor] = {}
        if labelled:
            logits = torch.cat([self.network(g.activity, g.unit_index) for g in labelled])
            target = torch.cat([g.target for g in labelled])
            terms["cross_entropy"] = label_loss(logits, target, self.config.label_smoothing)
            terms["accuracy"] = (logits.argmax(1) == target).float().mean()
        if taught:
            logits = torch.cat([self.network(g.activity, g.unit_index) for g in taught])
            answers = torch.cat([g.soft_target for g in taught if g.soft_target is not None])
            terms["teacher"] = teacher_loss(logits, answers)
        zero = torch.zeros((), device=self.device)
        terms["loss"] = terms.get("cross_entropy", zero) + terms.get("teacher", zero)
        return terms


class MovieDecoding(WindowModule):
    """Mean absolute error and structural dissimilarity of reconstructed movie frames.

    Args:
        network: Encoder, queries and UNet decoder.
        config: Loss and training.
        pictures: What was shown, in [0, 1], (num_pictures, 64, 128).
    """

    network: MovieDecoder

    def __init__(self, network: MovieDecoder, config: FinetuningConfig, pictures: Tensor) -> None:
        super().__init__(network, config.training)
        self.config = config
        self.register_buffer("pictures", pictures, persistent=False)

    def losses(self, batch: list[WindowBatch]) -> dict[str, Tensor]:
        """``loss`` and its terms."""
        predicted = torch.cat([self.network(g.activity, g.unit_index) for g in batch])
        assert isinstance(self.pictures, Tensor)
        true = self.pictures[torch.cat([g.target for g in batch])]
        return picture_loss(predicted, true, self.config.ssim_weight)


def finetune(
    population: Population,
    task: Task,
    encoder: Encoder | EncoderConfig,
    config: FinetuningConfig,
    *,
    arm: str,
    seed: int,
    label_fraction: float = 1.0,
    teacher: LinearReadout | None = None,
    log_directory: Path | None = None,
    show_progress: bool = False,
) -> tuple[NetworkDecoder, Fit]:
    """Fits a decoder of one task on the chosen units of a population.

    Args:
        population: Recordings, units and parts; learns from ``train``, stops early on ``valid``.
        task: What is asked.
        encoder: A pretrained encoder, which is copied and not changed, or the config of a fresh
            one. Units that it does not know get new embeddings; everything else transfers.
        config: Loss and training.
        arm: Name of the decoder in results.
        seed: Of weights, batches and the choice of labels.
        label_fraction: Part of the training labels of every class that may be used.
        teacher: Linear readout fitted on the same labels, to learn from on unlabelled windows.
        log_directory: Where TensorBoard finds the curves; None writes none.
        show_progress: Draw a progress bar.

    Returns:
        The fitted decoder, and its learning curves.
    """
    torch.manual_seed(seed)
    if isinstance(encoder, EncoderConfig):
        encoder = Encoder(encoder, population.sampling_rate)
    else:
        encoder = copy.deepcopy(encoder).train()
    num_known_rows = len(encoder.unit_embedding.weight)
    encoder.add_units(population.unit_ids)
    classes = population.classes(task)
    num_timesteps = encoder.window_timesteps(task.window_length)
    frame = DecoderFrame(
        arm=arm,
        task=task,
        classes=classes,
        num_timesteps=num_timesteps,
        sampling_rate=population.sampling_rate,
        scale=population.scale,
    )
    labelled = choose_labels(
        population.labelled_sources(encoder, task, "train", num_timesteps), label_fraction, seed
    )
    module: WindowModule
    if task.kind == "images":
        pictures = population.pictures(task)
        shown = np.unique(np.concatenate([source.target for source in labelled]))
        movie_decoder = MovieDecoder(
            encoder,
            mean_frame=pictures[shown].mean(0),
            query_time=-task.window_offset,
            num_queries=config.num_queries,
        )
        module = MovieDecoding(movie_decoder, config, pictures)
    else:
        query_time = 0.5 * task.window_length if task.kind == "labels" else -task.window_offset
        label_decoder = LabelDecoder(encoder, num_classes=len(classes), query_time=query_time)
        module = LabelDecoding(label_decoder, config)
    if config.is_frozen:
        freeze_encoder(encoder, num_known_rows)
    valid = population.labelled_sources(encoder, task, "valid", num_timesteps)
    result = fit(
        module,
        _batches(population, encoder, labelled, config, num_timesteps, seed, teacher),
        EvaluationBatches(valid, batch_size=64, num_timesteps=num_timesteps) if valid else None,
        seed=seed,
        log_directory=log_directory,
        show_progress=show_progress,
    )
    network = module.network
    assert isinstance(network, LabelDecoder | MovieDecoder)
    if teacher is None:
        return NetworkDecoder(frame, network), result
    decoder = NetworkDecoder(frame, network, teacher, config.teacher.blend)
    return balance(decoder, labelled), result


def freeze_encoder(encoder: Encoder, num_known_rows: int) -> None:
    """Lets only the embeddings of units added after pretraining learn.

    Args:
        encoder: Set to eval mode; its other parameters get no gradient.
        num_known_rows: Rows of the unit embedding that pretraining filled.
    """
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    encoder.eval()
    weight = encoder.unit_embedding.weight
    weight.requires_grad_(True)
    is_known = torch.arange(len(weight)) < num_known_rows
    weight.register_hook(lambda gradient: gradient.masked_fill(is_known[:, None], 0.0))


def choose_labels(
    sources: list[WindowSource], label_fraction: float, seed: int
) -> list[WindowSource]:
    """Keeps the labelled windows that a label fraction and a seed allow, in every recording."""
    chosen = []
    for source in sources:
        kept = take_label_fraction(source.target, label_fraction, seed)
        chosen.append(
            replace(source, first_timestep=source.first_timestep[kept], target=source.target[kept])
        )
    return chosen


def _batches(
    population: Population,
    encoder: Encoder,
    labelled: list[WindowSource],
    config: FinetuningConfig,
    num_timesteps: int,
    seed: int,
    teacher: LinearReadout | None,
) -> TrainingBatches | MixedBatches:
    training = config.training
    num_unlabelled = (
        round(config.teacher.unlabelled_fraction * training.batch_size) if teacher else 0
    )

    def stream(sources: list[WindowSource], batch_size: int, jitter: float) -> TrainingBatches:
        return TrainingBatches(
            sources,
            batch_size=batch_size,
            num_timesteps=num_timesteps,
            seed=seed,
            jitter=round(jitter * population.sampling_rate),
            unit_dropout=training.unit_dropout,
        )

    labels = stream(labelled, training.batch_size - num_unlabelled, training.jitter)
    if teacher is None:
        return labels
    taught = []
    for source in population.unlabelled_sources(encoder, num_timesteps):
        scores = teacher_scores(teacher, source.activity, source.first_timestep, num_timesteps)
        answers = torch.from_numpy(scores / config.teacher.temperature).float().softmax(1)
        taught.append(replace(source, soft_target=answers))
    return MixedBatches([labels, stream(taught, num_unlabelled, 0.0)])


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
