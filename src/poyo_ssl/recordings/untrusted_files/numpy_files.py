"""Opening numpy files that came from elsewhere: nothing is unpickled, and no header is believed."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib.npyio import NpzFile

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.untrusted_files.absent import explain_os_error, explain_pointer

_LARGEST_COMPRESSION = 100  # traces reach at most 20:1; deflate allows 1032:1
_ALWAYS_READABLE = 2**30  # bytes that a file may unpack to, whatever its size
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_DAMAGED = (EOFError, LookupError, NotImplementedError, RuntimeError, ValueError)
"""What numpy and zipfile raise for damaged files; the last but one for encrypted members, the one
before it for kinds of compression that Python cannot unpack. All become a ``RecordingError``."""


def open_array(path: Path) -> np.ndarray:
    """A numeric ``.npy`` array, read from disk as it is used.

    Raises:
        RecordingError: If the file is missing, damaged, shorter than its header says, or holds
            no numbers.
    """
    with _explained(path):
        with path.open("rb") as handle:
            _refuse_lying_header(path.name, path.stat().st_size, handle)
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array


def read_header(handle: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that the header of a ``.npy`` file states; the handle is left behind it.

    Raises:
        ValueError: If there is no such header.
    """
    version = np.lib.format.read_magic(handle)
    if version not in _HEADERS:
        raise ValueError(f"numpy's format {version} is not known")
    try:
        shape, _, dtype = _HEADERS[version](handle)
    except (MemoryError, RecursionError, SyntaxError, tokenize.TokenError) as error:
        raise ValueError("its header makes no sense") from error
    return shape, dtype


def read_shape(path: Path) -> tuple[int, ...]:
    """The shape that the header of a ``.npy`` file states; what the array holds is not looked at.

    Raises:
        RecordingError: If the file is missing or damaged.
    """
    with _explained(path), path.open("rb") as handle:
        return read_header(handle)[0]


def read_dtype(path: Path) -> np.dtype:
    """The type that the header of a ``.npy`` file states; what the array holds is not looked at.

    Raises:
        RecordingError: If the file is missing or damaged.
    """
    with _explained(path), path.open("rb") as handle:
        return read_header(handle)[1]


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """The arrays of an ``.npz`` file by name, each read when it is asked for.

    Raises:
        RecordingError: If the file is missing or damaged, unpacks to far more than it holds, or
            has an array that is not what its header says, or of Python objects.
    """
    with _explained(path):
        with zipfile.ZipFile(path) as archive:
            _refuse_inflated(path, archive.infolist())
            for member in archive.infolist():
                with archive.open(member) as handle:
                    _refuse_lying_header(member.filename, member.file_size, handle)
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays


def _refuse_inflated(path: Path, members: list[zipfile.ZipInfo]) -> None:
    unpacked, stored = sum(member.file_size for member in members), path.stat().st_size
    if unpacked > _ALWAYS_READABLE and unpacked > _LARGEST_COMPRESSION * stored:
        raise RecordingError(
            f"'{path}' unpacks from {stored} bytes to {unpacked / 2**30:.0f} GiB. It is damaged or "
            "crafted; write it again with np.savez."
        )


def _refuse_lying_header(name: str, size: int, handle: IO[bytes]) -> None:
    """Checks that an array is of numbers, and of as many bytes as its file has behind the header.

    It counts in Python's integers: numpy's product of lengths may overflow to a small number.
    """
    shape, dtype = read_header(handle)
    if dtype.kind not in "biufSU":
        raise ValueError(f"{name} holds {dtype}, not numbers or text")
    declared, held = math.prod(shape) * dtype.itemsize, size - handle.tell()
    if min(shape, default=0) < 0 or declared != held:
        raise ValueError(f"{name} declares {declared} bytes and holds {held}")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns errors about a file into a ``RecordingError`` that names it."""
    try:
        yield
    except RecordingError:
        raise
    except OSError as error:
        plain = f"'{path}' cannot be opened: {error.strerror or error}."
        raise RecordingError(explain_os_error(path, error) or plain) from error
    except (*_DAMAGED, zipfile.BadZipFile, zlib.error) as error:
        raise RecordingError(
            explain_pointer(path)
            or f"'{path}' cannot be read: {str(error).rstrip('.')}. It is damaged or of another "
            "form; copy or write it again."
        ) from error
