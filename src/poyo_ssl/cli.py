"""The command line: parse, call one function of the Python API, print what it gave."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # help texts of the options

Config = TypeVar("Config")
console = Console()

EPILOG = "Every command has --help. Start with: poyo-ssl demo --output runs/demo"


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``poyo-ssl``; returns the exit status."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False, show_time=False)],
    )
    logging.getLogger("poyo_ssl").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", module="lightning")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = build_parser(arguments).parse_args(arguments)
    try:
        COMMANDS[options.command](options[options.command])
    except KeyboardInterrupt:
        console.print("Interrupted. The same command goes on where it stopped.")
        return 130
    except (ValueError, OSError, ImportError) as error:
        errors = Console(stderr=True)
        errors.print("[bold red]Error:[/] ", end="")
        errors.print(str(error), highlight=False, soft_wrap=True, markup=False)
        return 1
    return 0


def _say(text: object) -> None:
    """Prints a line as it is: a path in it is neither wrapped nor read as markup."""
    console.print(str(text), highlight=False, soft_wrap=True, markup=False)


def build_parser(arguments: list[str]) -> ArgumentParser:
    """All commands; options only for the one that is called, since they take seconds to import."""
    called = next((word for word in arguments if word in OPTIONS), None)
    parser = ArgumentParser(
        prog="poyo-ssl",
        description="Cell-pattern-aware pretraining and decoding for two-photon calcium imaging.",
        epilog=EPILOG,
        version=_version(),
    )
    commands = parser.add_subcommands(dest="command")
    for name, (add_options, text) in OPTIONS.items():
        command = ArgumentParser(description=text)
        if name == called:
            add_options(command)
            command.usage = _usage(name, command)
        commands.add_subcommand(name, command, help=text.split(". ")[0])
    return parser


def _usage(name: str, command: ArgumentParser) -> str:
    """One line: what must be given, not the hundred options that may be."""
    needed = [
        action.option_strings[0] + " " + action.dest.upper()
        if action.option_strings
        else action.dest.upper() + " ..." * (action.nargs == "+")
        for action in command._actions
        if action.required
    ]
    return " ".join(["poyo-ssl", name, *needed, "[options]"])


def _version() -> str:
    from importlib.metadata import version

    return version("poyo-ssl")


def _add_files(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        help="NWB files, prepared .h5 recordings, or directories that are searched for them",
    )


def _add_config(parser: ArgumentParser, config: type) -> None:
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_class_arguments(config)


def _build(config: type[Config], options: Namespace) -> Config:
    """The config dataclass filled from parsed options."""
    parser = ArgumentParser()
    parser.add_class_arguments(config, "config")
    names = {field.name for field in fields(config)}  # type: ignore[arg-type]
    chosen = Namespace(config=Namespace(**{k: v for k, v in vars(options).items() if k in names}))
    built: Config = parser.instantiate_classes(chosen).config
    return built


def _add_simulate(parser: ArgumentParser) -> None:
    from poyo_ssl.recordings.simulator import SimulatorConfig

    parser.add_argument("--output", type=Path, required=True, help="directory for .h5 recordings")
    _add_config(parser, SimulatorConfig)


def _simulate(options: Namespace) -> None:
    from poyo_ssl.recordings.simulator import SimulatorConfig, simulate_recordings
    from poyo_ssl.recordings.storage import save_recording

    config = _build(SimulatorConfig, options)
    for recording in simulate_recordings(config):
        _say(save_recording(recording, options.output))


def _add_prepare(parser: ArgumentParser) -> None:
    _add_files(parser)
    parser.add_argument("--output", type=Path, required=True, help="directory for .h5 recordings")


def _prepare(options: Namespace) -> None:
    from poyo_ssl.recordings.loading import find_recording_files, load_recording
    from poyo_ssl.recordings.storage import save_recording

    for path in find_recording_files(options.files):
        _say(save_recording(load_recording(path), options.output))


def _add_predictability(parser: ArgumentParser) -> None:
    from poyo_ssl.stages import PredictabilityStage

    _add_files(parser)
    parser.add_argument("--output", type=Path, required=True, help="CSV, one row per unit")
    parser.add_argument("--figure", type=Path, help="PNG or PDF of kurtosis against skewness")
    _add_config(parser, PredictabilityStage)


def _predictability(options: Namespace) -> None:
    from poyo_ssl.stages import PredictabilityStage, measure_predictability

    partition = measure_predictability(
        options.files, options.output, _build(PredictabilityStage, options), options.figure
    )
    units = partition.units
    _say(
        f"{int(units['is_predictable'].sum())} of {len(units)} units are predictable "
        f"({partition.thresholds}); written to {options.output}."
    )


def _add_pretrain(parser: ArgumentParser) -> None:
    from poyo_ssl.stages import PretrainStage

    _add_files(parser)
    parser.add_argument("--output", type=Path, required=True, help="directory of the encoder")
    _add_config(parser, PretrainStage)


def _pretrain(options: Namespace) -> None:
    from poyo_ssl.stages import PretrainStage, pretrain_encoder

    pretrain_encoder(options.files, options.output, _build(PretrainStage, options))
    _say(f"Encoder written to {options.output}.")


def _add_finetune(parser: ArgumentParser) -> None:
    from poyo_ssl.stages import FinetuneStage

    _add_files(parser)
    parser.add_argument("--output", type=Path, required=True, help="directory of the decoder")
    parser.add_argument(
        "--pretrained",
        type=Path,
        help="directory that 'poyo-ssl pretrain' wrote; none trains from scratch",
    )
    _add_config(parser, FinetuneStage)


def _finetune(options: Namespace) -> None:
    from poyo_ssl.stages import FinetuneStage, finetune_decoder

    scores = finetune_decoder(
        options.files, options.output, _build(FinetuneStage, options), options.pretrained
    )
    _print_rows(scores)
    _say(f"Decoder written to {options.output}.")


def _add_evaluate(parser: ArgumentParser) -> None:
    parser.add_argument(
        "run", type=Path, help="directory that 'poyo-ssl run' or 'poyo-ssl finetune' wrote"
    )
    _add_files(parser)
    parser.add_argument("--output", type=Path, required=True, help="JSON of the scores")


def _evaluate(options: Namespace) -> None:
    from poyo_ssl.stages import evaluate_run

    rows = evaluate_run(options.run, options.files, options.output)
    _print_rows(rows)
    _say(f"Scores written to {options.output}.")


def _add_report(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="directory that 'poyo-ssl run' wrote")
    parser.add_argument("--output", type=Path, help="HTML page (default: RUN/report.html)")


def _report(options: Namespace) -> None:
    from poyo_ssl.report import write_report

    _say(write_report(options.run, options.output))


def _add_run(parser: ArgumentParser) -> None:
    from poyo_ssl.experiment import RunConfig

    _add_files(parser)
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="directory for results, checkpoints and report.html",
    )
    parser.add_argument(
        "--skip_broken", action="store_true", help="go on without recordings that cannot be read"
    )
    _add_config(parser, RunConfig)


def _run(options: Namespace) -> None:
    from poyo_ssl.experiment import RunConfig
    from poyo_ssl.recordings.loading import load_recordings

    config = _build(RunConfig, options)
    recordings = load_recordings(options.files, skip_broken=options.skip_broken)
    _run_and_show(recordings, options.output, config)


def _add_demo(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/demo"),
        help="directory for results and report.html",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the simulated observatory")


def _demo(options: Namespace) -> None:
    from poyo_ssl.demo import demo_config, simulate_demo

    console.print("Simulating a small brain observatory ...")
    _run_and_show(simulate_demo(options.seed), options.output, demo_config())


def _run_and_show(recordings: list[Any], directory: Path, config: Any) -> None:
    from poyo_ssl.run import run

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        bars: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total)
            progress.update(bars[stage], completed=done)

        report = run(
            recordings,
            directory,
            config,
            command=shlex.join(["poyo-ssl", *sys.argv[1:]]),
            on_progress=show,
        )
    facts = json.loads((directory / "run.json").read_text())
    chance = {task["name"]: task["chance"] for task in facts["tasks"]}
    _print_summary(pd.read_csv(directory / "summary.csv"), chance)
    _say(f"Report: {report}")


def _print_summary(summary: pd.DataFrame, chance: dict[str, float | None]) -> None:
    """The main metric of every arm, one table per task; chance is None where there is none."""
    main = summary[summary["metric"].isin(["accuracy", "within_1s", "ssim"])]
    for task, rows in main.groupby("task", sort=False):
        metric = rows["metric"].iloc[0]
        table = Table(title=f"{task}: {metric} [95 % interval over seeds]", title_justify="left")
        for column in ("units", "labels", "decoder"):
            table.add_column(column)
        for column in (metric, "gain over scratch"):
            table.add_column(str(column), justify="right")
        if chance[str(task)] is not None:
            table.add_row("any", "", "chance", f"{chance[str(task)]:.3f}", "")
        for row in rows.sort_values(
            ["units", "label_fraction"], kind="stable", ascending=[True, False]
        ).itertuples():
            table.add_row(
                str(row.units), f"{row.label_fraction:.0%}", str(row.arm),
                _interval(row.mean, row.seed_low, row.seed_high),
                _interval(row.gain_over_scratch, row.gain_low, row.gain_high, signed=True),
            )  # fmt: skip
        console.print(table)


def _interval(mean: Any, low: Any, high: Any, signed: bool = False) -> str:
    if pd.isna(mean):
        return ""
    sign = "+" if signed else ""
    text = f"{mean:{sign}.3f}"
    return text if pd.isna(low) else f"{text} \\[{low:{sign}.3f}, {high:{sign}.3f}]"


def _print_rows(rows: list[dict[str, Any]]) -> None:
    """Scores of fitted decoders on recordings, one line each, however narrow the terminal."""
    for row in rows:
        metric, value = next(iter(row["scores"].items()))
        chance = "" if row["chance"] is None else f" (chance {row['chance']:.3f})"
        part = "test part" if row["part"] == "test" else row["part"]
        _say(
            f"{row['recording_id']}, {row['task']} from {row['units']} units, {row['arm']}, "
            f"{row['label_fraction']:.0%} of the labels, seed {row['seed']}: "
            f"{metric} {value:.3f}{chance} in {row['num_windows']} windows of the {part}; "
            f"{row['num_known_units']} units known, {len(row['missing_units'])} missing, "
            f"{len(row['unknown_units'])} unknown"
        )


OPTIONS = {
    "demo": (_add_demo, "The whole method on a small simulated observatory. Takes minutes."),
    "run": (_add_run, "The whole method on your recordings. Partition of units, pretraining, "
            "decoders beside reference decoders, report."),
    "simulate": (_add_simulate, "Invents recordings of a simulated brain observatory."),
    "prepare": (_add_prepare, "Converts recordings to torch-brain HDF5."),
    "predictability": (_add_predictability, "Measures skewness and kurtosis of every unit. "
                       "Uses training time only."),
    "pretrain": (_add_pretrain, "Pretrains an encoder on predictable units."),
    "finetune": (_add_finetune, "Fits a decoder, from scratch or from a pretrained encoder."),
    "evaluate": (_add_evaluate, "Scores fitted decoders on recordings of the same cells."),
    "report": (_add_report, "Writes the HTML report of a run."),
}  # fmt: skip

COMMANDS = {
    "demo": _demo,
    "run": _run,
    "simulate": _simulate,
    "prepare": _prepare,
    "predictability": _predictability,
    "pretrain": _pretrain,
    "finetune": _finetune,
    "evaluate": _evaluate,
    "report": _report,
}
