"""A directory that one process at a time writes to, and what may happen to it meanwhile."""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


_NO_ROOM_IN_TEXT = re.compile(
    rf"\b(?:os error|errno =) ({'|'.join(map(str, _NO_ROOM))})\b|requested and \d+ written"
)
"""How safetensors, HDF5 and numpy say the same, which pass no number on."""


class OutputError(OSError):
    """An output that is in use, gone, full or of the wrong kind; the message says what to do."""


def require_place_of_file(path: Path) -> None:
    """Checks that a file can have this name.

    Raises:
        OutputError: If it is a directory's, or lies below a file.
    """
    if path.is_dir():
        raise OutputError(
            f"'{path}' is a directory, and a file is to be written. Name one in it, such as "
            f"'{path / 'result'}' with the ending that is asked for."
        )
    require_place_of_directory(path.parent)


def require_unused(path: Path, may_replace: bool) -> None:
    """Checks that writing a file loses none.

    Raises:
        OutputError: If one is there and may not be replaced.
    """
    if os.path.lexists(path) and not may_replace:
        raise OutputError(
            f"'{path}' exists. Name another file, or set may_replace to write over this one."
        )


def require_place_of_directory(path: Path) -> None:
    """Checks that a directory is there or can be made.

    Raises:
        OutputError: If it is a file, or lies below one.
    """
    for part in (path, *path.parents):
        # in this order: others may make it meanwhile, and what is there then is a directory
        is_there = part.exists() or part.is_symlink()
        if part.is_dir():
            return
        if is_there:
            found = "a file" if part.exists() else "a link to what is not there"
            raise OutputError(
                f"'{part}' is {found}, and a directory is to be written to. Name another one, or "
                "move that away."
            )


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Lets no other process of this kind write to a directory; the end of the process frees it.

    A directory that is made here goes again where nothing came of what was to be written.

    Raises:
        OutputError: If another process writes there now.
    """
    require_place_of_directory(directory)
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    lock = directory / ".lock"
    try:
        with FileLock(lock, timeout=0):
            try:
                yield
            except Exception:
                if is_new and directory.is_dir() and [*directory.iterdir()] == [lock]:
                    lock.unlink()
                    directory.rmdir()
                raise
    except Timeout as error:
        raise OutputError(
            f"Another process is writing to '{directory}'. Wait until it ends, or choose another "
            "output directory."
        ) from error


def no_room(error: BaseException | None) -> str:
    """The system's words where an error, or one that it came from, means a full disk; else empty.

    Args:
        error: Of any library that writes.
    """
    while error is not None and not isinstance(error, OutputError):
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return os.strerror(error.errno)
        if found := _NO_ROOM_IN_TEXT.search(str(error)):
            return os.strerror(int(found[1])) if found[1] else "a part of it found no room"
        error = error.__cause__ or error.__context__
    return ""


def require_output(marker: Path) -> None:
    """Checks that a directory is still the one that work began in.

    Args:
        marker: A file that was written to it first.

    Raises:
        OutputError: If the file is gone.
    """
    if not marker.is_file():
        raise OutputError(
            f"The output directory '{marker.parent}' was moved, emptied or removed while it was "
            "written to. Put it back and run the same command to resume; without it, the same "
            "command starts over."
        )


@contextmanager
def naming_lost_output(marker: Path) -> Iterator[None]:
    """Says so where an error means that a directory is gone or full.

    Args:
        marker: A file that was written to the directory first.

    Raises:
        OutputError: Instead of the system's error.
    """
    told = threading.excepthook
    threading.excepthook = leave_out_lost_files
    try:
        yield
    except OSError as error:
        require_output(marker)
        reason = no_room(error)
        if not reason:
            raise
        free = shutil.disk_usage(marker.parent).free / 2**20
        raise OutputError(
            f"'{error.filename or marker.parent}' cannot be written ({reason}; {free:.0f} MiB are "
            "free there). What was finished is kept: make room, and run the same command to "
            "resume."
        ) from error
    finally:
        threading.excepthook = told


def leave_out_lost_files(lost: threading.ExceptHookArgs) -> None:
    """Of threads, such as TensorBoard's writer: the work itself says that the directory is gone."""
    if not (lost.exc_type and issubclass(lost.exc_type, OSError)):
        threading.__excepthook__(lost)
