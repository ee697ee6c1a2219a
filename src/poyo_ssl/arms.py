"""The arms of a comparison: every way a task can be answered, fitted on the same windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

import numpy as np
import pandas as pd

from poyo_ssl.decoding import (
    DecoderFrame,
    FittedDecoder,
    LabelReadout,
    MeanFrame,
    NearestFrame,
    PixelReadout,
)
from poyo_ssl.finetuning import FinetuningConfig, PictureTeacher, finetune
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.population import DividedRecording, Population
from poyo_ssl.recordings.label_budget import LabelBudget, take_labels
from poyo_ssl.recordings.tasks import Task, TaskWindows
from poyo_ssl.reference import (
    FrameTemplates,
    LinearReadout,
    find_components,
    fit_frame_templates,
    fit_logistic,
    fit_ridge,
    fit_ridge_to_pixels,
    leave_one_out_error,
)

NUM_BINS = 5
"""Time bins of the reference decoders that resolve the response in time."""

BINS_MAY_COST = 1.02
"""Leave-one-out error of time bins relative to the mean activity up to which a teacher uses them:
at a tie the response in time is worth having, with few labels it costs 5 to 20 % (measured)."""

Curves = pd.DataFrame


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """What all arms of a comparison share: same units, same training windows, same test windows."""

    population: Population
    task: Task
    encoder: EncoderConfig
    config: FinetuningConfig
    seed: int
    labels: LabelBudget | float
    """Labelled training windows that may be learned from; a number is a fraction."""
    pretrained: Callable[[], Encoder] | None = None
    """Gives the pretrained encoder, for the arm that needs one."""
    earlier: list[DividedRecording] = field(default_factory=list)
    """Recordings that came before these, to learn from as pretraining does."""

    @property
    def num_timesteps(self) -> int:
        """Imaging samples in a window, the same for every arm."""
        rate = self.population.sampling_rate
        return self.encoder.window_timesteps(self.task.window_length, rate)

    def frame(self, arm: str) -> DecoderFrame:
        """The question as a fitted decoder holds it."""
        return DecoderFrame(
            arm=arm,
            task=self.task,
            classes=self.population.classes(self.task),
            num_timesteps=self.num_timesteps,
            sampling_rate=self.population.sampling_rate,
            scale=self.population.scale,
        )

    def training_windows(self, divided: DividedRecording) -> TaskWindows:
        """The labelled training windows of one recording that the budget leaves."""
        windows = self.population.windows(divided, self.task, "train", self.num_timesteps)
        return windows.take(take_labels(windows.target, self.labels, self.seed))

    def features(
        self, divided: DividedRecording, windows: TaskWindows, num_bins: int
    ) -> np.ndarray:
        """Binned activity of windows, (num_windows, num_bins * num_units)."""
        activity = self.population.activity[divided.recording.recording_id]
        return activity.binned(windows.first_timestep, windows.num_timesteps, num_bins)

    def unit_ids(self, divided: DividedRecording) -> list[str]:
        """Chosen units of a recording in column order."""
        return self.population.activity[divided.recording.recording_id].unit_ids

    def pictures(self) -> np.ndarray:
        """What the task shows, in [0, 1], (num_pictures, 64, 128)."""
        pictures: np.ndarray = self.population.pictures(self.task).numpy()
        return pictures


Fitted = tuple[FittedDecoder, Curves]
NO_CURVES = pd.DataFrame(columns=["step", "metric", "value"])


def ridge_readout(setting: Setting, num_bins: int) -> LinearReadout:
    """Ridge to one-hot labels, fitted per recording and merged."""
    readouts = []
    for divided in setting.population.answering(setting.task):
        windows = setting.training_windows(divided)
        features = setting.features(divided, windows, num_bins)
        num_classes = len(setting.population.classes(setting.task))
        readouts.append(fit_ridge(features, windows.target, num_classes, setting.unit_ids(divided)))
    return LinearReadout.merge(readouts)


def label_teacher(setting: Setting) -> LinearReadout:
    """The ridge to learn from: time bins where the labels suffice for them, else the mean.

    Time bins are taken when their leave-one-out error on the training windows, averaged over
    recordings, is at most ``BINS_MAY_COST`` times that of the mean activity.
    """
    errors = dict.fromkeys((1, NUM_BINS), 0.0)
    for divided in setting.population.answering(setting.task):
        windows = setting.training_windows(divided)
        for num_bins in errors:
            features = setting.features(divided, windows, num_bins)
            errors[num_bins] += leave_one_out_error(features, windows.target)
    suffices = errors[NUM_BINS] <= BINS_MAY_COST * errors[1]
    return ridge_readout(setting, NUM_BINS if suffices else 1)


def fit_ridge_arm(setting: Setting) -> Fitted:
    """Ridge on the mean activity of the window."""
    return LabelReadout(setting.frame("ridge"), ridge_readout(setting, 1)), NO_CURVES


def fit_binned_ridge_arm(setting: Setting) -> Fitted:
    """Ridge on the activity in five time bins of the window."""
    decoder = LabelReadout(setting.frame("ridge, time bins"), ridge_readout(setting, NUM_BINS))
    return decoder, NO_CURVES


def fit_logistic_arm(setting: Setting) -> Fitted:
    """Multinomial logistic regression on the mean activity of the window."""
    readouts = []
    for divided in setting.population.answering(setting.task):
        windows = setting.training_windows(divided)
        readouts.append(
            fit_logistic(
                setting.features(divided, windows, 1),
                windows.target,
                len(setting.population.classes(setting.task)),
                setting.unit_ids(divided),
                setting.seed,
            )
        )
    return LabelReadout(setting.frame("logistic"), LinearReadout.merge(readouts)), NO_CURVES


def fit_mean_frame_arm(setting: Setting) -> Fitted:
    """The mean of the pictures shown in training, whatever the activity."""
    targets = [
        setting.training_windows(divided).target
        for divided in setting.population.answering(setting.task)
    ]
    mean = setting.pictures()[np.unique(np.concatenate(targets))].mean(axis=0)
    return MeanFrame(setting.frame("mean frame"), mean), NO_CURVES


def fit_nearest_frame_arm(setting: Setting) -> Fitted:
    """Look-up of the training movie frame with the nearest mean response."""
    num_frames = len(setting.population.classes(setting.task))
    tables = []
    for divided in setting.population.answering(setting.task):
        windows = setting.training_windows(divided)
        features = setting.features(divided, windows, NUM_BINS)
        tables.append(
            fit_frame_templates(features, windows.target, num_frames, setting.unit_ids(divided))
        )
    pictures = setting.pictures() if setting.task.kind == "images" else None
    decoder = NearestFrame(setting.frame("nearest frame"), FrameTemplates.merge(tables), pictures)
    return decoder, NO_CURVES


def picture_teacher(setting: Setting) -> PictureTeacher:
    """Ridge to the principal components of the training pictures, fitted per recording."""
    population, task = setting.population, setting.task
    pictures = setting.pictures()
    windows = {
        d.recording.recording_id: setting.training_windows(d) for d in population.answering(task)
    }
    components = find_components(pictures, np.concatenate([w.target for w in windows.values()]))
    fitted, scores = [], {}
    for divided in population.answering(task):
        name = divided.recording.recording_id
        valid = population.windows(divided, task, "valid", setting.num_timesteps)
        pixels, scores[name] = fit_ridge_to_pixels(
            setting.features(divided, windows[name], NUM_BINS),
            windows[name].target,
            setting.features(divided, valid, NUM_BINS),
            valid.target,
            pictures,
            components,
            setting.unit_ids(divided),
        )
        fitted.append(pixels)
    merged = LinearReadout.merge([pixels.readout for pixels in fitted])
    return PictureTeacher(pixels=replace(fitted[0], readout=merged), training_scores=scores)


def fit_ridge_to_pixels_arm(setting: Setting) -> Fitted:
    """Ridge to the principal components of the training pictures."""
    pixels = picture_teacher(setting).pixels
    return PixelReadout(setting.frame("ridge to pixels"), pixels), NO_CURVES


def fit_scratch_arm(setting: Setting) -> Fitted:
    """The network from fresh weights, on labels alone."""
    return fit_network(setting, "scratch", setting.encoder)


def fit_taught_arm(setting: Setting) -> Fitted:
    """The network from fresh weights with a ridge teacher.

    Label tasks: it learns from labels and from the teacher's answers, and is added to it. Image
    tasks: it corrects the teacher's pictures.
    """
    return fit_network(setting, "scratch + teacher", setting.encoder, find_teacher(setting))


def fit_pretrained_arm(setting: Setting, *, name: str, with_teacher: bool) -> Fitted:
    """The network from the pretrained encoder, on labels alone or with a ridge teacher, too."""
    assert setting.pretrained is not None
    teacher = find_teacher(setting) if with_teacher else None
    return fit_network(setting, name, setting.pretrained(), teacher)


def find_teacher(setting: Setting) -> LinearReadout | PictureTeacher:
    """The closed-form teacher of the setting's task."""
    return picture_teacher(setting) if setting.task.kind == "images" else label_teacher(setting)


