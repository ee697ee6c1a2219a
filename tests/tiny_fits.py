"""Settings so small that a network is fitted in a fraction of a second."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from poyo_ssl.comparison.arms import ARMS, network_arm
from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.model.encoder import EncoderConfig
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.windows.label_budget import LabelBudget
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import DIRECTION, MOVIE_FRAME, MOVIE_HELD_OUT, Task

ENCODER = EncoderConfig(
    dim=16,
    depth=1,
    num_heads=2,
    dim_head=8,
    latents_per_step=2,
    latent_step=0.5,
    patch_length=0.5,
    dropout=0.0,
)

KINDS = [
    ("direction", "ridge"),
    ("direction", "ridge, time bins"),
    ("direction", "ridge, semi-supervised"),
    ("direction", "logistic"),
    ("direction", "condition posterior"),
    ("direction", "scratch"),
    ("direction", "scratch + teacher"),
    ("movie_frame", "nearest frame"),
    ("movie_frame", "frame posterior"),
    ("movie_frame", "frame filter"),
    ("movie_frame", "scratch"),
    ("movie_frame", "scratch + look-up teacher"),
    ("movie_held_out", "mean frame"),
    ("movie_held_out", "nearest frame"),
    ("movie_held_out", "frame filter"),
    ("movie_held_out", "ridge to pixels"),
    ("movie_held_out", "scratch"),
    ("movie_held_out", "scratch + teacher"),
]
"""Task and arm of every kind of fitted decoder."""
TASKS = {task.name: task for task in (DIRECTION, MOVIE_FRAME, MOVIE_HELD_OUT)}


def few_steps(max_steps: int = 5, **options) -> FinetuningConfig:
    training = TrainingConfig(
        max_steps=max_steps, batch_size=8, valid_every=max_steps, max_valid_windows=16
    )
    return FinetuningConfig(training=replace(training, **options), members=1)


def setting_of(
    population: Population,
    task: Task,
    *,
    config: FinetuningConfig | None = None,
    labels: LabelBudget | float = 1.0,
    seed: int = 0,
    pretrained=None,
) -> Setting:
    return Setting(
        population=population,
        task=task,
        encoder=ENCODER,
        config=config or few_steps(),
        seed=seed,
        labels=labels,
        pretrained=pretrained,
    )


def fit_arm(arm: str, setting: Setting) -> FittedDecoder:
    arms = {**ARMS, "pretrained": network_arm("pretrained", is_pretrained=True)}
    return arms[arm].fit(setting)


def with_units_in_order(recording: Recording, order: np.ndarray) -> Recording:
    """The same session with its units at other columns, or only some of them."""
    return replace(
        recording,
        df_over_f=recording.df_over_f[:, order],
        units=recording.units.iloc[order].reset_index(drop=True),
    )
