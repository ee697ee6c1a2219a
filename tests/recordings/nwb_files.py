"""Tiny NWB files in the layout of DANDI:000728, written with pynwb."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.base import Images
from pynwb.behavior import BehavioralTimeSeries, EyeTracking, PupilTracking, SpatialSeries
from pynwb.device import Device
from pynwb.epoch import TimeIntervals
from pynwb.file import Subject
from pynwb.image import GrayscaleImage, IndexSeries
from pynwb.ophys import (
    DfOverF,
    Fluorescence,
    ImageSegmentation,
    OpticalChannel,
    PlaneSegmentation,
    RoiResponseSeries,
)

NUM_TIMESTEPS, NUM_UNITS, RATE = 300, 4, 30.0
GLOBAL_ROI_IDS = np.arange(NUM_UNITS) + 7001
BLANK = np.iinfo(np.uint32).max  # -1 cast to the type of an index series


def traces(seed: int = 0, num_units: int = NUM_UNITS) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(NUM_TIMESTEPS, num_units)).astype(np.float32)


def imaging_times() -> np.ndarray:
    return 10.0 + np.arange(NUM_TIMESTEPS) / RATE


def new_session(session_id: str | None = "11-StimA", container_id: str | None = "99") -> NWBFile:
    """A session with metadata, but no traces and no stimuli."""
    notes = f"Container ID: {container_id}\nSession type: three_session_A" if container_id else None
    session = NWBFile(
        session_description="test",
        identifier="test",
        session_start_time=datetime(2016, 7, 1, tzinfo=UTC),
        session_id=session_id,
        notes=notes,
    )
    session.subject = Subject(
        subject_id="222",
        genotype="Cux2-CreERT2/wt;Camk2a-tTA/wt;Ai93(TITL-GCaMP6f)/wt",
        species="Mus musculus",
        sex="M",
        age="P100D",
    )
    return session


def add_traces(
    session: NWBFile,
    df_over_f: np.ndarray,
    *,
    link_timestamps: bool = False,
    rate: float | None = None,
    with_events: bool = False,
    global_roi_ids: np.ndarray = GLOBAL_ROI_IDS,
    name: str = "DfOverF",
) -> None:
    """ΔF/F of some ROIs of one plane, as 000728 stores it."""
    with warnings.catch_warnings():
        # pynwb compares the ROIs' owners before the series can have one
        warnings.filterwarnings("ignore", message="The linked table for DynamicTableRegion")
        rois = _add_rois(session, global_roi_ids)
        module = session.processing["ophys"]
        times = (
            {"timestamps": imaging_times()}
            if rate is None
            else {"rate": rate, "starting_time": 5.0}
        )
        if link_timestamps:
            corrected = RoiResponseSeries(
                name="Corrected", data=df_over_f + 1, unit="n.a.", rois=rois, **times
            )
            module.add(Fluorescence(roi_response_series=corrected))
            times = {"timestamps": corrected}
        series = [RoiResponseSeries(name=name, data=df_over_f, unit="a.u.", rois=rois, **times)]
        if with_events:
            events = RoiResponseSeries(
                name="DfOverFEvents", data=df_over_f, unit="a.u.", rois=rois, **times
            )
            series.append(events)
        module.add(DfOverF(roi_response_series=series))


def _add_rois(session: NWBFile, global_roi_ids: np.ndarray):
    microscope = session.add_device(Device(name="Microscope"))
    plane = session.create_imaging_plane(
        name="ImagingPlane",
        optical_channel=OpticalChannel(
            name="OpticalChannel", description="emission", emission_lambda=510.0
        ),
        description="The imaging plane sampled at a depth of 275 µm.",
        device=microscope,
        excitation_lambda=910.0,
        indicator="GCaMP6f",
        location="VISp",
    )
    module = session.create_processing_module(name="ophys", description="processed")
    table = PlaneSegmentation(name="PlaneSegmentation", description="ROIs", imaging_plane=plane)
    table.add_column("global_roi_id", "the same cell has the same number in all sessions")
    for place, global_roi_id in enumerate(global_roi_ids):
        table.add_roi(pixel_mask=[(0, 0, 1.0)], id=place + 50, global_roi_id=int(global_roi_id))
    module.add(ImageSegmentation(plane_segmentations=table))
    return table.create_roi_table_region(
        region=list(range(len(global_roi_ids))), description="all ROIs"
    )


def add_gratings(session: NWBFile, *, static: bool = False) -> None:
    """Three presentations; the second is a blank sweep."""
    name = "static_gratings" if static else "drifting_gratings"
    table = TimeIntervals(name=name, description=name)
    extra = "phase" if static else "temporal_frequency_in_hz"
    for column in ("orientation_in_degrees", "spatial_frequency_in_cycles_per_degree", extra):
        table.add_column(column, column)
    table.add_column("is_blank_sweep", "grey")
    for start, orientation in [(11.0, 45.0), (14.0, np.nan), (17.0, 90.0)]:
        table.add_row(
            start_time=start,
            stop_time=start + 2.0,
            orientation_in_degrees=orientation,
            spatial_frequency_in_cycles_per_degree=0.04,
            is_blank_sweep=bool(np.isnan(orientation)),
            **{extra: 0.25 if static else 8.0},
        )
    session.add_stimulus(table)


def add_spontaneous(session: NWBFile) -> None:
    table = TimeIntervals(name="spontaneous_stimulus", description="grey screen")
    table.add_row(start_time=12.0, stop_time=13.5)
    session.add_stimulus(table)


def add_movie(path: Path, shown: np.ndarray, onsets: np.ndarray, pictures: np.ndarray) -> Path:
    """Adds natural movie one to a written file: pynwb no longer writes 000728's kind of link."""
    with h5py.File(path, "r+") as file:
        file["stimulus/templates/natural_movie_one/data"] = pictures
        series = file.create_group("stimulus/presentation/natural_movie_one_stimulus")
        series.attrs["neurodata_type"] = "IndexSeries"
        series["data"] = shown.astype(np.uint32)
        series["timestamps"] = onsets
        series["indexed_timeseries"] = h5py.SoftLink("/stimulus/templates/natural_movie_one")
    return path


