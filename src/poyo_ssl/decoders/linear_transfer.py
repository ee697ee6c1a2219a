"""Linear decoders that learn from more than their own labels: unlabelled activity, earlier days.

With one or a few labelled trials per class, most of what ridge regression needs to know lies
elsewhere. Unlabelled activity tells which fluctuation all cells share, so that a decoder can be
blind to it. Another day of the same cells tells how each is tuned, so that a decoder can start
from that tuning instead of from zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge, RidgeCV

from poyo_ssl.decoders.linear import ALPHAS, LinearReadout, choose_penalty
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.divide import DividedRecording
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.principal_modes import PrincipalModes
from poyo_ssl.windows.tasks import Task

HARMONICS = (2, 4)
"""Multiples of a grating's angle whose cosine and sine describe orientation tuning."""
ANGLE = "orientation"
"""Column of gratings that holds the angle shown, in degrees."""
SAME_STIMULUS = "spatial_frequency"
"""Column of gratings that must agree between days: tuning to orientation depends on it."""


def without_shared_mode(features: np.ndarray, modes: PrincipalModes) -> np.ndarray:
    """Centred features without the first mode, which all units share; (num_windows, num_units)."""
    centred = features - modes.mean
    shared = modes.loadings[:, 0]
    result: np.ndarray = centred - np.outer(centred @ shared, shared)
    return result


