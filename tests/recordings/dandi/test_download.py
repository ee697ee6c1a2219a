from __future__ import annotations

import hashlib
import os
import signal
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from http_faults import Archive, Fault
from poyo_ssl.recordings.dandi import resumable_http
from poyo_ssl.recordings.dandi.download import download_sessions
from poyo_ssl.recordings.dandi.resumable_http import DownloadError

SIZE = 300_000
TIMEOUT = 0.3


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable_http, "_FIRST_WAIT", 0.001)
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
            "stimulus_set": "A",
            "subject_id": str(k),
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


def part_of(directory: Path) -> Path:
    """Where the bytes of the one file gather."""
    path = directory / next(iter(make_assets()[1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f"{path.name}.part")


def require_refused(archive: Archive, directory: Path, match: str, **options) -> None:
    """The download fails with this message, and no file has its final name."""
    with pytest.raises(DownloadError, match=match):
        fetch(archive, directory, **options)
    assert not list(directory.rglob("*.nwb"))


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
    ids=repr,
)
def test_a_broken_connection_is_resumed_without_fetching_a_byte_twice(archive, tmp_path, fault):
    archive.faults = [fault]
    fetch(archive, tmp_path)
    assert archive.bytes_sent == SIZE + 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, SIZE), max_size=6))
def test_any_row_of_cuts_is_resumed_without_fetching_a_byte_twice(cuts):
    with Archive(make_assets()[1]) as archive, tempfile.TemporaryDirectory() as directory:
        archive.faults = [Fault(cut_after=cut) for cut in cuts]
        fetch(archive, Path(directory), retries=len(cuts))
        assert archive.bytes_sent == SIZE + 1


faults = st.builds(
    Fault,
    status=st.sampled_from([None, None, None, 404, 416, 429, 500]),
    cut_after=st.none() | st.integers(0, SIZE),
    ignores_range=st.booleans(),
    ignores_if_range=st.booleans(),
    chunked=st.booleans(),
    flips=st.booleans(),
    headers=st.sampled_from([{}, {"ETag": '"2"'}, {"Content-Range": "bytes 5-9/10"}]),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(faults, max_size=8))
def test_whatever_goes_wrong_a_file_under_its_final_name_is_whole(row):
    with Archive(make_assets()[1]) as archive, tempfile.TemporaryDirectory() as directory:
        archive.faults = list(row)
        for _ in row:
            try:
                fetch(archive, Path(directory), retries=1)
            except DownloadError:
                assert not list(Path(directory).rglob("*.nwb"))
        archive.faults = []
        fetch(archive, Path(directory))


def test_a_server_that_ignores_ranges_makes_the_file_begin_anew(archive, tmp_path):
    archive.faults = [Fault(cut_after=100_000), Fault(ignores_range=True)]
    fetch(archive, tmp_path)
    assert archive.bytes_sent == 100_000 + SIZE + 1


@pytest.mark.parametrize(
    "second", [Fault(), Fault(ignores_if_range=True)], ids=["If-Range", "no If-Range"]
)
def test_a_file_that_changes_in_between_is_not_patched_together(archive, tmp_path, second):
    archive.faults = [Fault(cut_after=100_000, flips=True, headers={"ETag": '"old"'}), second]
    fetch(archive, tmp_path)
    assert archive.requests[:2] == ["", "bytes=100000-"]
    assert archive.requests[2:] == ([""] if second.ignores_if_range else [])


def test_a_weak_etag_still_lets_a_download_resume(archive, tmp_path):
    archive.etag = 'W/"1"'
    archive.faults = [Fault(cut_after=100_000)]
    fetch(archive, tmp_path)
    assert archive.bytes_sent == SIZE + 1


@pytest.mark.parametrize("announced", ["10", str(SIZE + 500)])
def test_a_wrong_length_is_noticed_and_asked_again(archive, tmp_path, announced):
    archive.faults = [Fault(headers={"Content-Length": announced})]
    fetch(archive, tmp_path)


