"""Inputs that users of other tools reported as read wrongly, or refused in the wrong words.

Each is a small session built after a report; the name of a test says what the input was.
"""

from __future__ import annotations

import ast
import errno
import io
import logging
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

import nwb_files
import poyo_ssl
from poyo_ssl.cli import main
from poyo_ssl.recordings.formats.arrays import recording_from_arrays
from poyo_ssl.recordings.loading import find_recording_files, load_recording, load_recordings
from poyo_ssl.recordings.preparation import prepare
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import NwbConfig, SourceConfig, StimulusTable
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import DIRECTION, TASKS, find_classes
from poyo_ssl.windows.trial_splits import split_by_trial
from shared_data import DATA, needs_shared_data

RATE = 10.0
DEFAULT = SourceConfig()


def gratings(number: int = 40, **columns: Any) -> pd.DataFrame:
    """Trials of two seconds, one every three; eight directions in turn."""
    start = 3.0 * np.arange(number)
    orientation = np.resize(45.0 * np.arange(8), number)
    return pd.DataFrame({"start": start, "end": start + 2, "orientation": orientation} | columns)


def traces(num_timesteps: int = 1300, num_units: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num_timesteps, num_units)).astype(np.float32)


def session(
    table: pd.DataFrame | None = None, stimulus: str = "drifting_gratings", **more: Any
) -> Recording:
    stimuli = {} if table is None else {stimulus: table}
    return recording_from_arrays(
        traces(), recording_id="day1", sampling_rate=RATE, stimuli=stimuli, **more
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
    with pytest.raises(RecordingError, match=r"is a link to '/mnt/gone/day2.nwb'"):
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


# Times of imaging


def at(times: np.ndarray) -> Recording:
    return recording_from_arrays(traces(len(times)), recording_id="day1", timestamps=times)


def clock(*parts: tuple[float, float]) -> np.ndarray:
    """Times of parts of so many seconds at so many Hz, one after the other."""
    intervals = np.concatenate([np.full(round(s * rate), 1 / rate) for s, rate in parts])
    return np.append(0.0, np.cumsum(intervals))[:-1]


@pytest.mark.parametrize(
    ("later", "apart"), [(30.0, "33.33"), (60.0, "16.67"), (3.75, "266.7"), (18.0, "55.56")]
)
@pytest.mark.parametrize("share", [0.5, 0.2, 0.05])
def test_a_frame_rate_that_changes_is_refused_with_the_place(later, apart, share):
    """roiextractors#376, AllenSDK#1762: it doubles or quadruples in the last fifth."""
    times = clock((400 * (1 - share), 15.0), (400 * share, later))
    with pytest.raises(RecordingError, match=r"imaging rate changes at timestep \d+") as caught:
        at(times)
    message = str(caught.value)
    place = int(message.split("timestep ")[1].split(" ")[0])
    if len(times) * share < 4000 and share < 0.5 and later < 60:
        assert abs(place - 400 * (1 - share) * 15) <= 20
    assert apart in message or "66.67" in message
    assert "interpolate" in message


@pytest.mark.parametrize("first", [0.033, 0.067])
def test_alternating_intervals_are_no_steady_rate(first):
    intervals = np.resize([first, 0.1 - first], 1000)
    with pytest.raises(RecordingError, match="no steady rate") as caught:
        at(np.append(0.0, np.cumsum(intervals)))
    assert "33 ms" in str(caught.value)
    assert "67 ms" in str(caught.value)
    assert "sampling_rate" in str(caught.value)


def test_three_intervals_that_take_turns_are_no_steady_rate():
    intervals = np.resize([0.033, 0.033, 0.067], 999)
    with pytest.raises(RecordingError, match="no steady rate"):
        at(np.cumsum(intervals))


@pytest.mark.parametrize("seed", range(3))
def test_jitter_lost_frames_and_pauses_are_a_steady_rate(seed):
    rng = np.random.default_rng(seed)
    frames = np.flatnonzero(rng.random(6000) > 0.08)  # every twelfth was lost
    times = frames / 30 + rng.uniform(-0.004, 0.004, len(frames))
    times += np.floor(np.arange(len(frames)) / 200) * rng.uniform(1, 60)  # a pause per trial
    assert at(times).sampling_rate == pytest.approx(30, rel=0.02)


def test_trials_of_a_few_frames_are_a_steady_rate():
    trial = np.arange(6) / 30
    times = np.concatenate([trial + 8.0 * k for k in range(50)])
    assert len(at(times).segments) == 50


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e9])
def test_timestamps_in_ms_are_called_so(scale):
    with pytest.raises(RecordingError, match="times in ms"):
        at(np.arange(1300) / RATE * scale)


