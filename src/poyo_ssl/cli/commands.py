"""Every command: its options, and the one function of the Python API that it calls."""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from poyo_ssl.cli.exchange_commands import EVENTS, EXPORT
from poyo_ssl.cli.options import (
    DIRECTORY,
    FILE,
    Command,
    ConfigClass,
    add_files,
    add_jobs,
    add_output,
    add_pretrained,
    add_run,
    build,
    find_encoder,
    read_source,
)
from poyo_ssl.cli.recording_commands import DOWNLOAD, INSPECT, PREPARE, SIMULATE
from poyo_ssl.cli.run_commands import DEMO, MERGE, RUN
from poyo_ssl.cli.terminal import print_facts, print_rows, say, say_on_the_way, say_reading
from poyo_ssl.output_directory import require_place_of_file
from poyo_ssl.progress_bars import item_progress

# What a command needs is imported when it is called: torch alone takes seconds.


def _add_predictability(parser: ArgumentParser) -> None:
    add_files(parser)
    add_output(parser, "CSV, one row per unit.")
    parser.add_argument("--figure", type=Path, help="PNG or PDF of kurtosis against skewness.")
    parser.add_argument(
        "--sensitivity",
        type=Path,
        help="PNG or PDF of who changes side when the thresholds move by 10 and 20 %.",
    )
    parser.add_argument(
        "--statistics",
        action="store_true",
        help="Measure event rate, Fano factor, autocorrelation and noise level, too.",
    )
    add_jobs(parser)


def _predictability(options: Namespace) -> None:
    from poyo_ssl.stages import PredictabilityStage, measure_predictability

    with item_progress("recordings") as report:
        partition = measure_predictability(
            options.files,
            options.output,
            build(PredictabilityStage, options),
            figure=options.figure,
            sensitivity_figure=options.sensitivity,
            with_statistics=options.statistics,
            source=read_source(options),
            jobs=options.jobs,
            address=options.address,
            on_progress=report,
        )
    units = partition.units
    say(
        f"{int(units['is_predictable'].sum())} of {len(units)} units are predictable "
        f"({partition.thresholds}); written to {options.output}."
    )


def _add_pretrain(parser: ArgumentParser) -> None:
    add_files(parser)
    add_output(parser, "Directory of the encoder.")


def _pretrain(options: Namespace) -> None:
    from poyo_ssl.stages import PretrainStage, pretrain_encoder

    say_reading(options.files)
    pretrain_encoder(
        options.files, options.output, build(PretrainStage, options), source=read_source(options)
    )
    say(f"Encoder written to {options.output}.")


def _add_finetune(parser: ArgumentParser) -> None:
    add_files(parser)
    add_output(parser, "Directory of the decoder.")
    add_pretrained(parser, without="; none trains from scratch")


def _finetune(options: Namespace) -> None:
    from poyo_ssl.stages import FinetuneStage, finetune_decoder

    say_reading(options.files)
    scores = finetune_decoder(
        options.files,
        options.output,
        build(FinetuneStage, options),
        find_encoder(options.pretrained) if options.pretrained else None,
        source=read_source(options),
    )
    print_rows(scores)
    say(f"Decoder written to {options.output}.")


def _add_adapt(parser: ArgumentParser) -> None:
    add_files(parser)
    add_pretrained(parser)
    add_output(parser, "Directory of the decoder.")


def _adapt(options: Namespace) -> None:
    from poyo_ssl.stages import AdaptStage, adapt_decoder

    say_reading(options.files)
    adaptation = adapt_decoder(
        options.files,
        options.output,
        build(AdaptStage, options),
        find_encoder(options.pretrained),
        source=read_source(options),
    )
    print_rows(adaptation.scores)
    say(f"Decoder written to {options.output}.")
    say(adaptation)


def _add_evaluate(parser: ArgumentParser) -> None:
    add_run(parser, may_be_a_decoder=True)
    add_files(parser)
    add_output(parser, "JSON of the scores.")
    parser.add_argument(
        "--arm", nargs="+", default=[], help="Decoders of these names alone, such as scratch."
    )


def _evaluate(options: Namespace) -> None:
    from poyo_ssl.evaluation.saved_runs import evaluate_run

    say_reading([options.run, *options.files])
    with item_progress("decoders") as report:
        rows = evaluate_run(
            options.run,
            options.files,
            options.output,
            source=read_source(options),
            arms=options.arm,
            on_progress=report,
        )
    print_rows(rows)
    say(f"Scores written to {options.output}.")


def _add_report(parser: ArgumentParser) -> None:
    add_run(parser)
    add_output(parser, "HTML page; none: RUN/report.html.", required=False)


def _report(options: Namespace) -> None:
    from poyo_ssl.report.page import write_report

    say_reading([options.run])
    say(write_report(options.run, options.output))


