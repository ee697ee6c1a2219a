import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
from pandas.testing import assert_frame_equal

import nwb_files
from nwb_files import GLOBAL_ROI_IDS, NUM_TIMESTEPS, NUM_UNITS, traces
from poyo_ssl.recordings.formats.fluorescence import compute_df_over_f
from poyo_ssl.recordings.formats.nwb import read_nwb
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import FluorescenceConfig, NwbConfig, SourceConfig

REAL_DATA = Path(__file__).resolve().parents[3] / "../shared/data"
REAL_SESSIONS = {
    "A": REAL_DATA / "sub-527550471_ses-527745328-StimA_ophys.nwb",
    "B": REAL_DATA / "sub-527550471_ses-527676626-StimB_ophys.nwb",
}
needs_real_sessions = pytest.mark.skipif(
    not all(path.is_file() for path in REAL_SESSIONS.values()),
    reason="the real Allen sessions are not in ../shared/data",
)
DF_OVER_F = "processing/ophys/DfOverF/DfOverF"


@pytest.fixture
def simple(tmp_path):
    return nwb_files.write_simple(tmp_path / "simple.nwb")


def bright_traces() -> np.ndarray:
    return 100 + 10 * np.abs(traces())


def test_traces_units_and_metadata_are_read(simple):
    recording = read_nwb(simple)
    np.testing.assert_array_equal(recording.df_over_f, traces())
    np.testing.assert_array_equal(recording.timestamps, nwb_files.imaging_times())
    assert recording.df_over_f.dtype == np.float32
    assert recording.recording_id == "11-StimA"
    assert recording.unit_ids.tolist() == [f"99/{number}" for number in GLOBAL_ROI_IDS]
    first = recording.units.iloc[0]
    assert first[["cre_line", "area"]].tolist() == ["Cux2-CreERT2", "VISp"]
    assert first["imaging_depth_um"] == 275.0
    assert (recording.subject_id, recording.container_id) == ("222", "99")
    assert recording.session_type == "three_session_A"
    assert recording.source == str(simple)


def test_cells_lie_at_the_centres_of_their_masks(simple):
    assert "x_px" not in read_nwb(simple).units  # one and the same pixel is no place
    with h5py.File(simple, "r+") as file:
        table = file["processing/ophys/ImageSegmentation/PlaneSegmentation"]
        mask = table["pixel_mask"][()]
        mask["x"], mask["y"], mask["weight"] = [1, 5, 2, 3], [0, 4, 1, 1], [1, 3, 1, 1]
        table["pixel_mask"][...] = mask
        table["pixel_mask_index"][...] = [2, 3, 4, 4]
    units = read_nwb(simple).units
    np.testing.assert_allclose(units["x_px"], [4, 2, 3, np.nan])
    np.testing.assert_allclose(units["y_px"], [3, 1, 1, np.nan])
    with h5py.File(simple, "r+") as file:  # ends that are none
        file["processing/ophys/ImageSegmentation/PlaneSegmentation/pixel_mask_index"][0] = 200
    assert "x_px" not in read_nwb(simple).units


def test_without_session_and_container_units_are_named_after_the_file(tmp_path):
    path = nwb_files.write_simple(tmp_path / "mine.nwb", session_id=None, container_id=None)
    recording = read_nwb(path)
    assert recording.recording_id == "mine"
    assert recording.container_id is None
    assert recording.unit_ids.tolist() == [f"mine/{50 + place}" for place in range(NUM_UNITS)]


def test_timestamps_are_followed_through_a_link_and_events_are_not_taken_for_traces(tmp_path):
    session = nwb_files.new_session()
    nwb_files.add_traces(session, traces(), link_timestamps=True, with_events=True)
    recording = read_nwb(nwb_files.write(session, tmp_path / "linked.nwb"))
    np.testing.assert_array_equal(recording.timestamps, nwb_files.imaging_times())
    np.testing.assert_array_equal(recording.df_over_f, traces())


