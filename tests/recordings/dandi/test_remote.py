from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import requests

from http_faults import Archive, Fault
from nwb_files import traces, write_simple
from poyo_ssl.recordings.dandi import resumable_http
from poyo_ssl.recordings.dandi.catalogue import find_sessions
from poyo_ssl.recordings.dandi.download import stream_sessions
from poyo_ssl.recordings.dandi.remote import open_remote, resolve_url
from poyo_ssl.recordings.dandi.resumable_http import DownloadError, Patience
from poyo_ssl.recordings.formats.nwb import read_nwb, recording_from_nwb
from poyo_ssl.recordings.loading import load_recording
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.untrusted_files.hdf5 import open_hdf5

PATH = "sub-222/sub-222_ses-11-StimA_behavior+image+ophys.nwb"
UNNEEDED = 8 * 2**20  # bytes


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable_http, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr("remfile.RemFile.time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def nwb_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session whose file is mostly the raw movie, which no recording needs, then the traces."""
    path = write_simple(tmp_path_factory.mktemp("nwb") / "session.nwb")
    with h5py.File(path, "r+") as file:
        movie = np.random.default_rng(0).integers(0, 256, UNNEEDED, dtype=np.uint8)
        file["acquisition/raw"] = movie
        series = file["processing/ophys/DfOverF/DfOverF"]
        series["behind the movie"] = series["data"][()]
        series["behind the movie"].attrs.update(series["data"].attrs)
        del series["data"]
        series.move("behind the movie", "data")
    return path


@pytest.fixture
def archive(nwb_file: Path) -> Iterator[Archive]:
    with Archive({PATH: nwb_file.read_bytes(), f"{PATH}.md5": b"another file"}) as server:
        yield server


def read_remote(url: str, patience: Patience | None = None) -> Recording:
    with open_remote(url, patience) as remote, open_hdf5(remote, name=url) as file:
        return recording_from_nwb(file)


def test_a_recording_read_where_it_lies_is_that_of_the_file(archive, nwb_file):
    remote, local = read_remote(archive.url(PATH)), read_nwb(nwb_file)
    np.testing.assert_array_equal(remote.df_over_f, local.df_over_f)
    np.testing.assert_array_equal(remote.df_over_f, traces())
    np.testing.assert_array_equal(remote.timestamps, local.timestamps)
    assert remote.recording_id == local.recording_id
    assert remote.units.equals(local.units)
    assert remote.stimulus("drifting_gratings").equals(local.stimulus("drifting_gratings"))
    assert remote.source == archive.url(PATH)


def test_what_is_not_needed_does_not_travel(archive, nwb_file):
    read_remote(archive.url(PATH))
    assert nwb_file.stat().st_size > UNNEEDED
    assert archive.bytes_sent < UNNEEDED / 10


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=429),
        Fault(cut_after=10),
        Fault(stall_after=10),
        Fault(ignores_range=True),
    ],
    ids=repr,
)
@pytest.mark.parametrize("place", [1, 2])
def test_a_request_that_fails_is_repeated(archive, fault, place):
    archive.faults = [Fault()] * place + [fault]
    recording = read_remote(archive.url(PATH), Patience(timeout=0.3))
    np.testing.assert_array_equal(recording.df_over_f, traces())
    assert archive.faults == []


def test_a_server_that_fails_for_ever_is_given_up_by_name(archive):
    archive.faults = [Fault()] + [Fault(status=503)] * 100
    with pytest.raises(DownloadError, match=r"Bytes 0 to .*download/' cannot be fetched.*503"):
        read_remote(archive.url(PATH))
    assert len(archive.requests) < 15


def test_a_link_that_expires_while_reading_is_an_error_not_a_crash(archive):
    archive.faults = [Fault(), Fault(), Fault(status=403)]
    with pytest.raises(DownloadError, match="403"):
        read_remote(archive.url(PATH))
    assert len(archive.requests) == 3


def test_a_server_that_sends_only_whole_files_is_refused(archive):
    archive.faults = [Fault(ignores_range=True)]
    with pytest.raises(DownloadError, match=r"does not send parts.*Download the file"):
        open_remote(archive.url(PATH))


def test_a_missing_file_is_refused_at_once(archive):
    with pytest.raises(DownloadError, match="404"):
        open_remote(f"{archive.base_url}/nothing")


