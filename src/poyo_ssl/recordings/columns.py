"""Columns of tables that came from elsewhere, as numbers or text."""

from __future__ import annotations

import numpy as np
import pandas as pd

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.untrusted_files.hdf5 import as_text

_NO_NUMBER = ("", "nan", "none", "na", "n/a")
_NO_TEXT = ("", "nan", "<na>")


def as_numbers(stored: np.ndarray, what: str) -> np.ndarray:
    """A column as numbers; whole ones stay whole, and empty text is NaN.

    Args:
        stored: One value per row.
        what: File, table and column, for the error.

    Raises:
        RecordingError: If a value is no number; its row is named.
    """
    values = as_column(stored, what)
    if values.dtype.kind in "iuf":
        return values
    if values.dtype.kind == "b":
        return values.astype(np.int64)
    text = [_as_stripped_text(value) for value in values.tolist()]
    numbers = pd.to_numeric(pd.Series(text, dtype=object), errors="coerce").to_numpy(np.float64)
    odd = [row for row in np.flatnonzero(np.isnan(numbers)) if text[row].lower() not in _NO_NUMBER]
    if odd:
        raise RecordingError(
            f"{what} is no number in row {odd[0]} (the first row is 0): {text[odd[0]][:40]!r} "
            f"({len(odd)} such rows). Write numbers, and leave the cells of blank sweeps empty."
        )
    return numbers


def as_numbers_or_text(stored: np.ndarray, what: str) -> np.ndarray:
    """A column as numbers where all of it is numbers or empty, else as text.

    Returns:
        Numbers as :func:`as_numbers` gives them; or text of type object, None where it is empty.

    Raises:
        RecordingError: If there is not one value per row.
    """
    values = as_column(stored, what)
    if values.dtype.kind in "biuf":
        return as_numbers(values, what)
    try:
        return as_numbers(values, what)
    except RecordingError:
        return as_texts(values, what)


def as_texts(stored: np.ndarray, what: str) -> np.ndarray:
    """A column as text of type object, None where it is empty.

    Raises:
        RecordingError: If there is not one value per row.
    """
    texts = [_as_stripped_text(value) for value in as_column(stored, what).tolist()]
    column = np.empty(len(texts), dtype=object)
    column[:] = [None if text.lower() in _NO_TEXT else text for text in texts]
    return column


def as_column(stored: np.ndarray, what: str) -> np.ndarray:
    """The values of a column, shape (num_rows,).

    Raises:
        RecordingError: If there is not one value per row.
    """
    values = np.asarray(stored)
    if values.ndim != 1:
        raise RecordingError(f"{what} has shape {values.shape}; one value per row is needed.")
    return values


def as_table(columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """The columns as a table; pandas leaves the type of text as it is, object."""
    return pd.DataFrame(
        {name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()}
    )


def _as_stripped_text(value: object) -> str:
    return "" if value is None else as_text(value).strip()
