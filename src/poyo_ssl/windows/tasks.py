"""What can be asked of a recording: which stimulus, which answer, from which window of activity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.splits import (
    SplitConfig,
    Splits,
    split_by_movie_frame,
    split_by_repeat,
    split_by_trial,
    trials_inside,
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One decoding question."""

    name: str
    """Word on the command line and in results."""
    title: str
    """Words for people."""
    stimulus: str
    """Name of the stimulus table."""
    column: str
    """Column of the table that holds the answer."""
    kind: Literal["labels", "frames", "images"]
    """What the answer is: a label, the identity of a movie frame, or the picture itself."""
    split: Literal["trial", "repeat", "held_out_frames"]
    """How trials are divided into train, valid and test."""
    window_offset: float
    """Start of the window relative to stimulus onset, seconds."""
    window_length: float
    """Length of the window, seconds; the windows hold no activity after their end."""


DIRECTION = Task(
    name="direction",
    title="Drifting gratings: direction",
    stimulus="drifting_gratings",
    column="orientation",
    kind="labels",
    split="trial",
    window_offset=0.3,
    window_length=2.0,
)
TEMPORAL_FREQUENCY = Task(
    name="temporal_frequency",
    title="Drifting gratings: temporal frequency",
    stimulus="drifting_gratings",
    column="temporal_frequency",
    kind="labels",
    split="trial",
    window_offset=0.3,
    window_length=2.0,
)
ORIENTATION = Task(
    name="orientation",
    title="Static gratings: orientation",
    stimulus="static_gratings",
    column="orientation",
    kind="labels",
    split="trial",
    window_offset=0.13,
    window_length=0.4,
)
# Calcium lags spiking, so a frame is asked about 0.3 s after it was shown, from the second before.
MOVIE_FRAME = Task(
    name="movie_frame",
    title="Natural movie one: which frame",
    stimulus="natural_movie_one",
    column="movie_frame",
    kind="frames",
    split="repeat",
    window_offset=-0.7,
    window_length=1.0,
)
MOVIE = Task(
    name="movie",
    title="Natural movie one: reconstruction, held-out repeats",
    stimulus="natural_movie_one",
    column="movie_frame",
    kind="images",
    split="repeat",
    window_offset=-0.7,
    window_length=1.0,
)
MOVIE_HELD_OUT = Task(
    name="movie_held_out",
    title="Natural movie one: reconstruction, held-out movie frames",
    stimulus="natural_movie_one",
    column="movie_frame",
    kind="images",
    split="held_out_frames",
    window_offset=-0.7,
    window_length=1.0,
)

TASKS = {
    task.name: task
    for task in (DIRECTION, TEMPORAL_FREQUENCY, ORIENTATION, MOVIE_FRAME, MOVIE, MOVIE_HELD_OUT)
}


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: If there is none; the message lists those there are.
    """
    if name not in TASKS:
        raise ValueError(f"Unknown task '{name}'. Choose from: {', '.join(TASKS)}.")
    return TASKS[name]


def can_answer(recording: Recording, task: Task) -> bool:
    """Whether the recording lists the task's stimulus and answer, with pictures where asked."""
    table = recording.stimuli.get(task.stimulus)
    if table is None or table.empty or task.column not in table:
        return False
    return task.kind != "images" or task.stimulus in recording.templates


def split_task(recording: Recording, task: Task, config: SplitConfig) -> Splits:
    """Divides a recording for a task: by trial, by repeat, or by movie frame."""
    split = {
        "trial": split_by_trial,
        "repeat": split_by_repeat,
        "held_out_frames": split_by_movie_frame,
    }[task.split]
    return split(recording, task.stimulus, config)


