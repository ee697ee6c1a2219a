"""Inscopix cell sets and folders of Minian, read by roiextractors.

Needs the extra ``poyo-ssl[formats]``.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from poyo_ssl.extras import MissingExtraError, import_extra
from poyo_ssl.recordings.formats.arrays import recording_from_arrays
from poyo_ssl.recordings.formats.format import Format
from poyo_ssl.recordings.formats.stimulus_tables import read_stimulus_files
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import SourceConfig

logger = logging.getLogger(__name__)

_TRACES = "C.zarr"
"""What Minian calls the activity of its cells."""
_LONGEST_FOOTER = 2**26
"""Bytes of text at the end of an Inscopix file; a thousand cells have some two hundred thousand."""


def read_inscopix(path: str | Path, source: SourceConfig) -> Recording:
    """Reads the cells of an ``.isxd`` file that are not rejected.

    - ``recording_id`` is the file's name, ``unit_id`` is ``<recording_id>/<cell's name>``.
    - Traces are taken as they are: ΔF/F of PCA-ICA, of CNMF-E in units of its own.
    - The first imaging sample is at 0 s.

    Args:
        path: A cell set.
        source: Tables of the stimuli, relative to the file's folder.

    Raises:
        RecordingError: If it cannot be read, holds no cell, or the extra is missing.
    """
    path = Path(path)
    with _explained(path) as extractors:
        cells = extractors.InscopixSegmentationExtractor(str(path))
        ids, rate = cells.get_roi_ids(), float(cells.get_sampling_frequency())
        status = cells.get_property("cell_status", ids) if ids else []
        kept = [roi for roi, word in zip(ids, status, strict=True) if word != "rejected"]
        traces = np.asarray(cells.get_traces(roi_ids=kept)).T if kept else None
    if traces is None:
        raise RecordingError(f"'{path}' holds no cell: {len(ids)}, all of them rejected.")
    if len(kept) < len(ids):
        rejected = len(ids) - len(kept)
        logger.warning("%s: %d of %d cells are rejected; left out.", path, rejected, len(ids))
    return _recording(path, source, traces, kept, sampling_rate=rate)


def read_minian(path: str | Path, source: SourceConfig) -> Recording:
    """Reads the denoised activity ``C`` of a folder that Minian wrote.

    - ``recording_id`` is the name of the folder, or of the one above where it is ``minian``;
      ``unit_id`` is ``<recording_id>/<Minian's unit_id>``.
    - Traces are taken as they are, in Minian's units.
    - Times are those of ``timeStamps.csv`` in the folder.

    Args:
        path: A folder with ``A.zarr``, ``C.zarr`` and ``timeStamps.csv``.
        source: Tables of the stimuli, relative to the session's folder.

    Raises:
        RecordingError: If it cannot be read, has no times, or the extra is missing.
    """
    path = Path(path)
    if not (path / "timeStamps.csv").is_file():
        raise RecordingError(
            f"'{path}' has no timeStamps.csv, which tells when its frames were imaged. Copy it "
            "there, or open C.zarr with xarray and give its rate to recording_from_xarray."
        )
    with _explained(path) as extractors:
        import zarr

        cells = extractors.MinianSegmentationExtractor(str(path))
        traces = np.asarray(cells.get_traces(name="denoised"))
        times = np.asarray(cells.get_native_timestamps())
        ids = np.asarray(zarr.open_group(path / _TRACES, mode="r")["unit_id"]).tolist()
    return _recording(path, source, traces, ids, timestamps=times)


def _recording(
    path: Path, source: SourceConfig, traces: np.ndarray, ids: list[Any], **times: Any
) -> Recording:
    logger.warning(
        "%s: traces are taken as they are, perhaps not as ΔF/F; skewness, kurtosis and decoders "
        "do not depend on their scale.",
        path,
    )
    folder = _minian_session(path) if path.is_dir() else path.parent
    name = folder.name if path.is_dir() else path.stem
    recording = recording_from_arrays(
        traces,
        recording_id=name,
        unit_ids=[f"{name}/{roi}" for roi in ids],
        source=str(path),
        **times,
    )
    imaged = (float(recording.timestamps[0]), float(recording.timestamps[-1]))
    stimuli = read_stimulus_files(folder, source.stimuli, imaged)
    return replace(recording, stimuli=stimuli)


@contextmanager
def _explained(path: Path) -> Iterator[ModuleType]:
    """Gives roiextractors, and says of what it raises which path it is about."""
    try:
        roiextractors = import_extra("roiextractors", "formats", f"Reading '{path}'")
    except MissingExtraError as error:
        raise RecordingError(str(error)) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parts that are not read
            yield roiextractors
    except ImportError as error:
        raise RecordingError(f"'{path}' cannot be read: {error}.") from error
    except Exception as error:  # readers of other formats raise nearly anything
        raise RecordingError(
            f"'{path}' cannot be read by roiextractors: {error}. It is damaged, or of a version "
            "that roiextractors does not know."
        ) from error


def _is_inscopix(path: Path) -> bool:
    """Whether a file ends in the text that describes a cell set, and its length."""
    try:
        with path.open("rb") as handle:
            handle.seek(-8, os.SEEK_END)
            length, end = int.from_bytes(handle.read(8), "little"), handle.tell()
            if not 0 < length < min(_LONGEST_FOOTER, end - 9):
                return False
            handle.seek(end - 9 - length)
            footer = json.loads(handle.read(length))
    except (OSError, ValueError, RecursionError):  # too short, closed to us, or of another form
        return False
    return isinstance(footer, dict) and "CellNames" in footer


def _is_minian(path: Path) -> bool:
    return (path / _TRACES).is_dir() and (path / "A.zarr").is_dir()


def _find_minian(files: Iterable[Path]) -> list[Path]:
    return sorted({file.parents[1] for file in files if file.parent.name == _TRACES})


def _minian_session(path: Path) -> Path:
    folder = path.absolute()
    return folder.parent if folder.name == "minian" else folder


INSCOPIX = Format(
    name="Inscopix",
    read=read_inscopix,
    names_units_after_file=True,
    suffixes=(".isxd",),
    recognises=_is_inscopix,
)
MINIAN = Format(
    name="Minian",
    read=read_minian,
    names_units_after_file=True,
    find_folders=_find_minian,
    own_folders=("minian",),
    session_folder=_minian_session,
    recognises=_is_minian,
)
