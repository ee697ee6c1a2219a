"""From paths to recordings, whatever the format of the files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from poyo_ssl.recordings.hdf5 import open_hdf5
from poyo_ssl.recordings.nwb import read_nwb
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.recordings.storage import open_recording

logger = logging.getLogger(__name__)

_DEFAULT_SOURCE = SourceConfig()
_SUFFIXES = (".nwb", ".h5", ".hdf5")


def find_recording_files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """The files among the paths, and every ``.nwb``, ``.h5`` and ``.hdf5`` file in the folders.

    Folders are searched to any depth; hidden files are left out. A file that is named twice is
    returned once.

    Returns:
        Paths in alphabetical order.

    Raises:
        RecordingError: If a path does not exist or a folder holds no such file; every such path
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
            files = [item for item in inside if _is_recording_name(item)]
            if not files:
                problems.append(_describe_empty(path, inside))
        elif path.is_file():
            files = [path]
        else:
            problems.append(f"'{path}' does not exist.")
            continue
        for file in files:
            found.setdefault(file.resolve(), file)
    if problems:
        raise RecordingError("\n".join(problems))
    return sorted(found.values())


def load_recording(path: str | Path, source: SourceConfig = _DEFAULT_SOURCE) -> Recording:
    """Reads one recording with the reader for what it holds; its name does not matter.

    Args:
        path: A file.
        source: What the file does not say about itself.

    Raises:
        RecordingError: If the file is neither NWB nor a torch-brain recording, or is damaged.
    """
    with open_hdf5(path) as file:
        if "nwb_version" in file.attrs or "nwb_version" in file or "processing" in file:
            read: Callable[[str | Path], Recording] = read_nwb
        elif file.attrs.get("object") == "Data":
            read = open_recording
        else:
            raise RecordingError(
                f"'{path}' is HDF5 but neither NWB nor a torch-brain recording (found at its "
                f"root: {', '.join(file) or 'nothing'}). Convert it to NWB 2 first."
            )
    return read(path)


def load_recordings(
    paths: str | Path | Iterable[str | Path],
    source: SourceConfig = _DEFAULT_SOURCE,
    *,
    skip_broken: bool = False,
) -> list[Recording]:
    """Reads every recording among the paths into memory.

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
        f"{', '.join(_SUFFIXES)} files: download NWB files from DANDI:000728 or run "
        "'brainsets prepare allen_visual_coding_ophys_2016' first."
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
        equal = (array for array in known.values() if np.array_equal(array, pictures))
        templates[name] = next(equal, pictures)
    return replace(recording, templates=templates)


def _with_unique_ids(recordings: list[Recording], files: Sequence[Path]) -> list[Recording]:
    """Renames recordings that share an id after their files."""
    counts = Counter(recording.recording_id for recording in recordings)
    if max(counts.values()) == 1:
        return recordings
    for rename in (_stem, _name, _folder_and_name):
        ids = [
            rename(file) if counts[recording.recording_id] > 1 else recording.recording_id
            for recording, file in zip(recordings, files, strict=True)
        ]
        twice = [str(file) for file, name in zip(files, ids, strict=True) if ids.count(name) > 1]
        if not twice:
            break
    else:
        raise RecordingError(
            f"These files hold the same recording: {', '.join(twice)}. Remove the copies."
        )
    for recording, file, name in zip(recordings, files, ids, strict=True):
        if counts[recording.recording_id] > 1:
            logger.warning(
                "'%s' holds recording '%s', as another file does; it is called '%s' here. "
                "If it is the same session, remove one: what one trains on, the other tests.",
                file,
                recording.recording_id,
                name,
            )
    return [
        replace(recording, recording_id=name)
        for recording, name in zip(recordings, ids, strict=True)
    ]


def _stem(file: Path) -> str:
    return file.stem


def _name(file: Path) -> str:
    return file.name


def _folder_and_name(file: Path) -> str:
    return f"{file.resolve().parent.name}-{file.name}"