def test_timestamps_that_count_frames_are_read_as_seconds_only_with_a_rate_of_1_hz():
    """Nothing tells them from a slow microscope: only the presentations will not fit."""
    assert at(np.arange(1300.0)).sampling_rate == 1.0


@pytest.mark.parametrize("rate", [0.033, 0.0, -30.0, np.nan, np.inf])
def test_a_sampling_rate_that_is_a_period_is_refused(rate):
    with pytest.raises(RecordingError, match="imaging rate in Hz"):
        recording_from_arrays(traces(), recording_id="day1", sampling_rate=rate)


@pytest.mark.parametrize("shape", [(-1, 1), (1, -1)])
def test_timestamps_in_a_row_or_column_are_read(tmp_path, shape):
    times = np.arange(1300) / RATE
    with np.load(write_npz(tmp_path / "a.npz")) as arrays:
        kept = dict(arrays)
    del kept["sampling_rate"]
    np.savez(tmp_path / "a.npz", **kept, timestamps=times.reshape(shape))
    np.testing.assert_array_equal(load_recording(tmp_path / "a.npz").timestamps, times)


def test_timestamps_in_a_column_are_read_from_nwb(tmp_path):
    path = nwb_files.write_simple(tmp_path / "day1.nwb")
    with h5py.File(path, "r+") as file:
        series = file["processing/ophys/DfOverF/DfOverF"]
        times = series["timestamps"][()]
        del series["timestamps"]
        series["timestamps"] = times[:, None]
    np.testing.assert_array_equal(load_recording(path).timestamps, times)


@pytest.mark.parametrize(("more", "said"), [(3, "3 too many"), (-3, "3 too few")])
def test_timestamps_that_are_three_too_many_are_counted(more, said):
    with pytest.raises(RecordingError, match=said) as caught:
        recording_from_arrays(
            traces(), recording_id="day1", timestamps=np.arange(1300 + more) / RATE
        )
    assert "transpose" not in str(caught.value)


def test_as_many_timestamps_as_units_are_a_transposed_array():
    with pytest.raises(RecordingError, match="transpose it"):
        Recording(
            recording_id="day1",
            df_over_f=traces(4, 1300),
            timestamps=np.arange(1300) / RATE,
            units=pd.DataFrame({"unit_id": [str(unit) for unit in range(1300)]}),
        )


# Tables of presentations


def read(table: pd.DataFrame) -> pd.DataFrame:
    return session(table).stimulus("drifting_gratings")


def directions(*recordings: Recording, **options: Any) -> list[float]:
    return find_classes(list(recordings), replace(DIRECTION, **options)).tolist()


def test_csv_rows_that_end_in_a_comma(tmp_path):
    """pandas#14124: each column takes the name of the one before it."""
    lines = gratings(temporal_frequency=2.0).to_csv(index=False).splitlines()
    text = "\n".join([lines[0], *(line + "," for line in lines[1:])])
    source = write_table(tmp_path / "trials.csv", text)
    table = load_recording(write_npz(tmp_path / "a.npz"), source).stimulus("drifting_gratings")
    pd.testing.assert_frame_equal(table, gratings(temporal_frequency=2.0), check_dtype=False)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_in_the_encodings_of_spreadsheets(tmp_path, encoding, end):
    text = gratings(note="45°").to_csv(index=False).replace("\n", end)
    source = write_table(tmp_path / "trials.csv", text, encoding)
    table = load_recording(write_npz(tmp_path / "a.npz"), source).stimulus("drifting_gratings")
    pd.testing.assert_frame_equal(table, gratings(note="45°"), check_dtype=False)


