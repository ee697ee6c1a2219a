"""What commands print: results on one console, and on another what happens on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
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
from rich.table import Table

console = Console()
"""Results: standard output."""
messages = Console(stderr=True)
"""Progress, log and errors: standard error, through one console so that none overwrites another."""


def say(text: object) -> None:
    """Prints a line as it is: a path in it is neither wrapped nor read as markup."""
    console.print(str(text), highlight=False, soft_wrap=True, markup=False)


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
    progress = Progress(*columns, console=messages)
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


def print_facts(*parts: dict[str, str]) -> None:
    """Names and facts in two columns; further lines of a fact stand below its first."""
    facts = [fact for part in parts for fact in part.items()]
    width = max(len(name) for name, _ in facts)
    for name, fact in facts:
        say(f"{name:<{width}}  " + fact.replace("\n", "\n" + " " * (width + 2)))


def print_frame(frame: pd.DataFrame, title: str | None = None) -> None:
    """A table of anything: numbers to the right, two decimals."""
    table = Table(title=title, title_justify="left")
    for column, values in frame.items():
        is_number = pd.api.types.is_numeric_dtype(values)
        table.add_column(str(column).replace("_", " "), justify="right" if is_number else "left")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(table, highlight=False, markup=False)


def print_summary(summary: pd.DataFrame, chance: dict[str, float | None]) -> None:
    """The main metric of every arm, one table per task; chance is None where there is none."""
    main = summary[summary["metric"] == summary.groupby("task")["metric"].transform("first")]
    for task, rows in main.groupby("task", sort=False):
        metric = rows["metric"].iloc[0]
        table = Table(title=f"{task}: {metric} [95 % interval]", title_justify="left")
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
                str(row.units), str(row.labels), str(row.arm),
                _interval(row.mean, row.low, row.high),
                _interval(row.gain_over_scratch, row.gain_low, row.gain_high, signed=True),
            )  # fmt: skip
        console.print(table)


def _interval(mean: Any, low: Any, high: Any, signed: bool = False) -> str:
    if pd.isna(mean):
        return ""
    sign = "+" if signed else ""
    text = f"{mean:{sign}.3f}"
    return text if pd.isna(low) else f"{text} \\[{low:{sign}.3f}, {high:{sign}.3f}]"


def print_sweep(summaries: pd.DataFrame, titles: dict[str, str]) -> None:
    """The main metric of every network of a sweep, one table per task.

    Args:
        summaries: Of all runs.
        titles: Columns that name the swept options, and what to call them.
    """
    main = summaries[summaries["metric"] == summaries.groupby("task")["metric"].transform("first")]
    networks = main[main["kind"] == "network"]
    for task, rows in (main if networks.empty else networks).groupby("task", sort=False):
        metric = rows["metric"].iloc[0]
        table = Table(title=f"{task}: {metric} [95 % interval]", title_justify="left")
        for name in (*titles.values(), "units", "labels", "decoder"):
            table.add_column(name)
        table.add_column(metric, justify="right")
        for row in rows.to_dict("records"):
            named = [str(row[name]) for name in (*titles, "units", "labels", "arm")]
            table.add_row(*named, _interval(row["mean"], row["low"], row["high"]))
        console.print(table)


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Scores of fitted decoders on recordings, one line each, however narrow the terminal."""
    for row in rows:
        metric, value = next(iter(row["scores"].items()))
        chance = "" if row["chance"] is None else f" (chance {row['chance']:.3f})"
        part = "test part" if row["part"] == "test" else row["part"]
        say(
            f"{row['recording_id']}, {row['task']} from {row['units']} units, {row['arm']}, "
            f"labels {row['labels']}, seed {row['seed']}: "
            f"{metric} {value:.3f}{chance} in {row['num_test']} windows of the {part}; "
            f"{row['num_known_units']} units known, {len(row['missing_units'])} missing, "
            f"{len(row['unknown_units'])} unknown"
        )
