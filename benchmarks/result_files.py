"""Files below ``results/``: what pages and figures need as JSON, single scores as tables in gzip.

A table in a JSON file has a line a row: rows by name, or ``{"columns": [...], "data": [...]}``.
"""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

RESULTS = Path(__file__).parent / "results"


def as_rows(table: pd.DataFrame, digits: int = 5) -> list[dict[str, Any]]:
    """A table as a list of rows by name, JSON-ready."""
    return json.loads(table.to_json(orient="records", double_precision=digits))


def as_columns(table: pd.DataFrame, digits: int = 5) -> dict[str, Any]:
    """A table as names of columns and rows, JSON-ready."""
    return json.loads(table.to_json(orient="split", index=False, double_precision=digits))


def save_json(name: str, facts: dict[str, Any]) -> None:
    """Writes ``results/<name>.json``, a line a fact, and a line a row of tables."""
    lines = [f" {json.dumps(key)}: {_dumps(value)}" for key, value in facts.items()]
    (RESULTS / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _dumps(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"columns", "data"}:
        return f'{{"columns": {json.dumps(value["columns"])}, "data": {_dumps(value["data"])}}}'
    if not (isinstance(value, list) and value and isinstance(value[0], dict | list)):
        return json.dumps(value)
    return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"


def read_json(name: str) -> dict[str, Any]:
    """What :func:`save_json` wrote."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def read_table(name: str, table: str) -> pd.DataFrame:
    """A table in ``results/<name>.json``, whichever way it lies there."""
    saved = read_json(name)[table]
    return pd.DataFrame(**saved) if isinstance(saved, dict) else pd.DataFrame(saved)


def save_rows(name: str, rows: pd.DataFrame) -> None:
    """Writes ``results/<name>.csv.gz``; the same rows make the same bytes."""
    _compress(f"{name}.csv.gz", rows.to_csv(index=False, float_format="%.6g").encode())


def read_rows(name: str) -> pd.DataFrame:
    """What :func:`save_rows` wrote."""
    return pd.read_csv(RESULTS / f"{name}.csv.gz")


def save_compressed(name: str, facts: Any) -> None:
    """Writes all of something as ``results/<name>.json.gz``, which no page reads."""
    _compress(f"{name}.json.gz", json.dumps(facts).encode())


def _compress(name: str, content: bytes) -> None:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(content)
    (RESULTS / name).write_bytes(buffer.getvalue())
