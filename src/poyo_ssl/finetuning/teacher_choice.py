"""Which closed-form decoder a network learns from, and how much the network counts beside it.

Both are chosen on labelled training windows that are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from scipy.special import log_softmax
from scipy.stats import sem

from poyo_ssl.decoders.class_scores import LabelScores
from poyo_ssl.decoders.frame_templates import FrameTemplates
from poyo_ssl.decoders.network import ClassNetwork, teacher_scores
from poyo_ssl.finetuning.answering import PictureTeacher
from poyo_ssl.finetuning.finetune import finetune
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.model.encoder import Encoder, EncoderConfig

MAX_FOLDS = 5
"""Parts that labelled windows are left out in; fewer where a class has fewer windows."""
SHARPNESSES = np.logspace(-1, 2, 31)
"""Factors from scores to log-probabilities that are tried."""

BLENDS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Weights of the network beside the teacher that are tried."""
CLEARLY = 2.0
"""Standard errors by which another weight must be better than the one that is given."""
FEWEST_FOLDS = 5
"""Labelled windows of a class below which the weight is not chosen."""

AnyTeacher = LabelScores | FrameTemplates | PictureTeacher
Candidates = Mapping[str, Callable[[Setting], LabelScores]]
"""Name to what fits a closed form on the labels of a setting; the first is taken where there
are too few of them to choose by."""


def choose_teacher(candidates: Candidates, setting: Setting) -> LabelScores:
    """The decoder under which left-out training labels are likeliest, fitted on all of them.

    Its scores are scaled so that a softmax over the temperature of the setting's teacher gives the
    probabilities that were right for left-out windows.

    Args:
        candidates: What is chosen from.
        setting: Recordings, task and labels; its test windows are not looked at.
    """
    num_folds = min(MAX_FOLDS, smallest_class(setting))
    if num_folds < 2:
        return next(iter(candidates.values()))(setting)
    tried = {name: _try_out(fit, setting, num_folds) for name, fit in candidates.items()}
    best = max(tried, key=lambda name: tried[name][0])
    _, sharpness = tried[best]
    return candidates[best](setting).scaled(sharpness * setting.config.teacher.temperature)


def _try_out(
    fit: Callable[[Setting], LabelScores], setting: Setting, num_folds: int
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
    likelihoods, sharpness = likeliest(np.concatenate(scores), np.concatenate(targets))
    return float(likelihoods.mean()), sharpness


def likeliest(scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Log-likelihoods of classes, (n,), at the best sharpness of scores, (n, K), and that."""
    shown = target[:, None]
    likelihoods = [
        np.take_along_axis(log_softmax(sharpness * scores, axis=1), shown, axis=1)[:, 0]
        for sharpness in SHARPNESSES
    ]
    best = int(np.argmax([values.mean() for values in likelihoods]))
    return likelihoods[best], float(SHARPNESSES[best])


def choose_blend(
    fit_teacher: Callable[[Setting], AnyTeacher], setting: Setting, start: Encoder | EncoderConfig
) -> float:
    """How much networks count beside a teacher: what makes left-out labels clearly likelier.

    One network and the teacher learn from all but one part of the labelled windows and answer that
    part together. Few windows do not tell weights apart: the one that is given stays unless another
    is better by more than ``CLEARLY`` standard errors.

    Args:
        fit_teacher: Fits the teacher on the labels of a setting.
        setting: Recordings, task and labels; its test windows are not looked at.
        start: What networks start from.

    Returns:
        The standard deviation of the networks' scores relative to the teacher's; that of the
        setting where nothing is clearly better, or a class has too few windows to leave some out.
    """
    num_folds = min(MAX_FOLDS, smallest_class(setting))
    if num_folds < FEWEST_FOLDS:
        return setting.config.teacher.blend
    without = setting.leaving_out(num_folds)[-1]
    decoder = finetune(
        setting.population,
        setting.task,
        start,
        replace(setting.config, members=1),
        seed=setting.seed,
        labels=setting.labels,
        left_out=without.left_out,
        teacher=fit_teacher(without),
    )
    assert isinstance(decoder, ClassNetwork)
    assert decoder.teacher is not None
    taught, learned, targets = [], [], []
    for divided in setting.population.divided.learning(setting.task):
        windows = without.left_out_windows(divided)
        activity = setting.population.activity[divided.recording.recording_id]
        first, num_timesteps = windows.first_timestep, windows.num_timesteps
        taught.append(teacher_scores(decoder.teacher, activity, first, num_timesteps))
        learned.append(decoder.network_scores(activity, first))
        targets.append(windows.target)
    of_teacher = np.concatenate(taught) / decoder.spread[0]
    of_network = np.concatenate(learned) / decoder.spread[1]
    target = np.concatenate(targets)
    return weigh(of_teacher, of_network, target, setting.config.teacher.blend)


def weigh(
    of_teacher: np.ndarray, of_network: np.ndarray, target: np.ndarray, given: float
) -> float:
    """The weight of a network beside its teacher that is clearly better than a given one, or that.

    Args:
        of_teacher: Its scores of left-out windows, (num_windows, num_classes).
        of_network: Those of a network, likewise.
        target: Class of each window, (num_windows,).
        given: Weight that stays where no other is clearly better.
    """
    told = {b: likeliest(of_teacher + b * of_network, target)[0] for b in (*BLENDS, given)}
    best = max(told, key=lambda blend: told[blend].mean())
    gain = told[best] - told[given]
    return best if gain.mean() > CLEARLY * sem(gain) else given


def smallest_class(setting: Setting) -> int:
    """Labelled windows of the rarest class that a recording shows."""
    return min(
        int(np.unique(setting.training_windows(divided).target, return_counts=True)[1].min())
        for divided in setting.population.divided.learning(setting.task)
    )
