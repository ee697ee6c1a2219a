"""The commands that take from other tools and give to them."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from poyo_ssl.cli.options import FILE, Command, add_output, add_run, read_source
from poyo_ssl.cli.terminal import print_frame, say, say_reading
from poyo_ssl.progress_bars import byte_progress

# What a command needs is imported when it is called: torch alone takes seconds.


def _add_export(parser: ArgumentParser) -> None:
    add_run(parser, may_be_a_decoder=True)
    parser.add_argument("session", type=Path, help="One recording that the run decoded.")
    add_output(
        parser,
        "File to write. Ending in .nwb: a copy of the session with predictions and predictability; "
        ".npy: who is predictable, for the rows of suite2p's F.npy.",
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        help="CSV that 'poyo-ssl evaluate' wrote; none: RUN/predictions.csv.",
    )
    parser.add_argument(
        "--session_start_time",
        help="When the session began, such as 2026-05-04T10:30, if it is not NWB.",
    )
    parser.add_argument(
        "--subject",
        type=dict[str, str],
        default={},
        help="The animal, such as {species: Mus musculus, sex: F, age: P90D}, if the session is "
        "not NWB.",
    )
    parser.add_argument(
        "--may_replace", action="store_true", help="Write over an .nwb that is there."
    )


def _export(options: Namespace) -> None:
    from poyo_ssl.export.saved_run import export_run

    say_reading([options.run, options.session])
    with byte_progress() as report:
        written = export_run(
            options.run,
            options.session,
            options.output,
            predictions=options.predictions,
            source=read_source(options),
            session_start_time=_as_time(options.session_start_time),
            subject=options.subject,
            may_replace=options.may_replace,
            on_progress=partial(report, f"copying {options.session.name}"),
        )
    say(f"Written to {written}.")


def _as_time(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"session_start_time '{text}' is no date and time. Write it as 2026-05-04T10:30."
        ) from error


EXPORT = Command(
    _add_export,
    _export,
    "Writes predictions and predictability for other tools. As a copy of the session's NWB file, "
    "or as an array for the rows of suite2p's F.npy.",
    reads_source=True,
    writes=FILE,
)


def _add_events(parser: ArgumentParser) -> None:
    parser.add_argument("log", type=Path, help="Log of pyControl, PsychoPy, Bpod or Bonsai.")
    parser.add_argument(
        "--stimulus",
        help="Regular expression for names of its events; named groups become columns, as in "
        "'degrees_(?P<orientation>\\d+)'.",
    )
    add_output(parser, "CSV of the presentations of the stimulus.", required=False)
    parser.add_argument("--columns", type=list[str], help="Columns of the log to keep; none: all.")
    parser.add_argument(
        "--duration", type=float, help="Seconds of a presentation, where the log has no ends."
    )
    parser.add_argument(
        "--onset",
        help="Event that says when a presentation really began, such as that of a photodiode.",
    )
    parser.add_argument(
        "--zero",
        type=float | str,
        default=0.0,
        help="First imaging frame on the log's clock: seconds, or the name of an event.",
    )


def _events(options: Namespace) -> None:
    from poyo_ssl.recordings.stimulus_logs.event_log import read_event_log
    from poyo_ssl.recordings.stimulus_logs.presentations import find_presentations
    from poyo_ssl.whole_files import write_csv

    if (options.stimulus is None) != (options.output is None):
        given, lacking = ("output", "stimulus") if options.output else ("stimulus", "output")
        raise ValueError(
            f"--{given} is given without --{lacking}. Give both to write presentations, or neither "
            "to see what is in the log."
        )
    if options.output is not None and options.output.resolve() == options.log.resolve():
        raise ValueError(f"'{options.output}' is the log itself. Write the table elsewhere.")
    say_reading([options.log])
    log = read_event_log(options.log)
    if options.stimulus is None:
        found = log.groupby("name", sort=False)["start"].agg(["count", "min", "max"])
        print_frame(found.reset_index().rename(columns={"min": "first (s)", "max": "last (s)"}))
        say("--stimulus PATTERN with --output FILE writes the presentations of one as CSV.")
        return
    table = find_presentations(
        log,
        options.stimulus,
        columns=options.columns,
        duration=options.duration,
        onset=options.onset,
        zero=options.zero,
    )
    write_csv(options.output, table)
    say(
        f"{len(table)} presentations, {table['start'].iloc[0]:.1f} to {table['end'].iloc[-1]:.1f} "
        f"s, with {', '.join(table.columns[2:]) or 'no column'}; written to {options.output}."
    )


EVENTS = Command(
    _add_events,
    _events,
    "Shows what an event log holds, and makes it a table of presentations. Logs of pyControl, "
    "PsychoPy, Bpod and Bonsai.",
    writes=FILE,
)
