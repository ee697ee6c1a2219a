"""Tables of the page: rows of text, ready to be shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from poyo_ssl.report.formatting import (
    FEW_TRIALS,
    NOTHING,
    format_count,
    format_duration,
    format_interval,
    format_number,
    format_p_value,
    format_right,
    format_score,
    metric_title,
    units_title,
)
from poyo_ssl.report.results import (
    SCRATCH,
    RunResults,
    Task,
    in_order_of_interest,
    with_most_labels,
)
from poyo_ssl.report.score_figures import rows_of

ENOUGH_OF_A_CLASS = 10
"""Test trials of a class, below which the page warns."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    cells: list[str]
    role: str = "plain"
    """``group`` (one cell: a heading), ``detail`` (one cell: small print), ``best``, ``plain``."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Column titles and rows; the first ``num_text_columns`` hold text, the others numbers."""

    columns: list[str]
    rows: list[Row] = field(default_factory=list)
    num_text_columns: int = 1


def few_of_a_class(fewest: float) -> str:
    """The warning where a class was tested so rarely that its accuracy means little."""
    return (
        f"Only {format_count(fewest)} test trial{'' if fewest == 1 else 's'} of the rarest class "
        f"(below {ENOUGH_OF_A_CLASS}): read the intervals, not the means."
    )


def tabulate_recordings(recordings: list[dict[str, Any]]) -> Table:
    """One row per recording, with what was shown to the animal below it."""
    table = Table(
        columns=["Recording", "Mouse", "Units", "Predictable", "Unpredictable", "Excluded",
                 "Duration"],
        num_text_columns=2,
    )  # fmt: skip
    for recording in recordings:
        counts = ("num_units", "num_predictable", "num_unpredictable", "num_excluded")
        cells = [
            str(recording.get("recording_id", "")),
            str(recording.get("subject_id") or "–"),
            *(format_count(recording.get(key)) for key in counts),
            format_duration(recording.get("duration_s")),
        ]
        table.rows.append(Row(cells=cells))
        table.rows.extend(
            Row(cells=[line], role="detail") for line in _recording_details(recording)
        )
    return table


def _recording_details(recording: dict[str, Any]) -> list[str]:
    num_segments = recording.get("num_segments")
    lines = [
        f"Imaged at {format_number(recording.get('sampling_rate'), 1)} Hz: "
        f"{format_count(recording.get('num_timesteps'))} samples of every unit in "
        f"{format_count(num_segments)} segment{'' if num_segments == 1 else 's'}."
    ]
    shown = [
        f"{name.replace('_', ' ')} ({format_count(stimulus.get('num_presentations'))} "
        f"presentations, {format_duration(stimulus.get('duration_s'))})"
        for name, stimulus in (recording.get("stimuli") or {}).items()
    ]
    if shown:
        lines.append("Shown: " + "; ".join(shown) + ".")
    where = [
        f"{label}: " + ", ".join(f"{name} ({count})" for name, count in recording[key].items())
        for key, label in (("cre_lines", "Cre line"), ("areas", "area"))
        if recording.get(key)
    ]
    where += [
        f"{label} {recording[key]}"
        for key, label in (
            ("session_type", "session"),
            ("container_id", "container"),
            ("source", "source:"),
        )
        if recording.get(key)
    ]
    if where:
        text = "; ".join(where) + "."
        lines.append(text[:1].upper() + text[1:])
    return lines + [str(note) for note in recording.get("notes") or []]


def tabulate_warnings(warnings: pd.DataFrame) -> Table:
    """What was warned of, one row a warning and recording."""
    rows = [
        Row(cells=[recording or "–", warning])
        for recording, warning in warnings[["recording", "warning"]].itertuples(index=False)
    ]
    return Table(columns=["Recording", "Warning"], rows=rows, num_text_columns=2)


def tabulate_lines(predictability: dict[str, Any]) -> Table | None:
    """Mean skewness and kurtosis of every Cre line; None where none is known."""
    lines = predictability.get("line_means") or []
    if not lines:
        return None
    rows = [
        Row(
            cells=[
                str(line.get("cre_line") or "not stored"),
                format_count(line.get("num_units")),
                format_number(line.get("skewness"), 2),
                format_number(line.get("kurtosis"), 2),
            ]
        )
        for line in lines
    ]
    return Table(columns=["Cre line", "Units", "Mean skewness", "Mean kurtosis"], rows=rows)


def tabulate_exclusions(units: pd.DataFrame) -> Table | None:
    """How many units were set aside, for which reason; None if none was."""
    reasons = units.loc[units["excluded"] != "", "excluded"]
    if reasons.empty:
        return None
    rows = [
        Row(cells=[str(reason), format_count(count)])
        for reason, count in reasons.value_counts().items()
    ]
    return Table(columns=["Excluded because", "Units"], rows=rows)


