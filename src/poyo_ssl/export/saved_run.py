"""What a saved run found out about one session, written for other tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from poyo_ssl.evaluation.saved_runs import LearnedFrom
from poyo_ssl.export.nwb import write_nwb
from poyo_ssl.export.suite2p import write_predictable
from poyo_ssl.recordings.loading import load_recording
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.sources import SourceConfig

_DEFAULT_SOURCE = SourceConfig()
_NOTHING: Mapping[str, str] = MappingProxyType({})
PREDICTIONS, UNITS = "predictions.csv", "units.csv"
_NAMES = {"recording_id": str, "unit_id": str}


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a run found out about a session."""

    recording: Recording
    """Under the name that the run knows it by."""
    predictions: pd.DataFrame | None
    units: pd.DataFrame | None
    source: SourceConfig
    session_start_time: datetime | None
    subject: Mapping[str, str]
    may_replace: bool
    on_progress: Callable[[int, int], None]


def export_run(
    run: str | Path,
    session: str | Path,
    output: str | Path,
    *,
    predictions: str | Path | None = None,
    source: SourceConfig = _DEFAULT_SOURCE,
    session_start_time: datetime | None = None,
    subject: Mapping[str, str] = _NOTHING,
    may_replace: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Writes what a run found out about one of its sessions, in the form that ``output`` ends in.

    ``.nwb`` is a copy of an NWB session, or a new one, with predictions and predictability
    (:func:`write_nwb`). ``.npy`` are booleans for ``F.npy`` of a suite2p folder
    (:func:`write_predictable`).

    Args:
        run: Directory that ``poyo-ssl run`` or ``poyo-ssl finetune`` wrote.
        session: One recording that the run decoded.
        output: An ``.npy`` file of booleans is replaced.
        predictions: CSV that ``poyo-ssl evaluate`` wrote, to be written in place of the run's own
            predictions, such as of another day.
        source: What the session was read with.
        session_start_time: When the session began, for a new NWB file.
        subject: Fields of the animal, for a new NWB file.
        may_replace: Write over an NWB file that is there.
        on_progress: Called with the bytes of an NWB session that are copied and those in all.

    Returns:
        ``output``.

    Raises:
        ValueError: If the output ends in something else, the directory is no run, or it knows
            nothing of the session.
        OutputError: If an NWB file is there that may not be replaced.
    """
    run, output = Path(run), Path(output)
    if output.suffix.lower() not in WRITERS:
        raise ValueError(
            f"'{output}' ends in '{output.suffix}', which nothing is written as. Let it end in "
            f"{' or '.join(WRITERS)}."
        )
    if predictions is not None and not Path(predictions).is_file():
        raise ValueError(
            f"'{predictions}' does not exist. Give the CSV of predictions that 'poyo-ssl evaluate' "
            "wrote."
        )
    recording = load_recording(session, source)
    name = LearnedFrom.read(run).name_of(recording) or recording.recording_id
    found = Found(
        recording=replace(recording, recording_id=name),
        predictions=_read_about(
            name, Path(predictions) if predictions else run / PREDICTIONS, "recording", dtype=str
        ),
        units=_read_about(name, run / UNITS, "recording_id", dtype=_NAMES),
        source=source,
        session_start_time=session_start_time,
        subject=subject,
        may_replace=may_replace,
        on_progress=on_progress,
    )
    return WRITERS[output.suffix.lower()](found, output)


def _read_about(name: str, path: Path, column: str, dtype: Any) -> pd.DataFrame | None:
    """The rows of a CSV file about a recording; None where there are none."""
    if not path.is_file():
        return None
    numbers = {"skewness": ["", "nan"], "kurtosis": ["", "nan"]}
    table = pd.read_csv(path, keep_default_na=False, na_values=numbers, dtype=dtype)
    if column not in table:
        raise ValueError(f"'{path}' has no column '{column}', as the CSV of a run has.")
    rows = table[table[column] == name]
    return rows if len(rows) else None


def _write_nwb(found: Found, output: Path) -> Path:
    if found.predictions is None and found.units is None:
        raise ValueError(
            f"The run knows nothing of recording '{found.recording.recording_id}': neither "
            f"{PREDICTIONS} nor {UNITS} names it. Decode it with 'poyo-ssl evaluate', and give the "
            "CSV of predictions that it writes."
        )
    return write_nwb(
        found.recording,
        output,
        predictions=found.predictions,
        units=found.units,
        source=found.source,
        session_start_time=found.session_start_time,
        subject=found.subject,
        may_replace=found.may_replace,
        on_progress=found.on_progress,
    )


def _write_predictable(found: Found, output: Path) -> Path:
    if found.units is None:
        raise ValueError(
            f"There is no {UNITS} in the run that names recording "
            f"'{found.recording.recording_id}'. 'poyo-ssl run' writes one of what it is given."
        )
    return write_predictable(found.recording, output, found.units)


WRITERS: dict[str, Callable[[Found, Path], Path]] = {
    ".nwb": _write_nwb,
    ".npy": _write_predictable,
}
"""Ending of the output to what writes it."""