def find_classes(recordings: list[Recording], task: Task) -> np.ndarray:
    """Every answer that occurs, sorted: label values, or 0 ... number of movie frames - 1.

    Raises:
        RecordingError: If no recording shows the stimulus.
    """
    tables = [r.stimuli[task.stimulus] for r in recordings if task.stimulus in r.stimuli]
    if not tables:
        found = sorted({name for r in recordings for name in r.stimuli})
        raise RecordingError(
            f"None of {len(recordings)} recordings shows {task.stimulus}, which the task "
            f"'{task.name}' needs (found: {', '.join(found) or 'no stimulus at all'})."
        )
    answers = np.concatenate([table[task.column].to_numpy(dtype=float) for table in tables])
    if task.kind == "labels":
        return np.unique(answers[np.isfinite(answers)])
    return np.arange(int(answers.max()) + 1, dtype=float)


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskWindows:
    """Where the windows of one recording begin for one task, and the right answers."""

    first_timestep: np.ndarray
    """First imaging sample of every window, shape (num_windows,)."""
    num_timesteps: int
    """Imaging samples in a window."""
    target: np.ndarray
    """Index of the right answer among the classes (labels) or movie frame, (num_windows,)."""

    def __len__(self) -> int:
        return len(self.first_timestep)

    def take(self, index: np.ndarray) -> TaskWindows:
        """The windows at these positions."""
        return TaskWindows(
            first_timestep=self.first_timestep[index],
            num_timesteps=self.num_timesteps,
            target=self.target[index],
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
    table = recording.stimulus(task.stimulus)
    answers = table[task.column].to_numpy(dtype=float)
    onsets = table["start"].to_numpy(dtype=float)
    starts = onsets + task.window_offset
    first = recording.timestep_at(starts)
    stop = first + num_timesteps
    inside = np.isin(answers, classes) & (stop <= recording.num_timesteps)
    first, stop = np.where(inside, first, 0), np.where(inside, stop, 1)
    # a window that would begin in a gap, or before the recording, must not begin after it instead
    inside &= np.abs(recording.timestamps[first] - starts) < 1 / recording.sampling_rate
    inside &= _lie_inside(recording, first, stop, reach)
    inside &= _begin_inside(onsets, intervals)
    order = np.flatnonzero(inside)
    order = order[np.argsort(first[order], kind="stable")]
    return TaskWindows(
        first_timestep=first[order],
        num_timesteps=num_timesteps,
        target=np.searchsorted(classes, answers[order]),
    )


def find_any_windows(recording: Recording, intervals: np.ndarray, num_timesteps: int) -> np.ndarray:
    """First timesteps of all windows, labelled or not, wholly inside the intervals.

    Returns:
        First timesteps, shape (num_windows,); windows overlap and none crosses a gap.
    """
    first = np.arange(recording.num_timesteps - num_timesteps + 1)
    stop = first + num_timesteps
    return first[_lie_inside(recording, first, stop, intervals)]


def _lie_inside(
    recording: Recording, first: np.ndarray, stop: np.ndarray, intervals: np.ndarray
) -> np.ndarray:
    """Whether the timesteps first ... stop - 1 lie without a gap in one interval, elementwise.

    A sample lasts one period, so the one at the border of two parts is in the later part only.
    """
    starts = recording.timestamps[first]
    ends = recording.timestamps[stop - 1] + 1 / recording.sampling_rate
    return is_without_gap(recording, first, stop) & trials_inside(starts, ends, intervals)


def _begin_inside(onsets: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Whether onsets (s) lie in one of the half-open intervals, elementwise.

    A stimulus that begins where a part ends belongs to what comes after it.
    """
    tolerance = 1e-6
    inside = np.zeros(len(onsets), dtype=bool)
    for start, end in intervals:
        inside |= (onsets >= start - tolerance) & (onsets < end - tolerance)
    return inside


def is_without_gap(recording: Recording, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Whether the timesteps first ... stop - 1 lie in one segment, elementwise."""
    ends = recording.segments[:, 1]
    segment = np.searchsorted(ends, first, side="right")
    return stop <= ends[np.minimum(segment, len(ends) - 1)]