def test_a_starting_time_with_a_rate_gives_the_timestamps(tmp_path):
    session = nwb_files.new_session()
    nwb_files.add_traces(session, traces(), rate=20.0)
    recording = read_nwb(nwb_files.write(session, tmp_path / "rate.nwb"))
    np.testing.assert_allclose(recording.timestamps, 5.0 + np.arange(NUM_TIMESTEPS) / 20.0)


def test_a_conversion_factor_is_applied(simple):
    with h5py.File(simple, "r+") as file:
        file[f"{DF_OVER_F}/data"].attrs["conversion"] = 0.01
    np.testing.assert_allclose(read_nwb(simple).df_over_f, traces() * 0.01, rtol=1e-6)


def test_a_file_that_takes_traces_from_another_file_is_refused(simple, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["traces"] = traces()
    with h5py.File(simple, "r+") as file:
        del file[f"{DF_OVER_F}/data"]
        file[f"{DF_OVER_F}/data"] = h5py.ExternalLink("other.h5", "/traces")
    with pytest.raises(RecordingError, match="takes data from other files"):
        read_nwb(simple)


def test_nan_in_a_trace_is_kept(simple):
    with h5py.File(simple, "r+") as file:
        file[f"{DF_OVER_F}/data"][7, 2] = np.nan
    assert np.argwhere(np.isnan(read_nwb(simple).df_over_f)).tolist() == [[7, 2]]


def test_transposed_traces_are_turned_with_a_warning(simple, caplog):
    _replace(simple, f"{DF_OVER_F}/data", traces().T)
    with caplog.at_level(logging.WARNING):
        recording = read_nwb(simple)
    np.testing.assert_array_equal(recording.df_over_f, traces())
    assert "ROIs x time; transposed" in caplog.text


def test_traces_that_fit_neither_way_are_refused_with_all_shapes(simple):
    _replace(simple, f"{DF_OVER_F}/data", traces()[:-1])
    with pytest.raises(RecordingError, match=r"shape \(299, 4\).*300 timestamps and 4 ROIs"):
        read_nwb(simple)


def test_gratings_are_nan_in_blank_sweeps(tmp_path):
    session = nwb_files.new_session()
    nwb_files.add_traces(session, traces())
    nwb_files.add_gratings(session)
    nwb_files.add_gratings(session, static=True)
    nwb_files.add_spontaneous(session)
    stimuli = read_nwb(nwb_files.write(session, tmp_path / "gratings.nwb")).stimuli
    drifting, static = stimuli["drifting_gratings"], stimuli["static_gratings"]
    assert list(drifting) == [
        "start", "end", "orientation", "temporal_frequency", "spatial_frequency",
    ]  # fmt: skip
    np.testing.assert_array_equal(drifting["orientation"], [45.0, np.nan, 90.0])
    np.testing.assert_array_equal(drifting["temporal_frequency"], [8.0, np.nan, 8.0])
    np.testing.assert_array_equal(drifting["spatial_frequency"], [0.04, np.nan, 0.04])
    np.testing.assert_array_equal(drifting["end"] - drifting["start"], 2.0)
    assert list(static) == ["start", "end", "orientation", "spatial_frequency", "phase"]
    np.testing.assert_array_equal(static["phase"], [0.25, np.nan, 0.25])
    assert stimuli["spontaneous"].to_numpy().tolist() == [[12.0, 13.5]]


def test_presentations_outside_the_traces_are_left_out_with_their_count(simple, caplog):
    with h5py.File(simple, "r+") as file:
        table = file["stimulus/presentation/drifting_gratings"]
        table["start_time"][0], table["stop_time"][0] = 1.0, 3.0  # imaging begins at 10 s
        table["start_time"][2], table["stop_time"][2] = 19.0, 30.0  # and ends at 20 s
    with caplog.at_level(logging.WARNING):
        table = read_nwb(simple).stimulus("drifting_gratings")
    assert table["start"].tolist() == [14.0, 19.0]
    assert "1 of 3 presentations lie outside the traces" in caplog.text


def test_a_movie_has_one_repeat_per_wrap_and_blocks_do_not_stretch_a_frame(simple):
    frames = np.tile(np.arange(6), 3)
    onsets = 11.0 + np.arange(18) / 30.0
    onsets[12:] += 2.0  # a pause before the last repeat
    pictures = np.random.default_rng(0).integers(0, 256, (6, 5, 7), dtype=np.uint8)
    recording = read_nwb(nwb_files.add_movie(simple, frames, onsets, pictures))
    table = recording.stimulus("natural_movie_one")
    assert table["movie_frame"].tolist() == frames.tolist()
    assert table["repeat"].tolist() == [0] * 6 + [1] * 6 + [2] * 6
    np.testing.assert_allclose(table["end"] - table["start"], 1 / 30.0)
    np.testing.assert_array_equal(recording.templates["natural_movie_one"], pictures)


def test_scenes_are_counted_in_the_order_of_the_template_and_minus_one_when_blank(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (12, 5, 7), dtype=np.uint8)
    shown = np.array([11, nwb_files.BLANK, 2])
    session = nwb_files.new_session()
    nwb_files.add_traces(session, traces())
    nwb_files.add_scenes(session, shown, np.array([11.0, 11.25, 11.5]), pictures)
    recording = read_nwb(nwb_files.write(session, tmp_path / "scenes.nwb"))
    table = recording.stimulus("natural_scenes")
    assert table["image"].tolist() == [11, -1, 2]
    np.testing.assert_allclose(table["end"] - table["start"], 0.25)
    # by name "NaturalScene10" would come before "NaturalScene2"
    np.testing.assert_array_equal(recording.templates["natural_scenes"], pictures)


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_grey_values_in_a_wider_type_become_bytes(simple, dtype):
    pictures = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    shown, onsets = np.array([0, 1]), np.array([11.0, 11.1])
    nwb_files.add_movie(simple, shown, onsets, pictures.astype(dtype))
    templates = read_nwb(simple).templates
    assert templates["natural_movie_one"].dtype == np.uint8
    np.testing.assert_array_equal(templates["natural_movie_one"], pictures)


def test_colour_pictures_become_their_luma_and_what_is_no_picture_is_left_out(simple, caplog):
    with h5py.File(simple, "r+") as file:
        colour = np.zeros((2, 3, 4, 3), dtype=np.uint8)
        colour[..., 1] = 200
        file.create_dataset("stimulus/templates/natural_movie_one/data", data=colour)
        file.create_dataset(
            "stimulus/templates/natural_movie_two/data", data=np.full((2, 3, 4), -9.5)
        )
    with caplog.at_level(logging.WARNING):
        templates = read_nwb(simple).templates
    assert set(templates) == {"natural_movie_one"}
    np.testing.assert_array_equal(templates["natural_movie_one"], np.full((2, 3, 4), 117))
    assert "natural_movie_two is left out" in caplog.text


def test_behaviour_is_read_where_it_was_recorded(tmp_path):
    session = nwb_files.new_session()
    nwb_files.add_traces(session, traces())
    nwb_files.add_behavior(session)
    recording = read_nwb(nwb_files.write(session, tmp_path / "behaviour.nwb"))
    assert recording.running["speed"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    np.testing.assert_allclose(recording.running["timestamp"], 10.0 + np.arange(5) * 0.1)
    assert list(recording.pupil) == ["timestamp", "x", "y", "size"]
    assert recording.pupil[["x", "y"]].to_numpy().tolist() == np.arange(10.0).reshape(5, 2).tolist()
    np.testing.assert_array_equal(recording.pupil["size"], [3.0, np.nan, 3.2, 3.1, 3.0])


def test_what_is_missing_is_logged_and_nothing_else_is_lost(tmp_path, caplog):
    session = nwb_files.new_session()
    nwb_files.add_traces(session, traces())
    path = nwb_files.write(session, tmp_path / "bare.nwb")
    with h5py.File(path, "r+") as file:
        del file["general/subject"], file["general/notes"], file["general/optophysiology"]
        del file["stimulus"]
    with caplog.at_level(logging.INFO):
        recording = read_nwb(path)
    assert recording.running is None
    assert recording.pupil is None
    assert not recording.stimuli
    assert not recording.templates
    assert recording.units[["cre_line", "area", "imaging_depth_um"]].isna().all(axis=None)
    for missing in ("no running speed", "no eye tracking", "no stimulus table", "no imaging plane"):
        assert missing in caplog.text


def test_a_stimulus_table_without_times_is_left_out_with_a_warning(simple, caplog):
    with h5py.File(simple, "r+") as file:
        del file["stimulus/presentation/drifting_gratings/stop_time"]
    with caplog.at_level(logging.WARNING):
        assert not read_nwb(simple).stimuli
    assert "lacks stop_time" in caplog.text


def test_without_a_table_of_rois_units_are_numbered(simple):
    with h5py.File(simple, "r+") as file:
        del file[f"{DF_OVER_F}/rois"]
    assert read_nwb(simple).unit_ids.tolist() == [f"11-StimA/{unit}" for unit in range(NUM_UNITS)]


def test_a_reference_to_no_table_of_rois_is_as_good_as_none(simple):
    with h5py.File(simple, "r+") as file:
        file.copy("processing/ophys", "processing/copy")  # copies lose their references
        del file["processing/ophys"]
    assert read_nwb(simple).unit_ids.tolist() == [f"11-StimA/{unit}" for unit in range(NUM_UNITS)]


def test_without_traces_the_error_lists_the_series_and_modules(simple):
    with h5py.File(simple, "r+") as file:
        file.move("processing/ophys/DfOverF", "processing/ophys/Neuropil")
        file["processing/ophys/Neuropil"].attrs["neurodata_type"] = "Fluorescence"
        file.move("processing/ophys/Neuropil/DfOverF", "processing/ophys/Neuropil/Raw")
    with pytest.raises(
        RecordingError,
        match=r"modules: ophys; RoiResponseSeries: /processing/ophys/Neuropil/Raw",
    ):
        read_nwb(simple)


def test_two_planes_in_one_file_are_refused_with_both_names(simple):
    _add_second_plane(simple)
    with pytest.raises(
        RecordingError, match=r"several ΔF/F series: .*DfOverF, .*plane_two.*nwb\.series"
    ):
        read_nwb(simple)


def test_a_plane_is_chosen_by_its_path_and_has_units_of_its_own(simple):
    _add_second_plane(simple)
    one, two = (_read_series(simple, name) for name in ("DfOverF/DfOverF", "plane_two"))
    np.testing.assert_array_equal(one.df_over_f, traces())
    np.testing.assert_array_equal(two.df_over_f, 2 * traces())
    assert (one.recording_id, two.recording_id) == ("11-StimA-DfOverF", "11-StimA-plane_two")


def test_planes_are_told_apart_by_the_parts_that_their_paths_do_not_share(simple):
    with h5py.File(simple, "r+") as file:
        del file["general/notes"]  # no container, so that units are named after the recording
        for plane in (0, 1):
            file.copy("processing/ophys", f"processing/plane_{plane}")
            _refer_to_rois(file, f"processing/plane_{plane}/DfOverF/DfOverF")
        del file["processing/ophys/DfOverF"]
    recording = _read_series(simple, "plane_1/DfOverF/DfOverF")
    assert recording.recording_id == "11-StimA-plane_1"
    assert recording.unit_ids.tolist()[0] == "11-StimA-plane_1/50"
    with pytest.raises(RecordingError, match=r"several series that end in 'DfOverF/DfOverF'"):
        _read_series(simple, "DfOverF/DfOverF")
    with pytest.raises(RecordingError, match=r"no RoiResponseSeries 'plane_2' \(found: .*plane_0"):
        _read_series(simple, "plane_2")


def test_fluorescence_alone_becomes_df_over_f_by_the_stated_baseline(tmp_path, caplog):
    fluorescence = bright_traces()
    session = nwb_files.new_session(container_id=None)
    raw, neuropil = {"RoiResponseSeries": fluorescence}, {"Neuropil": fluorescence + 9}
    nwb_files.add_fluorescence(session, raw, "Fluorescence")
    nwb_files.add_fluorescence(session, neuropil, "Neuropil")
    nwb_files.add_fluorescence(session, {"Deconvolved": fluorescence - 9}, "Deconvolved")
    path = nwb_files.write(session, tmp_path / "raw.nwb")
    baseline = FluorescenceConfig(baseline_percentile=30, baseline_window=3)
    source = SourceConfig(fluorescence=baseline)
    with caplog.at_level(logging.WARNING):
        recording = read_nwb(path, source)
    expected = compute_df_over_f(fluorescence, 30.0, baseline_percentile=30, baseline_window=3)
    np.testing.assert_array_equal(recording.df_over_f, expected)
    assert recording.unit_ids.tolist() == [f"11-StimA/{unit}" for unit in range(NUM_UNITS)]
    assert "uncorrected fluorescence; ΔF/F is computed with percentile 30 of 3 s" in caplog.text


def test_corrected_fluorescence_is_preferred_to_raw_and_df_over_f_to_both(tmp_path, caplog):
    fluorescence = bright_traces()
    series = {"Raw": fluorescence + 5, "Corrected": fluorescence, "Neuropil": fluorescence + 9}
    session = nwb_files.new_session()
    nwb_files.add_fluorescence(session, series, "Fluorescence")
    with caplog.at_level(logging.WARNING):
        recording = read_nwb(nwb_files.write(session, tmp_path / "corrected.nwb"))
    expected = compute_df_over_f(fluorescence, 30.0, baseline_percentile=8, baseline_window=60)
    np.testing.assert_array_equal(recording.df_over_f, expected)
    assert "Corrected is fluorescence" in caplog.text
    session = nwb_files.new_session()
    nwb_files.add_traces(session, traces())
    nwb_files.add_fluorescence(session, series, "Fluorescence")
    recording = read_nwb(nwb_files.write(session, tmp_path / "all.nwb"))
    np.testing.assert_array_equal(recording.df_over_f, traces())


def test_several_raw_fluorescence_series_are_named_and_one_can_be_chosen(tmp_path):
    session = nwb_files.new_session()
    series = {"green": bright_traces(), "red": bright_traces()}
    nwb_files.add_fluorescence(session, series, "Fluorescence")
    path = nwb_files.write(session, tmp_path / "colours.nwb")
    with pytest.raises(RecordingError, match=r"several fluorescence series: .*/green, .*/red"):
        read_nwb(path)
    assert _read_series(path, "green").recording_id == "11-StimA-green"


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float64])
def test_compressed_traces_of_any_number_type_are_scaled_to_their_unit(simple, dtype):
    stored = np.arange(NUM_TIMESTEPS * NUM_UNITS).reshape(NUM_TIMESTEPS, NUM_UNITS).astype(dtype)
    with h5py.File(simple, "r+") as file:
        del file[f"{DF_OVER_F}/data"]
        data = file.create_dataset(
            f"{DF_OVER_F}/data", data=stored, chunks=(7, 3), compression="gzip", shuffle=True
        )
        data.attrs.update({"conversion": 0.001, "offset": -0.5})
    recording = read_nwb(simple)
    assert recording.df_over_f.dtype == np.float32
    np.testing.assert_allclose(recording.df_over_f, stored * 0.001 - 0.5, rtol=1e-5, atol=1e-6)


