"""What labels taught beside an encoder answers again where the task is the same, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import poyo_ssl as ps
from poyo_ssl.finetuning.finetune import find_starts
from poyo_ssl.model.checkpoints import load_encoder, save_encoder
from poyo_ssl.windows.tasks import DIRECTION, TEMPORAL_FREQUENCY
from tiny_fits import ENCODER, few_steps

LABELS = ps.PretrainingConfig(
    objective="labels",
    label_weight=1.0,
    training=ps.TrainingConfig(max_steps=40, batch_size=16, lr=0.02, jitter=0.0),
)


@pytest.fixture(scope="module")
def taught(tiny_population) -> ps.Encoder:
    return ps.pretrain(tiny_population, LABELS, encoder=ENCODER, seed=0)


@pytest.fixture(scope="module")
def classes(tiny_population) -> np.ndarray:
    return tiny_population.divided.classes(DIRECTION)


def untrained(population, encoder) -> ps.FittedDecoder:
    """Nothing is learned any more."""
    config = few_steps(1, lr=1e-12, jitter=0.0)
    return ps.finetune(population, "direction", encoder, config, seed=3)


def test_query_and_readout_transfer_so_that_nothing_is_left_to_learn(
    tiny_population, tiny_divided, taught
):
    def accuracy(encoder) -> float:
        decoder = untrained(tiny_population, encoder)
        return float(ps.evaluate(decoder, [tiny_divided]).mean()["accuracy"])

    stranger = ps.pretrain(tiny_population, LABELS, encoder=ENCODER, seed=0)
    stranger.taught = None
    assert accuracy(taught) > 0.8 > 0.6 > accuracy(stranger)


def test_another_task_or_other_answers_start_afresh(taught, classes):
    assert find_starts(taught, DIRECTION, classes)[0].answering
    assert not find_starts(taught, DIRECTION, classes[::-1])[0].answering
    assert not find_starts(taught, DIRECTION, classes[:-1])[0].answering
    assert not find_starts(taught, TEMPORAL_FREQUENCY, classes)[0].answering


def test_it_is_saved_and_loaded(taught, classes, tmp_path):
    save_encoder(taught, tmp_path)
    loaded = load_encoder(tmp_path).taught
    assert loaded.suits("direction", classes)
    assert loaded.tensors.keys() == taught.taught.tensors.keys()
    for name, value in taught.taught.tensors.items():
        assert torch.equal(value, loaded.tensors[name])


def test_without_labels_there_is_none(tiny_population, taught):
    alone = ps.PretrainingConfig(
        objective="masked_activity",
        window_length=1.0,
        training=replace(LABELS.training, max_steps=1),
    )
    assert ps.pretrain(tiny_population, alone, encoder=ENCODER).taught is None
    assert ps.pretrain(tiny_population, alone, encoder=taught).taught is None
