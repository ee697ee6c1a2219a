"""Cells that were tracked across sessions by other programs: one unit id in all of them."""

from __future__ import annotations

import csv
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from poyo_ssl.recordings.formats.suite2p import count_rois, find_plane
from poyo_ssl.recordings.recording import Recording, RecordingError, as_recordings
from poyo_ssl.recordings.untrusted_files.absent import explain_os_error
from poyo_ssl.recordings.untrusted_files.numpy_files import open_array, read_dtype
from poyo_ssl.recordings.untrusted_files.safe_pickle import as_number, read_objects

logger = logging.getLogger(__name__)

_NO_CELL = -1
"""Number of a ROI that was not tracked; as ROICaT has it, all below 0 are."""
_LARGEST_TEXT = 2**30
"""Bytes of a table or JSON file; ROICaT's of ten thousand ROIs has some ten million."""


class _Session(NamedTuple):
    """What a file says of one session."""

    cells: Mapping[int, int]
    """Row of ``F.npy`` to number of the cell, below 0 for none."""
    num_rois: int | None
    """How many there are, where the file lists all."""


def track_units(
    recordings: Sequence[Recording],
    path: str | Path,
    *,
    subject_id: str,
    sessions: Sequence[str | int] | None = None,
) -> list[Recording]:
    """Gives cells that ROICaT or track2p found in several sessions one unit id.

    A tracked cell is called ``<subject_id>/cell-<number>`` in every session; all others keep the
    id that they have. Read are ROICaT's ``....tracking.results_clusters.json`` and the table
    ``ROICaT.tracking.results.csv``, and track2p's ``plane0_suite2p_indices.npy``, of which
    nothing is unpickled. All count the ROIs of a session as suite2p does, so units must end in
    their row of ``F.npy``, as those of suite2p folders do.

    Args:
        recordings: The sessions that were tracked.
        path: What the program wrote about them, of one imaging plane.
        subject_id: The animal; the same cell number of two animals is two cells.
        sessions: What the file calls each of the recordings: the names in ROICaT's table, and
            numbers from 0 in files that name no session. None: by recording id where the file has
            names, else in the order of the recordings, with a warning that says what was assumed.

    Returns:
        The same recordings with other unit ids.

    Raises:
        RecordingError: If the file is of none of these forms, does not know a session or a unit,
            or is about another number of ROIs than the session's folder has.
    """
    path = Path(path)
    if path.suffix.lower() not in READERS:
        raise RecordingError(
            f"'{path}' is not read: {_explain(path)}. Give ROICaT's "
            "'....tracking.results_clusters.json' or 'ROICaT.tracking.results.csv', or track2p's "
            "'plane0_suite2p_indices.npy'."
        )
    recordings = as_recordings(recordings)
    found = READERS[path.suffix.lower()](path)
    keys = _match(recordings, found, path) if sessions is None else list(sessions)
    if len(keys) != len(recordings) or len(set(keys)) < len(keys) or not set(keys) <= set(found):
        raise RecordingError(
            f"sessions must name {len(recordings)} different sessions of '{path}', one for every "
            f"recording, got {keys}. There are {_list(found)}."
        )
    tracked = []
    for recording, key in zip(recordings, keys, strict=True):
        _require_as_many_rois(recording, found[key], path)
        tracked.append(_rename(recording, found[key].cells, subject_id, path))
    shared = set.intersection(*(set(recording.unit_ids) for recording in tracked))
    logger.info("%s: %d cells are in all %d sessions.", path, len(shared), len(tracked))
    return tracked


def _match(
    recordings: Sequence[Recording], found: Mapping[str | int, _Session], path: Path
) -> list[str | int]:
    """What the file calls each of the recordings."""
    ids: list[str | int] = [recording.recording_id for recording in recordings]
    if all(isinstance(key, str) for key in found):
        if not set(ids) <= set(found):
            raise RecordingError(
                f"'{path}' is about the sessions {_list(found)}, and the recordings are called "
                f"{_list(ids)}. Say which is which: sessions=[...], one name for every recording."
            )
        return ids
    if len(found) != len(recordings):
        raise RecordingError(
            f"'{path}' tracks {len(found)} sessions, and {len(recordings)} recordings are given. "
            "Give all of them, in the order that they were tracked in, or the number of each: "
            "sessions=[0, ...]."
        )
    logger.warning(
        "'%s' does not name its sessions: %s are taken for its sessions %s, in this order. If that "
        "is right, sessions=%s says so.",
        path, _list(ids), _list(found), list(found),
    )  # fmt: skip
    return list(found)


def _list(names: Iterable[str | int]) -> str:
    return ", ".join(map(repr, names))


def _require_as_many_rois(recording: Recording, session: _Session, path: Path) -> None:
    """Checks a session against the folder that it was read from, where that is at hand."""
    folder = Path(recording.source or "")
    if not recording.source or not folder.is_dir():
        return
    num_rois = count_rois(find_plane(folder))
    last = max(session.cells, default=-1)
    if last >= num_rois or session.num_rois not in (None, num_rois):
        told = f"row {last} of F.npy" if session.num_rois is None else f"{session.num_rois} ROIs"
        raise RecordingError(
            f"'{path}' speaks of {told} in the session that recording '{recording.recording_id}' "
            f"is taken for, and '{folder}' has {num_rois} ROIs. Say which session it is: "
            "sessions=[...], one for every recording."
        )