def test_csv_in_an_unknown_encoding_says_how_to_save_it(tmp_path):
    source = write_table(tmp_path / "trials.csv", gratings(note="45°").to_csv(), "cp1252")
    with pytest.raises(RecordingError, match=r"byte 0xb0 in line 2 is no UTF-8.* 'CSV UTF-8'"):
        load_recording(write_npz(tmp_path / "a.npz"), source)


def test_csv_separated_by_semicolons(tmp_path):
    text = gratings().to_csv(index=False, sep=";", decimal=",")
    source = write_table(tmp_path / "trials.csv", text)
    with pytest.raises(RecordingError, match="separated by semicolons"):
        load_recording(write_npz(tmp_path / "a.npz"), source)


def test_csv_with_a_space_behind_the_name_of_a_column(tmp_path):
    text = gratings().to_csv(index=False).replace("start,", "start ,").replace("end,", " end ,")
    source = write_table(tmp_path / "trials.csv", text)
    table = load_recording(write_npz(tmp_path / "a.npz"), source).stimulus("drifting_gratings")
    pd.testing.assert_frame_equal(table, gratings(), check_dtype=False)


def test_csv_with_two_columns_of_one_name(tmp_path):
    text = gratings(other=1.0).to_csv(index=False).replace("other", "orientation")
    source = write_table(tmp_path / "trials.csv", text)
    with pytest.raises(RecordingError, match="several columns called orientation"):
        load_recording(write_npz(tmp_path / "a.npz"), source)


def ids(table: pd.DataFrame) -> list[int]:
    """Pairs of neighbours beyond 2**53, which are one floating number."""
    return [2**53 + 2 * (row % 4) + row % 2 for row in range(len(table))]


