import logging

import h5py
import numpy as np
import pytest

import nwb_files
from nwb_files import GLOBAL_ROI_IDS, NUM_TIMESTEPS, NUM_UNITS, imaging_times, traces
from poyo_ssl.recordings.formats.nwb import is_nwb2, read_nwb
from poyo_ssl.recordings.formats.nwb1 import is_nwb1, read_nwb1
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.sources import SourceConfig, StimulusTable

PIPELINE = "processing/brain_observatory_pipeline"
PICTURES = np.random.default_rng(0).integers(0, 256, (6, 5, 7), dtype=np.uint8)
MOVIE_FRAMES = np.arange(60, 78)  # imaging frames in which the three repeats are shown
SCENE_FRAMES = [(150, 157), (157, 165), (165, 172)]
NOISE_FRAMES = [(200, 207), (207, 215)]
DRIFTING = np.array([[8.0, 45.0, 0.0], [np.nan, np.nan, 1.0], [8.0, 90.0, 0.0]])
STATIC = np.array([[45.0, 0.04, 0.25], [np.nan, np.nan, np.nan], [90.0, 0.04, 0.25]])
GRATING_FRAMES = [(30, 90), (120, 180), (210, 270)]


@pytest.fixture
def old(tmp_path):
    """Traces and drifting gratings."""
    path = nwb_files.write_nwb1(tmp_path / "old.nwb", traces())
    features = [b"temporal_frequency", b"orientation", b"blank_sweep"]
    nwb_files.add_nwb1_stimulus(
        path, "drifting_gratings", DRIFTING, GRATING_FRAMES, features=features
    )
    return path


@pytest.fixture
def new_and_old(tmp_path, old):
    """One session with every stimulus and behaviour, as NWB 2 and as NWB 1."""
    session = nwb_files.new_session()
    nwb_files.add_traces(session, traces())
    nwb_files.add_gratings(session)
    nwb_files.add_gratings(session, static=True)
    nwb_files.add_spontaneous(session)
    nwb_files.add_behavior(session)
    shown = np.array([5, -1, 2])
    times = imaging_times()
    onsets = times[[first for first, _ in SCENE_FRAMES]]
    nwb_files.add_scenes(session, np.where(shown < 0, nwb_files.BLANK, shown), onsets, PICTURES)
    noise = "locally_sparse_noise_4deg"
    onsets = times[[first for first, _ in NOISE_FRAMES]]
    nwb_files.add_scenes(session, np.array([1, 0]), onsets, PICTURES[:2], name=noise)
    new = nwb_files.write(session, tmp_path / "new.nwb")
    frames = np.tile(np.arange(6), 3)
    nwb_files.add_movie(new, frames, times[MOVIE_FRAMES], PICTURES)

    nwb_files.add_nwb1_stimulus(old, "static_gratings", STATIC, GRATING_FRAMES)
    nwb_files.add_nwb1_stimulus(old, "spontaneous", np.array([1, -1]), [(60, 60), (105, 105)])
    nwb_files.add_nwb1_behavior(old)
    nwb_files.add_nwb1_stimulus(old, "natural_scenes", shown, SCENE_FRAMES)
    nwb_files.add_nwb1_template(old, "natural_scenes", PICTURES.astype(np.float32))
    nwb_files.add_nwb1_stimulus(old, noise, np.array([1, 0]), NOISE_FRAMES)
    nwb_files.add_nwb1_template(old, noise, PICTURES[:2])
    movie_frames = [(frame, frame) for frame in MOVIE_FRAMES]  # over before the next timestep
    nwb_files.add_nwb1_stimulus(old, "natural_movie_one", frames, movie_frames)
    nwb_files.add_nwb1_template(old, "natural_movie_one", PICTURES)
    return new, old


def test_one_session_as_nwb_1_and_nwb_2_gives_one_recording(new_and_old):
    new, old = new_and_old
    recording = read_nwb1(old)
    nwb_files.assert_same_recording(recording, read_nwb(new))
    assert recording.unit_ids.tolist() == [f"99/{cell}" for cell in GLOBAL_ROI_IDS]
    assert len(recording.stimuli) == 6


def test_the_two_versions_are_told_apart_and_from_other_files(new_and_old, tmp_path):
    for path, expected in zip(new_and_old, [(False, True), (True, False)], strict=True):
        with h5py.File(path) as file:
            assert (is_nwb1(file), is_nwb2(file)) == expected
    with h5py.File(new_and_old[1], "r+") as file:
        del file["nwb_version"]
        assert (is_nwb1(file), is_nwb2(file)) == (True, False)
    with h5py.File(tmp_path / "mat.h5", "w") as file:
        file["F"] = 1.0
        assert (is_nwb1(file), is_nwb2(file)) == (False, False)


def test_without_timestamps_a_stimulus_starts_with_its_imaging_frame(old):
    expected = read_nwb1(old)
    with h5py.File(old, "r+") as file:
        del file["stimulus/presentation/drifting_gratings_stimulus/timestamps"]
    nwb_files.assert_same_recording(read_nwb1(old), expected)


