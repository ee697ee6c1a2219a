"""Opening HDF5 files that came from elsewhere: errors that explain, and no way out of the file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
from numpy.typing import DTypeLike

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.untrusted_files.absent import (
    explain_absent,
    explain_os_error,
    explain_pointer,
)
from poyo_ssl.recordings.untrusted_files.hdf5_heaps import find_damaged_heap

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LARGEST_COMPRESSION = 1100  # deflate reaches at most 1032:1
_ALWAYS_READABLE = 2**30  # bytes that any dataset may have, whatever the file holds of it


@contextmanager
def open_hdf5(source: str | Path | BinaryIO, *, name: str | None = None) -> Iterator[h5py.File]:
    """Opens an HDF5 file for reading, after checking that all of its data lies inside it.

    Errors that h5py raises while the file is open are turned into a ``RecordingError`` that
    names the file: in a file that opens, they mean that part of it is missing, damaged or not
    of the form that the reader knows. Damage that only changes numbers is not noticed unless
    the file was written with checksums. libhdf5 itself can crash on a damaged header; where a
    file is not to be trusted, open it in a process of its own.

    Args:
        source: A path, or a binary file object that seeks, such as a remote file. It stays open.
        name: What errors and ``file.filename`` call a file object; not needed for a path.

    Raises:
        RecordingError: If the file is missing, is not HDF5, is truncated or damaged, needs a
            compression filter that is not installed, or refers to other files.
    """
    opened: Path | _NamedFile
    if isinstance(source, str | Path):
        opened = _existing_file(Path(source))
    else:
        opened = _NamedFile(source, name or repr(source))
    try:
        _refuse_other_formats(opened)
        if isinstance(opened, Path):
            _refuse_damaged_heaps(opened)
        with h5py.File(opened, "r") as file:
            refuse_unsafe_contents(file)
            with _naming_missing_filters(file):
                yield file
    except RecordingError:
        raise
    except MemoryError as error:
        raise RecordingError(
            f"'{opened}' does not fit into memory: {_first_line(error)} Load it where there is "
            "more memory; if it should be small, it is damaged: download or copy it again."
        ) from error
    except (
        OSError, LookupError, RuntimeError, TypeError, ValueError, AttributeError, ArithmeticError
    ) as error:  # fmt: skip
        raise RecordingError(_explain(opened, error)) from error


def _explain(opened: Path | _NamedFile, error: Exception) -> str:
    """What it means that a file cannot be opened or read, and what to do."""
    if isinstance(error, OSError) and (plain := explain_os_error(opened, error)):
        return plain
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return (
            f"'{opened}' cannot be opened: this process may have no more files open, and every "
            "open recording takes one. Allow more ('ulimit -n 4096') or open fewer at a time."
        )
    if isinstance(opened, Path):
        what = f"'{opened}' ({opened.stat().st_size if opened.is_file() else 'no'} bytes)"
        advice = "It is truncated, damaged or of an unknown form; download or copy it again."
    else:
        what = f"'{opened}'"
        advice = "It is out of reach or damaged; try again, or download it first."
    return f"{what} cannot be read: {_first_line(error)} {advice}"


class _NamedFile:
    """A file object under a name: h5py takes ``File.filename`` from ``repr``."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self.seek, self.tell, self.read = file.seek, file.tell, file.read

    def __repr__(self) -> str:
        return self._name

    def readinto(self, buffer: memoryview) -> int:
        """Fills the buffer from the current place; returns how many bytes were there."""
        content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _existing_file(path: Path) -> Path:
    if not os.path.isfile(path):
        if os.path.lexists(path) and not os.path.isdir(path):
            raise RecordingError(explain_absent(path))
        found = "it is a folder" if os.path.isdir(path) else "there is no such file"
        raise RecordingError(f"Cannot open '{path}': {found}. Give the path of an HDF5 file.")
    return path


def _refuse_damaged_heaps(path: Path) -> None:
    place = find_damaged_heap(path)
    if place is not None:
        raise RecordingError(
            f"'{path}' is damaged: the text at byte {place} does not end where it should. Download "
            "or copy it again."
        )


def _refuse_other_formats(opened: Path | _NamedFile) -> None:
    if isinstance(opened, Path):
        with opened.open("rb") as handle:
            beginning = _find_signature(handle)
    else:
        beginning = _find_signature(opened)
    if beginning != _SIGNATURE:
        if isinstance(opened, Path) and (pointer := explain_pointer(opened)):
            raise RecordingError(pointer)
        if beginning.startswith(b"MATLAB 5"):
            raise RecordingError(
                f"'{opened}' is a file of MATLAB 5 to 7, which is not read. Convert it: variables "
                f"= scipy.io.loadmat('{opened}'), then np.savez('day1.npz', df_over_f=..., "
                "sampling_rate=...), timesteps x units, the rate in Hz."
            )
        found = f"begins with {beginning!r}" if beginning else "is empty"
        raise RecordingError(
            f"'{opened}' is not an HDF5 file (it {found}). Recordings are NWB files or the HDF5 "
            "files of torch-brain; if it was downloaded, open it in a text editor: it may be an "
            "error page or a pointer to the real file."
        )


