"""The encoder that comes with the package is whole, small, and honest about itself."""

from __future__ import annotations

import sys

import pytest

import poyo_ssl as ps
from poyo_ssl.cli import main
from poyo_ssl.cli.options import find_encoder
from poyo_ssl.model.checkpoints import CheckpointError
from poyo_ssl.model.shipped import SHIPPED, shipped_names


@pytest.mark.parametrize("name", shipped_names())
def test_it_loads_by_its_name_and_knows_nobodys_cells(name):
    encoder = ps.Encoder.from_pretrained(name)
    assert list(encoder.unit_embedding.vocab) == ["NA"]
    assert encoder.provenance.is_simulated
    assert encoder.taught.task == "direction"


@pytest.mark.parametrize("name", shipped_names())
def test_it_is_what_was_written_and_small(name):
    ps.Encoder.from_pretrained(SHIPPED / name)  # which compares checksums
    assert sum(path.stat().st_size for path in (SHIPPED / name).iterdir()) < 600_000


@pytest.mark.parametrize("name", shipped_names())
def test_its_card_says_what_it_learned_from_and_what_it_is_worth(name):
    card = (SHIPPED / name / "README.md").read_text(encoding="utf-8")
    assert "**Simulated data.**" in card
    assert f'from_pretrained("{name}")' in card
    assert "What it is worth" in card


def test_a_directory_of_its_name_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_encoder("simulated") == "simulated"
    (tmp_path / "simulated").mkdir()
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        ps.Encoder.from_pretrained("simulated")


@pytest.mark.parametrize(
    ("pretrained", "said"),
    [("some/one", 'pip install "poyo-ssl[hub]"'), ("nowhere", "with the package comes simulated")],
)
def test_commands_take_names_and_say_what_is_wrong_with_others(
    pretrained, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    words = ["adapt", str(tmp_path), "--pretrained", pretrained, "--output", str(tmp_path / "o")]
    assert main(words) == 1
    assert said in capsys.readouterr().err