def test_a_grating_may_end_with_the_recording_and_not_after_it(old, caplog):
    path = "stimulus/presentation/drifting_gratings_stimulus/frame_duration"
    with h5py.File(old, "r+") as file:
        file[path][2] = (240, NUM_TIMESTEPS)
    table = read_nwb1(old).stimulus("drifting_gratings")
    assert table["end"].iloc[-1] == pytest.approx(imaging_times()[-1] + 1 / nwb_files.RATE)
    with h5py.File(old, "r+") as file:
        file[path][2] = (240, NUM_TIMESTEPS + 1)
    with caplog.at_level(logging.WARNING):
        assert len(read_nwb1(old).stimulus("drifting_gratings")) == 2
    assert "1 of 3 presentations lie outside the traces" in caplog.text


def test_a_grating_that_ends_before_it_starts_is_refused_with_its_row(old):
    with h5py.File(old, "r+") as file:
        file["stimulus/presentation/drifting_gratings_stimulus/frame_duration"][1] = (120, 119)
    with pytest.raises(RecordingError, match=r"drifting_gratings_stimulus: row 1 starts at 14\.0"):
        read_nwb1(old)


def test_columns_of_gratings_are_found_by_their_names(old):
    expected = read_nwb1(old)
    with h5py.File(old, "r+") as file:
        group = file["stimulus/presentation/drifting_gratings_stimulus"]
        group["data"][...] = DRIFTING[:, [1, 2, 0]]
        group["features"][...] = [b"orientation", b"blank_sweep", b"temporal_frequency"]
    nwb_files.assert_same_recording(read_nwb1(old), expected)
    with h5py.File(old, "r+") as file:
        file["stimulus/presentation/drifting_gratings_stimulus/features"][0] = b"colour"
    with pytest.raises(RecordingError, match="needed are temporal_frequency, orientation, blank"):
        read_nwb1(old)


def test_what_is_missing_is_logged_and_nothing_else_is_lost(old, caplog):
    with h5py.File(old, "r+") as file:
        del file["general"], file["stimulus"], file[f"{PIPELINE}/ImageSegmentation"]
    with caplog.at_level(logging.INFO):
        recording = read_nwb1(old)
    assert recording.recording_id == "old"
    assert recording.unit_ids.tolist() == [f"old/{unit}" for unit in range(NUM_UNITS)]
    assert recording.units[["cre_line", "area", "imaging_depth_um"]].isna().all(axis=None)
    np.testing.assert_array_equal(recording.df_over_f, traces())
    for missing in ("no running speed", "no eye tracking", "no stimulus table", "not matched"):
        assert missing in caplog.text


def test_without_a_container_cells_are_named_by_session_and_roi(old):
    with h5py.File(old, "r+") as file:
        del file["general/experiment_container_id"]
    assert read_nwb1(old).unit_ids.tolist() == [f"11-StimA/{50 + i}" for i in range(NUM_UNITS)]


def test_a_scene_without_a_template_is_kept_and_one_beyond_it_is_refused(new_and_old, caplog):
    _, old = new_and_old
    template = "stimulus/templates/natural_scenes_image_stack/data"
    with h5py.File(old, "r+") as file:
        del file[template]
        file[template] = PICTURES[:5]
    with pytest.raises(RecordingError, match="presentation 0 of natural_scenes shows picture 5"):
        read_nwb1(old)
    with h5py.File(old, "r+") as file:
        del file["stimulus/templates/natural_scenes_image_stack"]
    with caplog.at_level(logging.INFO):
        recording = read_nwb1(old)
    assert "no template of natural_scenes" in caplog.text
    assert recording.stimulus("natural_scenes")["image"].tolist() == [5, -1, 2]
    assert "natural_scenes" not in recording.templates


def test_traces_the_wrong_way_round_are_turned_and_others_refused(old, caplog):
    data = f"{PIPELINE}/DfOverF/imaging_plane_1/data"
    with h5py.File(old, "r+") as file:
        del file[data]
        file[data] = traces()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read_nwb1(old).df_over_f, traces())
    assert "is time x ROIs" in caplog.text
    with h5py.File(old, "r+") as file:
        del file[data]
        file[data] = traces()[:, :3]
    with pytest.raises(RecordingError, match=r"shape \(300, 3\).*4 cells and 300 timestamps"):
        read_nwb1(old)


def test_a_cell_that_is_listed_twice_is_refused(old):
    with h5py.File(old, "r+") as file:
        file[f"{PIPELINE}/ImageSegmentation/cell_specimen_ids"][3] = GLOBAL_ROI_IDS[0]
    with pytest.raises(RecordingError, match="twice or more: 99/7001"):
        read_nwb1(old)


def test_nwb_1_of_another_lab_is_refused_with_what_is_in_it(tmp_path):
    path = tmp_path / "lab.nwb"
    with h5py.File(path, "w") as file:
        file["nwb_version"] = b"NWB-1.0.5"
        file.create_group("processing/rois")
    with pytest.raises(RecordingError, match=r"found in its processing: rois.*convert others"):
        read_nwb1(path)


def test_a_mapped_table_that_nwb_1_cannot_have_is_not_ignored(old):
    source = SourceConfig(stimuli={"flashes": StimulusTable(table="intervals/trials")})
    with pytest.raises(RecordingError, match="has no table 'intervals/trials'"):
        read_nwb1(old, source)
