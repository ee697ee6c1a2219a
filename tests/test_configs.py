"""Every config that ships fills its dataclass, and nothing in a config is ever executed."""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml

from poyo_ssl.cli import build_parser, main
from poyo_ssl.cli.options import build
from poyo_ssl.comparison.config import RunConfig
from poyo_ssl.model.encoder import EncoderConfig
from poyo_ssl.recordings.simulation.simulator import SimulatorConfig
from poyo_ssl.recordings.sources import StimulusTable
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import DIRECTION

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))


@cache
def parse(path: Path):
    """The config that a YAML file describes, as the command line reads it."""
    if "observatory" in path.name:
        options = ["simulate", "--output", "unused", "--config", str(path)]
        return build(SimulatorConfig, build_parser(options).parse_args(options).simulate)
    options = ["run", "unused", "--output", "unused", "--config", str(path)]
    return build(RunConfig, build_parser(options).parse_args(options).run)


def test_there_are_configs_of_real_and_simulated_experiments():
    names = {path.name for path in CONFIGS}
    assert {"real_gratings.yaml", "simulated_movie.yaml", "simulated_observatory.yaml"} <= names


def values_of(config) -> dict:
    """The config as nested dicts of plain values, as YAML has them."""
    values = {}
    for field in fields(config):
        value = getattr(config, field.name)
        values[field.name] = plain(value)
    return values


def plain(value):
    if is_dataclass(value):
        return values_of(value)
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return list(value) if isinstance(value, tuple) else value


def assert_within(written: dict, values: dict, name: str = "") -> None:
    for key, value in written.items():
        if isinstance(value, dict):
            assert_within(value, values[key], f"{name}{key}.")
        else:
            assert values[key] == value, f"{name}{key}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_config_says_what_its_file_says(path):
    written = yaml.safe_load(path.read_text())
    assert_within(written, values_of(parse(path)))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_config_begins_with_a_line_on_what_it_is_for(path):
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_what_a_file_does_not_say_keeps_its_default(path):
    config = parse(path)
    written = yaml.safe_load(path.read_text())
    default = type(config)()
    for field in fields(config):
        if field.name not in written:
            assert getattr(config, field.name) == getattr(default, field.name), field.name


def test_a_part_that_is_only_half_written_keeps_the_defaults_of_its_place(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("movie:\n  num_queries: 2\npretraining:\n  training:\n    max_steps: 7\n")
    config, default = parse(path), RunConfig()
    assert config.movie.num_queries == 2
    assert config.movie.training == default.movie.training
    assert config.movie.training != default.labels.training
    assert config.pretraining.training.max_steps == 7
    assert config.pretraining.training.unit_dropout == default.pretraining.training.unit_dropout


# what is refused -----------------------------------------------------------------------------


def refuse(text: str, tmp_path: Path, capsys, command: str = "run") -> str:
    """Complaint about a YAML file, which must be refused before any work."""
    config = tmp_path / "config.yaml"
    config.write_text(text)
    files = ["unused.nwb"] if command == "run" else []
    with pytest.raises(SystemExit) as stop:
        main([command, *files, "--output", str(tmp_path / "out"), "--config", str(config)])
    assert stop.value.code == 2
    assert not (tmp_path / "out").exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "tsaks: [direction]",
        "encoder:\n  width: 64",
        "labels:\n  training:\n    steps: 3",
        "splits:\n  guard: 1.0\n  gaurd: 2.0",
        "pretrainings:\n  a:\n    diet: all",
        "pretrainings:\n  a:\n    pretraining:\n      training:\n        steps: 3",
    ],
)
def test_unknown_keys_are_errors(text, tmp_path, capsys):
    unknown = text.split("\n")[-1].split(":")[0].strip()
    assert unknown in refuse(text, tmp_path, capsys)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("pretraining: {pattern: units}", "pretraining.masked_activity.pattern"),
        (
            "pretraining: {hidden_fraction: 0.3}",
            "pretraining.masked_activity.hidden_fraction, "
            "pretraining.masked_latents.hidden_fraction",
        ),
        (
            "pretrainings: {a: {pretraining: {remove_modes: 1}}}",
            "masked_activity.remove_modes, split_units.remove_modes",
        ),
    ],
)
def test_an_option_that_is_elsewhere_is_refused_with_its_place(text, place, tmp_path, capsys):
    assert f"Options of that name: {place}\n" in refuse(text, tmp_path, capsys)


