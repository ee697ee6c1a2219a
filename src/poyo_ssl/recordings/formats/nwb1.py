"""NWB 1 files of the AllenSDK cache of the Allen Brain Observatory, as recordings.

The files are read by h5py alone: AllenSDK is in maintenance and holds numpy back, and pynwb reads
NWB 2 only. DANDI:000728 holds the same sessions as NWB 2; both give the same recording, but that
the end of a grating is a timestep here and 2 s or 0.25 s after its start there.
"""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from poyo_ssl.recordings.formats.format import Format
from poyo_ssl.recordings.formats.nwb import (
    depth_um,
    nwb_version,
    read_cre_line,
    read_pupil,
    read_running,
)
from poyo_ssl.recordings.formats.nwb_stimuli import (
    IMAGES,
    MOVIES,
    index_table,
    read_mapped_stimuli,
    read_pictures,
    refuse_backward_rows,
    refuse_unknown_pictures,
)
from poyo_ssl.recordings.formats.nwb_traces import read_imaging_times
from poyo_ssl.recordings.formats.stimulus_tables import keep_imaged
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.recordings.untrusted_files.hdf5 import (
    as_text,
    has_dataset,
    open_hdf5,
    read_numbers,
    read_text,
)

logger = logging.getLogger(__name__)

_DEFAULT_SOURCE = SourceConfig()
_PIPELINE = "processing/brain_observatory_pipeline"
_GRATINGS = {
    "drifting_gratings": ("orientation", "temporal_frequency", "spatial_frequency"),
    "static_gratings": ("orientation", "spatial_frequency", "phase"),
}
"""Stimulus to its columns in a ``Recording``."""
_FEATURES: dict[str, tuple[str, ...]] = {
    "drifting_gratings": ("temporal_frequency", "orientation", "blank_sweep"),
    "static_gratings": ("orientation", "spatial_frequency", "phase"),
}
"""Stimulus to the columns of its data, where the file does not name them."""
_DRIFTING_SPATIAL_FREQUENCY = 0.04
"""Cycles per degree of all drifting gratings (de Vries et al. 2020); the files do not say it."""


def read_nwb1(path: str | Path, source: SourceConfig = _DEFAULT_SOURCE) -> Recording:
    """Reads the ΔF/F, units, stimuli and behaviour of one session.

    What is not ΔF/F may be missing; the log (level INFO) says what is.

    - ``recording_id`` is the experiment with the session type's letter, as DANDI:000728 has it:
      ``527745328-StimA``; without them the file's name.
    - ``unit_id`` is ``<container>/<cell_specimen_id>``, the cell's identity across the sessions
      of its container; where the file lacks either, ``<recording_id>/<roi id>``.
    - Stimuli start at their stored timestamps, or else with their first imaging frame. Gratings
      end with their last imaging frame; a picture lasts until the next onset.
    - Rows whose imaging frames are not those of the traces are left out, with a warning.

    Args:
        path: A file of the AllenSDK cache.
        source: Where stimuli of the user's own are listed.

    Raises:
        RecordingError: If the file is not a readable NWB 1 file of the Allen Brain Observatory.

    References:
        The layout as ``allensdk.core.brain_observatory_nwb_data_set`` reads it.
    """
    with open_hdf5(path) as file:
        return recording_from_nwb1(file, source)


def recording_from_nwb1(file: h5py.File, source: SourceConfig = _DEFAULT_SOURCE) -> Recording:
    """Reads an open NWB 1 file that ``open_hdf5`` has checked; see :func:`read_nwb1`."""
    df_over_f, timestamps = _read_traces(file)
    container_id = read_text(file, "general/experiment_container_id")
    session_type = read_text(file, "general/session_type")
    recording_id = _recording_id(file, session_type)
    stimuli = _read_stimuli(file, timestamps, source)
    templates = _read_templates(file) if source.nwb.with_templates else {}
    refuse_unknown_pictures(stimuli, templates, file.filename)
    return Recording(
        recording_id=recording_id,
        df_over_f=df_over_f,
        timestamps=timestamps,
        units=_read_units(file, df_over_f.shape[1], recording_id, container_id),
        stimuli=stimuli,
        templates=templates,
        running=read_running(file, _PIPELINE),
        pupil=read_pupil(file, _PIPELINE),
        subject_id=read_text(file, "general/subject/subject_id"),
        container_id=container_id,
        session_type=session_type,
        source=file.filename,
    )


