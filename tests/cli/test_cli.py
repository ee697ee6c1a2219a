"""Every command explains itself, does its work on files, and says what is wrong with them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace

import h5py
import numpy as np
import pandas as pd
import pytest

from poyo_ssl.cli import build_parser, main
from poyo_ssl.cli.commands import COMMANDS
from poyo_ssl.cli.options import build, find_encoder, gather_lists, read_source
from poyo_ssl.cli.short_help import outline
from poyo_ssl.comparison.config import RunConfig
from poyo_ssl.model.checkpoints import save_encoder
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.predictability.activity_statistics import STATISTICS
from poyo_ssl.recordings.simulation.simulator import SimulatorConfig
from poyo_ssl.recordings.storage import save_recording
from poyo_ssl.stages import AdaptStage, FinetuneStage, PredictabilityStage, PretrainStage
from tiny_fits import ENCODER
from tiny_runs import tiny_observatory

OPTIONS_OF = {
    "run": RunConfig,
    "simulate": SimulatorConfig,
    "predictability": PredictabilityStage,
    "pretrain": PretrainStage,
    "finetune": FinetuneStage,
    "adapt": AdaptStage,
}

TINY = [
    "--encoder.dim=16", "--encoder.dim_head=8", "--encoder.latents_per_step=2",
    "--encoder.patch_length=0.5", "--splits.held_out_blocks=1", "--splits.guard=0.5",
    "--predictability.min_timesteps=100",
]  # fmt: skip


@pytest.fixture
def call(capsys):
    """Runs a command; gives the exit status, what it printed, and what it complained of."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return status, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def observatory(tmp_path_factory):
    """Two files of simulated recordings."""
    folder = tmp_path_factory.mktemp("observatory")
    return [save_recording(recording, folder) for recording in tiny_observatory()]


# help ----------------------------------------------------------------------------------------


def test_help_lists_every_command(call):
    status, out, _ = call("--help")
    assert status == 0
    for command in COMMANDS:
        assert re.search(rf"^ +{command} +\w", out, flags=re.MULTILINE), command


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_its_usage_in_one_line(call, command):
    status, out, _ = call(command, "--help")
    assert status == 0
    assert out.startswith(f"usage: poyo-ssl {command} ")
    assert "\n\n" in out[:120]


def help_of(command: str) -> dict[str, str]:
    """Option name to help text."""
    parser = build_parser([command])
    chosen = parser._subcommands_action._name_parser_map[command]
    return {action.dest: action.help for action in chosen._actions}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_has_a_meaning(command):
    without = [name for name, text in help_of(command).items() if not text]
    assert not without


@pytest.mark.parametrize("command", OPTIONS_OF)
def test_every_field_of_a_config_is_an_option_with_its_docstring(command):
    meanings = help_of(command)
    for name in names_of(OPTIONS_OF[command]()):
        assert len(meanings[name]) > 5, name
    if command == "run":
        assert meanings["encoder.dim"] == "Size of tokens, latents and queries."


def names_of(config, prefix: str = "") -> list[str]:
    names = []
    for field in fields(config):
        value = getattr(config, field.name)
        name = f"{prefix}{field.name}"
        names += names_of(value, f"{name}.") if is_dataclass(value) else [name]
    return names


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_written_for_people(call, command):
    _, out, _ = call(command, "--help", "all")
    assert "class 'Path'" not in out
    assert "%%" not in out


LONG = ["run", "predictability", "pretrain", "finetune", "adapt"]


@pytest.mark.parametrize("command", LONG)
def test_help_of_a_long_command_fits_a_screen_and_says_where_the_rest_is(call, command):
    _, out, _ = call(command, "--help")
    assert len(out.splitlines()) <= 50
    for option in ("FILES", "--output", "--config", "  source"):
        assert option in out
    assert f"Everything else: poyo-ssl {command} --help all" in out
    _, everything, _ = call(command, "--help", "all")
    assert len(everything.splitlines()) > 50


