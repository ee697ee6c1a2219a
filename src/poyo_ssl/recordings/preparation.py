"""Many sources to a folder of recordings, with a manifest: resumable, one in memory per worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from poyo_ssl.output_directory import require_place_of_directory
from poyo_ssl.parallel import iterate_in_parallel
from poyo_ssl.recordings.loading import (
    find_recording_files,
    how_to_tell_apart,
    load_recording,
)
from poyo_ssl.recordings.manifest import MANIFEST, Manifest, Source
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.recordings.storage import TEMPLATES, recording_path, stage_recording
from poyo_ssl.whole_files import publish, remove_stale_partials

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Staged:
    """A recording that a worker has written in full and not yet named."""

    partial: Path
    recording_id: str
    facts: dict[str, object]
    """What the manifest says of it besides."""


def prepare(
    paths: str | Path | Iterable[str | Path],
    directory: str | Path,
    *,
    source: SourceConfig,
    jobs: int = 1,
    address: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Reads recordings of any format and stores them, each by itself, so that they open at once.

    A recording that cannot be read does not stop the others. What the manifest says was prepared
    is left alone while its source and the options stay as they were; so an interrupted
    preparation resumes where it stopped, at whatever moment it was killed, and what failed is
    tried again. Memory is that of one recording per worker.

    Recordings are named in the alphabetical order of their sources, whatever the number of
    workers: of two sources with the same recording id the second is refused, and no file is
    overwritten that was made of another source or of none that is known.

    Args:
        paths: Files and folders, as for :func:`find_recording_files`.
        directory: Where ``<recording_id>.h5``, ``templates/`` and ``manifest.csv`` go. Sources
            inside it are left out. All workers must be able to write there.
        source: What the files do not say about themselves.
        jobs: Recordings prepared at a time; see :func:`map_in_parallel`. With more than one,
            a file that crashes its reader costs that worker alone.
        address: A Ray cluster to run on.
        on_progress: Called with the sources done, at first those done before, and those in all.

    Returns:
        The rows of the manifest for these sources: ``source`` (relative to the directory), its
        ``size`` (bytes) and ``mtime_ns``, ``options`` (a hash), ``status`` (``ok`` or ``failed``),
        ``message``, ``recording_id``, ``file``, ``num_units``, ``num_timesteps``,
        ``sampling_rate`` (Hz), ``minutes`` (without gaps), ``stimuli``, ``seconds`` (that it
        took) and ``version``. ``read_manifest`` gives those of all sources ever given.

    Raises:
        RecordingError: If a path does not exist or holds no recording, another process prepares
            the same directory, or the manifest there is damaged.
    """
    directory = Path(directory)
    files = _outside(directory, find_recording_files(paths))
    with _alone_in(directory):
        manifest = Manifest(directory)
        sources = [Source.describe(file, directory, source) for file in files]
        missing = [item for item in sources if not manifest.is_up_to_date(item)]
        done = len(sources) - len(missing)
        logger.info("%d of %d recordings are prepared already", done, len(sources))
        if on_progress is not None:
            on_progress(done, len(sources))
        stage = partial(_stage, directory=directory, config=source)
        outcomes = iterate_in_parallel(
            stage, [item.path for item in missing], workers=jobs, address=address
        )
        with closing(outcomes):
            for item, outcome in zip(missing, outcomes, strict=True):
                problem = outcome.error
                if outcome.value is not None:
                    problem = _name(outcome.value, item, manifest, directory)
                if problem is not None:
                    logger.warning("Not prepared: %s", problem)
                    manifest.add_failed(item, problem)
                done += 1
                if on_progress is not None:
                    on_progress(done, len(sources))
        return manifest.table(sources)


def _stage(path: Path, directory: Path, config: SourceConfig) -> _Staged:
    """Reads one recording and writes it under a name that nobody looks for."""
    started = time.perf_counter()
    recording = load_recording(path, config)
    return _Staged(
        partial=stage_recording(recording, directory),
        recording_id=recording.recording_id,
        facts={
            "num_units": recording.num_units,
            "num_timesteps": recording.num_timesteps,
            "sampling_rate": round(recording.sampling_rate, 4),
            "minutes": round(float(np.sum(np.diff(recording.segment_intervals))) / 60, 3),
            "stimuli": " ".join(sorted(recording.stimuli)),
            "seconds": round(time.perf_counter() - started, 2),
        },
    )


def _name(staged: _Staged, source: Source, manifest: Manifest, directory: Path) -> str | None:
    """Gives a recording its name, or says why it may not have it.

    The manifest is written before the file has its name, and an older file is removed before
    that: killed at any moment, the file is missed, and made again.
    """
    path = recording_path(staged.recording_id, directory)
    owner = manifest.owner_of(path)
    holds = f"'{source.key}' holds recording '{staged.recording_id}'"
    problem = None
    if owner not in (None, source.key):
        problem = (
            f"{holds}, as '{owner}' does, which was prepared before. "
            f"{how_to_tell_apart(source.path)}"
        )
    elif owner is None and path.exists():
        problem = (
            f"{holds}, but '{path}' is there already and {MANIFEST} does not say of what it was "
            "made. Move it away."
        )
    if problem is not None:
        staged.partial.unlink()
        return problem
    for outdated in {path, manifest.file_of(source) or path}:
        outdated.unlink(missing_ok=True)
    manifest.add(source, path, recording_id=staged.recording_id, **staged.facts)
    publish(staged.partial, path)
    return None


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Keeps other preparations out of a directory, and clears away what killed ones left."""
    require_place_of_directory(directory)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(directory / ".prepare.lock", timeout=0):
            _clear(directory)
            yield
            _clear(directory)
    except Timeout as error:
        raise RecordingError(
            f"Another process prepares '{directory}'. Wait for it, or choose another directory."
        ) from error


def _clear(directory: Path) -> None:
    for folder in (directory, directory / TEMPLATES):
        remove_stale_partials(folder)


def _outside(directory: Path, files: list[Path]) -> list[Path]:
    """The files that are no product of the preparation itself."""
    home = directory.resolve()
    outside = [file for file in files if home not in file.resolve().parents]
    if not outside:
        raise RecordingError(
            f"All {len(files)} recordings found lie in '{directory}', where prepared ones go. "
            "Choose another directory for those."
        )
    return outside