def is_nwb1(file: h5py.File) -> bool:
    """Whether an open HDF5 file is NWB 1: it says so, or holds the Allen Institute's pipeline."""
    version = nwb_version(file)
    return version.startswith("1") if version else _PIPELINE in file


def _read_traces(file: h5py.File) -> tuple[np.ndarray, np.ndarray]:
    """ΔF/F as float32 (num_timesteps, num_units) and the timestamps in seconds."""
    where = f"{_PIPELINE}/DfOverF/imaging_plane_1"
    group = file.get(where)
    if not (isinstance(group, h5py.Group) and has_dataset(group, "data")):
        modules = file.get("processing", {})
        found = ", ".join(file.get(_PIPELINE, modules)) or "nothing"
        raise RecordingError(
            f"'{file.filename}' has no {where}/data (found in its processing: {found}). Only "
            "NWB 1 files of the Allen Brain Observatory are read; convert others to NWB 2."
        )
    stored = group["data"]
    timestamps = read_imaging_times(group, stored.shape[-1])
    cells = _cell_ids(file)
    by_roi = (len(cells) if cells else stored.shape[0], len(timestamps))
    if stored.shape not in (by_roi, by_roi[::-1]):
        raise RecordingError(
            f"'{file.filename}': {where}/data has shape {stored.shape}, but the file lists "
            f"{len(cells) if cells else 'no'} cells and {len(timestamps)} timestamps. It is "
            "damaged; download it again."
        )
    traces = read_numbers(stored, np.float32)
    if stored.shape == by_roi:
        return np.ascontiguousarray(traces.T), timestamps
    logger.warning("%s: %s is time x ROIs, unlike in other NWB 1 files.", file.filename, where)
    return traces, timestamps


def _cell_ids(file: h5py.File) -> list[str] | None:
    """The identity of every cell across sessions, in the order of the traces."""
    path = f"{_PIPELINE}/ImageSegmentation/cell_specimen_ids"
    return [as_text(cell) for cell in file[path][()]] if has_dataset(file, path) else None


def _recording_id(file: h5py.File, session_type: str | None) -> str:
    experiment = read_text(file, "general/ophys_experiment_id")
    experiment = experiment or read_text(file, "general/session_id")
    if experiment and session_type:
        return f"{experiment}-Stim{session_type.rpartition('_')[2]}"
    return experiment or Path(file.filename).stem


def _read_units(
    file: h5py.File, num_units: int, recording_id: str, container_id: str | None
) -> pd.DataFrame:
    cells = _cell_ids(file)
    rois = f"{_PIPELINE}/ImageSegmentation/roi_ids"
    if cells and container_id:
        unit_ids = [f"{container_id}/{cell}" for cell in cells]
    else:
        logger.info("%s: cells are not matched across sessions.", file.filename)
        names = file[rois][()] if has_dataset(file, rois) else range(num_units)
        unit_ids = [f"{recording_id}/{as_text(name)}" for name in names]
    if len(unit_ids) != num_units:
        raise RecordingError(
            f"'{file.filename}' has traces of {num_units} units but lists {len(unit_ids)} ids. "
            "It is damaged; download it again."
        )
    plane = "general/optophysiology/imaging_plane_1"
    return pd.DataFrame(
        {
            "unit_id": unit_ids,
            "cre_line": read_cre_line(file),
            "area": read_text(file, f"{plane}/location"),
            "imaging_depth_um": depth_um(read_text(file, f"{plane}/imaging depth")),
        }
    )