@pytest.mark.parametrize("is_complete", [True, False])
def test_whole_numbers_of_17_digits_stay_apart(tmp_path, is_complete):
    """One empty cell makes floating numbers of all, and two ids become one."""
    table = gratings()
    table["roi"] = pd.array(ids(table), dtype="Int64")
    if not is_complete:
        table.loc[3, "roi"] = pd.NA
    source = write_table(tmp_path / "trials.csv", table.to_csv(index=False))
    expected = [None if pd.isna(value) else str(value) for value in table["roi"]]
    read_back = load_recording(write_npz(tmp_path / "a.npz"), source).stimulus("drifting_gratings")
    assert read_back["roi"].tolist() == expected
    assert read(table)["roi"].tolist() == expected
    assert read(gratings(count=pd.array([1, pd.NA] * (len(table) // 2))))["count"].dtype == float


def test_floating_numbers_that_may_have_been_rounded_ids_are_warned_of(caplog):
    table = gratings()
    read(table.assign(roi=np.asarray(ids(table), dtype=float)))
    assert "'roi' holds floating numbers of 2**53 and more (row 0: 9007199254740992)" in caplog.text


def test_csv_with_decimal_commas_in_quotes_names_the_row(tmp_path):
    text = gratings(orientation="22,5").to_csv(index=False)
    source = write_table(tmp_path / "trials.csv", text)
    with pytest.raises(RecordingError, match="no number in row 0"):
        load_recording(write_npz(tmp_path / "a.npz"), source)


@pytest.mark.parametrize("error", [3e-6, -2e-7, 4e-4])
def test_labels_with_rounding_noise_are_one(error):
    table = gratings()
    table.loc[3::5, "orientation"] += error
    assert np.round(directions(session(table)), 2).tolist() == [45.0 * k for k in range(8)]


def test_the_direction_360_is_0():
    table = gratings()
    table.loc[8, "orientation"] = 360.0
    table.loc[9, "orientation"] = 45.0 - 360.0
    assert directions(session(table)) == [45.0 * k for k in range(8)]


@pytest.mark.parametrize("decimals", [2, 3, 16])
def test_radians_are_refused_with_the_value_and_the_remedy(decimals):
    table = gratings()
    table["orientation"] = np.round(np.deg2rad(table["orientation"]), decimals)
    with pytest.raises(RecordingError, match=r"orientation 5\.[45]\d* .*radians.*rad2deg"):
        session(table)


def test_radians_of_a_table_are_turned_into_degrees_where_that_is_said(tmp_path):
    table = gratings(orientation=np.deg2rad(np.resize(45.0 * np.arange(8), 40)))
    source = write_table(tmp_path / "a.csv", table.to_csv(index=False), angles="radians")
    recording = load_recording(write_npz(tmp_path / "a.npz"), source)
    assert directions(recording, session(gratings())) == [45.0 * k for k in range(8)]


@pytest.mark.parametrize(
    "degrees", [[-2, -1, 0, 1, 2], [0.5, 1, 1.5], [0.0, 1.2, 2.4, 3.6], [0, 90], [1, 2, 4, 6]]
)
def test_small_angles_in_degrees_are_no_radians(degrees):
    table = gratings(orientation=np.resize(np.array(degrees, dtype=float), 40))
    assert len(directions(session(table))) == len(degrees)


@pytest.mark.parametrize("sentinel", [-999.0, 1e6, np.inf])
def test_what_is_no_angle_is_refused_with_its_row(sentinel):
    table = gratings()
    table.loc[5, "orientation"] = sentinel
    with pytest.raises(RecordingError, match=r"row 5 has orientation .*empty in a blank sweep"):
        session(table)


@pytest.mark.parametrize("blank", [-1, np.nan])
def test_blanks_of_natural_scenes_are_no_class(blank):
    """AllenSDK lists a blank sweep as frame -1."""
    images = np.resize(np.append(np.arange(7.0), blank), 40)
    recording = session(
        gratings().drop(columns="orientation").assign(image=images), "natural_scenes"
    )
    assert recording.stimulus("natural_scenes")["image"].min() == -1
    assert find_classes([recording], TASKS["scene"]).tolist() == list(range(7))


@pytest.mark.parametrize(
    "column", [{"is_blank_sweep": 1}, {"blank": True}, {"contrast": 0.0}, {"orientation": -1.0}]
)
def test_blank_sweeps_of_gratings_are_no_direction(column):
    [(name, value)] = column.items()
    table = gratings(is_blank_sweep=0, blank=False, contrast=0.8)
    table.loc[::9, name] = value
    found = read(table)
    assert found["orientation"].isna().to_numpy().nonzero()[0].tolist() == list(range(0, 40, 9))
    assert directions(session(table)) == [45.0 * k for k in range(8)]


def test_gratings_that_are_all_of_contrast_0_are_not_all_blank():
    """Where the column says nothing of the rows, it is no reason to drop them."""
    assert read(gratings(contrast=0.0))["orientation"].notna().all()


@pytest.mark.parametrize(("name", "value"), [("contrast", "0%"), ("blank", "yes")])
def test_blank_sweeps_that_are_marked_by_text_are_not_guessed(caplog, name, value):
    table = gratings(**{name: "80%"})
    table.loc[::9, name] = value
    assert read(table)["orientation"].notna().all()
    assert f"'{name}' holds text, such as '{value}'" in caplog.text


def test_pictures_that_are_counted_from_1_are_not_asked_for():
    start = 0.5 * np.arange(200)
    frames = np.resize(np.arange(1, 21), 200)
    table = pd.DataFrame({"start": start, "end": start + 0.5, "movie_frame": frames})
    pictures = {"natural_movie_one": np.zeros((20, 4, 6), np.uint8)}
    few_parts = SplitConfig(held_out_blocks=1, guard=0.1)
    recording = session(table, "natural_movie_one", templates=pictures)
    with pytest.raises(RecordingError, match=r"shows movie_frame 20 .* but has 20 pictures"):
        divide(recording, "movie", few_parts)
    table = table.assign(movie_frame=frames - 1)
    assert divide(session(table, "natural_movie_one", templates=pictures), "movie", few_parts)


@pytest.mark.parametrize("missing", [None, np.nan, ""])
def test_a_unit_without_a_name_is_not_called_nan(missing):
    with pytest.raises(RecordingError, match=r"unit 1 \(the first is 0\) has no unit.id"):
        recording_from_arrays(
            traces(), recording_id="a", sampling_rate=RATE, unit_ids=["a", missing, "c", "d"]
        )
    with pytest.raises(RecordingError, match="has no recording_id"):
        recording_from_arrays(traces(), recording_id="", sampling_rate=RATE)


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e9])
def test_presentations_in_ms_are_called_so(scale):
    table = gratings()
    table[["start", "end"]] *= scale
    with pytest.raises(RecordingError, match=rf"Divide its times by {scale:g}".replace("+", r"\+")):
        session(table)


def test_the_end_of_a_block_that_was_taken_from_the_next_one(caplog):
    """openscope_databook#269: two blocks became one."""
    table = gratings()
    table.loc[20:, ["start", "end"]] += 5.0  # the pause is too short to end a block by itself
    table.loc[20:, ["start", "end"]] += 20.0
    expected = split_by_trial(session(table), "drifting_gratings", SplitConfig())
    table.loc[19, "end"] = table.loc[20, "start"] + 0.5
    with caplog.at_level(logging.WARNING):
        recording = session(table)
    assert "rows 19 (28.5 s)" in caplog.text
    found = split_by_trial(recording, "drifting_gratings", SplitConfig())
    assert len(found.test) == len(expected.test) == 2
    np.testing.assert_allclose(found.test[:, 0], expected.test[:, 0])


def test_presentations_of_any_length_are_not_warned_of(caplog):
    table = gratings()
    table["end"] = table["start"] + np.random.default_rng(0).uniform(0.5, 2.5, 40)
    session(table)
    assert "last more than" not in caplog.text


# NWB files of other programs


@pytest.fixture
def nwb(tmp_path) -> Path:
    return nwb_files.write_simple(tmp_path / "day1.nwb")


def mark_rois(path: Path, **columns: Any) -> None:
    with h5py.File(path, "r+") as file:
        table = file["processing/ophys/ImageSegmentation/PlaneSegmentation"]
        for name, values in columns.items():
            table[name.replace("_", " ") if name == "is_cell" else name] = values


@pytest.mark.parametrize(
    "columns",
    [
        {"Accepted": [1, 0, 1, 0], "Rejected": [0, 1, 0, 1]},
        {"Accepted": [1, 0, 1, 0]},
        {"Rejected": [0, 1, 0, 1]},
        {"accepted": [1, 0, 1, 1], "rejected": [0, 0, 0, 1]},
        {"iscell": [[1, 0.9], [0, 0.6], [1, 0.4], [0, 0.1]]},
        {"iscell": [1.0, 0.0, 1.0, 0.0]},
        {"is_cell": [True, False, True, False]},
        {"valid_roi": [True, False, True, False]},
        {"iscell": [b"True", b"False", b"True", b"False"]},
        {"Accepted": [0, 0, 0, 0], "Rejected": [0, 1, 0, 1]},
    ],
)
def test_rois_that_were_rejected_are_no_units(nwb, caplog, columns):
    """pynapple#215, neuroconv#1459: half of what suite2p or CaImAn found are no cells."""
    mark_rois(nwb, **columns)
    recording = load_recording(nwb)
    assert recording.unit_ids.tolist() == ["99/7001", "99/7003"]
    np.testing.assert_array_equal(recording.df_over_f, nwb_files.traces()[:, [0, 2]])
    assert "2 of 4 ROIs are no cells" in caplog.text
    everything = load_recording(nwb, SourceConfig(nwb=NwbConfig(only_cells=False)))
    np.testing.assert_array_equal(everything.df_over_f, nwb_files.traces())


def test_rois_that_nobody_sorted_are_all_read(nwb, caplog):
    mark_rois(nwb, Accepted=[0, 0, 0, 0], Rejected=[0, 0, 0, 0])
    assert load_recording(nwb).num_units == 4
    assert "never sorted" in caplog.text


@pytest.mark.parametrize("column", [{"valid": [1, 0, 1, 1]}, {"Quality": [b"good", b"bad"] * 2}])
def test_columns_that_may_sort_rois_are_named(nwb, caplog, column):
    mark_rois(nwb, **column)
    assert load_recording(nwb).num_units == 4
    assert f"whether '{next(iter(column))}' says which ROIs are cells is not known" in caplog.text


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"Rejected": [1, 1, 1, 1]}, "none of 4 ROIs is called a cell"),
        ({"iscell": [0, 0, 0, 0]}, "none of 4 ROIs is called a cell"),
        ({"iscell": [0.9, 0.1, 0.8, 0.2]}, r"'iscell' should say 0 or 1 .* has 0\.9 in row 0"),
        ({"Accepted": [b"maybe", b"0", b"1", b"1"]}, "'Accepted' should say 0 or 1"),
        ({"iscell": np.zeros((4, 2, 2))}, r"has shape \(4, 2, 2\)"),
    ],
)
def test_tables_of_rois_that_say_something_else_are_refused(nwb, columns, message):
    mark_rois(nwb, **columns)
    with pytest.raises(RecordingError, match=message) as caught:
        load_recording(nwb)
    assert "only_cells" in str(caught.value)


