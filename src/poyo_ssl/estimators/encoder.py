"""The encoder as a transformer of scikit-learn: trials in, latents out."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from poyo_ssl.estimators.base import SAMPLING_RATE, TrialEstimator, require_units
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.identify_units import identify_units
from poyo_ssl.pretraining.objectives.split_units import SplitUnitsConfig
from poyo_ssl.pretraining.pretrain import pretrain
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.windows.population import Population

STEP_SIZE = 128
"""Trials in a step of ``split_units``, which correlates features over them."""


class PoyoEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, TrialEstimator):
    """Latents of trials, learned from activity alone.

    Units are embedded by their loadings on the modes of the activity, in closed form; then two
    random halves of the units learn to say the same of a trial (``split_units``). Of the objectives
    of :func:`poyo_ssl.pretrain` these two leave most to read in latents.

    Args:
        sampling_rate: Imaging rate, Hz.
        window_shape: (n_timesteps, n_units) of the rows of a two-dimensional ``X``; None: a row is
            one timestep of all units.
        encoder: Size of a fresh encoder, or a pretrained one to go on from, which is not changed;
            None: a fresh one of the default size.
        embedding_modes: Modes that units are embedded by; fewer where there are too few units.
        max_steps: Optimiser steps; 0 keeps the embeddings in closed form and random weights.
        learning_rate: The largest one.
        unit_dropout: Each step leaves out units at a rate drawn from U(0, unit_dropout).
        random_state: Seed of weights, batches and halves.
        verbose: Draw a progress bar.

    Attributes:
        encoder_: What was fitted; ``encoder_.fit`` has its curves. Give it to
            :class:`PoyoClassifier` as ``encoder``, or to :func:`poyo_ssl.save_encoder`.
        window_shape_: (n_timesteps, n_units) of a trial.
        n_features_in_: n_timesteps * n_units.
    """

    def __init__(
        self,
        *,
        sampling_rate: float = SAMPLING_RATE,
        window_shape: tuple[int, int] | None = None,
        encoder: Encoder | EncoderConfig | None = None,
        embedding_modes: int = 20,
        max_steps: int = 100,
        learning_rate: float = TrainingConfig.lr,
        unit_dropout: float = 0.3,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.sampling_rate = sampling_rate
        self.window_shape = window_shape
        self.encoder = encoder
        self.embedding_modes = embedding_modes
        self.max_steps = max_steps
        self.learning_rate = learning_rate
        self.unit_dropout = unit_dropout
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Tags:
        """Latents are of one precision."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learns from trials.

        Args:
            X: ΔF/F, (n_trials, n_timesteps, n_units), or (n_trials, n_timesteps * n_units).
            y: Not read.

        Returns:
            The estimator.

        Raises:
            ValueError: If X has another shape, or holds what is not finite.
        """
        trials, _ = self._read_first(X)
        if isinstance(self.encoder, Encoder):
            require_units(self.encoder, trials.shape[2])
        start, self.animal_ = self._prepare(self.encoder)
        population = self._population(trials)
        self.encoder_ = pretrain(
            population, self._config, encoder=start, seed=self._seed, show_progress=self.verbose
        ).eval()
        return self

    def adapt(self, X: Any) -> Self:
        """Brings the fitted encoder to another animal: new units, the same network.

        The embeddings of the new units are learned as those of :meth:`fit`; all else is frozen.

        Args:
            X: Trials of the other animal, as for :meth:`fit`, of any number of units.

        Returns:
            An encoder of the other animal; this one is not changed.

        Raises:
            NotFittedError: If this encoder was not fitted.
            ValueError: If X has another shape, or holds what is not finite.
        """
        check_is_fitted(self)
        adapted: Self = clone(self)
        trials, _ = adapted._read_first(X)
        _, adapted.animal_ = adapted._prepare(self.encoder_)
        adapted.encoder_ = identify_units(
            self.encoder_,
            adapted._population(trials),
            adapted._config,
            embeddings="reset",
            seed=adapted._seed,
            show_progress=self.verbose,
        ).eval()
        return adapted

    def transform(self, X: Any) -> np.ndarray:
        """Latents of trials, (n_trials, n_latents * dim), float32, in order of time."""
        trials = self._read(X)
        units = self.encoder_.unit_rows(self.animal_.unit_ids)
        num_timesteps = self.animal_.num_timesteps
        with torch.inference_mode():
            latents = [
                self.encoder_(activity.windows(first, num_timesteps), units).flatten(1)
                for activity, first in self.animal_.batches(trials, self.scale_)
            ]
        features: np.ndarray = torch.cat(latents)[: len(trials)].numpy()
        return features

    @property
    def _n_features_out(self) -> int:
        """How many latents there are, for ``get_feature_names_out``."""
        num_steps = len(self.encoder_.latent_times(self.animal_.num_timesteps))
        config = self.encoder_.config
        return num_steps * config.latents_per_step * config.dim

    @property
    def _config(self) -> PretrainingConfig:
        """Modes, then split units; as many modes as the animal's units have."""
        num_units = self.animal_.num_units
        modes: dict[str, Any] = {
            "embedding_modes": min(self.embedding_modes, max(0, num_units - 2)),
            "window_length": self.animal_.num_timesteps / self.animal_.sampling_rate,
        }
        if not self.max_steps:
            return PretrainingConfig(objective="modes", **modes)
        return PretrainingConfig(
            objective="split_units",
            split_units=SplitUnitsConfig(remove_modes=min(1, num_units - 1)),
            training=TrainingConfig(
                max_steps=self.max_steps,
                batch_size=STEP_SIZE,
                lr=self.learning_rate,
                unit_dropout=self.unit_dropout,
                jitter=0.0,  # a trial is all that is known
            ),
            **modes,
        )

    def _population(self, trials: np.ndarray) -> Population:
        """The trials to learn from; keeps their scale."""
        nothing = np.zeros(len(trials))
        task = self.animal_.task("values")
        population = self.animal_.population(trials, nothing, nothing.astype(bool), task)
        self.scale_ = population.scale
        return population
