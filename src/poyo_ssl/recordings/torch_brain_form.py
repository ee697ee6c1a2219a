"""A recording in the form of ``torch_brain.data.Data``, in which recordings are stored.

The fields are those that ``brainsets prepare allen_visual_coding_ophys_2016`` writes
(``calcium_traces``, ``rois``, one ``Interval`` per stimulus, ``running``, ``pupil``, ``session``,
``subject``, ``device``), with what an exact copy of a recording needs besides:

- gaps in imaging are filled with NaN and left out of the domain; ``calcium_traces.recorded_at``
  holds the exact time of every sample (NaN in a gap), beside torch-brain's regular grid;
- blank sweeps stay in the tables, as NaN (gratings) or ``frame`` 0 (natural scenes);
- ``rois`` has all columns of the table of units;
- ``series`` holds one ``IrregularTimeSeries`` per time series besides running and pupil;
- a column whose name torch-brain cannot take, such as ``trial number``, is called after its place
  in its table, ``column_at_3``;
- ``poyo_ssl`` holds the remaining metadata and names the files of the pictures that were shown.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.torch_brain_objects import (
    NAMES_OF_DATA,
    NAMES_OF_TABLES,
    VERSION,
    write_array_dict,
    write_data,
    write_interval,
    write_irregular,
    write_regular,
)

logger = logging.getLogger(__name__)

FORMAT = 2
"""Version of what we add to torch-brain's fields; in format 1 pictures lay inside the file."""
_MAX_GRID_RATIO = 20  # gaps are stored as NaN: refuse files that would be nearly all gap
_LONGEST_NAME = 100  # pictures are stored in a file that is named after them
_BEHAVIOR = ("running", "pupil")
_DESCRIPTIONS = ("session", "subject", "device", "brainset", "poyo_ssl")
_OTHER_FIELDS = frozenset(
    ("calcium_traces", "rois", "templates", "series", *_BEHAVIOR, *_DESCRIPTIONS)
)
"""Fields of the stored object that are no stimulus."""
_RESERVED_COLUMNS = ("id", "timestamps", "original_row", "domain")
"""Columns of stored objects with a meaning of their own."""


def storage_problems(recording: Recording) -> Iterator[str]:
    """What of a recording torch-brain's form cannot hold, as sentences."""
    if not recording.recording_id or not _is_utf8(recording.recording_id):
        yield (
            "its id must be text (UTF-8, no NUL) and not empty; "
            "dataclasses.replace(recording, recording_id=...) gives it another."
        )
    if recording.num_units == 0:
        yield "it has no units."
    num_timesteps = _grid_index(recording)[-1] + 1  # gaps included
    if num_timesteps > _MAX_GRID_RATIO * recording.num_timesteps:
        yield (
            f"its gaps are {num_timesteps / recording.num_timesteps:.0f} times as long as what was "
            f"recorded (at most {_MAX_GRID_RATIO}); make a recording of each part."
        )
    yield from _column_problems("units", recording.units)
    for name, table in recording.stimuli.items():
        if name in _OTHER_FIELDS or not _is_attribute(name, NAMES_OF_DATA):
            yield f"'{name}' cannot name a stimulus; rename it."
        yield from _column_problems(name, table)
        if np.any(np.diff(table["end"].to_numpy()[_time_order(table)]) < 0):
            yield (
                f"a presentation of '{name}' lies inside another one, which torch-brain cannot "
                "slice; make two stimuli of them."
            )
    for name in recording.templates:
        if not name.isidentifier() or len(name) > _LONGEST_NAME:
            yield f"'{name}' cannot name the pictures of a stimulus; rename it."
    for name, table in recording.series.items():
        if not _is_attribute(name, NAMES_OF_DATA):
            yield f"'{name}' cannot name a series; rename it."
        yield from _column_problems(name, table)
    for name, samples in (("running", recording.running), ("pupil", recording.pupil)):
        if samples is not None and not np.all(np.diff(samples["timestamp"]) >= 0):
            yield f"the timestamps of {name} must be finite and sorted."


def _column_problems(name: str, table: pd.DataFrame) -> Iterator[str]:
    for column in table:
        if not isinstance(column, str):
            yield f"'{column}' cannot name a column of {name}; rename it."
        elif table[column].dtype.kind not in "biuf" and not _is_text(table[column]):
            yield f"column '{column}' of {name} must hold numbers or text (UTF-8, no NUL)."


