"""NWB 2 files of two-photon sessions, laid out as in DANDI:000728, as recordings."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from poyo_ssl.recordings.hdf5 import as_text, has_dataset, open_hdf5, read_text
from poyo_ssl.recordings.nwb_stimuli import (
    read_stimuli,
    read_templates,
    read_timestamps,
    read_values,
)
from poyo_ssl.recordings.recording import Recording, RecordingError

logger = logging.getLogger(__name__)

_DF_OVER_F_NAME = re.compile(r"^(d|delta)_?f_?(over_?)?f0?$", re.IGNORECASE)
_DEPTH = re.compile(r"(\d+(?:\.\d+)?)\s*(?:µm|μm|um\b|micron|micromet)", re.IGNORECASE)


def read_nwb(path: str | Path) -> Recording:
    """Reads the ΔF/F, units, stimuli and behaviour of one session.

    What is not ΔF/F may be missing; the log (level INFO) says what is.

    - ``recording_id`` is the file's session id, else the file's name.
    - ``unit_id`` is ``<container>/<global_roi_id>`` where the file names its container and
      matches cells across sessions, so that a cell has one id in all sessions of its container;
      else ``<recording_id>/<roi id>``.
    - ``cre_line`` is the first allele of the genotype that names Cre, without its zygosity:
      ``Cux2-CreERT2`` of ``Cux2-CreERT2/wt;Camk2a-tTA/wt;Ai93(TITL-GCaMP6f)/wt``.
    - ``imaging_depth_um`` is parsed from the description of the imaging plane.
    - A ΔF/F array that is ROIs x time is transposed if the table of ROIs and the timestamps
      leave no doubt, with a warning.

    Raises:
        RecordingError: If the file is not a readable NWB 2 file with one plane of ΔF/F.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        _require_nwb2(file)
        series = _find_df_over_f(file)
        df_over_f, timestamps = _read_traces(series)
        recording_id = read_text(file, "general/session_id") or path.stem
        notes = _read_notes(file)
        imaged = (float(timestamps[0]), float(timestamps[-1]))
        return Recording(
            recording_id=recording_id,
            df_over_f=df_over_f,
            timestamps=timestamps,
            units=_read_units(series, df_over_f.shape[1], recording_id, notes.get("container id")),
            stimuli=read_stimuli(file, imaged),
            templates=read_templates(file),
            running=_read_running(file),
            pupil=_read_pupil(file),
            subject_id=read_text(file, "general/subject/subject_id"),
            container_id=notes.get("container id"),
            session_type=notes.get("session type"),
            source=str(path),
        )


def _require_nwb2(file: h5py.File) -> None:
    version = as_text(file.attrs.get("nwb_version", "")) or read_text(file, "nwb_version") or ""
    if version.removeprefix("NWB-").startswith("1"):
        raise RecordingError(
            f"'{file.filename}' is NWB 1 (found: {version}), which this version does not read. "
            "The sessions of the Allen Brain Observatory are on DANDI:000728 as NWB 2; "
            "other files have to be converted to NWB 2."
        )
    if "processing" not in file:
        raise RecordingError(
            f"'{file.filename}' is not a processed NWB 2 file (found at its root: "
            f"{', '.join(file) or 'nothing'}). Give the file that holds the extracted traces."
        )