def _read_stimuli(
    file: h5py.File, timestamps: np.ndarray, source: SourceConfig
) -> dict[str, pd.DataFrame]:
    """The tables as documented in ``Recording.stimuli``."""
    imaged = (float(timestamps[0]), float(timestamps[-1]))
    tables = {}
    for key, group in file.get("stimulus/presentation", {}).items():
        name = key.removesuffix("_stimulus")
        table = None if name in source.stimuli else _read_table(name, group, timestamps)
        if table is not None:
            table = keep_imaged(table, imaged, f"{file.filename}: {name}")
            if len(table):
                tables[name] = table
    tables |= read_mapped_stimuli(file, imaged, source.stimuli)
    if not tables:
        logger.info("%s: no stimulus table that could be read.", file.filename)
    return tables


def _read_table(name: str, group: h5py.Group, timestamps: np.ndarray) -> pd.DataFrame | None:
    if name not in (*_GRATINGS, *MOVIES, *IMAGES, "spontaneous"):
        logger.info("%s: stimulus '%s' is not read.", group.file.filename, name)
        return None
    stored = read_numbers(group["data"])
    start, end = _read_times(group, len(stored), timestamps)
    if name in _GRATINGS:
        table = _read_gratings(name, group, stored)
        table.insert(0, "start", start)
        table.insert(1, "end", end)
        refuse_backward_rows(table, f"'{group.file.filename}': {group.name}")
        return table
    if name == "spontaneous":  # pairs of rows: 1 where it begins, -1 where it ends
        stored = stored.ravel()
        return pd.DataFrame({"start": start[stored == 1], "end": start[stored == -1]})
    return index_table(name, stored.ravel(), start)


def _read_times(
    group: h5py.Group, num_presentations: int, timestamps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of presentations in seconds; NaN where their imaging frame does not exist.

    ``frame_duration`` holds the first and the last imaging frame of each, not seconds.
    """
    period = float(np.median(np.diff(timestamps)))
    edges = np.append(timestamps, timestamps[-1] + period)  # the last may end with the recording
    times = np.full((num_presentations, 2), np.nan)
    if has_dataset(group, "frame_duration"):
        frames = read_numbers(group["frame_duration"])
        exists = (frames >= 0) & (frames < len(edges))
        times[exists] = edges[frames[exists].astype(np.int64)]
    start, end = times.T
    if has_dataset(group, "timestamps") and group["timestamps"].shape == start.shape:
        start = read_numbers(group["timestamps"])
    return start, end


def _read_gratings(name: str, group: h5py.Group, stored: np.ndarray) -> pd.DataFrame:
    """Parameters of gratings; those of blank sweeps are NaN."""
    features = _FEATURES[name]
    if has_dataset(group, "features"):
        features = tuple(as_text(feature).lower() for feature in group["features"][()])
    if (
        stored.ndim != 2
        or stored.shape[1] != len(features)
        or not set(_FEATURES[name]) <= set(features)
    ):
        raise RecordingError(
            f"'{group.file.filename}': {group.name}/data has shape {stored.shape} and columns "
            f"{', '.join(features)}; needed are {', '.join(_FEATURES[name])}. It is damaged; "
            "download it again."
        )
    table = pd.DataFrame(stored, columns=list(features))
    if name == "drifting_gratings":
        table["spatial_frequency"] = _DRIFTING_SPATIAL_FREQUENCY
        table.loc[table["blank_sweep"] == 1] = np.nan
    columns = list(_GRATINGS[name])
    table.loc[table[columns].isna().any(axis=1)] = np.nan
    return table[columns]


def _read_templates(file: h5py.File) -> dict[str, np.ndarray]:
    """The pictures as documented in ``Recording.templates``."""
    templates = {}
    for name in (*MOVIES, *IMAGES):
        group = file.get(f"stimulus/templates/{name}_image_stack")
        pictures = read_pictures(group) if isinstance(group, h5py.Group) else None
        if pictures is not None:
            templates[name] = pictures
        elif f"stimulus/presentation/{name}_stimulus" in file:
            logger.info("%s: no template of %s.", file.filename, name)
    return templates


NWB1 = Format(
    name="NWB 1",
    read=read_nwb1,
    names_units_after_file=False,
    suffixes=(".nwb",),
    recognises_hdf5=is_nwb1,
    read_hdf5=recording_from_nwb1,
)