def add_scenes(
    session: NWBFile, shown: np.ndarray, onsets: np.ndarray, pictures: np.ndarray
) -> None:
    template = Images(
        name="natural_scenes_template",
        description="scenes",
        images=[
            GrayscaleImage(name=f"NaturalScene{place}", data=picture)
            for place, picture in enumerate(pictures)
        ],
    )
    session.add_stimulus_template(template)
    session.add_stimulus(
        IndexSeries(
            name="natural_scenes_stimulus",
            data=shown.astype(np.uint32),
            indexed_images=template,
            unit="N/A",
            timestamps=onsets,
        )
    )


def add_behavior(session: NWBFile) -> None:
    module = session.create_processing_module(name="behavior", description="processed")
    times = 10.0 + np.arange(5) * 0.1
    running = TimeSeries(name="running_speed", data=np.arange(5.0), unit="cm/s", timestamps=times)
    location = SpatialSeries(
        name="pupil_location",
        data=np.arange(10.0).reshape(5, 2),
        unit="m",
        reference_frame="centre of the monitor",
        timestamps=times,
    )
    size = TimeSeries(
        name="pupil_size", data=np.array([3.0, np.nan, 3.2, 3.1, 3.0]), unit="px", timestamps=times
    )
    module.add(BehavioralTimeSeries(time_series=running))
    module.add(EyeTracking(spatial_series=location))
    module.add(PupilTracking(time_series=size))


def write(session: NWBFile, path: Path) -> Path:
    """The file at ``path``, after the session was written to it."""
    with NWBHDF5IO(path, "w") as io:
        io.write(session)
    return path


def write_simple(
    path: Path, *, session_id: str | None = "11-StimA", container_id: str | None = "99"
) -> Path:
    """A readable session with drifting gratings."""
    session = new_session(session_id, container_id)
    add_traces(session, traces())
    add_gratings(session)
    return write(session, path)
