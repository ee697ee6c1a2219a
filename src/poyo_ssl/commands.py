"""Every command: its options, and the one function of the Python API that it calls."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd
from jsonargparse import ArgumentParser, Namespace

from poyo_ssl.terminal import (
    byte_progress,
    console,
    item_progress,
    print_facts,
    print_frame,
    print_rows,
    print_summary,
    say,
    stage_progress,
)

# What a command needs is imported when it is called: torch alone takes seconds.

logger = logging.getLogger(__name__)

Config = TypeVar("Config")


class Command(NamedTuple):
    """What a word on the command line does."""

    add_options: Callable[[ArgumentParser], None]
    call: Callable[[Namespace], None]
    text: str
    """Help; its first sentence stands in the list of commands."""


def _add_files(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        help="NWB files, prepared .h5 recordings, .npz arrays, suite2p folders, or directories "
        "that are searched for them",
    )


def _add_source(parser: ArgumentParser) -> None:
    from poyo_ssl.recordings.sources import SourceConfig

    parser.add_class_arguments(SourceConfig, "source")


def _add_workers(parser: ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=1, help="recordings at a time; 0: all cores")
    parser.add_argument(
        "--address", help="Ray cluster to work on, such as auto or ray://head:10001"
    )


def _add_config(parser: ArgumentParser, config: type) -> None:
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_class_arguments(config)


def _build(config: type[Config], options: Namespace) -> Config:
    """The config dataclass filled from parsed options."""
    names = {field.name for field in fields(config)}  # type: ignore[arg-type]
    return _instantiate(config, Namespace(**{k: v for k, v in vars(options).items() if k in names}))


def _instantiate(config: type[Config], values: Namespace) -> Config:
    parser = ArgumentParser()
    parser.add_class_arguments(config, "config")
    built: Config = parser.instantiate_classes(Namespace(config=values)).config
    return built


def _source(options: Namespace) -> Any:
    from poyo_ssl.recordings.sources import SourceConfig

    return _instantiate(SourceConfig, options.source)


def _add_simulate(parser: ArgumentParser) -> None:
    from poyo_ssl.recordings.simulator import SimulatorConfig

    parser.add_argument("--output", type=Path, required=True, help="directory for .h5 recordings")
    _add_config(parser, SimulatorConfig)


def _simulate(options: Namespace) -> None:
    from poyo_ssl.recordings.simulator import SimulatorConfig, simulate_recordings
    from poyo_ssl.recordings.storage import save_recording

    config = _build(SimulatorConfig, options)
    for recording in simulate_recordings(config):
        say(save_recording(recording, options.output))


def _add_download(parser: ArgumentParser) -> None:
    parser.add_argument("--stimulus_set", nargs="+", help="A, B, C or C2")
    parser.add_argument("--session", nargs="+", help="ids of imaging sessions")
    parser.add_argument("--subject", nargs="+", help="ids of mice")
    parser.add_argument("--output", type=Path, help="directory for the sessions")
    parser.add_argument("--list", action="store_true", help="show what is there, fetch nothing")
    parser.add_argument(
        "--only_activity",
        action="store_true",
        help="store ΔF/F, stimulus tables and behaviour as .h5, a tenth of the bytes; "
        "needs pip install 'poyo-ssl[remote]'",
    )
    parser.add_argument("--connections", type=int, default=4, help="files fetched at a time")
    parser.add_argument("--retries", type=int, default=5, help="attempts after a failure, in a row")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds without a byte")


def _download(options: Namespace) -> None:
    from poyo_ssl.recordings.allen import CITATION, describe_assets, find_sessions
    from poyo_ssl.recordings.download import download_sessions, stream_sessions
    from poyo_ssl.recordings.sources import NwbConfig, SourceConfig

    assets = find_sessions(options.stimulus_set, options.session, options.subject)
    if options.list or options.output is None:
        if options.list:
            say(assets.drop(columns=["path", "sha256"]).to_string(index=False))
        print_frame(describe_assets(assets), "Sessions of DANDI:000728")
        say("--list shows each, --output DIRECTORY fetches them.")
        say(CITATION)
        return
    patience = {"retries": options.retries, "timeout": options.timeout}
    if options.only_activity:
        source = SourceConfig(nwb=NwbConfig(with_templates=False))
        with item_progress("sessions") as report:
            done: set[str] = set()

            def count(session_id: str, *_: int) -> None:
                done.add(session_id)
                report(len(done), len(assets))

            files = stream_sessions(assets, options.output, source, on_progress=count, **patience)
    else:
        with byte_progress() as report_bytes:
            files = download_sessions(
                assets,
                options.output,
                connections=options.connections,
                on_progress=report_bytes,
                **patience,
            )
    for file in files:
        say(file)
    say(CITATION)


def _add_inspect(parser: ArgumentParser) -> None:
    _add_files(parser)
    _add_source(parser)


def _inspect(options: Namespace) -> None:
    from poyo_ssl.recordings.inspection import summarize_recording, summarize_stimuli
    from poyo_ssl.recordings.loading import find_recording_files, identify, load_recording
    from poyo_ssl.recordings.recording import RecordingError

    source = _source(options)
    broken = []
    for path in find_recording_files(options.files):
        try:
            recording = load_recording(path, source)
        except RecordingError as error:
            broken.append(str(error))
            continue
        facts = {"file": f"{path} ({identify(path)})", **summarize_recording(recording)}
        print_facts(facts | summarize_stimuli(recording))
        console.print()
    if broken:
        raise RecordingError(f"{len(broken)} cannot be read:\n- " + "\n- ".join(broken))


def _add_prepare(parser: ArgumentParser) -> None:
    _add_files(parser)
    parser.add_argument("--output", type=Path, required=True, help="directory for .h5 recordings")
    _add_source(parser)
    _add_workers(parser)


def _prepare(options: Namespace) -> None:
    from poyo_ssl.recordings.manifest import MANIFEST
    from poyo_ssl.recordings.preparation import prepare
    from poyo_ssl.recordings.recording import RecordingError

    with item_progress("recordings") as report:
        manifest = prepare(
            options.files,
            options.output,
            source=_source(options),
            workers=options.workers,
            address=options.address,
            on_progress=report,
        )
    failed = manifest[manifest["status"] != "ok"]
    say(f"{len(manifest) - len(failed)} of {len(manifest)} prepared in {options.output}.")
    if len(failed):
        raise RecordingError(
            f"{len(failed)} could not be prepared (all in {options.output / MANIFEST}):\n- "
            + "\n- ".join(failed["message"].astype(str)[:20])
        )


def _add_predictability(parser: ArgumentParser) -> None:
    from poyo_ssl.stages import PredictabilityStage

    _add_files(parser)
    parser.add_argument("--output", type=Path, required=True, help="CSV, one row per unit")
    parser.add_argument("--figure", type=Path, help="PNG or PDF of kurtosis against skewness")
    parser.add_argument(
        "--sensitivity",
        type=Path,
        help="PNG or PDF of who changes side when the thresholds move by 10 and 20 %",
    )
    parser.add_argument(
        "--statistics",
        action="store_true",
        help="measure event rate, Fano factor, autocorrelation and noise level, too",
    )
    _add_source(parser)
    _add_workers(parser)
    _add_config(parser, PredictabilityStage)


def _predictability(options: Namespace) -> None:
    from poyo_ssl.stages import PredictabilityStage, measure_predictability

    with item_progress("recordings") as report:
        partition = measure_predictability(
            options.files,
            options.output,
            _build(PredictabilityStage, options),
            figure=options.figure,
            sensitivity_figure=options.sensitivity,
            with_statistics=options.statistics,
            source=_source(options),
            workers=options.workers,
            address=options.address,
            on_progress=report,
        )
    units = partition.units
    say(
        f"{int(units['is_predictable'].sum())} of {len(units)} units are predictable "
        f"({partition.thresholds}); written to {options.output}."
    )


def _add_pretrain(parser: ArgumentParser) -> None:
    from poyo_ssl.stages import PretrainStage

    _add_files(parser)
    parser.add_argument("--output", type=Path, required=True, help="directory of the encoder")
    _add_source(parser)
    _add_config(parser, PretrainStage)


def _pretrain(options: Namespace) -> None:
    from poyo_ssl.stages import PretrainStage, pretrain_encoder

    pretrain_encoder(
        options.files, options.output, _build(PretrainStage, options), source=_source(options)
    )
    say(f"Encoder written to {options.output}.")


def _add_finetune(parser: ArgumentParser) -> None:
    from poyo_ssl.stages import FinetuneStage

    _add_files(parser)
    parser.add_argument("--output", type=Path, required=True, help="directory of the decoder")
    parser.add_argument(
        "--pretrained",
        type=Path,
        help="directory that 'poyo-ssl pretrain' wrote; none trains from scratch",
    )
    _add_source(parser)
    _add_config(parser, FinetuneStage)


def _finetune(options: Namespace) -> None:
    from poyo_ssl.stages import FinetuneStage, finetune_decoder

    scores = finetune_decoder(
        options.files,
        options.output,
        _build(FinetuneStage, options),
        options.pretrained,
        source=_source(options),
    )
    print_rows(scores)
    say(f"Decoder written to {options.output}.")


def _add_evaluate(parser: ArgumentParser) -> None:
    parser.add_argument(
        "run", type=Path, help="directory that 'poyo-ssl run' or 'poyo-ssl finetune' wrote"
    )
    _add_files(parser)
    parser.add_argument("--output", type=Path, required=True, help="JSON of the scores")
    _add_source(parser)


def _evaluate(options: Namespace) -> None:
    from poyo_ssl.run_evaluation import evaluate_run

    rows = evaluate_run(options.run, options.files, options.output, source=_source(options))
    print_rows(rows)
    say(f"Scores written to {options.output}.")


def _add_report(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="directory that 'poyo-ssl run' wrote")
    parser.add_argument("--output", type=Path, help="HTML page (default: RUN/report.html)")


def _report(options: Namespace) -> None:
    from poyo_ssl.report import write_report

    say(write_report(options.run, options.output))


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
    _add_source(parser)
    _add_config(parser, RunConfig)


def _run(options: Namespace) -> None:
    from poyo_ssl.experiment import RunConfig
    from poyo_ssl.recordings.loading import load_recordings

    config = _build(RunConfig, options)
    recordings = load_recordings(options.files, _source(options), skip_broken=options.skip_broken)
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
    from poyo_ssl.pipeline import run

    with stage_progress() as report:
        page = run(
            recordings,
            directory,
            config,
            command=shlex.join(["poyo-ssl", *sys.argv[1:]]),
            on_progress=report,
        )
    facts = json.loads((directory / "run.json").read_text())
    chance = {task["name"]: task["chance"] for task in facts["tasks"]}
    print_summary(pd.read_csv(directory / "summary.csv"), chance)
    say(f"Report: {page}")


COMMANDS = {
    "demo": Command(
        _add_demo, _demo, "The whole method on a small simulated observatory. Takes minutes."
    ),
    "run": Command(
        _add_run,
        _run,
        "The whole method on your recordings. Partition of units, pretraining, decoders beside "
        "reference decoders, report.",
    ),
    "inspect": Command(
        _add_inspect,
        _inspect,
        "Shows what recordings hold. Units, imaging, stimuli, what can be decoded and what is "
        "missing.",
    ),
    "download": Command(
        _add_download,
        _download,
        "Lists and fetches sessions of the Allen Brain Observatory. From DANDI:000728; goes on "
        "where it stopped, and checks what it fetched.",
    ),
    "prepare": Command(
        _add_prepare,
        _prepare,
        "Converts recordings to torch-brain HDF5. In parallel, resumable, with a manifest.",
    ),
    "predictability": Command(
        _add_predictability,
        _predictability,
        "Measures skewness and kurtosis of every unit. Uses training time only, and one recording "
        "in memory at a time.",
    ),
    "pretrain": Command(_add_pretrain, _pretrain, "Pretrains an encoder on predictable units."),
    "finetune": Command(
        _add_finetune, _finetune, "Fits a decoder, from scratch or from a pretrained encoder."
    ),
    "evaluate": Command(
        _add_evaluate, _evaluate, "Scores fitted decoders on recordings of the same cells."
    ),
    "report": Command(_add_report, _report, "Writes the HTML report of a run."),
    "simulate": Command(
        _add_simulate, _simulate, "Invents recordings of a simulated brain observatory."
    ),
}
"""Word on the command line to what it does, in the order of the help."""
