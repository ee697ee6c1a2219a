"""Arrays that one already has, in memory or in an ``.npz`` file, as a recording."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.npyio import NpzFile

from poyo_ssl.recordings.columns import as_numbers, as_numbers_or_text, as_texts
from poyo_ssl.recordings.formats.format import Format
from poyo_ssl.recordings.formats.stimulus_tables import read_presentations, read_stimulus_files
from poyo_ssl.recordings.imaging_times import LONGEST_PERIOD
from poyo_ssl.recordings.raw_fluorescence import warn_of_raw_fluorescence
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import SourceConfig, StimulusTable
from poyo_ssl.recordings.untrusted_files.hdf5 import as_text
from poyo_ssl.recordings.untrusted_files.numpy_files import open_npz

logger = logging.getLogger(__name__)

_ARRAYS = ("df_over_f", "sampling_rate", "timestamps", "unit_ids")
_PLAIN_KEYS = (*_ARRAYS, "subject_id", "container_id", "session_type")
_TABLES = ("units/", "stimuli/", "templates/", "series/")
_FLAT_UNITS = ("unit_cre_line", "unit_area", "unit_imaging_depth_um")
"""Columns of units that may be written as ``unit_ids`` is, without a slash."""
_TEXT_COLUMNS = ("unit_id", "cre_line", "area")
"""Columns of units that are text whatever they are written as."""


def recording_from_arrays(
    df_over_f: np.ndarray,
    *,
    recording_id: str,
    sampling_rate: float | None = None,
    timestamps: np.ndarray | None = None,
    unit_ids: Sequence[object] | np.ndarray | None = None,
    units: pd.DataFrame | Mapping[str, Sequence[object] | np.ndarray] | None = None,
    stimuli: Mapping[str, pd.DataFrame] | None = None,
    templates: Mapping[str, np.ndarray] | None = None,
    running: pd.DataFrame | None = None,
    pupil: pd.DataFrame | None = None,
    series: Mapping[str, pd.DataFrame] | None = None,
    subject_id: str | None = None,
    container_id: str | None = None,
    session_type: str | None = None,
    source: str | None = None,
) -> Recording:
    """Makes a recording of arrays in memory.

    Traces that are units x timesteps are transposed, with a warning, where ``timestamps``,
    ``unit_ids`` or ``units`` leave no doubt. Presentations that the traces do not cover are
    left out, with a warning; one about traces that look like raw fluorescence stays with the
    recording.

    Args:
        df_over_f: ΔF/F, shape (num_timesteps, num_units), dimensionless; NaN where missing.
        recording_id: Text that identifies the session.
        sampling_rate: Imaging rate in Hz; the first sample is at 0 s. Give this or ``timestamps``.
        timestamps: Time of every sample in seconds, shape (num_timesteps,); a row or column of
            them will do.
        unit_ids: Name of every unit, shape (num_units,). The same name in two recordings means
            the same cell; without names, units are called ``<recording_id>/<column>``.
        units: What is known about the units, one value per unit in every column: ``cre_line``,
            ``area``, ``imaging_depth_um`` and any other column of numbers or text; ``unit_id``
            in place of ``unit_ids``.
        stimuli: Stimulus name to table, with the columns that ``Recording.stimuli`` documents and
            any other, times on the clock of the traces.
        templates: Stimulus name to the pictures shown, (num_pictures, height, width), uint8.
        running: Running speed, as in ``Recording.running``.
        pupil: The pupil, as in ``Recording.pupil``.
        series: Other time series by name, as in ``Recording.series``.
        subject_id: The mouse.
        container_id: The set of sessions that imaged the same field of view.
        session_type: What the session's stimulus set is called.
        source: Where the arrays came from, such as a file; errors name it.

    Raises:
        RecordingError: If the arrays do not fit together.
    """
    what = f"'{source}'" if source else f"Recording '{recording_id}'"
    num_timesteps = None if timestamps is None else np.size(timestamps)
    known = _read_units(units, unit_ids, what)
    num_units = len(next(iter(known.values()))) if known else None
    traces = _orient(_as_traces(df_over_f, what), num_timesteps, num_units, what)
    times = _as_times(len(traces), sampling_rate, timestamps, what)
    num_units = traces.shape[1] if num_units is None else num_units
    numbered = np.array([f"{recording_id}/{column}" for column in range(num_units)])
    recording = Recording(
        recording_id=recording_id,
        df_over_f=traces,
        timestamps=times,
        units=_as_units({"unit_id": numbered} | known, what),
        templates={name: _as_pictures(array, name) for name, array in (templates or {}).items()},
        running=running,
        pupil=pupil,
        series=dict(series or {}),
        subject_id=subject_id,
        container_id=container_id,
        session_type=session_type,
        source=source,
    )
    recording = replace(recording, stimuli=_read_tables(stimuli or {}, recording, what))
    return warn_of_raw_fluorescence(recording)


def read_npz(path: str | Path, source: SourceConfig) -> Recording:
    """Reads a recording from an ``.npz`` file, the plainest form to bring one's own data in.

    Two lines of numpy write it::

        arrays = {"df_over_f": df_over_f, "sampling_rate": 30.0}
        np.savez("day3.npz", **arrays)

    ============================  ================================================================
    ``df_over_f``                 ΔF/F, shape (num_timesteps, num_units)
    ``sampling_rate``             Hz; or ``timestamps`` in seconds, shape (num_timesteps,)
    ``unit_ids``                  names of the units, shape (num_units,); optional
    ``units/<column>``            what is known of each unit, shape (num_units,), such as
                                  ``units/cre_line``, ``units/area``, ``units/imaging_depth_um``
                                  or any other column of numbers or text; one value counts for
                                  all units; ``unit_area`` and so on are read, too; optional
    ``stimuli/<name>/<column>``   columns of the table of a stimulus, such as
                                  ``stimuli/drifting_gratings/start``, ``.../end`` and
                                  ``.../orientation``; optional
    ``templates/<name>``          pictures shown, (num_pictures, height, width), uint8; optional
    ``series/<name>/timestamps``  seconds, shape (num_samples,), increasing, and
    ``series/<name>/values``      the values then, shape (num_samples,) or (num_samples, k), of
                                  any time series; ``series/<name>/columns`` may name the k
                                  columns; optional
    ``subject_id``                one text; also ``container_id``, ``session_type``; optional
    ============================  ================================================================

    The file's name, without its suffix, becomes the ``recording_id``.

    Args:
        path: The file.
        source: Tables of stimuli in CSV or TSV files, relative to the file's folder; they take
            the place of tables of the same name in the file.

    Raises:
        RecordingError: If the file is damaged, lacks an array, or its arrays do not fit together.
    """
    path = Path(path)
    with open_npz(path) as arrays:
        _refuse_missing(path, arrays)
        recording = recording_from_arrays(
            arrays["df_over_f"],
            recording_id=path.stem,
            sampling_rate=_read_sampling_rate(path, arrays),
            timestamps=arrays.get("timestamps"),
            unit_ids=arrays["unit_ids"].ravel() if "unit_ids" in arrays else None,
            units={
                **{key.removeprefix("unit_"): arrays[key] for key in _FLAT_UNITS if key in arrays},
                **_read_columns(arrays, "units/"),
            },
            stimuli=_read_stimuli(path, arrays, set(source.stimuli)),
            templates=_read_columns(arrays, "templates/"),
            series=_read_series(path, arrays),
            subject_id=_read_fact(path, arrays, "subject_id"),
            container_id=_read_fact(path, arrays, "container_id"),
            session_type=_read_fact(path, arrays, "session_type"),
            source=str(path),
        )
    imaged = (float(recording.timestamps[0]), float(recording.timestamps[-1]))
    listed = read_stimulus_files(path.parent, source.stimuli, imaged)
    return replace(recording, stimuli={**recording.stimuli, **listed})


def _read_units(
    units: pd.DataFrame | Mapping[str, Sequence[object] | np.ndarray] | None,
    unit_ids: Sequence[object] | np.ndarray | None,
    what: str,
) -> dict[str, np.ndarray]:
    """The columns that are given, one value per unit, ids first."""
    known = {} if unit_ids is None else {"unit_id": _as_ids(unit_ids, what)}
    for name, values in ({} if units is None else units).items():
        column = values.to_numpy() if isinstance(values, pd.Series) else np.asarray(values)
        if name == "unit_id" and unit_ids is not None:
            raise RecordingError(f"{what}: give either unit_ids or the column unit_id of units.")
        known[str(name)] = _as_ids(values, what) if name == "unit_id" else column
    num_units = max((column.size for column in known.values()), default=0)
    known = {
        name: np.full(num_units, column) if column.ndim == 0 else column
        for name, column in known.items()
    }
    shapes = {name: column.shape for name, column in known.items()}
    if any(shape != (num_units,) for shape in shapes.values()):
        raise RecordingError(
            f"{what}: the columns of units have shapes {shapes}; one value per unit is needed in "
            "each. Give each column of a matrix a name of its own."
        )
    return known


def _as_ids(given: Sequence[object] | np.ndarray | pd.Series, what: str) -> np.ndarray:
    """Names of units as an array: numpy would call a missing one 'nan'."""
    missing = np.flatnonzero(pd.isna(np.asarray(given, dtype=object)))
    if len(missing):
        raise RecordingError(
            f"{what}: unit {missing[0]} (the first is 0) has no unit_id ({len(missing)} such "
            "units). Name every unit, or none."
        )
    return np.asarray(given)


def _as_units(known: Mapping[str, np.ndarray], what: str) -> pd.DataFrame:
    """The table of units; columns of one length."""
    columns: dict[str, Sequence[object] | np.ndarray] = {}
    for name, values in known.items():
        where = f"{what}: column '{name}' of units"
        if name == "unit_id":
            columns[name] = [as_text(unit_id) for unit_id in values]
        elif name in _TEXT_COLUMNS:
            columns[name] = as_texts(values, where).tolist()
        elif name == "imaging_depth_um":
            columns[name] = as_numbers(values, where)
        else:
            columns[name] = as_numbers_or_text(values, where)
    return pd.DataFrame(columns)


def _as_traces(df_over_f: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(df_over_f)
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise RecordingError(
            f"{what}: df_over_f has shape {values.shape} and type {values.dtype}; numbers of shape "
            "(num_timesteps, num_units) are needed. For one trace, use df_over_f[:, None]."
        )
    return values.astype(np.float32, copy=False)


def _orient(
    traces: np.ndarray, num_timesteps: int | None, num_units: int | None, what: str
) -> np.ndarray:
    """The traces as timesteps x units, turned if what is known fits only then."""
    rows, columns = traces.shape
    if num_timesteps is None and num_units is None and columns > rows:
        raise RecordingError(
            f"{what}: df_over_f has {rows} timesteps and {columns} units. If it is units x "
            "timesteps, transpose it; if not, confirm it by giving timestamps or unit_ids."
        )
    fits = num_timesteps in (None, rows) and num_units in (None, columns)
    fits_turned = num_timesteps in (None, columns) and num_units in (None, rows)
    if fits or not fits_turned:  # what fits neither way is refused, with the numbers, later
        return traces
    logger.warning(
        "%s: df_over_f of shape %s is units x timesteps; transposed.", what, traces.shape
    )
    return np.ascontiguousarray(traces.T)


def _as_times(
    num_timesteps: int, sampling_rate: float | None, timestamps: np.ndarray | None, what: str
) -> np.ndarray:
    if (sampling_rate is None) == (timestamps is None):
        given = "neither is" if timestamps is None else "both are"
        raise RecordingError(f"{what}: give either sampling_rate or timestamps; {given} given.")
    if timestamps is not None:
        times = np.asarray(timestamps)
        if times.dtype.kind not in "iuf":
            raise RecordingError(f"{what}: timestamps are {times.dtype}; give seconds as numbers.")
        # MATLAB has no arrays of one dimension
        return (times.ravel() if times.size in times.shape else times).astype(np.float64)
    assert sampling_rate is not None
    if not 0 < sampling_rate < np.inf:
        raise RecordingError(
            f"{what}: sampling_rate must be positive, got {sampling_rate}. Give the imaging rate "
            "in Hz."
        )
    if sampling_rate < 1 / LONGEST_PERIOD:
        raise RecordingError(
            f"{what}: a sampling_rate of {sampling_rate} Hz is too slow for imaging. Give the "
            "imaging rate in Hz, one over the period in seconds."
        )
    return np.arange(num_timesteps) / sampling_rate


def _as_pictures(array: np.ndarray, name: str) -> np.ndarray:
    pictures = np.asarray(array)
    if pictures.ndim != 3 or pictures.dtype != np.uint8:
        raise RecordingError(
            f"The template '{name}' has shape {pictures.shape} and type {pictures.dtype}; grey "
            "pictures (num_pictures, height, width) of uint8 are needed."
        )
    return pictures


def _read_tables(
    stimuli: Mapping[str, pd.DataFrame], recording: Recording, what: str
) -> dict[str, pd.DataFrame]:
    imaged = (float(recording.timestamps[0]), float(recording.timestamps[-1]))
    tables = {}
    for name, table in stimuli.items():
        stored = {str(column): _as_array(table[column]) for column in table}
        own = {column: column for column in stored if column not in ("start", "end")}
        form = StimulusTable(table=name, columns=own, start="start", end="end")
        tables[name] = read_presentations(stored, form, imaged, f"{what}: {name}")
    return tables


def _as_array(column: pd.Series) -> np.ndarray:
    """The values of a column; pandas would round whole numbers some of which are missing."""
    is_rounded = pd.api.types.is_integer_dtype(column.dtype) and column.hasnans
    return column.to_numpy(dtype=object) if is_rounded else column.to_numpy()


def _refuse_missing(path: Path, arrays: NpzFile) -> None:
    if "df_over_f" not in arrays:
        raise RecordingError(
            f"'{path}' has no df_over_f (found: {', '.join(arrays) or 'nothing'}). Write it with "
            "np.savez(path, df_over_f=df_over_f, sampling_rate=30.0); df_over_f is timesteps x "
            "units."
        )
    known = (*_PLAIN_KEYS, *_FLAT_UNITS)
    unread = [name for name in arrays if name not in known and not name.startswith(_TABLES)]
    if unread:
        logger.warning(
            "%s: not read, for lack of a meaning: %s. Columns of units are called units/<column>, "
            "time series series/<name>/timestamps and series/<name>/values.",
            path,
            ", ".join(unread),
        )


def _read_sampling_rate(path: Path, arrays: NpzFile) -> float | None:
    if "sampling_rate" not in arrays:
        return None
    rate = arrays["sampling_rate"]
    if rate.size != 1 or rate.dtype.kind not in "iuf":
        raise RecordingError(
            f"'{path}': sampling_rate has shape {rate.shape} and type {rate.dtype}; one number of "
            "Hz is needed."
        )
    return float(rate.ravel()[0])


def _read_stimuli(path: Path, arrays: NpzFile, replaced: set[str]) -> dict[str, pd.DataFrame]:
    """The tables in the file, but for those that other files replace."""
    columns: dict[str, dict[str, np.ndarray]] = {}
    for key in arrays:
        kind, _, rest = key.partition("/")
        name, _, column = rest.partition("/")
        if kind == "stimuli" and name not in replaced:
            columns.setdefault(name, {})[column] = arrays[key]
    tables = {}
    for name, stored in columns.items():
        shapes = {column: values.shape for column, values in stored.items()}
        if len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 1:
            raise RecordingError(
                f"'{path}': the columns of stimuli/{name} have shapes {shapes}; one value per "
                "presentation is needed in each."
            )
        tables[name] = pd.DataFrame(stored)
    return tables


def _read_columns(arrays: NpzFile, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin so, by the rest of their names."""
    return {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}


