"""Opening HDF5 files that came from elsewhere: errors that explain, and no way out of the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from poyo_ssl.recordings.recording import RecordingError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LARGEST_COMPRESSION = 1100  # deflate reaches at most 1032:1
_ALWAYS_READABLE = 2**30  # bytes that any dataset may have, whatever the file holds of it


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Opens an HDF5 file for reading, after checking that all of its data lies inside it.

    Errors that h5py raises while the file is open are turned into a ``RecordingError`` that
    names the file: in a file that opens, they mean that part of it is missing, damaged or not
    of the form that the reader knows.

    Raises:
        RecordingError: If the file is missing, is not HDF5, is truncated or damaged, or refers
            to other files.
    """
    path = Path(path)
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "there is no such file"
        raise RecordingError(f"Cannot open '{path}': {found}. Give the path of an HDF5 file.")
    try:
        _refuse_other_formats(path)
        with h5py.File(path, "r") as file:
            refuse_foreign_storage(file)
            refuse_inflated_datasets(file)
            yield file
    except RecordingError:
        raise
    except (OSError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise RecordingError(
            f"'{path}' ({path.stat().st_size} bytes) cannot be read: {_first_line(error)} "
            "It is truncated, damaged or of an unknown form; download or copy it again."
        ) from error


def _refuse_other_formats(path: Path) -> None:
    with path.open("rb") as handle:
        beginning = handle.read(len(_SIGNATURE))
    if beginning != _SIGNATURE and not h5py.is_hdf5(path):
        found = f"begins with {beginning!r}" if beginning else "is empty"
        raise RecordingError(
            f"'{path}' is not an HDF5 file (it {found}). Recordings are NWB 2 files or the HDF5 "
            "files of torch-brain; if it was downloaded, open it in a text editor: it may be an "
            "error page or a pointer to the real file."
        )


def refuse_foreign_storage(file: h5py.File) -> None:
    """Checks that a file holds its own data and points at no other file.

    External links, external raw storage and virtual datasets make HDF5 open whatever path the
    file names: a downloaded recording could then read any file of its user, and a model or
    report would carry the content on. The walk reads link and dataset headers only.

    Raises:
        RecordingError: If any link or dataset leads to another file.
    """
    foreign = []
    for name, item in _walk(file):
        if item is None:
            foreign.append(f"{name} (link out of the file)")
        elif isinstance(item, h5py.h5d.DatasetID):
            creation = item.get_create_plist()
            if creation.get_external_count():
                foreign.append(f"{name} (raw data in another file)")
            elif creation.get_layout() == h5py.h5d.VIRTUAL:
                foreign.append(f"{name} (virtual dataset)")
    if foreign:
        raise RecordingError(
            f"'{file.filename}' takes data from other files: {', '.join(foreign[:5])}"
            f"{' and more' if len(foreign) > 5 else ''}. Recordings must hold their own data; "
            "copy it into one file (for instance with h5repack or pynwb's export) first."
        )


def refuse_inflated_datasets(file: h5py.File) -> None:
    """Checks that no large dataset declares far more data than the file holds for it.

    A damaged or crafted header can declare terabytes; reading them would take all memory.

    Raises:
        RecordingError: If a dataset is larger than any compression allows.
    """
    for name, item in _walk(file):
        if isinstance(item, h5py.h5d.DatasetID):
            declared = item.get_space().get_simple_extent_npoints() * item.get_type().get_size()
            stored = item.get_storage_size()
            if declared > _ALWAYS_READABLE and declared > _LARGEST_COMPRESSION * stored:
                raise RecordingError(
                    f"'{file.filename}': {name} declares {declared / 2**30:.0f} GiB but the file "
                    f"holds {stored} bytes of it. It is damaged or incomplete; download or copy "
                    "it again."
                )


def _walk(file: h5py.File) -> Iterator[tuple[str, h5py.h5d.DatasetID | h5py.h5g.GroupID | None]]:
    """Every link and the object behind it, None if that is elsewhere; soft links are left out."""
    names: list[bytes] = []
    file.id.links.visit(names.append)  # follows neither soft nor external links
    for name in names:
        kind = file.id.links.get_info(name).type
        if kind != h5py.h5l.TYPE_SOFT:
            is_here = kind == h5py.h5l.TYPE_HARD
            text = name.decode("utf-8", errors="replace")
            yield text, h5py.h5o.open(file.id, name) if is_here else None


def has_dataset(group: h5py.Group, name: str) -> bool:
    """Whether a dataset can be reached by this name; ``in`` is true of a dangling link, too."""
    return isinstance(group.get(name), h5py.Dataset)


def as_text(value: object) -> str:
    """One value of an HDF5 attribute or dataset as text; whole numbers without a point."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def read_text(group: h5py.Group, name: str) -> str | None:
    """A scalar text dataset, or None where it is missing or empty."""
    if not has_dataset(group, name) or group[name].size != 1:
        return None
    return as_text(np.asarray(group[name][()]).ravel()[0]).strip() or None


def _first_line(error: BaseException) -> str:
    text = str(error.args[0] if error.args else error).splitlines() or [type(error).__name__]
    is_bare_key = isinstance(error, KeyError) and text[0].isidentifier()
    return (f"it lacks '{text[0]}'" if is_bare_key else text[0].rstrip(".")) + "."