def test_words_for_traces_are_refused(simple):
    _replace(simple, f"{DF_OVER_F}/data", np.full((NUM_TIMESTEPS, NUM_UNITS), b"0.1"))
    with pytest.raises(RecordingError, match=r"DfOverF/data holds \|S3, not numbers"):
        read_nwb(simple)


def test_a_cell_that_is_listed_twice_is_refused_with_its_id(simple):
    with h5py.File(simple, "r+") as file:
        file["processing/ophys/ImageSegmentation/PlaneSegmentation/global_roi_id"][3] = 7001
    with pytest.raises(RecordingError, match="unit ids must be unique; twice or more: 99/7001"):
        read_nwb(simple)


def test_empty_traces_are_refused(simple):
    _replace(simple, f"{DF_OVER_F}/data", np.empty((0, NUM_UNITS), dtype=np.float32))
    with pytest.raises(RecordingError, match=r"is empty \(shape \(0, 4\)"):
        read_nwb(simple)


def test_rois_beyond_the_table_are_refused(simple):
    with h5py.File(simple, "r+") as file:
        file[f"{DF_OVER_F}/rois"][3] = 40
    with pytest.raises(RecordingError, match="rows 0 to 40 of a table of 4 ROIs"):
        read_nwb(simple)


def test_a_dangling_link_to_timestamps_is_named(tmp_path):
    session = nwb_files.new_session()
    nwb_files.add_traces(session, traces(), link_timestamps=True)
    path = nwb_files.write(session, tmp_path / "dangling.nwb")
    with h5py.File(path, "r+") as file:
        del file["processing/ophys/Fluorescence"]
    with pytest.raises(RecordingError, match="a link to /processing/ophys/Fluorescence/Corrected"):
        read_nwb(path)


