"""A checkpoint that torch-brain 0.1.2 wrote gives its outputs, and no checkpoint runs anything.

``benchmarks/peer_checkpoint.py`` wrote what lies in ``tests/data/calcium_poyo_plus``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from poyo_ssl.cli import main
from poyo_ssl.decoders.conversion import as_encoder, convert_checkpoint, read_calcium_poyo_plus
from poyo_ssl.decoders.loading import load_decoder
from poyo_ssl.decoders.streaming import StreamingDecoder
from poyo_ssl.finetuning.finetune import finetune
from poyo_ssl.model.calcium_poyo_plus import load_calcium_poyo_plus
from poyo_ssl.model.checkpoints import CheckpointError, load_encoder, network_tensors
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.storage import save_recording
from published_recordings import UNITS, recording_of
from tiny_fits import few_steps

DATA = Path(__file__).resolve().parents[1] / "data" / "calcium_poyo_plus"
CHECKPOINT = DATA / "checkpoint.ckpt"
RATE = 20.0
READOUTS = {
    "direction": "drifting_gratings_orientation",
    "temporal_frequency": "drifting_gratings_temporal_frequency",
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("published")
    done: list[tuple[int, int]] = []
    convert_checkpoint(
        CHECKPOINT, directory, sampling_rate=RATE, on_progress=lambda *counts: done.append(counts)
    )
    total = 2 + len(READOUTS)  # network, encoder and decoders
    assert done == [(number, total) for number in range(total + 1)]
    return directory


@pytest.fixture(scope="module")
def theirs() -> dict[str, torch.Tensor]:
    """Windows of ΔF/F and the outputs of torch-brain, three of either session."""
    return load_file(DATA / "outputs.safetensors")


def session_of(window: int) -> str:
    return f"50000000{1 + window // 3}"


@pytest.mark.parametrize("task", READOUTS)
def test_converted_decoders_give_the_outputs_of_torch_brain(converted, theirs, task):
    decoder = load_decoder(converted / "decoders" / task)
    expected = theirs[f"outputs.{READOUTS[task]}"].numpy()
    for window, wanted in enumerate(expected):
        df_over_f = theirs[f"df_over_f.{window}"].numpy()
        found = decoder.predict(
            recording_of(df_over_f, session_of(window), rate=RATE), np.array([0])
        )
        assert np.abs(found[0] - wanted).max() < 1e-5
    assert expected.std() > 0.1


def test_the_whole_network_comes_back_with_its_vocabularies(converted):
    network = load_calcium_poyo_plus(converted)
    stored = torch.load(CHECKPOINT, weights_only=False)["state_dict"]
    for name, value in network_tensors(network).items():
        assert torch.equal(value, stored[f"model.{name}"]), name
    assert network.config.sequence_length == 1.5
    assert network.unit_ids[-1] == "allen/500000002/704"
    assert network.session_ids == ("allen/500000001", "allen/500000002")


def test_units_in_another_order_or_missing_keep_their_rows(converted, theirs):
    decoder = load_decoder(converted / "decoders" / "direction")
    df_over_f = theirs["df_over_f.0"].numpy()
    order = [3, 0, 4, 1, 2]
    shuffled = recording_of(
        df_over_f[:, order], "500000001", [UNITS[unit] for unit in order], rate=RATE
    )
    expected = decoder.predict(recording_of(df_over_f, "500000001", rate=RATE), np.array([0]))
    np.testing.assert_allclose(decoder.predict(shuffled, np.array([0])), expected, atol=1e-5)
    with pytest.raises(RecordingError, match="knows none of the 1 units"):
        decoder.predict(
            recording_of(df_over_f[:, :1], "500000001", ["new"], rate=RATE), np.array([0])
        )


def test_a_converted_decoder_answers_as_a_stream(converted, theirs):
    decoder = load_decoder(converted / "decoders" / "direction")
    stream = StreamingDecoder(decoder, UNITS, "500000001")
    answers = [stream.push(sample) for sample in theirs["df_over_f.1"].numpy()]
    wanted = theirs["outputs.drifting_gratings_orientation"][1].numpy()
    np.testing.assert_allclose(answers[-1], wanted, atol=1e-5)


def test_the_encoder_gives_the_latents_of_the_published_one(converted):
    network, encoder = load_calcium_poyo_plus(converted).eval(), load_encoder(converted / "encoder")
    activity = torch.randn(2, 30, 5, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([2, 9, 4, 1, 7])
    with torch.no_grad():
        ours = encoder.eval()(activity, rows)
        times = (torch.arange(30) + 0.5) / RATE
        wanted = network.process(network.encode(activity, times, rows))
    # rotary periods begin at 0.1 ms, which times in float32 resolve to a part in a thousand
    torch.testing.assert_close(ours, wanted, atol=1e-3, rtol=0)


def test_a_decoder_is_fine_tuned_from_the_published_encoder(tiny_population):
    network, _ = read_calcium_poyo_plus(CHECKPOINT)
    encoder = as_encoder(network, tiny_population.sampling_rate)
    decoder = finetune(tiny_population, "direction", encoder, few_steps())
    assert decoder.question.arm == "pretrained"
    assert "allen/500000001/700" in decoder.networks[0].encoder.unit_embedding.vocab


def test_the_commands_convert_and_evaluate(tmp_path, rng, caplog):
    output = tmp_path / "published"
    command = ["convert", str(CHECKPOINT), "--output", str(output), "--sampling_rate=20"]
    assert main([*command, "--tasks", "direction"]) == 0
    assert [path.name for path in (output / "decoders").iterdir()] == ["direction"]
    noise = rng.normal(size=(round(60 * RATE), 5)).astype(np.float32)
    stored = save_recording(recording_of(noise, "500000001", rate=RATE), tmp_path)
    scores = tmp_path / "scores.json"
    assert main(["evaluate", str(output), str(stored), "--output", str(scores)]) == 0
    [row] = json.loads(scores.read_text())["scores"]
    assert (row["arm"], row["num_known_units"], row["chance"]) == ("Calcium POYO+", 5, 0.125)
    card = str(load_decoder(output / "decoders" / "direction").model_card("lab/decoder", {}))
    assert "| Recordings | 2: 500000001, 500000002 |" in card
    assert "learned from parts of recording '500000001'" in caplog.text


def test_a_task_that_it_does_not_answer_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"not answer the task 'scene' \(it answers: direc"):
        convert_checkpoint(CHECKPOINT, tmp_path, tasks=["scene"])
    assert not list(tmp_path.iterdir())


# what is in a checkpoint ---------------------------------------------------------------------


class DictConfig:
    """Pickled as OmegaConf's class of that name."""

    def __init__(self, content):
        self._content = content


