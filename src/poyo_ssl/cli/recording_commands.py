"""The commands that invent, fetch, show and convert recordings."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from jsonargparse import ArgumentParser, Namespace

from poyo_ssl.cli.options import (
    DIRECTORY,
    Command,
    ConfigClass,
    add_files,
    add_jobs,
    add_output,
    build,
    read_source,
)
from poyo_ssl.cli.terminal import console, print_facts, print_frame, say
from poyo_ssl.output_directory import require_place_of_directory
from poyo_ssl.progress_bars import byte_progress, item_progress

# What a command needs is imported when it is called: torch alone takes seconds.


def _add_simulate(parser: ArgumentParser) -> None:
    add_output(parser, "Directory for .h5 recordings.")


def _simulate(options: Namespace) -> None:
    from poyo_ssl.recordings.simulation.simulator import SimulatorConfig, simulate_recordings
    from poyo_ssl.recordings.storage import save_recording

    config = build(SimulatorConfig, options)
    num_recordings = len(config.lines) * config.recordings_per_line
    with item_progress("recordings") as report:
        report(0, num_recordings)
        for done, recording in enumerate(simulate_recordings(config), start=1):
            say(save_recording(recording, options.output))
            report(done, num_recordings)


def _add_download(parser: ArgumentParser) -> None:
    parser.add_argument("--stimulus_set", nargs="+", help="A, B, C or C2.")
    parser.add_argument("--session", nargs="+", help="Ids of imaging sessions.")
    parser.add_argument("--subject", nargs="+", help="Ids of mice.")
    add_output(
        parser, "Directory for the sessions; without it, nothing is fetched.", required=False
    )
    parser.add_argument("--list", action="store_true", help="Show each session, fetch nothing.")
    parser.add_argument(
        "--only_activity",
        action="store_true",
        help="Store ΔF/F, stimulus tables and behaviour as .h5, a part of the bytes; needs the "
        "extra poyo-ssl[remote].",
    )
    parser.add_argument("--connections", type=int, default=4, help="Files fetched at a time.")
    parser.add_argument(
        "--retries", type=int, default=5, help="Attempts after a failure, in a row."
    )
    parser.add_argument("--timeout", type=float, default=30.0, help="Seconds without a byte.")


def _download(options: Namespace) -> None:
    from poyo_ssl.recordings.dandi.catalogue import CITATION, describe_assets, find_sessions

    assets = find_sessions(options.stimulus_set, options.session, options.subject)
    if options.list or options.output is None:
        if options.list:
            say(assets.drop(columns=["path", "sha256"]).to_string(index=False))
        print_frame(describe_assets(assets), "Sessions of DANDI:000728")
        say("--list shows each, --output DIRECTORY fetches them.")
        say(CITATION)
        return
    fetch = _stream if options.only_activity else _fetch
    for file in fetch(assets, options):
        say(file)
    say(CITATION)


def _fetch(assets: pd.DataFrame, options: Namespace) -> list[Path]:
    """Whole files."""
    from poyo_ssl.recordings.dandi.download import download_sessions

    with byte_progress() as report:
        return download_sessions(
            assets,
            options.output,
            connections=options.connections,
            retries=options.retries,
            timeout=options.timeout,
            on_progress=report,
        )


def _stream(assets: pd.DataFrame, options: Namespace) -> list[Path]:
    """The activity alone."""
    from poyo_ssl.recordings.dandi.download import stream_sessions
    from poyo_ssl.recordings.sources import NwbConfig, SourceConfig

    done: set[str] = set()
    with item_progress("sessions") as report:

        def count(session_id: str, *_: int) -> None:
            done.add(session_id)
            report(len(done), len(assets))

        return stream_sessions(
            assets,
            options.output,
            SourceConfig(nwb=NwbConfig(with_templates=False)),
            retries=options.retries,
            timeout=options.timeout,
            on_progress=count,
        )


def _add_inspect(parser: ArgumentParser) -> None:
    add_files(parser)
    parser.add_argument(
        "--clock_pictures",
        type=Path,
        help="Directory for a picture of how each recording's activity fits its stimuli in time.",
    )


def _inspect(options: Namespace) -> None:
    from poyo_ssl.cli.inspection import (
        summarize_recording,
        summarize_series,
        summarize_stimuli,
        with_clock,
    )
    from poyo_ssl.clock.check import check_clock
    from poyo_ssl.clock.figure import plot_clock
    from poyo_ssl.recordings.loading import find_recording_files, identify, load_recording
    from poyo_ssl.recordings.recording import RecordingError

    source = read_source(options)
    broken = []
    files = find_recording_files(options.files)
    with item_progress("recordings") as report:
        for number, path in enumerate(files, start=1):
            report(number - 1, len(files))
            try:
                recording = load_recording(path, source)
            except RecordingError as error:
                broken.append(str(error))
                continue
            facts = {"file": f"{path} ({identify(path)})", **summarize_recording(recording)}
            checks = check_clock(recording)
            stimuli = with_clock(summarize_stimuli(recording), checks)
            print_facts(facts, summarize_series(recording), stimuli)
            if options.clock_pictures is not None:
                options.clock_pictures.mkdir(parents=True, exist_ok=True)
                picture = options.clock_pictures / f"{number}_{path.stem}_clock.png"
                plot_clock(checks, picture)
                say(f"picture of its clock: {picture}")
            console.print()
        report(len(files), len(files))
    if broken:
        raise RecordingError(f"{len(broken)} cannot be read:\n- " + "\n- ".join(broken))


def _add_prepare(parser: ArgumentParser) -> None:
    add_files(parser)
    add_output(parser, "Directory for .h5 recordings.")
    add_jobs(parser)


def _prepare(options: Namespace) -> None:
    from poyo_ssl.recordings.manifest import MANIFEST
    from poyo_ssl.recordings.preparation import prepare
    from poyo_ssl.recordings.recording import RecordingError

    with item_progress("recordings") as report:
        manifest = prepare(
            options.files,
            options.output,
            source=read_source(options),
            jobs=options.jobs,
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


INSPECT = Command(
    _add_inspect,
    _inspect,
    "Shows what recordings hold. Units, imaging, stimuli, what can be decoded and what is missing; "
    "how many units respond to each stimulus, when, and whether its clock seems to be off.",
    reads_source=True,
    writes={"clock_pictures": require_place_of_directory},
)
DOWNLOAD = Command(
    _add_download,
    _download,
    "Lists and fetches sessions of the Allen Brain Observatory. From DANDI:000728; resumes "
    "where it stopped, and checks what it fetched.",
    writes=DIRECTORY,
)
PREPARE = Command(
    _add_prepare,
    _prepare,
    "Converts recordings to torch-brain HDF5. In parallel, resumable, with a manifest.",
    reads_source=True,
    writes=DIRECTORY,
)
SIMULATE = Command(
    _add_simulate,
    _simulate,
    "Invents recordings of a simulated brain observatory.",
    config=ConfigClass("poyo_ssl.recordings.simulation.simulator", "SimulatorConfig"),
    writes=DIRECTORY,
)
