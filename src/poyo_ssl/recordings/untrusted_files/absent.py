"""Files whose content is not here, or may not be read: why, and how to get at it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_POINTERS = {
    b"/annex/objects/": "git-annex, whose content was not fetched. Run 'git annex get' or 'datalad "
    "get' on it",
    b"version https://git-lfs": "Git LFS, whose content was not fetched. Run 'git lfs pull'",
}
_LONGEST_POINTER = 32_768  # bytes; of git-annex
_LOCKED = ("lock file", "already open for", "Resource temporarily unavailable")


def explain_absent(path: Path) -> str:
    """Why nothing can be read at a path, and what to do."""
    try:
        path.stat()
    except ValueError:  # a character that no path can have
        return f"{str(path)!r} does not exist. Correct the path."
    except OSError as error:
        absent = f"'{path}' does not exist. Correct the path."
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            absent = f"'{path}' cannot be opened: {error.strerror}. Correct the path."
        return explain_os_error(path, error) or absent
    return f"'{path}' is neither a file nor a folder. Give one that holds recordings."


def explain_os_error(path: object, error: OSError) -> str | None:
    """What it means that the system does not let a file be read, where that is plain.

    Args:
        path: A path, or what an error calls a file that is none.
        error: What was raised.
    """
    if isinstance(path, Path) and path.is_symlink() and not os.path.exists(path):
        target = os.readlink(path)
        if "annex/objects" in Path(target).as_posix():
            pointer = _POINTERS[b"/annex/objects/"]
            return f"'{path}' is a link of {pointer}, or leave it out."
        return (
            f"'{path}' is a link to '{target}', which is not there. Bring back or mount what it "
            "points at, or remove the link."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"'{path}' cannot be opened: permission denied. Ask its owner to let you read it (such "
            "as 'chmod a+r'), or copy it to a place of your own."
        )
    if any(sign in str(error) for sign in _LOCKED):
        return (
            f"'{path}' is open for writing in another program, or was when one died. Close it "
            "there and try again; if none has it open, copy the file, run 'h5clear -s' on the "
            "copy and read that."
        )
    return None


def explain_pointer(path: Path) -> str | None:
    """What a small text file that stands for a large one points at, or None if it is no such."""
    with path.open("rb") as handle:
        beginning = handle.read(_LONGEST_POINTER + 1)
    for mark, meaning in _POINTERS.items():
        if beginning.startswith(mark) and len(beginning) <= _LONGEST_POINTER:
            return f"'{path}' is a pointer of {meaning}, or leave it out."
    return None