class AnyNode:
    """Pickled as OmegaConf's node of a value."""

    def __init__(self, value):
        self._val = value


class Malicious:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class Named:
    """Unpickling this calls a function of the operating system."""

    def __reduce__(self):
        import os

        return os.getcwd, ()


def save_with(path: Path, **hyperparameters) -> Path:
    stored = torch.load(CHECKPOINT, weights_only=False)
    torch.save({**stored, "hyper_parameters": hyperparameters}, path)
    return path


def test_configs_of_other_versions_are_read_and_nothing_is_run(tmp_path):
    trace = tmp_path / "was-here"
    nodes = {"sequence_length": AnyNode(1.5), "latent_step": AnyNode(0.25)}
    content = {"model": DictConfig(nodes), "seed": AnyNode(3), "harm": Malicious(trace)}
    path = save_with(tmp_path / "older.ckpt", cfg=DictConfig(content))
    network, hyperparameters = read_calcium_poyo_plus(path)
    assert (network.config.sequence_length, network.config.latent_step) == (1.5, 0.25)
    assert hyperparameters["cfg"]["seed"] == 3
    assert not trace.exists()
    opened = torch.load(path, weights_only=False)["hyper_parameters"]["cfg"]._content["harm"]
    opened.close()
    assert trace.exists()  # the harm is real


def test_a_checkpoint_that_names_the_system_is_refused(tmp_path):
    path = save_with(tmp_path / "bad.ckpt", harm=Named())
    with pytest.raises(CheckpointError, match=r"bad\.ckpt' is not read.*Nothing in it was run"):
        convert_checkpoint(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_damaged_checkpoint_is_named(tmp_path, kept):
    content = CHECKPOINT.read_bytes()
    path = tmp_path / "cut.ckpt"
    path.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(CheckpointError, match=r"cut\.ckpt' is not read.*Download"):
        convert_checkpoint(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"weights": 1}, r"no state_dict \(found: weights\)"),
        ([1], "no state_dict"),
        ({"state_dict": {"layer.weight": torch.zeros(2)}}, "it lacks 'rotary_emb.omega'"),
    ],
    ids=["other", "list", "model"],
)
def test_what_is_another_model_says_so(tmp_path, content, reason):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=rf"x\.ckpt'.*{reason}"):
        convert_checkpoint(tmp_path / "x.ckpt", tmp_path / "out")
    with pytest.raises(CheckpointError, match="no file"):
        convert_checkpoint(tmp_path / "nowhere.ckpt", tmp_path / "out")


@pytest.mark.parametrize("word", ["allen/500000001/700", None])
def test_a_vocabulary_that_does_not_fit_its_rows_is_refused(tmp_path, word):
    stored = torch.load(CHECKPOINT, weights_only=False)
    vocabulary = stored["state_dict"]["model.unit_emb.vocab"]
    vocabulary.pop(next(iter(vocabulary)) if word is None else word)
    torch.save(stored, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"unit_emb\.vocab names 10 rows, not each of the 11"):
        convert_checkpoint(tmp_path / "x.ckpt", tmp_path / "out")
