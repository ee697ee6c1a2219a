"""How selective units are for what was shown, by the usual indices."""

from __future__ import annotations

import numpy as np
import pandas as pd

_CIRCLE, _HALF_CIRCLE = 360.0, 180.0
_SAME_ANGLE = 1e-3
"""Degrees."""


def selectivity(curves: pd.DataFrame, period: float | None = None) -> pd.DataFrame:
    """Indices of how selective every unit is.

    Responses are taken as they are, from zero; those below count as zero, so that every index lies
    in 0 to 1. An offset of ΔF/F upwards makes all smaller, and traces centred on zero make ``osi``
    and ``dsi`` of many units 1: subtract the activity before the onset first where that matters.
    With few trials noise makes all indices larger than they are: compare groups of units by
    equally many trials.

    - ``sparseness``: lifetime sparseness, 0 for equal responses to all, 1 for a response to one
    - ``osi``: ``(preferred - orthogonal) / (preferred + orthogonal)``, where orthogonal is the mean
      of the two angles 90 degrees away
    - ``dsi``: ``(preferred - opposite) / (preferred + opposite)``
    - ``global_osi`` and ``global_dsi``: length of the mean vector, ``1 - circular variance``

    Args:
        curves: Mean responses, a row for every label and a column for every unit, as
            :func:`poyo_ssl.tuning_curves` gives them; at least two labels.
        period: 360 where labels are directions, 180 where they are orientations, in degrees; None
            where they are no angles.

    Returns:
        A row for every unit: ``preferred`` label, ``sparseness`` and, of angles, the others. NaN
        where a unit has no response, or a label that an index needs was not shown.

    References:
        Mazurek, Kagan and Van Hooser (2014), Frontiers in Neural Circuits 8:92 (all indices of
        angles); Niell and Stryker (2008), J. Neurosci. 28:7520 (ratios); Vinje and Gallant (2000),
        Science 287:1273 (sparseness).
    """
    responses = np.clip(curves.to_numpy(dtype=float), 0, None)
    labels = curves.index.to_numpy()
    best = responses.argmax(axis=0)
    preferred = pd.Series(labels[best]).where(responses.max(axis=0) > 0).to_numpy()
    table = {"preferred": preferred, "sparseness": _sparseness(responses)}
    if period in (_CIRCLE, _HALF_CIRCLE):
        angles = labels.astype(float)
        largest = responses.max(axis=0)
        sides = [_at(responses, angles, angles[best] + side, period) for side in (90, -90)]
        table["osi"] = _contrast(largest, np.mean(sides, axis=0))
        table["global_osi"] = _vector_length(responses, 2 * np.deg2rad(angles))
        if period == _CIRCLE:
            opposite = _at(responses, angles, angles[best] + 180, period)
            table["dsi"] = _contrast(largest, opposite)
            table["global_dsi"] = _vector_length(responses, np.deg2rad(angles))
    return pd.DataFrame(table, index=curves.columns)


def _sparseness(responses: np.ndarray) -> np.ndarray:
    num = len(responses)
    with np.errstate(invalid="ignore", divide="ignore"):
        evenness = responses.mean(axis=0) ** 2 / np.square(responses).mean(axis=0)
    result: np.ndarray = (1 - evenness) / (1 - 1 / num)
    return result


def _contrast(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        result: np.ndarray = (one - other) / (one + other)
    return result


def _vector_length(responses: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Length of the mean of unit vectors at angles (radians, (num_labels,)), by response."""
    with np.errstate(invalid="ignore", divide="ignore"):
        result: np.ndarray = np.abs(np.exp(1j * angles) @ responses) / responses.sum(axis=0)
    return result


def _at(responses: np.ndarray, angles: np.ndarray, wanted: np.ndarray, period: float) -> np.ndarray:
    """Response of every unit to an angle of its own, (num_units,); NaN where it was not shown."""
    apart = np.abs((angles[:, None] - wanted + period / 2) % period - period / 2)
    nearest = apart.argmin(axis=0)
    units = np.arange(responses.shape[1])
    return np.where(apart[nearest, units] < _SAME_ANGLE, responses[nearest, units], np.nan)
