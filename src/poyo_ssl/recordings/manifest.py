"""The manifest of prepared recordings: which file was made of which source, on disk at any time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from poyo_ssl.recordings.loading import session_folder
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.whole_files import partial_file, publish

MANIFEST = "manifest.csv"
_COLUMNS = {
    "source": "string",
    "size": "Int64",
    "mtime_ns": "Int64",
    "options": "string",
    "status": "string",
    "message": "string",
    "recording_id": "string",
    "file": "string",
    "num_units": "Int64",
    "num_timesteps": "Int64",
    "sampling_rate": "Float64",
    "minutes": "Float64",
    "stimuli": "string",
    "seconds": "Float64",
    "version": "string",
}
_NEVER_EMPTY = ["source", "size", "mtime_ns", "options", "status"]


@dataclass(frozen=True)
class Source:
    """A source as it is now: what has to be the same for its recording to be up to date."""

    path: Path
    key: str
    """The path as the manifest writes it: relative to the manifest where there is such a path."""
    size: int
    mtime_ns: int
    options: str

    @staticmethod
    def describe(path: Path, directory: Path, config: SourceConfig) -> Source:
        """Sizes are added up, and the latest time is taken, over all files of the source."""
        folder = session_folder(path)
        tables = [folder / table.table for table in config.stimuli.values()]
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        states = [file.stat() for file in [*files, *tables] if file.is_file()]
        options = json.dumps(asdict(config), sort_keys=True)
        return Source(
            path=path,
            key=_relative(path, directory),
            size=sum(state.st_size for state in states),
            mtime_ns=max((state.st_mtime_ns for state in states), default=0),
            options=hashlib.sha256(options.encode()).hexdigest()[:16],
        )


def read_manifest(directory: str | Path) -> pd.DataFrame:
    """The manifest of a prepared directory; empty where nothing was prepared yet.

    Raises:
        RecordingError: If it is damaged.
    """
    path = Path(directory) / MANIFEST
    if not path.is_file():
        return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in _COLUMNS.items()})
    try:
        table = pd.read_csv(path, dtype=_COLUMNS, keep_default_na=False, na_values=[""])
    except (TypeError, ValueError) as error:  # pandas casts, too
        raise _damaged(path, str(error)) from error
    if list(table.columns) != list(_COLUMNS):
        raise _damaged(path, f"its columns are {', '.join(map(str, table.columns))}")
    if table[_NEVER_EMPTY].isna().any(axis=None) or table["source"].duplicated().any():
        raise _damaged(path, "a source is named twice, or lacks its name, state or status")
    files = table["file"].dropna()
    if (
        any(Path(file).name != file or file[-3:] != ".h5" for file in files)
        or files.duplicated().any()
    ):
        raise _damaged(path, "a file is named twice or lies elsewhere")
    return table


def _damaged(path: Path, problem: str) -> RecordingError:
    return RecordingError(
        f"'{path}' is no manifest of prepared recordings: {problem}. Move it and the recordings "
        "beside it away, and prepare again."
    )


class Manifest:
    """The rows of a directory's manifest; every change is on disk before anything follows."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rows: dict[str, dict[Any, Any]] = {
            row["source"]: row for row in read_manifest(directory).to_dict(orient="records")
        }

    def table(self, sources: Iterable[Source] | None = None) -> pd.DataFrame:
        """One row for each of these sources, or for all there are; in alphabetical order."""
        keys = self._rows if sources is None else {source.key for source in sources}
        rows = [self._rows[key] for key in sorted(keys)]
        return pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)

    def is_up_to_date(self, source: Source) -> bool:
        """Whether the source was prepared as it is now, with these options, and still is there."""
        row, file = self._rows.get(source.key), self.file_of(source)
        return (
            row is not None
            and row["status"] == "ok"
            and all(row[name] == getattr(source, name) for name in ("size", "mtime_ns", "options"))
            and file is not None
            and file.is_file()
        )

    def file_of(self, source: Source) -> Path | None:
        """The file that is, or was to be, made of a source; None where there is none."""
        name = self._rows.get(source.key, {}).get("file", pd.NA)
        return None if pd.isna(name) else self._directory / name

    def owner_of(self, file: Path) -> str | None:
        """The source that a file was made of, None where that is unknown.

        Names that differ in case are one file on some disks and count as one everywhere.
        """
        for key, row in self._rows.items():
            if not pd.isna(row["file"]) and row["file"].casefold() == file.name.casefold():
                return key
        return None

    def add(self, source: Source, file: Path, **values: object) -> None:
        """Records that a file was made of a source."""
        self._set(source, status="ok", file=file.name, **values)

    def add_failed(self, source: Source, message: str) -> None:
        """Records why a source has no recording; a file that it had before stays its own."""
        row = self._rows.get(source.key, {})
        kept = {name: row.get(name, pd.NA) for name in ("recording_id", "file")}
        self._set(source, status="failed", message=message, **kept)

    def _set(self, source: Source, **values: object) -> None:
        self._rows[source.key] = {
            **dict.fromkeys(_COLUMNS, pd.NA),
            "source": source.key,
            "size": source.size,
            "mtime_ns": source.mtime_ns,
            "options": source.options,
            "version": version("poyo-ssl"),
            **values,
        }
        path = self._directory / MANIFEST
        with partial_file(path) as partial:
            self.table().to_csv(partial, index=False)
        publish(partial, path)


def _relative(path: Path, directory: Path) -> str:
    place = path.parent.resolve() / path.name  # of a link itself, not of what it points at
    try:
        return Path(os.path.relpath(place, directory.resolve())).as_posix()
    except ValueError:  # on another drive
        return place.as_posix()
