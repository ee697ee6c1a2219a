"""From a recording to the arrays that scikit-learn takes: trials, answers and groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from poyo_ssl.recordings.recording import Recording, RecordingError, require_recording
from poyo_ssl.windows.task_windows import TaskWindows, find_windows, settle
from poyo_ssl.windows.tasks import Task, find_classes, find_task, presentations

NUM_RUNS = 30
"""Runs of trials in a session: ten in each block of the Allen gratings, as two runs for each of
five folds."""


class Trials(NamedTuple):
    """What ``cross_val_score(estimator, X, y, groups=groups)`` takes."""

    X: np.ndarray
    """ΔF/F of every trial, (num_trials, num_timesteps, num_units), float32."""
    y: np.ndarray
    """Its answer: label, number or movie frame, (num_trials,)."""
    groups: np.ndarray
    """The run of trials that it belongs to, (num_trials,): what lies next to each other in time
    shares slow states of the animal, and belongs on one side of a split."""


def trials(recording: Recording, task: Task | str, unit_ids: Sequence[str] | None = None) -> Trials:
    """Cuts a recording into trials of a task, in order of time.

    Blank sweeps, and trials that cross a gap in the imaging, are left out. Groups are ``NUM_RUNS``
    runs of consecutive trials or, where a movie was repeated, its repeats; a trial that reaches
    back into the imaging of an earlier group is left out, so that no sample is in two groups.

    Args:
        recording: One session.
        task: What is asked, such as ``direction``, ``running_speed`` or ``sequence/segment``; see
            :class:`Task`.
        unit_ids: Units to take, in this order; None: all.

    Returns:
        Trials, answers and groups.

    Raises:
        RecordingError: If the recording cannot answer the task, lacks a unit, or has no trial.
        ValueError: If the task is unknown, or asks for pictures.
    """
    require_recording(recording)
    task = find_task(task)
    if task.answer.needs_pictures:
        raise ValueError(
            f"The task '{task.name}' asks for pictures, which no estimator answers. Ask for "
            "kind=frames, or use finetune."
        )
    classes = find_classes([recording], task)
    task = settle(task, [recording])
    num_timesteps = max(1, round(task.length * recording.sampling_rate))
    always = np.array([[-np.inf, np.inf]])
    windows = find_windows(recording, task, always, classes, num_timesteps)
    groups = _groups(recording, task, windows)
    is_apart = windows.first_timestep >= _end_of_earlier(windows, groups)
    windows, groups = windows.take(np.flatnonzero(is_apart)), groups[is_apart]
    if not len(windows):
        raise RecordingError(
            f"Recording '{recording.recording_id}' has no whole trial of the task '{task.name}': "
            f"windows of {task.length:g} s leave the imaging. Give the task a shorter "
            "window_length."
        )
    samples = windows.first_timestep[:, None] + np.arange(num_timesteps)
    columns = _columns(recording, unit_ids)
    return Trials(
        X=np.stack([recording.df_over_f[rows][:, columns] for rows in samples]),
        y=classes[windows.target] if task.answer.has_budget else windows.target,
        groups=groups,
    )


def _groups(recording: Recording, task: Task, windows: TaskWindows) -> np.ndarray:
    """Repeats of a movie, else runs of trials of about equal number, (num_trials,)."""
    table = presentations(recording, task)
    if task.split == "repeat" and table is not None and "repeat" in table:
        return table["repeat"].to_numpy()[windows.trial].astype(int)
    return np.arange(len(windows)) * min(NUM_RUNS, len(windows)) // max(1, len(windows))


def _end_of_earlier(windows: TaskWindows, groups: np.ndarray) -> np.ndarray:
    """Where the last window of another group that began before ends, (num_windows,)."""
    end = np.zeros(len(groups), dtype=int)
    for index in np.flatnonzero(np.diff(groups)) + 1:
        end[index:] = windows.first_timestep[index - 1] + windows.num_timesteps
    return end


def _columns(recording: Recording, unit_ids: Sequence[str] | None) -> np.ndarray:
    if unit_ids is None:
        return np.arange(recording.num_units)
    column = {unit_id: index for index, unit_id in enumerate(recording.unit_ids)}
    unknown = [unit_id for unit_id in unit_ids if unit_id not in column]
    if unknown:
        raise RecordingError(
            f"Recording '{recording.recording_id}' has no unit {', '.join(map(str, unknown[:3]))} "
            f"(found: {len(column)}, such as {recording.unit_ids[0]}). Choose among its unit_ids."
        )
    return np.array([column[unit_id] for unit_id in unit_ids], dtype=int)
