"""Single units of divided recordings: example traces, responses, tuning and importance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.estimators.figures import tuning_curves
from poyo_ssl.kinds_of_arguments import require_kind
from poyo_ssl.neurons.responses import MOST_LABELS, Responses, mean_responses, measure_responses
from poyo_ssl.predictability.partition import Partition
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.activity import Activity
from poyo_ssl.windows.divide import MADE_BY, Divided, DividedRecording
from poyo_ssl.windows.tasks import Task

MOST_RECORDINGS = 5
"""Recordings that are described: the first ones with training time."""
MOST_UNITS = 250
"""Units of a recording that are described, evenly spaced."""
SHOWN_PER_GROUP = 4
"""Predictable, and unpredictable, units whose traces are kept: those that respond most reliably."""
_TRACE_SECONDS, _MOST_TRACE_SAMPLES = 60.0, 450
_MOST_WINDOWS = 200
"""Training windows by which importance and latents are found, evenly spaced."""
_TOUCHING = 0.05
"""Seconds below which one presentation follows the other without a pause."""
_UNIT_COLUMNS = ("cre_line", "area", "imaging_depth_um", "x_px", "y_px")


@dataclass(frozen=True, kw_only=True, eq=False)
class Traces:
    """A minute of training time of a few units."""

    times: np.ndarray
    """Seconds from its beginning, (num_samples,)."""
    df_over_f: np.ndarray
    """Dimensionless, (num_samples, num_shown)."""
    units: np.ndarray
    """Rows of the table of units, (num_shown,), predictable ones first."""
    shown: np.ndarray
    """When a stimulus was shown, seconds from the beginning, (num_intervals, 2)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuning:
    """Mean ΔF/F in the training windows of a task, by label."""

    curves: pd.DataFrame
    """A row for every label, sorted, and a column for every unit."""
    sem: pd.DataFrame
    """Standard error of the mean, of the same shape; NaN of a label shown once."""
    period: float | None
    """Labels that lie a multiple of this apart are the same; None for no period."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Latents:
    """What a network's encoder makes of training windows, in the plane."""

    points: np.ndarray
    """First two principal components of the mean over the latents, (num_windows, 2)."""
    labels: np.ndarray
    """What was shown, (num_windows,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskNeurons:
    """What the units of a recording did in the training part of a task."""

    name: str
    title: str
    responses: Responses | None = None
    """None where the task asks about no stimulus."""
    tuning: Tuning | None = None
    """None where answers are no numbered labels, or too many for a curve."""
    importance: dict[str, np.ndarray] = field(default_factory=dict)
    """Arm to how much each unit counts in its answers, (num_units,): 1 for the mean over all
    described recordings, NaN for a unit that the decoder does not use."""
    latents: dict[str, Latents] = field(default_factory=dict)
    """Arm of a network to what its encoder makes of windows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Neurons:
    """Units of one recording; everything is of training time."""

    recording_id: str
    units: pd.DataFrame
    """A row for every described unit: ``unit_id``, ``is_predictable`` and, where known,
    ``cre_line``, ``area``, ``imaging_depth_um`` and the centre in the field of view, ``x_px`` and
    ``y_px``."""
    num_units: int
    """How many the recording has, described or not."""
    traces: Traces
    tasks: list[TaskNeurons]

    @property
    def is_predictable(self) -> np.ndarray:
        """Booleans, (num_units,)."""
        return self.units["is_predictable"].to_numpy(dtype=bool)

    def task(self, name: str) -> TaskNeurons:
        """What the units did in one task.

        Raises:
            ValueError: If there is none of this name.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        known = ", ".join(task.name for task in self.tasks) or "none"
        raise ValueError(
            f"The units of '{self.recording_id}' are not described for the task '{name}' (but "
            f"for: {known}). Divide the recordings for it, and describe them again."
        )

    def by_reliability(self, task: TaskNeurons | None = None) -> np.ndarray:
        """Rows of the units, those that respond most reliably first, (num_units,).

        Args:
            task: Whose stimulus; None: of the first task that has one.
        """
        measured = self.tasks if task is None else [task]
        responses = next((t.responses for t in measured if t.responses is not None), None)
        if responses is None:
            return np.arange(len(self.units))
        return np.argsort(-np.nan_to_num(responses.reliability, nan=-1), kind="stable")


def describe_neurons(
    divided: Divided, partition: Partition, decoders: Sequence[FittedDecoder] = ()
) -> list[Neurons]:
    """Describes the units of the first few recordings by what they did in training time.

    Args:
        divided: Recordings, divided for the tasks that matter.
        partition: Who of them is predictable.
        decoders: Fitted on training parts of the recordings, at most one of an arm and task:
            which units they use, and the latents of networks.

    Returns:
        One for each of the first recordings that have training time and units, five at most.
    """
    require_kind(divided, Divided, MADE_BY)
    described = {}
    for d in divided:
        if d.is_held_out or not len(_longest(d)):
            continue  # nobody is judged there
        columns = np.flatnonzero(partition.is_decodable(d.recording))
        if not len(columns):
            continue
        evenly = np.linspace(0, len(columns) - 1, min(len(columns), MOST_UNITS)).round()
        described[d] = _describe(divided, d, partition, columns[evenly.astype(int)])
        if len(described) == MOST_RECORDINGS:
            break
    for decoder in decoders:
        _add_decoder(described, divided, decoder)
    return list(described.values())


def _describe(
    divided: Divided, d: DividedRecording, partition: Partition, columns: np.ndarray
) -> Neurons:
    recording = d.recording
    known = recording.units.iloc[columns].reset_index(drop=True)
    units = known[["unit_id", *(name for name in _UNIT_COLUMNS if name in known)]]
    units.insert(1, "is_predictable", partition.is_predictable(recording)[columns])
    tasks = []
    for name, task in d.tasks.items():
        train = d.splits[name].train
        classes = divided.classes(task)
        responses = measure_responses(recording, task, train, classes, columns)
        tuning = _measure_tuning(divided, d, task, columns)
        tasks.append(
            TaskNeurons(name=name, title=task.title, responses=responses, tuning=tuning)
        )  # fmt: skip
    nothing = Traces(
        times=np.empty(0), df_over_f=np.empty((0, 0)), units=np.empty(0), shown=np.empty((0, 2))
    )
    neurons = Neurons(
        recording_id=recording.recording_id,
        units=units,
        num_units=recording.num_units,
        traces=nothing,
        tasks=tasks,
    )
    ranked = neurons.by_reliability()
    groups = [ranked[neurons.is_predictable[ranked] == is_it] for is_it in (True, False)]
    shown = np.concatenate([group[:SHOWN_PER_GROUP] for group in groups])
    return replace(neurons, traces=_cut_traces(d, columns, shown))


def _longest(d: DividedRecording) -> np.ndarray:
    """The longest stretch that trains the first task that has one, seconds, (2,) or empty."""
    for splits in d.splits.values():
        if len(splits.train):
            longest: np.ndarray = splits.train[np.diff(splits.train).ravel().argmax()]
            return longest
    return np.empty(0)


def _cut_traces(d: DividedRecording, columns: np.ndarray, shown: np.ndarray) -> Traces:
    recording, (start, end) = d.recording, _longest(d)
    first, stop = np.searchsorted(
        recording.timestamps, [start, min(end, start + _TRACE_SECONDS)]
    ).tolist()
    step = -(-(stop - first) // _MOST_TRACE_SAMPLES) or 1
    num_bins = (stop - first) // step
    rows = slice(first, first + num_bins * step)
    traces = recording.df_over_f[rows][:, columns[shown]].reshape(num_bins, step, len(shown))
    times = recording.timestamps[rows].reshape(num_bins, step).mean(axis=1) - start
    seconds = min(end, start + _TRACE_SECONDS) - start
    intervals = _shown_intervals(recording, list(d.tasks.values())) - start
    intervals = intervals[(intervals[:, 1] > 0) & (intervals[:, 0] < seconds)]
    return Traces(
        times=times,
        df_over_f=traces.mean(axis=1),
        units=shown,
        shown=np.clip(intervals, 0, seconds),
    )


def _shown_intervals(recording: Recording, tasks: list[Task]) -> np.ndarray:
    """When the stimuli of tasks were shown, seconds, (n, 2); what touches is one."""
    tables = [
        table
        for name in dict.fromkeys(task.stimulus for task in tasks)
        if name in recording.stimuli
        for table in [recording.stimuli[name]]
    ]
    if not tables:
        return np.empty((0, 2))
    intervals = np.concatenate([table[["start", "end"]].to_numpy(dtype=float) for table in tables])
    intervals = intervals[np.argsort(intervals[:, 0])]
    is_new = np.append(True, intervals[1:, 0] - intervals[:-1, 1] > _TOUCHING)
    firsts = np.flatnonzero(is_new)
    ends = np.maximum.reduceat(intervals[:, 1], firsts)
    return np.stack([intervals[firsts, 0], ends], axis=1)


def _measure_tuning(
    divided: Divided, d: DividedRecording, task: Task, columns: np.ndarray
) -> Tuning | None:
    if not task.answer.has_budget or task.stimulus not in d.recording.stimuli:
        return None
    classes = divided.classes(task)
    if not 2 <= len(classes) <= MOST_LABELS or classes.dtype.kind not in "if":
        return None
    num_timesteps = max(1, round(task.length * d.recording.sampling_rate))
    windows = divided.windows(d, task, "train", num_timesteps)
    labels = classes[windows.target]
    if len(np.unique(labels)) < 2:
        return None
    responses = mean_responses(d.recording, windows.first_timestep, num_timesteps, columns)
    unit_ids = d.recording.unit_ids[columns].tolist()
    curves = tuning_curves(responses, labels, unit_ids)
    sem = pd.DataFrame(responses, columns=curves.columns).groupby(labels).sem()
    return Tuning(curves=curves, sem=sem.set_axis(curves.index), period=task.period)


def _add_decoder(
    described: dict[DividedRecording, Neurons], divided: Divided, decoder: FittedDecoder
) -> None:
    """Adds to the descriptions what a decoder tells of its units, relative to their mean."""
    question = decoder.question
    found = {}
    for d, neurons in described.items():
        known = question.scale.tables.get(d.recording.recording_id, pd.DataFrame()).index
        unit_ids = [str(u) for u in neurons.units["unit_id"] if u in known]
        has_task = question.task.name in d.tasks and len(d.splits[question.task.name].train)
        if not unit_ids or not has_task:
            continue
        windows = divided.windows(d, question.task, "train", question.num_timesteps)
        some = np.linspace(0, len(windows) - 1, min(len(windows), _MOST_WINDOWS)).round()
        windows = windows.take(some.astype(int))
        # every unit that the decoder uses there: it decides by all of them
        used = question.known_units(d.recording)
        activity = Activity.of(d.recording, used, question.scale)
        if not len(windows):
            continue
        importance = decoder.unit_importance(activity, windows.first_timestep)
        if importance is not None:
            values = pd.Series(importance, index=used).reindex(neurons.units["unit_id"])
            found[d] = values.to_numpy(dtype=float)
        latents = decoder.latents(activity, windows.first_timestep)
        if latents is not None and len(latents) > 2 and np.isfinite(latents).all():
            shown = question.classes[windows.target] if question.task.answer.has_budget else None
            neurons.task(question.task.name).latents[question.arm] = Latents(
                points=PCA(n_components=2).fit_transform(latents),
                labels=windows.target if shown is None else shown,
            )
    mean = np.nanmean(np.concatenate(list(found.values()))) if found else 0.0
    for d, shares in found.items():
        if mean > 0:
            described[d].task(question.task.name).importance[question.arm] = shares / mean
