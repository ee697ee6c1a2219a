"""Linear decoders of labels in closed form: what a score must be read beside.

Each is fitted on one recording and keyed by unit, so that decoders of several recordings merge
into one, and a fitted decoder can be asked about any recording that shares units with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifierCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from torch import Tensor

ALPHAS = np.logspace(0, 4, 9)
"""Ridge penalties tried; features are binned signed square roots of z-scores, all of one scale."""
FEW_LABELS = 3
"""Labels per class below which a penalty is not chosen from them."""
FEW_LABELS_ALPHA = 10.0
"""Ridge penalty for so few labels."""
FEW_LABELS_C = 10.0
"""Inverse penalty of logistic regression for so few labels: 0.01 to 1 told fewer of the other
training windows of the real gratings session."""
NEVER_SHOWN = -1e3
"""Score of an answer that no recording showed in training."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearReadout:
    """Scores that are linear in the binned activity of units.

    ``scores = intercept + sum over units and bins of (activity - center) * weights``

    Units may be those of several recordings, which have an intercept each.
    """

    unit_ids: list[str]
    weights: np.ndarray
    """(num_bins, num_units, num_scores)."""
    center: np.ndarray
    """Mean activity over the training windows, (num_bins, num_units)."""
    intercepts: np.ndarray
    """(num_recordings, num_scores)."""
    is_shown: np.ndarray
    """Whether the recording showed in training what is scored, (num_recordings, num_scores)."""
    is_unit_of: np.ndarray
    """Whether the recording has the unit, (num_recordings, num_units)."""

    @property
    def num_bins(self) -> int:
        """Equal bins that a window is averaged in."""
        return self.weights.shape[0]

    @property
    def num_scores(self) -> int:
        """Scores of a window."""
        return self.weights.shape[2]

    def scores(self, features: np.ndarray, unit_ids: list[str]) -> np.ndarray:
        """Scores of windows in which some of the units were recorded.

        A unit that was not recorded counts as having had its mean activity.

        Args:
            features: Binned activity, (num_windows, num_bins * len(unit_ids)), bins outermost.
            unit_ids: Units of the features, all known to this readout.

        Returns:
            (num_windows, num_scores); ``NEVER_SHOWN`` where :meth:`shown_to` says so.
        """
        columns = self._columns(unit_ids)
        by_bin = features.reshape(len(features), self.num_bins, len(unit_ids))
        centred = by_bin - self.center[:, columns]
        weights = self.weights[:, columns].reshape(-1, self.num_scores)
        share = self._share(columns)
        intercept = np.where(share.any(axis=0), (share * self.intercepts).sum(axis=0), NEVER_SHOWN)
        result: np.ndarray = centred.reshape(features.shape) @ weights + intercept
        return result

    def shown_to(self, unit_ids: list[str]) -> np.ndarray:
        """Whether a recording that has one of the units showed what is scored, (num_scores,)."""
        is_shown: np.ndarray = np.any(self._share(self._columns(unit_ids)), axis=0)
        return is_shown

    def _columns(self, unit_ids: list[str]) -> slice | list[int]:
        if unit_ids == self.unit_ids:
            return slice(None)  # a list would copy all weights
        position = {unit_id: i for i, unit_id in enumerate(self.unit_ids)}
        return [position[unit_id] for unit_id in unit_ids]

    def _share(self, columns: slice | list[int]) -> np.ndarray:
        """Weight of each recording in the intercepts: its share of units, (num_recordings, K)."""
        counts = self.is_unit_of[:, columns].sum(axis=1)[:, None] * self.is_shown
        share: np.ndarray = counts / np.maximum(counts.sum(axis=0), 1)
        return share.astype(np.float32)

    def unit_importance(self, unit_ids: list[str]) -> np.ndarray:
        """Sum of the absolute weights of units over bins and scores, (num_units,).

        Args:
            unit_ids: Units that this readout knows.
        """
        position = {unit_id: i for i, unit_id in enumerate(self.unit_ids)}
        weights = self.weights[:, [position[unit_id] for unit_id in unit_ids]]
        importance: np.ndarray = np.abs(weights).sum(axis=(0, 2))
        return importance

    def answers(self, scores: np.ndarray, temperature: float) -> np.ndarray:
        """Probabilities to learn from, the softmax of scores over a temperature, of their shape."""
        result: np.ndarray = softmax(scores / temperature, axis=1)
        return result

    def scaled(self, factor: float) -> LinearReadout:
        """The same decoder, whose scores are a factor larger."""
        return replace(self, weights=self.weights * factor, intercepts=self.intercepts * factor)

    @staticmethod
    def from_coefficients(
        coefficients: np.ndarray,
        intercept: np.ndarray,
        center: np.ndarray,
        unit_ids: list[str],
        is_shown: np.ndarray | None = None,
    ) -> LinearReadout:
        """Reshapes a linear model of one recording on centred features.

        Args:
            coefficients: (num_scores, num_features).
            intercept: (num_scores,).
            center: Mean features, (num_features,).
            unit_ids: Units of the features.
            is_shown: Whether training showed what is scored, (num_scores,); None: all of it.
        """
        num_units, num_scores = len(unit_ids), len(coefficients)
        is_shown = np.ones(num_scores, dtype=bool) if is_shown is None else is_shown
        return LinearReadout(
            unit_ids=unit_ids,
            weights=coefficients.T.reshape(-1, num_units, num_scores).astype(np.float32),
            center=center.reshape(-1, num_units).astype(np.float32),
            intercepts=np.asarray(intercept, dtype=np.float32)[None],
            is_shown=is_shown[None],
            is_unit_of=np.ones((1, num_units), dtype=bool),
        )

    @staticmethod
    def merge(readouts: Sequence[LinearReadout]) -> LinearReadout:
        """One readout for several recordings; a unit seen in several gets its mean weights.

        An answer that some recordings of a unit never showed is known from the others alone.
        """
        unit_ids = list(dict.fromkeys(u for r in readouts for u in r.unit_ids))
        position = {unit_id: i for i, unit_id in enumerate(unit_ids)}
        num_bins, _, num_scores = readouts[0].weights.shape
        weights = np.zeros((num_bins, len(unit_ids), num_scores), dtype=np.float32)
        center = np.zeros((num_bins, len(unit_ids)), dtype=np.float32)
        count = np.zeros(len(unit_ids), dtype=np.float32)
        num_showing = np.zeros((len(unit_ids), num_scores), dtype=np.float32)
        memberships = []
        for readout in readouts:
            columns = [position[unit_id] for unit_id in readout.unit_ids]
            weights[:, columns] += readout.weights
            center[:, columns] += readout.center
            count[columns] += 1
            num_showing[columns] += readout.is_shown.any(axis=0)
            memberships.append(np.zeros((len(readout.intercepts), len(unit_ids)), dtype=bool))
            memberships[-1][:, columns] = readout.is_unit_of
        return LinearReadout(
            unit_ids=unit_ids,
            weights=weights / np.maximum(num_showing, 1),
            center=center / count,
            intercepts=np.concatenate([readout.intercepts for readout in readouts]),
            is_shown=np.concatenate([readout.is_shown for readout in readouts]),
            is_unit_of=np.concatenate(memberships),
        )

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Settings (JSON-ready) and tensors."""
        tensors = {f"readout.{name}": torch.from_numpy(getattr(self, name)) for name in _ARRAYS}
        return {"readout_unit_ids": self.unit_ids}, tensors

    @classmethod
    def of(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Inverse of :meth:`state`."""
        arrays = {name: tensors[f"readout.{name}"].numpy() for name in _ARRAYS}
        return cls(unit_ids=settings["readout_unit_ids"], **arrays)