def fit_network(
    setting: Setting,
    arm: str,
    encoder: Encoder | EncoderConfig,
    teacher: LinearReadout | PictureTeacher | None = None,
) -> Fitted:
    """Fine-tunes a network in the given setting."""
    decoder, fit = finetune(
        setting.population,
        setting.task,
        encoder,
        setting.config,
        arm=arm,
        seed=setting.seed,
        labels=setting.labels,
        teacher=teacher,
    )
    return decoder, fit.curves


@dataclass(frozen=True)
class Arm:
    """A way to answer tasks of some kinds."""

    fit: Callable[[Setting], Fitted]
    kinds: tuple[str, ...]
    """Kinds of task that it can answer."""
    is_reference: bool = True
    is_seeded: bool = True
    """Whether the result depends on the seed with all labels; if not it is fitted once."""


ARMS = {
    "ridge": Arm(fit_ridge_arm, ("labels",), is_seeded=False),
    "ridge, time bins": Arm(fit_binned_ridge_arm, ("labels",), is_seeded=False),
    "logistic": Arm(fit_logistic_arm, ("labels",)),
    "mean frame": Arm(fit_mean_frame_arm, ("images",), is_seeded=False),
    "nearest frame": Arm(fit_nearest_frame_arm, ("frames", "images"), is_seeded=False),
    "ridge to pixels": Arm(fit_ridge_to_pixels_arm, ("images",), is_seeded=False),
    "scratch": Arm(fit_scratch_arm, ("labels", "frames", "images"), is_reference=False),
    "scratch + teacher": Arm(fit_taught_arm, ("labels", "images"), is_reference=False),
}
"""Arms that need no pretraining; :func:`pretrained_arm` makes the others."""


def pretrained_arm(name: str, *, with_teacher: bool = False) -> Arm:
    """The arm whose network begins with the setting's pretrained encoder."""
    fit = partial(fit_pretrained_arm, name=name, with_teacher=with_teacher)
    kinds = ("labels", "images") if with_teacher else ("labels", "frames", "images")
    return Arm(fit, kinds, is_reference=False)


def arms_for(
    task: Task, wanted: tuple[str, ...], arms: Mapping[str, Arm] = MappingProxyType(ARMS)
) -> list[str]:
    """The arms that can answer a task: every reference decoder, and the wanted networks.

    Raises:
        ValueError: If a wanted arm does not exist.
    """
    unknown = [name for name in wanted if name not in arms]
    if unknown:
        raise ValueError(f"Unknown arms {unknown}. Choose from: {', '.join(arms)}.")
    return [
        name
        for name, arm in arms.items()
        if task.kind in arm.kinds and (arm.is_reference or name in wanted)
    ]