def _find_signature(handle: BinaryIO | _NamedFile) -> bytes:
    """HDF5's signature, or else how the file begins.

    The signature stands at byte 0 or, after a block of the user's own, at 512, 1024, 2048, ...
    """
    handle.seek(0)
    beginning = handle.read(len(_SIGNATURE))
    found, offset = beginning, 512
    while found and found != _SIGNATURE:
        handle.seek(offset)
        found = handle.read(len(_SIGNATURE))
        offset *= 2
    return found or beginning


def refuse_unsafe_contents(file: h5py.File) -> None:
    """Checks that a file holds its own data, points at no other file, and declares no more.

    External links, links of a kind that a program defines, external raw storage and virtual
    datasets make HDF5 open whatever path the file names: a downloaded recording could then read
    any file of its user, and a model or report would carry the content on. A damaged or crafted
    header can declare terabytes, and reading them would take all memory. The walk reads link and
    dataset headers only. Objects without a name, which only references reach, are not seen:
    readers must follow a reference by the name of what it points at.

    Raises:
        RecordingError: If any link or dataset leads to another file, or if a large dataset
            declares more data than any compression could have put into the file.
    """
    foreign, inflated = [], []
    for name, item in _walk(file):
        if item is None:
            foreign.append(f"{name} (link out of the file)")
        elif isinstance(item, h5py.h5d.DatasetID):
            creation = item.get_create_plist()
            if creation.get_external_count():
                foreign.append(f"{name} (raw data in another file)")
            elif creation.get_layout() == h5py.h5d.VIRTUAL:
                foreign.append(f"{name} (virtual dataset)")
            else:
                inflated.extend(_describe_inflated(name, item))
    if foreign:
        raise RecordingError(
            f"'{file.filename}' takes data from other files: {', '.join(foreign[:5])}"
            f"{' and more' if len(foreign) > 5 else ''}. Recordings must hold their own data; "
            "copy it into one file (for instance with h5repack or pynwb's export) first."
        )
    if inflated:
        raise RecordingError(
            f"'{file.filename}': {inflated[0]} of it. It is damaged or incomplete; download or "
            "copy it again."
        )


def _describe_inflated(name: str, dataset: h5py.h5d.DatasetID) -> list[str]:
    declared = dataset.get_space().get_simple_extent_npoints() * dataset.get_type().get_size()
    stored = dataset.get_storage_size()
    if declared <= _ALWAYS_READABLE or declared <= _LARGEST_COMPRESSION * stored:
        return []
    return [f"{name} declares {declared / 2**30:.0f} GiB but the file holds {stored} bytes"]


def _walk(file: h5py.File) -> Iterator[tuple[str, h5py.h5d.DatasetID | h5py.h5g.GroupID | None]]:
    """Every link and the object behind it, None if that is elsewhere; soft links are left out."""
    names: list[bytes] = []
    file.id.links.visit(names.append)  # follows neither soft nor external links, no object twice
    for name in names:
        kind = file.id.links.get_info(name).type
        if kind != h5py.h5l.TYPE_SOFT:
            is_here = kind == h5py.h5l.TYPE_HARD
            text = name.decode("utf-8", errors="replace")
            yield text, h5py.h5o.open(file.id, name) if is_here else None


@contextmanager
def _naming_missing_filters(file: h5py.File) -> Iterator[None]:
    """Explains a failed reading by the compression filters that are not installed."""
    try:
        yield
    except OSError as error:
        is_about_filters = any(word in str(error) for word in ("filter", "plugin"))
        missing = _find_missing_filters(file) if is_about_filters else {}
        if not missing:
            raise
        raise RecordingError(
            f"'{file.filename}' is compressed with {', '.join(missing.values())}, which is not "
            "installed. Run 'pip install hdf5plugin' and 'import hdf5plugin' before loading, or "
            "rewrite the file with 'h5repack -f GZIP=4'."
        ) from error


def _find_missing_filters(file: h5py.File) -> dict[int, str]:
    """Number to name of the filters in a file that this installation lacks."""
    missing = {}
    for _, item in _walk(file):
        if isinstance(item, h5py.h5d.DatasetID):
            creation = item.get_create_plist()
            for place in range(creation.get_nfilters()):
                number, _, _, label = creation.get_filter(place)
                if not h5py.h5z.filter_avail(number):
                    text = label.decode("utf-8", errors="replace")
                    missing[number] = f"HDF5 filter {number} ({text or 'unnamed'})"
    return missing


def has_dataset(group: h5py.Group, name: str) -> bool:
    """Whether a dataset can be reached by this name; ``in`` is true of a dangling link, too."""
    return isinstance(group.get(name), h5py.Dataset)


def read_numbers(dataset: h5py.Dataset, dtype: DTypeLike = np.float64) -> np.ndarray:
    """All values of a dataset of real numbers.

    Raises:
        RecordingError: If it holds something else.
    """
    if dataset.dtype.kind not in "fiub":
        raise RecordingError(
            f"'{dataset.file.filename}': {dataset.name} holds {dataset.dtype}, not numbers. Write "
            "the file again."
        )
    return dataset.astype(dtype)[()]


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
    said = error.args[0] if error.args else error
    if isinstance(error, OSError) and error.strerror:  # of which the first argument is a number
        said = error.strerror
    text = str(said).splitlines() or [type(error).__name__]
    is_bare_key = isinstance(error, KeyError) and text[0].isidentifier()
    return (f"it lacks '{text[0]}'" if is_bare_key else text[0].rstrip(".")) + "."
