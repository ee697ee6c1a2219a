"""Predictions and what is known of units, as NWB: in a copy of the session's file, or a new one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.export.new_nwb import new_session
from poyo_ssl.export.predictions import DESCRIPTIONS, TaskPredictions, split_by_task
from poyo_ssl.export.units import rows_of, units_of
from poyo_ssl.extras import import_extra
from poyo_ssl.file_names import file_name
from poyo_ssl.output_directory import require_unused
from poyo_ssl.recordings.formats.nwb import NWB2, find_rois
from poyo_ssl.recordings.loading import identify
from poyo_ssl.recordings.recording import Recording, RecordingError, require_recording
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.recordings.untrusted_files.hdf5 import open_hdf5
from poyo_ssl.whole_files import partial_file, publish

MODULE = "decoding"
"""Processing module that holds the predictions."""
UNIT_COLUMNS = {
    "skewness": "Skewness of the activity, measured on training time; NaN where it was not.",
    "kurtosis": "Kurtosis of the activity, measured on training time; NaN where it was not.",
    "predictable": "Whether skewness and kurtosis are both below their thresholds; false where "
    "they were not measured.",
}
"""Columns that the table of ROIs gets."""

_BYTES_AT_A_TIME = 2**24
_DEFAULT_SOURCE = SourceConfig()
_NOTHING: Mapping[str, str] = MappingProxyType({})


def write_nwb(
    recording: Recording,
    path: str | Path,
    *,
    predictions: pd.DataFrame | None = None,
    units: pd.DataFrame | None = None,
    source: SourceConfig = _DEFAULT_SOURCE,
    session_start_time: datetime | None = None,
    subject: Mapping[str, str] = _NOTHING,
    may_replace: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Writes a session as NWB 2 with what was decoded and what is known of its units.

    Where the recording was read from an NWB 2 file, that file is copied and added to: all that it
    holds stays as it is. Else a new file gets ΔF/F, units, stimuli and behaviour; pictures of
    stimuli are left out. Predictions become a table for every task in the processing module
    ``decoding``; ``skewness``, ``kurtosis`` and ``predictable`` become columns of the
    ``PlaneSegmentation``.

    Args:
        recording: As it was read; the file in its ``source`` is copied.
        path: ``.nwb`` file.
        predictions: ``evaluate(...).predictions`` or ``predictions.csv`` read as text; rows of
            other recordings are left out.
        units: ``partition.units`` or the ``units.csv`` of a run; rows of other recordings are left
            out.
        source: What the recording was read with.
        session_start_time: When the session began, for a new file; NWB cannot be without.
        subject: Fields of the animal for a new file, such as ``{"species": "Mus musculus", "sex":
            "F", "age": "P90D"}``; NWB wants these three.
        may_replace: Write over a file that is there.
        on_progress: Called with the bytes of the session's file that are copied and those in all.

    Returns:
        ``path``.

    Raises:
        RecordingError: If nothing in the tables is about this recording, the file has such a
            module or column already, a new file lacks ``session_start_time``, or a copy is given
            it or a subject, of which it tells itself.
        OutputError: If a file is there that may not be replaced.
        MissingExtraError: If pynwb is not installed.
    """
    require_recording(recording)
    path = Path(path)
    import_extra("pynwb", "nwb", f"Writing '{path}'")
    tables = []
    if predictions is not None:
        tables = split_by_task(rows_of(recording, predictions, "recording"))
    columns = pd.DataFrame() if units is None else units_of(recording, units)
    copied = _source_to_copy(recording)
    if copied is not None and copied.resolve() == path.resolve():
        raise RecordingError(f"'{path}' is the session's own file. Write the copy elsewhere.")
    if copied is not None and (session_start_time is not None or subject):
        raise RecordingError(
            f"'{copied}' is copied with what it says of the session. session_start_time and "
            "subject are for sessions that are not NWB: leave them out, and correct the copy with "
            "pynwb where it is wrong."
        )
    require_unused(path, may_replace)
    with partial_file(path) as partial, warnings.catch_warnings():
        # what pynwb finds odd in a file of others is theirs to mend
        warnings.filterwarnings("ignore", module=r"pynwb|hdmf")
        if copied is None:
            session, segmentation = new_session(recording, session_start_time, subject)
            _add_columns(segmentation, np.arange(recording.num_units), columns)
            _add_predictions(session, tables)
            _write(session, partial)
        else:
            _add_to_copy(recording, copied, partial, source, tables, columns, on_progress)
        publish(partial, path)
    return path


