"""Every window once, in the same order at each pass: for validation, and to read latents."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Protocol

import numpy as np
from torch.utils.data import IterableDataset

from poyo_ssl.windows.training_batches import Hold, WindowBatch, WindowSource, hold_sources


class ValidationBatches(Protocol):
    """What is validated on, in the same order at each pass."""

    def held(self, hold: Hold) -> ValidationBatches:
        """The same batches of activity that is held elsewhere."""
        ...

    def divided(self, rank: int, num_ranks: int) -> IterableDataset[list[WindowBatch]]:
        """The share that one process of several takes."""
        ...


class EvaluationBatches(IterableDataset[list[WindowBatch]]):
    """Every window once, in order, with all units; the same at each pass.

    Args:
        sources: Whose windows, one entry per recording.
        batch_size: Windows in a batch, which are of one recording.
        num_timesteps: Imaging samples in a window.
        share: Take the batches of one of several processes (which one, of how many). Where there
            are fewer batches than processes each takes all, which leaves every average as it is.
    """

    def __init__(
        self,
        sources: list[WindowSource],
        *,
        batch_size: int,
        num_timesteps: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.sources = sources
        self.batch_size = batch_size
        self.num_timesteps = num_timesteps
        self.share = share

    def held(self, hold: Hold) -> EvaluationBatches:
        """The same batches of activity that is held elsewhere."""
        elsewhere = copy(self)
        elsewhere.sources = hold_sources(self.sources, hold)
        return elsewhere

    def divided(self, rank: int, num_ranks: int) -> EvaluationBatches:
        """The same windows, of which one process of several takes its share of whole batches."""
        mine = copy(self)
        mine.share = rank, num_ranks
        return mine

    def __iter__(self) -> Iterator[list[WindowBatch]]:
        starts = [
            (source, start)
            for source in self.sources
            for start in range(0, len(source.first_timestep), self.batch_size)
        ]
        rank, num_ranks = self.share
        for source, start in starts[rank::num_ranks] if len(starts) >= num_ranks else starts:
            index = np.arange(start, min(start + self.batch_size, len(source.first_timestep)))
            yield [source.batch(index, np.zeros(len(index), dtype=int), self.num_timesteps)]


class MixedValidation(IterableDataset[list[WindowBatch]]):
    """Every window of every stream once; each batch holds its share of all of them.

    A loss with a term of each stream is then the same sum in every batch.

    Args:
        streams: Sources of each stream, and the imaging samples in its windows.
        batch_size: Windows in a batch, in all streams together; more where a stream has fewer
            windows than there would be batches.
        share: Take the batches of one of several processes (which one, of how many). Where there
            are fewer batches than processes each takes all, which leaves every average as it is.
    """

    def __init__(
        self,
        streams: list[tuple[list[WindowSource], int]],
        *,
        batch_size: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.streams = streams
        self.batch_size = batch_size
        self.share = share

    def held(self, hold: Hold) -> MixedValidation:
        """The same batches of activity that is held elsewhere."""
        streams = [(hold_sources(sources, hold), length) for sources, length in self.streams]
        return MixedValidation(streams, batch_size=self.batch_size, share=self.share)

    def divided(self, rank: int, num_ranks: int) -> MixedValidation:
        """The same windows, of which one process of several takes its share of whole batches."""
        return MixedValidation(self.streams, batch_size=self.batch_size, share=(rank, num_ranks))

    def __iter__(self) -> Iterator[list[WindowBatch]]:
        counts = [sum(len(s.first_timestep) for s in sources) for sources, _ in self.streams]
        num_batches = min(-(-sum(counts) // self.batch_size), *counts)
        rank, num_ranks = self.share if num_batches >= self.share[1] else (0, 1)
        for at in range(rank, num_batches, num_ranks):
            yield [
                group
                for sources, num_timesteps in self.streams
                for group in _part(sources, num_timesteps, at, num_batches)
            ]


def _part(
    sources: list[WindowSource], num_timesteps: int, at: int, num_parts: int
) -> Iterator[WindowBatch]:
    """One of several equal parts of a stream, a group for each recording in it."""
    counts = [len(source.first_timestep) for source in sources]
    owner = np.repeat(np.arange(len(sources)), counts)
    position = np.concatenate([np.arange(count) for count in counts])
    mine = np.array_split(np.arange(len(owner)), num_parts)[at]
    for source in np.unique(owner[mine]):
        index = position[mine[owner[mine] == source]]
        still = np.zeros(len(index), dtype=int)
        yield sources[source].batch(index, still, num_timesteps)
