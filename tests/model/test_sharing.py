"""Shared weights come back bit for bit from a directory and from the Hub, or say what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import poyo_ssl as ps
from hub_server import Hub, commit_id, pretend_to_be_the_hub
from poyo_ssl.model.checkpoints import CONFIG, WEIGHTS, CheckpointError, network_tensors
from poyo_ssl.model.sharing import CARD, CHECKSUMS, HubError
from poyo_ssl.pretraining.config import PretrainingConfig
from tiny_fits import ENCODER, few_steps, fit_arm, setting_of
from tiny_runs import SPLITS, tiny_observatory

FILES = {WEIGHTS, CONFIG, CARD, CHECKSUMS}
REPOSITORY = "lab/encoder"


def is_same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = network_tensors(one), network_tensors(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[Hub]:
    with Hub() as hub:
        pretend_to_be_the_hub(hub, monkeypatch, tmp_path / "cache")
        monkeypatch.setattr("time.sleep", lambda _: None)  # between tries
        yield hub


@pytest.fixture
def pushed(hub, tiny_encoder) -> ps.Encoder:
    tiny_encoder.push_to_hub(REPOSITORY)
    return tiny_encoder


# directories ---------------------------------------------------------------------------------


def test_an_encoder_comes_back_from_a_directory(tiny_encoder, tmp_path):
    tiny_encoder.save_pretrained(tmp_path / "shared")
    assert {path.name for path in (tmp_path / "shared").iterdir()} == FILES
    assert is_same(ps.Encoder.from_pretrained(tmp_path / "shared"), tiny_encoder)
    assert is_same(ps.load_encoder(tmp_path / "shared"), tiny_encoder)


def test_a_decoder_comes_back_as_its_own_kind(tiny_population, tmp_path):
    setting = setting_of(tiny_population, ps.find_task("direction"))
    decoder = fit_arm("ridge", setting)
    decoder.save_pretrained(tmp_path, scores={"accuracy": 0.87})
    loaded = ps.FittedDecoder.from_pretrained(tmp_path)
    assert type(loaded) is type(decoder)
    assert type(loaded).from_pretrained(tmp_path).question.arm == "ridge"
    with pytest.raises(CheckpointError, match="holds a LabelReadout, not a NetworkDecoder"):
        ps.NetworkDecoder.from_pretrained(tmp_path)
    card = (tmp_path / CARD).read_text()
    assert "| accuracy | 0.870 |" in card
    assert len(card) < 5000
    assert "not known which recordings" in card


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_changed_file_is_named(tiny_encoder, tmp_path, name):
    tiny_encoder.save_pretrained(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    with pytest.raises(CheckpointError, match=rf"{name} in .* changed after SHA256SUMS"):
        ps.Encoder.from_pretrained(tmp_path)


def test_what_is_neither_a_directory_nor_a_repository_is_named(tmp_path, tiny_encoder):
    with pytest.raises(CheckpointError, match=r"no directory 'nowhere'.*called owner/name"):
        ps.Encoder.from_pretrained("nowhere")
    with pytest.raises(CheckpointError, match="has no revision 'main'"):
        ps.Encoder.from_pretrained(tmp_path, revision="main")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        ps.Encoder.from_pretrained(tmp_path)


def test_a_missing_client_is_said_to_be_an_extra(monkeypatch, tiny_encoder):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for share in (tiny_encoder.push_to_hub, ps.Encoder.from_pretrained):
        with pytest.raises(ImportError, match=r'pip install "poyo-ssl\[hub\]"'):
            share(REPOSITORY)


# the card ------------------------------------------------------------------------------------


def test_the_card_tells_what_the_run_knows(tmp_path):
    divided = ps.divide(tiny_observatory(), "direction", SPLITS)
    everyone = {d.recording.recording_id: list(d.recording.unit_ids) for d in divided}
    population = ps.Population(divided, everyone)
    config = PretrainingConfig(training=few_steps(2).training, label_weight=0.0)
    encoder = ps.pretrain(population, config, encoder=ENCODER)
    decoder = ps.finetune(population, "direction", encoder, few_steps(2))
    encoder.save_pretrained(tmp_path / "encoder")
    loaded = ps.Encoder.from_pretrained(tmp_path / "encoder")
    assert loaded.provenance == encoder.provenance
    assert loaded.provenance.is_simulated
    decoder.save_pretrained(tmp_path / "decoder", scores=ps.evaluate(decoder, divided).mean())
    again = ps.FittedDecoder.from_pretrained(tmp_path / "decoder")
    assert again.provenance == decoder.provenance
    assert again.networks[0].encoder.provenance == encoder.provenance
    for name in ("encoder", "decoder"):
        card = (tmp_path / name / CARD).read_text()
        assert "**Simulated data.**" in card
        assert "| Animals | 2: sim0-mouse-Sst-0, sim0-mouse-Cux2-0 |" in card
        assert "| Units | 16: " in card
        assert "| Training | step 2, " in card
        assert f"| Written by | poyo-ssl {version('poyo-ssl')} |" in card
    assert "| Task | Drifting gratings: direction: orientation of drifting_gratings |" in card
    assert "| accuracy | 0." in card
    assert "| Pretrained on | 2: " in card


def test_names_of_recordings_cannot_break_the_card(tiny_encoder, tmp_path):
    tiny_encoder.add_units(["a|b\n# <script>"])
    tiny_encoder.save_pretrained(tmp_path)
    assert "a\\|b # &lt;script>" in (tmp_path / CARD).read_text()


# the Hub -------------------------------------------------------------------------------------

_SCRIPT = """
import sys
import poyo_ssl as ps
encoder = ps.Encoder.from_pretrained(sys.argv[1])
print(encoder.push_to_hub(sys.argv[2], private=True))
ps.Encoder.from_pretrained(sys.argv[2]).save_pretrained(sys.argv[3])
"""


def test_an_encoder_goes_to_the_hub_and_back_by_the_environment_alone(tiny_encoder, tmp_path):
    tiny_encoder.save_pretrained(tmp_path / "here")
    with Hub() as hub:
        environment = {
            "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test", "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }  # fmt: skip
        places = [str(tmp_path / "here"), REPOSITORY, str(tmp_path / "back")]
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, *places],
            env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/{REPOSITORY}/commit/{commit_id(REPOSITORY, 1)}"
    [files] = hub.commits[REPOSITORY]
    assert files.keys() >= FILES
    assert f"from_pretrained('{REPOSITORY}')" in files[CARD].decode()
    assert is_same(ps.Encoder.from_pretrained(tmp_path / "back"), tiny_encoder)


def test_an_older_revision_can_be_asked_for(pushed):
    with torch.no_grad():
        pushed.latent_embedding.fill_(2.5)
    pushed.push_to_hub(REPOSITORY)
    assert is_same(ps.Encoder.from_pretrained(REPOSITORY), pushed)
    first = ps.Encoder.from_pretrained(REPOSITORY, revision=commit_id(REPOSITORY, 1))
    assert not torch.equal(first.latent_embedding, pushed.latent_embedding)
    with pytest.raises(HubError, match="'lab/encoder' has no revision 'v9'"):
        ps.Encoder.from_pretrained(REPOSITORY, revision="v9")


def test_an_interrupted_download_goes_on_where_it_stopped(hub, pushed, monkeypatch):
    monkeypatch.setattr(sys.modules["huggingface_hub.constants"], "DOWNLOAD_CHUNK_SIZE", 500)
    hub.cuts = [1000, 500]
    assert is_same(ps.Encoder.from_pretrained(REPOSITORY), pushed)
    assert hub.ranges == ["", "bytes=1000-", "bytes=1500-"]


def test_a_download_that_never_arrives_says_so_and_can_be_tried_again(hub, pushed):
    hub.cuts = [0] * 7
    with pytest.raises(HubError, match=r"'lab/encoder' could not be downloaded.*try again"):
        ps.Encoder.from_pretrained(REPOSITORY)
    hub.cuts = []
    assert is_same(ps.Encoder.from_pretrained(REPOSITORY), pushed)


def test_a_damaged_download_is_fetched_anew_and_never_loaded(hub, pushed):
    hub.num_flipped = 1
    assert is_same(ps.Encoder.from_pretrained(REPOSITORY), pushed)
    hub.commits[REPOSITORY].append({**hub.commits[REPOSITORY][0], "later.txt": b""})
    last = hub.commits[REPOSITORY][-1]
    last[WEIGHTS] = last[WEIGHTS][:-1] + b"?"
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS} in .* changed after"):
        ps.Encoder.from_pretrained(REPOSITORY)


def test_nothing_else_of_a_repository_is_fetched(hub, pushed):
    hub.commits[REPOSITORY][-1]["weights.pkl"] = b"cos\nsystem\n(S'true'\ntR."
    ps.Encoder.from_pretrained(REPOSITORY)
    assert not [request for request in hub.requests if request.endswith(".pkl")]


def test_a_repository_that_does_not_exist_is_named(hub, tiny_encoder):
    with pytest.raises(HubError, match=r"no directory 'lab/nothing'.*no such repository"):
        ps.Encoder.from_pretrained("lab/nothing")


def test_a_hub_that_cannot_be_reached_says_so(hub, tiny_encoder, monkeypatch):
    constants = sys.modules["huggingface_hub.constants"]
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="could not be downloaded"):
        ps.Encoder.from_pretrained(REPOSITORY)
    with pytest.raises(HubError, match="'lab/encoder' was not written"):
        tiny_encoder.push_to_hub(REPOSITORY)


def test_a_directory_of_the_name_of_a_repository_goes_first(
    hub, tiny_encoder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    tiny_encoder.save_pretrained(Path(REPOSITORY))
    assert is_same(ps.Encoder.from_pretrained(REPOSITORY), tiny_encoder)
    assert not hub.requests
