"""Where the windows of a task begin, and the right answers."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.intervals import begin_inside, lie_inside
from poyo_ssl.windows.tasks import TASKS, Task, can_answer, presentations

logger = logging.getLogger(__name__)

SPARE = 1 / 6
"""Seconds by which a shortened window stays below what is imaged: a network takes whole patches,
of a third of a second where nothing is said, and may round up by half of one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskWindows:
    """Where the windows of one recording begin for one task, and the right answers."""

    first_timestep: np.ndarray
    """First imaging sample of every window, shape (num_windows,)."""
    num_timesteps: int
    """Imaging samples in a window."""
    target: np.ndarray
    """Index of the right answer among the classes (labels), movie frame, or the value asked for,
    (num_windows,)."""
    trial: np.ndarray | None = None
    """Row of every window in the table of presentations, (num_windows,); None where windows belong
    to no presentation."""

    def __len__(self) -> int:
        return len(self.first_timestep)

    def take(self, index: np.ndarray) -> TaskWindows:
        """The windows at these positions."""
        return TaskWindows(
            first_timestep=self.first_timestep[index],
            num_timesteps=self.num_timesteps,
            target=self.target[index],
            trial=None if self.trial is None else self.trial[index],
        )


def find_windows(
    recording: Recording,
    task: Task,
    intervals: np.ndarray,
    classes: np.ndarray,
    num_timesteps: int,
    *,
    reach: np.ndarray | None = None,
) -> TaskWindows:
    """Finds the windows of a task whose stimulus was shown inside some intervals.

    Blank sweeps have no answer and no window. A window that crosses a gap in the imaging, or
    leaves its reach, does not exist.

    Args:
        recording: One session.
        task: What is asked.
        intervals: Start and end in seconds, such as ``splits.train``, shape (n, 2).
        classes: The possible answers, sorted, shape (num_classes,).
        num_timesteps: Imaging samples in a window.
        reach: Where whole windows must lie, seconds, (m, 2), such as ``splits.reach("test")``;
            the intervals themselves if not given.

    Returns:
        The windows in order of time.
    """
    reach = intervals if reach is None else reach
    table = presentations(recording, task)
    if table is None:
        table = recording.stimulus(task.stimulus)  # which says what there is
    is_answered, target = task.answer.targets(task.answer.clean(table[task.column]), classes)
    onsets = table["start"].to_numpy(dtype=float)
    starts = onsets + task.window_offset
    first = recording.timestep_at(starts)
    stop = first + num_timesteps
    inside = is_answered & (stop <= recording.num_timesteps)
    first, stop = np.where(inside, first, 0), np.where(inside, stop, 1)
    # a window that would begin in a gap, or before the recording, must not begin after it instead
    inside &= np.abs(recording.timestamps[first] - starts) < 1 / recording.sampling_rate
    inside &= _fit_inside(recording, first, stop, reach)
    inside &= begin_inside(onsets, intervals)
    order = np.flatnonzero(inside)
    order = order[np.argsort(first[order], kind="stable")]
    return TaskWindows(
        first_timestep=first[order],
        num_timesteps=num_timesteps,
        target=target[order],
        trial=order,
    )


def find_any_windows(recording: Recording, intervals: np.ndarray, num_timesteps: int) -> np.ndarray:
    """First timesteps of all windows, labelled or not, wholly inside the intervals.

    Returns:
        First timesteps, shape (num_windows,); windows overlap and none crosses a gap.
    """
    first = np.arange(recording.num_timesteps - num_timesteps + 1)
    stop = first + num_timesteps
    return first[_fit_inside(recording, first, stop, intervals)]


def _fit_inside(
    recording: Recording, first: np.ndarray, stop: np.ndarray, intervals: np.ndarray
) -> np.ndarray:
    """Whether the timesteps first ... stop - 1 lie without a gap in one interval, elementwise.

    A sample lasts one period, so the one at the border of two parts is in the later part only.
    """
    starts = recording.timestamps[first]
    ends = recording.timestamps[stop - 1] + 1 / recording.sampling_rate
    return is_without_gap(recording, first, stop) & lie_inside(starts, ends, intervals)


def is_without_gap(recording: Recording, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Whether the timesteps first ... stop - 1 lie in one segment, elementwise."""
    ends = recording.segments[:, 1]
    segment = np.searchsorted(ends, first, side="right")
    return stop <= ends[np.minimum(segment, len(ends) - 1)]


def settle(task: Task, recordings: list[Recording]) -> Task:
    """The task with a window length that trials have: its own, or that of a median presentation.

    Where imaging was cut to the trials, so that most windows would leave it, a length that nobody
    asked for becomes what nearly every trial has, with a warning.

    Raises:
        RecordingError: If most windows would leave the imaging, and the length was asked for or
            not even half of it is there.
    """
    recordings = [recording for recording in recordings if can_answer(recording, task)]
    is_asked_for = task.window_length is not None and task not in TASKS.values()
    length = task.window_length
    if length is None:
        tables = [presentations(recording, task) for recording in recordings]
        durations = [(t["end"] - t["start"]).to_numpy() for t in tables if t is not None]
        length = float(np.median(np.concatenate(durations)))
    task = replace(task, window_length=length)
    longest = {r.recording_id: _longest_window(r, task) for r in recordings}
    short = [name for name, seconds in longest.items() if seconds < length]
    if not short:
        return task
    imaged = min(longest.values())
    shorter = max(0.1, float(np.floor(10 * (imaged - SPARE)) / 10))
    found = (
        f"Most trials of {task.stimulus} in {len(short)} of {len(recordings)} recordings (such as "
        f"'{short[0]}') are not imaged for the {length:g} s that windows of the task "
        f"'{task.name}' last, from {task.window_offset:g} s after the onset; nearly all are for "
        f"{imaged:.3g} s"
    )
    if is_asked_for or 2 * shorter < length:
        raise RecordingError(
            f"{found}. Give the task window_length={shorter:g}, or an earlier window_offset."
        )
    logger.warning(
        "%s. Its windows last %g s now; window_length and window_offset change that.",
        found,
        shorter,
    )
    return replace(task, window_length=shorter)


def _longest_window(recording: Recording, task: Task) -> float:
    """Seconds of imaging that nearly every trial (95 %) has; the window's own if most have it."""
    table = presentations(recording, task)
    assert table is not None
    starts = table["start"].to_numpy(dtype=float) + task.window_offset
    first = recording.timestep_at(starts)
    first = first[first < recording.num_timesteps]
    stops = recording.segments[:, 1]
    samples = stops[np.searchsorted(stops, first, side="right")] - first
    wanted = task.length * recording.sampling_rate - 0.5
    if 2 * np.sum(samples >= wanted) >= len(samples):
        return task.length
    return float(np.percentile(samples, 5, method="lower") / recording.sampling_rate)
