"""Each unit told from the others by closed-form regression: arrays in, arrays out."""

from __future__ import annotations

import numpy as np

PENALTIES = np.logspace(0, 6, 13)
"""Ridge penalties tried; patches are means of signed square roots of z-scores, all of one scale."""
NUM_FOLDS = 5
"""Contiguous parts of the training time in turn left out to choose the penalty: neighbouring
patches are alike, so leaving out single ones would choose too small a penalty."""


def predict_by_population_mean(train: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Predicts each unit by a line from the mean over the others, fitted to the training patches.

    Args:
        train: Patches of all units, (n, num_units).
        held_out: Patches to predict, (m, num_units).

    Returns:
        (m, num_units).
    """
    others, asked = (
        (patches.sum(axis=1, keepdims=True) - patches) / (patches.shape[1] - 1)
        for patches in (train, held_out)
    )
    centre, centre_of_others = train.mean(axis=0), others.mean(axis=0)
    centred = others - centre_of_others
    shared = (centred * (train - centre)).sum(axis=0)
    spread = np.square(centred).sum(axis=0)
    slope = np.divide(shared, spread, out=np.zeros_like(shared), where=spread > 0)
    predicted: np.ndarray = centre + slope * (asked - centre_of_others)
    return predicted


def predict_by_ridge(train: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Predicts each unit by ridge regression on all others, fitted to the training patches.

    Each unit's penalty is that of the least error in cross-validation within them.

    Args:
        train: Patches of all units in order of time, (n, num_units).
        held_out: Patches to predict, (m, num_units).

    Returns:
        (m, num_units).
    """
    centre = train.mean(axis=0)
    folds = np.array_split(train - centre, NUM_FOLDS)
    products = [fold.T @ fold for fold in folds]
    total = sum(products, np.zeros_like(products[0]))
    errors = [
        sum(
            np.square(fold - fold @ ridge_weights(total - product, penalty)).sum(axis=0)
            for fold, product in zip(folds, products, strict=True)
        )
        for penalty in PENALTIES
    ]
    best = PENALTIES[np.argmin(errors, axis=0)]
    weights = np.empty_like(total)
    for penalty in np.unique(best):
        weights[:, best == penalty] = ridge_weights(total, penalty)[:, best == penalty]
    predicted: np.ndarray = centre + (held_out - centre) @ weights
    return predicted


def ridge_weights(products: np.ndarray, penalty: float) -> np.ndarray:
    """Weights of the ridge regression of every unit on all others, by one inverse.

    By the inverse of a block matrix, column u of ``inv(products + penalty * I)`` is proportional
    to the weights of the regression of unit u on the others.

    Args:
        products: Products of centred patches with each other, (num_units, num_units).
        penalty: Above zero.

    Returns:
        Weights in columns, zero on the diagonal, (num_units, num_units).
    """
    inverse = np.linalg.inv(products + penalty * np.eye(len(products)))
    weights: np.ndarray = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


def variance_explained(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """R² of each unit, (num_units,), from arrays (..., num_units); NaN for a constant unit."""
    axes = tuple(range(true.ndim - 1))
    error = np.square(true - predicted).sum(axis=axes)
    spread = np.square(true - true.mean(axis=axes)).sum(axis=axes)
    r2: np.ndarray = 1 - np.divide(error, spread, out=np.full_like(error, np.nan), where=spread > 0)
    return r2
