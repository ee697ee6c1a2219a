"""Batches of windows: which ones is a pure function of the seed and the step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from poyo_ssl.windows.activity import Activity, Windows
from poyo_ssl.windows.task_windows import TaskWindows

NUM_DIRECTIONS = 4
"""Along which the answers of teachers are compared: numbers enough that two never agree in all."""

Place = Callable[[Activity], Activity]
"""Brings the activity of a recording to where it is to lie, such as the device that trains."""


@dataclass(kw_only=True)
class WindowBatch:
    """Windows of one recording: a dense block, nothing padded."""

    activity: Tensor
    """Normalised activity, (B, timesteps, U)."""
    unit_index: Tensor
    """Row of each unit in the encoder's unit embedding, (U,)."""
    target: Tensor
    """Index of the right answer, (B,); -1 where the window has no label."""
    teacher_answer: Tensor | None = None
    """A linear teacher's answer, (B, K), where there is one: probabilities of the classes, or
    component scores of the picture."""
    position: Tensor | None = None
    """Place of each window in its whole step, whatever part of it this is, (B,). What is random in
    a window can be drawn for the whole step and read here, so that all parts hide the same."""
    recording_id: str = ""
    """Whose windows these are."""

    @property
    def windows(self) -> Windows:
        """What a network reads: the activity and whose it is."""
        return Windows(self.activity, self.unit_index)


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowSource:
    """The windows of one recording that may be drawn."""

    activity: Activity
    unit_index: Tensor
    """Row of each unit in the encoder's unit embedding, (U,)."""
    windows: TaskWindows
    """Where they begin, how long they are, and the right answers, -1 without a label."""
    may_start: np.ndarray
    """Whether a window that starts at a timestep stays in its part, (num_timesteps,)."""
    teacher_answer: Tensor | None = None
    """A linear teacher's answer, (num_windows, K), where there is one."""

    def __len__(self) -> int:
        return len(self.windows)

    def take(self, index: np.ndarray) -> WindowSource:
        """The windows at these positions."""
        answer = self.teacher_answer
        return replace(
            self,
            windows=self.windows.take(index),
            teacher_answer=None if answer is None else answer[index],
        )

    def every(self, step: int) -> WindowSource:
        """One of so many windows, from the first on."""
        return self.take(np.arange(0, len(self), step))

    def half_apart(self) -> WindowSource:
        """Windows that begin half a window apart, of those in order of time that begin nearer."""
        apart = int(np.median(np.diff(self.windows.first_timestep))) if len(self) > 1 else 1
        return self.every(max(1, self.windows.num_timesteps // 2 // max(1, apart)))

    def to(self, place: Place) -> WindowSource:
        """The same windows of activity that lies elsewhere."""
        return replace(self, activity=place(self.activity))

    def binned(self, num_bins: int) -> np.ndarray:
        """Mean activity in equal bins of every window, (num_windows, num_bins * num_units)."""
        windows = self.windows
        return self.activity.binned(windows.first_timestep, windows.num_timesteps, num_bins)

    def batch(
        self,
        index: np.ndarray,
        shift: np.ndarray,
        columns: np.ndarray | None = None,
        position: np.ndarray | None = None,
    ) -> WindowBatch:
        """The windows at these positions, each moved by so many timesteps.

        A window whose shift would take it out of its part is not moved.

        Args:
            index: Positions among the windows, (B,).
            shift: Timesteps, (B,).
            columns: Positions of the units to keep, (U,); None for all.
            position: Place of each window in its step, (B,).
        """
        first = self.windows.first_timestep[index]
        shifted = np.minimum(np.maximum(first + shift, 0), len(self.may_start) - 1)
        first = np.where(self.may_start[shifted], shifted, first)
        units, answer = self.unit_index, self.teacher_answer
        return WindowBatch(
            activity=self.activity.windows(first, self.windows.num_timesteps, columns),
            unit_index=units if columns is None else _rows(units, columns),
            target=torch.from_numpy(self.windows.target[index]),
            teacher_answer=None if answer is None else _rows(answer, index),
            position=None if position is None else torch.from_numpy(position),
            recording_id=self.activity.recording_id,
        )


def _rows(values: Tensor, index: np.ndarray) -> Tensor:
    """Chosen rows; for so few, numpy takes a third of the time that indexing a tensor takes."""
    return torch.from_numpy(values.numpy()[index])


def thin(sources: list[WindowSource], max_windows: int) -> list[WindowSource]:
    """Keeps every k-th window of every source, so that at most ``max_windows`` or so are left."""
    step = max(1, -(-sum(map(len, sources)) // max_windows))
    return [source.every(step) for source in sources]


def draw_units(num_units: int, rng: np.random.Generator, largest_rate: float) -> np.ndarray:
    """Positions of the units that a step keeps, in order; the others are left out of it.

    The rate at which units are left out is drawn from U(0, ``largest_rate``); one at least stays.
    """
    drawn = rng.random(num_units + 1)
    is_kept = drawn[:-1] >= largest_rate * drawn[-1]
    is_kept[rng.integers(num_units)] = True
    return is_kept.nonzero()[0]


class TrainingSteps(Protocol):
    """What is trained on: the windows of every step, whole or in parts of equal size."""

    def step(self, step: int, part: int = 0, num_parts: int = 1) -> list[Any]:
        """One part of one step; all parts together hold what the undivided step holds.

        Returns:
            A :class:`WindowBatch` for each recording or, of members, a list of them for each.
        """
        ...

    def to(self, place: Place) -> TrainingSteps:
        """The same steps of activity that lies elsewhere."""
        ...

    def describe(self) -> dict[str, Any]:
        """What tells these steps from others, JSON-ready."""
        ...


class TrainingBatches(IterableDataset[list[WindowBatch]]):
    """Endless training batches; step ``k`` is a pure function of the seed and ``k``.

    All windows of all sources are drawn without replacement within an epoch, which is a
    permutation seeded by its number. Every step holds one dense group per recording drawn. A step
    can be had in parts, which share its draws: together they hold exactly the undivided step.

    Args:
        sources: What may be drawn, one entry per recording; all windows are equally long.
        batch_size: Windows in a step.
        seed: Seed of order, shifts and unit dropout.
        jitter: Windows start up to so many timesteps earlier or later.
        unit_dropout: Largest rate at which units are left out.
    """

    def __init__(
        self,
        sources: list[WindowSource],
        *,
        batch_size: int,
        seed: int,
        jitter: int,
        unit_dropout: float,
    ) -> None:
        self.sources = sources
        self.batch_size = batch_size
        self.seed = seed
        self.jitter = jitter
        self.unit_dropout = unit_dropout
        counts = [len(source) for source in sources]
        if sum(counts) == 0:
            raise ValueError(
                "There is no training window: every candidate crosses a gap or the border of the "
                "training part. Use a shorter window or a larger training part."
            )
        [self.num_timesteps] = {source.windows.num_timesteps for source in sources}
        self.owner = np.repeat(np.arange(len(sources)), counts)
        self.position = np.concatenate([np.arange(count) for count in counts])
        self._ordered_epoch, self._remembered = -1, np.empty(0, dtype=int)

    def to(self, place: Place) -> TrainingBatches:
        """The same steps of activity that lies elsewhere."""
        elsewhere = copy(self)
        elsewhere.sources = [source.to(place) for source in self.sources]
        return elsewhere

    def draw(self, step: int) -> np.ndarray:
        """Positions of the windows of one step among all windows, (batch_size,)."""
        first, stop = step * self.batch_size, (step + 1) * self.batch_size
        drawn = []
        while first < stop:
            epoch, begin = divmod(first, len(self.owner))
            drawn.append(self._order(epoch)[begin : begin + stop - first])
            first += len(drawn[-1])
        return np.concatenate(drawn)

    def _order(self, epoch: int) -> np.ndarray:
        """All windows in the order of an epoch; that of the last one asked for is remembered."""
        if epoch != self._ordered_epoch:
            rng = np.random.default_rng([self.seed, 1, epoch])
            self._remembered, self._ordered_epoch = rng.permutation(len(self.owner)), epoch
        return self._remembered

    def step(self, step: int, part: int = 0, num_parts: int = 1) -> list[WindowBatch]:
        """A dense group of windows for each recording drawn in a part of a step.

        Raises:
            ValueError: If the windows of a step cannot be divided into equal parts.
        """
        if self.batch_size % num_parts:
            raise ValueError(
                f"{self.batch_size} windows a step cannot be divided into {num_parts} equal parts "
                "(processes x accumulate). Choose a batch_size that can, or other numbers of them."
            )
        size = self.batch_size // num_parts
        drawn = self.draw(step)
        owners = self.owner[drawn]
        rng = np.random.default_rng([self.seed, 2, step])
        groups = []
        for owner in np.unique(owners):
            source = self.sources[owner]
            place = np.flatnonzero(owners == owner)
            shift = rng.integers(-self.jitter, self.jitter + 1, len(place))
            kept = draw_units(len(source.unit_index), rng, self.unit_dropout)
            mine = place // size == part
            if mine.any():
                index = self.position[drawn[place[mine]]]
                groups.append(source.batch(index, shift[mine], kept, place[mine]))
        return groups

    def describe(self) -> dict[str, Any]:
        """Settings, and digests of which windows of which activity may be drawn."""
        digest, activity = hashlib.sha256(), hashlib.sha256()
        for source in self.sources:
            activity.update(source.activity.digest.encode())
            digest.update(
                "\n".join([source.activity.recording_id, *source.activity.unit_ids]).encode()
            )
            windows = source.windows
            for values in (source.unit_index.numpy(), windows.first_timestep, windows.target):
                kind = np.float64 if values.dtype.kind == "f" else np.int64
                digest.update(np.ascontiguousarray(values, dtype=kind).data)
        return {
            "windows": f"{len(self.owner)} windows, sha256 {digest.hexdigest()[:16]}",
            "activity": f"sha256 {activity.hexdigest()[:16]}",
            "teacher": _describe_answers(self.sources),
            "batch_size": self.batch_size,
            "num_timesteps": self.num_timesteps,
            "seed": self.seed,
            "jitter": self.jitter,
            "unit_dropout": self.unit_dropout,
        }

    def __iter__(self) -> Iterator[list[WindowBatch]]:
        yield from map(self.step, count())


def _describe_answers(sources: list[WindowSource]) -> str:
    """How large a teacher's answers are, and how they lie along some fixed directions.

    They come out of linear algebra, whose last digits differ from machine to machine: three digits
    tell other teachers, but not the same one.
    """
    answers = [source.teacher_answer for source in sources if source.teacher_answer is not None]
    if not answers:
        return "none"
    answer = torch.cat(answers).double().numpy()
    size = float(np.linalg.norm(answer))
    over_windows, over_answers = (
        np.random.default_rng(0).normal(size=(NUM_DIRECTIONS, length)) for length in answer.shape
    )
    along = ((over_windows @ answer) * over_answers).sum(axis=1) / (size or 1.0)
    return f"size {size:.3g}, along {' '.join(f'{value:.3f}' for value in along)}"


class MixedBatches(IterableDataset[list[WindowBatch]]):
    """Steps that hold windows from several streams, such as labelled and unlabelled ones."""

    def __init__(self, streams: list[TrainingBatches]) -> None:
        self.streams = streams

    def step(self, step: int, part: int = 0, num_parts: int = 1) -> list[WindowBatch]:
        """The groups of all streams; every stream is divided by itself."""
        groups, num_before = [], 0
        for stream in self.streams:
            for group in stream.step(step, part, num_parts):
                assert group.position is not None
                groups.append(replace(group, position=group.position + num_before))
            num_before += stream.batch_size
        return groups

    def to(self, place: Place) -> MixedBatches:
        """The same steps of activity that lies elsewhere."""
        return MixedBatches([stream.to(place) for stream in self.streams])

    def describe(self) -> dict[str, Any]:
        """Every stream."""
        return {f"stream {i}": stream.describe() for i, stream in enumerate(self.streams)}

    def __iter__(self) -> Iterator[list[WindowBatch]]:
        yield from map(self.step, count())


class StepParts(IterableDataset[list[Any]]):
    """The parts of every step that one process takes, one after the other.

    Args:
        steps: What is divided.
        parts: Those of this process, the same in every step.
        num_parts: Parts of a whole step.
        first_step: Where to begin; later ones need nothing that came before them.
    """

    def __init__(
        self, steps: TrainingSteps, *, parts: range, num_parts: int, first_step: int = 0
    ) -> None:
        self.steps = steps
        self.parts = parts
        self.num_parts = num_parts
        self.first_step = first_step

    def __iter__(self) -> Iterator[list[Any]]:
        for step in count(self.first_step):
            for part in self.parts:
                yield self.steps.step(step, part, self.num_parts)
