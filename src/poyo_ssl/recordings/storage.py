"""Recordings on disk: torch-brain's HDF5 form, which its ``Dataset`` and brainsets share.

A folder of recordings holds ``<recording_id>.h5`` for each, and the pictures that were shown once
for all of them: ``templates/<stimulus>-<hash of the content>.npy``. Traces and pictures are mapped
from the disk where they lie there as they are, so a recording that is open costs little memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from weakref import WeakValueDictionary

import h5py
import numpy as np
import pandas as pd

from poyo_ssl.file_names import file_name
from poyo_ssl.recordings.recording import Recording, RecordingError, require_recording
from poyo_ssl.recordings.torch_brain_form import (
    FORMAT,
    placed_column,
    storage_problems,
    write_torch_brain,
)
from poyo_ssl.recordings.untrusted_files.hdf5 import as_text, open_hdf5
from poyo_ssl.recordings.untrusted_files.numpy_files import read_header
from poyo_ssl.whole_files import partial_file, publish

logger = logging.getLogger(__name__)

TEMPLATES = "templates"
"""Folder beside the recordings that holds the pictures shown in them."""
_TEMPLATE_NAME = re.compile(r"[\w%~]{1,130}-[0-9a-f]{32}\.npy")
_BRAINSETS_ALLEN = "allen_visual_coding_ophys_2016"


def save_recording(recording: Recording, directory: str | Path) -> Path:
    """Writes ``<recording_id>.h5``, replacing a file of that name only once all is written.

    The file is uncompressed, so that torch-brain slices it fast and we can map it: four bytes
    per unit and timestep, gaps included. The pictures shown go to the folder ``templates``, where
    they are kept once for all recordings; copy that folder along with the recordings.

    Returns:
        The path of the file.

    Raises:
        RecordingError: If the recording holds something that torch-brain's form cannot; all such
            problems at once.
    """
    require_recording(recording)
    staged = stage_recording(recording, directory)
    path = recording_path(recording.recording_id, directory)
    publish(staged, path)
    return path


def stage_recording(recording: Recording, directory: str | Path) -> Path:
    """Does all of :func:`save_recording` but giving the file its name.

    Returns:
        A complete hidden file, ready for ``publish``.
    """
    problems = list(storage_problems(recording))
    if problems:
        raise RecordingError(
            f"Recording '{recording.recording_id}' cannot be stored: " + " ".join(problems)
        )
    directory = Path(directory)
    templates = {
        name: _save_pictures(name, pictures, directory / TEMPLATES)
        for name, pictures in recording.templates.items()
    }
    with partial_file(recording_path(recording.recording_id, directory)) as partial:
        with h5py.File(partial, "x") as file:
            write_torch_brain(recording, templates, file)
        return partial


def recording_path(recording_id: str, directory: str | Path) -> Path:
    """Where a recording is stored in a directory: in ``<recording_id>.h5``, as torch-brain expects.

    What no file can be called is written as :func:`file_name` does. Ids that differ in case alone
    are one file on some disks; ``prepare`` refuses the second.
    """
    return Path(directory) / f"{file_name(recording_id, marks_case=False)}.h5"


def open_recording(path: str | Path) -> Recording:
    """Opens a recording in torch-brain's HDF5 form.

    ΔF/F without gaps is mapped from the disk, read-only: it is read where and when it is used, and
    stays as it was if another process replaces the file (one that is changed in place is not
    safe). With gaps it is read into memory. Pictures are mapped after their content was checked;
    where they are missing or damaged the recording comes without, with a warning.

    Besides our own files, which come back exactly as they were saved, those that
    ``brainsets prepare allen_visual_coding_ophys_2016`` writes are read: times lie on
    the stored regular grid there, unit ids are the ROI ids, drifting gratings come
    without blank sweeps, and brainsets' own train/valid/test domains are not used.

    Raises:
        RecordingError: If the file holds no calcium traces in torch-brain's form, was written by
            a later version, is damaged, or refers to other files.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        _require_calcium_traces(file)
        return _read_recording(file, path)