def test_a_server_that_always_announces_a_wrong_length_is_named_with_both(archive, tmp_path):
    archive.faults = [Fault(headers={"Content-Length": "10"})] * 9
    require_refused(archive, tmp_path, rf"announces 10 bytes .* to {SIZE + 1} of", retries=2)
    assert len(archive.requests) == 3


def test_wrong_bytes_are_fetched_once_more_from_the_beginning(archive, tmp_path):
    archive.faults = [Fault(flips=True)]
    fetch(archive, tmp_path)
    assert archive.bytes_sent == 2 * (SIZE + 1)


def test_bytes_that_stay_wrong_are_refused_and_leave_no_part(archive, tmp_path):
    archive.faults = [Fault(flips=True)] * 9
    require_refused(archive, tmp_path, "does not have the published SHA-256")
    assert archive.bytes_sent == 2 * (SIZE + 1)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_server_that_is_down_for_a_while_is_asked_again(archive, tmp_path, status):
    archive.faults = [Fault(status=status)] * 5
    fetch(archive, tmp_path)
    assert len(archive.requests) == 6
    assert archive.bytes_sent == SIZE + 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_ends_the_download_at_once(archive, tmp_path, status):
    archive.faults = [Fault(status=status)] * 9
    require_refused(archive, tmp_path, f"answers {status}")
    assert len(archive.requests) == 1


def test_a_server_that_stays_silent_is_given_up(archive, tmp_path):
    archive.faults = [Fault(stall_after=0)] * 9
    require_refused(archive, tmp_path, "Gave up after 2 failures in a row.*imed out", retries=1)
    assert len(archive.requests) == 2


def test_progress_makes_earlier_failures_forgotten(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(resumable_http, "_PROGRESS", 50_000)
    archive.faults = [Fault(cut_after=0), Fault(cut_after=60_000)] * 4
    fetch(archive, tmp_path, retries=2)
    assert archive.bytes_sent == SIZE + 1


def test_no_error_shows_the_signature_of_a_link(archive, tmp_path):
    archive.faults = [Fault(cut_after=10), Fault(headers={"ETag": "2"}), Fault(status=403)]
    with pytest.raises(DownloadError, match="403") as refusal:
        fetch(archive, tmp_path)
    assert "secret" not in str(refusal.value)


def test_a_file_that_is_there_is_not_fetched_again(archive, tmp_path):
    fetch(archive, tmp_path)
    archive.requests.clear()
    fetch(archive, tmp_path)
    assert archive.requests == []


@pytest.mark.parametrize("content", [b"", b"mine", bytes(SIZE + 1)], ids=len)
def test_another_file_under_the_name_is_refused_and_kept(archive, tmp_path, content):
    path = part_of(tmp_path).with_suffix("")
    path.write_bytes(content)
    with pytest.raises(DownloadError, match=rf"found: {len(content)} bytes.*move it away"):
        fetch(archive, tmp_path)
    assert path.read_bytes() == content


def test_a_finished_part_that_was_not_renamed_is_not_fetched_again(archive, tmp_path):
    part_of(tmp_path).write_bytes(next(iter(make_assets()[1].values())))
    fetch(archive, tmp_path)
    assert archive.requests == []


@pytest.mark.parametrize("size", [1, SIZE, SIZE + 1, SIZE + 2])
def test_a_part_of_something_else_is_replaced(archive, tmp_path, size):
    part_of(tmp_path).write_bytes(bytes(size))
    fetch(archive, tmp_path)


def test_a_full_disk_is_named_with_what_is_missing(archive, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which only Linux has")
    part_of(tmp_path).symlink_to("/dev/full")
    require_refused(archive, tmp_path, rf"disk of .* is full: .* needs {SIZE + 1} bytes more")


def test_a_target_that_is_no_directory_is_named(archive, tmp_path):
    (tmp_path / "sub-1").write_text("a file")
    require_refused(archive, tmp_path, "Cannot store .*Choose another directory")


def test_too_little_space_is_noticed_before_anything_is_fetched(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=SIZE))
    require_refused(
        archive, tmp_path / "new", r"0\.0 GB free, but of 1 sessions 0\.0 GB are missing"
    )
    assert archive.requests == []
    assert not (tmp_path / "new").exists()


def test_space_is_asked_only_for_what_is_missing(archive, tmp_path, monkeypatch):
    part_of(tmp_path).write_bytes(next(iter(make_assets()[1].values()))[:1000])
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=SIZE - 900))
    fetch(archive, tmp_path)
    assert archive.bytes_sent == SIZE + 1 - 1000