@pytest.mark.parametrize(
    "kept",
    [
        ["orientation_in_degrees"],
        ["orientation_in_degrees", "temporal_frequency_in_hz"],
        ["temporal_frequency_in_hz", "is_blank_sweep"],
        [],
    ],
)
def test_a_table_of_drifting_gratings_that_lacks_columns_is_read(nwb, caplog, kept):
    with h5py.File(nwb, "r+") as file:
        table = file["stimulus/presentation/drifting_gratings"]
        for name in [n for n in table if n not in (*kept, "id", "start_time", "stop_time")]:
            del table[name]
    found = load_recording(nwb).stimulus("drifting_gratings")
    assert found["start"].tolist() == [11.0, 14.0, 17.0]
    if "orientation_in_degrees" in kept:
        np.testing.assert_array_equal(found["orientation"], [45.0, np.nan, 90.0])
    assert ("orientation" in found) == ("orientation_in_degrees" in kept)
    assert "lacks " in caplog.text
    assert "spatial_frequency_in_cycles_per_degree" in caplog.text


def test_a_table_of_drifting_gratings_with_our_names_is_read(nwb):
    with h5py.File(nwb, "r+") as file:
        table = file["stimulus/presentation/drifting_gratings"]
        table.move("orientation_in_degrees", "orientation")
    found = load_recording(nwb).stimulus("drifting_gratings")["orientation"]
    np.testing.assert_array_equal(found, [45.0, np.nan, 90.0])


