"""NWB 2 files of two-photon sessions, of DANDI:000728 and of others, as recordings."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from poyo_ssl.recordings.formats.format import Format
from poyo_ssl.recordings.formats.nwb_cells import find_cells
from poyo_ssl.recordings.formats.nwb_places import find_places
from poyo_ssl.recordings.formats.nwb_stimuli import (
    read_stimuli,
    read_templates,
    refuse_unknown_pictures,
)
from poyo_ssl.recordings.formats.nwb_traces import (
    find_series,
    neurodata_type,
    read_series,
    read_traces,
)
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.recordings.untrusted_files.hdf5 import as_text, has_dataset, open_hdf5, read_text

logger = logging.getLogger(__name__)

_DEFAULT_SOURCE = SourceConfig()
_DEPTH = re.compile(r"(\d+(?:\.\d+)?)\s*(?:µm|μm|um\b|micron|micromet)", re.IGNORECASE)


def read_nwb(path: str | Path, source: SourceConfig = _DEFAULT_SOURCE) -> Recording:
    """Reads the ΔF/F, units, stimuli and behaviour of one session.

    What is not ΔF/F may be missing; the log (level INFO) says what is.

    - ``recording_id`` is the file's session id, else the file's name; where ``nwb.series`` chose
      one of several planes, followed by what tells it from the others.
    - ``unit_id`` is ``<container>/<global_roi_id>`` where the file names its container and
      matches cells across sessions, so that a cell has one id in all sessions of its container;
      else ``<recording_id>/<roi id>``.
    - ``cre_line`` is the first allele of the genotype that names Cre, without its zygosity:
      ``Cux2-CreERT2`` of ``Cux2-CreERT2/wt;Camk2a-tTA/wt;Ai93(TITL-GCaMP6f)/wt``.
    - ``x_px`` and ``y_px`` are means of ``pixel_mask``, where there is one.
    - ``imaging_depth_um`` is parsed from the description of the imaging plane.
    - A file without ΔF/F but with fluorescence is read, too: see
      :func:`~poyo_ssl.recordings.formats.nwb_traces.find_series` and
      :func:`~poyo_ssl.recordings.formats.fluorescence.compute_df_over_f`.
    - ROIs that the table of ROIs calls no cells are left out, with a warning; see
      :func:`~poyo_ssl.recordings.formats.nwb_cells.find_cells`.
    - Traces that are ROIs x time are transposed if the table of ROIs and the timestamps leave no
      doubt, with a warning.

    Args:
        path: A processed NWB 2 file.
        source: Which plane to read, where stimuli of the user's own are listed, and how
            fluorescence becomes ΔF/F.

    Raises:
        RecordingError: If the file is not a readable NWB 2 file with one plane of traces.
    """
    with open_hdf5(path) as file:
        return recording_from_nwb(file, source)


def recording_from_nwb(file: h5py.File, source: SourceConfig = _DEFAULT_SOURCE) -> Recording:
    """Reads an open NWB 2 file that ``open_hdf5`` has checked; see :func:`read_nwb`."""
    _require_processed_nwb2(file)
    series, plane = find_series(file, source.nwb.series)
    cells = _find_cells(file, series, source)
    df_over_f, timestamps = read_traces(series, source, cells)
    session_id = read_text(file, "general/session_id") or Path(file.filename).stem
    recording_id = f"{session_id}-{plane}" if plane else session_id
    notes = _read_notes(file)
    imaged = (float(timestamps[0]), float(timestamps[-1]))
    stimuli = read_stimuli(file, imaged, source.stimuli)
    templates = read_templates(file) if source.nwb.with_templates else {}
    refuse_unknown_pictures(stimuli, templates, file.filename)
    return Recording(
        recording_id=recording_id,
        df_over_f=df_over_f,
        timestamps=timestamps,
        units=_read_units(
            series, cells, df_over_f.shape[1], recording_id, notes.get("container id")
        ),
        stimuli=stimuli,
        templates=templates,
        running=read_running(file, "processing/behavior"),
        pupil=read_pupil(file, "processing/behavior"),
        subject_id=read_text(file, "general/subject/subject_id"),
        container_id=notes.get("container id"),
        session_type=notes.get("session type"),
        source=file.filename,
    )


def is_nwb2(file: h5py.File) -> bool:
    """Whether an open HDF5 file is NWB 2: it says so, or holds processed data and no NWB 1."""
    version = nwb_version(file)
    if version:
        return version.startswith("2")
    return "processing" in file and "processing/brain_observatory_pipeline" not in file


def nwb_version(file: h5py.File) -> str:
    """The version of NWB that a file names, such as ``2.7.0`` or ``1.0.6``; else empty."""
    version = as_text(file.attrs.get("nwb_version", "")) or read_text(file, "nwb_version") or ""
    return version.removeprefix("NWB-")


def _require_processed_nwb2(file: h5py.File) -> None:
    version = nwb_version(file)
    if version.startswith("1"):
        raise RecordingError(
            f"'{file.filename}' is NWB 1 (found: {version}), not NWB 2. Load it with "
            "load_recording, which reads the files of the AllenSDK cache."
        )
    if not isinstance(file.get("processing"), h5py.Group):
        raise RecordingError(
            f"'{file.filename}' is not a processed NWB 2 file (found at its root: "
            f"{', '.join(file) or 'nothing'}). Give the file that holds the extracted traces."
        )


def _find_cells(file: h5py.File, series: h5py.Group, source: SourceConfig) -> np.ndarray | None:
    """Positions of the traces that are read; None for all."""
    segmentation = _find_segmentation(file, series)
    if segmentation is None or not source.nwb.only_cells:
        return None
    rows = series["rois"][()]
    cells = find_cells(segmentation, rows)
    return None if len(cells) == len(rows) else cells


def find_rois(file: h5py.File, source: SourceConfig) -> tuple[str | None, np.ndarray]:
    """Where an NWB 2 file describes the units that are read of it.

    Returns:
        Path of the table of ROIs, None where there is none, and its row of every unit,
        (num_units,).
    """
    _require_processed_nwb2(file)
    series, _ = find_series(file, source.nwb.series)
    segmentation = _find_segmentation(file, series)
    if segmentation is None:
        return None, np.empty(0, dtype=int)
    cells = _find_cells(file, series, source)
    rows = series["rois"][()]
    return segmentation.name, rows if cells is None else rows[cells]


def _read_units(
    series: h5py.Group,
    cells: np.ndarray | None,
    num_units: int,
    recording_id: str,
    container_id: str | None,
) -> pd.DataFrame:
    file = series.file
    segmentation = _find_segmentation(file, series)
    plane = _find_imaging_plane(file, segmentation)
    places: dict[str, np.ndarray] = {}
    if segmentation is None:
        logger.info("%s: no table of ROIs; units are numbered.", file.filename)
        unit_ids = [f"{recording_id}/{column}" for column in range(num_units)]
    else:
        unit_ids = _read_unit_ids(series, segmentation, recording_id, container_id)
        unit_ids = unit_ids if cells is None else [unit_ids[cell] for cell in cells]
        rows = series["rois"][()]
        places = find_places(segmentation, rows if cells is None else rows[cells])
    return pd.DataFrame(
        {
            "unit_id": unit_ids,
            "cre_line": read_cre_line(file),
            "area": read_text(plane, "location") if plane else None,
            "imaging_depth_um": depth_um(read_text(plane, "description")) if plane else None,
            **places,
        }
    )


def _read_unit_ids(
    series: h5py.Group, segmentation: h5py.Group, recording_id: str, container_id: str | None
) -> list[str]:
    """Names of the ROIs that the traces refer to, in the order of the traces."""
    rows = series["rois"][()]
    if container_id is not None and has_dataset(segmentation, "global_roi_id"):
        prefix, ids = container_id, segmentation["global_roi_id"][()]
    else:
        prefix, ids = recording_id, segmentation["id"][()]
    if rows.min() < 0 or rows.max() >= len(ids):
        raise RecordingError(
            f"'{series.file.filename}': {series.name}/rois points at rows {rows.min()} to "
            f"{rows.max()} of a table of {len(ids)} ROIs. Write the file again with ROIs and "
            "traces that belong together."
        )
    return [f"{prefix}/{as_text(ids[row])}" for row in rows]


def _find_segmentation(file: h5py.File, series: h5py.Group) -> h5py.Group | None:
    """The PlaneSegmentation that the traces refer to."""
    reference = series["rois"].attrs.get("table") if has_dataset(series, "rois") else None
    if not reference:
        return None
    # by its name: an object without one was not checked for links out of the file
    name = file[reference].name
    return file[name] if name else None


def _find_imaging_plane(file: h5py.File, segmentation: h5py.Group | None) -> h5py.Group | None:
    if segmentation is not None and isinstance(segmentation.get("imaging_plane"), h5py.Group):
        return segmentation["imaging_plane"]
    for item in file.get("general/optophysiology", {}).values():
        if isinstance(item, h5py.Group) and neurodata_type(item) == "ImagingPlane":
            return item
    logger.info("%s: no imaging plane, so no area and depth.", file.filename)
    return None


def depth_um(description: str | None) -> float | None:
    """The imaging depth in µm that a text names, such as 275 of ``a depth of 275 µm``."""
    depth = _DEPTH.search(description or "")
    return float(depth[1]) if depth else None


def read_cre_line(file: h5py.File) -> str | None:
    """The first allele of the genotype that names Cre, without its zygosity; None if missing."""
    for allele in (read_text(file, "general/subject/genotype") or "").split(";"):
        if "cre" in allele.lower():
            return allele.split("/")[0].strip()
    logger.info("%s: no Cre line.", file.filename)
    return None


def _read_notes(file: h5py.File) -> dict[str, str]:
    """Lines such as ``Container ID: 527550471`` by their lower-case key."""
    lines = (read_text(file, "general/notes") or "").splitlines()
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    return {key.strip().lower(): value.strip() for key, value in pairs if value.strip()}


def read_running(file: h5py.File, module: str) -> pd.DataFrame | None:
    """Running speed as in ``Recording.running``, from a processing module; None if missing."""
    series = file.get(f"{module}/BehavioralTimeSeries/running_speed")
    if series is None:
        logger.info("%s: no running speed.", file.filename)
        return None
    speed, times = read_series(series)
    return _in_order(pd.DataFrame({"timestamp": times, "speed": speed.reshape(-1)}))


def read_pupil(file: h5py.File, module: str) -> pd.DataFrame | None:
    """Place and size of the pupil as in ``Recording.pupil``, from a module; None if missing."""
    location = file.get(f"{module}/EyeTracking/pupil_location")
    if location is None:
        logger.info("%s: no eye tracking.", file.filename)
        return None
    place, times = read_series(location)
    pupil = pd.DataFrame({"timestamp": times, "x": place[:, 0], "y": place[:, 1]})
    pupil["size"] = _read_pupil_size(file, module, times)
    return _in_order(pupil)


def _read_pupil_size(file: h5py.File, module: str, times: np.ndarray) -> np.ndarray | float:
    series = file.get(f"{module}/PupilTracking/pupil_size")
    if series is not None:
        size, size_times = read_series(series)
        if np.array_equal(size_times, times, equal_nan=True):
            return size.reshape(-1)
    logger.info("%s: no pupil size at the times of the pupil's location.", file.filename)
    return np.nan


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Samples with a time, in order of time."""
    timed = table[np.isfinite(table["timestamp"])]
    return timed.sort_values("timestamp", kind="stable").reset_index(drop=True)


NWB2 = Format(
    name="NWB 2",
    read=read_nwb,
    names_units_after_file=False,
    suffixes=(".nwb",),
    recognises_hdf5=is_nwb2,
    read_hdf5=recording_from_nwb,
)