@pytest.mark.parametrize("command", LONG)
def test_short_help_tells_groups_from_options_as_the_dataclass_does(command):
    config = OPTIONS_OF[command]()
    found = outline(COMMANDS[command].config)
    assert list(found) == [field.name for field in fields(config)]
    for name, field in found.items():
        assert field.is_group == is_dataclass(getattr(config, name)), name
    assert set(COMMANDS[command].essentials) <= set(found)


def test_short_help_imports_nothing_that_takes_seconds():
    code = (
        "import sys; from poyo_ssl.cli import main; main(['run', '--help']); "
        "sys.exit(bool({'torch', 'lightning', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_of_a_group_shows_that_group_alone(call):
    status, out, _ = call("run", "--help", "splits")
    assert status == 0
    assert "--splits.guard" in out
    assert "--encoder.dim" not in out
    status, _, complaint = call("run", "--help", "smell")
    assert status == 2
    assert "No options are called 'smell'. All: poyo-ssl run --help all" in complaint


def parse(command: str, *arguments: str):
    """What a command would be called with."""
    words = [command, *arguments]
    parser = build_parser(words)
    chosen = parser._subcommands_action._name_parser_map[command]
    return parser.parse_args(gather_lists(words, chosen))[command]


def test_files_of_options_are_named_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "source.yaml": "suite2p: {sampling_rate: 30.0}",
        "pred.yaml": "min_timesteps: 7",
        "training.yaml": "max_steps: 3",
        "splits.yaml": "guard: 2.5",
        "all.yaml": "source: source.yaml\npredictability: pred.yaml\nearlier_splits: splits.yaml\n"
        "labels:\n  training: training.yaml",
    }.items():
        (tmp_path / name).write_text(text)
    in_config = parse("run", "x.nwb", "--output", "o", "--config", "all.yaml")
    by_options = parse(
        "run", "x.nwb", "--output", "o", "--source", "source.yaml", "--predictability=pred.yaml",
        "--earlier_splits", "splits.yaml", "--labels.training", "training.yaml",
    )  # fmt: skip
    for options in (in_config, by_options):
        config = build(RunConfig, options)
        assert read_source(options).suite2p.sampling_rate == 30.0
        assert config.predictability.min_timesteps == 7
        assert config.earlier_splits.guard == 2.5
        assert config.labels.training.max_steps == 3


@pytest.mark.parametrize("value", ["os.system", "antigravity.Apple", "no_such.yaml"])
def test_a_word_that_names_no_file_is_refused_and_never_imported(call, tmp_path, value):
    status, _, complaint = call("run", "x.nwb", "--output", tmp_path / "o", "--splits", value)
    assert status == 2
    assert value in complaint
    assert "antigravity" not in sys.modules


def test_lists_are_written_with_spaces_or_in_brackets():
    options = parse(
        "run", "x.nwb", "--output", "o", "--label_fractions", "0.25", "1.0", "--units=all",
        "--arms", "scratch", "scratch + teacher", "--tasks", "[direction]",
    )  # fmt: skip
    config = build(RunConfig, options)
    assert config.label_fractions == (0.25, 1.0)
    assert config.units == ("all",)
    assert config.arms == ("scratch", "scratch + teacher")
    assert config.tasks == ("direction",)


@pytest.mark.parametrize("written", ["500964514", "[500964514]", "['500964514']"])
def test_recordings_called_by_digits_need_no_quotes(written):
    options = parse(
        "run", "x.nwb", "--output", "o", "--splits.train", written, "--splits.test", "day 2",
        "--splits.held_out_column", "frequency", "--splits.held_out_values", "1", "2.5",
    )  # fmt: skip
    splits = build(RunConfig, options).splits
    assert (splits.train, splits.test) == (("500964514",), ("day 2",))
    assert [float(value) for value in splits.held_out_values] == [1.0, 2.5]


