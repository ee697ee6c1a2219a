"""From paths to recordings, whatever the format of the files."""

from __future__ import annotations

import logging
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from poyo_ssl.recordings.dandi.remote import open_remote
from poyo_ssl.recordings.formats.arrays import read_npz
from poyo_ssl.recordings.formats.nwb import is_nwb2, read_nwb, recording_from_nwb
from poyo_ssl.recordings.formats.nwb1 import is_nwb1, read_nwb1, recording_from_nwb1
from poyo_ssl.recordings.formats.suite2p import COMBINED, find_planes, read_suite2p
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.recordings.storage import open_recording
from poyo_ssl.recordings.untrusted_files.hdf5 import open_hdf5

logger = logging.getLogger(__name__)

_DEFAULT_SOURCE = SourceConfig()
_SUFFIXES = (".nwb", ".h5", ".hdf5", ".npz")


def find_recording_files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """The files among the paths, and every recording in the folders.

    Recordings are ``.nwb``, ``.h5``, ``.hdf5`` and ``.npz`` files and the folders of suite2p's
    planes (of several planes ``combined``, where suite2p made it). Folders are searched to any
    depth; hidden files are left out. A file that is named twice is returned once.

    Returns:
        Paths in alphabetical order.

    Raises:
        RecordingError: If a path does not exist or a folder holds no recording; every such path
            is named.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise RecordingError("No path was given. Give files or folders that hold recordings.")
    found: dict[Path, Path] = {}
    problems = []
    for path in map(Path, given):
        if path.is_dir():
            inside = [item for item in path.rglob("*") if item.is_file()]
            files = [item for item in inside if _is_recording_name(item)] + find_planes(inside)
            if not files:
                problems.append(_describe_empty(path, inside))
        elif path.is_file():
            files = [path]
        else:
            problems.append(f"'{path}' does not exist. Correct the path.")
            continue
        for file in files:
            found.setdefault(file.resolve(), file)
    if problems:
        raise RecordingError("\n".join(problems))
    return sorted(found.values())


def load_recording(path: str | Path, source: SourceConfig = _DEFAULT_SOURCE) -> Recording:
    """Reads one recording with the reader for what it holds; its name does not matter.

    NWB 2 (as in DANDI:000728, or any with ΔF/F or fluorescence), NWB 1 of the AllenSDK's cache,
    torch-brain and brainsets HDF5, suite2p folders and ``.npz`` arrays. A web address of an NWB
    file is read where it lies; only what is needed is fetched (``pip install 'poyo-ssl[remote]'``).

    Args:
        path: A file, a folder of suite2p or a web address.
        source: What it does not say about itself.

    Raises:
        RecordingError: If it is none of these, or is damaged.
    """
    if isinstance(path, str) and path.startswith(("http://", "https://")):
        with closing(open_remote(path)) as remote, open_hdf5(remote, name=path) as file:
            read = recording_from_nwb1 if _identify_hdf5(file) == "NWB 1" else recording_from_nwb
            recording = read(file, source)
    else:
        recording = READERS[identify(path)](path, source)
    return recording.with_own_units() if source.sessions_apart else recording


def identify(path: str | Path) -> str:
    """What a file or folder holds, one of :data:`READERS`; its name does not matter.

    Raises:
        RecordingError: If it is none of these.
    """
    if Path(path).is_dir():
        return "suite2p"
    if zipfile.is_zipfile(path):
        return "arrays"
    with open_hdf5(path) as file:
        return _identify_hdf5(file)


def _identify_hdf5(file: h5py.File) -> str:
    if is_nwb1(file):
        return "NWB 1"
    if is_nwb2(file):
        return "NWB 2"
    if file.attrs.get("object") == "Data":
        return "torch-brain"
    raise RecordingError(
        f"'{file.filename}' is HDF5 but neither NWB nor a torch-brain recording (found at its "
        f"root: {', '.join(file) or 'nothing'}). Convert it to NWB 2, or save its arrays as .npz "
        "(see poyo_ssl.recordings.formats.arrays.read_npz)."
    )


def _open_stored(path: str | Path, source: SourceConfig) -> Recording:
    if source.stimuli:
        logger.warning(
            "'%s' is a stored recording and keeps its stimuli: the source's tables of %s are not "
            "read. Prepare it from its original again, with this source.",
            path,
            ", ".join(source.stimuli),
        )
    return open_recording(path)


READERS: dict[str, Callable[[str | Path, SourceConfig], Recording]] = {
    "NWB 2": read_nwb,
    "NWB 1": read_nwb1,
    "torch-brain": _open_stored,
    "suite2p": read_suite2p,
    "arrays": read_npz,
}
"""Format to the function that reads it."""


def load_recordings(
    paths: str | Path | Iterable[str | Path],
    source: SourceConfig = _DEFAULT_SOURCE,
    *,
    skip_broken: bool = False,
) -> list[Recording]:
    """Reads every recording among the paths; the traces of stored ones are mapped from disk.

    Pictures of a stimulus that are the same in several recordings are kept once. Files with the
    same recording id are told apart by their names, with a warning; their unit ids stay.

    Args:
        paths: Files and folders; see :func:`find_recording_files`.
        source: What the files do not say about themselves.
        skip_broken: Leave out files that cannot be read, with a warning for each.

    Raises:
        RecordingError: If files cannot be read (every one is named), unless ``skip_broken`` and
            at least one can.
    """
    files = find_recording_files(paths)
    recordings: list[Recording] = []
    sources: list[Path] = []
    broken = []
    for file in files:
        try:
            recording = load_recording(file, source)
        except RecordingError as error:
            broken.append(str(error))
            continue
        recordings.append(_share_templates(recording, recordings))
        sources.append(file)
    if broken and not (skip_broken and recordings):
        option = "skip_broken=True (poyo-ssl run --skip_broken)"
        hint = "" if skip_broken else f"\nPass {option} to go on with the others."
        raise RecordingError(
            f"{len(broken)} of {len(files)} recordings cannot be read:\n- "
            + "\n- ".join(broken)
            + hint
        )
    for problem in broken:
        logger.warning("Left out: %s", problem)
    return _with_unique_ids(recordings, sources)


def _is_recording_name(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def _describe_empty(folder: Path, inside: Sequence[Path]) -> str:
    counts = Counter(item.suffix.lower() or "nameless" for item in inside)
    found = ", ".join(
        f"{number} {suffix} {'file' if number == 1 else 'files'}"
        for suffix, number in counts.most_common(5)
    )
    return (
        f"No recordings in '{folder}' (found: {found or 'nothing'}). Expected are "
        f"{', '.join(_SUFFIXES)} files or folders of suite2p. Get sessions of the Allen Brain "
        "Observatory with 'poyo-ssl download', or run 'brainsets prepare "
        "allen_visual_coding_ophys_2016' first."
    )


def _share_templates(recording: Recording, others: Sequence[Recording]) -> Recording:
    """The recording with the others' arrays in place of equal ones of its own."""
    templates = {}
    for name, pictures in recording.templates.items():
        known = {
            id(other.templates[name]): other.templates[name]
            for other in others
            if name in other.templates
        }
        equal = (
            array
            for array in known.values()
            if array is pictures or np.array_equal(array, pictures)
        )
        templates[name] = next(equal, pictures)
    return replace(recording, templates=templates)


