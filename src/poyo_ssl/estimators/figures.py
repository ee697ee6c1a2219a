"""Latents and tuning at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_consistent_length

COLORS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999933", "#333333",
)  # fmt: skip
"""Okabe & Ito's palette, which readers with colour-blindness can tell apart; olive for yellow."""
MARKERS = "o^sDvP*X"
"""Beside the colours, so that as many labels again can be told apart."""


class Projection(Protocol):
    """What brings latents into the plane, such as PCA or ``umap.UMAP``."""

    def fit_transform(self, X: np.ndarray) -> np.ndarray:
        """(n_trials, n_latents) -> (n_trials, 2)."""
        ...


def plot_latents(
    latents: np.ndarray,
    labels: Sequence[Any] | np.ndarray,
    *,
    projection: Projection | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Draws latents of trials in the plane, coloured by label.

    Args:
        latents: (n_trials, n_latents), such as ``PoyoEncoder.transform`` gives.
        labels: One for every trial; up to 16 different ones are drawn as labels, more as numbers.
        projection: What brings them into the plane, such as ``umap.UMAP()``; None: PCA.
        axes: Where to draw; None: a new figure, ``axes.figure``.

    Raises:
        ValueError: If there are not as many labels as trials.
    """
    latents, labels = np.asarray(latents), np.asarray(labels)
    check_consistent_length(latents, labels)
    if axes is None:
        axes = Figure(figsize=(5.4, 4.2), layout="constrained", dpi=150).add_subplot()
    method = PCA(n_components=2) if projection is None else projection
    x, y = method.fit_transform(latents.reshape(len(latents), -1)).T
    classes = np.unique(labels)
    if len(classes) <= 2 * len(COLORS):
        for index, label in enumerate(classes):
            axes.scatter(
                x[labels == label],
                y[labels == label],
                s=16,
                color=COLORS[index % len(COLORS)],
                marker=MARKERS[index % len(MARKERS)],
                edgecolors="none" if index < len(COLORS) else "black",
                linewidths=0.6,
                label=f"{label:g}" if isinstance(label, np.floating) else str(label),
            )
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    else:
        drawn = axes.scatter(x, y, s=16, c=labels.astype(float), cmap="viridis")
        axes.figure.colorbar(drawn, ax=axes)
    axes.set_xlabel(f"{type(method).__name__} 1")
    axes.set_ylabel(f"{type(method).__name__} 2")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def tuning_curves(
    X: np.ndarray, y: Sequence[Any] | np.ndarray, unit_ids: Sequence[str] | None = None
) -> pd.DataFrame:
    """Mean activity of every unit over the trials of every label.

    ``tuning_curves(X, y).plot()`` draws it.

    Args:
        X: ΔF/F, (n_trials, n_timesteps, n_units), or (n_trials, n_units).
        y: Label of every trial, (n_trials,).
        unit_ids: Names of the columns, (n_units,); None: 0, 1, ...

    Returns:
        A row for every label, sorted, and a column for every unit.

    Raises:
        ValueError: If the arrays do not fit together.
    """
    X = np.asarray(X)
    if X.ndim not in (2, 3):
        raise ValueError(
            f"X must have shape (n_trials, n_timesteps, n_units) or (n_trials, n_units), got "
            f"{X.shape}."
        )
    check_consistent_length(X, y)
    responses = X.mean(axis=1) if X.ndim == 3 else X
    columns = pd.Index(range(X.shape[-1]) if unit_ids is None else unit_ids, name="unit")
    return pd.DataFrame(responses, columns=columns).groupby(pd.Index(y, name="label")).mean()