def _is_attribute(name: object, taken: Collection[str]) -> bool:
    """Whether a torch-brain object can take an attribute of this name and keep those it has."""
    return (
        isinstance(name, str)
        and name.isidentifier()
        and not name.startswith("_")
        and not name.endswith("_domain")
        and name not in taken
    )


def _stored_names(stimulus: str) -> dict[str, str]:
    """Columns of a stimulus that torch-brain calls otherwise: our name to theirs."""
    if stimulus.startswith("natural_movie"):
        return {"movie_frame": "frame"}
    return {"image": "frame"} if stimulus == "natural_scenes" else {}


def write_torch_brain(
    recording: Recording, template_files: Mapping[str, str], file: h5py.Group
) -> None:
    """Writes the recording as a torch-brain object; ``storage_problems`` must have found none.

    Args:
        recording: The recording.
        template_files: Stimulus to the name of the file that holds its pictures.
        file: Empty.
    """
    domain = _write_traces(file.create_group("calcium_traces"), recording)
    columns = _as_columns(recording.units, {"unit_id": "id"})
    write_array_dict(file.create_group("rois"), columns)
    for name, table in recording.stimuli.items():
        _write_stimulus(file.create_group(name), name, table)
    _write_behavior(file, recording)
    if recording.series:
        _write_series(file.create_group("series"), recording.series)
    for name, attributes in _descriptions(recording, template_files).items():
        write_data(file.create_group(name), **attributes)
    write_data(file, domain)


