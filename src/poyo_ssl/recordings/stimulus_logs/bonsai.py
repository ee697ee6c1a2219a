"""Tables of events with a time, as Bonsai's ``CsvWriter`` writes them, with or without a header."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from poyo_ssl.recordings.columns import as_numbers_or_text
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.stimulus_logs.log_form import LogForm, read_lines

_OURS = ("name", "start", "end")


def read_bonsai(path: Path) -> pd.DataFrame:
    """One row an event.

    Times are the first column of numbers or of ISO 8601, which then count in seconds from the
    first row; names are the first other column of text, else the first other one. Columns called
    ``end`` or ``duration`` (seconds) say how long it lasted.
    """
    rows = [row for row in csv.reader(read_lines(path)) if any(cell.strip() for cell in row)]
    width = max(map(len, rows), default=0)
    cells = np.array([row + [""] * (width - len(row)) for row in rows], dtype=object)
    has_header = len(rows) > 0 and not any(_as_times(cell) is not None for cell in cells[:1].T)
    names = [str(name).strip() for name in cells[0]] if has_header else []
    columns = dict(enumerate(cells[int(has_header) :].T))
    times = {place: _as_times(column) for place, column in columns.items()}
    place = next((place for place, found in times.items() if found is not None), None)
    if place is None or width < 2:
        raise RecordingError(
            f"'{path}' has no column of times beside one of events: numbers of seconds, or dates "
            "and times of ISO 8601, in every row."
        )
    others = [other for other in columns if other != place]
    texts = [other for other in others if _is_text(columns[other])]
    named = (texts or others)[0]
    log = {
        names[other] if has_header else f"column_{other}": as_numbers_or_text(
            columns[other], f"'{path}': column {other}"
        )
        for other in others
        if other != named
    }
    start = times[place]
    assert start is not None
    end = log.pop("end", np.full(len(start), np.nan))
    if "duration" in log:
        end = start + log.pop("duration")
    kept = {name: values for name, values in log.items() if name not in _OURS}
    events = [str(value).strip() for value in columns[named]]
    return pd.DataFrame({"name": events, "start": start, "end": end, **kept})


def _as_times(column: np.ndarray) -> np.ndarray | None:
    """Seconds where every value is a number or a date with time; None where one is neither."""
    values = pd.Series(column, dtype=object).astype(str).str.strip()
    numbers = pd.to_numeric(values, errors="coerce")
    if len(values) and numbers.notna().all():
        return numbers.to_numpy(np.float64)
    if not len(values) or not values.str.match(r"\d{4}-\d\d-\d\d[T ]\d\d:").all():
        return None
    dates = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
    if dates.isna().any():
        return None
    return (dates - dates.iloc[0]).dt.total_seconds().to_numpy(np.float64)


def _is_text(column: np.ndarray) -> bool:
    return _as_times(column) is None


def _is_table(beginning: bytes) -> bool:
    return b"," in beginning.split(b"\n", 1)[0] and b"\0" not in beginning


BONSAI = LogForm(name="CSV of times and events (Bonsai)", recognises=_is_table, read=read_bonsai)
