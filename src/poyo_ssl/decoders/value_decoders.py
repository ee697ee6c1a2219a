"""Closed forms of numbers: ridge and kernel ridge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeCV
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, KFold
from torch import Tensor

from poyo_ssl.decoders.fitted_decoder import FittedDecoder, Question
from poyo_ssl.decoders.linear import ALPHAS, LinearReadout
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.activity import Activity

KERNEL_ALPHAS = (0.01, 0.1, 1.0, 10.0)
"""Penalties of kernel ridge that are tried."""
KERNEL_WIDTHS = (0.25, 1.0, 4.0)
"""Widths of the Gaussian kernel that are tried, relative to the root of the number of features."""
MOST_KERNEL_WINDOWS = 3000
"""Training windows of a recording that kernel ridge learns from, evenly spaced: its cost grows
with their cube."""


def fit_value_ridge(features: np.ndarray, target: np.ndarray, unit_ids: list[str]) -> LinearReadout:
    """Ridge to a number; the penalty by leave-one-out error within the training windows.

    Args:
        features: Binned activity, (num_windows, num_bins * num_units).
        target: (num_windows,).
        unit_ids: Units of the features.
    """
    center = features.mean(axis=0)
    model = RidgeCV(alphas=ALPHAS).fit(features - center, target)
    return LinearReadout.from_coefficients(
        model.coef_[None], np.atleast_1d(model.intercept_), center, unit_ids
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelModel:
    """Kernel ridge of one recording: ``mean + k(x, windows) @ weights``."""

    unit_ids: list[str]
    windows: np.ndarray
    """Centred features of the training windows, (num_windows, num_units)."""
    center: np.ndarray
    """Mean of the features, (num_units,)."""
    weights: np.ndarray
    """(num_windows,)."""
    mean: float
    """Mean of the training values."""
    gamma: float
    """Inverse squared width of the Gaussian kernel, per squared feature."""

    def values(self, features: np.ndarray, unit_ids: list[str]) -> np.ndarray:
        """Values of windows, (num_windows,); a unit that was not recorded counts as its mean."""
        position = {unit_id: i for i, unit_id in enumerate(self.unit_ids)}
        if not len(features):
            return np.empty(0)  # scikit-learn's kernel wants a window at least
        shared = [i for i, unit_id in enumerate(unit_ids) if unit_id in position]
        known = [position[unit_ids[i]] for i in shared]
        centred = np.zeros((len(features), len(self.unit_ids)))
        centred[:, known] = features[:, shared] - self.center[known]
        result: np.ndarray = (
            self.mean + rbf_kernel(centred, self.windows, self.gamma) @ self.weights
        )
        return result


def fit_kernel_ridge(features: np.ndarray, target: np.ndarray, unit_ids: list[str]) -> KernelModel:
    """Ridge with a Gaussian kernel; penalty and width by contiguous folds of the training windows.

    Args:
        features: Mean activity, (num_windows, num_units), in order of time.
        target: (num_windows,).
        unit_ids: Units of the features.
    """
    step = -(-len(target) // MOST_KERNEL_WINDOWS)
    features, target = features[::step], target[::step]
    center, mean = features.mean(axis=0), float(target.mean())
    centred = features - center
    base = 1 / max(float(np.square(centred).sum(axis=1).mean()), 1e-12)
    grid = {"alpha": KERNEL_ALPHAS, "gamma": [base * width for width in KERNEL_WIDTHS]}
    search = GridSearchCV(KernelRidge(kernel="rbf"), grid, cv=KFold(min(5, len(target))))
    model = search.fit(centred, target - mean).best_estimator_
    return KernelModel(
        unit_ids=unit_ids, windows=centred, center=center, weights=model.dual_coef_, mean=mean,
        gamma=float(model.gamma),
    )  # fmt: skip


class KernelReadout(FittedDecoder):
    """Kernel ridge on mean activity, one model a recording.

    Asked about a recording, it uses the model of the one that shares most units with it.
    """

    KIND = "kernel readout"

    def __init__(self, question: Question, models: list[KernelModel]) -> None:
        super().__init__(question)
        self.models = models

    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Values, (num_windows,)."""
        shared = [len(set(model.unit_ids) & set(activity.unit_ids)) for model in self.models]
        if not max(shared):
            raise RecordingError("The decoder knows none of the units.")
        model = self.models[int(np.argmax(shared))]
        features = activity.binned(first_timestep, self.question.num_timesteps, 1)
        return model.values(features, activity.unit_ids)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Every model."""
        models = [
            {"unit_ids": model.unit_ids, "mean": model.mean, "gamma": model.gamma}
            for model in self.models
        ]
        tensors = {
            f"model.{i}.{name}": torch.from_numpy(np.ascontiguousarray(getattr(model, name)))
            for i, model in enumerate(self.models)
            for name in ("windows", "center", "weights")
        }
        return {"models": models}, tensors

    @classmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds the models."""
        models = [
            KernelModel(
                unit_ids=saved["unit_ids"],
                mean=saved["mean"],
                gamma=saved["gamma"],
                windows=tensors[f"model.{i}.windows"].numpy(),
                center=tensors[f"model.{i}.center"].numpy(),
                weights=tensors[f"model.{i}.weights"].numpy(),
            )
            for i, saved in enumerate(settings["models"])
        ]
        return cls(question, models)
