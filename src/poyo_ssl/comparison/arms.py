"""The arms of a comparison: every way a task can be answered, fitted on the same windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import numpy as np

from poyo_ssl.decoders.class_scores import LabelScores
from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.decoders.frame_decoders import (
    AlignedFrame,
    FrameFilter,
    FramePosterior,
    NearestFrame,
)
from poyo_ssl.decoders.linear import LinearReadout
from poyo_ssl.decoders.reference_decoders import (
    LabelReadout,
    MeanFrame,
    PixelReadout,
    ValueReadout,
)
from poyo_ssl.decoders.value_decoders import KernelReadout, fit_kernel_ridge, fit_value_ridge
from poyo_ssl.finetuning.answering import PictureTeacher
from poyo_ssl.finetuning.condition_choice import condition_posterior
from poyo_ssl.finetuning.finetune import finetune
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.finetuning.teacher_choice import AnyTeacher, choose_blend
from poyo_ssl.finetuning.teachers import (
    NUM_BINS,
    TEACHERS,
    aligned,
    aligned_ridge,
    aligned_templates,
    frame_templates,
    logistic_readout,
    picture_teacher,
    ridge_readout,
    semi_supervised_ridge,
    shuffled_ridge,
    transferred_ridge,
)
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.windows.answers import ANSWERS
from poyo_ssl.windows.tasks import Task, presentation_period


def fit_mean_frame_arm(setting: Setting) -> FittedDecoder:
    """The mean of the pictures shown in training, whatever the activity."""
    targets = [
        setting.training_windows(divided).target
        for divided in setting.population.divided.learning(setting.task)
    ]
    mean = setting.pictures()[np.unique(np.concatenate(targets))].mean(axis=0)
    return MeanFrame(setting.question("mean frame"), mean)


def fit_frame_arm(setting: Setting, *, name: str, kind: type[NearestFrame]) -> FittedDecoder:
    """Look-up of the movie frame that evokes such activity."""
    templates = frame_templates(setting, kind.TEMPLATES)
    return kind(setting.question(name), templates, _pictures_to_show(setting))


def fit_aligned_frame_arm(
    setting: Setting, *, name: str, is_shuffled: bool = False
) -> FittedDecoder:
    """Look-up in what the movie evoked in other animals."""
    templates = aligned_templates(setting, is_shuffled=is_shuffled)
    return AlignedFrame(setting.question(name), templates, _pictures_to_show(setting))


def fit_frame_filter_arm(setting: Setting) -> FittedDecoder:
    """Bayesian filter of movie frames: earlier windows tell where the movie was."""
    templates = frame_templates(setting, FrameFilter.TEMPLATES)
    recording = setting.population.divided.learning(setting.task)[0].recording
    period = presentation_period(recording, setting.task)
    decoder = FrameFilter(
        setting.question("frame filter"),
        templates,
        _pictures_to_show(setting),
        pace=1 / (period * recording.sampling_rate),
    )
    return decoder


def _pictures_to_show(setting: Setting) -> np.ndarray | None:
    return setting.pictures() if setting.task.answer.needs_pictures else None


def fit_ridge_to_pixels_arm(setting: Setting) -> FittedDecoder:
    """Ridge to the principal components of the training pictures."""
    pixels = picture_teacher(setting).pixels
    return PixelReadout(setting.question("ridge to pixels"), pixels)


def fit_value_ridge_arm(setting: Setting) -> FittedDecoder:
    """Ridge of a number on the mean activity of the window."""
    readouts = []
    for divided in setting.population.divided.learning(setting.task):
        windows = setting.training_windows(divided)
        features = setting.features(divided, windows, 1)
        readouts.append(fit_value_ridge(features, windows.target, setting.unit_ids(divided)))
    return ValueReadout(setting.question("ridge"), LinearReadout.merge(readouts))


def fit_kernel_ridge_arm(setting: Setting) -> FittedDecoder:
    """Ridge of a number with a Gaussian kernel on the mean activity of the window."""
    models = []
    for divided in setting.population.divided.learning(setting.task):
        windows = setting.training_windows(divided)
        features = setting.features(divided, windows, 1)
        models.append(fit_kernel_ridge(features, windows.target, setting.unit_ids(divided)))
    return KernelReadout(setting.question("kernel ridge"), models)


def fit_ridge_of_any_arm(setting: Setting) -> FittedDecoder:
    """Ridge on the mean activity of the window, to one-hot labels or to a number."""
    if not setting.task.answer.has_budget:
        return fit_value_ridge_arm(setting)
    return fit_closed_form_arm(
        setting, name="ridge", fit_readout=partial(ridge_readout, num_bins=1)
    )


def fit_closed_form_arm(
    setting: Setting, *, name: str, fit_readout: Callable[[Setting], LabelScores]
) -> FittedDecoder:
    """What scores labels in closed form."""
    return LabelReadout(setting.question(name), fit_readout(setting))


def fit_network_arm(
    setting: Setting, *, name: str, is_pretrained: bool = False, teacher: str | None = None
) -> FittedDecoder:
    """The network from fresh weights or the pretrained encoder, on labels alone or with a teacher.

    With a teacher, label tasks learn from labels and from its answers, and the network is added
    to it; image tasks correct its pictures.
    """
    assert not is_pretrained or setting.pretrained is not None
    encoder = setting.pretrained() if is_pretrained and setting.pretrained else setting.encoder
    if teacher is None:
        return fit_network(setting, name, encoder)
    fitted = TEACHERS[teacher].fit(setting)
    if TEACHERS[teacher].is_weighed and not isinstance(fitted, PictureTeacher):
        blend = choose_blend(TEACHERS[teacher].fit, setting, encoder)
        config = setting.config
        config = replace(config, teacher=replace(config.teacher, blend=blend))
        setting = replace(setting, config=config)
    return fit_network(setting, name, encoder, fitted)


def fit_network(
    setting: Setting,
    arm: str,
    encoder: Encoder | EncoderConfig,
    teacher: AnyTeacher | None = None,
) -> FittedDecoder:
    """Fine-tunes a network in the given setting."""
    return finetune(
        setting.population,
        setting.task,
        encoder,
        setting.config,
        arm=arm,
        seed=setting.seed,
        labels=setting.labels,
        teacher=teacher,
    )


@dataclass(frozen=True)
class Arm:
    """A way to answer tasks of some kinds."""

    fit: Callable[[Setting], FittedDecoder]
    kinds: tuple[str, ...]
    """Kinds of task that it can answer."""
    is_reference: bool = True
    is_seeded: bool = True
    """Whether the result depends on the seed with all labels; if not it is fitted once."""
    needs_tuning: bool = False
    """Whether it learns how the cells were tuned on an earlier day."""
    needs_alignment: bool = False
    """Whether it learns from other animals that saw a stimulus which the decoded ones saw, too."""


def network_arm(name: str, *, is_pretrained: bool = False, teacher: str | None = None) -> Arm:
    """The arm of a network.

    Args:
        name: In results.
        is_pretrained: Whether it begins with the setting's pretrained encoder.
        teacher: A name of :data:`TEACHERS`; None learns from labels alone.
    """
    return Arm(
        partial(fit_network_arm, name=name, is_pretrained=is_pretrained, teacher=teacher),
        TEACHERS[teacher].kinds if teacher else tuple(ANSWERS),
        is_reference=False,
        needs_tuning=teacher is not None and TEACHERS[teacher].needs_tuning,
        needs_alignment=teacher is not None and TEACHERS[teacher].needs_alignment,
    )


_CLOSED_FORMS: dict[str, tuple[Callable[[Setting], LabelScores], dict[str, bool]]] = {
    "ridge, time bins": (partial(ridge_readout, num_bins=NUM_BINS), {"is_seeded": False}),
    "ridge, semi-supervised": (semi_supervised_ridge, {"is_seeded": False}),
    "ridge, transferred": (transferred_ridge, {"is_seeded": False, "needs_tuning": True}),
    "ridge, transferred, shuffled": (shuffled_ridge, {"needs_tuning": True}),
    "aligned": (aligned, {"is_seeded": False, "needs_alignment": True}),
    "aligned, shuffled": (partial(aligned, is_shuffled=True), {"needs_alignment": True}),
    "ridge, aligned": (aligned_ridge, {"is_seeded": False, "needs_alignment": True}),
    "ridge, aligned, shuffled": (
        partial(aligned_ridge, is_shuffled=True), {"needs_alignment": True}
    ),
    "logistic": (logistic_readout, {}),
    "condition posterior": (condition_posterior, {"is_seeded": False}),
}  # fmt: skip
"""Name to what fits a closed form of labels, and options of its arm."""


ARMS = {
    "ridge": Arm(fit_ridge_of_any_arm, ("labels", "values"), is_seeded=False),
    "kernel ridge": Arm(fit_kernel_ridge_arm, ("values",), is_seeded=False),
    **{
        name: Arm(
            partial(fit_closed_form_arm, name=name, fit_readout=fit_readout), ("labels",), **options
        )
        for name, (fit_readout, options) in _CLOSED_FORMS.items()
    },
    "mean frame": Arm(fit_mean_frame_arm, ("images",), is_seeded=False),
    **{
        name: Arm(
            partial(fit_frame_arm, name=name, kind=kind), ("frames", "images"), is_seeded=False
        )
        for name, kind in (("nearest frame", NearestFrame), ("frame posterior", FramePosterior))
    },
    **{
        name: Arm(
            partial(fit_aligned_frame_arm, name=name, is_shuffled=is_shuffled),
            ("frames", "images"),
            is_seeded=is_shuffled,
            needs_alignment=True,
        )
        for name, is_shuffled in (("aligned frame", False), ("aligned frame, shuffled", True))
    },
    "frame filter": Arm(fit_frame_filter_arm, ("frames", "images"), is_seeded=False),
    "ridge to pixels": Arm(fit_ridge_to_pixels_arm, ("images",), is_seeded=False),
    "scratch": network_arm("scratch"),
    "scratch + teacher": network_arm("scratch + teacher", teacher="ridge"),
    **{
        name: network_arm(name, teacher=teacher)
        for teacher in TEACHERS
        if (name := f"scratch + {teacher} teacher") != "scratch + ridge teacher"
    },
}
"""Arms that need no pretraining; :func:`network_arm` makes the others."""


def arms_for(
    task: Task,
    wanted: tuple[str, ...],
    arms: Mapping[str, Arm] = MappingProxyType(ARMS),
    *,
    has_tuning: bool = False,
    has_alignment: bool = False,
) -> list[str]:
    """The arms that can answer a task: every reference decoder, and the wanted networks.

    Args:
        task: What is asked.
        wanted: Names of networks.
        arms: Every arm there is.
        has_tuning: Whether an earlier day shows how the cells are tuned to what the task asks.
        has_alignment: Whether other animals saw a stimulus that the decoded ones saw, too.

    Raises:
        ValueError: If a wanted arm does not exist.
    """
    unknown = [name for name in wanted if name not in arms]
    if unknown:
        raise ValueError(f"Unknown arms {unknown}. Choose from: {', '.join(arms)}.")
    return [
        name
        for name, arm in arms.items()
        if task.kind in arm.kinds
        and (arm.is_reference or name in wanted)
        and (has_tuning or not arm.needs_tuning)
        and (has_alignment or not arm.needs_alignment)
    ]
