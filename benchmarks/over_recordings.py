"""Scores of many recordings as tables: means, paired gains, and intervals over recordings."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from scipy.stats import t

RESULTS = Path(__file__).parent / "results"


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
    """Writes ``results/<name>.json``, by columns, and the page ``results/<name>.md``."""
    saved = {
        key: json.loads(table.to_json(orient="split", index=False, double_precision=4))
        for key, table in tables.items()
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(saved) + "\n")
    (RESULTS / f"{name}.md").write_text("\n\n".join(page) + "\n")


def to_markdown(table: pd.DataFrame) -> str:
    """A table, numbers with three decimals."""
    shown = [
        [f"{v:.3f}" if isinstance(v, float) else str(v) for v in row] for row in table.to_numpy()
    ]
    lines = [list(table.columns), ["---"] * table.shape[1], *shown]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
