"""Forecasts in closed form: of every unit from its own past, and from that of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from poyo_ssl.study.forecast_windows import ForecastWindows

PENALTIES = np.logspace(1, 7, 13)
"""Ridge penalties tried: products of z-scores over some thousand windows."""
NUM_FOLDS = 5
"""Contiguous parts of the training windows in turn left out to choose the penalty."""
LOOKS_BACK = (3, 10)
"""Of all units' pasts are known the means of the last bins, so many, of those between, and of
those before: three numbers a unit."""

Forecast = Callable[[ForecastWindows, np.ndarray], np.ndarray]
"""Training windows and the pasts asked about, (n, num_past, num_units), to what follows them,
(n, num_steps, num_units)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnPast:
    """Every unit's future as a linear function of its own past."""

    mean: np.ndarray
    """Mean of every unit over the training windows, (num_units,)."""
    weights: np.ndarray
    """(num_past, num_steps, num_units)."""

    @staticmethod
    def fit(train: ForecastWindows) -> OwnPast:
        """By ridge regression, with a penalty of every unit's own."""
        mean = _mean(train)
        past, future = (np.moveaxis(x - mean, 2, 0) for x in (train.past, train.future))
        weights = fit_ridge(past, future[:, :, None, :])[:, :, 0]
        return OwnPast(mean=mean, weights=np.moveaxis(weights, 0, 2))

    @staticmethod
    def ignored(train: ForecastWindows) -> OwnPast:
        """Forecasts the mean."""
        shape = train.past.shape[1], *train.future.shape[1:]
        return OwnPast(mean=_mean(train), weights=np.zeros(shape))

    def forecast(self, past: np.ndarray) -> np.ndarray:
        """What follows pasts (n, num_past, num_units), (n, num_steps, num_units)."""
        return self.mean + np.einsum("npu,psu->nsu", past - self.mean, self.weights, optimize=True)


def forecast_mean(train: ForecastWindows, past: np.ndarray) -> np.ndarray:
    """The mean of training time."""
    return OwnPast.ignored(train).forecast(past)


def forecast_mean_of_past(train: ForecastWindows, past: np.ndarray) -> np.ndarray:
    """The mean of the past."""
    return past.mean(axis=1, keepdims=True).repeat(train.future.shape[1], axis=1)


def forecast_copy(train: ForecastWindows, past: np.ndarray) -> np.ndarray:
    """The last bin of the past, again and again."""
    return past[:, -1:].repeat(train.future.shape[1], axis=1)


def forecast_ar1(train: ForecastWindows, past: np.ndarray) -> np.ndarray:
    """A first-order autoregression: the last bin's distance from the mean decays."""
    mean = _mean(train)
    steps = np.arange(1, train.future.shape[1] + 1)[:, None]
    return mean + fit_ar1(train) ** steps * (past[:, -1:] - mean)


def forecast_own_past(train: ForecastWindows, past: np.ndarray) -> np.ndarray:
    """Ridge regression on the unit's own past."""
    return OwnPast.fit(train).forecast(past)


def forecast_all_pasts(train: ForecastWindows, past: np.ndarray) -> np.ndarray:
    """Ridge regression on the own past; what it leaves, on the pasts of all units."""
    own, mean = OwnPast.fit(train), _mean(train)
    left = train.future - own.forecast(train.past)
    features = _look_back(train.past - mean)
    weights = fit_ridge(features[None], left.swapaxes(1, 2)[None])[0]
    correction = np.einsum("np,pus->nsu", _look_back(past - mean), weights, optimize=True)
    return own.forecast(past) + correction


FORECASTS: Mapping[str, Forecast] = MappingProxyType(
    {
        "mean": forecast_mean,
        "mean of the past": forecast_mean_of_past,
        "copy": forecast_copy,
        "AR(1)": forecast_ar1,
        "own past": forecast_own_past,
        "pasts of all": forecast_all_pasts,
    }
)
"""Name to forecast; nothing in them is random."""


def fit_ar1(train: ForecastWindows) -> np.ndarray:
    """Least-squares coefficient of every unit from one bin to the next, (num_units,)."""
    centred = train.past - _mean(train)
    before, after = centred[:, :-1], centred[:, 1:]
    spread = np.square(before).sum(axis=(0, 1))
    shared = (before * after).sum(axis=(0, 1))
    return np.divide(shared, spread, out=np.zeros_like(shared), where=spread > 0)


def fit_ridge(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Ridge regressions with the penalties that do best on parts of the windows left out.

    Args:
        features: Centred, in order of time, (groups, n, p); every group has its own.
        targets: Centred, (groups, n, units, steps). The steps of a unit share a penalty.

    Returns:
        Weights, (groups, p, units, steps).
    """
    edges = np.linspace(0, features.shape[1], NUM_FOLDS + 1).astype(int)
    folds = [slice(*pair) for pair in pairwise(edges)]
    flat = targets.reshape(*targets.shape[:2], -1)
    squares = [_products(features[:, fold], features[:, fold]) for fold in folds]
    shared = [_products(features[:, fold], flat[:, fold]) for fold in folds]
    total, total_shared = sum(squares), sum(shared)
    errors = np.zeros((len(PENALTIES), targets.shape[0], targets.shape[2]))
    for fold, square, share in zip(folds, squares, shared, strict=True):
        values, vectors = np.linalg.eigh(total - square)
        turned = features[:, fold] @ vectors
        solved = vectors.swapaxes(1, 2) @ (total_shared - share)
        for error, penalty in zip(errors, PENALTIES, strict=True):
            left = flat[:, fold] - turned @ (solved / (values + penalty)[..., None])
            error += np.square(left.reshape(targets[:, fold].shape)).sum(axis=(1, 3))
    best = PENALTIES[errors.argmin(axis=0)]  # (groups, units)
    values, vectors = np.linalg.eigh(total)
    solved = vectors.swapaxes(1, 2) @ total_shared
    solved = solved.reshape(*solved.shape[:2], *targets.shape[2:])
    solved /= (values[..., None] + best[:, None])[..., None]
    weights: np.ndarray = np.einsum("gpq,gqus->gpus", vectors, solved, optimize=True)
    return weights


def _products(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one.swapaxes(1, 2) @ other


def _mean(train: ForecastWindows) -> np.ndarray:
    """Of every unit over the training windows, (num_units,)."""
    mean: np.ndarray = train.past.mean(axis=(0, 1))
    return mean


def _look_back(past: np.ndarray) -> np.ndarray:
    """Means of some bins of all units' pasts, (n, features)."""
    at = [max(0, past.shape[1] - bins) for bins in LOOKS_BACK]
    parts = [part.mean(axis=1) for part in np.split(past, sorted(at), axis=1) if part.shape[1]]
    return np.concatenate(parts, axis=1)
