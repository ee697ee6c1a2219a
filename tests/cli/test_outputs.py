"""Where results go is looked at before anything else is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from poyo_ssl.cli import build_parser, main
from poyo_ssl.cli.commands import COMMANDS
from poyo_ssl.output_directory import OutputError, alone_in, require_place_of_file
from poyo_ssl.recordings.preparation import prepare
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.whole_files import write_json

PLACES = [(command, option) for command, does in COMMANDS.items() for option in does.writes]


def options_of(command: str):
    parser = build_parser([command])._subcommands_action._name_parser_map[command]
    return parser._actions


@pytest.mark.parametrize(("command", "option"), PLACES)
def test_a_directory_for_a_file_and_the_reverse_are_refused_with_a_remedy(
    command, option, tmp_path, capsys
):
    (tmp_path / "file").write_text("kept")
    is_file = COMMANDS[command].writes[option] is require_place_of_file
    needed = [action for action in options_of(command) if action.required]
    words = [
        word
        for action in needed
        if action.dest != option
        for word in (*action.option_strings[:1], str(tmp_path / "absent"))
    ]
    for wrong in (tmp_path if is_file else tmp_path / "file", tmp_path / "file" / "below"):
        assert main([command, *words, f"--{option}", str(wrong)]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert f"is a {'directory' if wrong == tmp_path else 'file'}, and a" in said
        assert "Name " in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


def test_no_result_takes_the_place_of_a_recording_or_of_another_result(tmp_path, capsys):
    recording = tmp_path / "day1.npz"
    recording.write_bytes(b"kept")
    (tmp_path / "same.csv").hardlink_to(recording)
    figure = str(tmp_path / "a.png")
    for words in (
        ["predictability", str(recording), "--output", str(recording)],
        ["evaluate", "runs/1", str(recording), "--output", str(tmp_path / "same.csv")],
        ["predictability", str(recording), "--output", figure, "--figure", figure],
    ):
        assert main(words) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "one of the recordings to read" in said or "output, figure are one file" in said
    assert recording.read_bytes() == b"kept"
    assert not Path(figure).exists()


def test_every_command_that_writes_looks_first():
    writing = {
        command
        for command in COMMANDS
        if any(action.dest == "output" for action in options_of(command))
    }
    assert writing == {command for command, option in PLACES if option == "output"}


def test_python_says_the_same(tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for write in (
        lambda: write_json(tmp_path, {}),
        lambda: write_json(file / "below.json", {}),
        lambda: prepare(file, file, source=SourceConfig()),
        lambda: alone_in(file).__enter__(),
    ):
        with pytest.raises(OutputError, match=r"is a (file|directory), and a .* Name"):
            write()
    with pytest.raises(OutputError, match="a link to what is not there"):
        alone_in(Path(tmp_path / "link")).__enter__()
    assert file.read_text() == "kept"
