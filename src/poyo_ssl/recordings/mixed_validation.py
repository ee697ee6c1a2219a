"""Validation on several streams of windows at once, such as labelled and unlabelled ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import IterableDataset

from poyo_ssl.recordings.sampling import WindowBatch, WindowSource


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
