"""One learned vector per unit, for units that become known one animal after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PADDING = "NA"
"""What the first row is called, whose embedding is 0 and does not learn."""


class UnitEmbedding(nn.Module):
    """An embedding whose rows have names, and which grows.

    The weights, in order and start, are those of torch-brain's ``InfiniteVocabEmbedding``.

    Args:
        embedding_dim: Size of an embedding.
        init_scale: Standard deviation of new embeddings.
    """

    weight: nn.Parameter
    """Embeddings, (1 + units, embedding_dim)."""

    def __init__(self, embedding_dim: int, init_scale: float = 1.0) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.init_scale = init_scale
        self.vocab = {PADDING: 0}
        """Id of every unit to its row."""
        self.weight = nn.Parameter(torch.empty(0, embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gives every unit a new embedding."""
        weight = self.weight.detach().new_empty(len(self.vocab), self.embedding_dim)
        weight.normal_(std=self.init_scale)[0] = 0.0
        self.weight = nn.Parameter(weight)

    def extend_vocab(self, unit_ids: Sequence[str]) -> None:
        """Gives a new embedding to every unit that has none yet; the others keep theirs."""
        known = self.weight.detach()
        for unit_id in unit_ids:
            self.vocab.setdefault(unit_id, len(self.vocab))
        self.reset_parameters()
        self.weight.data[: len(known)] = known

    def subset_vocab(self, unit_ids: Sequence[str]) -> None:
        """Keeps these units alone, in this order."""
        kept = self.weight.detach()[[0, *self.tokenizer(list(unit_ids))]]
        self.vocab = {name: row for row, name in enumerate([PADDING, *unit_ids])}
        self.reset_parameters()
        self.weight.data[:] = kept

    @overload
    def tokenizer(self, unit_ids: str) -> int: ...
    @overload
    def tokenizer(self, unit_ids: list[str]) -> list[int]: ...
    def tokenizer(self, unit_ids: str | list[str]) -> int | list[int]:
        """Row of a unit, or rows of several."""
        if isinstance(unit_ids, str):
            return self.vocab[unit_ids]
        return [self.vocab[unit_id] for unit_id in unit_ids]

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (...) -> embeddings (..., embedding_dim)."""
        return F.embedding(rows, self.weight, padding_idx=0)

    def extra_repr(self) -> str:
        """Size and number of embeddings."""
        return f"embedding_dim={self.embedding_dim}, num_embeddings={len(self.vocab)}"