def _source_to_copy(recording: Recording) -> Path | None:
    """The NWB 2 file that the recording was read from, where it is on disk."""
    path = Path(recording.source or "")
    return path if path.is_file() and identify(path) == NWB2.name else None


def _write(session: Any, path: Path) -> None:
    from pynwb import NWBHDF5IO

    with NWBHDF5IO(path, "w") as io:
        io.write(session)


def _add_to_copy(
    recording: Recording,
    copied: Path,
    path: Path,
    source: SourceConfig,
    tables: list[TaskPredictions],
    columns: pd.DataFrame,
    on_progress: Callable[[int, int], None],
) -> None:
    from pynwb import NWBHDF5IO

    with open_hdf5(copied) as file:  # nothing in it leads out of it
        segmentation, rows = find_rois(file, source)
    if segmentation is not None and len(rows) != recording.num_units:
        raise RecordingError(
            f"'{copied}' has {len(rows)} units, but recording '{recording.recording_id}' has "
            f"{recording.num_units}. Give the source that it was read with."
        )
    _copy(copied, path, on_progress)
    with NWBHDF5IO(path, "a", load_namespaces=True) as io:
        session = _read(io, copied)
        if len(columns):
            _add_columns(_find_table(session, segmentation, recording), rows, columns)
        if MODULE in session.processing and tables:
            raise RecordingError(
                f"'{copied}' has a processing module '{MODULE}' already. Start from the session's "
                "original file."
            )
        _add_predictions(session, tables)
        io.write(session)


def _copy(source: Path, target: Path, on_progress: Callable[[int, int], None]) -> None:
    total = source.stat().st_size
    on_progress(0, total)
    with source.open("rb") as read, target.open("xb") as written:
        while part := read.read(_BYTES_AT_A_TIME):
            written.write(part)
            on_progress(written.tell(), total)


def _read(io: Any, path: Path) -> Any:
    try:
        return io.read()
    except Exception as error:  # what pynwb raises has no class in common
        raise RecordingError(
            f"'{path}' cannot be copied: pynwb does not read it as NWB 2 ({error}). Mend the file, "
            "or export the session from another form of it."
        ) from error


def _find_table(session: Any, name: str | None, recording: Recording) -> Any:
    """The PlaneSegmentation of that path in the file."""
    if name is None:
        raise RecordingError(
            f"'{recording.source}' has no table of ROIs that its traces refer to, so its units "
            "have no place for columns. Leave the table of units out."
        )
    _, _, module, interface, *table = name.split("/")
    found = session.processing[module][interface]
    return found[table[0]] if table else found


def _add_columns(segmentation: Any, rows: np.ndarray, columns: pd.DataFrame) -> None:
    """Adds columns to a table of ROIs.

    Args:
        segmentation: A PlaneSegmentation.
        rows: Its row of every unit, (num_units,).
        columns: ``UNIT_COLUMNS``, or none of them; one row a unit.
    """
    names = [str(name) for name in columns]
    twice = [name for name in names if name in segmentation.colnames]
    if twice:
        raise RecordingError(
            f"The table of ROIs '{segmentation.name}' has {', '.join(twice)} already. Start from "
            "the session's original file."
        )
    for name in names:
        values = columns[name].to_numpy()
        whole = np.full(len(segmentation), False if values.dtype == bool else np.nan)
        whole[rows] = values
        segmentation.add_column(name=name, description=UNIT_COLUMNS[name], data=whole)


def _add_predictions(session: Any, tables: list[TaskPredictions]) -> None:
    from hdmf.common import DynamicTable, VectorData

    if not tables:
        return
    module = session.create_processing_module(
        name=MODULE, description="What decoders made of the activity, on trials kept for testing."
    )
    for predictions in tables:
        columns = [
            VectorData(name=name, description=DESCRIPTIONS[name], data=_plain(values))
            for name, values in predictions.columns.items()
        ]
        if predictions.classes:
            text = "Natural logarithm of the probability of every class, in the order: "
            columns.append(
                VectorData(
                    name="log_probability",
                    description=text + ", ".join(predictions.classes),
                    data=predictions.log_probability,
                )
            )
        module.add(
            DynamicTable(
                name=file_name(predictions.task),
                description=f"Predictions of the task '{predictions.task}'.",
                columns=columns,
            )
        )


def _plain(values: np.ndarray) -> Any:
    """Text as a list, which HDF5 has a type for."""
    return values.tolist() if values.dtype == object else values