def fluorescence_file(path: Path, values: np.ndarray, unit: str = "n.a.", **names: str) -> Path:
    session = nwb_files.new_session()
    name = names.get("series", "RoiResponseSeries")
    nwb_files.add_fluorescence(session, {name: values}, names.get("interface", "Fluorescence"))
    nwb_files.write(session, path)
    with h5py.File(path, "r+") as file:
        interface = file["processing/ophys"][names.get("interface", "Fluorescence")]
        interface[name]["data"].attrs["unit"] = unit
    return path


def test_df_over_f_in_a_container_called_fluorescence(tmp_path):
    """ΔF/F of ΔF/F is no number to learn from: it takes its owner's word."""
    path = fluorescence_file(tmp_path / "a.nwb", nwb_files.traces())
    with pytest.raises(RecordingError, match=r"lie around zero .* df_over_f"):
        load_recording(path)
    kept = load_recording(path, SourceConfig(nwb=NwbConfig(activity="df_over_f")))
    np.testing.assert_array_equal(kept.df_over_f, nwb_files.traces())
    turned = load_recording(path, SourceConfig(nwb=NwbConfig(activity="fluorescence")))
    assert not np.array_equal(turned.df_over_f, nwb_files.traces())


@pytest.mark.parametrize("unit", ["dF/F", "ΔF/F", "df/f", "deltaF/F", "dff", "dF/F0", "dF over F"])
def test_df_over_f_that_only_its_unit_names_is_taken_as_it_is(tmp_path, unit):
    path = fluorescence_file(tmp_path / "a.nwb", nwb_files.traces(), unit)
    np.testing.assert_array_equal(load_recording(path).df_over_f, nwb_files.traces())


