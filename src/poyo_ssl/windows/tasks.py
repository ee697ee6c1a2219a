"""What can be asked of a recording: which stimulus, which answer, from which window of activity."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from poyo_ssl.kinds_of_arguments import require_numbers
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.answers import ANSWERS, Answer
from poyo_ssl.windows.held_out_values import HeldOutValues
from poyo_ssl.windows.movie_splits import split_by_movie_frame, split_by_repeat
from poyo_ssl.windows.splits import SplitConfig, Splits, named_part, whole_recording_as
from poyo_ssl.windows.trial_splits import split_by_trial, split_by_value

SPLITS = {
    "trial": split_by_trial,
    "repeat": split_by_repeat,
    "held_out_frames": split_by_movie_frame,
}
"""How the presentations of a stimulus are divided into train, valid and test."""
MOST_LABELS = 1000
"""Classes beyond which labels are taken for numbers that were not meant as classes."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One decoding question.

    Any column of any table of a stimulus can be asked for, numbers or text, and any column of a
    time series (``running``, ``pupil``, those in ``Recording.series``).
    """

    name: str = ""
    """Word on the command line and in results; letters, digits, ``_``, ``-`` and dots. Empty:
    made of stimulus and column."""
    title: str = ""
    """Words for people; empty: made of stimulus and column."""
    stimulus: str
    """Name of the table of the stimulus, or of the time series."""
    column: str
    """Column that holds the answer."""
    kind: str = "labels"
    """What the answer is, a name of ``ANSWERS``: one of several ``labels``, a number (``values``),
    the identity of a movie frame (``frames``), or the picture itself (``images``)."""
    split: Literal["trial", "repeat", "held_out_frames"] = "trial"
    """How presentations are divided into train, valid and test: the last trials of every block
    test, the last repeats, or parts of the movie in every repeat."""
    window_offset: float = 0.0
    """Start of the window relative to the onset, seconds."""
    window_length: float | None = None
    """Length of the window, seconds; the windows hold no activity after their end. None: as long
    as a presentation lasts in the median; for a time series 1 s."""
    tolerance: float = 1e-3
    """Labels as near as this are the same, so that rounding makes no classes."""
    period: float | None = None
    """Labels that lie a multiple of this apart are the same, such as 360 for directions."""

    def __post_init__(self) -> None:
        require_numbers(self)
        if not self.name:
            object.__setattr__(
                self,
                "name",
                re.sub(r"[^\w.-]", "_", f"{self.stimulus}_{self.column}").lstrip(".-")[:80],
            )
        if not self.title:
            words = f"{self.stimulus}: {self.column}".replace("_", " ")
            object.__setattr__(self, "title", words[:1].upper() + words[1:])
        problems = []
        if not re.fullmatch(r"\w[\w.-]{0,80}", self.name):
            problems.append(
                f"the name of a task must be of up to 81 letters, digits, _, - and dots, got "
                f"'{self.name}'"
            )
        for field, known in (("kind", ANSWERS), ("split", SPLITS)):
            if getattr(self, field) not in known:
                problems.append(
                    f"{field} must be one of {', '.join(known)}, got '{getattr(self, field)}'"
                )
        if self.window_length is not None and not 0 < self.window_length < np.inf:
            problems.append(f"window_length must be positive seconds, got {self.window_length}")
        if not np.isfinite(self.window_offset):
            problems.append(f"window_offset must be seconds, got {self.window_offset}")
        if self.tolerance < 0 or (self.period is not None and self.period <= 0):
            problems.append(
                "tolerance must not be negative and period be positive, got "
                f"{self.tolerance} and {self.period}"
            )
        if problems:
            raise ValueError(f"Task '{self.name}': " + "; ".join(problems) + ".")

    @property
    def answer(self) -> Answer:
        """What its kind of answer means."""
        return ANSWERS[self.kind](self.tolerance, self.period)

    @property
    def length(self) -> float:
        """Length of the window in seconds.

        Raises:
            ValueError: If it is only known once recordings are divided for the task.
        """
        if self.window_length is None:
            raise ValueError(
                f"The task '{self.name}' has no window_length yet: 'divide' takes it from the "
                "recordings. Use the task of what it returns, or give window_length."
            )
        return self.window_length

    @property
    def query_time(self) -> float:
        """The instant that a network is asked about, seconds from the window's start."""
        return -self.window_offset if self.answer.is_about_frames else 0.5 * self.length

    def settings(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)

    @staticmethod
    def of(settings: str | Mapping[str, Any]) -> Task:
        """Inverse of ``settings``; decoders of before have the name of one of ours."""
        return find_task(settings) if isinstance(settings, str) else Task(**settings)