def _add_movie(parser: ArgumentParser) -> None:
    add_run(parser)
    add_output(parser, "File to write, .mp4 or .gif. It is replaced whole.")
    parser.add_argument("--task", help="Task about a movie; none: the first.")
    parser.add_argument("--units", help="Units decoded from; none: unpredictable, if they were.")
    parser.add_argument("--arm", help="Decoder; none: the best.")
    parser.add_argument("--recording", help="Id of a recording; none: the first.")
    parser.add_argument("--seed", type=int, help="Seed of the decoder; none: the lowest.")
    parser.add_argument("--fps", type=float, help="Pictures a second; none: as shown.")


def _movie(options: Namespace) -> None:
    from poyo_ssl.report.movie_file import write_movie

    chosen = {name: options[name] for name in ("task", "units", "arm", "recording", "seed", "fps")}
    say_reading([options.run])
    with item_progress("pictures") as report:
        written = write_movie(options.run, options.output, **chosen, on_progress=report)
    say(written)


def _add_convert(parser: ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", type=Path, help="Lightning checkpoint of torch-brain's CalciumPOYOPlus."
    )
    add_output(parser, "Directory of network, encoder and decoders.")
    parser.add_argument(
        "--tasks",
        nargs="+",
        help="Tasks to write decoders for, such as direction; none: all that it learned.",
    )
    parser.add_argument(
        "--sampling_rate",
        type=float,
        default=30.0,
        help="Imaging rate in Hz of the recordings to decode.",
    )


def _convert(options: Namespace) -> None:
    from poyo_ssl.decoders.conversion import convert_checkpoint

    say_reading([options.checkpoint])
    with item_progress("parts") as report:
        network = convert_checkpoint(
            options.checkpoint,
            options.output,
            tasks=options.tasks,
            sampling_rate=options.sampling_rate,
            on_progress=report,
        )
    say(
        f"Network of {len(network.unit_ids)} units in {len(network.session_ids)} sessions, its "
        f"encoder and decoders written to {options.output}."
    )


def _add_doctor(parser: ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="Leave the self-test out.")
    parser.add_argument("--json", action="store_true", help="Print JSON, for an issue or a script.")


def _doctor(options: Namespace) -> None:
    from poyo_ssl.doctor import examine, require_health

    if not options.quick:
        say_on_the_way("Fitting a small decoder")
    checks = examine(with_self_test=not options.quick)
    if options.json:
        say(json.dumps([check._asdict() for check in checks], indent=1))
    else:
        print_facts({check.name: check.text for check in checks})
    require_health(checks)


COMMANDS = {
    "demo": DEMO,
    "run": RUN,
    "merge": MERGE,
    "inspect": INSPECT,
    "download": DOWNLOAD,
    "prepare": PREPARE,
    "predictability": Command(
        _add_predictability,
        _predictability,
        "Measures skewness and kurtosis of every unit. Uses training time only, and one recording "
        "in memory at a time.",
        reads_source=True,
        config=ConfigClass("poyo_ssl.stages", "PredictabilityStage"),
        writes=dict.fromkeys(("output", "figure", "sensitivity"), require_place_of_file),
    ),
    "pretrain": Command(
        _add_pretrain,
        _pretrain,
        "Pretrains an encoder on predictable units.",
        reads_source=True,
        config=ConfigClass("poyo_ssl.stages", "PretrainStage"),
        essentials=("seed",),
        writes=DIRECTORY,
    ),
    "finetune": Command(
        _add_finetune,
        _finetune,
        "Fits a decoder, from scratch or from a pretrained encoder.",
        reads_source=True,
        config=ConfigClass("poyo_ssl.stages", "FinetuneStage"),
        essentials=("task", "units", "with_teacher", "seed"),
        writes=DIRECTORY,
    ),
    "adapt": Command(
        _add_adapt,
        _adapt,
        "Brings a pretrained encoder to new recordings, and says how long it took. Units that the "
        "encoder knows keep their embeddings, new ones learn theirs.",
        reads_source=True,
        config=ConfigClass("poyo_ssl.stages", "AdaptStage"),
        essentials=("task", "units", "identify", "seed"),
        writes=DIRECTORY,
    ),
    "evaluate": Command(
        _add_evaluate,
        _evaluate,
        "Scores fitted decoders on recordings of the same cells.",
        reads_source=True,
        writes=FILE,
    ),
    "convert": Command(
        _add_convert,
        _convert,
        "Brings the published Calcium POYO+ checkpoint of torch-brain into our forms. Nothing in "
        "it is run.",
        writes=DIRECTORY,
    ),
    "report": Command(
        _add_report,
        _report,
        "Writes the HTML report of a run.",
        writes=FILE,
    ),
    "movie": Command(
        _add_movie,
        _movie,
        "Writes a decoded movie beside what was shown, as .mp4 or .gif. The best arm of a run, or "
        "the one you name.",
        writes=FILE,
    ),
    "events": EVENTS,
    "export": EXPORT,
    "simulate": SIMULATE,
    "doctor": Command(
        _add_doctor,
        _doctor,
        "Says what is installed and whether it works. Its self-test fits a small decoder.",
    ),
}
"""Word on the command line to what it does, in the order of the help."""
