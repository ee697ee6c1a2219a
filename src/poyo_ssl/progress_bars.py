"""One kind of bar for all that takes long: what is done, of how much, and the time that is left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

messages = Console(stderr=True)
"""Progress, log and errors: standard error, through one console so that none overwrites another."""


@contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars of named stages; gives the function to report (stage, done, total) to."""
    with _bars(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    ) as report:  # fmt: skip
        yield report


@contextmanager
def item_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """One bar of so many items; gives the function to report (done, total) to."""
    with stage_progress() as report:
        yield lambda done, total: report(name, done, total)


@contextmanager
def byte_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars of named downloads; gives the function to report (name, bytes done, bytes) to."""
    with _bars(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    ) as report:  # fmt: skip
        yield report


@contextmanager
def _bars(*columns: ProgressColumn) -> Iterator[Callable[[str, int, int], None]]:
    """Bars by name, each from its first report on; nothing is shown where none comes."""
    # lines of results stand above the bars, but what goes to a file or a pipe still goes there
    progress = Progress(*columns, console=messages, redirect_stdout=sys.stdout.isatty())
    bars: dict[str, TaskID] = {}

    def report(name: str, done: int, total: int) -> None:
        if not bars:
            progress.start()
        if name not in bars:
            bars[name] = progress.add_task(name, total=total)
        progress.update(bars[name], completed=done)

    try:
        yield report
    finally:
        if bars:
            progress.stop()
