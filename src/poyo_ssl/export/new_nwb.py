"""A recording as a new NWB session: what a file must say about itself, and the data."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.recordings.recording import Recording, RecordingError

_UNKNOWN = "unknown"
_SOMEWHERE = "root"
"""The Allen atlas's word for the whole brain, where nobody said more."""
_IS_REGULAR = 1e-3
"""Samples within this part of a period of a steady rate are written as a rate."""


def new_session(
    recording: Recording, session_start_time: datetime | None, subject: Mapping[str, str]
) -> tuple[Any, Any]:
    """An NWB session of a recording, and its table of ROIs.

    Args:
        recording: What becomes of it: ΔF/F and a table of ROIs, in the processing module
            ``ophys``; running speed, pupil and other time series in ``behavior``; every stimulus
            as a table of intervals.
        session_start_time: When the session began; without time zone it counts as UTC.
        subject: Fields of NWB's ``Subject``. Without any, the file has no subject, which NWB's
            inspector minds less than one without age, sex and species.

    Raises:
        RecordingError: If ``session_start_time`` is not given, or NWB has no such field of a
            subject, or not in this form.
    """
    from pynwb import NWBFile

    if session_start_time is None:
        raise RecordingError(
            f"Recording '{recording.recording_id}' was not read from an NWB 2 file, and a new one "
            "must say when the session began. Give session_start_time, such as 2026-05-04T10:30."
        )
    if session_start_time.tzinfo is None:
        session_start_time = session_start_time.replace(tzinfo=UTC)
    session = NWBFile(
        session_description=f"Two-photon calcium imaging session '{recording.recording_id}'.",
        identifier=str(uuid.uuid4()),
        session_start_time=session_start_time,
        session_id=recording.recording_id,
        notes=f"Subject: {recording.subject_id}" if recording.subject_id else None,
    )
    if subject:
        session.subject = _subject({"subject_id": recording.subject_id, **subject})
    segmentation = _add_traces(session, recording)
    _add_series(session, recording)
    for name, table in recording.stimuli.items():
        session.add_time_intervals(_intervals(name, table))
    return session, segmentation


def _subject(fields: Mapping[str, Any]) -> Any:
    from pynwb.file import Subject

    try:
        return Subject(**fields)
    except (TypeError, ValueError) as error:
        raise RecordingError(
            f"NWB does not take this subject ({error}). Its fields are species, sex, age, "
            "genotype, strain, weight, description, subject_id and date_of_birth."
        ) from error


def _add_traces(session: Any, recording: Recording) -> Any:
    """Adds ΔF/F and the table of ROIs, which is returned."""
    from hdmf.backends.hdf5 import H5DataIO
    from hdmf.common import VectorData
    from pynwb.ophys import DfOverF, ImageSegmentation, PlaneSegmentation, RoiResponseSeries

    segmentation = PlaneSegmentation(
        name="PlaneSegmentation",
        description="Imaged cells; their places are not known.",
        imaging_plane=_imaging_plane(session, recording),
        columns=[
            VectorData(  # NWB cannot be without a mask
                name="image_mask",
                description="One pixel that is no part of the cell: its place is not known.",
                data=np.zeros((recording.num_units, 1, 1), dtype=np.float32),
            ),
            *(
                VectorData(name=name, description=f"{name} of the cell.", data=values)
                for name, values in _unit_columns(recording.units).items()
            ),
        ],
    )
    module = session.create_processing_module(name="ophys", description="Processed activity.")
    module.add(ImageSegmentation(plane_segmentations=segmentation))
    rois = segmentation.create_roi_table_region(
        region=list(range(recording.num_units)), description="All cells."
    )
    series = RoiResponseSeries(
        name="RoiResponseSeries",
        description="ΔF/F.",
        data=H5DataIO(recording.df_over_f, compression="gzip"),
        unit="n.a.",
        rois=rois,
        **_times(recording.timestamps),
    )
    module.add(DfOverF(roi_response_series=series))
    return segmentation


def _imaging_plane(session: Any, recording: Recording) -> Any:
    from pynwb.ophys import OpticalChannel

    area, depth = (
        recording.units[name].dropna() if name in recording.units else pd.Series(dtype=object)
        for name in ("area", "imaging_depth_um")
    )
    microscope = session.create_device(name="Microscope", description="Two-photon microscope.")
    return session.create_imaging_plane(
        name="ImagingPlane",
        description=f"Imaged at a depth of {depth.iloc[0]:g} µm."
        if len(depth)
        else "Not described.",
        optical_channel=OpticalChannel(
            name="OpticalChannel", description="Emission.", emission_lambda=np.nan
        ),
        device=microscope,
        excitation_lambda=np.nan,
        indicator=_UNKNOWN,
        location=str(area.iloc[0]) if len(area) else _SOMEWHERE,
        imaging_rate=recording.sampling_rate,
    )


def _unit_columns(units: pd.DataFrame) -> dict[str, Any]:
    """What is known of the units, without columns of which nothing is."""
    known = units.dropna(axis="columns", how="all")
    return {_name(name): _column(known[name]) for name in known}


def _add_series(session: Any, recording: Recording) -> None:
    from pynwb import TimeSeries
    from pynwb.behavior import BehavioralTimeSeries

    if not recording.time_series:
        return
    series = []
    for name, table in recording.time_series.items():
        values = table.drop(columns="timestamp")
        is_running = table is recording.running
        series.append(
            TimeSeries(
                name="running_speed" if is_running else _name(name),
                description=f"Columns: {', '.join(map(str, values))}.",
                data=values.to_numpy(np.float64).squeeze(axis=1)
                if values.shape[1] == 1
                else values.to_numpy(np.float64),
                unit="cm/s" if is_running else "n.a.",
                **_times(table["timestamp"].to_numpy()),
            )
        )
    module = session.create_processing_module(name="behavior", description="Behaviour.")
    module.add(BehavioralTimeSeries(time_series=series))


def _intervals(name: str, table: pd.DataFrame) -> Any:
    from hdmf.common import VectorData
    from pynwb.epoch import TimeIntervals

    columns = {"start_time": table["start"], "stop_time": table["end"]}
    columns |= {str(own): table[own] for own in table if own not in ("start", "end")}
    return TimeIntervals(
        name=_name(name),
        description=f"Presentations of {name}.",
        columns=[
            VectorData(name=_name(own), description=f"{own} of the presentation.", data=_column(c))
            for own, c in columns.items()
        ],
    )


def _times(timestamps: np.ndarray) -> dict[str, Any]:
    """A steady rate where it is one, else the time of every sample."""
    rate = (len(timestamps) - 1) / (timestamps[-1] - timestamps[0]) if len(timestamps) > 1 else 1.0
    steady = timestamps[0] + np.arange(len(timestamps)) / rate
    if len(timestamps) > 1 and np.abs(timestamps - steady).max() < _IS_REGULAR / rate:
        return {"rate": float(rate), "starting_time": float(timestamps[0])}
    return {"timestamps": timestamps}


def _column(values: pd.Series) -> Any:
    """Numbers as an array; text as a list, empty where missing."""
    if values.dtype.kind in "biuf":
        return values.to_numpy()
    return ["" if pd.isna(value) else str(value) for value in values]


def _name(text: object) -> str:
    """A name without the two marks that NWB gives a meaning of their own."""
    return re.sub(r"[/:]", "_", str(text))
