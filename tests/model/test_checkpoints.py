"""What is saved comes back bit for bit; what is damaged says so and runs nothing."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from poyo_ssl.model import checkpoints
from poyo_ssl.model.checkpoints import (
    CONFIG,
    WEIGHTS,
    CheckpointError,
    load_checkpoint,
    load_encoder,
    network_tensors,
    save_checkpoint,
    save_encoder,
)


@pytest.fixture
def saved(tiny_encoder, tmp_path):
    """A directory with a good encoder in it."""
    directory = tmp_path / "my-encoder"
    save_encoder(tiny_encoder, directory)
    return directory


def change_config(directory, **changes) -> None:
    config = json.loads((directory / CONFIG).read_text())
    (directory / CONFIG).write_text(json.dumps(config | changes))


def test_an_encoder_comes_back_bit_for_bit(tiny_encoder, saved):
    loaded = load_encoder(saved)
    assert loaded.config == tiny_encoder.config
    assert loaded.sampling_rate == tiny_encoder.sampling_rate
    assert list(loaded.unit_embedding.vocab.items()) == list(
        tiny_encoder.unit_embedding.vocab.items()
    )
    ours, theirs = network_tensors(tiny_encoder), network_tensors(loaded)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    activity, units = torch.randn(2, 20, 6), torch.arange(1, 7)
    assert torch.equal(tiny_encoder(activity, units), loaded(activity, units))


def test_units_keep_their_embeddings_whatever_their_names(tiny_config, tmp_path):
    encoder = checkpoints.Encoder(tiny_config, 10.0)
    encoder.add_units(["z", "ä/ö", "10", "2", 'quote"'])
    save_encoder(encoder, tmp_path)
    loaded = load_encoder(tmp_path)
    for unit_id in ["z", "ä/ö", "10", "2", 'quote"']:
        row, loaded_row = (e.unit_embedding.tokenizer(unit_id) for e in (encoder, loaded))
        assert torch.equal(
            encoder.unit_embedding.weight[row], loaded.unit_embedding.weight[loaded_row]
        )


def test_nothing_but_the_checkpoint_is_left_in_the_directory(saved):
    assert sorted(path.name for path in saved.iterdir()) == [CONFIG, WEIGHTS]


def test_saving_again_replaces_the_checkpoint(tiny_encoder, saved):
    with torch.no_grad():
        tiny_encoder.latent_embedding.fill_(2.5)
    tiny_encoder.add_units(["late"])
    save_encoder(tiny_encoder, str(saved))
    loaded = load_encoder(str(saved))
    assert torch.equal(loaded.latent_embedding, torch.full((2, 16), 2.5))
    assert "late" in loaded.unit_embedding.vocab
    assert sorted(path.name for path in saved.iterdir()) == [CONFIG, WEIGHTS]


@pytest.mark.parametrize("missing", [WEIGHTS, CONFIG])
def test_a_missing_file_is_named_with_its_directory(saved, missing):
    (saved / missing).unlink()
    with pytest.raises(CheckpointError, match=rf"my-encoder.*{missing} missing"):
        load_encoder(saved)


def test_a_directory_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere.*found: nothing"):
        load_encoder(tmp_path / "nowhere")


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_truncated_weights_are_refused(saved, size):
    content = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(content[:size])
    with pytest.raises(CheckpointError, match=r"my-encoder.*damaged"):
        load_encoder(saved)


def test_garbage_weights_are_refused(saved, rng):
    (saved / WEIGHTS).write_bytes(rng.bytes(5000))
    with pytest.raises(CheckpointError, match=r"my-encoder.*damaged"):
        load_encoder(saved)


class _Malicious:
    """Unpickling this creates a file."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_pretends_to_be_weights_runs_nothing(saved, tmp_path, protocol):
    trace = tmp_path / "was-here"
    payload = pickle.dumps(_Malicious(trace), protocol=protocol)
    pickle.loads(payload).close()
    assert trace.exists()  # the payload works
    trace.unlink()
    (saved / WEIGHTS).write_bytes(payload)
    with pytest.raises(CheckpointError, match="my-encoder"):
        load_encoder(saved)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"kind": "encoder"', b"\xff\xfe", b"NULL"])
