"""Decoders of trials as scikit-learn knows them: a classifier and a regressor."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from scipy.special import softmax
from sklearn.base import ClassifierMixin, RegressorMixin, clone, is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from poyo_ssl.decoders.linear import LinearReadout
from poyo_ssl.decoders.network import ClassNetwork, NetworkDecoder
from poyo_ssl.estimators.base import SAMPLING_RATE, TrialEstimator, require_units
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.finetune import finetune
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.finetuning.teachers import label_teacher
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.training.config import TrainingConfig


class TrialDecoder(TrialEstimator, metaclass=ABCMeta):
    """Parameters and fit of both decoders."""

    kind: ClassVar[str]
    """What is answered, a name of ``ANSWERS``."""
    decoder_: NetworkDecoder

    def __init__(
        self,
        *,
        sampling_rate: float = SAMPLING_RATE,
        window_shape: tuple[int, int] | None = None,
        encoder: Encoder | EncoderConfig | None = None,
        members: int = 1,
        max_steps: int | None = TrainingConfig.max_steps,
        learning_rate: float = TrainingConfig.lr,
        unit_dropout: float = TrainingConfig.unit_dropout,
        validation_fraction: float = 0.0,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.sampling_rate = sampling_rate
        self.window_shape = window_shape
        self.encoder = encoder
        self.members = members
        self.max_steps = max_steps
        self.learning_rate = learning_rate
        self.unit_dropout = unit_dropout
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Learns from trials.

        Args:
            X: ΔF/F, (n_trials, n_timesteps, n_units), or (n_trials, n_timesteps * n_units).
            y: The answers, (n_trials,).

        Returns:
            The estimator.

        Raises:
            ValueError: If the arrays do not fit together, or hold what is not finite.
        """
        trials, answers = self._read_answers(X, y)
        if isinstance(self.encoder, Encoder):
            require_units(self.encoder, trials.shape[2])
        return self._learn(trials, answers, self.encoder, None, self._config)

    def adapt(
        self, X: Any, y: Any, *, transfer: Literal["units", "layerwise", "full"] = "units"
    ) -> Self:
        """Brings the fitted decoder to another animal: new units, the same network.

        Args:
            X: Trials of the other animal, as for :meth:`fit`, of any number of units.
            y: Their answers, (n_trials,); if the classes are the same, query and readout transfer.
            transfer: What learns beside query and readout: ``units``, the embeddings of the units
                alone; ``layerwise``, the rest too, but slower; ``full``, everything.

        Returns:
            A decoder of the other animal; this one is not changed.

        Raises:
            NotFittedError: If this decoder was not fitted.
            ValueError: If the arrays do not fit together, or hold what is not finite.
        """
        check_is_fitted(self)
        config = replace(self._config, transfer=transfer, embeddings="reset")
        adapted: Self = clone(self)
        trials, answers = adapted._read_answers(X, y)
        decoder = self.decoder_ if adapted._answers_like(self) else None
        encoder = self.decoder_.networks[0].encoder
        return adapted._learn(trials, answers, encoder, decoder, config)

    @property
    def _config(self) -> FinetuningConfig:
        training = TrainingConfig(
            max_steps=self.max_steps,
            lr=self.learning_rate,
            unit_dropout=self.unit_dropout,
            jitter=0.0,  # a trial is all that is known
        )
        return FinetuningConfig(members=self.members, training=training)

    @abstractmethod
    def _read_answers(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Trials (n_trials, n_timesteps, n_units), and class from 0 or value of each."""

    def _answers_like(self, other: Self) -> bool:
        """Whether both have the same possible answers."""
        return True

    def _teacher(self, setting: Setting) -> LinearReadout | None:
        """A linear decoder to learn from."""
        return None

    def _learn(
        self,
        trials: np.ndarray,
        answers: np.ndarray,
        encoder: Encoder | EncoderConfig | None,
        decoder: NetworkDecoder | None,
        config: FinetuningConfig,
    ) -> Self:
        """Fits a decoder that starts from an encoder, or from the decoder that it is of."""
        encoder, animal = self._prepare(encoder)
        task, seed = animal.task(self.kind), self._seed
        is_valid = self._choose_valid(answers, seed)
        population = animal.population(trials, answers, is_valid, task)
        setting = Setting(
            population=population,
            task=task,
            encoder=encoder.config if isinstance(encoder, Encoder) else encoder,
            config=config,
            seed=seed,
            labels=1.0,
        )
        fitted = finetune(
            population,
            task,
            decoder or encoder,
            config,
            seed=seed,
            teacher=self._teacher(setting),
            show_progress=self.verbose,
        )
        assert isinstance(fitted, NetworkDecoder)
        self.decoder_, self.animal_ = fitted, animal
        return self

    def _choose_valid(self, answers: np.ndarray, seed: int) -> np.ndarray:
        """Whether a trial validates, (n_trials,)."""
        is_valid = np.zeros(len(answers), dtype=bool)
        if self.validation_fraction:
            _, valid = train_test_split(
                np.arange(len(answers)),
                test_size=self.validation_fraction,
                random_state=seed,
                stratify=answers if is_classifier(self) else None,
            )
            is_valid[valid] = True
        return is_valid

    def _answer(self, X: Any) -> np.ndarray:
        """What the decoder says of trials."""
        trials = self._read(X)
        scale = self.decoder_.question.scale
        batches = self.animal_.batches(trials, scale)
        answers = np.concatenate([self.decoder_.answer(*batch) for batch in batches])
        return answers[: len(trials)].astype(np.float32)


class PoyoClassifier(ClassifierMixin, TrialDecoder):
    """Tells from the activity of a trial which of several labels it has.

    A POYO+ style network that is taught by ridge and answers with it, as
    :func:`poyo_ssl.finetune` with a teacher. Every unit is standardised by its mean and standard
    deviation in the trials that it is fitted on. Samples at the end of a trial that fill no
    patch of the encoder, fewer than there are patches, are not read.

    Args:
        sampling_rate: Imaging rate, Hz.
        window_shape: (n_timesteps, n_units) of the rows of a two-dimensional ``X``; None: a row is
            one timestep of all units.
        encoder: Size of a fresh encoder, or a pretrained one, which is not changed: ``encoder_``
            of a :class:`PoyoEncoder` of the same units, or one of other recordings, to which all
            units are new. None: a fresh one of the default size.
        members: Networks that learn side by side and answer together.
        max_steps: Optimiser steps; None: 300 to 3,000, by the number of trials.
        learning_rate: The largest one.
        unit_dropout: Each step leaves out units at a rate drawn from U(0, unit_dropout).
        validation_fraction: Trials held out to keep the best weights and stop early; 0: none.
        random_state: Seed of weights, batches and dropout.
        verbose: Draw a progress bar.
        teacher: Learn from ridge on the same trials, and answer together with it.

    Attributes:
        classes_: The labels, sorted, (n_classes,).
        decoder_: What was fitted; ``decoder_.fit`` has its curves, ``decoder_.save`` writes it.
        window_shape_: (n_timesteps, n_units) of a trial.
        n_features_in_: n_timesteps * n_units.
    """

    kind = "labels"

    def __init__(
        self,
        *,
        sampling_rate: float = SAMPLING_RATE,
        window_shape: tuple[int, int] | None = None,
        encoder: Encoder | EncoderConfig | None = None,
        members: int = 1,
        max_steps: int | None = TrainingConfig.max_steps,
        learning_rate: float = TrainingConfig.lr,
        unit_dropout: float = TrainingConfig.unit_dropout,
        validation_fraction: float = 0.0,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
        teacher: bool = True,
    ) -> None:
        super().__init__(
            sampling_rate=sampling_rate,
            window_shape=window_shape,
            encoder=encoder,
            members=members,
            max_steps=max_steps,
            learning_rate=learning_rate,
            unit_dropout=unit_dropout,
            validation_fraction=validation_fraction,
            random_state=random_state,
            verbose=verbose,
        )
        self.teacher = teacher

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label of each trial, (n_trials,)."""
        scores = self._answer(X)
        labels: np.ndarray = self.classes_[scores.argmax(axis=1)]
        return labels

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores, (n_trials, n_classes); of two classes, how much the second one's is larger."""
        scores = self._answer(X)
        return scores if len(self.classes_) > 2 else scores[:, 1] - scores[:, 0]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of every label, (n_trials, n_classes).

        With a teacher, the weighted geometric mean of its probabilities and the network's.
        """
        scores, decoder = self._answer(X), self.decoder_
        assert isinstance(decoder, ClassNetwork)
        if decoder.teacher is not None:  # what its scores, and the network's, are divided by
            taught, learned = decoder.spread
            scores /= self._config.teacher.temperature / taught + decoder.blend / learned
        probabilities: np.ndarray = softmax(scores, axis=1)
        return probabilities

    def _read_answers(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        trials, y = self._read_first(X, y=y)
        check_classification_targets(y)
        self.classes_, answers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least 2 classes in y, but all {len(y)} trials are "
                f"of one class: {self.classes_[0]!r}."
            )
        return trials, answers.astype(float)

    def _answers_like(self, other: Self) -> bool:
        return np.array_equal(self.classes_, other.classes_)

    def _teacher(self, setting: Setting) -> LinearReadout | None:
        return label_teacher(setting) if self.teacher else None


class PoyoRegressor(RegressorMixin, TrialDecoder):
    """Tells a number, such as running speed, from the activity of a trial.

    A POYO+ style network, as :func:`poyo_ssl.finetune` fits it to a task of values; ``score`` is
    R². Parameters and attributes are those of :class:`PoyoClassifier`, without ``teacher`` and
    ``classes_``.
    """

    kind = "values"

    def predict(self, X: Any) -> np.ndarray:
        """The number of each trial, (n_trials,)."""
        return self._answer(X)

    def _read_answers(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        trials, y = self._read_first(X, y=y, y_numeric=True)
        return trials, y.astype(float)