def test_an_unreachable_server_is_named():
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1.*Gave up|Gave up.*127\.0\.0\.1"):
        open_remote("http://127.0.0.1:9/file.nwb", Patience(retries=1, timeout=0.3))


def test_an_address_that_is_none_is_refused_at_once():
    with pytest.raises(DownloadError, match="Check the address"):
        open_remote("ftp://127.0.0.1/file.nwb")


def test_without_remfile_the_extra_is_named(archive, monkeypatch):
    monkeypatch.setitem(sys.modules, "remfile", None)
    with pytest.raises(ImportError, match=r'pip install "poyo-ssl\[remote\]"'):
        open_remote(archive.url(PATH))


def test_a_remote_file_behaves_as_a_file(archive, nwb_file):
    content = nwb_file.read_bytes()
    with open_remote(archive.url(PATH)) as remote:
        assert remote.name == archive.url(PATH)
        assert remote.seek(-5, 2) == len(content) - 5
        assert remote.read(100) == content[-5:]
        assert remote.read(1) == b""
        assert remote.seek(1000) == 1000
        assert remote.read(10) == content[1000:1010]
        assert remote.tell() == 1010


def test_an_address_is_found_by_path_and_leads_to_the_file(archive, nwb_file):
    url = resolve_url(PATH, archive.base_url)
    assert url == archive.url(PATH)
    assert requests.get(url, timeout=5).content == nwb_file.read_bytes()


def test_finding_an_address_survives_an_interface_that_is_down_for_a_while(archive):
    archive.api_faults = [Fault(status=502), Fault(status=429, headers={"Retry-After": "0"})]
    assert resolve_url(PATH, archive.base_url) == archive.url(PATH)


def test_a_file_that_the_archive_lacks_is_named(archive):
    with pytest.raises(DownloadError, match=r"lists 0 files 'sub-1/none\.nwb'"):
        resolve_url("sub-1/none.nwb", archive.base_url)


def test_a_base_url_that_is_not_the_interface_is_refused(archive):
    with pytest.raises(DownloadError, match="404"):
        resolve_url(PATH, f"{archive.base_url}/wrong")


def two_sessions(nwb_file: Path) -> tuple[pd.DataFrame, Archive]:
    """Two rows of the catalogue, and an archive that has their files."""
    assets = find_sessions("A")[:2]
    return assets, Archive(dict.fromkeys(assets["path"], nwb_file.read_bytes()))


def test_streaming_stores_the_activity_and_leaves_the_rest_of_the_files_alone(nwb_file, tmp_path):
    assets, server = two_sessions(nwb_file)
    with server as archive:
        paths = stream_sessions(assets, tmp_path, base_url=archive.base_url)
    assert [path.stem for path in paths] == assets["recording_id"].tolist()
    for path in paths:
        recording = load_recording(path)
        np.testing.assert_array_equal(recording.df_over_f, traces())
        assert recording.recording_id == path.stem
        assert "drifting_gratings" in recording.stimuli
    assert archive.bytes_sent < 2 * UNNEEDED / 10


def test_streaming_again_reads_nothing_that_is_there(nwb_file, tmp_path):
    assets, server = two_sessions(nwb_file)
    seen = []
    with server as archive:
        paths = stream_sessions(assets, tmp_path, base_url=archive.base_url)
        archive.requests.clear()
        stream_sessions(
            assets,
            tmp_path,
            base_url=archive.base_url,
            on_progress=lambda *progress: seen.append(progress),
        )
    assert archive.requests == []
    sizes = [path.stat().st_size for path in paths]
    assert seen == list(zip(assets["session_id"], sizes, sizes, strict=True))


def test_a_session_that_cannot_be_streamed_does_not_stop_the_others(nwb_file, tmp_path):
    assets, server = two_sessions(nwb_file)
    server.files[assets["path"][0]] = b"<html>not here</html>"
    with (
        server as archive,
        pytest.raises(DownloadError, match=r"1 of 2 sessions failed:\n- .*not an HDF5 file"),
    ):
        stream_sessions(assets, tmp_path, base_url=archive.base_url)
    assert [path.stem for path in tmp_path.glob("*.h5")] == assets["recording_id"][1:].tolist()


def test_streaming_without_remfile_names_the_extra(nwb_file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "remfile", None)
    assets, server = two_sessions(nwb_file)
    with server as archive, pytest.raises(ImportError, match="pip install"):
        stream_sessions(assets, tmp_path, base_url=archive.base_url)