_ARRAYS = ("weights", "center", "intercepts", "is_shown", "is_unit_of")


def fit_ridge(
    features: np.ndarray, target: np.ndarray, num_classes: int, unit_ids: list[str]
) -> LinearReadout:
    """Ridge to one-hot labels; the penalty by leave-one-out error within the training windows.

    Args:
        features: Binned activity, (num_windows, num_bins * num_units).
        target: Class of each window, (num_windows,).
        num_classes: Classes in all; those without a training window score 0.
        unit_ids: Units of the features.
    """
    center = features.mean(axis=0)
    present, index = np.unique(target, return_inverse=True)
    coefficients = np.zeros((num_classes, features.shape[1]))
    intercept = np.zeros(num_classes)
    if len(present) > 1:
        alpha = choose_penalty(features - center, index)
        model = Ridge(alpha=alpha).fit(features - center, np.eye(len(present))[index])
        coefficients[present], intercept[present] = model.coef_, model.intercept_
    else:
        intercept[present] = 1.0
    return LinearReadout.from_coefficients(coefficients, intercept, center, unit_ids)


def choose_penalty(centred: np.ndarray, target: np.ndarray) -> float:
    """Ridge penalty for labels, by leave-one-out error where there are enough for that.

    With fewer than ``FEW_LABELS`` windows of some class, or one class alone, it is
    ``FEW_LABELS_ALPHA``: leaving one out then leaves hardly anything of its class.

    Args:
        centred: Features less their mean, (num_windows, num_features).
        target: Class of each window, (num_windows,).
    """
    _, counts = np.unique(target, return_counts=True)
    if len(counts) == 1 or counts.min() < FEW_LABELS:
        return FEW_LABELS_ALPHA
    return float(RidgeClassifierCV(alphas=ALPHAS).fit(centred, target).alpha_)