def _read_recording(file: h5py.File, path: Path) -> Recording:
    extras = dict(file["poyo_ssl"].attrs) if "poyo_ssl" in file else {}
    columns = dict(json.loads(extras.get("columns", "{}")))
    text = dict(json.loads(extras.get("text", "{}")))
    df_over_f, timestamps = _read_traces(file["calcium_traces"])
    is_brainsets = _attribute(file, "brainset", "id") == _BRAINSETS_ALLEN
    subject = _attribute(file, "subject", "id")
    return Recording(
        recording_id=_attribute(file, "session", "id") or path.stem,
        df_over_f=df_over_f,
        timestamps=timestamps,
        units=_read_units(file, columns.get("units"), text.get("units", ())),
        stimuli=_read_stimuli(file, columns, text),
        templates=_open_templates(file, dict(json.loads(extras.get("templates", "{}")))),
        running=_read_running(file),
        pupil=_read_pupil(file),
        series=_read_series(file, dict(json.loads(extras.get("series", "{}")))),
        # brainsets calls the container the subject
        subject_id=extras.get("subject_id", None if is_brainsets or extras else subject),
        container_id=extras.get("container_id", subject if is_brainsets else None),
        session_type=extras.get("session_type"),
        source=extras.get("source", None if extras else str(path)),
        warnings=tuple(json.loads(extras.get("warnings", "[]"))),
    )


def _require_calcium_traces(file: h5py.File) -> None:
    if file.attrs.get("object") != "Data" or "calcium_traces" not in file:
        raise RecordingError(
            f"'{file.filename}' has no calcium_traces in torch-brain's form (found at its root: "
            f"{', '.join(file) or 'nothing'}). Give a file made by save_recording or by "
            f"'brainsets prepare {_BRAINSETS_ALLEN}'."
        )
    version = int(file["poyo_ssl"].attrs["format"]) if "poyo_ssl" in file else FORMAT
    if version > FORMAT:
        raise RecordingError(
            f"'{file.filename}' has format {version} but this version of poyo-ssl reads up to "
            f"{FORMAT}. Upgrade poyo-ssl, or save the recording again with this version."
        )


def _read_traces(group: h5py.Group) -> tuple[np.ndarray, np.ndarray]:
    """ΔF/F (num_timesteps, num_units) without the filled gaps, and the timestamps in seconds."""
    stored = group["df_over_f"]
    if "recorded_at" in group:
        times = group["recorded_at"][()]
        is_recorded = np.isfinite(times)
    else:
        rate = float(group.attrs["sampling_rate"])
        starts, ends = group["domain/start"][()], group["domain/end"][()]
        times = starts[0] + np.arange(len(stored)) / rate
        is_recorded = np.zeros(len(stored), dtype=bool)
        for first, stop in np.rint((np.stack([starts, ends], axis=1) - starts[0]) * rate):
            is_recorded[int(first) : int(stop)] = True
    if is_recorded.all():
        return _map_or_read(stored), times
    df_over_f = np.empty((np.count_nonzero(is_recorded), stored.shape[1]), dtype=stored.dtype)
    filled = 0
    edges = np.flatnonzero(np.diff(is_recorded, prepend=False, append=False))
    for first, stop in edges.reshape(-1, 2):
        place = slice(filled, filled + stop - first)
        stored.read_direct(df_over_f, np.s_[first:stop], place)
        filled = place.stop
    return df_over_f, times[is_recorded]


def _map_or_read(dataset: h5py.Dataset) -> np.ndarray:
    """A dataset's values, mapped read-only where they lie in the file as they are."""
    file, offset = dataset.file, dataset.id.get_offset()  # None where chunked or not yet written
    if offset is None or file.userblock_size or dataset.dtype.kind not in "iuf":
        return dataset[()]
    with open(file.filename, "rb") as handle:
        if not os.path.sameopenfile(handle.fileno(), file.id.get_vfd_handle()):
            return dataset[()]  # the file has just been replaced
        values = np.memmap(handle, dataset.dtype, mode="r", offset=offset, shape=dataset.shape)
    return np.asarray(values)


