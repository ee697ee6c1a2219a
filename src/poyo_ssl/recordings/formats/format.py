"""What a format of recordings is: how it is recognised and read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py

from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.sources import SourceConfig


def _recognises_nothing(_: object) -> bool:
    return False


def _finds_nothing(_: Iterable[Path]) -> list[Path]:
    return []


def _folder_it_lies_in(path: Path) -> Path:
    return path.parent


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format; each is a constant in the module that reads it, listed in ``FORMATS``.

    A new one is a file like its neighbours here and a line in ``recordings/loading.py``.
    """

    name: str
    """What the format is called, such as ``NWB 2``."""
    read: Callable[[str | Path, SourceConfig], Recording]
    """Reads a recording from a file or folder."""
    names_units_after_file: bool
    """Whether recording and units are called after their file or folder. Two files of one name
    then hold two sessions, whose units are different cells; else they are parts of one session."""
    suffixes: tuple[str, ...] = ()
    """Endings, in lower case, by which a file is found in a folder; those named are read by what
    they hold."""
    find_folders: Callable[[Iterable[Path]], list[Path]] = _finds_nothing
    """The folders that are recordings, among all the files below some folder."""
    own_folders: tuple[str, ...] = ()
    """Names that the format gives to folders of every session, so that they tell none apart."""
    session_folder: Callable[[Path], Path] = _folder_it_lies_in
    """The folder that the stimulus tables of a source lie in, of a file or folder of the format."""
    recognises: Callable[[Path], bool] = _recognises_nothing
    """Whether a path that is no HDF5 file is of this format; its name does not matter."""
    recognises_hdf5: Callable[[h5py.File], bool] = _recognises_nothing
    """Whether an open HDF5 file is of this format."""
    read_hdf5: Callable[[h5py.File, SourceConfig], Recording] | None = None
    """Reads an open HDF5 file, such as one that lies on a server; None where only a file on disk
    can be read."""
