"""Ways to transfer give every part of an encoder its rate, and every unit its embedding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from poyo_ssl.model.encoder import Encoder
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.training.transfer import (
    EMBEDDINGS,
    TRANSFERS,
    Layerwise,
    TransferError,
    keep_embeddings,
    prepare_encoder,
    reset_embeddings,
    shuffle_embeddings,
)
from tiny_fits import ENCODER

KNOWN = ["a", "b", "c", "d", "e"]
NEW = ["x", "y"]


@pytest.fixture
def encoder():
    torch.manual_seed(3)
    encoder = Encoder(replace(ENCODER, depth=3), 10.0)
    encoder.add_units([*KNOWN, "elsewhere"])
    return encoder


def embedding(encoder: Encoder, unit_id: str) -> torch.Tensor:
    return encoder.unit_embedding(encoder.unit_rows([unit_id]))[0].detach().clone()


def test_learning_starts_from_a_copy_and_leaves_the_pretrained_encoder_as_it_was(encoder):
    before = embedding(encoder, "a")
    prepared = prepare_encoder(encoder.eval(), 10.1)  # one per cent is jitter
    assert prepared.training
    assert not encoder.training
    keep_embeddings(prepared, NEW, seed=0)
    prepared.unit_embedding.weight.data.zero_()
    assert torch.equal(embedding(encoder, "a"), before)
    assert "x" not in encoder.unit_embedding.vocab


def test_a_config_makes_a_fresh_encoder_of_the_recordings_rate():
    fresh = prepare_encoder(ENCODER, 12.5)
    assert fresh.sampling_rate == 12.5
    assert fresh.config == ENCODER


@pytest.mark.parametrize("sampling_rate", [9.7, 10.3])
def test_an_encoder_of_another_imaging_rate_is_refused(encoder, sampling_rate):
    with pytest.raises(RecordingError, match=rf"at 10\.00 Hz.*at {sampling_rate:.2f} Hz.*resample"):
        prepare_encoder(encoder, sampling_rate)


def test_rates_fall_from_the_last_layer_to_the_first_and_are_lowest_where_windows_are_read(encoder):
    is_known = keep_embeddings(encoder, KNOWN + NEW, seed=0)
    rates = Layerwise(0.1).rates(encoder, is_known)
    for name, rate in rates.parameters.items():
        layers = {f"process_layers.{i}.": 0.1 ** (3 - i) for i in range(3)}
        expected = next((r for layer, r in layers.items() if name.startswith(layer)), 0.1**4)
        assert rate == pytest.approx(expected), name
    assert len(rates.parameters) == len(list(encoder.parameters())) - 1
    for unit_id in KNOWN:
        assert rates.units[encoder.unit_embedding.tokenizer(unit_id)] == pytest.approx(1e-4)
    for unit_id in NEW:
        assert rates.units[encoder.unit_embedding.tokenizer(unit_id)] == 1


@pytest.mark.parametrize("way", TRANSFERS)
def test_every_way_names_every_parameter_and_every_unit(encoder, way):
    is_known = keep_embeddings(encoder, KNOWN, seed=0)
    rates = TRANSFERS[way]().rates(encoder, is_known)
    names = {name for name, _ in encoder.named_parameters()} - {"unit_embedding.weight"}
    assert set(rates.parameters) == names
    assert rates.units.shape == (len(encoder.unit_embedding.weight),)


@pytest.mark.parametrize("choice", EMBEDDINGS)
def test_every_choice_of_embeddings_has_one_for_every_unit_and_none_for_padding(encoder, choice):
    is_known = EMBEDDINGS[choice](encoder, KNOWN + NEW, 0)
    assert is_known.shape == (len(encoder.unit_embedding.weight),)
    rows = [embedding(encoder, unit_id) for unit_id in KNOWN + NEW]
    assert len(torch.unique(torch.stack(rows), dim=0)) == 7
    assert torch.equal(encoder.unit_embedding.weight[0], torch.zeros(16))
    assert encoder.unit_embedding.weight.requires_grad


def test_tracked_units_keep_their_embeddings(encoder):
    before = {unit_id: embedding(encoder, unit_id) for unit_id in KNOWN}
    is_known = keep_embeddings(encoder, NEW + KNOWN, seed=0)
    for unit_id, value in before.items():
        assert torch.equal(embedding(encoder, unit_id), value)
        assert is_known[encoder.unit_embedding.tokenizer(unit_id)]
    assert not is_known[encoder.unit_rows(NEW)].any()


def test_reset_units_share_nothing_with_what_they_were(encoder):
    before = {unit_id: embedding(encoder, unit_id) for unit_id in KNOWN}
    is_known = reset_embeddings(encoder, KNOWN + NEW, seed=0)
    for unit_id, value in before.items():
        assert not (embedding(encoder, unit_id) == value).any()
    assert not is_known[encoder.unit_rows(KNOWN + NEW)].any()
    assert float(encoder.unit_embedding.weight[1:].detach().std()) == pytest.approx(1.0, abs=0.2)


def test_shuffling_exchanges_embeddings_among_known_units_only(encoder):
    before = {unit_id: embedding(encoder, unit_id) for unit_id in [*KNOWN, "elsewhere"]}
    is_known = shuffle_embeddings(encoder, KNOWN + NEW, seed=0)
    after = {unit_id: embedding(encoder, unit_id) for unit_id in KNOWN + NEW}
    for unit_id in KNOWN:
        giver = [other for other in KNOWN if torch.equal(after[unit_id], before[other])]
        assert len(giver) == 1
        assert giver != [unit_id]
    assert torch.equal(embedding(encoder, "elsewhere"), before["elsewhere"])
    assert is_known[encoder.unit_rows(KNOWN)].all()
    assert not is_known[encoder.unit_rows(NEW)].any()


def test_the_seed_decides_who_gets_whose_embedding(encoder):
    one, same, other = (shuffled(encoder, seed) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def shuffled(encoder: Encoder, seed: int) -> torch.Tensor:
    copied = Encoder(encoder.config, 10.0)
    copied.add_units([*KNOWN, "elsewhere"])
    with torch.no_grad():
        copied.unit_embedding.weight.copy_(encoder.unit_embedding.weight)
    shuffle_embeddings(copied, KNOWN, seed)
    return copied.unit_embedding.weight.detach()


def test_one_known_unit_cannot_be_shuffled(encoder):
    with pytest.raises(TransferError, match=r"the encoder knows 1 of 3 units"):
        shuffle_embeddings(encoder, ["a", *NEW], seed=0)