def _gratings(name: str, column: str, **options: Any) -> Task:
    title = f"Drifting gratings: {name.replace('_', ' ')}"
    return Task(
        name=name, title=title, stimulus="drifting_gratings", column=column, window_offset=0.3,
        window_length=2.0, **options,
    )  # fmt: skip


def _flashed(name: str, stimulus: str, column: str, **options: Any) -> Task:
    title = f"{stimulus.capitalize().replace('_', ' ')}: {name.replace('_', ' ')}"
    return Task(
        name=name, title=title, stimulus=stimulus, column=column, window_offset=0.13,
        window_length=0.4, **options,
    )  # fmt: skip


def _movie(name: str, number: str, kind: Any, split: Any) -> Task:
    """Calcium lags spiking, so a frame is asked about 0.3 s after it was shown."""
    what = {
        ("frames", "repeat"): "which frame",
        ("images", "repeat"): "reconstruction, held-out repeats",
        ("images", "held_out_frames"): "reconstruction, held-out movie frames",
    }[kind, split]
    return Task(
        name=name, title=f"Natural movie {number}: {what}", stimulus=f"natural_movie_{number}",
        column="movie_frame", kind=kind, split=split, window_offset=-0.7, window_length=1.0,
    )  # fmt: skip


def _behaviour(name: str, series: str, column: str, title: str) -> Task:
    return Task(
        name=name, title=title, stimulus=series, column=column, kind="values", window_length=1.0
    )


DIRECTION = _gratings("direction", "orientation", period=360.0)
TEMPORAL_FREQUENCY = _gratings("temporal_frequency", "temporal_frequency")
ORIENTATION = _flashed("orientation", "static_gratings", "orientation", period=180.0)
MOVIE_FRAME = _movie("movie_frame", "one", "frames", "repeat")
MOVIE = _movie("movie", "one", "images", "repeat")
MOVIE_HELD_OUT = _movie("movie_held_out", "one", "images", "held_out_frames")

TASKS = {
    task.name: task
    for task in (
        DIRECTION,
        TEMPORAL_FREQUENCY,
        ORIENTATION,
        _flashed("spatial_frequency", "static_gratings", "spatial_frequency"),
        _flashed("phase", "static_gratings", "phase"),
        _flashed("scene", "natural_scenes", "image"),
        MOVIE_FRAME,
        MOVIE,
        MOVIE_HELD_OUT,
        _movie("movie_two_frame", "two", "frames", "repeat"),
        _movie("movie_two", "two", "images", "repeat"),
        _movie("movie_two_held_out", "two", "images", "held_out_frames"),
        _movie("movie_three_frame", "three", "frames", "repeat"),
        _movie("movie_three", "three", "images", "repeat"),
        _movie("movie_three_held_out", "three", "images", "held_out_frames"),
        _behaviour("running_speed", "running", "speed", "Running speed"),
        _behaviour("pupil_x", "pupil", "x", "Pupil: horizontal position"),
        _behaviour("pupil_y", "pupil", "y", "Pupil: vertical position"),
        _behaviour("pupil_size", "pupil", "size", "Pupil: size"),
    )
}
"""Questions that have a name."""


