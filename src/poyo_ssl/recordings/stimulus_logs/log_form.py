"""What a form of event log is, and how the beginning of a file is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from poyo_ssl.recordings.formats.stimulus_tables import decode_text
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.untrusted_files.absent import explain_os_error

_BEGINNING = 65_536  # bytes
_LARGEST = 2**29
"""Bytes; a log of a million events has some fifty million."""


@dataclass(frozen=True, kw_only=True)
class LogForm:
    """What one program writes."""

    name: str
    recognises: Callable[[bytes], bool]
    """Whether a file that begins so is of this form."""
    read: Callable[[Path], pd.DataFrame]
    """Events with ``name``, ``start`` and ``end``, as ``read_event_log`` describes them."""


def read_start(path: Path) -> bytes:
    """The beginning of a file.

    Raises:
        RecordingError: If it cannot be opened, or is too large to be a log.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise RecordingError(f"'{path}' has more than {_LARGEST} bytes. Is it a log of events?")
        with path.open("rb") as handle:
            return handle.read(_BEGINNING)
    except OSError as error:
        plain = f"'{path}' cannot be opened: {error.strerror or error}."
        raise RecordingError(explain_os_error(path, error) or plain) from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        RecordingError: If it is no text.
    """
    try:
        return decode_text(path.read_bytes()).splitlines()
    except ValueError as error:
        raise RecordingError(f"'{path}' is no text: {error}.") from error
