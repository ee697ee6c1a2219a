"""Closed-form decoders to learn from, fitted on the labels of a setting, per recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from poyo_ssl.alignment.responses import SharedStimulus
from poyo_ssl.alignment.shared_response import Loadings
from poyo_ssl.decoders.aligned import (
    InSharedSpace,
    find_shared_stimulus,
    fit_aligned_decoder,
    fit_aligned_templates,
    fit_ridge_towards,
)
from poyo_ssl.decoders.class_scores import LabelScores
from poyo_ssl.decoders.frame_templates import (
    FrameTemplates,
    Kind,
    Showings,
)
from poyo_ssl.decoders.linear import (
    LinearReadout,
    fit_logistic,
    fit_ridge,
    leave_one_out_error,
)
from poyo_ssl.decoders.linear_transfer import (
    OrientationTuning,
    fit_orientation_tuning,
    fit_semi_supervised_ridge,
)
from poyo_ssl.decoders.movie_reference import find_components, fit_ridge_to_pixels
from poyo_ssl.decoders.placed_templates import PlacedTemplates
from poyo_ssl.decoders.template_choice import fit_templates, merit_of
from poyo_ssl.finetuning.answering import PictureTeacher
from poyo_ssl.finetuning.condition_choice import condition_posterior
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.finetuning.teacher_choice import AnyTeacher, choose_teacher
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.divide import Divided, DividedRecording
from poyo_ssl.windows.principal_modes import PrincipalModes
from poyo_ssl.windows.task_windows import find_any_windows
from poyo_ssl.windows.tasks import Task, presentation_period

NUM_BINS = 5
"""Time bins of the reference decoders that resolve the response in time."""
FEW_BINS = 3
"""Time bins that are tried, too, where a teacher is chosen."""

BINS_MAY_COST = 1.02
"""Leave-one-out error of time bins relative to the mean activity up to which a teacher uses them:
at a tie the response in time is worth having, with few labels it costs 5 to 20 % (measured)."""
WINDOWS_PER_LENGTH = 20
"""Unlabelled windows looked at for each length of a window; nearer ones are nearly the same."""


def ridge_readout(setting: Setting, num_bins: int) -> LinearReadout:
    """Ridge to one-hot labels, fitted per recording and merged; of no more bins than samples."""
    num_bins = setting.num_bins(num_bins)
    num_classes = len(setting.population.divided.classes(setting.task))

    def fit(divided: DividedRecording) -> LinearReadout:
        windows = setting.training_windows(divided)
        features = setting.features(divided, windows, num_bins)
        return fit_ridge(features, windows.target, num_classes, setting.unit_ids(divided))

    return _fit_each(setting, fit)


def logistic_readout(setting: Setting) -> LinearReadout:
    """Multinomial logistic regression on the mean activity, fitted per recording and merged."""
    num_classes = len(setting.population.divided.classes(setting.task))

    def fit(divided: DividedRecording) -> LinearReadout:
        windows, unit_ids = setting.training_windows(divided), setting.unit_ids(divided)
        features = setting.features(divided, windows, 1)
        return fit_logistic(features, windows.target, num_classes, unit_ids, setting.seed)

    return _fit_each(setting, fit)


def _fit_each(setting: Setting, fit: Callable[[DividedRecording], LinearReadout]) -> LinearReadout:
    """One decoder of those of all recordings that are learned from."""
    return LinearReadout.merge(
        [fit(divided) for divided in setting.population.divided.learning(setting.task)]
    )


def label_teacher(setting: Setting) -> LinearReadout:
    """The ridge to learn from: time bins where the labels suffice for them, else the mean.

    Time bins are taken when their leave-one-out error on the training windows, averaged over
    recordings, is at most ``BINS_MAY_COST`` times that of the mean activity.
    """
    most = setting.num_bins(NUM_BINS)
    errors = dict.fromkeys((1, most), 0.0)
    for divided in setting.population.divided.learning(setting.task):
        windows = setting.training_windows(divided)
        for num_bins in errors:
            features = setting.features(divided, windows, num_bins)
            errors[num_bins] += leave_one_out_error(features, windows.target)
    suffices = errors[most] <= BINS_MAY_COST * errors[1]
    return ridge_readout(setting, most if suffices else 1)


def picture_teacher(setting: Setting) -> PictureTeacher:
    """Ridge to the principal components of the training pictures, fitted per recording."""
    population, task = setting.population, setting.task
    pictures = setting.pictures()
    windows = {
        d.recording.recording_id: setting.training_windows(d)
        for d in population.divided.learning(task)
    }
    components = find_components(pictures, np.concatenate([w.target for w in windows.values()]))
    num_bins = setting.num_bins(NUM_BINS)
    fitted, scores = [], {}
    for divided in population.divided.learning(task):
        name = divided.recording.recording_id
        valid = population.divided.windows(divided, task, "valid", setting.num_timesteps)
        pixels, scores[name] = fit_ridge_to_pixels(
            setting.features(divided, windows[name], num_bins),
            windows[name].target,
            setting.features(divided, valid, num_bins),
            valid.target,
            pictures,
            components,
            setting.unit_ids(divided),
        )
        fitted.append(pixels)
    merged = LinearReadout.merge([pixels.readout for pixels in fitted])
    return PictureTeacher(pixels=replace(fitted[0], readout=merged), training_scores=scores)


def ridge_teacher(setting: Setting) -> LinearReadout | PictureTeacher:
    """Ridge on the labels of the setting, to the pictures in image tasks."""
    return (picture_teacher if setting.task.answer.needs_pictures else label_teacher)(setting)


def frame_templates(setting: Setting, kind: type[Kind]) -> Kind:
    """Activity that every movie frame evokes, fitted per recording and merged.

    Args:
        setting: Of a task about movie frames or pictures.
        kind: What else is known about it.
    """
    population, task = setting.population, setting.task

    def showings(num_bins: int) -> list[Showings]:
        found = []
        for divided in population.divided.learning(task):
            windows = setting.training_windows(divided)
            found.append(
                Showings(
                    features=setting.features(divided, windows, num_bins),
                    movie_frame=windows.target,
                    unit_ids=setting.unit_ids(divided),
                    frame_period=presentation_period(divided.recording, task),
                )
            )
        return found

    num_frames = len(population.divided.classes(task))
    return fit_templates(kind, showings, num_frames, merit_of(task), max_bins=setting.num_timesteps)


def look_up_teacher(setting: Setting) -> FrameTemplates:
    """The look-up of movie frames."""
    return frame_templates(setting, FrameTemplates)


def semi_supervised_ridge(setting: Setting) -> LinearReadout:
    """Ridge that is blind to what all units share, which unlabelled windows tell."""
    return _fit_with_prior(setting, None)


def transferred_ridge(setting: Setting) -> LinearReadout:
    """The same, starting from how the cells were tuned on an earlier day."""
    return _fit_with_prior(setting, _earlier_tuning(setting))


def shuffled_ridge(setting: Setting) -> LinearReadout:
    """The same with the tuning of other cells, drawn by the seed: its control."""
    return _fit_with_prior(setting, _earlier_tuning(setting).shuffled(setting.seed))


def aligned(setting: Setting, *, is_shuffled: bool = False) -> LinearReadout:
    """What other animals' labels say of cells that are placed by a shared stimulus; no own label.

    Shuffled, every cell answers for another of its recording: the control for whether it is the
    cells that carry what was learned.
    """
    decoder = fit_aligned_decoder(*_others(setting))
    return _fit_each(setting, lambda d: decoder.readout(_place(setting, decoder, d, is_shuffled)))


def aligned_templates(setting: Setting, *, is_shuffled: bool = False) -> PlacedTemplates:
    """The same of movies: a look-up in what the movie evoked in other animals."""
    others = fit_aligned_templates(*_others(setting))
    return PlacedTemplates.merge(
        [
            others.readout(_place(setting, others, divided, is_shuffled))
            for divided in setting.population.divided.learning(setting.task)
        ]
    )


def aligned_ridge(setting: Setting, *, is_shuffled: bool = False) -> LinearReadout:
    """Ridge on own labels that is shrunk towards what :func:`aligned` says."""
    decoder = fit_aligned_decoder(*_others(setting))

    def fit(divided: DividedRecording) -> LinearReadout:
        windows = setting.training_windows(divided)
        return fit_ridge_towards(
            setting.features(divided, windows, 1),
            windows.target,
            decoder.readout(_place(setting, decoder, divided, is_shuffled)),
            _modes(setting, divided).mean,
        )

    return _fit_each(setting, fit)


def _others(setting: Setting) -> tuple[Divided, Task, np.ndarray, SharedStimulus, float]:
    """Other recordings, what is asked, the possible answers, what all saw, seconds of windows."""
    shared = _shared_stimulus(setting)
    if shared is None:
        raise RecordingError(
            f"None of {len(setting.earlier)} other recordings shows a stimulus of the decoded ones "
            f"and has labels of the task '{setting.task.name}', or only one does. Give recordings "
            "of other animals to pretrain on, or leave out the aligned arms."
        )
    classes = setting.population.divided.classes(setting.task)
    length = setting.num_timesteps / setting.population.sampling_rate
    return setting.earlier, setting.task, classes, shared, length


def _shared_stimulus(setting: Setting) -> SharedStimulus | None:
    """What the decoded recordings are aligned with earlier ones by, where they can be."""
    answering = setting.population.divided.answering(setting.task)
    return find_shared_stimulus(setting.task, answering, setting.earlier)


def _place(
    setting: Setting, decoder: InSharedSpace, divided: DividedRecording, is_shuffled: bool
) -> Loadings:
    loadings = decoder.place(setting.population, divided, setting.task)
    return loadings.shuffled(setting.seed) if is_shuffled else loadings


def _earlier_tuning(setting: Setting) -> OrientationTuning:
    return fit_orientation_tuning(setting.earlier, setting.task, setting.population)


def _fit_with_prior(setting: Setting, tuning: OrientationTuning | None) -> LinearReadout:
    classes = setting.population.divided.classes(setting.task)

    def fit(divided: DividedRecording) -> LinearReadout:
        windows, unit_ids = setting.training_windows(divided), setting.unit_ids(divided)
        return fit_semi_supervised_ridge(
            setting.features(divided, windows, 1),
            windows.target,
            len(classes),
            unit_ids,
            _modes(setting, divided),
            tuning.to_classes(classes, unit_ids) if tuning else None,
        )

    return _fit_each(setting, fit)


def _modes(setting: Setting, divided: DividedRecording) -> PrincipalModes:
    """What the units do together in unlabelled windows of the training part."""
    num_timesteps = setting.num_timesteps
    anywhere = find_any_windows(divided.recording, divided.training, num_timesteps)
    activity = setting.population.activity[divided.recording.recording_id]
    thinned = anywhere[:: max(1, num_timesteps // WINDOWS_PER_LENGTH)]
    return PrincipalModes.measure(activity.binned(thinned, num_timesteps, 1))


def chosen_label_teacher(setting: Setting) -> LabelScores:
    """The best of all closed forms of the same information; see :func:`choose_teacher`."""
    candidates: dict[str, Callable[[Setting], LabelScores]] = {
        "ridge, semi-supervised": semi_supervised_ridge,
        "ridge": partial(ridge_readout, num_bins=1),
        **{
            f"ridge, {num_bins} time bins": partial(ridge_readout, num_bins=num_bins)
            for num_bins in (FEW_BINS, NUM_BINS)
            if num_bins <= setting.num_timesteps
        },
        "logistic": logistic_readout,
        "condition posterior": condition_posterior,
    }
    if _shared_stimulus(setting) is not None:
        candidates = {"ridge, aligned": aligned_ridge, **candidates}
    return choose_teacher(candidates, setting)


CHOSEN: Mapping[str, Callable[[Setting], AnyTeacher]] = {
    "labels": chosen_label_teacher,
    "frames": look_up_teacher,
    "images": picture_teacher,
}
"""Kind of answer to its best teacher; look-ups and ridge to pictures choose within themselves."""


def chosen_teacher(setting: Setting) -> AnyTeacher:
    """The best teacher of any kind of task, chosen on training labels."""
    return CHOSEN[setting.task.kind](setting)


@dataclass(frozen=True)
class Teacher:
    """A closed-form decoder that a network may learn from."""

    fit: Callable[[Setting], AnyTeacher]
    kinds: tuple[str, ...] = ("labels",)
    """Kinds of task that it can answer."""
    needs_tuning: bool = False
    """Whether it learns how the cells were tuned on an earlier day."""
    needs_alignment: bool = False
    """Whether it learns from other animals that saw a stimulus which the decoded ones saw, too."""
    is_weighed: bool = False
    """Whether how much the network counts beside it is chosen, too."""


TEACHERS = {
    "ridge": Teacher(ridge_teacher, ("labels", "images")),
    "semi-supervised": Teacher(semi_supervised_ridge),
    "transferred": Teacher(transferred_ridge, needs_tuning=True),
    "shuffled": Teacher(shuffled_ridge, needs_tuning=True),
    "aligned": Teacher(aligned_ridge, needs_alignment=True),
    "look-up": Teacher(look_up_teacher, ("frames",)),
    "chosen": Teacher(chosen_teacher, tuple(CHOSEN), is_weighed=True),
}
"""Name in ``PretrainingArm.teacher`` to teacher."""
