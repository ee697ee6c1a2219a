"""Files of results, read back: what is no longer as it was written is named, never a traceback."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

SCORES = "scores.json"
"""What is written last of a fit: one row a recording."""
PRETRAINING_FACTS = "pretraining.json"
"""Beside every pretrained encoder: seconds, and how much it learned from."""
NUMBER = (int, float)
"""Types of a number in JSON."""


DAMAGE = (
    KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, EOFError,
    NotImplementedError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What reading of text, tables and arrays raises where they are no longer as they were written."""


class ResultsError(ValueError):
    """A directory of results that cannot be read; the message says what to do."""


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Says which file is damaged where it does not hold what was written to it.

    Args:
        path: The file that is read, or the folder of several.

    Raises:
        ResultsError: Instead of the error about what the file holds.
    """
    try:
        yield
    except ResultsError:
        raise
    except DAMAGE as error:
        raise ResultsError(
            f"'{path}' is damaged ({type(error).__name__}: {error}). Run the command that wrote it "
            "again, without it: what is finished is kept."
        ) from error


def read_json(path: Path, fields: Mapping[str, type | tuple[type, ...]]) -> Any:
    """Reads an object, or a list of objects, that must have these fields.

    Args:
        path: The file.
        fields: Name to type; others may be there, too.

    Raises:
        ResultsError: If it holds something else.
    """
    with naming_damage(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        for row in content if isinstance(content, list) else [content]:
            require_fields(row, fields)
    return content


def read_curves(path: Path) -> pd.DataFrame:
    """Reads learning curves: ``step``, ``metric`` and ``value``.

    Raises:
        ResultsError: If it holds something else.
    """
    with naming_damage(path):
        types = {"step": float, "metric": str, "value": float}
        return pd.read_csv(path, dtype=types, usecols=list(types))


def read_scores(fit: Path) -> list[dict[str, Any]]:
    """Rows of scores of a fit, one a recording.

    Raises:
        ResultsError: If the file is damaged.
    """
    path = fit / SCORES
    texts = ("recording_id", "task", "split", "units", "arm", "labels")
    numbers = ("seed", "num_test", "num_labelled", "num_train", "seconds")
    rows: list[dict[str, Any]] = read_json(
        path, {**dict.fromkeys(texts, str), **dict.fromkeys(numbers, NUMBER), "scores": dict}
    )
    with naming_damage(path):
        for row in rows:
            require_fields(row["scores"], dict.fromkeys(row["scores"], NUMBER))
        _ = rows[0]["scores"]
    return rows


def read_pretraining(encoder: Path) -> dict[str, Any]:
    """What a pretrained encoder learned from, and how long it took.

    Raises:
        ResultsError: If the file is damaged.
    """
    names = ("seconds", "num_recordings", "num_units")
    facts: dict[str, Any] = read_json(encoder / PRETRAINING_FACTS, dict.fromkeys(names, NUMBER))
    return {name: facts[name] for name in names}


def require_fields(row: Any, fields: Mapping[str, type | tuple[type, ...]]) -> None:
    """Checks what an object of JSON holds.

    Raises:
        KeyError: If a field is missing.
        TypeError: If one is of another type.
    """
    if not isinstance(row, dict):
        raise TypeError(f"an object by name is needed, found {row!r}")
    for name, kind in fields.items():
        if not isinstance(row[name], kind) or (isinstance(row[name], bool) and kind is not bool):
            raise TypeError(f"{name} is {row[name]!r}")
