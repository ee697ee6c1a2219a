"""Tables of events with a time, as Bonsai's ``CsvWriter`` writes them, with or without a header."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd

from poyo_ssl.recordings.columns import as_numbers
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.stimulus_logs.log_form import LogForm, read_lines

_ENDS = ("end", "duration")
_CALLED_TIME = re.compile(
    r"(time|timestamp|onset|start|second|t)s?([ _(]*(s|sec|seconds|time)\)?)?", re.I
)
"""Names such as ``time``, ``Timestamp``, ``onset_s``, ``start_time`` and ``t (s)``."""


def read_bonsai(path: Path) -> pd.DataFrame:
    """One row an event.

    Times are the first column of numbers or of ISO 8601 that is called ``time``, ``onset`` or so,
    or the first one at all where none is; dates count in seconds from the first row. Names are the
    first other column of text, else the first other one. Columns called ``end`` or ``duration``
    (seconds) say how long it lasted.
    """
    columns = _read_columns(path)
    times = {name: found for name in columns if (found := _as_times(columns[name])) is not None}
    if not times or len(columns) < 2:
        raise RecordingError(
            f"'{path}' has no column of times beside one of events: numbers of seconds, or dates "
            "and times of ISO 8601, in every row."
        )
    time = next(filter(_CALLED_TIME.fullmatch, times), next(iter(times)))
    start, others = times[time], [name for name in columns if name != time]
    named = next((name for name in others if name not in times), others[0])
    lasted = {
        name: as_numbers(columns[name], f"'{path}': '{name}'") for name in _ENDS if name in others
    }
    end = lasted.get("end", start + lasted.get("duration", np.nan))
    kept = {name: columns[name] for name in others if name not in ("name", named, *_ENDS)}
    events = [str(value).strip() for value in columns[named]]
    return pd.DataFrame({"name": events, "start": start, "end": end, **kept})


def _read_columns(path: Path) -> dict[str, np.ndarray]:
    """Columns as text by name; ``column_0`` and so on where the first row holds a time already."""
    rows = [row for row in csv.reader(read_lines(path)) if any(cell.strip() for cell in row)]
    width = max(map(len, rows), default=0)
    cells = np.array([row + [""] * (width - len(row)) for row in rows], dtype=object)
    has_header = len(rows) > 0 and not any(_as_times(cell) is not None for cell in cells[:1].T)
    names = cells[0] if has_header else [f"column_{place}" for place in range(width)]
    return {
        str(name).strip(): column
        for name, column in zip(names, cells[int(has_header) :].T, strict=True)
    }


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


def _is_table(beginning: bytes) -> bool:
    return b"," in beginning.split(b"\n", 1)[0] and b"\0" not in beginning


BONSAI = LogForm(name="CSV of times and events (Bonsai)", recognises=_is_table, read=read_bonsai)
