"""A recording as a ``torch_brain.data.Data`` object, the form in which recordings are stored.

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
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from torch_brain.data import (
    ArrayDict,
    BrainsetDescription,
    Data,
    DeviceDescription,
    Interval,
    IrregularTimeSeries,
    RegularTimeSeries,
    SessionDescription,
    SubjectDescription,
)

from poyo_ssl.recordings.recording import Recording

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
        if name in _OTHER_FIELDS or not _is_attribute(name, Data):
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
        if not _is_attribute(name, Data):
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


def _is_attribute(name: object, container: type) -> bool:
    """Whether a torch-brain object can take an attribute of this name and keep its own."""
    return (
        isinstance(name, str)
        and name.isidentifier()
        and not name.startswith("_")
        and not name.endswith("_domain")
        and not hasattr(container, name)
    )


def _stored_names(stimulus: str) -> dict[str, str]:
    """Columns of a stimulus that torch-brain calls otherwise: our name to theirs."""
    if stimulus.startswith("natural_movie"):
        return {"movie_frame": "frame"}
    return {"image": "frame"} if stimulus == "natural_scenes" else {}


def as_torch_brain(recording: Recording, template_files: Mapping[str, str]) -> Data:
    """The recording as a torch-brain object; ``storage_problems`` must have found none.

    Args:
        recording: The recording.
        template_files: Stimulus to the name of the file that holds its pictures.
    """
    traces = _as_regular_time_series(recording)
    optional = {"running": _as_running(recording), "pupil": _as_pupil(recording)}
    return Data(
        domain=traces.domain,
        calcium_traces=traces,
        rois=ArrayDict(**_as_columns(recording.units, ArrayDict, {"unit_id": "id"})),
        **{name: _as_interval(name, table) for name, table in recording.stimuli.items()},
        **{name: samples for name, samples in optional.items() if samples is not None},
        **_as_series(recording.series),
        **_descriptions(recording, template_files),
    )


def _descriptions(recording: Recording, template_files: Mapping[str, str]) -> dict[str, Data]:
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
        "brainset": BrainsetDescription(
            id="poyo_ssl",
            origin_version="unknown",
            derived_version=str(FORMAT),
            source=Path(recording.source).name if recording.source else "unknown",
            description="A two-photon recording stored by poyo-ssl.",
        ),
        "session": SessionDescription(id=recording.recording_id),
        "subject": SubjectDescription(id=recording.subject_id or "unknown", cre_line=cre_line),
        "device": DeviceDescription(
            id=recording.recording_id,
            recording_tech="TWO_PHOTON_IMAGING",
            imaging_depth=known.get("imaging_depth_um"),
            target_area=known.get("area"),
        ),
        "poyo_ssl": Data(
            format=FORMAT,
            subject_id=recording.subject_id,
            container_id=recording.container_id,
            session_type=recording.session_type,
            source=recording.source,
            templates=json.dumps(dict(template_files)),
            columns=json.dumps(columns),
            text=json.dumps(text),
            series=json.dumps(series),
            warnings=json.dumps(recording.warnings),
        ),
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


def _as_regular_time_series(recording: Recording) -> RegularTimeSeries:
    rate = _mean_rate(recording)
    index = _grid_index(recording)
    grid_times = recording.timestamps[0] + index / rate
    drift = float(np.max(np.abs(grid_times - recording.timestamps)))
    if drift > 1.0 / rate:
        logger.warning(
            "Recording '%s': its timestamps leave torch-brain's regular grid by up to %.3f s. "
            "open_recording gives the exact times; torch-brain's own slices are off by that much.",
            recording.recording_id,
            drift,
        )
    return RegularTimeSeries.from_gappy_timeseries(
        timestamps=grid_times,
        sampling_rate=rate,
        df_over_f=recording.df_over_f,
        recorded_at=recording.timestamps.astype(np.float64),
    )


def _as_interval(name: str, table: pd.DataFrame) -> Interval:
    order = _time_order(table)
    columns = {
        column: values[order]
        for column, values in _as_columns(table, Interval, _stored_names(name)).items()
    }
    columns["start"] = columns["start"].astype(np.float64)
    columns["end"] = columns["end"].astype(np.float64)
    if name == "natural_scenes" and "frame" in columns:
        columns["frame"] = columns["frame"] + 1  # there 0 is blank
    if not np.array_equal(order, np.arange(len(table))):
        columns["original_row"] = order
    return Interval(
        **columns,
        timestamps=0.5 * (columns["start"] + columns["end"]),
        timekeys=["start", "end", "timestamps"],
    )


def _as_columns(
    table: pd.DataFrame, container: type, stored_names: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """The columns under the names that a torch-brain object can hold them by.

    Args:
        table: Columns of numbers and text.
        container: The kind of torch-brain object.
        stored_names: Our name of a column to torch-brain's, where it has one.
    """
    taken = {*_RESERVED_COLUMNS, *stored_names.values()}
    columns = {}
    for place, (column, values) in enumerate(table.items()):
        name = str(column)
        if name in stored_names:
            stored = stored_names[name]
        elif name in ("start", "end") or (name not in taken and _is_attribute(name, container)):
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


def _as_series(series: Mapping[str, pd.DataFrame]) -> dict[str, Data]:
    """The field ``series``, where there are any."""
    if not series:
        return {}
    stored = {}
    for name, samples in series.items():
        columns = _as_columns(samples, IrregularTimeSeries, {"timestamp": "timestamps"})
        columns["timestamps"] = columns["timestamps"].astype(np.float64)
        stored[name] = IrregularTimeSeries(**columns, domain="auto")
    return {"series": Data(**stored, domain="auto")}


def _as_running(recording: Recording) -> IrregularTimeSeries | None:
    running = recording.running
    if running is None or running.empty:
        return None
    return IrregularTimeSeries(
        timestamps=running["timestamp"].to_numpy(dtype=np.float64),
        running_speed=running[["speed"]].to_numpy(),
    )


def _as_pupil(recording: Recording) -> IrregularTimeSeries | None:
    pupil = recording.pupil
    if pupil is None or pupil.empty:
        return None
    return IrregularTimeSeries(
        timestamps=pupil["timestamp"].to_numpy(dtype=np.float64),
        location=pupil[["x", "y"]].to_numpy(),
        size=pupil["size"].to_numpy(),
    )


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