def find_task(task: str | Task) -> Task:
    """The task of a name, or the one that a text such as ``sequence/segment`` describes.

    ``stimulus/column`` asks for any column of any table or time series; options follow commas:
    ``sequence/segment,split=repeat,window_length=3``, ``direction,window_length=1.5``. See
    :class:`Task` for all of them.

    Raises:
        ValueError: If there is none; the message lists those there are.
    """
    if isinstance(task, Task):
        return task
    asked, *options = task.split(",")
    if asked in TASKS:
        return replace(TASKS[asked], **_read_options(options))
    stimulus, slash, column = asked.rpartition("/")
    if not slash or not stimulus or not column:
        raise ValueError(
            f"Unknown task '{task}'. Choose from: {', '.join(TASKS)}; or ask for a column of a "
            "table as stimulus/column, such as drifting_gratings/orientation."
        )
    return Task(stimulus=stimulus, column=column, **_read_options(options))


def _read_options(texts: list[str]) -> dict[str, Any]:
    read = [_read_option(text) for text in texts]
    names = [name for name, _ in read]
    if len(set(names)) < len(names):
        raise ValueError(f"'{','.join(texts)}' gives an option of a task twice. Give each once.")
    return dict(read)


def _read_option(text: str) -> tuple[str, Any]:
    name, equals, value = (part.strip() for part in text.partition("="))
    known = [field.name for field in fields(Task) if field.name not in ("stimulus", "column")]
    if not equals or name not in known:
        raise ValueError(
            f"'{text}' is no option of a task. Write name=value with one of {', '.join(known)}."
        )
    if name in ("window_offset", "window_length", "tolerance", "period"):
        try:
            return name, float(value)
        except ValueError as error:
            raise ValueError(f"{name} must be a number, got '{value}'.") from error
    return name, value


def presentations(recording: Recording, task: Task) -> pd.DataFrame | None:
    """The table that a task asks about: that of a stimulus, or a time series in equal bins.

    A time series is asked about in bins of the task's window, one after the other; the answer of a
    bin is the mean of the samples in it, NaN where there is none.

    Returns:
        One row per presentation with ``start``, ``end`` and the columns that can be asked for;
        None where the recording has neither.
    """
    if task.stimulus in recording.stimuli:
        return recording.stimuli[task.stimulus]
    series = recording.time_series.get(task.stimulus)
    return None if series is None else _in_bins(series, recording, task.window_length or 1.0)


def presentation_period(recording: Recording, task: Task) -> float:
    """Seconds from one presentation to the next, in the median: how long a movie frame is shown."""
    table = presentations(recording, task)
    assert table is not None
    starts = table["start"].to_numpy()
    if len(starts) < 2:
        return float(table["end"].iloc[0] - starts[0])
    return float(np.median(np.diff(starts)))


def _in_bins(series: pd.DataFrame, recording: Recording, length: float) -> pd.DataFrame:
    starts = np.concatenate(
        [
            start + length * np.arange(int((end - start) / length + 1e-9))
            for start, end in recording.segment_intervals
        ]
    )
    ends = starts + length
    times = series["timestamp"].to_numpy()
    first, stop = np.searchsorted(times, starts), np.searchsorted(times, ends)
    table = {"start": starts, "end": ends}
    for column in series.columns.drop("timestamp"):
        values = series[column].to_numpy(dtype=float)
        is_there = np.isfinite(values)
        total = np.append(0.0, np.cumsum(np.where(is_there, values, 0.0)))
        count = np.append(0, np.cumsum(is_there))
        num = count[stop] - count[first]
        table[column] = np.where(num > 0, (total[stop] - total[first]) / np.maximum(num, 1), np.nan)
    return pd.DataFrame(table)


def can_answer(recording: Recording, task: Task) -> bool:
    """Whether the recording lists the task's stimulus and answer, with pictures where asked."""
    table = presentations(recording, task)
    if table is None or table.empty or task.column not in table:
        return False
    return not task.answer.needs_pictures or task.stimulus in recording.templates


