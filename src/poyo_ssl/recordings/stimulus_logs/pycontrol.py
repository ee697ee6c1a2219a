"""Logs of pyControl: text until version 1.8, a table since version 2."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from poyo_ssl.recordings.formats.stimulus_tables import read_table
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.stimulus_logs.log_form import LogForm, read_lines

_DATUM = re.compile(r"D (\d+) (\d+)\s*")
_HEADER = b"time\ttype\tsubtype\tcontent"


def read_pycontrol(path: Path) -> pd.DataFrame:
    """Reads ``D <ms> <number>`` with the names that the lines ``S {...}`` and ``E {...}`` give."""
    states: dict[int, str] = {}
    events: dict[int, str] = {}
    data: list[tuple[float, int]] = []
    for line in read_lines(path):
        if line.startswith(("S {", "E {")):
            named = states if line.startswith("S") else events
            named.update(_read_names(line[2:], path))
        elif found := _DATUM.fullmatch(line):
            data.append((int(found[1]) / 1000, int(found[2])))
    names = {**states, **events}
    unknown = sorted({number for _, number in data} - set(names))
    if unknown:
        raise RecordingError(
            f"'{path}' has events {', '.join(map(str, unknown[:5]))}, which its lines S and E do "
            "not name. It is incomplete; copy it again."
        )
    return _with_ends(
        np.array([time for time, _ in data]),
        np.array([names[number] for _, number in data], dtype=object),
        np.array([number in states for _, number in data], dtype=bool),
    )


def read_pycontrol_table(path: Path) -> pd.DataFrame:
    """Reads the rows of type ``state`` and ``event``."""
    table = pd.DataFrame(read_table(path))
    lacking = {"time", "type", "content"} - set(table)
    if lacking:
        raise RecordingError(f"'{path}' lacks {', '.join(sorted(lacking))}. Copy it again.")
    table = table[table["type"].isin(["state", "event"])]
    times = pd.to_numeric(table["time"], errors="coerce").to_numpy(np.float64)
    if np.isnan(times).any():
        raise RecordingError(f"'{path}' has events without a time. Copy it again.")
    names = table["content"].fillna("").astype(str).to_numpy(dtype=object)
    return _with_ends(times, names, (table["type"] == "state").to_numpy(dtype=bool))


def _read_names(text: str, path: Path) -> dict[int, str]:
    try:
        return {int(number): str(name) for name, number in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise RecordingError(
            f"'{path}' names its states or events in a line that cannot be read: {text[:60]!r}. "
            "Copy it again."
        ) from error


def _with_ends(times: np.ndarray, names: np.ndarray, is_state: np.ndarray) -> pd.DataFrame:
    """A state lasts until the next one; events, and the last state, have no end."""
    ends = np.full(len(times), np.nan)
    places = np.flatnonzero(is_state)
    ends[places[:-1]] = times[places[1:]]
    return pd.DataFrame({"name": names, "start": times, "end": ends})


def _is_text(beginning: bytes) -> bool:
    return beginning.startswith(b"I ") and b"\nS {" in beginning


PYCONTROL = LogForm(name="pyControl .txt", recognises=_is_text, read=read_pycontrol)
PYCONTROL_TABLE = LogForm(
    name="pyControl .tsv",
    recognises=lambda beginning: beginning.startswith(_HEADER),
    read=read_pycontrol_table,
)
