"""One kind of bar for all that takes long: what is done, of how much, and the time that is left.

Where no terminal is looking on, a line a minute takes the place of the bar, and one at the end.
"""

from __future__ import annotations

import sys
import time
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

SECONDS_BETWEEN_LINES = 60.0
"""Of one bar, where a line takes its place."""

messages = Console(stderr=True)
"""Progress, log and errors: standard error, through one console so that none overwrites another."""


@contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars of named stages; gives the function to report (stage, done, total) to."""
    with _bars(MofNCompleteColumn(), TimeElapsedColumn()) as report:
        yield report


@contextmanager
def item_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """One bar of so many items; gives the function to report (done, total) to."""
    with stage_progress() as report:
        yield lambda done, total: report(name, done, total)


@contextmanager
def byte_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Bars of named downloads; gives the function to report (name, bytes done, bytes) to."""
    with _bars(DownloadColumn(), TransferSpeedColumn()) as report:
        yield report


@contextmanager
def _bars(*columns: ProgressColumn) -> Iterator[Callable[[str, int, int], None]]:
    """Bars by name, each from its first report on; nothing is shown where none comes."""
    is_watched = messages.is_terminal
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *columns,
        TextColumn("left"),
        TimeRemainingColumn(),
        console=messages,
        # lines of results stand above the bars, but what goes to a file or a pipe still goes there
        redirect_stdout=sys.stdout.isatty(),
        disable=not is_watched,
    )
    bars: dict[str, TaskID] = {}
    last_line: dict[str, float] = {}

    def report(name: str, done: int, total: int) -> None:
        now = time.monotonic()
        if not bars:
            progress.start()
        if name not in bars:
            bars[name], last_line[name] = progress.add_task(name, total=total), now
        progress.update(bars[name], completed=done)
        is_due = done < total and now - last_line[name] >= SECONDS_BETWEEN_LINES
        if is_due and not is_watched:
            last_line[name] = now
            print_line(name)

    def print_line(name: str) -> None:
        task = progress.tasks[bars[name]]
        cells = [str(column.render(task)).strip() for column in columns]
        if not task.finished:
            cells.append(f"{TimeRemainingColumn().render(task)} left")
        messages.print(name, ", ".join(cells), highlight=False, soft_wrap=True, markup=False)

    try:
        yield report
    finally:
        if bars:
            progress.stop()
        if not is_watched:
            for name in bars:
                print_line(name)