def test_a_broken_config_is_refused(saved, content):
    (saved / CONFIG).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"my-encoder.*damaged"):
        load_encoder(saved)


@pytest.mark.parametrize("content", ["[]", "null", "3", '"encoder"'])
def test_a_config_that_is_no_table_is_refused(saved, content):
    (saved / CONFIG).write_text(content)
    with pytest.raises(CheckpointError, match="my-encoder"):
        load_encoder(saved)


def test_a_checkpoint_of_another_kind_is_refused(saved):
    change_config(saved, kind="decoder")
    with pytest.raises(CheckpointError, match=r"my-encoder.*holds a decoder, not an encoder"):
        load_encoder(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": {"dim": 16, "colour": "red"}},
        {"encoder": {"dim": -16}},
        {"encoder": 7},
        {"sampling_rate": "fast"},
        {"unit_ids": 3},
        {"unit_ids": ["twice", "twice"]},
    ],
    ids=str,
)
def test_settings_that_build_no_encoder_are_refused(saved, changes):
    change_config(saved, **changes)
    with pytest.raises(CheckpointError, match="my-encoder"):
        load_encoder(saved)


def test_a_config_that_lacks_settings_is_refused(saved):
    (saved / CONFIG).write_text('{"kind": "encoder"}')
    with pytest.raises(CheckpointError, match="my-encoder"):
        load_encoder(saved)


def test_weights_of_another_shape_are_refused(saved):
    config = json.loads((saved / CONFIG).read_text())
    change_config(saved, unit_ids=[*config["unit_ids"], "extra"])
    with pytest.raises(CheckpointError, match=r"my-encoder.*unit_embedding\.weight"):
        load_encoder(saved)


@pytest.mark.parametrize("surplus", [True, False])
def test_weights_that_are_missing_or_unknown_are_refused(saved, surplus):
    tensors = load_file(saved / WEIGHTS)
    if surplus:
        tensors["stowaway"] = torch.zeros(1)
    else:
        del tensors["latent_embedding"]
    save_file(tensors, saved / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"my-encoder.*(stowaway|latent_embedding)"):
        load_encoder(saved)


def test_an_existing_checkpoint_survives_a_failing_save(tiny_encoder, saved, monkeypatch):
    before = load_encoder(saved)

    def fail(tensors, path) -> None:
        path.write_bytes(b"half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with torch.no_grad():
        tiny_encoder.latent_embedding.add_(1.0)
    with pytest.raises(OSError, match="No space left"):
        save_encoder(tiny_encoder, saved)
    assert sorted(path.name for path in saved.iterdir()) == [CONFIG, WEIGHTS]
    assert torch.equal(load_encoder(saved).latent_embedding, before.latent_embedding)


def test_new_weights_never_meet_an_old_config(tiny_encoder, saved):
    before = load_checkpoint(saved)
    unsaveable = {"kind": "encoder", "unit_ids": {"a", "set"}}
    with pytest.raises(TypeError, match="set"):
        save_checkpoint(saved, {"other": torch.zeros(1)}, unsaveable)
    tensors, config = load_checkpoint(saved)
    assert tensors.keys() == before[0].keys()
    assert config == before[1]
    assert sorted(path.name for path in saved.iterdir()) == [CONFIG, WEIGHTS]


def test_weights_that_are_views_are_saved_as_what_they_show(tmp_path):
    square = torch.arange(6.0).reshape(2, 3)
    save_checkpoint(tmp_path, {"turned": square.T}, {})
    tensors, config = load_checkpoint(tmp_path)
    assert torch.equal(tensors["turned"], square.T)
    assert config == {}
