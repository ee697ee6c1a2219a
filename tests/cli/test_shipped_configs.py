"""Configs that come with the package go by their names."""

from __future__ import annotations

import pytest

from poyo_ssl.cli.shipped_configs import CONFIGS, find_configs


@pytest.mark.parametrize(
    "name", ["real_gratings", "real_gratings.yaml", "configs/real_gratings.yaml"]
)
def test_a_name_becomes_a_path_in_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(CONFIGS / "real_gratings.yaml")
    assert find_configs(["run", "a", "--config", name]) == ["run", "a", "--config", path]
    assert find_configs(["run", f"--config={name}"]) == ["run", f"--config={path}"]


@pytest.mark.parametrize("word", ["mine.yaml", "../configs/real_gratings.yaml", "a/real_gratings"])
def test_other_words_stay_as_they_are(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_configs(["run", "real_gratings", "--config", word])[1:] == [
        "real_gratings", "--config", word,
    ]  # fmt: skip


def test_a_file_of_that_name_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real_gratings").write_text("num_seeds: 1")
    assert find_configs(["--config", "real_gratings"]) == ["--config", "real_gratings"]
