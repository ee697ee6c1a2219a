"""A gaussian decoder of the whole condition that was shown, summed to what is asked about.

What a cell tells of one property of a stimulus depends on the others: of the temporal frequency it
tells where the grating drifts in its direction. A decoder that is linear in activity has one weight
for all directions. Here every combination of properties that training showed is a condition of its
own, with a mean response and noise that all conditions share (linear discriminant analysis); the
probability of an answer is the sum over the conditions that have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from scipy.special import logsumexp, softmax
from torch import Tensor

from poyo_ssl.decoders.linear import NEVER_SHOWN, LinearReadout

SMALLEST_VARIANCE = 1e-3
"""Smallest mean within-class variance of the features, where training windows do not vary."""
MAX_NOISE_WINDOWS = 2000
"""Windows that noise is measured in, evenly spaced, where features are more than that."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ConditionReadout:
    """Scores of classes: logarithms of sums over conditions, whose own scores are linear."""

    conditions: LinearReadout
    """Log-likelihood of every condition, up to a constant of the window."""
    class_of: np.ndarray
    """Class of every condition, (num_conditions,)."""
    num_classes: int
    sharpness: float = 1.0
    """Inverse temperature: a factor of the log-posterior."""

    @property
    def num_bins(self) -> int:
        """Equal bins that a window is averaged in."""
        return self.conditions.num_bins

    def scores(self, features: np.ndarray, unit_ids: list[str]) -> np.ndarray:
        """Log-posterior of classes under a uniform prior, up to a constant of the window.

        The prior is uniform over classes, and within a class over its conditions.

        Args:
            features: Binned activity, (num_windows, num_bins * len(unit_ids)), bins outermost.
            unit_ids: Units of the features, all known to this readout.

        Returns:
            (num_windows, num_classes).
        """
        is_shown = self.conditions.shown_to(unit_ids)
        likelihood = self.conditions.scores(features, unit_ids)
        likelihood -= likelihood[:, is_shown].max(axis=1, keepdims=True, initial=-np.inf)
        scores = np.full((len(features), self.num_classes), NEVER_SHOWN, dtype=likelihood.dtype)
        for label in np.unique(self.class_of[is_shown]):
            own = likelihood[:, is_shown & (self.class_of == label)]
            scores[:, label] = logsumexp(own, axis=1) - np.log(own.shape[1])
        return self.sharpness * scores

    def unit_importance(self, unit_ids: list[str]) -> np.ndarray:
        """Sum of the absolute weights of units over bins and conditions, (num_units,)."""
        return self.conditions.unit_importance(unit_ids)

    def answers(self, scores: np.ndarray, temperature: float) -> np.ndarray:
        """Probabilities to learn from, the softmax of scores over a temperature, of their shape."""
        result: np.ndarray = softmax(scores / temperature, axis=1)
        return result

    def scaled(self, factor: float) -> ConditionReadout:
        """The same decoder, whose scores are a factor larger."""
        return replace(self, sharpness=self.sharpness * factor)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Settings (JSON-ready) and tensors."""
        settings, tensors = self.conditions.state()
        own = {"num_classes": self.num_classes, "sharpness": self.sharpness}
        class_of = torch.from_numpy(self.class_of)
        return {**settings, "conditions": own}, {**tensors, "class_of": class_of}

    @classmethod
    def of(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Inverse of :meth:`state`."""
        return cls(
            conditions=LinearReadout.of(settings, tensors),
            class_of=tensors["class_of"].numpy(),
            **settings["conditions"],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ConditionResponses:
    """What the conditions evoked in one recording.

    The within-class covariance (of activity about the mean of its condition) is measured once and
    serves every shrinkage.
    """

    features: np.ndarray
    """Binned activity of training windows, (num_windows, num_bins * num_units), bins outermost."""
    condition: np.ndarray
    """Index of the condition of every window, (num_windows,)."""
    properties: np.ndarray
    """Index of the value of every property in every condition, (num_conditions, num_properties)."""
    unit_ids: list[str]

    def readout(self, shrinkage: float, additivity: float) -> LinearReadout:
        """Log-likelihoods of conditions, up to a constant of the window.

        Args:
            shrinkage: How far the within-class covariance is shrunk, from 0 (as measured) to 1 (a
                multiple of the identity).
            additivity: How far means of conditions are drawn to an additive model, from 0 (each
                condition's own mean) to 1 (main effects of the properties, no interaction), which
                takes fewer windows to estimate.
        """
        shown, means = self._means
        own = means + additivity * (self._sums_of_effects[shown] - means)
        weights = self._noise.divide(own, shrinkage)
        num_conditions, center = len(self.properties), self.features.mean(axis=0)
        coefficients = np.zeros((num_conditions, len(center)))
        intercept, is_shown = np.zeros(num_conditions), np.zeros(num_conditions, dtype=bool)
        coefficients[shown], intercept[shown] = weights, -0.5 * (weights * own).sum(axis=1)
        is_shown[shown] = True
        return LinearReadout.from_coefficients(
            coefficients, intercept, center, self.unit_ids, is_shown
        )

    @cached_property
    def _centred(self) -> np.ndarray:
        return self.features - self.features.mean(axis=0, dtype=np.float64)

    @cached_property
    def _means(self) -> tuple[np.ndarray, np.ndarray]:
        """Conditions that were shown, and their means about the mean of all windows."""
        shown, index, counts = np.unique(self.condition, return_inverse=True, return_counts=True)
        sums = np.zeros((len(shown), self.features.shape[1]))
        np.add.at(sums, index, self._centred)
        return shown, sums / counts[:, None]

    @cached_property
    def _sums_of_effects(self) -> np.ndarray:
        """Means of conditions without interaction of properties, (num_conditions, num_features).

        Main effects are fitted by least squares.
        """
        design = np.hstack(
            [np.eye(values.max() + 1)[values] for values in self.properties.T]
        )  # (num_conditions, values of all properties)
        effects, *_ = np.linalg.lstsq(design[self.condition], self._centred, rcond=None)
        sums: np.ndarray = design @ effects
        return sums

    @cached_property
    def _noise(self) -> _Noise:
        """The within-class covariance, pooled over conditions."""
        shown, means = self._means
        noise = self._centred - means[np.searchsorted(shown, self.condition)]
        num_free = len(noise) - len(shown)
        if num_free == 0:  # one window a condition: the covariance about the mean of all
            noise, num_free = self._centred, max(1, len(noise) - 1)
        return _Noise.measure(noise * np.sqrt(len(noise) / num_free))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Noise:
    """A covariance matrix as its eigenvalues and eigenvectors."""

    variances: np.ndarray
    """Eigenvalues, (num_directions,); those of 0 may be left out."""
    directions: np.ndarray
    """Eigenvectors, (num_features, num_directions), orthonormal."""

    @classmethod
    def measure(cls, noise: np.ndarray) -> Self:
        """Decomposes the covariance of noise of mean 0, shape (num_windows, num_features).

        The smaller of the covariance over features and the Gram matrix over windows is decomposed.
        """
        num_features = noise.shape[1]
        if num_features > MAX_NOISE_WINDOWS:
            noise = noise[:: -(-len(noise) // MAX_NOISE_WINDOWS)]
        if len(noise) < num_features:
            variances, windows = np.linalg.eigh(noise @ noise.T / len(noise))
            is_kept = variances > np.finfo(np.float32).eps * variances.max()
            variances, windows = variances[is_kept], windows[:, is_kept]
            directions = noise.T @ windows / np.sqrt(variances * len(noise))
        else:
            variances, directions = np.linalg.eigh(noise.T @ noise / len(noise))
        return cls(variances=np.maximum(variances, 0), directions=directions)

    def divide(self, rows: np.ndarray, shrinkage: float) -> np.ndarray:
        """Rows (n, num_features) times the inverse of the covariance after shrinkage."""
        size = max(self.variances.sum() / len(self.directions), SMALLEST_VARIANCE)
        elsewhere = shrinkage * size
        along = 1 / ((1 - shrinkage) * self.variances + elsewhere) - 1 / elsewhere
        result: np.ndarray = rows / elsewhere + (rows @ self.directions * along) @ self.directions.T
        return result
