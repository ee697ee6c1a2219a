"""Sessions of DANDI:000728 onto this disk: whole files, or the activity alone."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from poyo_ssl.recordings.dandi.catalogue import Asset, as_assets
from poyo_ssl.recordings.dandi.remote import DANDI_API, open_remote, resolve_url
from poyo_ssl.recordings.dandi.resumable_http import DownloadError, Patience, Transfer
from poyo_ssl.recordings.formats.nwb import recording_from_nwb
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.recordings.storage import recording_path, save_recording
from poyo_ssl.recordings.untrusted_files.hdf5 import open_hdf5

_DEFAULT_SOURCE = SourceConfig()
_HOPELESS = 10  # sessions that fail in a row before the others are no longer tried
_BYTES_PER_GB = 1e9


def download_sessions(
    assets: pd.DataFrame,
    directory: str | Path,
    *,
    connections: int = 4,
    retries: int = 5,
    timeout: float = 30.0,
    base_url: str = DANDI_API,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> list[Path]:
    """Downloads whole files, each checked against its published SHA-256.

    Whatever ends a download (a cut, a stall, Ctrl-C, a killed process), the same call resumes
    where it stopped; files that are there are checked and not fetched again. A session that
    fails does not stop the others. Several processes may download into one directory.

    Args:
        assets: Rows of ``find_sessions``.
        directory: Gets the layout of the dandiset: ``sub-<mouse>/<file>.nwb``.
        connections: Files that are fetched at the same time.
        retries: Further attempts after a failure, in a row.
        timeout: Seconds without a byte after which a connection counts as failed.
        base_url: Root of DANDI's REST API.
        on_progress: Called with the session id, its bytes that are there and its bytes in all;
            never twice at the same time.

    Returns:
        The files, in the order of ``assets``.

    Raises:
        DownloadError: If the disk is too small (before anything is fetched), or sessions failed
            (after the others were fetched; every one is named).
    """
    patience = Patience(retries=retries, timeout=timeout)
    report = _one_at_a_time(on_progress)
    transfers = {
        asset.recording_id: Transfer(
            url=partial(resolve_url, asset.path, base_url, patience),
            path=Path(directory) / asset.path,
            num_bytes=asset.num_bytes,
            sha256=asset.sha256,
            patience=patience,
            on_progress=partial(report, asset.session_id, total_bytes=asset.num_bytes),
        )
        for asset in as_assets(assets)
    }
    _require_space(list(transfers.values()), Path(directory))
    run_all({name: transfer.run for name, transfer in transfers.items()}, connections, patience)
    return [transfer.path for transfer in transfers.values()]


def stream_sessions(
    assets: pd.DataFrame,
    directory: str | Path,
    source: SourceConfig = _DEFAULT_SOURCE,
    *,
    retries: int = 5,
    timeout: float = 30.0,
    base_url: str = DANDI_API,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> list[Path]:
    """Stores the activity, stimuli and behaviour of sessions without downloading whole files.

    Each session is read where it lies (needs ``poyo-ssl[remote]``) and saved as
    ``<recording_id>.h5``; one that is there is not read again. What travels is a part of the
    file, so it cannot be checked against the published SHA-256. Sessions are read one after
    another, since HDF5 reads one file at a time in a process.

    Args:
        assets: Rows of ``find_sessions``.
        directory: Gets the recordings.
        source: How the files are read; see ``load_recording``.
        retries: Further attempts to find and open a file after a failure.
        timeout: Seconds without a byte after which a connection counts as failed.
        base_url: Root of DANDI's REST API.
        on_progress: Called with the session id and, twice, the bytes of its recording once that
            is stored.

    Returns:
        The recordings' files, in the order of ``assets``.

    Raises:
        DownloadError: If sessions failed (after the others were stored; every one is named).
        ImportError: If remfile is not installed.
    """
    patience = Patience(retries=retries, timeout=timeout)
    paths = {asset: recording_path(asset.recording_id, directory) for asset in as_assets(assets)}

    def stream(asset: Asset, path: Path) -> None:
        if not path.exists():
            url = resolve_url(asset.path, base_url, patience)
            with open_remote(url, patience) as remote, open_hdf5(remote, name=url) as file:
                recording = recording_from_nwb(file, source)
            save_recording(replace(recording, recording_id=asset.recording_id), path.parent)
        if on_progress is not None:
            on_progress(asset.session_id, path.stat().st_size, path.stat().st_size)

    tasks = {asset.recording_id: partial(stream, asset, path) for asset, path in paths.items()}
    run_all(tasks, 1, patience)
    return list(paths.values())


def _one_at_a_time(
    on_progress: Callable[[str, int, int], None] | None,
) -> Callable[..., None]:
    lock = threading.Lock()

    def report(session_id: str, done_bytes: int, total_bytes: int) -> None:
        if on_progress is not None:
            with lock:
                on_progress(session_id, done_bytes, total_bytes)

    return report


def _require_space(transfers: Sequence[Transfer], directory: Path) -> None:
    """Checks that the disk can hold what is still to be fetched."""
    needed = sum(transfer.num_missing_bytes for transfer in transfers)
    existing = next(
        folder for folder in (directory, *directory.absolute().parents) if folder.exists()
    )
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DownloadError(
            f"'{directory}' has {free / _BYTES_PER_GB:.1f} GB free, but of {len(transfers)} "
            f"sessions {needed / _BYTES_PER_GB:.1f} GB are missing. Free space, choose another "
            "directory or fewer sessions, or take only the activity (only_activity, or "
            "stream_sessions)."
        )


def run_all(
    tasks: Mapping[str, Callable[[], object]], connections: int, patience: Patience
) -> None:
    """Runs tasks in threads, a few at a time; one that fails does not stop the others.

    Args:
        tasks: What to run, by the name that errors call it.
        connections: Tasks that run at the same time.
        patience: Its ``stop`` is set when this thread is interrupted; the tasks heed it.

    Raises:
        DownloadError: If tasks failed; each is named. After ten failures in a row the remaining
            ones are not tried.
    """
    if connections < 1:
        raise ValueError(f"connections must be at least 1, got {connections}.")
    executor = ThreadPoolExecutor(connections)
    try:
        futures = {executor.submit(task): name for name, task in tasks.items()}
        failures_in_a_row = 0
        for future in as_completed(futures):
            failures_in_a_row = failures_in_a_row + 1 if future.exception() else 0
            if failures_in_a_row == _HOPELESS:
                break
    except BaseException:
        patience.stop.set()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
    _raise_problems(futures)


def _raise_problems(futures: dict[Future[object], str]) -> None:
    problems = []
    for future, name in futures.items():
        error = None if future.cancelled() else future.exception()
        if isinstance(error, RecordingError | OSError):
            problems.append(f"- {name}: {error}")
        elif error is not None:
            raise error
    if problems:
        num_untried = sum(future.cancelled() for future in futures)
        untried = f" and {num_untried} were no longer tried" if num_untried else ""
        raise DownloadError(
            f"{len(problems)} of {len(futures)} sessions failed{untried}:\n" + "\n".join(problems)
        )