def leave_one_out_error(features: np.ndarray, target: np.ndarray) -> float:
    """Mean squared leave-one-out error of the best ridge to labels coded -1 and 1."""
    search = RidgeClassifierCV(alphas=ALPHAS).fit(features - features.mean(axis=0), target)
    return -float(search.best_score_)


def fit_logistic(
    features: np.ndarray, target: np.ndarray, num_classes: int, unit_ids: list[str], seed: int
) -> LinearReadout:
    """Multinomial logistic regression; the penalty by stratified cross-validation in training.

    With fewer than three windows of some class the penalty is not searched but set, and classes
    weigh the same: one window more would decide more than what was recorded.
    """
    center = features.mean(axis=0)
    present, index = np.unique(target, return_inverse=True)
    if len(present) == 1:
        return fit_ridge(features, target, num_classes, unit_ids)  # one answer, nothing to fit
    smallest = int(np.bincount(index).min())
    with warnings.catch_warnings():
        # an unconverged fit of a reference decoder is still scored on held-out windows
        warnings.simplefilter("ignore", ConvergenceWarning)
        if smallest >= FEW_LABELS:
            model = LogisticRegression(max_iter=200)
            folds = StratifiedKFold(min(5, smallest), shuffle=True, random_state=seed)
            search = GridSearchCV(model, {"C": np.logspace(-4, 0, 5)}, cv=folds)
            model = search.fit(features - center, index).best_estimator_
        else:
            model = LogisticRegression(C=FEW_LABELS_C, class_weight="balanced", max_iter=200)
            model.fit(features - center, index)
    coefficients = np.zeros((num_classes, features.shape[1]))
    intercept, is_shown = np.zeros(num_classes), np.zeros(num_classes, dtype=bool)
    is_shown[present] = True
    if len(present) == 2:
        coefficients[present[1]], intercept[present] = model.coef_[0], [0, model.intercept_[0]]
    else:
        coefficients[present], intercept[present] = model.coef_, model.intercept_
    return LinearReadout.from_coefficients(coefficients, intercept, center, unit_ids, is_shown)
