"""Recordings divided into parts: what may be learned from, validated on and tested on."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import overload

import numpy as np
from torch import Tensor

from poyo_ssl.recordings.recording import Recording, RecordingError, as_recordings, is_one_rate
from poyo_ssl.windows.held_out_values import HeldOutValues
from poyo_ssl.windows.intervals import begin_inside
from poyo_ssl.windows.pictures import resize_pictures
from poyo_ssl.windows.splits import (
    Part,
    SplitConfig,
    SplitError,
    Splits,
    named_part,
    require_known_names,
    training_intervals,
)
from poyo_ssl.windows.task_windows import TaskWindows, find_windows, settle
from poyo_ssl.windows.tasks import (
    Task,
    can_answer,
    find_classes,
    find_task,
    presentations,
    split_task,
)

logger = logging.getLogger(__name__)

MADE_BY = "divide(recordings, tasks) makes what was recorded into what may be learned from."

_DEFAULT_SPLITS = SplitConfig()


@dataclass(frozen=True, eq=False)
class DividedRecording:
    """A recording, its parts for every task, and what no task withholds."""

    recording: Recording
    splits: Mapping[str, Splits]
    """Task name to parts, for the tasks that the recording can answer."""
    tasks: Mapping[str, Task] = field(default_factory=dict)
    """The same names to what is asked."""
    whole: Part | None = None
    """The part that the whole recording is; None where it was divided."""

    @property
    def is_held_out(self) -> bool:
        """Whether the whole recording validates or tests: nothing is measured or learned there."""
        return self.whole in ("valid", "test")

    @cached_property
    def training(self) -> np.ndarray:
        """Time that neither validates nor tests any task, seconds, (n, 2)."""
        return training_intervals(self.recording, list(self.splits.values()))

    @cached_property
    def validation(self) -> np.ndarray:
        """Time that validates some task and tests none: monitors pretraining, seconds, (n, 2)."""
        valid = np.concatenate([np.empty((0, 2)), *(s.valid for s in self.splits.values())])
        tested = np.concatenate([np.empty((0, 2)), *(s.test for s in self.splits.values())])
        overlaps = [np.any((tested[:, 0] < end) & (tested[:, 1] > start)) for start, end in valid]
        return valid[~np.array(overlaps, dtype=bool)]


class Divided(Sequence[DividedRecording]):
    """Recordings divided for some tasks: what can be asked of them, of whichever units.

    Args:
        divided: Recordings and their parts.
    """

    def __init__(self, divided: Iterable[DividedRecording] = ()) -> None:
        self._divided = list(divided)
        self.tasks = {name: task for d in self._divided for name, task in d.tasks.items()}
        """What they were divided for, by name."""

    @overload
    def __getitem__(self, index: int) -> DividedRecording: ...
    @overload
    def __getitem__(self, index: slice) -> Divided: ...
    def __getitem__(self, index: int | slice) -> DividedRecording | Divided:
        if isinstance(index, slice):
            return Divided(self._divided[index])
        return self._divided[index]

    def __len__(self) -> int:
        return len(self._divided)

    def __repr__(self) -> str:
        tasks = ", ".join(self.tasks) or "no task"
        names = ", ".join(d.recording.recording_id for d in self._divided[:3])
        more = f" and {len(self) - 3} more" if len(self) > 3 else ""
        return f"<{len(self)} recordings divided for {tasks}: {names}{more}>"

    def __add__(self, other: Divided) -> Divided:
        return Divided([*self, *other])

    @property
    def recordings(self) -> list[Recording]:
        """The recordings, in order."""
        return [d.recording for d in self._divided]

    def task(self, task: Task | str) -> Task:
        """The task as the recordings were divided for it.

        Raises:
            RecordingError: If they were not.
        """
        name = find_task(task).name if isinstance(task, Task) or task not in self.tasks else task
        if name not in self.tasks:
            raise RecordingError(
                f"The recordings were not divided for the task '{name}' (but for: "
                f"{', '.join(self.tasks) or 'none'}). Name it where they are divided."
            )
        return self.tasks[name]

    def answering(self, task: Task) -> list[DividedRecording]:
        """The recordings that can answer a task."""
        return [d for d in self._divided if task.name in d.splits]

    def learning(self, task: Task) -> list[DividedRecording]:
        """Those of them that have a training part."""
        return [d for d in self.answering(task) if len(d.splits[task.name].train)]

    def classes(self, task: Task) -> np.ndarray:
        """Every answer that occurs in the recordings, sorted; empty where any number may be."""
        return find_classes(self.recordings, task)

    def require_choice(self, task: Task) -> None:
        """Refuses a task of which only one label occurs.

        Raises:
            RecordingError: If there is nothing to tell apart.
        """
        classes = self.classes(task)
        if task.answer.has_budget and len(classes) == 1:
            raise RecordingError(
                f"All answers in the column {task.column} of {task.stimulus} are {classes[0]}, so "
                f"the task '{task.name}' has nothing to tell apart. Add recordings with other "
                "answers, or ask for another column."
            )

    def shows(self, task: Task, part: Part) -> np.ndarray:
        """How many trials of every class all recordings show in a part, (num_classes,)."""
        classes = self.classes(task)
        counts = np.zeros(len(classes), dtype=int)
        for d in self.answering(task):
            table = presentations(d.recording, task)
            assert table is not None
            answers = task.answer.clean(table[task.column])
            is_known, index = task.answer.targets(answers, classes)
            onsets = table["start"].to_numpy()
            is_there = is_known & begin_inside(onsets, d.splits[task.name].part(part))
            counts += np.bincount(index[is_there], minlength=len(classes))
        return counts

    def untrained(self, task: Task) -> tuple[int, ...]:
        """Positions of the labels that no training part shows; no decoder can answer them."""
        if not task.answer.has_budget:
            return ()
        return tuple(np.flatnonzero(self.shows(task, "train") == 0).tolist())

    def pictures(self, task: Task) -> Tensor:
        """The pictures a task asks for, grey in [0, 1], (num_pictures, 64, 128).

        Raises:
            RecordingError: If recordings show different pictures under one name.
        """
        templates = [d.recording.templates[task.stimulus] for d in self.answering(task)]
        if any(not np.array_equal(templates[0], other) for other in templates[1:]):
            raise RecordingError(
                f"The recordings show different pictures as {task.stimulus}; run them separately."
            )
        return resize_pictures(templates[0])

    def windows(
        self, divided: DividedRecording, task: Task, part: Part, num_timesteps: int
    ) -> TaskWindows:
        """The windows of a task in one part of one recording."""
        splits = divided.splits[task.name]
        return find_windows(
            divided.recording,
            task,
            splits.part(part),
            self.classes(task),
            num_timesteps,
            reach=splits.reach(part),
        )


def divide(
    recordings: Recording | Iterable[Recording],
    tasks: Task | str | Iterable[Task | str],
    config: SplitConfig = _DEFAULT_SPLITS,
) -> Divided:
    """Divides every recording for every task that it can answer.

    Args:
        recordings: What was recorded.
        tasks: One or several: names such as ``direction``, texts such as ``sequence/segment``, or
            tasks of one's own.
        config: How much validates and tests, and which.

    Raises:
        RecordingError: If some task can be answered by no recording, or asks for pictures that a
            recording shows and does not hold.
        SplitError: If the config names a recording that is not there.
        ValueError: If a task is unknown.
    """
    recordings = as_recordings(recordings)
    asked = [tasks] if isinstance(tasks, Task | str) else tasks
    wanted = [find_task(task) for task in asked]
    for task in wanted:
        if not any(can_answer(recording, task) for recording in recordings):
            found = sorted({name for r in recordings for name in r.stimuli})
            tables = [r.stimuli[task.stimulus] for r in recordings if task.stimulus in r.stimuli]
            columns = sorted({str(name) for table in tables for name in table} - {"start", "end"})
            series = sorted({name for r in recordings for name in r.time_series})
            raise RecordingError(
                f"None of {len(recordings)} recordings can answer the task '{task.name}', which "
                f"needs {task.stimulus} with a column {task.column}"
                f"{' and its pictures' if task.answer.needs_pictures else ''} "
                f"(found: {', '.join(found) or 'no stimulus at all'}"
                f"{f'; columns of {task.stimulus}: ' if columns else ''}{', '.join(columns)}"
                f"{'; time series ' if series else ''}{', '.join(series)}). Choose another task, "
                "such as stimulus/column, or name the table of what was shown in the source."
            )
    require_known_names(recordings, config)
    settled = {task.name: settle(task, recordings) for task in wanted}
    held_out = _find_held_out(recordings, settled.values(), config)
    divided = []
    for recording in recordings:
        answered = {n: task for n, task in settled.items() if can_answer(recording, task)}
        for task in answered.values():
            _require_pictures(recording, task)
        splits = {
            name: split_task(recording, task, config, held_out) for name, task in answered.items()
        }
        divided.append(DividedRecording(recording, splits, answered, named_part(recording, config)))
    for task in settled.values():
        _warn_of_untrained(Divided(divided), task)
    return Divided(divided)


def _require_pictures(recording: Recording, task: Task) -> None:
    """Checks that every picture that a task asks for is there.

    Raises:
        RecordingError: If the numbers of some are beyond the last one.
    """
    if not task.answer.needs_pictures:
        return
    last = recording.stimuli[task.stimulus][task.column].max()
    num_pictures = len(recording.templates[task.stimulus])
    if last >= num_pictures:
        raise RecordingError(
            f"Recording '{recording.recording_id}' shows {task.column} {last:g} of "
            f"{task.stimulus}, but has {num_pictures} pictures, and the first one is 0. Subtract "
            f"1 if they are counted from 1, or leave the task '{task.name}' out."
        )


def _find_held_out(
    recordings: list[Recording], tasks: Collection[Task], config: SplitConfig
) -> HeldOutValues | None:
    """The values that are held out in all recordings alike; None where no column is named."""
    if not config.held_out_column or not recordings:
        return None
    shown = {
        (recording.recording_id, task.stimulus): table
        for task in tasks
        for recording in recordings
        if (table := presentations(recording, task)) is not None
    }
    tables = [table for table in shown.values() if config.held_out_column in table]
    if not tables:
        found = sorted({str(column) for table in shown.values() for column in table})
        raise SplitError(
            f"No stimulus that the tasks ask about has a column '{config.held_out_column}' to hold "
            f"out values of (found: {', '.join(found)}). Correct held_out_column of the splits, or "
            "that of earlier_splits where these recordings are only pretrained on."
        )
    asked = [task.answer for task in tasks if task.column == config.held_out_column]
    values = HeldOutValues.draw(tables, config, asked)
    logger.info("Held out wherever it is shown: %s", values)
    return values


def _warn_of_untrained(divided: Divided, task: Task) -> None:
    """Says which classes are tested although no training part shows them."""
    if not (task.answer.has_budget and divided.learning(task)):
        return
    classes, tested = divided.classes(task), divided.shows(task, "test")
    missing = [index for index in divided.untrained(task) if tested[index]]
    if missing:
        logger.warning(
            "%d of %d classes of the task '%s' are tested but shown in no training part (%s): no "
            "decoder can answer them, which makes %d of %d test trials wrong. Choose another split "
            "or more recordings, or read the score of the other classes.",
            len(missing),
            len(classes),
            task.name,
            ", ".join(map(str, classes[missing][:8].tolist())),
            tested[missing].sum(),
            tested.sum(),
        )


def require_one_rate(recordings: Sequence[Recording]) -> None:
    """Refuses recordings of different sampling rates.

    Raises:
        RecordingError: If the rates differ by more than ``RATE_TOLERANCE``.
    """
    rates = [recording.sampling_rate for recording in recordings]
    if not is_one_rate(*rates):
        raise RecordingError(
            f"The recordings are sampled at {min(rates):.2f} to {max(rates):.2f} Hz; one model "
            "needs one rate. Run them separately, or resample them first."
        )


def require_training_time(divided: Sequence[DividedRecording]) -> None:
    """Refuses recordings of which nothing is left to train on, and says which tasks took it."""
    problems = []
    for d in divided:
        if d.is_held_out or d.recording.is_inside(d.training).any():
            continue
        shares = {name: d.recording.is_inside(s.withheld).mean() for name, s in d.splits.items()}
        takers = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share > 0)
        problems.append(f"Recording '{d.recording.recording_id}' ({takers})")
    if problems:
        raise RecordingError(
            "Nothing is left to train on: the valid, test and guard parts of the tasks together "
            f"withhold all of {'; '.join(problems)}. Divide for fewer tasks at once, lower "
            "valid_fraction, test_fraction, held_out_blocks or guard, or leave the recording out."
        )
