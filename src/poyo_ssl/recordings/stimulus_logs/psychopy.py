"""Tables of trials that PsychoPy writes: when each component started, and what it showed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from poyo_ssl.recordings.columns import as_numbers
from poyo_ssl.recordings.formats.stimulus_tables import read_table
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.stimulus_logs.log_form import LogForm

_STARTED, _STOPPED = ".started", ".stopped"
_OURS = ("name", "start", "end")


def read_psychopy(path: Path) -> pd.DataFrame:
    """One event for every ``<component>.started``; rows in which it is empty have none."""
    stored = read_table(path)
    # before version 2020 it was <component>.t and such; those are not read
    components = [name.removesuffix(_STARTED) for name in stored if name.endswith(_STARTED)]
    shown = {
        name: values for name, values in stored.items() if "." not in name and name not in _OURS
    }
    parts = []
    for name in components:
        times = {
            ours: as_numbers(stored[f"{name}{theirs}"], f"'{path}': '{name}{theirs}'")
            for ours, theirs in (("start", _STARTED), ("end", _STOPPED))
            if f"{name}{theirs}" in stored
        }
        part = pd.DataFrame({**shown, "name": name, "end": float("nan"), **times})
        parts.append(part[part["start"].notna()])
    if not parts:
        raise RecordingError(f"'{path}' has no column that ends in {_STARTED}.")
    log = pd.concat(parts, ignore_index=True)
    return log[[*_OURS, *shown]]


PSYCHOPY = LogForm(
    name="PsychoPy .csv",
    recognises=lambda beginning: _STARTED.encode() in beginning.split(b"\n", 1)[0],
    read=read_psychopy,
)
