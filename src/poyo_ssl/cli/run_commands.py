"""The commands that make runs: alone, as one of several parts, on a cluster, and together again."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from jsonargparse import ArgumentParser, Namespace

from poyo_ssl.cli.options import (
    DIRECTORY,
    Command,
    ConfigClass,
    add_address,
    add_files,
    add_output,
    add_pretrained,
    build,
    find_encoder,
    read_source,
)
from poyo_ssl.cli.terminal import print_summary, print_sweep, say, say_on_the_way, say_reading
from poyo_ssl.progress_bars import item_progress, stage_progress

# What a command needs is imported when it is called: torch alone takes seconds.


def _add_run(parser: ArgumentParser) -> None:
    add_files(parser)
    add_output(parser, "Directory for results, checkpoints and report.html.")
    parser.add_argument(
        "--pretrain_on",
        nargs="+",
        type=Path,
        default=[],
        help="Other recordings to pretrain encoders on, which are not decoded.",
    )
    add_pretrained(parser, without="; none pretrains one here")
    parser.add_argument(
        "--skip_broken",
        action="store_true",
        help="Continue without recordings that cannot be read.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="A trial: one seed, few steps, one part of the labels, scratch and its teacher.",
    )
    add_address(parser, "; all of its machines must see OUTPUT under the same path")
    parser.add_argument(
        "--part",
        help="Be one of several processes that share the run, such as 3/8; start the others "
        "anywhere, and then the command without --part for the report.",
    )
    parser.add_argument(
        "--pretrain_only", action="store_true", help="Of a part: end when encoders are pretrained."
    )
    parser.add_argument(
        "--plan",
        choices=["slurm"],
        help="Run nothing, and write the scripts of a SLURM cluster to OUTPUT/slurm.",
    )
    parser.add_argument("--parts", type=int, default=8, help="Jobs of such a plan at a time.")
    parser.add_argument("--submit", action="store_true", help="Submit such a plan with sbatch.")


def _run(options: Namespace) -> None:
    from poyo_ssl.comparison.config import RunConfig
    from poyo_ssl.recordings.loading import load_recordings

    _require_together(options)
    config = build(RunConfig, options)
    if options.quick:
        from poyo_ssl.cli.trial import trial_of

        config = trial_of(config)
    if options.pretrained:
        config = config.beginning_with(str(find_encoder(options.pretrained)))
    say_reading([*options.files, *options.pretrain_on])
    recordings, earlier = (
        load_recordings(files, read_source(options), skip_broken=options.skip_broken)
        if files
        else []
        for files in (options.files, options.pretrain_on)
    )
    runs = {options.output: config}
    sweep = _sweep(config, options)
    if sweep is not None:
        runs = sweep.runs(options.output)
    if options.plan:
        _plan_for_cluster(recordings, earlier, runs, options)
    elif options.part:
        _run_part(recordings, earlier, runs, options)
    elif sweep is not None:
        _sweep_and_show(recordings, earlier, sweep, options)
    else:
        _run_and_show(recordings, options.output, config, earlier, options.address)
        if options.quick:
            say("A trial run: it shows that everything works, and its scores mean little.")


def _sweep(config: Any, options: Namespace) -> Any:
    """The sweep that config files ask for, or None."""
    from poyo_ssl.comparison.sweep import Sweep

    values = options.get("sweep")
    return Sweep(config=config, options=values) if values else None


def _require_together(options: Namespace) -> None:
    """Refuses options that mean nothing without another one."""
    if options.part and options.plan:
        raise ValueError("--part does a part of a run and --plan none of it: give one of them.")
    if options.pretrain_only and not options.part:
        raise ValueError("--pretrain_only goes with --part; for all of it alone, give --part 1/1.")
    if options.address and (options.part or options.plan):
        raise ValueError("--address has a Ray cluster do the run: leave --part and --plan out.")
    if options.submit and not options.plan:
        raise ValueError("--submit goes with --plan slurm.")


def _run_part(
    recordings: list[Any], earlier: list[Any], runs: dict[Path, Any], options: Namespace
) -> None:
    from poyo_ssl.comparison.run import run_part
    from poyo_ssl.comparison.shared_work import Part

    part = Part.from_text(options.part)
    for directory, config in runs.items():
        with stage_progress() as report:
            run_part(
                recordings,
                directory,
                config,
                part,
                pretraining_recordings=earlier,
                pretrain_only=options.pretrain_only,
                on_progress=report,
            )
    say("Nothing is left for this part. The command without --part writes tables and report.")


def _plan_for_cluster(
    recordings: list[Any], earlier: list[Any], runs: dict[Path, Any], options: Namespace
) -> None:
    from poyo_ssl.comparison.run import prepare_run
    from poyo_ssl.comparison.slurm import submit, write_slurm_scripts

    plans = [
        prepare_run(recordings, directory, config, pretraining_recordings=earlier)
        for directory, config in runs.items()
    ]
    script = write_slurm_scripts(
        options.output, plans, _words_of_run(sys.argv[1:]), num_parts=options.parts
    )
    num_fits = sum(len(run_plan.fits) for run_plan in plans)
    say(f"{num_fits} fits are planned; the scripts are in {script.parent}.")
    say(submit(script) if options.submit else f"Submit them with: bash {shlex.quote(str(script))}")


def _words_of_run(words: list[str]) -> list[str]:
    """The command line without what makes it a plan."""
    kept, skips = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        if not skips and name not in ("--plan", "--parts", "--submit"):
            kept.append(word)
        skips = not skips and name in ("--plan", "--parts") and not equals
    return kept


def _add_demo(parser: ArgumentParser) -> None:
    add_output(
        parser, "Directory for results and report.html.", required=False, default=Path("runs/demo")
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of the simulated observatory.")


def _demo(options: Namespace) -> None:
    from poyo_ssl.comparison.demo import demo_config, simulate_demo

    say_on_the_way("Simulating a small brain observatory")
    _run_and_show(simulate_demo(options.seed), options.output, demo_config(), [])


def _run_and_show(
    recordings: list[Any],
    directory: Path,
    config: Any,
    pretraining_recordings: list[Any],
    address: str | None = None,
) -> None:
    from poyo_ssl.comparison.run import run

    with stage_progress() as report:
        page = run(
            recordings,
            directory,
            config,
            pretraining_recordings=pretraining_recordings,
            address=address,
            command=_command(),
            on_progress=report,
        )
    _show(page)


def _sweep_and_show(
    recordings: list[Any], earlier: list[Any], sweep: Any, options: Namespace
) -> None:
    from poyo_ssl.comparison.run import run_sweep

    with stage_progress() as report:
        table = run_sweep(
            recordings,
            options.output,
            sweep,
            pretraining_recordings=earlier,
            address=options.address,
            command=_command(),
            on_progress=report,
        )
    print_sweep(pd.read_csv(table), sweep.titles)
    say(f"Every decoder and metric: {table}; each run has its report below {table.parent}.")


def _show(page: Path) -> None:
    """Scores of a finished run, and where its report is."""
    facts = json.loads((page.parent / "run.json").read_text())
    chance = {task["name"]: task["chance"] for task in facts["tasks"]}
    print_summary(pd.read_csv(page.parent / "summary.csv"), chance)
    say(f"Report: {page}")


def _command() -> str:
    return shlex.join(["poyo-ssl", *sys.argv[1:]])


def _add_merge(parser: ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", type=Path, help="Directories that 'poyo-ssl run' or its parts wrote."
    )
    add_output(parser, "Directory of the merged run; none: the only one of RUNS.", required=False)


def _merge(options: Namespace) -> None:
    from poyo_ssl.comparison.merge import merge

    if options.output is None and len(options.runs) > 1:
        raise ValueError(f"{len(options.runs)} runs are to be merged: say where with --output DIR.")
    directory = options.output or options.runs[0]
    say_reading(options.runs)
    with item_progress("encoders and fits") as report:
        page = merge(options.runs, directory, command=_command(), on_progress=report)
    _show(page)


DEMO = Command(
    _add_demo,
    _demo,
    "The whole method on a small simulated observatory. Takes minutes.",
    writes=DIRECTORY,
)
RUN = Command(
    _add_run,
    _run,
    "The whole method on your recordings. Partition of units, pretraining, decoders beside "
    "reference decoders, report.",
    reads_source=True,
    config=ConfigClass("poyo_ssl.comparison.config", "RunConfig"),
    takes_sweeps=True,
    essentials=(
        "tasks",
        "units",
        "arms",
        "label_fractions",
        "num_seeds",
        "jobs",
        "title",
    ),
    writes=DIRECTORY,
)
MERGE = Command(
    _add_merge,
    _merge,
    "Makes one run of several. They must be of the same recordings and config; arms, seeds and "
    "numbers of labels are joined.",
    writes=DIRECTORY,
)