def test_nwb_1_is_refused_with_a_way_out(tmp_path):
    path = tmp_path / "old.nwb"
    with h5py.File(path, "w") as file:
        file["nwb_version"] = b"NWB-1.0.6"
        file.create_group("processing")
    with pytest.raises(RecordingError, match=r"NWB 1 \(found: 1.0.6\).*load_recording"):
        read_nwb(path)


def test_an_nwb_file_without_processed_data_is_refused(tmp_path):
    path = tmp_path / "raw.nwb"
    with h5py.File(path, "w") as file:
        file.create_group("acquisition")
    with pytest.raises(RecordingError, match="found at its root: acquisition"):
        read_nwb(path)


@needs_real_sessions
def test_the_real_sessions_are_read_and_share_132_cells():
    session_a, session_b = (read_nwb(path) for path in REAL_SESSIONS.values())
    assert session_a.df_over_f.shape == (43_181, 254)
    assert len(session_a.segments) == 5
    assert len(session_a.stimulus("drifting_gratings")) == 477
    assert session_b.df_over_f.shape == (28_955, 269)
    assert len(session_b.segments) == 2
    assert len(session_b.stimulus("static_gratings")) == 3840
    assert len(set(session_a.unit_ids) & set(session_b.unit_ids)) == 132
    assert session_a.recording_id == "527745328-StimA"
    assert set(session_a.units["cre_line"]) == {"Cux2-CreERT2"}