@pytest.mark.parametrize("name", ["dff", "DfOverF", "dF_F", "dff_traces", "deltaFoverF", "DFF"])
@pytest.mark.parametrize("place", ["series", "interface"])
def test_df_over_f_that_a_name_tells_is_taken_as_it_is(tmp_path, name, place):
    path = fluorescence_file(tmp_path / "a.nwb", nwb_files.traces(), **{place: name})
    np.testing.assert_array_equal(load_recording(path).df_over_f, nwb_files.traces())


def test_raw_fluorescence_in_a_container_called_df_over_f(nwb):
    """The other way round, for whoever knows better than the name."""
    asked = SourceConfig(nwb=NwbConfig(activity="fluorescence"))
    assert not np.array_equal(load_recording(nwb, asked).df_over_f, nwb_files.traces())


def test_fluorescence_is_still_turned_into_df_over_f(tmp_path, caplog):
    light = 200 + 30 * np.abs(nwb_files.traces())
    recording = load_recording(fluorescence_file(tmp_path / "a.nwb", light))
    assert abs(np.median(recording.df_over_f)) < 1
    assert "df_over_f" in caplog.text


@pytest.mark.parametrize("dtype", [np.uint16, float])
def test_raw_fluorescence_that_is_given_as_df_over_f_is_warned_of_once(tmp_path, caplog, dtype):
    light = (400 + 30 * np.abs(traces())).astype(dtype)
    [said] = load_recording(write_npz(tmp_path / "day1.npz", df_over_f=light)).warnings
    assert "'day1': its traces look like raw fluorescence" in said
    assert re.search(r"4 of 4 units .* \(median 4[12].*F\.npy of suite2p", said)
    assert caplog.messages == [said]
    made = recording_from_arrays(light, recording_id="day1", sampling_rate=RATE)
    assert made.warnings == (said,)


@pytest.mark.parametrize(
    "activity",
    [
        traces(),  # in standard deviations
        1 + 0.2 * traces(),  # F / F0
        100 * traces(),  # in percent
        np.random.default_rng(0).poisson(0.2, size=(1300, 4)),  # spikes
        np.full((1300, 4), np.nan),
        300 + traces()[:, :0],
    ],
)
def test_other_traces_are_no_raw_fluorescence(activity):
    made = recording_from_arrays(activity, recording_id="day1", timestamps=np.arange(1300) / RATE)
    assert not made.warnings


# Files of other programs


def write_caiman(path: Path, **changes: Any) -> Path:
    values = {
        "estimates/F_dff": traces().T,
        "estimates/idx_components": np.array([0, 2, 3]),
        "params/data/fr": 10,
    } | changes
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            if value is not None:
                file[name] = value
    return path


def test_an_analysis_of_caiman_is_read(tmp_path):
    source = write_table(tmp_path / "trials.csv", gratings().to_csv(index=False))
    recording = load_recording(write_caiman(tmp_path / "day1.hdf5"), source)
    np.testing.assert_array_equal(recording.df_over_f, traces()[:, [0, 2, 3]])
    assert recording.unit_ids.tolist() == ["day1/0", "day1/2", "day1/3"]
    assert recording.sampling_rate == pytest.approx(10)
    assert len(recording.stimulus("drifting_gratings")) == 40
    assert [r.recording_id for r in load_recordings(tmp_path)] == ["day1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"estimates/F_dff": b"NoneType"}, r"without ΔF/F .*detrend_df_f"),
        ({"estimates/F_dff": np.zeros(5)}, r"has shape \(5,\)"),
        ({"estimates/idx_components": np.empty(0)}, "no component was accepted"),
        ({"estimates/idx_components": [9]}, "counts up to 9, but there are 4"),
        ({"estimates/idx_components": [0.5]}, "counts up to 0.5"),
        ({"params/data/fr": b"NoneType"}, "no imaging rate"),
        ({"params/data/fr": np.nan}, "no imaging rate"),
        ({"params/data/fr": None, "params/data/dims": [1, 2]}, "no imaging rate"),
    ],
)
def test_an_analysis_of_caiman_that_lacks_something_says_what_to_run(tmp_path, changes, message):
    with pytest.raises(RecordingError, match=message):
        load_recording(write_caiman(tmp_path / "day1.hdf5", **changes))