NEEDED = {
    "demo": "", "doctor": "", "download": "", "inspect": "x.nwb", "report": "run",
    "simulate": "--output o", "evaluate": "run x.nwb --output o",
    "adapt": "x.nwb --output o --pretrained p", "export": "run x.nwb --output o",
}  # fmt: skip
"""What a command must be given; of those not named here, files and an output."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_printed_config_is_read_again(call, tmp_path, command):
    given = NEEDED.get(command, "x.nwb --output o").split()
    status, out, err = call(command, *given, "--print_config")
    assert (status, err) == (0, "")
    (tmp_path / "printed.yaml").write_text(out)
    again = parse(command, *given, "--config", str(tmp_path / "printed.yaml"))
    if config := OPTIONS_OF.get(command):
        assert build(config, again) == config()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_a_config(command):
    assert "config" in help_of(command)


def test_the_one_encoder_of_a_run_is_found_and_several_are_listed(tmp_path):
    assert find_encoder(tmp_path) == tmp_path
    first = tmp_path / "pretrained" / "a" / "seed-0"
    save_encoder(Encoder(ENCODER, 10.0), first)
    assert find_encoder(tmp_path) == first
    assert find_encoder(first) == first
    save_encoder(Encoder(ENCODER, 10.0), first.with_name("seed-1"))
    with pytest.raises(ValueError, match=r"holds 2 encoders(.|\n)*seed-0\n.*seed-1"):
        find_encoder(tmp_path)


def test_the_version_is_that_of_the_package(call):
    from importlib.metadata import version

    status, out, _ = call("--version")
    assert status == 0
    assert version("poyo-ssl") in out


# files to files ------------------------------------------------------------------------------


def test_simulated_recordings_are_prepared_pretrained_finetuned_and_evaluated(call, tmp_path):
    raw, prepared = tmp_path / "raw", tmp_path / "prepared"
    status, out, _ = call(
        "simulate", "--output", raw, "--lines", "[Sst, Cux2]", "--recordings_per_line=1",
        "--units_per_recording=8", "--sampling_rate=10", "--grating_trials_per_condition=1",
        "--blank_sweeps=2", "--grating_blocks=2", "--movie_frames=240", "--movie_repeats=3",
        "--include_static_gratings=false", "--spontaneous_duration=20", "--gap_duration=5",
    )  # fmt: skip
    assert status == 0
    # one path a line, whole, for a shell to read
    assert sorted(out.split("\n")[:-1]) == sorted(map(str, raw.glob("*.h5")))
    assert len(out.split("\n")) == 3

    status, out, _ = call("prepare", raw, "--output", prepared)
    assert status == 0
    assert f"2 of 2 prepared in {prepared}." in out
    assert sorted(path.name for path in prepared.glob("*.h5")) == sorted(
        path.name for path in raw.glob("*.h5")
    )

    encoder, decoder = tmp_path / "encoder", tmp_path / "decoder"
    status, out, _ = call(
        "pretrain", prepared, "--output", encoder, *TINY,
        "--pretraining.training.max_steps=3", "--pretraining.training.batch_size=4",
    )  # fmt: skip
    assert status == 0
    assert f"Encoder written to {encoder}." in out
    assert (encoder / "curves.csv").is_file()

    status, out, _ = call(
        "finetune", prepared, "--output", decoder, "--pretrained", encoder, *TINY,
        "--task=direction", "--units=all", "--labels.fraction=0.5", "--seed=3",
        "--finetuning.training.max_steps=3", "--finetuning.training.batch_size=4",
        "--finetuning.transfer=units",
    )  # fmt: skip
    assert status == 0
    assert f"Decoder written to {decoder}." in out
    assert "direction, test part" in out
    [line] = [line for line in out.splitlines() if "sim0-Sst-0" in line]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells[:5] == ["sim0-Sst-0", "all", "50%", "pretrained", "3"]
    assert re.fullmatch(r"0\.\d{3}", cells[5])
    assert (cells[6], cells[8:]) == ("0.125", ["8", "0", "0"])

    scores = tmp_path / "scores.json"
    status, out, _ = call("evaluate", decoder, prepared, "--output", scores)
    assert status == 0
    rows = json.loads(scores.read_text())["scores"]
    assert [row["recording_id"] for row in rows] == ["sim0-Cux2-0", "sim0-Sst-0"]
    for row in rows:
        assert row["part"] == "test"
        assert (row["arm"], row["units"]) == ("pretrained", "all")
        assert (row["labels"], row["seed"]) == ("50%", 3)
        assert row["chance"] == 1 / 8
    status, _, error = call("evaluate", decoder, prepared, "--output", scores, "--arm", "ridge")
    assert status == 1
    assert "no decoder called ridge. It holds: pretrained" in error


def test_an_encoder_is_adapted_to_recordings_by_one_command(call, observatory, tmp_path):
    encoder, adapted = Encoder(ENCODER, 10.0), tmp_path / "adapted"
    encoder.add_units([str(unit_id) for unit_id in tiny_observatory()[0].unit_ids[:5]])
    save_encoder(encoder, tmp_path / "encoder")
    status, out, _ = call(
        "adapt", *observatory, "--output", adapted, "--pretrained", tmp_path / "encoder",
        *TINY[4:], "--task=direction", "--labels.per_class=1", "--finetuning.transfer=layerwise",
        "--finetuning.training.max_steps=3", "--finetuning.training.batch_size=4",
        "--identify=true", "--identification.training.max_steps=3",
        "--identification.training.batch_size=4",
    )  # fmt: skip
    assert status == 0
    assert f"Decoder written to {adapted}." in out
    assert re.search(
        r"^Adapted to sim0-Cux2-0, sim0-Sst-0 in \d+ s: 5 of 16 units known, 11 learned; "
        r"accuracy 0\.\d\d \(chance 0\.125\)$",
        out,
        flags=re.MULTILINE,
    )
    facts = json.loads((adapted / "adaptation.json").read_text())
    assert list(facts["seconds"]) == ["choosing units", "identification", "finetuning", "scoring"]
    assert (adapted / "identification_curves.csv").is_file()

    status, _, _ = call("evaluate", adapted, *observatory, "--output", tmp_path / "again.json")
    assert status == 0
    again = json.loads((tmp_path / "again.json").read_text())["scores"]
    assert again == facts["scores"]


def test_a_run_and_its_report_from_a_yaml_file(call, observatory, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("tasks: [direction]\nunits: [all]\narms: []\nnum_seeds: 1\njobs: 1\n")
    run = tmp_path / "run"
    # options of the command line win over the file
    status, out, _ = call(
        "run", *observatory, "--output", run, "--config", config, *TINY, "--title=From a file"
    )
    assert status == 0
    assert f"Report: {run / 'report.html'}" in out
    assert "ridge, time bins" in out
    assert "From a file" in (run / "report.html").read_text()
    facts = json.loads((run / "run.json").read_text())
    assert facts["config"]["arms"] == []
    assert facts["config"]["splits"]["guard"] == 0.5
    assert facts["is_simulated"] is True

    page = tmp_path / "elsewhere" / "page.html"
    page.parent.mkdir()
    status, out, _ = call("report", run, "--output", page)
    assert status == 0
    assert out.strip() == str(page)
    assert "From a file" in page.read_text()


def test_a_quick_run_is_short_and_says_that_it_is_a_trial(call, observatory, tmp_path):
    run = tmp_path / "run"
    status, out, _ = call(
        "run", *observatory, "--output", run, *TINY, "--quick", "--tasks", "direction",
        "--units", "all", "--label_fractions", "0.5", "1.0", "--title=Ours", "--jobs=1",
    )  # fmt: skip
    assert status == 0
    assert "A trial run:" in out
    assert "Ours (trial run)" in (run / "report.html").read_text()
    config = json.loads((run / "run.json").read_text())["config"]
    assert (config["num_seeds"], config["label_fractions"]) == (1, [1.0])
    assert config["arms"] == ["scratch", "scratch + chosen teacher"]
    assert config["labels"]["training"]["max_steps"] == 30


def test_predictability_writes_a_row_for_every_unit(call, observatory, tmp_path):
    table, figure = tmp_path / "out" / "units.csv", tmp_path / "out" / "units.png"
    status, out, _ = call(
        "predictability", *observatory, "--output", table, "--figure", figure, *TINY[4:]
    )
    assert status == 0
    units = pd.read_csv(table)
    assert {"recording_id", "unit_id", "skewness", "kurtosis", "is_predictable"} <= set(units)
    assert len(units) == 16
    assert np.isfinite(units[["skewness", "kurtosis"]]).all(axis=None)
    num = int(units["is_predictable"].sum())
    assert f"{num} of 16 units are predictable (skewness <= 3.51, kurtosis <= 22.62)" in out
    assert figure.stat().st_size > 0


def test_predictability_measures_other_statistics_and_draws_how_firm_it_is(
    call, observatory, tmp_path
):
    table, figure = tmp_path / "units.csv", tmp_path / "sensitivity.png"
    status, _, _ = call(
        "predictability", *observatory, "--output", table, "--sensitivity", figure,
        "--statistics", *TINY[4:]
    )  # fmt: skip
    assert status == 0
    units = pd.read_csv(table)
    assert len(units) == 16
    assert set(STATISTICS) <= set(units)
    assert figure.stat().st_size > 0


def test_inspect_shows_what_recordings_hold_and_names_the_broken_ones(call, observatory, tmp_path):
    broken = tmp_path / "page.nwb"
    broken.write_text("<html>")
    status, out, err = call("inspect", *observatory, broken)
    assert status == 1
    assert "(torch-brain)" in out
    assert re.search(r"^recording +sim0-Cux2-0$", out, flags=re.MULTILINE)
    assert re.search(r"^can decode +direction, temporal_frequency, movie", out, flags=re.MULTILINE)
    assert "drifting_gratings" in out
    assert f"1 cannot be read:\n- '{broken}' is not an HDF5 file" in err


def test_prepare_goes_on_past_broken_files_and_says_which(call, observatory, tmp_path):
    broken = tmp_path / "page.nwb"
    broken.write_text("<html>")
    status, out, err = call("prepare", *observatory, broken, "--output", tmp_path / "prepared")
    assert status == 1
    assert "2 of 3 prepared" in out
    assert "1 could not be prepared" in err
    assert str(broken) in err


def test_prepare_counts_the_sources_of_this_call_alone(call, observatory, tmp_path):
    broken, output = tmp_path / "page.nwb", tmp_path / "prepared"
    broken.write_text("<html>")
    assert call("prepare", broken, "--output", output)[0] == 1
    for _ in range(2):
        status, out, _ = call("prepare", *observatory, "--output", output)
        assert (status, out) == (0, f"2 of 2 prepared in {output}.\n")


def test_progress_and_log_leave_standard_output_to_results(call, tmp_path):
    """A bar and a log on two streams would overwrite each other in a terminal."""
    np.savez(tmp_path / "day1.npz", df_over_f=np.eye(600, 3), sampling_rate=10.0)
    status, out, err = call("prepare", tmp_path / "day1.npz", "--output", tmp_path / "o")
    assert status == 0
    assert out.count("\n") == 1
    assert re.search(r"^recordings 1/1, 0:00:\d\d$", err, flags=re.MULTILINE)


def test_download_lists_sessions_without_fetching_any(call):
    status, out, _ = call("download", "--list", "--session", "527745328", "527676626")
    assert status == 0
    assert "527745328" in out
    assert "527676626" in out
    assert "de Vries" in out


@pytest.mark.parametrize(
    ("function", "extra"), [("download_sessions", []), ("stream_sessions", ["--only_activity"])]
)
def test_download_fetches_what_was_asked_for_and_says_what_to_cite(
    call, monkeypatch, tmp_path, function, extra
):
    asked = {}

    def fetch(assets, directory, *_, on_progress, **options):
        asked.update(options, sessions=assets["session_id"].tolist(), directory=directory)
        on_progress("527745328", 5, 5)
        return [directory / "one.nwb"]

    monkeypatch.setattr(f"poyo_ssl.recordings.dandi.download.{function}", fetch)
    status, out, err = call(
        "download", "--session", "527745328", "--output", tmp_path, "--retries=2", *extra
    )
    assert status == 0
    assert (asked["sessions"], asked["directory"]) == (["527745328"], tmp_path)
    assert (asked["retries"], asked["timeout"]) == (2, 30.0)
    assert out.startswith(f"{tmp_path / 'one.nwb'}\n")
    assert "de Vries" in out
    assert "1/1" in err or "5/5" in err


def test_download_of_an_unknown_session_says_what_comes_near(call):
    status, _, err = call("download", "--list", "--session", "527745329")
    assert status == 1
    assert "527745328" in err


def test_a_source_file_says_what_a_recording_does_not(call, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "day1.npz", df_over_f=rng.normal(size=(600, 3)), sampling_rate=10.0)
    log = pd.DataFrame({"onset": np.arange(5.0, 50.0, 5.0), "dir": np.tile([0, 90, 180], 3)})
    log.to_csv(tmp_path / "log.csv", index=False)
    (tmp_path / "source.yaml").write_text(
        "stimuli:\n  drifting_gratings:\n    table: log.csv\n    start: onset\n"
        "    duration: 2.0\n    columns: {orientation: dir}\n"
    )
    status, out, _ = call("inspect", tmp_path / "day1.npz", "--source", tmp_path / "source.yaml")
    assert status == 0
    assert re.search(r"^can decode +direction$", out, flags=re.MULTILINE)
    assert "orientation 0, 90, 180" in out


# what is wrong -------------------------------------------------------------------------------


def refused(call, *arguments: object) -> str:
    status, _, complaint = call(*arguments)
    assert status == 1
    assert re.search("^Error: ", complaint, flags=re.MULTILINE)
    return complaint


READERS = ["run", "predictability", "pretrain", "finetune", "prepare"]


@pytest.mark.parametrize("command", READERS)
def test_a_missing_file_is_named(call, tmp_path, command):
    path = tmp_path / "no such file.nwb"
    assert f"'{path}' does not exist" in refused(call, command, path, "--output", tmp_path / "o")


@pytest.mark.parametrize("command", READERS)
def test_an_empty_folder_is_named_with_what_is_expected(call, tmp_path, command):
    empty = tmp_path / "empty"
    empty.mkdir()
    complaint = refused(call, command, empty, "--output", tmp_path / "o")
    assert f"No recordings in '{empty}' (found: nothing). Expected are .nwb" in complaint


@pytest.mark.parametrize("command", READERS)
def test_a_text_file_named_nwb_is_shown_for_what_it_is(call, tmp_path, command):
    path = tmp_path / "page.nwb"
    path.write_text("<html>404</html>")
    complaint = refused(call, command, path, "--output", tmp_path / "o")
    assert f"'{path}' is not an HDF5 file (it begins with b'<html" in complaint
    assert not list(tmp_path.glob("o/*.h5"))


def test_an_nwb_file_without_df_over_f_says_what_it_lacks(call, tmp_path):
    path = tmp_path / "behaviour.nwb"
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.6.0"
        file.create_group("processing/behavior")
    complaint = refused(call, "run", path, "--output", tmp_path / "o")
    assert "DfOverF" in complaint or "ΔF/F" in complaint
    assert str(path) in complaint


@pytest.mark.parametrize("command", ["run", "finetune"])
def test_a_recording_without_stimuli_cannot_be_decoded(call, tmp_path, command):
    recording = replace(tiny_observatory()[0], stimuli={}, templates={})
    path = save_recording(recording, tmp_path / "in")
    complaint = refused(call, command, path, "--output", tmp_path / "o", *TINY)
    assert "drifting gratings" in complaint or "drifting_gratings" in complaint
    assert "none" in complaint or "no stimulus" in complaint
    assert not (tmp_path / "o").exists()


def test_an_unknown_task_is_refused_with_those_there_are(call, observatory, tmp_path):
    for command, option in (("finetune", "--task=smell"), ("run", "--tasks=[smell]")):
        complaint = refused(call, command, *observatory, "--output", tmp_path / "o", option)
        assert "Unknown task 'smell'. Choose from: direction, temporal_frequency" in complaint


def test_an_unknown_option_in_a_yaml_file_is_named(call, observatory, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("splits:\n  tset_fraction: 0.3\n")
    status, _, complaint = call("run", *observatory, "--output", tmp_path / "o", "--config", config)
    assert status == 2
    assert "tset_fraction" in complaint
    assert len(complaint.splitlines()) < 6  # not buried under a hundred options


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["run", "x.nwb", "--ouput", "o"], "output"),
        (["run", "x.nwb", "--task", "direction"], "tasks, own_tasks"),
        (["finetune", "x.nwb", "--tasks", "direction"], "task"),
        (["finetune", "x.nwb", "--label_fraction", "0.1"], "labels.fraction"),
        (["predictability", "x.nwb", "--workers", "2"], "jobs"),
    ],
)
def test_an_option_that_is_misspelt_shortened_or_renamed_is_refused_with_what_it_is_called(
    call, words, meant
):
    status, _, complaint = call(*words)
    assert status == 2
    assert complaint.endswith(f"Options of a name like it: {meant}\n")


def test_what_must_be_given_is_named_as_it_is_typed(call):
    _, _, complaint = call("run", "--quick", "--tasks", "direction", "session.nwb")
    assert complaint.startswith("usage: poyo-ssl run FILES ... --output OUTPUT [options]")
    assert "required: FILES, --output. Give them before options" in complaint


def test_a_file_of_options_that_is_not_there_is_named(call):
    _, _, complaint = call("inspect", "x.nwb", "--source", "reading.yaml")
    assert complaint.endswith("There is no file 'reading.yaml'.\n")


def test_an_option_that_several_commands_have_means_the_same_in_each():
    said = {}
    for command in COMMANDS:
        for name, text in help_of(command).items():
            said.setdefault(name, set()).add(text)
    for name in ("files", "config", "source", "labels.fraction"):
        assert len(said[name]) == 1, name


def test_an_impossible_value_is_explained(call, observatory, tmp_path):
    complaint = refused(
        call, "run", *observatory, "--output", tmp_path / "o", "--encoder.dim_head=3"
    )
    assert "dim_head must be a multiple of 4" in complaint


@pytest.mark.parametrize(
    ("command", "message"),
    [("evaluate", "is no run: experiment.json"), ("report", "is not a run directory")],
)
def test_a_folder_that_is_no_run_is_refused(call, observatory, tmp_path, command, message):
    files = observatory if command == "evaluate" else []
    complaint = refused(call, command, tmp_path, *files, "--output", tmp_path / "o")
    assert f"'{tmp_path}' {message}" in complaint


def test_a_pretrained_encoder_that_is_none_is_refused(call, observatory, tmp_path):
    complaint = refused(
        call, "finetune", *observatory, "--output", tmp_path / "o", "--pretrained", tmp_path, *TINY
    )
    assert f"'{tmp_path}' is no checkpoint" in complaint


def test_an_unknown_way_to_transfer_is_refused_with_those_there_are(call, observatory, tmp_path):
    status, _, complaint = call(
        "adapt", *observatory, "--output", tmp_path / "o", "--pretrained", tmp_path,
        "--finetuning.transfer=half",
    )  # fmt: skip
    assert status == 2
    for way in ("full", "layerwise", "units", "probe"):
        assert way in complaint


def test_a_command_that_does_not_exist_is_refused(call):
    status, _, complaint = call("train")
    assert status == 2
    assert "invalid choice: 'train'" in complaint


def test_ctrl_c_says_that_the_work_can_go_on(call, monkeypatch, tmp_path):
    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "report", COMMANDS["report"]._replace(call=interrupt))
    status, _, err = call("report", tmp_path)
    assert status == 130
    assert "resumes where it stopped" in err