def _descriptions(
    recording: Recording, template_files: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    first = recording.units.iloc[0].to_dict()
    known = {name: value for name, value in first.items() if not pd.isna(value)}
    cre_line = str(known["cre_line"]).replace("-", "_") if "cre_line" in known else None
    tables = {"units": recording.units, **recording.stimuli}
    columns = {name: list(table.columns) for name, table in tables.items()}
    text = {
        name: list(table.columns[[dtype == "object" for dtype in table.dtypes]])
        for name, table in tables.items()
    }
    series = {name: list(samples.columns) for name, samples in recording.series.items()}
    return {
        "brainset": {
            "id": "poyo_ssl",
            "origin_version": "unknown",
            "derived_version": str(FORMAT),
            "source": (Path(recording.source).name if recording.source else "") or "unknown",
            "description": "A two-photon recording stored by poyo-ssl.",
            "torch_brain_version": VERSION,
        },
        "session": {"id": recording.recording_id},
        "subject": {"id": recording.subject_id or "unknown", "cre_line": cre_line},
        "device": {
            "id": recording.recording_id,
            "recording_tech": "TWO_PHOTON_IMAGING",
            "imaging_depth": known.get("imaging_depth_um"),
            "target_area": known.get("area"),
        },
        "poyo_ssl": {
            "format": FORMAT,
            "subject_id": recording.subject_id,
            "container_id": recording.container_id,
            "session_type": recording.session_type,
            "source": recording.source,
            "templates": json.dumps(dict(template_files)),
            "columns": json.dumps(columns),
            "text": json.dumps(text),
            "series": json.dumps(series),
            "warnings": json.dumps(recording.warnings),
        },
    }


def _grid_index(recording: Recording) -> np.ndarray:
    """The place of every sample on torch-brain's regular grid, shape (num_timesteps,).

    Within a segment samples follow one another; a segment begins at the grid's time nearest to
    its first sample, at least one place after the segment before.
    """
    starts, rate = recording.timestamps - recording.timestamps[0], _mean_rate(recording)
    index = np.empty(recording.num_timesteps, dtype=np.int64)
    free = 0
    for first, stop in recording.segments:
        begin = max(free, round(starts[first] * rate))
        index[first:stop] = begin + np.arange(stop - first)
        free = index[stop - 1] + 2
    return index


def _mean_rate(recording: Recording) -> float:
    """Samples per second within segments; unlike the median rate it does not drift."""
    first, stop = recording.segments.T
    seconds = np.sum(recording.timestamps[stop - 1] - recording.timestamps[first])
    intervals = np.sum(stop - 1 - first)
    return float(intervals / seconds) if intervals else recording.sampling_rate


def _write_traces(group: h5py.Group, recording: Recording) -> np.ndarray:
    """Writes ΔF/F and its exact times; returns when there was any, (n, 2), seconds."""
    rate, start = _mean_rate(recording), float(recording.timestamps[0])
    index = _grid_index(recording)
    drift = float(np.max(np.abs(start + index / rate - recording.timestamps)))
    if drift > 1.0 / rate:
        logger.warning(
            "Recording '%s': its timestamps leave torch-brain's regular grid by up to %.3f s. "
            "open_recording gives the exact times; torch-brain's own slices are off by that much.",
            recording.recording_id,
            drift,
        )
    columns = {
        "df_over_f": recording.df_over_f,
        "recorded_at": recording.timestamps.astype(np.float64),
    }
    return write_regular(group, columns, index=index, start=start, sampling_rate=rate)


def _write_stimulus(group: h5py.Group, name: str, table: pd.DataFrame) -> None:
    order = _time_order(table)
    columns = {
        column: values[order] for column, values in _as_columns(table, _stored_names(name)).items()
    }
    columns["start"] = columns["start"].astype(np.float64)
    columns["end"] = columns["end"].astype(np.float64)
    if name == "natural_scenes" and "frame" in columns:
        columns["frame"] = columns["frame"] + 1  # there 0 is blank
    if not np.array_equal(order, np.arange(len(table))):
        columns["original_row"] = order
    columns["timestamps"] = 0.5 * (columns["start"] + columns["end"])
    write_interval(group, columns, timekeys=("timestamps",))


def _as_columns(table: pd.DataFrame, stored_names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The columns under the names that a torch-brain object can hold them by.

    Args:
        table: Columns of numbers and text.
        stored_names: Our name of a column to torch-brain's, where it has one.
    """
    taken = {*_RESERVED_COLUMNS, *NAMES_OF_TABLES, *stored_names.values()}
    columns = {}
    for place, (column, values) in enumerate(table.items()):
        name = str(column)
        if name in stored_names:
            stored = stored_names[name]
        elif name in ("start", "end") or _is_attribute(name, taken):
            stored = name
        else:
            stored = placed_column(place)
        columns[stored] = _as_array(values)
    return columns


def placed_column(place: int) -> str:
    """What a column is stored as whose own name torch-brain cannot take."""
    return f"column_at_{place}"


def _time_order(table: pd.DataFrame) -> np.ndarray:
    """Rows in the order of start, then end: lazy torch-brain objects search it by bisection."""
    return np.lexsort((table["end"], table["start"]))


def _write_series(group: h5py.Group, series: Mapping[str, pd.DataFrame]) -> None:
    spans = []
    for name, samples in series.items():
        columns = _as_columns(samples, {"timestamp": "timestamps"})
        columns["timestamps"] = columns["timestamps"].astype(np.float64)
        write_irregular(group.create_group(name), columns)
        spans.append(columns["timestamps"][[0, -1]])
    write_data(group, np.array([[np.min(spans), np.max(spans)]]))


def _write_behavior(file: h5py.Group, recording: Recording) -> None:
    """Running and pupil, where there are samples of them."""
    running, pupil = recording.running, recording.pupil
    if running is not None and not running.empty:
        columns = {
            "timestamps": running["timestamp"].to_numpy(dtype=np.float64),
            "running_speed": running[["speed"]].to_numpy(),
        }
        write_irregular(file.create_group("running"), columns)
    if pupil is not None and not pupil.empty:
        columns = {
            "timestamps": pupil["timestamp"].to_numpy(dtype=np.float64),
            "location": pupil[["x", "y"]].to_numpy(),
            "size": pupil["size"].to_numpy(),
        }
        write_irregular(file.create_group("pupil"), columns)


def _is_text(values: pd.Series) -> bool:
    return all(_is_utf8(value) if isinstance(value, str) else pd.isna(value) for value in values)


def _is_utf8(text: str) -> bool:
    """Whether HDF5 can hold a text: not NUL, and no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _as_array(values: pd.Series) -> np.ndarray:
    """A column as torch-brain stores it: numbers as they are, text as ASCII or UTF-8.

    ASCII has a fixed length, as only that comes back as text in torch-brain; other text becomes
    HDF5's text of variable length.
    """
    if values.dtype.kind in "biuf":
        return values.to_numpy()
    text = values.astype(object).where(values.notna(), "")
    return text.to_numpy(dtype=str if all(value.isascii() for value in text) else object)
