"""What commands print: results on one console, and on another what happens on the way."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from poyo_ssl.progress_bars import messages

console = Console()
"""Results: standard output."""

_UNWRAPPED = 10_000
"""Columns where nobody looks on: a file and another program want whole lines."""


class WholeLines(logging.Handler):
    """Logs to standard error without wrapping, for files and other programs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record as one line."""
        say_on_the_way(self.format(record))


def log_handler() -> logging.Handler:
    """Where the log goes, in colour and wrapped on a terminal alone; so are tables from now on."""
    if not console.is_terminal:
        console.width = _UNWRAPPED
    if messages.is_terminal:
        return RichHandler(console=messages, show_path=False, show_time=False)
    lines = WholeLines()
    lines.setFormatter(logging.Formatter("%(levelname)-8s %(message)s"))
    return lines


def say(text: object) -> None:
    """Prints a line as it is: a path in it is neither wrapped nor read as markup."""
    console.print(str(text), highlight=False, soft_wrap=True, markup=False)


def say_on_the_way(text: str) -> None:
    """Prints a line as it is on standard error."""
    messages.print(text, highlight=False, soft_wrap=True, markup=False)


def say_reading(paths: Sequence[Path]) -> None:
    """Says what is read, which may take long."""
    named = ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")
    say_on_the_way(f"Reading {named}")


def print_facts(*parts: dict[str, str]) -> None:
    """Names and facts in two columns; further lines of a fact stand below its first."""
    facts = [fact for part in parts for fact in part.items()]
    width = max(len(name) for name, _ in facts)
    for name, fact in facts:
        say(f"{name:<{width}}  " + fact.replace("\n", "\n" + " " * (width + 2)))


def print_frame(frame: pd.DataFrame, title: str | None = None, *, digits: int = 2) -> None:
    """A table of anything: numbers to the right, with so many decimals."""
    table = Table(title=title, title_justify="left")
    for column, values in frame.items():
        is_number = pd.api.types.is_numeric_dtype(values)
        table.add_column(str(column).replace("_", " "), justify="right" if is_number else "left")
    for row in frame.itertuples(index=False):
        table.add_row(
            *(f"{cell:.{digits}f}" if isinstance(cell, float) else str(cell) for cell in row)
        )
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
    """Scores of fitted decoders on recordings, a table for each task and part that was scored."""
    table = pd.DataFrame([_scores_of(row) for row in rows])
    for (task, part), group in table.groupby(["task", "part"], sort=False):
        shown = group.drop(columns=["task", "part"]).dropna(axis="columns", how="all")
        print_frame(shown, f"{task}, {part}", digits=3)


def _scores_of(row: dict[str, Any]) -> dict[str, Any]:
    metric, value = next(iter(row["scores"].items()))
    return {
        "task": row["task"],
        "part": "test part" if row["part"] == "test" else row["part"],
        "recording": row["recording_id"],
        "units": row["units"],
        "labels": row["labels"],
        "decoder": row["arm"],
        "seed": row["seed"],
        metric: value,
        "chance": row["chance"],
        "windows": row["num_test"],
        "known": row["num_known_units"],
        "missing": len(row["missing_units"]),
        "unknown": len(row["unknown_units"]),
    }