def test_an_option_that_is_elsewhere_on_the_command_line_is_refused_with_its_place(capsys):
    with pytest.raises(SystemExit):
        main(["run", "x.nwb", "--output", "unused", "--pretraining.teacher_decay", "0.9"])
    complaint = capsys.readouterr().err
    assert "Options of that name: pretraining.masked_latents.teacher_decay\n" in complaint


@pytest.mark.parametrize(
    "text", ["num_seeds: many", "encoder:\n  dim: large", "label_fractions: [all]", "[1, 2]"]
)
def test_values_of_the_wrong_type_are_errors(text, tmp_path, capsys):
    refuse(text, tmp_path, capsys)


def test_unknown_keys_of_the_simulator_are_errors(tmp_path, capsys):
    assert "mice" in refuse("mice: 3", tmp_path, capsys, "simulate")


@pytest.mark.parametrize(
    "text",
    [
        'title: !!python/object/apply:os.system ["touch {proof}"]',
        'encoder: !!python/object/apply:os.system ["touch {proof}"]',
        "title: !!python/name:os.system",
        "title: !!python/object/new:pathlib.Path [{proof}]",
    ],
)
def test_tags_of_a_yaml_file_are_never_executed(text, tmp_path, capsys):
    proof = tmp_path / "executed"
    complaint = refuse(text.format(proof=proof), tmp_path, capsys)
    assert "tag" in complaint
    assert not proof.exists()


@pytest.mark.parametrize(
    "text",
    [
        "labels:\n  class_path: os.system\n  init_args:\n    command: touch {proof}",
        "encoder:\n  class_path: subprocess.Popen\n  init_args:\n    args: [touch, {proof}]",
        "splits: {{class_path: pathlib.Path, init_args: {{}}}}",
        "pretrainings:\n  a:\n    class_path: os.system\n"
        "    init_args:\n      command: touch {proof}",
        "pretrainings:\n  a:\n    labels:\n      class_path: subprocess.Popen\n"
        "      init_args:\n        args: [touch, {proof}]",
        "pretrainings: {{a: {{class_path: antigravity.Apple}}}}",
    ],
)
def test_nothing_is_imported_by_a_name_in_a_yaml_file(text, tmp_path, capsys):
    proof = tmp_path / "executed"
    assert "class_path" in refuse(text.format(proof=proof), tmp_path, capsys)
    assert not proof.exists()
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("fluorescence:\n  baseline_window:\n", "option 'baseline_window' of FluorescenceConfig"),
        ("nwb:\n  only_cells:\n", "option 'only_cells' of NwbConfig"),
        (
            "stimuli:\n  a: {table: t.csv, start: start, end: }\n",
            "option 'end' of StimulusTable",
        ),
    ],
)
def test_an_option_that_a_file_names_without_a_value_is_refused(written, said, tmp_path, capsys):
    (tmp_path / "source.yaml").write_text(written)
    words = ["inspect", str(tmp_path), "--source", str(tmp_path / "source.yaml")]
    assert main(words) == 1
    assert f"{said} holds nothing. Give it a value" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (SplitConfig, {"guard": float("nan")}, "guard must be a finite number, got nan"),
        (TrainingConfig, {"lr": float("inf")}, "lr must be a finite number, got inf"),
        (TrainingConfig, {"max_steps": 1.5}, "max_steps must be a whole number"),
        (EncoderConfig, {"latent_step": float("nan")}, "latent_step must be a finite number"),
        (StimulusTable, {"table": "a", "duration": float("inf")}, "duration must be a finite"),
        (RunConfig, {"arms": ("scratch", "scratch")}, "arms names scratch more than once"),
        (RunConfig, {"label_fractions": (1.0, 0.5, 1)}, "label_fractions names 1, 1.0 more"),
        (RunConfig, {"tasks": "direction"}, r"must be a list, got 'direction'. Write"),
        (RunConfig, {"tasks": ("direction",), "own_tasks": {"direction": DIRECTION}}, "else"),
    ],
)
def test_numbers_that_are_none_and_lists_that_count_twice_are_refused(config, options, message):
    with pytest.raises(ValueError, match=message):
        config(**options)
