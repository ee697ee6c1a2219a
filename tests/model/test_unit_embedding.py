"""Embeddings of units begin, grow and shrink as torch-brain's do."""

from __future__ import annotations

import torch
from torch_brain.nn import InfiniteVocabEmbedding as Textbook

from poyo_ssl.model.unit_embedding import UnitEmbedding


def test_weights_and_random_numbers_are_those_of_torch_brain():
    torch.manual_seed(0)
    ours = UnitEmbedding(5)
    ours.extend_vocab(["a", "b"])
    ours.extend_vocab(["b", "c"])
    ours.subset_vocab(["c", "a"])
    kept = ours.weight.detach().clone()
    ours.reset_parameters()
    torch.manual_seed(0)
    theirs = Textbook(5, init_scale=1.0)
    theirs.initialize_vocab([])
    theirs.extend_vocab(["a", "b"])
    theirs.extend_vocab(["b", "c"], exist_ok=True)
    theirs.subset_vocab(["c", "a"])
    assert torch.equal(kept, theirs.weight)
    theirs.reset_parameters()
    assert torch.equal(ours.weight, theirs.weight)
    assert ours.vocab == dict(theirs.vocab)
    rows = torch.tensor(ours.tokenizer(["a", "c"]))
    assert torch.equal(ours(rows), theirs(rows))


def test_padding_is_zero_and_does_not_learn():
    embedding = UnitEmbedding(3)
    embedding.extend_vocab(["a"])
    embedding(torch.tensor([0, 1])).sum().backward()
    assert not embedding.weight[0].any()
    assert embedding.weight.grad.tolist() == [[0.0] * 3, [1.0] * 3]
