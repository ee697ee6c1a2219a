"""Batches of windows: which ones is a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from poyo_ssl.recordings.activity import Activity


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

    @property
    def group(self) -> tuple[Tensor, Tensor]:
        """What a network reads: the activity and whose it is."""
        return self.activity, self.unit_index


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowSource:
    """The windows of one recording that may be drawn."""

    activity: Activity
    unit_index: Tensor
    """Row of each unit in the encoder's unit embedding, (U,)."""
    first_timestep: np.ndarray
    """Of every window, shape (num_windows,)."""
    target: np.ndarray
    """Index of the right answer, (num_windows,); -1 without a label."""
    may_start: np.ndarray
    """Whether a window that starts at a timestep stays in its part, (num_timesteps,)."""
    teacher_answer: Tensor | None = None
    """A linear teacher's answer, (num_windows, K), where there is one."""

    def take(self, index: np.ndarray) -> WindowSource:
        """The windows at these positions."""
        answer = self.teacher_answer
        return replace(
            self,
            first_timestep=self.first_timestep[index],
            target=self.target[index],
            teacher_answer=None if answer is None else answer[index],
        )

    def batch(
        self,
        index: np.ndarray,
        shift: np.ndarray,
        num_timesteps: int,
        columns: np.ndarray | None = None,
    ) -> WindowBatch:
        """The windows at these positions, each moved by so many timesteps.

        A window whose shift would take it out of its part is not moved.

        Args:
            index: Positions among the windows, (B,).
            shift: Timesteps, (B,).
            num_timesteps: Imaging samples in a window.
            columns: Positions of the units to keep, (U,); None for all.
        """
        first = self.first_timestep[index]
        shifted = np.minimum(np.maximum(first + shift, 0), len(self.may_start) - 1)
        first = np.where(self.may_start[shifted], shifted, first)
        units, answer = self.unit_index, self.teacher_answer
        return WindowBatch(
            activity=self.activity.windows(first, num_timesteps, columns),
            unit_index=units if columns is None else _rows(units, columns),
            target=torch.from_numpy(self.target[index]),
            teacher_answer=None if answer is None else _rows(answer, index),
        )


def _rows(values: Tensor, index: np.ndarray) -> Tensor:
    """Chosen rows; for so few, numpy takes a third of the time that indexing a tensor takes."""
    return torch.from_numpy(values.numpy()[index])


def thin(sources: list[WindowSource], max_windows: int) -> list[WindowSource]:
    """Keeps every k-th window of every source, so that at most ``max_windows`` or so are left."""
    total = sum(len(source.first_timestep) for source in sources)
    step = max(1, -(-total // max_windows))
    return [source.take(np.arange(0, len(source.first_timestep), step)) for source in sources]


def draw_units(num_units: int, rng: np.random.Generator, largest_rate: float) -> np.ndarray:
    """Positions of the units that a step keeps, in order; the others are left out of it.

    The rate at which units are left out is drawn from U(0, ``largest_rate``); one at least stays.
    """
    drawn = rng.random(num_units + 1)
    is_kept = drawn[:-1] >= largest_rate * drawn[-1]
    is_kept[rng.integers(num_units)] = True
    return is_kept.nonzero()[0]


class TrainingBatches(IterableDataset[list[WindowBatch]]):
    """Endless training batches; step ``k`` is a pure function of the seed and ``k``.

    All windows of all sources are drawn without replacement within an epoch, which is a
    permutation seeded by its number. Every step holds one dense group per recording drawn.

    Args:
        sources: What may be drawn, one entry per recording.
        batch_size: Windows in a step.
        num_timesteps: Imaging samples in a window.
        seed: Of order, shifts and unit dropout.
        jitter: Windows start up to so many timesteps earlier or later.
        unit_dropout: Largest rate at which units are left out.
    """

    def __init__(
        self,
        sources: list[WindowSource],
        *,
        batch_size: int,
        num_timesteps: int,
        seed: int,
        jitter: int,
        unit_dropout: float,
    ) -> None:
        self.sources = sources
        self.batch_size = batch_size
        self.num_timesteps = num_timesteps
        self.seed = seed
        self.jitter = jitter
        self.unit_dropout = unit_dropout
        counts = [len(source.first_timestep) for source in sources]
        if sum(counts) == 0:
            raise ValueError(
                "There is no training window: every candidate crosses a gap or the border of the "
                "training part. Use a shorter window or a larger training part."
            )
        self.owner = np.repeat(np.arange(len(sources)), counts)
        self.position = np.concatenate([np.arange(count) for count in counts])
        self._ordered_epoch, self._remembered = -1, np.empty(0, dtype=int)

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

    def step(self, step: int) -> list[WindowBatch]:
        """The batch of one step: a dense group of windows for each recording drawn."""
        drawn = self.draw(step)
        owners = self.owner[drawn]
        rng = np.random.default_rng([self.seed, 2, step])
        groups = []
        for owner in np.unique(owners):
            source = self.sources[owner]
            index = self.position[drawn[owners == owner]]
            shift = rng.integers(-self.jitter, self.jitter + 1, len(index))
            kept = draw_units(len(source.unit_index), rng, self.unit_dropout)
            groups.append(source.batch(index, shift, self.num_timesteps, kept))
        return groups

    def __iter__(self) -> Iterator[list[WindowBatch]]:
        step = 0
        while True:
            yield self.step(step)
            step += 1


class MixedBatches(IterableDataset[list[WindowBatch]]):
    """Steps that hold windows from several streams, such as labelled and unlabelled ones."""

    def __init__(self, streams: list[TrainingBatches]) -> None:
        self.streams = streams

    def __iter__(self) -> Iterator[list[WindowBatch]]:
        for steps in zip(*self.streams, strict=True):
            yield [group for groups in steps for group in groups]


class EvaluationBatches(IterableDataset[list[WindowBatch]]):
    """Every window once, in order, with all units; the same at each pass."""

    def __init__(self, sources: list[WindowSource], *, batch_size: int, num_timesteps: int) -> None:
        self.sources = sources
        self.batch_size = batch_size
        self.num_timesteps = num_timesteps

    def __iter__(self) -> Iterator[list[WindowBatch]]:
        for source in self.sources:
            for start in range(0, len(source.first_timestep), self.batch_size):
                index = np.arange(start, min(start + self.batch_size, len(source.first_timestep)))
                yield [source.batch(index, np.zeros(len(index), dtype=int), self.num_timesteps)]
