import logging

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynwb.epoch import TimeIntervals

import nwb_files
from nwb_files import traces
from poyo_ssl.recordings.formats.nwb import read_nwb
from poyo_ssl.recordings.formats.nwb_stimuli import IMAGES, index_table
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.sources import SourceConfig, StimulusTable
from poyo_ssl.recordings.storage import open_recording, save_recording


@pytest.fixture
def with_trials(tmp_path):
    """A session of another lab: its own names, and directions written as text."""
    session = nwb_files.new_session()
    nwb_files.add_traces(session, traces())
    session.add_trial_column("dir_deg", "direction")
    session.add_trial_column("rate", "temporal frequency")
    for start, direction in [(17.0, "90"), (11.0, "0"), (14.0, ""), (90.0, "45")]:
        session.add_trial(start_time=start, stop_time=start + 1.0, dir_deg=direction, rate=2)
    table = TimeIntervals(name="flashes_presentations", description="as in Visual Behavior")
    table.add_row(start_time=12.0, stop_time=12.25)
    session.add_time_intervals(table)
    return nwb_files.write(session, tmp_path / "trials.nwb")


def map_trials(table="intervals/trials", **columns):
    columns = columns or {"orientation": "dir_deg", "temporal_frequency": "rate"}
    return SourceConfig(stimuli={"drifting_gratings": StimulusTable(table=table, columns=columns)})


def test_a_table_of_trials_becomes_a_stimulus_by_its_own_names(with_trials, caplog):
    with caplog.at_level(logging.WARNING):
        table = read_nwb(with_trials, map_trials()).stimulus("drifting_gratings")
    assert table["start"].tolist() == [11.0, 14.0, 17.0]
    assert table["end"].tolist() == [12.0, 15.0, 18.0]
    np.testing.assert_array_equal(table["orientation"], [0.0, np.nan, 90.0])
    assert table["temporal_frequency"].tolist() == [2, 2, 2]
    assert "1 of 4 presentations lie outside the traces" in caplog.text


def test_all_columns_of_a_mapped_table_are_read_and_may_be_text(tmp_path):
    session = nwb_files.new_session()
    nwb_files.add_traces(session, traces())
    session.add_trial_column("choice", "text")
    session.add_trial_column("licks", "ragged", index=True)
    for start, choice in [(17.0, "left"), (11.0, ""), (14.0, "über")]:
        session.add_trial(
            start_time=start, stop_time=start + 1.0, choice=choice, licks=[1.0, 2.0], tags=["a"]
        )
    path = nwb_files.write(session, tmp_path / "trials.nwb")
    source = SourceConfig(stimuli={"trials": StimulusTable(table="intervals/trials")})
    recording = read_nwb(path, source)
    table = recording.stimulus("trials")
    assert list(table) == ["start", "end", "choice"]
    assert table["choice"].tolist() == [None, "über", "left"]
    stored = open_recording(save_recording(recording, tmp_path)).stimulus("trials")
    pd.testing.assert_frame_equal(stored, table)


def test_a_mapped_table_takes_the_place_of_the_layouts_own(with_trials):
    with h5py.File(with_trials, "r+") as file:
        file.copy("intervals/trials", "stimulus/presentation/drifting_gratings")  # without columns
    assert len(read_nwb(with_trials, map_trials()).stimulus("drifting_gratings")) == 3


def test_a_missing_table_is_answered_with_those_that_exist(with_trials):
    with pytest.raises(
        RecordingError,
        match=r"no table 'intervals/trial'.*intervals/flashes_presentations, intervals/trials",
    ):
        read_nwb(with_trials, map_trials("intervals/trial"))


def test_a_missing_column_is_answered_with_those_that_exist(with_trials):
    with pytest.raises(RecordingError, match=r"trials lacks direction \(found: .*dir_deg"):
        read_nwb(with_trials, map_trials(orientation="direction"))


def test_a_column_of_words_names_the_row(with_trials):
    with h5py.File(with_trials, "r+") as file:
        file["intervals/trials/dir_deg"][3] = "upwards"
    with pytest.raises(RecordingError, match=r"no number in row 3 .*upwards"):
        read_nwb(with_trials, map_trials())


def test_a_path_to_an_array_is_no_table(with_trials):
    with pytest.raises(RecordingError, match="no table 'intervals/trials/id'"):
        read_nwb(with_trials, map_trials("intervals/trials/id"))