def _read_fact(path: Path, arrays: NpzFile, name: str) -> str | None:
    if name not in arrays:
        return None
    if arrays[name].size != 1:
        raise RecordingError(
            f"'{path}': {name} has shape {arrays[name].shape}; one text is needed."
        )
    return as_text(arrays[name].ravel()[0]).strip() or None


def _read_series(path: Path, arrays: NpzFile) -> dict[str, pd.DataFrame]:
    parts: dict[str, dict[str, np.ndarray]] = {}
    for key, values in _read_columns(arrays, "series/").items():
        name, _, part = key.rpartition("/")
        parts.setdefault(name, {})[part] = values
    return {name: _as_series(f"'{path}': series/{name}", found) for name, found in parts.items()}


def _as_series(where: str, found: Mapping[str, np.ndarray]) -> pd.DataFrame:
    unknown = sorted(set(found) - {"timestamps", "values", "columns"})
    if unknown or not {"timestamps", "values"} <= set(found):
        raise RecordingError(
            f"{where} has {', '.join(sorted(found))}; it needs timestamps (seconds) and values, "
            "and may have columns, their names."
        )
    times, values = found["timestamps"], found["values"]
    if times.ndim != 1 or values.ndim not in (1, 2) or len(values) != len(times):
        raise RecordingError(
            f"{where} has timestamps of shape {times.shape} and values of shape {values.shape}; "
            "(num_samples,), and (num_samples,) or (num_samples, number of columns), are needed."
        )
    columns = values[None] if values.ndim == 1 else values.T
    usual = ["value"] if values.ndim == 1 else [f"value_{i}" for i in range(len(columns))]
    names = [as_text(name) for name in found["columns"].ravel()] if "columns" in found else usual
    if len(names) != len(columns) or len({"timestamp", *names}) <= len(names):
        raise RecordingError(
            f"{where} has {len(columns)} columns of values but these names: {', '.join(names)}. "
            "Give each column one name, none of them twice or 'timestamp'."
        )
    return pd.DataFrame({"timestamp": times, **dict(zip(names, columns, strict=True))})


ARRAYS = Format(
    name="arrays",
    read=read_npz,
    names_units_after_file=True,
    suffixes=(".npz",),
    recognises=zipfile.is_zipfile,
)
