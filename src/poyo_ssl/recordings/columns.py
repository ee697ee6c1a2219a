"""Columns of tables that came from elsewhere, as numbers or text."""

from __future__ import annotations

import logging

import h5py
import numpy as np
import pandas as pd

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.untrusted_files.hdf5 import as_text

logger = logging.getLogger(__name__)

_NO_NUMBER = ("", "nan", "none", "na", "<na>", "n/a")
_NO_TEXT = ("", "nan", "<na>", "nat")
TOO_LARGE = 2**53
"""From here on, neighbouring whole numbers are one floating number."""


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

    Whole numbers that are too large to be told apart as numbers, such as ids, are text, too.

    Returns:
        Numbers as :func:`as_numbers` gives them; or text of type object, None where it is empty.

    Raises:
        RecordingError: If there is not one value per row, or one is neither number nor text.
    """
    values = as_column(stored, what)
    try:
        numbers = as_numbers(values, what)
    except RecordingError:
        return as_texts(values, what)
    is_large = (numbers >= TOO_LARGE) | (numbers <= -TOO_LARGE)
    too_large = np.flatnonzero(is_large & np.isfinite(numbers))
    if values.dtype.kind == "f" and len(too_large):
        logger.warning(
            "%s holds floating numbers of 2**53 and more (row %d: %.17g), which are one number "
            "with their neighbours. If they are labels, give them as text or whole numbers.",
            what,
            too_large[0],
            numbers[too_large[0]],
        )
        return numbers
    is_whole = any(
        _as_stripped_text(value).lstrip("+-").isdigit() for value in values[too_large].tolist()
    )
    return as_texts(values, what) if is_whole else numbers


def as_texts(stored: np.ndarray, what: str) -> np.ndarray:
    """A column as text of type object, None where it is empty.

    Raises:
        RecordingError: If there is not one value per row, or one is neither number nor text.
    """
    values = as_column(stored, what).tolist()
    odd = [row for row, value in enumerate(values) if not _is_plain(value)]
    if odd:
        raise RecordingError(
            f"{what} is neither number nor text in row {odd[0]} (the first row is 0): "
            f"{values[odd[0]]!r:.40} ({len(odd)} such rows)."
        )
    texts = [_as_stripped_text(value) for value in values]
    column = np.empty(len(texts), dtype=object)
    column[:] = [None if text.lower() in _NO_TEXT else text for text in texts]
    return column


def as_column(stored: np.ndarray, what: str) -> np.ndarray:
    """The values of a column, shape (num_rows,).

    Raises:
        RecordingError: If there is not one number or text per row.
    """
    values = np.asarray(stored)
    if values.ndim != 1:
        raise RecordingError(f"{what} has shape {values.shape}; one value per row is needed.")
    if not holds_numbers_or_text(values.dtype):
        raise RecordingError(f"{what} holds {values.dtype}; numbers or text are needed.")
    return values


def holds_numbers_or_text(dtype: np.dtype) -> bool:
    """Whether a column is of numbers or text, and not of dates, references or records."""
    if dtype.kind == "O" and dtype.metadata:  # of HDF5
        return h5py.check_string_dtype(dtype) is not None
    return dtype.kind in "biufSUO"


def as_table(columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """The columns as a table; pandas leaves the type of text as it is, object."""
    return pd.DataFrame(
        {name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()}
    )


def _as_stripped_text(value: object) -> str:
    return "" if value is None else as_text(value).strip()


def _is_plain(value: object) -> bool:
    """Whether a value is a number, text or missing."""
    return isinstance(value, str | bytes | int | float | np.number | np.bool_) or (
        value is None or value is pd.NA or value is pd.NaT
    )