def _with_unique_ids(recordings: list[Recording], files: Sequence[Path]) -> list[Recording]:
    """Renames recordings that share an id after their files."""
    counts = Counter(recording.recording_id for recording in recordings)
    shared = [counts[recording.recording_id] > 1 for recording in recordings]
    if not any(shared):
        return recordings
    names = _tell_apart([file for file, is_shared in zip(files, shared, strict=True) if is_shared])
    renamed = []
    for recording, file in zip(recordings, files, strict=True):
        if file in names:
            logger.warning(
                "'%s' holds recording '%s', as another file does; it is called '%s' here. "
                "If it is the same session, remove one: what one trains on, the other tests.",
                file,
                recording.recording_id,
                names[file],
            )
            recording = _rename(recording, names[file], file)
        renamed.append(recording)
    return renamed


def _tell_apart(files: Sequence[Path]) -> dict[Path, str]:
    """Names made of as much of each path as it takes to differ from the others'."""
    names = [file.stem for file in files]
    depth = 0
    while len(set(names)) < len(names):  # ends, since no two paths are the same
        depth += 1
        names = ["-".join(_telling_parts(file)[-depth:]) for file in files]
    return dict(zip(files, names, strict=True))


def _telling_parts(file: Path) -> list[str]:
    """The parts of a path without those that suite2p gives to every session."""
    return [part for part in file.resolve().parts[1:] if part not in ("suite2p", COMBINED)]


def _rename(recording: Recording, name: str, file: Path) -> Recording:
    """The recording under another name.

    Where the old one was that of its folder or file, another session has it by accident, so its
    units get other names, too. An NWB file names its session itself: two of one name are parts
    of one session, whose cells are the same.
    """
    units = recording.units
    if file.is_dir() or zipfile.is_zipfile(file):
        of_recording = f"{recording.recording_id}/"
        own = [
            name + unit_id[len(of_recording) - 1 :] if unit_id.startswith(of_recording) else unit_id
            for unit_id in recording.unit_ids.tolist()
        ]
        units = units.assign(unit_id=own)
    return replace(recording, recording_id=name, units=units)
