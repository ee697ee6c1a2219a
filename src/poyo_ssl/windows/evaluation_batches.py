"""Every window once, in the same order at each pass: for validation, and to read latents."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Protocol

import numpy as np
from torch.utils.data import IterableDataset

from poyo_ssl.windows.training_batches import Place, WindowBatch, WindowSource


class ValidationBatches(Protocol):
    """What is validated on, in the same order at each pass."""

    def to(self, place: Place) -> ValidationBatches:
        """The same batches of activity that lies elsewhere."""
        ...

    def divided(self, rank: int, num_ranks: int) -> IterableDataset[list[WindowBatch]]:
        """The share that one process of several takes."""
        ...


class EvaluationBatches(IterableDataset[list[WindowBatch]]):
    """Every window once, in order, with all units; the same at each pass.

    Args:
        sources: Whose windows, one entry per recording.
        batch_size: Windows in a batch, which are of one recording.
        share: Take the batches of one of several processes (which one, of how many). Where there
            are fewer batches than processes each takes all, which leaves every average as it is.
    """

    def __init__(
        self,
        sources: list[WindowSource],
        *,
        batch_size: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.sources = sources
        self.batch_size = batch_size
        self.share = share

    def to(self, place: Place) -> EvaluationBatches:
        """The same batches of activity that lies elsewhere."""
        elsewhere = copy(self)
        elsewhere.sources = [source.to(place) for source in self.sources]
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
            for start in range(0, len(source), self.batch_size)
        ]
        rank, num_ranks = self.share
        for source, start in starts[rank::num_ranks] if len(starts) >= num_ranks else starts:
            index = np.arange(start, min(start + self.batch_size, len(source)))
            yield [source.batch(index, np.zeros_like(index))]


class MixedValidation(IterableDataset[list[WindowBatch]]):
    """Every window of every stream once; each batch holds its share of all of them.

    A loss with a term of each stream is then the same sum in every batch.

    Args:
        streams: Sources of each stream, whose windows may be of another length.
        batch_size: Windows in a batch, in all streams together; more where a stream has fewer
            windows than there would be batches.
        share: Take the batches of one of several processes (which one, of how many). Where there
            are fewer batches than processes each takes all, which leaves every average as it is.
    """

    def __init__(
        self,
        streams: list[list[WindowSource]],
        *,
        batch_size: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.streams = streams
        self.batch_size = batch_size
        self.share = share

    def to(self, place: Place) -> MixedValidation:
        """The same batches of activity that lies elsewhere."""
        streams = [[source.to(place) for source in stream] for stream in self.streams]
        return MixedValidation(streams, batch_size=self.batch_size, share=self.share)

    def divided(self, rank: int, num_ranks: int) -> MixedValidation:
        """The same windows, of which one process of several takes its share of whole batches."""
        return MixedValidation(self.streams, batch_size=self.batch_size, share=(rank, num_ranks))

    def __iter__(self) -> Iterator[list[WindowBatch]]:
        counts = [sum(map(len, stream)) for stream in self.streams]
        num_batches = min(-(-sum(counts) // self.batch_size), *counts)
        rank, num_ranks = self.share if num_batches >= self.share[1] else (0, 1)
        for at in range(rank, num_batches, num_ranks):
            yield [group for stream in self.streams for group in _part(stream, at, num_batches)]


def _part(sources: list[WindowSource], at: int, num_parts: int) -> Iterator[WindowBatch]:
    """One of several equal parts of a stream, a group for each recording in it."""
    counts = [len(source) for source in sources]
    owner = np.repeat(np.arange(len(sources)), counts)
    position = np.concatenate([np.arange(count) for count in counts])
    mine = np.array_split(np.arange(len(owner)), num_parts)[at]
    for source in np.unique(owner[mine]):
        index = position[mine[owner[mine] == source]]
        yield sources[source].batch(index, np.zeros_like(index))
