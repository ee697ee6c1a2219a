"""Inputs that users of other tools reported as read wrongly, or refused in the wrong words.

Each is a small session built after a report; the name of a test says what the input was.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

import nwb_files
from poyo_ssl.recordings.formats.arrays import recording_from_arrays
from poyo_ssl.recordings.loading import find_recording_files, load_recording, load_recordings
from poyo_ssl.recordings.preparation import prepare
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import NwbConfig, SourceConfig, StimulusTable

RATE = 10.0
DEFAULT = SourceConfig()


def gratings(number: int = 40, **columns: Any) -> pd.DataFrame:
    """Trials of two seconds, one every three; eight directions in turn."""
    start = 3.0 * np.arange(number)
    orientation = np.resize(45.0 * np.arange(8), number)
    return pd.DataFrame({"start": start, "end": start + 2, "orientation": orientation} | columns)


def traces(num_timesteps: int = 1300, num_units: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num_timesteps, num_units)).astype(np.float32)


def session(table: pd.DataFrame | None = None, stimulus: str = "drifting_gratings") -> Recording:
    stimuli = {} if table is None else {stimulus: table}
    return recording_from_arrays(
        traces(), recording_id="day1", sampling_rate=RATE, stimuli=stimuli
    )


def write_npz(path: Path, **arrays: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **({"df_over_f": traces(), "sampling_rate": RATE} | arrays))
    return path


def write_table(path: Path, text: str, encoding: str = "utf-8", **options: Any) -> SourceConfig:
    """A table beside a recording, and the source that names it."""
    path.write_bytes(text.encode(encoding))
    listed = StimulusTable(table=path.name, **({"start": "start", "end": "end"} | options))
    return SourceConfig(stimuli={"drifting_gratings": listed})


# Folders and files


def test_a_symlinked_session_is_found_and_prepared(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    write_npz(data / "day1.npz")
    write_npz(elsewhere / "mouse2" / "day2.npz")
    (data / "mouse2").symlink_to(elsewhere / "mouse2")
    assert [path.stem for path in find_recording_files(data)] == ["day1", "day2"]
    manifest = prepare(data, tmp_path / "prepared", source=DEFAULT)
    assert manifest["recording_id"].tolist() == ["day1", "day2"]


def test_links_that_lead_round_in_a_circle_end(tmp_path):
    write_npz(tmp_path / "data" / "day1.npz")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "up").symlink_to(tmp_path)
    assert [path.name for path in find_recording_files(tmp_path / "data")] == ["day1.npz"]


@pytest.mark.parametrize(
    ("target", "remedy"),
    [
        (".git/annex/objects/Xv/9K/SHA256E-s9--1f.nwb/SHA256E-s9--1f.nwb", "git annex get"),
        ("/mnt/gone/day2.nwb", "'/mnt/gone/day2.nwb', which is not there"),
    ],
)
def test_a_link_without_content_is_named(tmp_path, target, remedy):
    """A git-annex or DataLad clone holds such links until the content is fetched."""
    data = tmp_path / "data"
    write_npz(data / "day1.npz")
    (data / "day2.nwb").symlink_to(target)
    for read in (load_recordings, lambda path: load_recording(path / "day2.nwb")):
        with pytest.raises(RecordingError, match=remedy) as caught:
            read(data)
        assert "day2.nwb" in str(caught.value)
        assert "Correct the path" not in str(caught.value)
    assert [r.recording_id for r in load_recordings(data, skip_broken=True)] == ["day1"]
    manifest = prepare(data, tmp_path / "prepared", source=DEFAULT)
    assert manifest["status"].tolist() == ["ok", "failed"]
    assert remedy in manifest["message"].iloc[1]


def test_a_broken_link_given_by_name_is_called_one(tmp_path):
    (tmp_path / "day2.nwb").symlink_to("/mnt/gone/day2.nwb")
    with pytest.raises(RecordingError, match="is a link to '/mnt/gone/day2.nwb'"):
        find_recording_files(tmp_path / "day2.nwb")


def test_a_suite2p_folder_whose_traces_are_a_broken_link_is_named(tmp_path):
    plane = tmp_path / "day1" / "suite2p" / "plane0"
    plane.mkdir(parents=True)
    np.save(plane / "iscell.npy", np.ones((3, 2)))
    np.save(plane / "ops.npy", {"fs": 10.0}, allow_pickle=True)
    for name in ("F.npy", "ops.npy", "iscell.npy"):  # the last one unread before is a link, too
        (plane / name).unlink(missing_ok=True)
        (plane / name).symlink_to(f"../.git/annex/objects/a/b/{name}")
        with pytest.raises(RecordingError, match=f"{name}' is a link of git-annex"):
            load_recordings(tmp_path)


@pytest.mark.parametrize(
    ("pointer", "remedy"),
    [
        ("/annex/objects/SHA256E-s9--1f.nwb\n", "git annex get"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1f\nsize 9\n", "git lfs pull"),
    ],
)
@pytest.mark.parametrize("name", ["day1.nwb", "day1.npz", "day1.h5", "suite2p/plane0/F.npy"])
def test_a_pointer_to_a_file_that_was_not_fetched_is_called_one(tmp_path, name, pointer, remedy):
    path = tmp_path / "day1" / name
    path.parent.mkdir(parents=True)
    path.write_text(pointer)
    if name.endswith("F.npy"):
        np.save(path.parent / "iscell.npy", np.ones((3, 2)))
        np.save(path.parent / "ops.npy", {"fs": 10.0}, allow_pickle=True)
    with pytest.raises(RecordingError, match=remedy):
        load_recordings(tmp_path)


def test_the_objects_of_an_annex_are_no_recordings(tmp_path):
    kept = write_npz(tmp_path / ".git" / "annex" / "objects" / "SHA256E-s9--1f.npz")
    (tmp_path / "day1.npz").symlink_to(kept)
    assert find_recording_files(tmp_path) == [tmp_path / "day1.npz"]
    assert [r.recording_id for r in load_recordings(tmp_path)] == ["day1"]


def denied(*_: Any, **__: Any) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("name", ["day1.nwb", "day1.npz", "table.csv"])
def test_a_file_without_permission_is_not_called_damaged(tmp_path, monkeypatch, name):
    source = write_table(tmp_path / "table.csv", gratings().to_csv(index=False))
    path = write_npz(tmp_path / "day1.npz")
    if name == "day1.nwb":
        path = nwb_files.write_simple(tmp_path / name)
    opened = Path.open

    def open_or_refuse(self: Path, *given: Any, **options: Any) -> Any:
        return denied() if self.name == name else opened(self, *given, **options)

    monkeypatch.setattr(Path, "open", open_or_refuse)
    monkeypatch.setattr("zipfile.ZipFile", denied) if name == "day1.npz" else None
    with pytest.raises(RecordingError, match="permission denied") as caught:
        load_recording(path, source)
    assert name in str(caught.value)
    assert "damaged" not in str(caught.value)
    assert "download" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_named(tmp_path):
    write_npz(tmp_path / "data" / "closed" / "day1.npz")
    (tmp_path / "data" / "closed").chmod(0)
    with pytest.raises(RecordingError, match="permission denied"):
        find_recording_files(tmp_path / "data")
    (tmp_path / "data" / "closed").chmod(0o700)


def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path, monkeypatch):
    write_npz(tmp_path / "data" / "day1.npz")
    (tmp_path / "data" / "closed").mkdir()
    scandir = os.scandir

    def scan_or_refuse(path: Any) -> Any:
        if os.fspath(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan_or_refuse)
    with pytest.raises(RecordingError, match="closed' cannot be opened: permission denied"):
        find_recording_files(tmp_path / "data")


def test_a_file_that_a_writer_has_locked_is_not_called_damaged(tmp_path, monkeypatch):
    """h5py#1082, pynwb#1790."""
    path = nwb_files.write_simple(tmp_path / "day1.nwb")

    def locked(*_: Any, **__: Any) -> None:
        raise BlockingIOError(
            errno.EAGAIN, "Unable to synchronously open file (unable to lock file, errno = 11)"
        )

    monkeypatch.setattr(h5py, "File", locked)
    with pytest.raises(RecordingError, match="open for writing in another program") as caught:
        load_recording(path)
    assert "damaged" not in str(caught.value)


def test_a_file_that_a_writer_left_open_is_not_called_damaged(tmp_path):
    path = tmp_path / "day1.nwb"
    with h5py.File(path, "w", libver="latest") as file:
        file["nwb_version"] = "2.7.0"
        file.swmr_mode = True
        content = path.read_bytes()  # as it is where the writer dies
    path.write_bytes(content)
    with pytest.raises(RecordingError, match="h5clear"):
        load_recording(path)
