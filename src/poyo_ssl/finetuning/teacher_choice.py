"""Which closed-form decoder a network learns from: the one that tells left-out trials best."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import log_softmax

from poyo_ssl.decoders.linear import LinearReadout
from poyo_ssl.finetuning.setting import Setting

MAX_FOLDS = 5
"""Parts that labelled windows are left out in; fewer where a class has fewer windows."""
SHARPNESSES = np.logspace(-1, 2, 31)
"""Factors from scores to log-probabilities that are tried."""

Candidates = Mapping[str, Callable[[Setting], LinearReadout]]
"""Name to what fits a linear decoder on the labels of a setting; the first is taken where there
are too few of them to choose by."""


def choose_teacher(candidates: Candidates, setting: Setting) -> LinearReadout:
    """The decoder under which left-out training labels are likeliest, fitted on all of them.

    Its scores are scaled so that a softmax over the temperature of the setting's teacher gives the
    probabilities that were right for left-out windows.

    Args:
        candidates: What is chosen from.
        setting: Recordings, task and labels; its test windows are not looked at.
    """
    num_folds = min(MAX_FOLDS, _smallest_class(setting))
    if num_folds < 2:
        return next(iter(candidates.values()))(setting)
    tried = {name: _try_out(fit, setting, num_folds) for name, fit in candidates.items()}
    best = max(tried, key=lambda name: tried[name][0])
    _, sharpness = tried[best]
    return candidates[best](setting).scaled(sharpness * setting.config.teacher.temperature)


def _try_out(
    fit: Callable[[Setting], LinearReadout], setting: Setting, num_folds: int
) -> tuple[float, float]:
    """Mean log-likelihood of left-out labels, and the sharpness at which it is largest."""
    scores, targets = [], []
    for without in setting.leaving_out(num_folds):
        readout = fit(without)
        for divided in setting.population.divided.learning(setting.task):
            windows = without.left_out_windows(divided)
            features = setting.features(divided, windows, readout.num_bins)
            scores.append(readout.scores(features, setting.unit_ids(divided)))
            targets.append(windows.target)
    told, shown = np.concatenate(scores), np.concatenate(targets)[:, None]
    likelihoods = [
        np.take_along_axis(log_softmax(sharpness * told, axis=1), shown, axis=1).mean()
        for sharpness in SHARPNESSES
    ]
    best = int(np.argmax(likelihoods))
    return float(likelihoods[best]), float(SHARPNESSES[best])


def _smallest_class(setting: Setting) -> int:
    """Labelled windows of the rarest class that a recording shows."""
    return min(
        int(np.unique(setting.training_windows(divided).target, return_counts=True)[1].min())
        for divided in setting.population.divided.learning(setting.task)
    )