@needs_real_sessions
def test_a_real_session_agrees_with_pynwb():
    from pynwb import NWBHDF5IO

    recording = read_nwb(REAL_SESSIONS["A"])
    with NWBHDF5IO(REAL_SESSIONS["A"], "r") as io:
        session = io.read()
        series = session.processing["ophys"]["DfOverF"]["DfOverF"]
        np.testing.assert_array_equal(recording.df_over_f[:50], series.data[:50])
        np.testing.assert_array_equal(recording.timestamps, series.timestamps[:])
        theirs = session.stimulus["drifting_gratings"].to_dataframe().reset_index(drop=True)
    theirs = theirs.rename(columns={"orientation_in_degrees": "orientation"})
    assert_frame_equal(
        recording.stimulus("drifting_gratings")[["orientation"]], theirs[["orientation"]]
    )


def _replace(path: Path, name: str, values: np.ndarray) -> None:
    with h5py.File(path, "r+") as file:
        attributes = dict(file[name].attrs)
        del file[name]
        file[name] = values
        file[name].attrs.update(attributes)


def _add_second_plane(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.copy(DF_OVER_F, "processing/ophys/DfOverF/plane_two")
        file["processing/ophys/DfOverF/plane_two/data"][...] = 2 * traces()
        _refer_to_rois(file, "processing/ophys/DfOverF/plane_two")


def _refer_to_rois(file: h5py.File, series: str) -> None:
    table = file["processing/ophys/ImageSegmentation/PlaneSegmentation"]
    file[f"{series}/rois"].attrs["table"] = table.ref  # copies lose it


def _read_series(path: Path, series: str) -> Recording:
    return read_nwb(path, SourceConfig(nwb=NwbConfig(series=series)))