def fit_semi_supervised_ridge(
    features: np.ndarray,
    target: np.ndarray,
    num_classes: int,
    unit_ids: list[str],
    modes: PrincipalModes,
    prior: np.ndarray | None = None,
) -> LinearReadout:
    """Ridge to one-hot labels that is blind to the mode all units share, and may start elsewhere.

    ``minimise |Y - X W|^2 + alpha |W - s W0|^2`` over weights ``W`` that are orthogonal to the
    first mode, with ``s`` the one factor by which the prior fits the labels best. Both are
    one ridge regression of what the scaled prior leaves unexplained.

    Args:
        features: Mean activity in labelled windows, (num_windows, num_units).
        target: Class of each window, (num_windows,).
        num_classes: Classes in all.
        unit_ids: Units of the features.
        modes: Modes of unlabelled windows of the training part.
        prior: Weights ``W0`` known before, (num_units, num_classes); None for zero.
    """
    centred = without_shared_mode(features, modes)
    wanted = np.eye(num_classes)[target] - 1 / num_classes
    start = np.zeros((centred.shape[1], num_classes))
    if prior is not None:
        shared = modes.loadings[:, 0]
        start = prior - np.outer(shared, shared @ prior)
        predicted = centred @ start
        start = (
            start * np.vdot(predicted, wanted) / max(float(np.vdot(predicted, predicted)), 1e-12)
        )
    alpha = choose_penalty(centred, target)
    model = Ridge(alpha=alpha, fit_intercept=False).fit(centred, wanted - centred @ start)
    # the penalty keeps the weights in the span of the features, so they are blind to the mode
    return LinearReadout.from_coefficients(
        model.coef_ + start.T, np.full(num_classes, 1 / num_classes), modes.mean, unit_ids
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class OrientationTuning:
    """How cells were tuned to the angle of gratings on other days: linear weights.

    ``activity @ weights`` estimates ``[cos 2a, sin 2a, cos 4a, sin 4a]`` of the angle ``a``. Static
    gratings have no direction, so this is all they can tell about drifting ones.
    """

    unit_ids: list[str]
    weights: np.ndarray
    """(num_units, 4)."""

    def to_classes(self, classes: np.ndarray, unit_ids: list[str]) -> np.ndarray:
        """Weights that score every angle of another task, for other units.

        Args:
            classes: Angles in degrees, (num_classes,).
            unit_ids: Units of the other recording; those that were not seen get zero.

        Returns:
            (num_units, num_classes): the least-squares expansion of one-hot classes in harmonics.
        """
        expansion = np.linalg.pinv(harmonics(classes))  # (4, num_classes)
        row = {unit_id: i for i, unit_id in enumerate(self.unit_ids)}
        known = [i for i, unit_id in enumerate(unit_ids) if unit_id in row]
        weights = np.zeros((len(unit_ids), len(classes)))
        weights[known] = self.weights[[row[unit_ids[i]] for i in known]] @ expansion
        return weights

    def shuffled(self, seed: int) -> OrientationTuning:
        """The same weights at other cells: the control for whether the cells carry them."""
        order = np.random.default_rng([seed, 0x5F1E]).permutation(len(self.unit_ids))
        return replace(self, weights=self.weights[order])


def harmonics(angles: np.ndarray) -> np.ndarray:
    """Cosine and sine of multiples of angles in degrees, (num_angles, 4)."""
    radians = np.deg2rad(angles)
    return np.stack([f(k * radians) for k in HARMONICS for f in (np.cos, np.sin)], axis=1)


def fit_orientation_tuning(
    earlier: Sequence[DividedRecording], task: Task, later: Population
) -> OrientationTuning:
    """Learns from labelled training trials of other days how tracked cells are tuned.

    Only cells of the later population are used. Where both days' gratings have a spatial
    frequency, only presentations of one that the later day shows, too, are learned from.

    Args:
        earlier: Other recordings, divided for at least one task about angles of gratings.
        task: What will be asked on the later day.
        later: The units and recordings of the later day.

    Raises:
        RecordingError: If no other recording shows gratings to cells of the later population.
    """
    shown = [d.recording.stimulus(task.stimulus) for d in later.divided.answering(task)]
    wanted = set(later.unit_ids)
    fitted = []
    for divided in earlier:
        shared = [str(unit_id) for unit_id in divided.recording.unit_ids if unit_id in wanted]
        for asked in divided.tasks.values():
            if shared and asked.column == ANGLE:
                fitted.append(_fit_tuning(divided, asked, shared, shown))
    if not fitted:
        found = ", ".join(f"'{d.recording.recording_id}'" for d in earlier) or "none given"
        raise RecordingError(
            f"No earlier recording ({found}) shows gratings to any of the {len(wanted)} cells that "
            "are to be decoded. Give recordings of the same cells to pretrain on, or leave out the "
            "arms that learn from an earlier day."
        )
    unit_ids = list(dict.fromkeys(unit_id for tuning in fitted for unit_id in tuning.unit_ids))
    stacked = pd.concat([pd.DataFrame(t.weights, index=t.unit_ids) for t in fitted])
    weights = stacked.groupby(level=0, sort=False).mean().loc[unit_ids].to_numpy()
    return OrientationTuning(unit_ids=unit_ids, weights=weights)


def shows_tuning(earlier: Sequence[DividedRecording], task: Task, unit_ids: list[str]) -> bool:
    """Whether other recordings show gratings to some of the cells, and a task asks for an angle."""
    return task.column == ANGLE and any(
        asked.column == ANGLE and np.isin(divided.recording.unit_ids, unit_ids).any()
        for divided in earlier
        for asked in divided.tasks.values()
    )


def _fit_tuning(
    divided: DividedRecording, task: Task, unit_ids: list[str], shown_later: list[pd.DataFrame]
) -> OrientationTuning:
    """Ridge from the mean activity of cells to the harmonics of the angle shown."""
    only = _only_alike(divided.recording, task, shown_later)
    alike = replace(divided, recording=only)
    recording_id = alike.recording.recording_id
    population = Population([alike], {recording_id: unit_ids})
    num_timesteps = max(1, round(task.length * population.sampling_rate))
    windows = population.divided.windows(alike, task, "train", num_timesteps)
    activity = population.activity[recording_id]
    features = activity.binned(windows.first_timestep, num_timesteps, 1)
    angles = population.divided.classes(task)[windows.target]
    model = RidgeCV(alphas=ALPHAS).fit(features - features.mean(axis=0), harmonics(angles))
    return OrientationTuning(unit_ids=activity.unit_ids, weights=model.coef_.T)


def _only_alike(recording: Recording, task: Task, shown_later: list[pd.DataFrame]) -> Recording:
    """The recording with only gratings of a spatial frequency that the later day shows, too."""
    table = recording.stimulus(task.stimulus)
    if any(SAME_STIMULUS not in t for t in [table, *shown_later]):
        return recording
    is_alike = table[SAME_STIMULUS].isin(pd.concat(shown_later)[SAME_STIMULUS].dropna())
    if not is_alike.any():
        return recording
    alike = table[is_alike].reset_index(drop=True)
    return replace(recording, stimuli={**recording.stimuli, task.stimulus: alike})