def _explain(path: Path) -> str:
    if path.suffix.lower() in (".pkl", ".pickle"):
        return "a pickle is a program, and none is run"
    if ".richfile" in path.name:
        return "ROICaT writes the same labels as JSON beside it"
    return f"its name ends in '{path.suffix}'"


def _rename(
    recording: Recording, cells: Mapping[int, int], subject_id: str, path: Path
) -> Recording:
    """The recording with the ids of tracked cells.

    Args:
        recording: One session.
        cells: Row of ``F.npy`` to number of the cell, ``_NO_CELL`` for none.
        subject_id: The animal.
        path: Where the cells were read from.
    """
    names = []
    for unit_id in recording.unit_ids.tolist():
        row = unit_id.rpartition("/")[2]
        if not row.isdecimal():
            raise RecordingError(
                f"Recording '{recording.recording_id}' has the unit '{unit_id}', which does not "
                f"end in a row of F.npy, as '{path}' counts cells. Give suite2p's recordings."
            )
        try:
            cell = cells[int(row)]
        except KeyError as error:
            raise RecordingError(
                f"'{path}' knows {len(cells)} ROIs of recording '{recording.recording_id}', but "
                f"not '{unit_id}', row {row} of F.npy. Track all ROIs, not cells alone, and "
                "give the recordings in the order that they were tracked in."
            ) from error
        names.append(unit_id if cell < 0 else f"{subject_id}/cell-{cell}")
    return replace(recording, units=recording.units.assign(unit_id=names), subject_id=subject_id)


def _read_roicat_json(path: Path) -> dict[str | int, _Session]:
    """``labels_bySession``: of every session, the cell of every ROI, -1 for none."""
    text = _read_text(path)
    try:
        labels = json.loads(text)["labels_bySession"]
        sessions = [[int(label) for label in session] for session in labels]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise RecordingError(
            f"'{path}' is not ROICaT's: it holds no labels_bySession, a list of labels for every "
            f"session ({type(error).__name__}). Give '....tracking.results_clusters.json'."
        ) from error
    return {
        number: _Session(dict(enumerate(labels)), len(labels))
        for number, labels in enumerate(sessions)
    }


def _read_roicat_csv(path: Path) -> dict[str | int, _Session]:
    """One row a ROI: ``session_name``, ``roi_session_index`` and ``ucid``, -1 for none."""
    rows = list(csv.DictReader(_read_text(path).splitlines()))
    needed = {"session_name", "roi_session_index", "ucid"}
    lacking = needed - set(rows[0] if rows else ())
    planes = dict.fromkeys(row.get("fov_name") or "" for row in rows)
    if lacking or len(planes) > 1:
        found = f"it lacks {', '.join(sorted(lacking))}"
        if not lacking:
            found = f"it is about several planes: {', '.join(planes)}"
        raise RecordingError(
            f"'{path}' is no table of one plane's tracked ROIs: {found}. Give one row a ROI with "
            f"{', '.join(sorted(needed))}."
        )
    sessions: dict[str, dict[int, int]] = {row["session_name"]: {} for row in rows}
    try:
        for row in rows:
            sessions[row["session_name"]][int(row["roi_session_index"])] = int(row["ucid"])
    except (ValueError, TypeError) as error:
        raise RecordingError(
            f"'{path}': roi_session_index and ucid must be whole numbers ({error})."
        ) from error
    return {name: _Session(cells, len(cells)) for name, cells in sessions.items()}


def _read_track2p(path: Path) -> dict[str | int, _Session]:
    """Cells x sessions: the row of ``F.npy``, None (or NaN) where the cell was not found."""
    if "suite2p_indices" not in path.name:  # plane0_match_mat.npy looks the same
        raise RecordingError(
            f"'{path}' is not read: of track2p, only 'plane0_suite2p_indices.npy' counts ROIs by "
            "their row of F.npy; 'plane0_match_mat.npy' counts those alone that it took for cells."
        )
    if read_dtype(path) == np.dtype(object):
        shape, objects = read_objects(path)
        rows = np.array([_as_row(value) for value in objects], dtype=float)
        rows = rows.reshape(shape) if len(shape) == 2 else rows
    else:
        rows = np.asarray(open_array(path), dtype=float)
    is_row = np.isnan(rows) | ((rows >= 0) & (rows == np.rint(rows)))
    if rows.ndim != 2 or not is_row.all():
        raise RecordingError(
            f"'{path}' has shape {rows.shape}; rows of F.npy, one line a cell and one column a "
            "session, are needed, None or NaN where the cell was not found."
        )
    known = ([(int(row), cell) for cell, row in enumerate(s) if not np.isnan(row)] for s in rows.T)
    # all others are in no row
    cells = (defaultdict(lambda: _NO_CELL, pairs) for pairs in known)
    return {number: _Session(of_session, None) for number, of_session in enumerate(cells)}


def _as_row(value: object) -> float:
    number = as_number(value)
    return np.nan if number is None else number


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_TEXT:
            raise RecordingError(f"'{path}' has more than {_LARGEST_TEXT} bytes. It is damaged.")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecordingError(f"'{path}' is no text in UTF-8: {error}.") from error
    except OSError as error:
        plain = f"'{path}' cannot be opened: {error.strerror or error}."
        raise RecordingError(explain_os_error(path, error) or plain) from error


READERS: dict[str, Callable[[Path], dict[str | int, _Session]]] = {
    ".json": _read_roicat_json,
    ".csv": _read_roicat_csv,
    ".npy": _read_track2p,
}
"""Ending to what reads it: sessions by name, or by number where the file has no names."""
