"""Files that get their name only when they are complete, and what killed writers leave behind."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from poyo_ssl.output_directory import OutputError, no_room, require_place_of_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HOST = re.sub(r"\W", "_", platform.node())[:32]
_PARTIAL = re.compile(r"\..+\.(?P<host>\w*)-(?P<pid>\d+)-[0-9a-f]{8}\.partial")
_LONGEST_START = 40  # of a name that partial files show; all of it would be too long with the mark
_LONGEST_WRITE = 24 * 3600  # seconds; a writer on another machine cannot be asked whether it lives


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """The name of a hidden file beside ``path`` to write first; it is removed after an error.

    The name tells which process writes, so that others know what it left behind if it dies.

    Raises:
        OutputError: Where a writer of any kind found no room, or ``path`` is a directory.
    """
    require_place_of_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = f"{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    partial = path.with_name(f".{path.name[:_LONGEST_START]}.{mark}.partial")
    try:
        yield partial
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, Exception) and (reason := no_room(error)):
            raise OutputError(_explain_no_room(path, reason)) from error
        raise


def _explain_no_room(path: Path, reason: str) -> str:
    free = shutil.disk_usage(path.parent).free / 2**20 if path.parent.is_dir() else 0.0
    return (
        f"'{path}' cannot be written ({reason}; {free:.0f} MiB are free there). What was written "
        "before is intact: make room, and run the same command again."
    )


def publish(partial: Path, path: Path) -> None:
    """Gives a complete file its name, over a file that has it, and makes both last.

    Readers that have the old file open keep it as it was.
    """
    try:
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _flush_names(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON under a temporary name and renames it, so no half file is ever seen."""
    with partial_file(path) as partial:
        partial.write_text(to_json(content))
        publish(partial, path)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Writes a table as CSV under a temporary name and renames it, so no half file is ever seen.

    What UTF-8 cannot hold, such as a damaged file name, is escaped.
    """
    with partial_file(path) as partial:
        table.to_csv(partial, index=False, errors="backslashreplace")
        publish(partial, path)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as ``.npz`` under a temporary name and renames it."""
    with partial_file(path) as partial:
        with partial.open("xb") as handle:
            np.savez_compressed(handle, allow_pickle=False, **arrays)
        publish(partial, path)


def write_figure(path: Path, figure: Figure) -> None:
    """Draws a figure under a temporary name and renames it; the ending chooses the format."""
    with partial_file(path) as partial:
        figure.savefig(partial, format=path.suffix[1:] or None)
        publish(partial, path)


def to_json(content: Any) -> str:
    """JSON text; NaN stays NaN."""
    return json.dumps(content, indent=1, allow_nan=True) + "\n"


def remove_stale_partials(directory: Path) -> list[Path]:
    """Removes the partial files of writers that no longer run, and returns their names.

    A partial file that another machine writes counts as stale after a day.
    """
    found = [item for item in directory.glob(".*.partial") if _is_stale(item)]
    for partial in found:
        partial.unlink(missing_ok=True)
    return found


def _is_stale(partial: Path) -> bool:
    name = _PARTIAL.fullmatch(partial.name)
    if name is None:
        return False
    if name["host"] == _HOST:
        return not _is_running(int(name["pid"]))
    try:
        return time.time() - partial.stat().st_mtime > _LONGEST_WRITE
    except FileNotFoundError:  # its writer has just finished
        return False


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _flush_names(directory: Path) -> None:
    """Waits until the names of a directory's files are on the disk."""
    if os.name == "nt":  # where directories cannot be opened
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
