from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from http_faults import Archive, Fault

from poyo_ssl.recordings import transfer
from poyo_ssl.recordings.download import download_sessions
from poyo_ssl.recordings.transfer import DownloadError

SIZE = 300_000
TIMEOUT = 0.3


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_FIRST_WAIT", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def make_assets(number: int = 1) -> tuple[pd.DataFrame, dict[str, bytes]]:
    """Invented sessions, and the bytes of their files by path."""
    contents = {
        f"sub-{k}/sub-{k}_ses-{k}-StimA_behavior+image+ophys.nwb": np.random.default_rng(k).bytes(
            SIZE + k
        )
        for k in range(1, number + 1)
    }
    rows = [
        {
            "session_id": str(k),
            "recording_id": f"{k}-StimA",
            "path": path,
            "num_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        for k, (path, content) in enumerate(contents.items(), start=1)
    ]
    return pd.DataFrame(rows), contents


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive(make_assets()[1]) as server:
        yield server


def fetch(archive: Archive, directory: Path, **options) -> Path:
    """The one file of the archive, which must be whole when it is there."""
    assets, contents = make_assets()
    options = {"timeout": TIMEOUT, "base_url": archive.base_url} | options
    [path] = download_sessions(assets, directory, **options)
    assert path.read_bytes() == next(iter(contents.values()))
    return path


def files_in(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*") if path.is_file()}


def test_a_download_is_the_published_file_and_leaves_nothing_else(archive, tmp_path):
    path = fetch(archive, tmp_path)
    assert files_in(tmp_path) == {path.name}
    assert archive.bytes_sent == SIZE + 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut_after=0),
        Fault(cut_after=1),
        Fault(cut_after=123_457),
        Fault(cut_after=123_457, chunked=True),
        Fault(stall_after=123_457),
        Fault(stall_after=0),
    ],
    ids=str,
)
def test_a_broken_connection_is_resumed_without_fetching_a_byte_twice(archive, tmp_path, fault):
    archive.faults = [fault]
    fetch(archive, tmp_path)
    assert archive.bytes_sent == SIZE + 1
