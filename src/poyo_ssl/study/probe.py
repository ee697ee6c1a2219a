"""What frozen latents say about a task, read linearly: a bad objective shows within seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifierCV, RidgeCV

from poyo_ssl.decoders.movie_reference import find_components
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.pretraining.objectives.activity_modes import ActivityModes
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.evaluation_batches import EvaluationBatches
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import Part
from poyo_ssl.windows.tasks import Task
from poyo_ssl.windows.training_batches import WindowSource

PENALTIES = np.logspace(0, 6, 13)
"""Ridge penalties tried, by leave-one-out error within the training windows; latents have unit
variance, and there are more features than windows in many sessions."""


@dataclass(frozen=True, kw_only=True)
class ProbeScores:
    """How well a task is read from latents, on one part."""

    metric: str
    """``accuracy`` of label tasks, ``r2`` of image tasks: variance of the pixels explained."""
    encoder: float
    """Score of the encoder that was asked about."""
    random_initialisation: float
    """Score of one that never learned, of the same config."""


def probe_latents(
    encoder: Encoder,
    population: Population,
    task: Task,
    *,
    part: Part = "test",
    remove_modes: int = 0,
    seed: int = 0,
) -> ProbeScores:
    """Reads a task from frozen latents by ridge, beside a random initialisation.

    The encoder is neither changed nor moved. All recordings share one readout, fitted on the
    training windows: standardised, flattened latents to one-hot labels, or to the principal
    components of the pictures shown.

    Args:
        encoder: Knows all units of the population.
        population: Recordings, units and parts.
        task: A task of labels or images.
        part: What is scored.
        remove_modes: Leading components of unlabelled training activity to take from what the
            encoder reads, as the objective split_units does.
        seed: Seed of the random initialisation.

    Raises:
        ValueError: If the task asks for movie frames.
        RecordingError: If the encoder does not know a unit, or a part has no window.
    """
    if task.answer.is_about_frames and not task.answer.needs_pictures:
        raise ValueError(
            f"A probe reads labels or images, but {task.name} asks for movie frames. Probe movie "
            "or movie_held_out."
        )
    unknown = [u for u in population.unit_ids if u not in encoder.unit_embedding.vocab]
    if unknown:
        raise RecordingError(
            f"The encoder has no embedding of {len(unknown)} of {len(population.unit_ids)} units "
            f"('{unknown[0]}', ...). Probe the population that it was pretrained on."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = Encoder(encoder.config, encoder.sampling_rate)
        untrained.add_units(population.unit_ids)
    untrained.to(encoder.latent_embedding.device)
    score = _accuracy if task.answer.has_budget else _variance_explained
    return ProbeScores(
        metric="accuracy" if task.answer.has_budget else "r2",
        encoder=score(encoder, population, task, part, remove_modes),
        random_initialisation=score(untrained, population, task, part, remove_modes),
    )


def _accuracy(
    encoder: Encoder, population: Population, task: Task, part: Part, remove_modes: int
) -> float:
    train, target, test, truth = _features(encoder, population, task, part, remove_modes)
    model = RidgeClassifierCV(alphas=PENALTIES).fit(train, target)
    return float((model.predict(test) == truth).mean())


def _variance_explained(
    encoder: Encoder, population: Population, task: Task, part: Part, remove_modes: int
) -> float:
    train, shown, test, truth = _features(encoder, population, task, part, remove_modes)
    pictures = population.divided.pictures(task).numpy()
    pictures = pictures.reshape(len(pictures), -1)
    components = find_components(pictures, shown)
    model = RidgeCV(alphas=PENALTIES).fit(train, components.transform(pictures[shown]))
    predicted = components.inverse_transform(model.predict(test))
    error = np.square(predicted - pictures[truth]).sum()
    spread = np.square(pictures[truth] - pictures[truth].mean(0)).sum()
    return float(1 - error / spread)


def _features(
    encoder: Encoder, population: Population, task: Task, part: Part, remove_modes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Standardised latents and answers of the training windows, then of the part."""
    num_timesteps = encoder.window_timesteps(task.length)
    modes = None
    if remove_modes:
        unlabelled = population.unlabelled_sources(encoder, num_timesteps)
        modes = ActivityModes.measure(unlabelled, remove_modes)
    found: list[np.ndarray] = []
    for name in ("train", part):
        sources = population.labelled_sources(encoder, task, name, num_timesteps)
        if not sources:
            raise RecordingError(
                f"The {name} part has no window of the task '{task.name}'. Divide the recordings "
                "for it, or probe another part or task."
            )
        found.append(encode_windows(encoder, sources, modes))
        found.append(np.concatenate([source.windows.target for source in sources]))
    train, target, test, truth = found
    mean, sd = train.mean(0), train.std(0) + 1e-3  # latents that hardly vary must not be blown up
    return (train - mean) / sd, target, (test - mean) / sd, truth


@torch.no_grad()
def encode_windows(
    encoder: Encoder, sources: list[WindowSource], modes: ActivityModes | None
) -> np.ndarray:
    """Flattened latents of all windows, without dropout, (num_windows, L * D)."""
    was_training, device = encoder.training, encoder.latent_embedding.device
    encoder.eval()
    latents = []
    for batch in EvaluationBatches(sources, batch_size=256):
        for group in batch:
            activity = group.activity if modes is None else modes.remove(group)
            read = encoder(activity.to(device), group.unit_index.to(device))
            latents.append(read.flatten(1).float().cpu().numpy())
    encoder.train(was_training)
    return np.concatenate(latents)