def stimulus_tasks(recordings: Iterable[Recording]) -> list[Task]:
    """The named tasks about stimuli that some recording can answer."""
    recordings = list(recordings)
    return [
        task
        for task in TASKS.values()
        if any(task.stimulus in r.stimuli and can_answer(r, task) for r in recordings)
    ]


def split_task(
    recording: Recording, task: Task, config: SplitConfig, held_out: HeldOutValues | None = None
) -> Splits:
    """Divides a recording for a task: by trial, by repeat, by movie frame, or as a whole.

    Args:
        recording: One session that shows the task's stimulus.
        task: What is asked.
        config: How much validates and tests.
        held_out: Values of ``config.held_out_column`` that several recordings hold out alike; None
            draws them for this one.

    Raises:
        SplitError: If it cannot be divided.
    """
    table = presentations(recording, task)
    if table is not None and task.stimulus not in recording.stimuli:
        recording = replace(recording, stimuli={task.stimulus: table})
    part = named_part(recording, config)
    if part is not None:
        return whole_recording_as(recording, task.stimulus, part)
    if table is not None and config.held_out_column in table:
        asked = [task.answer] if task.column == config.held_out_column else []
        values = held_out or HeldOutValues.draw([table], config, asked)
        return split_by_value(recording, task.stimulus, config, values)
    return SPLITS[task.split](recording, task.stimulus, config)


def find_classes(recordings: list[Recording], task: Task) -> np.ndarray:
    """Every answer that occurs, sorted: label values or text, or 0 ... number of movie frames - 1.

    Raises:
        RecordingError: If no recording shows the stimulus, or none has an answer.
    """
    tables = [
        table
        for recording in recordings
        if (table := presentations(recording, task)) is not None and task.column in table
    ]
    if not tables:
        found = sorted({name for r in recordings for name in (*r.stimuli, *r.time_series)})
        raise RecordingError(
            f"None of {len(recordings)} recordings shows {task.stimulus} with a column "
            f"{task.column}, which the task '{task.name}' needs "
            f"(found: {', '.join(found) or 'no stimulus at all'})."
        )
    answers = [task.answer.clean(table[task.column]) for table in tables]
    if not any(pd.notna(part).any() for part in answers):
        raise RecordingError(
            f"All {sum(map(len, answers))} answers in the column {task.column} of {task.stimulus} "
            f"are empty, so the task '{task.name}' has nothing to learn. Fill the column, or ask "
            "for another one."
        )
    if task.period is not None:
        _require_one_unit_of_angle(recordings, task)
    classes = task.answer.classes(answers)
    if task.answer.has_budget and len(classes) > MOST_LABELS:
        raise RecordingError(
            f"The column {task.column} of {task.stimulus} has {len(classes)} different answers, "
            f"too many for labels. Ask for a number (kind: values), or raise the tolerance of the "
            f"task '{task.name}'."
        )
    return classes


def _require_one_unit_of_angle(recordings: list[Recording], task: Task) -> None:
    """Refuses angles in radians beside angles in degrees: all would be classes of their own."""
    largest = {}
    for recording in recordings:
        table = presentations(recording, task)
        if table is not None and task.column in table:
            angles = np.abs(task.answer.clean(table[task.column]))
            shown = angles[np.isfinite(angles) & (angles > 0)] if angles.dtype != object else []
            if len(shown):
                is_whole = bool(np.all(np.mod(shown, 0.5) == 0))
                largest[recording.recording_id] = (float(np.max(shown)), is_whole)
    radians = [name for name, (top, whole) in largest.items() if top < 6.3 and not whole]
    degrees = [name for name, (top, _) in largest.items() if top >= 6.3]
    if radians and degrees:
        raise RecordingError(
            f"The column {task.column} of {task.stimulus} seems to be in radians in recording "
            f"'{radians[0]}' (up to {largest[radians[0]][0]:.4g}) and in degrees in "
            f"'{degrees[0]}' (up to {largest[degrees[0]][0]:.4g}). Give all in degrees: "
            "np.rad2deg, or angles: radians in the source's stimuli."
        )