def _find_df_over_f(file: h5py.File) -> h5py.Group:
    """The one RoiResponseSeries that holds ΔF/F (not events detected in it)."""
    responses: list[h5py.Group] = []

    def collect(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if _neurodata_type(item) == "RoiResponseSeries":
            responses.append(item)

    file["processing"].visititems(collect)
    found = [item for item in responses if _is_df_over_f(item)]
    if len(found) == 1:
        return found[0]
    if found:
        raise RecordingError(
            f"'{file.filename}' holds several ΔF/F series: "
            f"{', '.join(item.name for item in found)}. A recording is one imaging plane: write "
            "each plane to a file of its own."
        )
    modules = ", ".join(file["processing"]) or "none"
    others = ", ".join(item.name for item in responses) or "none"
    raise RecordingError(
        f"'{file.filename}' has no ΔF/F (processing modules: {modules}; RoiResponseSeries: "
        f"{others}). Compute ΔF/F from the fluorescence and store it as a DfOverF interface."
    )


def _is_df_over_f(series: h5py.Group) -> bool:
    name = series.name.rpartition("/")[2]
    is_named_so = _DF_OVER_F_NAME.match(name) is not None
    is_inside = _neurodata_type(series.parent) == "DfOverF"
    return (is_inside or is_named_so) and "event" not in name.lower()


def _read_traces(series: h5py.Group) -> tuple[np.ndarray, np.ndarray]:
    """ΔF/F as float32 (num_timesteps, num_units) and the timestamps in seconds."""
    if not has_dataset(series, "data"):
        raise RecordingError(
            f"'{series.file.filename}': {series.name} has no data (found: {', '.join(series)}). "
            "Export the file again with its traces."
        )
    data = series["data"]
    num_rois = series["rois"].size if has_dataset(series, "rois") else None
    num_times = series["timestamps"].size if has_dataset(series, "timestamps") else None
    shape = data.shape if data.ndim == 2 else (*data.shape, 1)
    if 0 in shape or num_rois == 0:
        raise RecordingError(
            f"'{series.file.filename}': {series.name} is empty (shape {data.shape}, {num_rois} "
            "ROIs). No cell was found, or the extraction failed; leave this file out."
        )
    is_transposed = _is_transposed(series, shape, num_times, num_rois)
    traces = read_values(series).astype(np.float32, copy=False).reshape(shape)
    if is_transposed:
        logger.warning(
            "%s: ΔF/F of shape %s is ROIs x time; transposed.", series.file.filename, shape
        )
        traces = np.ascontiguousarray(traces.T)
    return traces, read_timestamps(series, len(traces))


def _is_transposed(
    series: h5py.Group, shape: tuple[int, ...], num_times: int | None, num_rois: int | None
) -> bool:
    """Whether the traces are ROIs x time, judged by what the file says of their numbers."""

    def fits(timesteps: int, units: int) -> bool:
        return num_times in (None, timesteps) and num_rois in (None, units)

    if len(shape) == 2 and fits(*shape):
        return False
    if len(shape) == 2 and fits(*shape[::-1]):
        return True
    raise RecordingError(
        f"'{series.file.filename}': {series.name}/data has shape {shape} but the file has "
        f"{'unknown' if num_times is None else num_times} timestamps and "
        f"{'unknown' if num_rois is None else num_rois} ROIs for it. The shape must be "
        "(timesteps, ROIs); write the file again with arrays that belong together."
    )


def _read_units(
    series: h5py.Group, num_units: int, recording_id: str, container_id: str | None
) -> pd.DataFrame:
    file = series.file
    segmentation = _find_segmentation(file, series)
    plane = _find_imaging_plane(file, segmentation)
    depth = _DEPTH.search((read_text(plane, "description") or "") if plane else "")
    if segmentation is None:
        logger.info("%s: no table of ROIs; units are numbered.", file.filename)
        unit_ids = [f"{recording_id}/{column}" for column in range(num_units)]
    else:
        unit_ids = _read_unit_ids(series, segmentation, recording_id, container_id)
    return pd.DataFrame(
        {
            "unit_id": unit_ids,
            "cre_line": _cre_line(read_text(file, "general/subject/genotype")),
            "area": read_text(plane, "location") if plane else None,
            "imaging_depth_um": float(depth[1]) if depth else None,
        }
    )


def _read_unit_ids(
    series: h5py.Group, segmentation: h5py.Group, recording_id: str, container_id: str | None
) -> list[str]:
    """Names of the ROIs that the traces refer to, in the order of the traces."""
    if container_id is not None and has_dataset(segmentation, "global_roi_id"):
        prefix, ids = container_id, segmentation["global_roi_id"][()]
    else:
        prefix, ids = recording_id, segmentation["id"][()]
    rows = series["rois"][()]
    if rows.min() < 0 or rows.max() >= len(ids):
        raise RecordingError(
            f"'{series.file.filename}': {series.name}/rois points at rows {rows.min()} to "
            f"{rows.max()} of a table of {len(ids)} ROIs. Write the file again with ROIs and "
            "traces that belong together."
        )
    return [f"{prefix}/{as_text(ids[row])}" for row in rows]


def _find_segmentation(file: h5py.File, series: h5py.Group) -> h5py.Group | None:
    """The PlaneSegmentation that the traces refer to."""
    if not has_dataset(series, "rois") or "table" not in series["rois"].attrs:
        return None
    # by its name: an object without one was not checked for links out of the file
    name = file[series["rois"].attrs["table"]].name
    return file[name] if name else None


def _find_imaging_plane(file: h5py.File, segmentation: h5py.Group | None) -> h5py.Group | None:
    if segmentation is not None and isinstance(segmentation.get("imaging_plane"), h5py.Group):
        return segmentation["imaging_plane"]
    for item in file.get("general/optophysiology", {}).values():
        if _neurodata_type(item) == "ImagingPlane":
            return item
    logger.info("%s: no imaging plane, so no area and depth.", file.filename)
    return None


def _cre_line(genotype: str | None) -> str | None:
    for allele in (genotype or "").split(";"):
        if "cre" in allele.lower():
            return allele.split("/")[0].strip()
    return None


def _read_notes(file: h5py.File) -> dict[str, str]:
    """Lines such as ``Container ID: 527550471`` by their lower-case key."""
    lines = (read_text(file, "general/notes") or "").splitlines()
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    return {key.strip().lower(): value.strip() for key, value in pairs if value.strip()}


def _read_running(file: h5py.File) -> pd.DataFrame | None:
    series = file.get("processing/behavior/BehavioralTimeSeries/running_speed")
    if series is None:
        logger.info("%s: no running speed.", file.filename)
        return None
    speed = read_values(series).reshape(-1)
    return _in_order(
        pd.DataFrame({"timestamp": read_timestamps(series, len(speed)), "speed": speed})
    )


def _read_pupil(file: h5py.File) -> pd.DataFrame | None:
    location = file.get("processing/behavior/EyeTracking/pupil_location")
    if location is None:
        logger.info("%s: no eye tracking.", file.filename)
        return None
    x, y = read_values(location).T
    timestamps = read_timestamps(location, len(x))
    pupil = pd.DataFrame({"timestamp": timestamps, "x": x, "y": y, "size": np.nan})
    size = file.get("processing/behavior/PupilTracking/pupil_size")
    if size is not None and np.array_equal(
        read_timestamps(size, size["data"].shape[0]), timestamps, equal_nan=True
    ):
        pupil["size"] = read_values(size).reshape(-1)
    else:
        logger.info("%s: no pupil size at the times of the pupil's location.", file.filename)
    return _in_order(pupil)


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Samples with a time, in order of time."""
    timed = table[np.isfinite(table["timestamp"])]
    return timed.sort_values("timestamp", kind="stable").reset_index(drop=True)


def _neurodata_type(item: h5py.Group | h5py.Dataset) -> str:
    return as_text(item.attrs.get("neurodata_type", ""))