def _save_pictures(stimulus: str, pictures: np.ndarray, directory: Path) -> str:
    """Stores pictures unless they are there already; returns the name of their file."""
    pictures = np.ascontiguousarray(pictures)
    name = file_name(stimulus, marks_case=False)
    path = directory / f"{name}-{_hash_content(pictures)}.npy"
    if not path.is_file():
        with partial_file(path) as partial, partial.open("xb") as handle:
            np.save(handle, pictures, allow_pickle=False)
        publish(partial, path)
    return path.name


def _hash_content(pictures: np.ndarray) -> str:
    digest = hashlib.sha256(f"{pictures.dtype.str} {pictures.shape} ".encode())
    digest.update(pictures.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:32]


def _open_templates(file: h5py.File, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The pictures inside a file of format 1, and those beside it that a later one names."""
    templates = {
        name: _map_or_read(group["pictures"]) for name, group in file.get(TEMPLATES, {}).items()
    }
    for stimulus, name in names.items():
        if not _TEMPLATE_NAME.fullmatch(name):
            raise RecordingError(
                f"'{file.filename}' names '{name}' as the pictures of {stimulus}, which is no name "
                "that poyo-ssl gives. It is damaged or was made to mislead; save it again."
            )
        path = Path(file.filename).parent / TEMPLATES / name
        try:
            found = path.stat()
            templates[stimulus] = _open_pictures(path, found.st_size, found.st_mtime_ns)
        except (OSError, ValueError) as error:
            problem = "missing" if isinstance(error, FileNotFoundError) else f"damaged ({error})"
            logger.warning(
                "'%s' comes without the pictures of %s: '%s' is %s. Copy '%s/%s' from the folder "
                "that the recording was first saved in.",
                file.filename,
                stimulus,
                path,
                problem,
                TEMPLATES,
                name,
            )
    return templates


_OPEN_PICTURES: WeakValueDictionary[tuple[Path, int, int], np.ndarray] = WeakValueDictionary()
"""Pictures that recordings share; the file is closed with the last of them."""


def _open_pictures(path: Path, size: int, mtime_ns: int) -> np.ndarray:
    """Maps a file of pictures whose content is what its name says; checked once in a process.

    Args:
        path: The file.
        size: Its size and
        mtime_ns: its time, which tell it from another one of that name.
    """
    key = (path, size, mtime_ns)
    pictures = _OPEN_PICTURES.get(key)
    if pictures is None:
        _require_named_content(*key)
        pictures = np.asarray(np.lib.format.open_memmap(path, mode="r"))
        _OPEN_PICTURES[key] = pictures
    return pictures


@lru_cache(maxsize=64)
def _require_named_content(path: Path, size: int, mtime_ns: int) -> None:
    expected = path.stem.rpartition("-")[2]
    with path.open("rb") as handle:
        read_header(handle)  # numpy raises errors of all kinds over damaged ones
    if _hash_content(np.lib.format.open_memmap(path, mode="r")) != expected:
        raise ValueError("its content is not what its name says")


def _read_units(file: h5py.File, columns: list[str] | None, text: Sequence[str]) -> pd.DataFrame:
    stored = _read_columns(file["rois"])
    stored["unit_id"] = stored.pop("id")
    if columns is not None:
        return _as_table(stored, columns, text)
    depth = _attribute(file, "device", "imaging_depth")
    return pd.DataFrame(
        {
            "unit_id": [as_text(unit_id) for unit_id in stored["unit_id"]],
            "cre_line": _restore_dashes(_attribute(file, "subject", "cre_line")),
            "area": _attribute(file, "device", "target_area"),
            "imaging_depth_um": float(depth) if depth else None,
        }
    )


def _restore_dashes(cre_line: str | None) -> str | None:
    """The Cre line as Allen writes it: brainsets turns ``Ntsr1-Cre_GN220`` into all underscores."""
    return re.sub("(?<!Cre)_", "-", cre_line) if cre_line else None


def _as_table(
    stored: Mapping[str, np.ndarray], columns: Sequence[str], text: Sequence[str]
) -> pd.DataFrame:
    """The columns under our names, in our order.

    Args:
        stored: The columns as they are stored.
        columns: Our names.
        text: Those whose type is object, as text of the readers is; pandas calls other text str.
    """
    values = {
        name: stored.get(placed_column(place), stored.get(name))
        for place, name in enumerate(columns)
    }
    missing = [name for name, column in values.items() if column is None]
    if missing:
        raise KeyError(missing[0])
    return pd.DataFrame(
        {
            name: pd.Series(column, dtype=object if name in text else None)
            for name, column in values.items()
        }
    )


def _read_stimuli(
    file: h5py.File, columns: dict[str, list[str]], text: dict[str, list[str]]
) -> dict[str, pd.DataFrame]:
    tables = {}
    for name, group in file.items():
        is_interval = isinstance(group, h5py.Group) and group.attrs.get("object") == "Interval"
        if is_interval and name != "domain" and not name.endswith("_domain"):
            tables[name] = _read_table(name, group, columns.get(name), text.get(name, ()))
    if "spontaneous_domain" in file:
        tables["spontaneous"] = _read_table("spontaneous", file["spontaneous_domain"], None, ())
    return tables


def _read_table(
    name: str, group: h5py.Group, columns: list[str] | None, text: Sequence[str]
) -> pd.DataFrame:
    stored = _read_columns(group)
    if name.startswith("natural_movie") and "frame" in stored:
        stored["movie_frame"] = stored.pop("frame")
    if name == "natural_scenes" and "frame" in stored:
        stored["image"] = stored.pop("frame") - 1
    if columns is None:
        derived = {"timestamps", *(f"{column}_id" for column in stored)}
        columns = ["start", "end", *sorted(set(stored) - derived - {"start", "end"})]
    table = _as_table(stored, columns, text)
    if "original_row" in stored:
        table = table.iloc[np.argsort(stored["original_row"])].reset_index(drop=True)
    return table


def _read_running(file: h5py.File) -> pd.DataFrame | None:
    if "running" not in file:
        return None
    stored = _read_columns(file["running"])
    return pd.DataFrame(
        {"timestamp": stored["timestamps"], "speed": stored["running_speed"].reshape(-1)}
    )


def _read_pupil(file: h5py.File) -> pd.DataFrame | None:
    if "pupil" not in file:
        return None
    stored = _read_columns(file["pupil"])
    x, y = stored["location"].T
    return pd.DataFrame({"timestamp": stored["timestamps"], "x": x, "y": y, "size": stored["size"]})


def _read_series(file: h5py.File, columns: dict[str, list[str]]) -> dict[str, pd.DataFrame]:
    tables = {}
    for name, names in columns.items():
        stored = _read_columns(file["series"][name])
        stored["timestamp"] = stored.pop("timestamps")
        tables[name] = _as_table(stored, names, ())
    return tables


def _read_columns(group: h5py.Group) -> dict[str, np.ndarray]:
    """The arrays of a torch-brain object; text is decoded and missing text becomes None."""
    columns = {}
    for name, item in group.items():
        if isinstance(item, h5py.Dataset):
            values = item[()]
            if h5py.check_string_dtype(item.dtype):
                values = np.array([as_text(value) for value in values.tolist()], dtype=object)
                values[values == ""] = None
            columns[name] = values
    return columns


def _attribute(file: h5py.File, group: str, name: str) -> str | None:
    """One piece of metadata as text, or None where it is missing."""
    value = file[group].attrs.get(name) if group in file else None
    return None if value is None else as_text(value)