@pytest.mark.parametrize("name", IMAGES)
def test_single_pictures_survive_reading_and_storing(tmp_path, name):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    session = nwb_files.new_session()
    nwb_files.add_traces(session, traces())
    shown = np.array([2, nwb_files.BLANK, 0])
    nwb_files.add_scenes(session, shown, 11.0 + 0.25 * np.arange(3), pictures, name=name)
    recording = read_nwb(nwb_files.write(session, tmp_path / "noise.nwb"))
    assert recording.stimulus(name)["image"].tolist() == [2, -1, 0]
    np.testing.assert_array_equal(recording.templates[name], pictures)
    stored = open_recording(save_recording(recording, tmp_path / "stored"))
    nwb_files.assert_same_recording(stored, recording)


def test_a_grating_that_ends_before_it_starts_is_refused_with_its_row(tmp_path):
    path = nwb_files.write_simple(tmp_path / "simple.nwb")
    with h5py.File(path, "r+") as file:
        file["stimulus/presentation/drifting_gratings/stop_time"][2] = 17.0
    with pytest.raises(RecordingError, match=r"drifting_gratings: row 2 starts at 17\.0 s but"):
        read_nwb(path)


def test_gratings_in_any_order_come_out_in_order_of_time(tmp_path):
    path = nwb_files.write_simple(tmp_path / "simple.nwb")
    expected = read_nwb(path)
    with h5py.File(path, "r+") as file:
        table = file["stimulus/presentation/drifting_gratings"]
        for column in table.values():
            column[...] = column[()][::-1]
    nwb_files.assert_same_recording(read_nwb(path), expected)


def test_a_movie_frame_beyond_the_template_is_refused(tmp_path):
    path = nwb_files.write_simple(tmp_path / "simple.nwb")
    pictures = np.zeros((2, 3, 4), dtype=np.uint8)
    nwb_files.add_movie(path, np.array([0, 1, 2]), 11.0 + np.arange(3) / 30, pictures)
    with pytest.raises(RecordingError, match="presentation 2 of natural_movie_one shows picture 2"):
        read_nwb(path)


@pytest.mark.parametrize(
    ("shown", "problem"),
    [
        (np.arange(2), r"natural_movie_one_stimulus has 2 samples but 3 timestamps"),
        (np.array([b"a", b"b", b"c"]), r"natural_movie_one_stimulus/data holds \|S1, not numbers"),
        (np.zeros(3, dtype=complex), r"holds complex128, not numbers"),
    ],
)
def test_what_counts_no_pictures_is_refused(tmp_path, shown, problem):
    path = nwb_files.write_simple(tmp_path / "simple.nwb")
    pictures = np.zeros((3, 3, 4), dtype=np.uint8)
    nwb_files.add_movie(path, np.arange(3), 11.0 + np.arange(3) / 30, pictures)
    with h5py.File(path, "r+") as file:
        del file["stimulus/presentation/natural_movie_one_stimulus/data"]
        file["stimulus/presentation/natural_movie_one_stimulus/data"] = shown
    with pytest.raises(RecordingError, match=problem):
        read_nwb(path)


@given(
    repeats=st.integers(1, 4),
    num_frames=st.integers(2, 6),
    dtype=st.sampled_from([np.uint8, np.uint32, np.uint64, np.int16, np.float16]),
    seed=st.integers(0, 100),
)
def test_pictures_follow_one_another_whatever_their_type_and_order(
    repeats, num_frames, dtype, seed
):
    shown = np.tile(np.arange(num_frames), repeats)
    start = 5.0 + np.arange(len(shown)) / 30
    order = np.random.default_rng(seed).permutation(len(shown))
    movie = index_table("natural_movie_two", shown[order].astype(dtype), start[order])
    expected = pd.DataFrame(
        {"movie_frame": shown, "repeat": np.repeat(np.arange(repeats), num_frames)}
    )
    pd.testing.assert_frame_equal(movie[["movie_frame", "repeat"]], expected)
    np.testing.assert_allclose(movie["end"], start + 1 / 30)
    with_blank = shown.astype(dtype)
    with_blank[0] = np.array(-1).astype(dtype)  # as a cast to an unsigned type makes it
    assert index_table("natural_scenes", with_blank, start)["image"].iloc[0] == -1