def test_components_that_nobody_evaluated_are_all_read(tmp_path):
    path = write_caiman(tmp_path / "day1.hdf5", **{"estimates/idx_components": b"NoneType"})
    assert load_recording(path).num_units == 4


@needs_shared_data
def test_real_outputs_of_other_programs_are_read_or_named():
    recording = load_recording(DATA / "formats/caiman_analysis.hdf5")
    assert (recording.num_timesteps, recording.num_units) == (1000, 72)
    assert recording.sampling_rate == pytest.approx(30)
    planes = load_recordings(DATA / "formats/suite2p")
    assert [plane.num_timesteps for plane in planes] == [250, 250]
    for path in (DATA / "formats").glob("*.mat"):
        with pytest.raises(RecordingError, match=r"is an output of EXTRACT.*np\.savez"):
            load_recording(path)


@pytest.mark.parametrize("name", ["output/temporal_weights", "extractAnalysisOutput/traces", "F"])
def test_the_line_that_converts_a_foreign_file_works(tmp_path, name):
    is_units_first = name != "extractAnalysisOutput/traces"
    path = tmp_path / "day1.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file[name] = traces().T if is_units_first else traces()
    with pytest.raises(RecordingError, match="Convert it") as caught:
        load_recording(path)
    line = str(caught.value).split("Convert it: ")[1].removesuffix(", the rate in Hz.")
    line = line.replace("...", "10.0").replace("'day1.npz'", repr(str(tmp_path / "day1.npz")))
    exec(line, {"h5py": h5py, "np": np})
    np.testing.assert_array_equal(load_recording(tmp_path / "day1.npz").df_over_f, traces())


@pytest.mark.parametrize("text", [b"MATLAB 5.0 MAT-file, Platform: GLNXA64", b"MATLAB 5.0"])
def test_a_file_of_matlab_5_is_called_one(tmp_path, text):
    (tmp_path / "day1.mat").write_bytes(text.ljust(600))
    with pytest.raises(RecordingError, match=r"MATLAB 5 to 7.*loadmat"):
        load_recording(tmp_path / "day1.mat")


# What is said, and where


def test_library_messages_name_no_flag_of_the_command_line():
    package = Path(poyo_ssl.__file__).parent
    flags = []
    for path in package.rglob("*.py"):
        if "cli" in path.relative_to(package).parts or path.name == "slurm.py":
            continue  # they are the command line, or write it
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        prose = {
            id(node.value)
            for node in nodes
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said = re.search(
                    r"(?<!head )(?<!\w)--(?!head|nproc|standalone|upgrade)[a-z]\w+", node.value
                )
                flags += [f"{path.name}: {node.value}"] if said and id(node) not in prose else []
    assert not flags


def test_output_that_a_console_cannot_encode_is_replaced(tmp_path, monkeypatch):
    """A Windows console of cp1252 has no Δ: it ended in "'charmap' codec can't encode"."""
    source = write_table(tmp_path / "trials.csv", gratings(note="日本").to_csv(index=False))
    path = write_npz(tmp_path / "日本.npz")
    assert load_recording(path, source)
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    assert main(["inspect", str(path)]) == 0
    sys.stdout.flush()
    assert b"??" in sys.stdout.buffer.getvalue()
    assert main(["inspect", str(tmp_path / "Δ.npz")]) == 1
    sys.stderr.flush()
    assert b"does not exist" in sys.stderr.buffer.getvalue()
    assert b"charmap" not in sys.stderr.buffer.getvalue()
