"""A folder that suite2p wrote, as a recording."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from poyo_ssl.recordings.formats.fluorescence import compute_df_over_f
from poyo_ssl.recordings.formats.format import Format
from poyo_ssl.recordings.formats.stimulus_tables import read_stimulus_files
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import SourceConfig, Suite2pConfig
from poyo_ssl.recordings.untrusted_files.numpy_files import open_array, read_shape
from poyo_ssl.recordings.untrusted_files.safe_pickle import as_number, read_records, read_settings

logger = logging.getLogger(__name__)

_TRACES = "F.npy"
COMBINED = "combined"
"""The folder of all planes together, where suite2p was asked for it."""
_PLANE = re.compile(r"plane\d+")
_SETTINGS = ("ops.npy", "settings.npy", "db.npy")  # suite2p 0.x; 1.x keeps the last two, too


def find_planes(files: Iterable[Path]) -> list[Path]:
    """Folders of planes among the folders of some files; ``combined`` stands for its planes."""
    planes = {file.parent for file in files if file.name == _TRACES}
    combined = {plane.parent for plane in planes if plane.name == COMBINED}
    return sorted(
        plane for plane in planes if plane.name == COMBINED or plane.parent not in combined
    )


def read_suite2p(folder: str | Path, source: SourceConfig) -> Recording:
    """Reads the cells of one imaging plane and turns their fluorescence into ΔF/F.

    - The folder is that of a plane, with ``F.npy``, or one above it: ``suite2p/`` or the folder
      that holds it. Where there are several planes, ``combined`` is read. Its planes were imaged
      at slightly different times, less than one sampling period apart, which is neglected.
    - ``recording_id`` is the name of the session's folder: the first one, from the plane upwards,
      that suite2p did not name. One plane of several adds its own name, as in ``day3-plane1``.
    - ``unit_id`` is ``<recording_id>/<ROI's row in F.npy>``.
    - ``x_px`` and ``y_px`` are the medians of a ROI's pixels, from ``stat.npy``.
    - ΔF/F is that of ``F - neuropil_factor * Fneu``; see :func:`compute_df_over_f`.
    - The first imaging frame is at 0 s. Frames that were not taken at a steady rate are better
      read with their times, from an ``.npz`` file.

    Args:
        folder: A folder that suite2p wrote.
        source: Sampling rate, neuropil and baseline; tables of the stimuli, relative to the
            session's folder.

    Raises:
        RecordingError: If the folder does not hold one plane, files do not fit together, no cell
            is left, or the sampling rate is not known.
    """
    plane = find_plane(Path(os.path.abspath(folder)))
    session = session_folder(plane)
    recording_id = _name(plane, session)
    rois = _choose_rois(plane, source.suite2p)
    sampling_rate = source.suite2p.sampling_rate or _read_sampling_rate(plane)
    df_over_f = compute_df_over_f(
        _read_fluorescence(plane, rois, source.suite2p),
        sampling_rate,
        baseline_percentile=source.fluorescence.baseline_percentile,
        baseline_window=source.fluorescence.baseline_window,
        where=f"'{plane}'",
    )
    is_lit = np.isfinite(df_over_f).any(axis=0)
    _report_dark(plane, rois[~is_lit], len(rois))
    timestamps = np.arange(len(df_over_f)) / sampling_rate
    return Recording(
        recording_id=recording_id,
        df_over_f=df_over_f if is_lit.all() else df_over_f[:, is_lit],
        timestamps=timestamps,
        units=pd.DataFrame(
            {
                "unit_id": [f"{recording_id}/{roi}" for roi in rois[is_lit]],
                **_read_places(plane, rois[is_lit]),
            }
        ),
        stimuli=read_stimulus_files(session, source.stimuli, (0.0, float(timestamps[-1]))),
        source=str(plane),
    )


def find_plane(folder: Path) -> Path:
    """The folder of the plane that is read of a folder: the one with ``F.npy``.

    Raises:
        RecordingError: If there is none, or several and no ``combined``.
    """
    if os.path.lexists(folder / _TRACES):  # a broken link is there: it is named when it is opened
        return folder
    above = folder / "suite2p" if (folder / "suite2p").is_dir() else folder
    planes = sorted(path.parent for path in above.glob(f"*/{_TRACES}"))
    for plane in planes:
        if plane.name == COMBINED or len(planes) == 1:
            return plane
    if planes:
        raise RecordingError(
            f"'{folder}' holds several planes and no '{COMBINED}': "
            f"{', '.join(plane.name for plane in planes)}. Each is a recording of its own: give "
            "the folder of one, or let suite2p combine them."
        )
    raise RecordingError(
        f"'{folder}' is no suite2p folder: neither it nor a folder in it holds {_TRACES}. Give "
        "the folder of a plane, such as suite2p/plane0."
    )


def session_folder(plane: Path) -> Path:
    """The first folder, from that of a plane upwards, that suite2p did not name."""
    folder = Path(os.path.abspath(plane))
    while folder.name in (COMBINED, "suite2p") or _PLANE.fullmatch(folder.name):
        folder = folder.parent
    return folder


def _name(plane: Path, session: Path) -> str:
    """The id of the recording of a plane."""
    name = session.name or "suite2p"
    is_one_of_several = _PLANE.fullmatch(plane.name) and len(list(plane.parent.glob("plane*"))) > 1
    return f"{name}-{plane.name}" if is_one_of_several else name


def _choose_rois(plane: Path, config: Suite2pConfig) -> np.ndarray:
    """Rows of ``F.npy`` that are read, increasing."""
    if not config.only_cells:
        return np.arange(count_rois(plane))
    if not os.path.lexists(plane / "iscell.npy"):
        raise RecordingError(
            f"'{plane}' has no iscell.npy, which says which ROIs are cells. Copy it there, or set "
            "suite2p.only_cells to false to read all ROIs."
        )
    table = open_array(plane / "iscell.npy")
    is_cell = table[:, 0] if table.ndim == 2 and table.shape[1] else table
    if is_cell.ndim != 1 or is_cell.dtype.kind not in "biuf":
        raise RecordingError(
            f"'{plane}/iscell.npy' has shape {table.shape} and type {table.dtype}; one row per "
            "ROI is needed, whose first number is 1 for a cell."
        )
    rois = np.flatnonzero(is_cell == 1)
    if not len(rois):
        raise RecordingError(
            f"'{plane}': none of {len(is_cell)} ROIs is called a cell in iscell.npy. Curate them "
            "in suite2p, or set suite2p.only_cells to false to read all ROIs."
        )
    return rois


def count_rois(plane: Path) -> int:
    """Number of ROIs that iscell.npy or stat.npy lists; without both, the rows of F.npy."""
    shapes = {
        name: read_shape(plane / name)
        for name in ("iscell.npy", "stat.npy")
        if os.path.lexists(plane / name)
    }
    counts = {name: shape[0] if shape else 1 for name, shape in shapes.items()}
    if len(set(counts.values())) > 1:
        raise RecordingError(
            f"'{plane}' does not fit together: {counts['iscell.npy']} ROIs in iscell.npy, "
            f"{counts['stat.npy']} in stat.npy. Copy all files of one run of suite2p."
        )
    if counts:
        return next(iter(counts.values()))
    shape = read_shape(plane / _TRACES)
    if len(shape) == 2 and shape[0] > shape[1]:
        raise RecordingError(
            f"'{plane / _TRACES}' has shape {shape}, with neither iscell.npy nor stat.npy to tell "
            "ROIs from timesteps. Copy one of them there."
        )
    return shape[0] if shape else 0


def _read_fluorescence(plane: Path, rois: np.ndarray, config: Suite2pConfig) -> np.ndarray:
    """``F - neuropil_factor * Fneu`` of the ROIs, shape (num_timesteps, num_rois), float32."""
    fluorescence = _open_traces(plane, _TRACES)[rois].astype(np.float32)
    if config.neuropil_factor:
        if not os.path.lexists(plane / "Fneu.npy"):
            raise RecordingError(
                f"'{plane}' has no Fneu.npy. Copy it there, or set suite2p.neuropil_factor to 0 "
                "to subtract no neuropil."
            )
        neuropil = _open_traces(plane, "Fneu.npy")[rois]
        if neuropil.shape != fluorescence.shape:
            raise RecordingError(
                f"'{plane}' does not fit together: {fluorescence.shape[1]} timesteps in F.npy, "
                f"{neuropil.shape[1]} in Fneu.npy. Copy all files of one run of suite2p."
            )
        fluorescence -= np.float32(config.neuropil_factor) * neuropil
    return fluorescence.T


def _open_traces(plane: Path, name: str) -> np.ndarray:
    """An array of traces as ROIs x timesteps; the table of ROIs tells which axis is which."""
    traces, num_rois = open_array(plane / name), count_rois(plane)
    if traces.ndim != 2 or traces.dtype.kind not in "iuf":
        raise RecordingError(
            f"'{plane / name}' has shape {traces.shape} and type {traces.dtype}; numbers of shape "
            "(ROIs, timesteps) are needed."
        )
    if num_rois not in traces.shape:
        raise RecordingError(
            f"'{plane}' does not fit together: {num_rois} ROIs in iscell.npy or stat.npy, but "
            f"{name} has shape {traces.shape}. Copy all files of one run of suite2p."
        )
    if traces.shape[0] == traces.shape[1]:
        raise RecordingError(
            f"'{plane / name}' has shape {traces.shape}: with as many ROIs as timesteps, which is "
            "which cannot be told. Read it from an .npz file instead."
        )
    if traces.shape[0] == num_rois:
        return traces
    logger.warning("%s: %s is timesteps x ROIs; transposed.", plane, name)
    return traces.T


def _read_sampling_rate(plane: Path) -> float:
    searched = [name for name in _SETTINGS if os.path.lexists(plane / name)]
    for name in searched:
        rate = as_number(read_settings(plane / name).get("fs"))
        if rate is not None and 0 < rate < np.inf:
            return rate
    absent = f"there is none of {', '.join(_SETTINGS)}"
    found = f"no usable 'fs' in {', '.join(searched)}" if searched else absent
    raise RecordingError(
        f"'{plane}' does not tell its sampling rate ({found}). Give the imaging rate of the plane "
        "in Hz: suite2p.sampling_rate of the source, such as 30.0."
    )


def _read_places(plane: Path, rois: np.ndarray) -> dict[str, np.ndarray]:
    """Where ROIs lie, as columns of the table of units; none where stat.npy does not tell."""
    if not os.path.lexists(plane / "stat.npy"):
        return {}
    try:
        stored = read_records(plane / "stat.npy")
    except RecordingError as error:
        logger.warning("%s So it is not known where the cells lie.", error)
        return {}
    centres = [entry.get("med") for entry in stored]
    if len(centres) <= rois.max() or not all(isinstance(c, list) and len(c) == 2 for c in centres):
        return {}
    y, x = np.array([[as_number(value) for value in centres[roi]] for roi in rois], dtype=float).T
    return {"x_px": x, "y_px": y}


def _report_dark(plane: Path, dark: np.ndarray, num_rois: int) -> None:
    if len(dark) == num_rois:
        raise RecordingError(
            f"'{plane}': none of {num_rois} ROIs holds light: all are constant or missing "
            "throughout. Check F.npy."
        )
    if len(dark):
        logger.warning(
            "%s: %d of %d ROIs are left out, their traces are constant and not positive, or "
            "missing throughout: %s.",
            plane,
            len(dark),
            num_rois,
            ", ".join(map(str, dark[:10])),
        )


SUITE2P = Format(
    name="suite2p",
    read=read_suite2p,
    names_units_after_file=True,
    find_folders=find_planes,
    own_folders=("suite2p", COMBINED),
    session_folder=session_folder,
    recognises=Path.is_dir,
)
