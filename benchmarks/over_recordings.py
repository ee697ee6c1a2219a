"""Scores of many recordings as tables: means, paired gains, and intervals over recordings."""

from __future__ import annotations

import pandas as pd
from result_files import RESULTS, as_columns, save_json, save_rows
from scipy.stats import t


def mean_over_recordings(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean accuracy of every question with a 95 % interval (Student's t).

    Args:
        rows: ``recording_id``, ``accuracy`` and what tells questions apart.
        by: Columns that tell them apart.

    Returns:
        One row a question: ``by``, ``mean``, ``count`` and ``interval``.
    """
    per = rows.groupby([*by, "recording_id"])["accuracy"].mean()
    levels = list(range(len(by)))
    table = per.groupby(level=levels, sort=False).agg(["mean", "sem", "count"]).reset_index()
    table["interval"] = table["sem"] * t.ppf(0.975, table["count"] - 1)
    return table.drop(columns="sem")


def save_tables(name: str, tables: dict[str, pd.DataFrame], page: list[str]) -> None:
    """Writes ``results/<name>.json``, its rows to ``.csv.gz``, and the page ``.md``.

    Args:
        name: Of the study.
        tables: By name; ``rows`` are the single scores.
        page: Paragraphs.
    """
    save_json(name, {key: as_columns(t, 4) for key, t in tables.items() if key != "rows"})
    if "rows" in tables:
        save_rows(name, tables["rows"])
    (RESULTS / f"{name}.md").write_text("\n\n".join(page) + "\n")


def to_markdown(table: pd.DataFrame) -> str:
    """A table, numbers with three decimals."""
    shown = [
        [f"{v:.3f}" if isinstance(v, float) else str(v) for v in row] for row in table.to_numpy()
    ]
    lines = [list(table.columns), ["---"] * table.shape[1], *shown]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
