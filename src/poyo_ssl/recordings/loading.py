"""From paths to recordings, whatever the format of the files."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from poyo_ssl.collected_warnings import collect_warnings
from poyo_ssl.file_names import is_own_result
from poyo_ssl.kinds_of_arguments import as_list
from poyo_ssl.recordings.dandi.remote import open_remote
from poyo_ssl.recordings.events import convolve_events
from poyo_ssl.recordings.formats.arrays import ARRAYS
from poyo_ssl.recordings.formats.caiman import CAIMAN
from poyo_ssl.recordings.formats.foreign import describe_foreign
from poyo_ssl.recordings.formats.format import Format
from poyo_ssl.recordings.formats.nwb import NWB2
from poyo_ssl.recordings.formats.nwb1 import NWB1
from poyo_ssl.recordings.formats.roiextractors_formats import INSCOPIX, MINIAN
from poyo_ssl.recordings.formats.suite2p import SUITE2P
from poyo_ssl.recordings.formats.torch_brain import TORCH_BRAIN
from poyo_ssl.recordings.raw_fluorescence import warn_of_raw_fluorescence
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.recordings.untrusted_files.absent import explain_absent, explain_os_error
from poyo_ssl.recordings.untrusted_files.hdf5 import open_hdf5

logger = logging.getLogger(__name__)

_DEFAULT_SOURCE = SourceConfig()
FORMATS: tuple[Format, ...] = (
    NWB1, NWB2, TORCH_BRAIN, CAIMAN, INSCOPIX, MINIAN, SUITE2P, ARRAYS
)  # fmt: skip
"""Every format that is read; where several recognise a file, the first one reads it."""
_SUFFIXES = tuple(dict.fromkeys(suffix for known in FORMATS for suffix in known.suffixes))


def find_recording_files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """The files among the paths, and every recording in the folders.

    Recordings are ``.nwb``, ``.h5``, ``.hdf5``, ``.isxd`` and ``.npz`` files, the folders of
    suite2p's planes (of several planes ``combined``, where suite2p made it) and those of Minian.
    Folders are searched to any depth, through links, too; hidden files and folders, and what a
    run saved there, are left out. A file that is named twice is
    returned once. Links to what is not there are returned, so that reading them says so.

    Returns:
        Paths in alphabetical order.

    Raises:
        RecordingError: If a path does not exist or a folder holds no recording; every such path
            is named.
    """
    given = as_list(paths, (str, Path), "Give paths of files or folders that hold recordings.")
    if not given:
        raise RecordingError("No path was given. Give files or folders that hold recordings.")
    found: dict[Path, Path] = {}
    problems = []
    for path in map(Path, given):
        if os.path.isdir(path):
            below, closed = _files_below(path)
            inside = [item for item in below if not is_own_result(item)]
            problems += closed
            files = [item for item in inside if _is_recording_name(item)]
            files += [folder for known in FORMATS for folder in known.find_folders(inside)]
            if not files and not closed:
                problems.append(_describe_empty(path, inside))
        elif os.path.isfile(path):
            files = [path]
        else:
            problems.append(explain_absent(path))
            continue
        for file in files:
            found.setdefault(file.resolve(), file)
    if problems:
        raise RecordingError("\n".join(problems))
    return sorted(found.values())


def load_recording(path: str | Path, source: SourceConfig = _DEFAULT_SOURCE) -> Recording:
    """Reads one recording with the reader for what it holds; its name does not matter.

    NWB 2 (as in DANDI:000728, or any with ΔF/F or fluorescence), NWB 1 of the AllenSDK's cache,
    torch-brain and brainsets HDF5, analyses of CaImAn, cell sets of Inscopix, folders of Minian
    and suite2p, and ``.npz`` arrays. A web
    address of an NWB file is read where it lies; only what is needed is fetched (``pip install
    "poyo-ssl[remote]"``).

    What is warned of meanwhile is said once and stays with the recording, in ``warnings``.

    Args:
        path: A file, a folder of suite2p or a web address.
        source: What it does not say about itself.

    Raises:
        RecordingError: If it is none of these, or is damaged.
    """
    with collect_warnings("poyo_ssl.recordings") as said:
        recording = warn_of_raw_fluorescence(_load(path, source))
        if source.sessions_apart:
            recording = recording.with_own_units()
        if source.event_decay:
            recording = convolve_events(recording, source.event_decay)
    if not said:
        return recording
    return replace(recording, warnings=tuple(dict.fromkeys([*recording.warnings, *said])))


def _load(path: str | Path, source: SourceConfig) -> Recording:
    if isinstance(path, str) and path.startswith(("http://", "https://")):
        with closing(open_remote(path)) as remote, open_hdf5(remote, name=path) as file:
            read = _identify_hdf5(file).read_hdf5
            if read is None:
                raise RecordingError(
                    f"'{path}' cannot be read where it lies: it is no NWB file. Download it first."
                )
            return read(file, source)
    return identify_format(path).read(path, source)


def identify(path: str | Path) -> str:
    """The name of what a file or folder holds, one of :data:`FORMATS`; its own does not matter.

    Raises:
        RecordingError: If it is none of these.
    """
    return identify_format(path).name


def identify_format(path: str | Path) -> Format:
    """What a file or folder holds, one of :data:`FORMATS`; its name does not matter.

    Raises:
        RecordingError: If it is none of these.
    """
    if not os.path.exists(path):
        raise RecordingError(explain_absent(Path(path)))
    for known in FORMATS:
        if known.recognises(Path(path)):
            return known
    with open_hdf5(path) as file:
        return _identify_hdf5(file)


def session_folder(path: Path) -> Path:
    """The folder that the stimulus tables of a source lie in; the file itself need not be whole."""
    for known in FORMATS:
        if known.recognises(path):
            return known.session_folder(path)
    return path.parent


def how_to_tell_apart(path: Path) -> str:
    """What to do about a file that holds a recording id which another file holds, too."""
    if identify_format(path).names_units_after_file:
        return (
            "Remove it if it is a copy; else rename its folder or file, which the recording is "
            "called after."
        )
    return "Remove it if it is a copy; else give it a call and an output of its own."


def _identify_hdf5(file: h5py.File) -> Format:
    for known in FORMATS:
        if known.recognises_hdf5(file):
            return known
    raise RecordingError(describe_foreign(file))


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
        hint = "\nSet skip_broken=True to continue with the others." if recordings else ""
        raise RecordingError(
            f"{len(broken)} of {len(files)} recordings cannot be read:\n- "
            + "\n- ".join(broken)
            + hint
        )
    for problem in broken:
        logger.warning("Left out: %s", problem)
    return _with_unique_ids(recordings, sources)


def _files_below(folder: Path) -> tuple[list[Path], list[str]]:
    """Files and broken links in a folder, and why some folders could not be looked into."""
    files: list[Path] = []
    closed: list[str] = []
    seen: set[str] = set()

    def explain(error: OSError) -> None:
        place = Path(error.filename or folder)
        closed.append(explain_os_error(place, error) or f"'{place}': {error.strerror}.")

    for directory, folders, names in os.walk(folder, followlinks=True, onerror=explain):
        place = os.path.realpath(directory)
        is_new = place not in seen  # links may lead round in a circle
        seen.add(place)
        folders[:] = sorted(name for name in folders if is_new and not name.startswith("."))
        if is_new:
            files += [Path(directory, name) for name in sorted(names)]
    return [item for item in files if item.is_file() or item.is_symlink()], closed


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
            warning = (
                f"'{file}' holds recording '{recording.recording_id}', as another file does; it is "
                f"called '{names[file]}' here. If it is the same session, remove one: what one "
                "trains on, the other tests."
            )
            logger.warning("%s", warning)
            recording = _rename(recording, names[file], file)
            recording = replace(recording, warnings=(*recording.warnings, warning))
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
    """The parts of a path without those that its format gives to every session."""
    alike = {folder for known in FORMATS for folder in known.own_folders}
    return [part for part in file.resolve().parts[1:] if part not in alike]


def _rename(recording: Recording, name: str, file: Path) -> Recording:
    """The recording under another name.

    Where the old one was that of its folder or file, another session has it by accident, so its
    units get other names, too. An NWB file names its session itself: two of one name are parts
    of one session, whose cells are the same.
    """
    units = recording.units
    if identify_format(file).names_units_after_file:
        of_recording = f"{recording.recording_id}/"
        own = [
            name + unit_id[len(of_recording) - 1 :] if unit_id.startswith(of_recording) else unit_id
            for unit_id in recording.unit_ids.tolist()
        ]
        units = units.assign(unit_id=own)
    return replace(recording, recording_id=name, units=units)