def tabulate_scores(results: RunResults, task: Task) -> Table:
    """The main metric of every arm with the most labels, with its intervals."""
    assert results.summary is not None
    metric = results.main_metric(task)
    rows = rows_of(results.summary, task, metric)
    rows = with_most_labels(rows)
    has_counts = bool(rows["num_right"].notna().any() and (rows["num_test"] < FEW_TRIALS).any())
    counts = ["Right"] if has_counts else []
    table = Table(columns=["Arm", "Seeds", *counts, *_score_columns(metric, rows)])
    for units in in_order_of_interest(rows["units"].unique()):
        here = rows[rows["units"] == units].sort_values("kind", ascending=False, kind="stable")
        first = here.iloc[0]
        table.rows.append(
            Row(
                cells=[
                    f"{units_title(units)}: {format_count(first['num_test'])} test samples of "
                    f"{format_count(first['num_recordings'])} recording"
                    f"{'' if first['num_recordings'] == 1 else 's'}"
                ],
                role="group",
            )
        )
        if first["fewest_of_a_class"] < ENOUGH_OF_A_CLASS:
            table.rows.append(
                Row(cells=[few_of_a_class(first["fewest_of_a_class"])], role="detail")
            )
        for _, row in here.iterrows():
            is_best = row["mean"] == here["mean"].max()
            counts = [format_right(row["num_right"], row["num_test"])] if has_counts else []
            cells = [
                row["arm"],
                format_count(row["num_seeds"]),
                *counts,
                *_score_cells(row, metric),
            ]
            table.rows.append(Row(cells=cells, role="best" if is_best else "plain"))
    return _without_empty_columns(table)


def tabulate_all_scores(results: RunResults, task: Task) -> Table:
    """Every metric and number of labels of a task."""
    assert results.summary is not None
    summary = results.summary
    here = summary[(summary["task"] == task.name) & (summary["split"] == task.split)]
    table = Table(
        columns=[
            "Units",
            "Metric",
            "Arm",
            "Labels",
            "Seeds",
            "Over seeds",
            "Over trials",
            *_score_columns("", here),
        ],
        num_text_columns=3,
    )
    for units in in_order_of_interest(here["units"].unique()):
        rows = here[here["units"] == units].sort_values(
            ["metric", "label_fraction"], ascending=[True, False], kind="stable"
        )
        for _, row in rows.iterrows():
            cells = [
                units,
                metric_title(row["metric"]),
                row["arm"],
                row["labels"],
                format_count(row["num_seeds"]),
                format_interval(row["seed_low"], row["seed_high"], row["metric"]),
                format_interval(row["trial_low"], row["trial_high"], row["metric"]),
                *_score_cells(row, row["metric"]),
            ]
            table.rows.append(Row(cells=cells))
    return _without_empty_columns(table)


def _without_empty_columns(table: Table) -> Table:
    """The table without what none of its arms has, such as gains where nothing was pretrained."""
    arms = [row.cells for row in table.rows if row.role in ("best", "plain")]
    kept = [at for at in range(len(table.columns)) if any(cells[at] != NOTHING for cells in arms)]
    rows = [
        Row(cells=[row.cells[at] for at in kept], role=row.role)
        if row.role in ("best", "plain")
        else row
        for row in table.rows
    ]
    return Table(
        columns=[table.columns[at] for at in kept],
        rows=rows,
        num_text_columns=table.num_text_columns,
    )


def _other_baseline(rows: pd.DataFrame) -> str | None:
    """The arm that gains were measured against beside scratch, if any."""
    named = rows["baseline"].iloc[0] if "baseline" in rows and len(rows) else SCRATCH
    return None if named == SCRATCH else str(named)


def _score_columns(metric: str, rows: pd.DataFrame) -> list[str]:
    name = metric_title(metric) if metric else "mean"
    columns = [
        name[:1].upper() + name[1:],
        "95 %",
        "p of chance",
        "Gain over scratch",
        "95 % of the gain",
        "p",
    ]
    if baseline := _other_baseline(rows):
        columns += [f"Gain over {baseline}", "95 % of it", "its p"]
    return [*columns, "Pretraining", "Fitting"] if "seconds" in rows else columns


def _score_cells(row: pd.Series, metric: str) -> list[str]:
    cells = [
        format_score(row["mean"], metric),
        format_interval(row["low"], row["high"], metric),
        format_p_value(row["chance_p_value"]),
        format_score(row["gain_over_scratch"], metric, signed=True),
        format_interval(row["gain_low"], row["gain_high"], metric, signed=True),
        format_p_value(row["p_value"]),
    ]
    if row.get("baseline", SCRATCH) != SCRATCH:
        cells += [
            format_score(row["gain_over_baseline"], metric, signed=True),
            format_interval(
                row["baseline_gain_low"], row["baseline_gain_high"], metric, signed=True
            ),
            format_p_value(row["baseline_p_value"]),
        ]
    if "seconds" in row:
        pretraining = row["pretraining_seconds"] or None  # 0: this arm has none
        cells += [format_duration(pretraining), format_duration(row["seconds"])]
    return cells


def tabulate_per_recording(results: RunResults, task: Task) -> Table:
    """The main metric of every recording with the most labels, mean over seeds."""
    metric = results.main_metric(task)
    rows = rows_of(results.scores, task, metric)
    rows = with_most_labels(rows)
    arms = list(rows.sort_values("kind", ascending=False, kind="stable")["arm"].unique())
    scores = rows.pivot_table(
        index=["units", "recording_id"], columns="arm", values="value", sort=False
    ).reindex(columns=arms)
    table = Table(columns=["Recording", *arms])
    for units in results.units_of(task):
        here = scores.loc[[units]].droplevel("units")
        table.rows.append(Row(cells=[units_title(units)], role="group"))
        for name, values in [*here.iterrows(), ("Mean", here.mean())]:
            cells = [format_score(value, metric) for value in values]
            table.rows.append(Row(cells=[str(name), *cells]))
    return table
