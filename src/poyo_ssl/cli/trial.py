"""What ``poyo-ssl run --quick`` does instead: the same, in a minute or so."""

from __future__ import annotations

from dataclasses import replace

from poyo_ssl.comparison.config import SCRATCH, RunConfig
from poyo_ssl.finetuning.config import FinetuningConfig

MAX_STEPS = 30
"""Optimiser steps of a trial: enough to see the loss fall."""


def trial_of(config: RunConfig) -> RunConfig:
    """The same run with one seed, one part of the labels, two arms, few steps and members.

    Its report says in the title that it is a trial.
    """
    return replace(
        config,
        title=f"{config.title} (trial run)",
        arms=(SCRATCH, "scratch + chosen teacher"),
        baseline=SCRATCH,
        label_fractions=(max(config.label_fractions, default=1.0),),
        labels_per_class=(),
        num_seeds=1,
        labels=_shorten(config.labels),
        movie=_shorten(config.movie),
    )


def _shorten(config: FinetuningConfig) -> FinetuningConfig:
    training = config.training
    max_steps = min(training.max_steps or MAX_STEPS, MAX_STEPS)
    valid_every = min(training.valid_every, max_steps)
    return replace(
        config,
        members=min(config.members, 2),
        training=replace(training, max_steps=max_steps, valid_every=valid_every),
    )
