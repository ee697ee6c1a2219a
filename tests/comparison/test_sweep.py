"""Sweeps: lists in config files, every combination of which is a run of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pandas as pd
import pytest
import yaml

from poyo_ssl.cli import build_parser, main
from poyo_ssl.comparison.config import PretrainingArm, RunConfig
from poyo_ssl.comparison.run import run
from poyo_ssl.comparison.sweep import MOST_RUNS, Sweep
from poyo_ssl.recordings.storage import save_recording
from tiny_runs import tiny_observatory, tiny_run_config


def test_combinations_are_named_by_what_tells_them_apart(tmp_path):
    config = RunConfig(
        title="Sizes", arms=("scratch", "mine"), pretrainings={"mine": PretrainingArm()}
    )
    options = {
        "encoder.dim": [32, 64],
        "labels.training.lr": [1e-3],
        "pretraining.training.lr": [0.01],
        "labels.training.max_steps": [300, None],
        "pretrainings.mine.units": ["all", "random"],
    }
    runs = Sweep(config=config, options=options).runs(tmp_path)
    assert len(runs) == 8
    first, *_, last = runs.items()
    assert first[0].name == (
        "dim=32__labels.training.lr=0.001__pretraining.training.lr=0.01__max_steps=300__units=all"
    )
    made = last[1]
    assert (made.encoder.dim, made.labels.training.max_steps) == (64, None)
    assert made.pretrainings["mine"].units == "random"
    assert made.title.startswith("Sizes (dim=64, labels.training.lr=0.001, ")
    assert replace(made, title=config.title, encoder=config.encoder) != config
    assert made.splits == config.splits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_seeds": [1, 2]}, "num_seeds changes no fit"),
        ({"encoder.dim": []}, r"encoder\.dim has no value"),
        ({"encoder.dim": [32, 32]}, r"encoder\.dim names a value twice"),
        ({"splits.train": [["a"], ["b"]]}, "over single values"),
        ({"encoder.dim": range(1, 12), "encoder.depth": range(1, 11)}, "110 combinations"),
        ({"encoder.width": [1]}, "EncoderConfig has no option 'width'"),
        ({"encoder.dim": [32, 0, -1]}, r"cannot be run: dim=0: .* dim=-1: "),
    ],
)
def test_impossible_sweeps_are_refused(tmp_path, options, message):
    assert MOST_RUNS == 100
    with pytest.raises(ValueError, match=message):
        Sweep(config=RunConfig(), options=options).runs(tmp_path)


def sweep_of(text: str, tmp_path, *words: str) -> dict[str, list]:
    """The sweep that a config file asks for."""
    (tmp_path / "run.yaml").write_text(text)
    arguments = ["run", "a.h5", "--output", "o", "--config", str(tmp_path / "run.yaml"), *words]
    parser = build_parser(arguments)
    parser.parse_args(arguments)
    return parser._subcommands_action._name_parser_map["run"].sweep(arguments)


def test_only_a_list_where_one_value_is_expected_is_a_sweep(tmp_path):
    text = """
        encoder: {dim: [32, 64]}
        labels_per_class: [1, 2]
        labels: {training: {lr: [1e-3, 0.01], max_steps: [300, null]}}
        arms: [scratch, mine]
        splits: {train: [monday]}
        pretrainings: {mine: {units: [all, random], lines: [Sst]}}
    """
    assert sweep_of(text, tmp_path, "--encoder.dim", "16") == {
        "labels.training.lr": [0.001, 0.01],
        "labels.training.max_steps": [300, None],
        "pretrainings.mine.units": ["all", "random"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encoder: {dim: [32, wide]}", "encoder.dim"),
        ("encoder: {dim: []}", "The sweep over encoder.dim has no value"),
        ("arms: [[scratch], [pretrained]]", "arms"),
    ],
)
def test_every_value_of_a_sweep_is_checked(tmp_path, capsys, text, message):
    with pytest.raises(SystemExit):
        sweep_of(text, tmp_path)
    assert message in capsys.readouterr().err


def test_every_combination_is_a_run_and_one_table_holds_all(tmp_path, capsys):
    recordings = sorted(tiny_observatory(), key=lambda recording: recording.recording_id)
    for recording in recordings:
        save_recording(recording, tmp_path / f"{recording.recording_id}.h5")
    config = tiny_run_config(arms=("scratch",), num_seeds=1)
    values = json.loads(json.dumps(asdict(config)))
    values["encoder"]["dim"] = [16, 32]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    files = map(str, sorted(tmp_path.glob("*.h5")))
    words = ["run", *files, "--config", str(tmp_path / "run.yaml")]
    output = tmp_path / "sweep"
    assert main([*words, "--output", str(output), "--part", "1/1"]) == 0
    assert main([*words, "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("scratch") == 2
    table = pd.read_csv(output / "sweep.csv")
    networks = table[(table["kind"] == "network") & (table["metric"] == "accuracy")]
    assert networks["encoder.dim"].to_list() == [16, 32]
    run(recordings, tmp_path / "alone", replace(config, encoder=replace(config.encoder, dim=32)))
    for name in ("predictions.csv", "curves.csv"):
        swept = (output / "dim=32" / name).read_bytes()
        assert swept == (tmp_path / "alone" / name).read_bytes()
    assert (output / "dim=16" / "report.html").is_file()