def test_one_session_that_fails_does_not_stop_the_others(tmp_path):
    assets, contents = make_assets(5)
    del contents[assets["path"][2]]
    with (
        Archive(contents) as archive,
        pytest.raises(DownloadError, match=r"1 of 5 sessions failed:\n- 3-StimA: .*lists 0"),
    ):
        download_sessions(assets, tmp_path, base_url=archive.base_url, timeout=TIMEOUT)
    assert {path.read_bytes() for path in tmp_path.rglob("*.nwb")} == set(contents.values())


def test_many_failures_in_a_row_end_the_whole_download(tmp_path):
    with Archive({}) as archive, pytest.raises(DownloadError, match=r"no longer tried"):
        download_sessions(make_assets(30)[0], tmp_path, base_url=archive.base_url, connections=1)


def test_progress_grows_to_the_size_of_every_session(tmp_path):
    assets, contents = make_assets(3)
    seen: dict[str, list[int]] = defaultdict(list)
    with Archive(contents) as archive:
        archive.faults = [Fault(cut_after=1000)]
        download_sessions(
            assets,
            tmp_path,
            base_url=archive.base_url,
            on_progress=lambda session_id, done, total: seen[session_id].append(done / total),
        )
    assert set(seen) == {"1", "2", "3"}
    assert all(done == sorted(done) and done[-1] == 1 for done in seen.values())


def test_an_error_in_the_progress_callback_is_not_swallowed(archive, tmp_path):
    def broken(*_: object) -> None:
        raise RuntimeError("a bug of the caller")

    with pytest.raises(RuntimeError, match="a bug of the caller"):
        fetch(archive, tmp_path, on_progress=broken)


@pytest.mark.parametrize("option", [{"retries": -1}, {"timeout": 0}, {"connections": 0}], ids=str)
def test_options_without_sense_are_refused(archive, tmp_path, option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} must"):
        fetch(archive, tmp_path, **option)


def test_two_downloads_of_one_file_take_turns(archive, tmp_path):
    archive.faults = [Fault(cut_after=1000), Fault(cut_after=1000)]
    with ThreadPoolExecutor(2) as executor:
        both = [executor.submit(fetch, archive, tmp_path) for _ in range(2)]
    assert both[0].result() == both[1].result()
    assert archive.bytes_sent == SIZE + 1


@pytest.mark.skipif("fork" not in get_all_start_methods(), reason="needs fork")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_download_that_was_ended_goes_on_where_it_stopped(archive, tmp_path, end):
    archive.faults = [Fault(stall_after=200_000)] + [Fault(stall_after=0)] * 9
    process = get_context("fork").Process(target=fetch, args=(archive, tmp_path))
    process.start()
    part = part_of(tmp_path)
    while not part.exists() or part.stat().st_size < 200_000:
        process.join(0.01)
        assert process.is_alive()
    os.kill(process.pid, end)
    process.join(30)
    assert process.exitcode not in (None, 0)
    assert files_in(tmp_path) >= {part.name}
    assert part.stat().st_size == 200_000
    archive.faults = []
    fetch(archive, tmp_path)
    assert archive.bytes_sent == SIZE + 1
    assert files_in(tmp_path) == {part.stem}
