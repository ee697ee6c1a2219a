"""Tiny NWB files in the layouts of DANDI:000728, of other labs, and of the AllenSDK cache."""

from __future__ import annotations

import dataclasses
import warnings
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
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

from poyo_ssl.recordings.recording import Recording

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
    plane = _add_plane(session)
    module = session.create_processing_module(name="ophys", description="processed")
    table = PlaneSegmentation(name="PlaneSegmentation", description="ROIs", imaging_plane=plane)
    table.add_column("global_roi_id", "the same cell has the same number in all sessions")
    for place, global_roi_id in enumerate(global_roi_ids):
        table.add_roi(pixel_mask=[(0, 0, 1.0)], id=place + 50, global_roi_id=int(global_roi_id))
    module.add(ImageSegmentation(plane_segmentations=table))
    return table.create_roi_table_region(
        region=list(range(len(global_roi_ids))), description="all ROIs"
    )


def _add_plane(session: NWBFile):
    microscope = session.add_device(Device(name="Microscope"))
    return session.create_imaging_plane(
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
    session: NWBFile,
    shown: np.ndarray,
    onsets: np.ndarray,
    pictures: np.ndarray,
    name: str = "natural_scenes",
) -> None:
    template = Images(
        name=f"{name}_template",
        description="scenes",
        images=[
            GrayscaleImage(name=f"NaturalScene{place}", data=picture)
            for place, picture in enumerate(pictures)
        ],
    )
    session.add_stimulus_template(template)
    session.add_stimulus(
        IndexSeries(
            name=f"{name}_stimulus",
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
        io.write(session, cache_spec=False)
    return path


def add_fluorescence(session: NWBFile, series: dict[str, np.ndarray], interface: str) -> None:
    """Fluorescence of named series without a table of ROIs' global ids, as other labs store it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The linked table for DynamicTableRegion")
        if "ophys" in session.processing:
            table = session.processing["ophys"]["ImageSegmentation"]["PlaneSegmentation"]
        else:
            module = session.create_processing_module(name="ophys", description="processed")
            table = PlaneSegmentation(
                name="PlaneSegmentation", description="ROIs", imaging_plane=_add_plane(session)
            )
            for _ in range(NUM_UNITS):
                table.add_roi(pixel_mask=[(0, 0, 1.0)])
            module.add(ImageSegmentation(plane_segmentations=table))
        rois = table.create_roi_table_region(region=list(range(NUM_UNITS)), description="all ROIs")
        responses = [
            RoiResponseSeries(
                name=name, data=values, unit="n.a.", rois=rois, rate=RATE, starting_time=10.0
            )
            for name, values in series.items()
        ]
        session.processing["ophys"].add(Fluorescence(name=interface, roi_response_series=responses))


def write_simple(
    path: Path, *, session_id: str | None = "11-StimA", container_id: str | None = "99"
) -> Path:
    """A readable session with drifting gratings."""
    session = new_session(session_id, container_id)
    add_traces(session, traces())
    add_gratings(session)
    return write(session, path)


def write_nwb1(path: Path, df_over_f: np.ndarray) -> Path:
    """A session of the AllenSDK cache without stimuli; the same one as :func:`write_simple`'s."""
    with h5py.File(path, "w") as file:
        file["nwb_version"] = b"NWB-1.0.6"
        general = file.create_group("general")
        for name, value in [
            ("ophys_experiment_id", b"11"),
            ("session_id", b"11"),
            ("experiment_container_id", b"99"),
            ("session_type", b"three_session_A"),
            ("subject/subject_id", b"222"),
            ("subject/genotype", b"Cux2-CreERT2/wt;Camk2a-tTA/wt;Ai93(TITL-GCaMP6f)/wt"),
            ("optophysiology/imaging_plane_1/location", b"VISp"),
            ("optophysiology/imaging_plane_1/imaging depth", b"275 microns"),
        ]:
            general[name] = value
        pipeline = file.create_group("processing/brain_observatory_pipeline")
        pipeline["DfOverF/imaging_plane_1/data"] = df_over_f.T
        pipeline["DfOverF/imaging_plane_1/timestamps"] = imaging_times()
        pipeline["ImageSegmentation/cell_specimen_ids"] = GLOBAL_ROI_IDS
        pipeline["ImageSegmentation/roi_ids"] = [f"{50 + i}".encode() for i in range(NUM_UNITS)]
    return path


def add_nwb1_stimulus(
    path: Path, name: str, data: np.ndarray, frames: list[tuple[int, int]], **more: object
) -> None:
    """A stimulus with its first and last imaging frames, as the AllenSDK cache stores it."""
    with h5py.File(path, "r+") as file:
        group = file.create_group(f"stimulus/presentation/{name}_stimulus")
        group["data"] = data
        group["frame_duration"] = np.array(frames)
        group["timestamps"] = imaging_times()[np.array(frames)[:, 0]]
        for key, value in more.items():
            group[key] = value


def add_nwb1_template(path: Path, name: str, pictures: np.ndarray) -> None:
    with h5py.File(path, "r+") as file:
        file[f"stimulus/templates/{name}_image_stack/data"] = pictures


def add_nwb1_behavior(path: Path) -> None:
    """The same as :func:`add_behavior`."""
    times = 10.0 + np.arange(5) * 0.1
    with h5py.File(path, "r+") as file:
        pipeline = file["processing/brain_observatory_pipeline"]
        for name, values in [
            (
                "BehavioralTimeSeries/running_speed",
                np.arange(5.0)[:, None],
            ),  # as version 0.9 had it
            ("EyeTracking/pupil_location", np.arange(10.0).reshape(5, 2)),
            ("PupilTracking/pupil_size", np.array([3.0, np.nan, 3.2, 3.1, 3.0])),
        ]:
            pipeline[f"{name}/data"] = values
            pipeline[f"{name}/timestamps"] = times


def assert_same_recording(recording: Recording, expected: Recording) -> None:
    """Equality of everything but the source."""
    for field in dataclasses.fields(Recording):
        ours, theirs = getattr(recording, field.name), getattr(expected, field.name)
        if field.name in ("stimuli", "templates"):
            assert ours.keys() == theirs.keys(), field.name
            for name in theirs:
                _assert_same(ours[name], theirs[name], name)
        elif field.name != "source":
            _assert_same(ours, theirs, field.name)


def _assert_same(ours, theirs, what: str) -> None:
    if isinstance(theirs, pd.DataFrame):
        pd.testing.assert_frame_equal(ours, theirs, obj=what, rtol=0, atol=1e-9)
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs, err_msg=what)
    else:
        assert ours == theirs, what
