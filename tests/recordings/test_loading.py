import logging
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import nwb_files
from nwb_files import traces
from poyo_ssl.recordings import loading
from poyo_ssl.recordings.formats.arrays import recording_from_arrays
from poyo_ssl.recordings.formats.format import Format
from poyo_ssl.recordings.formats.nwb import read_nwb
from poyo_ssl.recordings.loading import (
    FORMATS,
    find_recording_files,
    how_to_tell_apart,
    identify,
    load_recording,
    load_recordings,
    session_folder,
)
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.sources import (
    FluorescenceConfig,
    SourceConfig,
    StimulusTable,
    Suite2pConfig,
)
from poyo_ssl.recordings.storage import save_recording


@pytest.fixture(scope="module")
def simple(tmp_path_factory):
    return nwb_files.write_simple(tmp_path_factory.mktemp("nwb") / "simple.nwb")


@pytest.fixture
def folder(tmp_path, simple):
    """An NWB file and, deeper, a stored recording of another session, a note and a half file."""
    shutil.copy(simple, tmp_path / "b.nwb")
    other = nwb_files.write_simple(tmp_path / "other.nwb", session_id="22-StimB")
    save_recording(read_nwb(other), tmp_path / "deep" / "er")
    other.unlink()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "._b.nwb").write_bytes(b"left by a Mac")
    (tmp_path / "deep" / ".22-StimB.h5.0.partial").touch()
    return tmp_path


def test_folders_are_searched_to_any_depth_for_recordings_only(folder):
    expected = [folder / "b.nwb", folder / "deep" / "er" / "22-StimB.h5"]
    assert find_recording_files(folder) == expected
    assert find_recording_files(str(folder)) == expected
    assert find_recording_files([folder / "deep", folder / "b.nwb", folder]) == expected


def test_a_file_is_taken_whatever_it_is_called(folder):
    (folder / "b.nwb").rename(folder / "session")
    assert find_recording_files(folder / "session") == [folder / "session"]
    assert load_recording(folder / "session").recording_id == "11-StimA"


def test_every_path_that_is_missing_or_empty_is_reported_with_what_was_found(tmp_path):
    (tmp_path / "raw").mkdir()
    for name in ("1.tif", "2.TIF", "3.tif", "log.txt"):
        (tmp_path / "raw" / name).touch()
    (tmp_path / "bare").mkdir()
    with pytest.raises(RecordingError) as caught:
        find_recording_files([tmp_path / "gone", tmp_path / "raw", tmp_path / "bare"])
    message = str(caught.value)
    assert f"'{tmp_path / 'gone'}' does not exist." in message
    assert f"No recordings in '{tmp_path / 'raw'}' (found: 3 .tif files, 1 .txt file)" in message
    assert f"No recordings in '{tmp_path / 'bare'}' (found: nothing)" in message
    assert "brainsets prepare" in message


def test_no_path_at_all_is_refused():
    with pytest.raises(RecordingError, match="No path was given"):
        find_recording_files([])


def test_the_reader_is_chosen_by_what_a_file_holds(tmp_path, simple):
    stored = save_recording(read_nwb(simple), tmp_path)
    misnamed_nwb = shutil.copy(simple, tmp_path / "really_nwb.h5")
    misnamed_stored = shutil.copy(stored, tmp_path / "really_stored.nwb")
    for path in (simple, stored, misnamed_nwb, misnamed_stored):
        recording = load_recording(path)
        assert recording.recording_id == "11-StimA"
        np.testing.assert_array_equal(recording.df_over_f, traces())


def test_hdf5_of_another_kind_is_refused_with_what_is_in_it(tmp_path):
    with h5py.File(tmp_path / "mat.h5", "w") as file:
        file["F"], file["spks"] = 1.0, 2.0
    with pytest.raises(RecordingError, match=r"neither NWB nor .*found at its root: F, spks"):
        load_recording(tmp_path / "mat.h5")


def test_all_recordings_of_a_folder_are_loaded_in_order(folder):
    assert [r.recording_id for r in load_recordings(folder)] == ["11-StimA", "22-StimB"]


def test_every_broken_file_is_reported_at_once(folder):
    (folder / "half.nwb").write_bytes((folder / "b.nwb").read_bytes()[:5000])
    (folder / "page.h5").write_text("<html>")
    with pytest.raises(RecordingError) as caught:
        load_recordings(folder)
    message = str(caught.value)
    assert "2 of 4 recordings cannot be read" in message
    assert "half.nwb' (5000 bytes) cannot be read" in message
    assert "page.h5' is not an HDF5 file" in message
    assert "skip_broken=True" in message


def test_broken_files_can_be_left_out_with_a_warning_each(folder, caplog):
    (folder / "half.nwb").write_bytes((folder / "b.nwb").read_bytes()[:5000])
    (folder / "page.h5").write_text("<html>")
    with caplog.at_level(logging.WARNING):
        recordings = load_recordings(folder, skip_broken=True)
    assert len(recordings) == 2
    assert [record.getMessage()[:8] for record in caplog.records] == ["Left out"] * 2


def test_if_every_file_is_broken_skipping_them_is_an_error(tmp_path):
    (tmp_path / "page.h5").write_text("<html>")
    with pytest.raises(RecordingError, match="1 of 1 recordings cannot be read"):
        load_recordings(tmp_path, skip_broken=True)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("one.nwb", "two.nwb"), ["one", "two"]),
        (("one.nwb", "one.h5"), ["one.h5", "one.nwb"]),
        (("a/one.nwb", "b/one.nwb"), ["a-one.nwb", "b-one.nwb"]),
        (("11-StimA.nwb", "b/11-StimA.nwb"), None),
    ],
)
def test_recordings_of_one_id_are_called_after_their_files(
    tmp_path, simple, names, expected, caplog
):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(simple, tmp_path / name)
    with caplog.at_level(logging.WARNING):
        recordings = load_recordings(tmp_path)
    expected = expected or [f"{tmp_path.name}-11-StimA.nwb", "b-11-StimA.nwb"]
    assert [recording.recording_id for recording in recordings] == expected
    assert recordings[0].unit_ids.tolist() == recordings[1].unit_ids.tolist()
    assert len(caplog.records) == 2
    assert "If it is the same session, remove one" in caplog.text


def test_recordings_that_only_distant_folders_tell_apart_are_called_after_those(tmp_path, simple):
    for folder in ("a/x", "b/x"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(simple, tmp_path / folder / "one.nwb")
    assert [r.recording_id for r in load_recordings(tmp_path)] == ["a-x-one.nwb", "b-x-one.nwb"]


def write_suite2p(plane, num_units=3):
    plane.mkdir(parents=True)
    traces = 100 + np.random.default_rng(0).normal(size=(num_units, 400)).astype(np.float32)
    np.save(plane / "F.npy", traces)
    np.save(plane / "Fneu.npy", 0.1 * traces)
    np.save(plane / "iscell.npy", np.ones((num_units, 2), dtype=np.float32))


SUITE2P = SourceConfig(
    suite2p=Suite2pConfig(sampling_rate=10.0), fluorescence=FluorescenceConfig(baseline_window=5.0)
)


def test_a_stored_recording_says_that_it_keeps_its_stimuli(tmp_path, caplog):
    recording = recording_from_arrays(
        np.random.default_rng(0).normal(size=(60, 3)), recording_id="day1", sampling_rate=10.0
    )
    path = save_recording(recording, tmp_path)
    source = SourceConfig(stimuli={"bars": StimulusTable(table="log.csv")})
    with caplog.at_level(logging.WARNING):
        load_recording(path, source)
    assert "keeps its stimuli: the source's tables of bars are not read" in caplog.text


def test_suite2p_sessions_of_one_name_are_other_recordings_of_other_cells(tmp_path):
    for mouse in ("mouse1", "mouse2"):
        write_suite2p(tmp_path / mouse / "day1" / "suite2p" / "plane0")
    recordings = load_recordings(tmp_path, SUITE2P)
    assert [recording.recording_id for recording in recordings] == [
        "mouse1-day1-plane0",
        "mouse2-day1-plane0",
    ]
    assert recordings[0].unit_ids.tolist() == [f"mouse1-day1-plane0/{unit}" for unit in range(3)]
    assert not set(recordings[0].unit_ids) & set(recordings[1].unit_ids)


def test_what_to_do_about_files_of_one_id_depends_on_what_names_them(tmp_path, simple):
    plane = tmp_path / "day1" / "suite2p" / "plane0"
    write_suite2p(plane)
    assert "else rename its folder or file" in how_to_tell_apart(plane)
    assert "else give it a call and an output of its own" in how_to_tell_apart(simple)


def test_the_tables_of_a_source_lie_beside_the_session(tmp_path, simple):
    plane = tmp_path / "day1" / "suite2p" / "plane0"
    write_suite2p(plane)
    assert session_folder(plane) == tmp_path / "day1"
    assert session_folder(simple) == simple.parent


def test_planes_are_recordings_unless_suite2p_combined_them(tmp_path):
    for plane in ("plane0", "plane1"):
        write_suite2p(tmp_path / "day1" / "suite2p" / plane)
    planes = load_recordings(tmp_path, SUITE2P)
    assert [recording.recording_id for recording in planes] == ["day1-plane0", "day1-plane1"]
    write_suite2p(tmp_path / "day1" / "suite2p" / "combined", num_units=6)
    (combined,) = load_recordings(tmp_path, SUITE2P)
    assert (combined.recording_id, combined.num_units) == ("day1", 6)


def test_a_folder_may_hold_recordings_of_every_kind(folder):
    write_suite2p(folder / "day1" / "suite2p" / "plane0")
    activity = np.random.default_rng(0).normal(size=(50, 2))
    np.savez(folder / "arrays.npz", df_over_f=activity, sampling_rate=10.0)
    recordings = load_recordings(folder, SUITE2P)
    assert {r.recording_id for r in recordings} == {"11-StimA", "22-StimB", "day1", "arrays"}


def test_sessions_can_be_kept_apart(simple):
    (together,), (apart,) = (
        load_recordings(simple, SourceConfig(sessions_apart=is_apart)) for is_apart in (False, True)
    )
    assert apart.unit_ids.tolist() == [f"11-StimA/{unit}" for unit in together.unit_ids]


def test_equal_templates_of_several_recordings_are_kept_once(tmp_path):
    pictures = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for session_id, shown in [("1", pictures), ("2", pictures), ("3", pictures + 1)]:
        path = nwb_files.write_simple(tmp_path / f"{session_id}.nwb", session_id=session_id)
        nwb_files.add_movie(path, np.array([0, 1]), np.array([11.0, 11.1]), shown)
    one, two, three = (
        recording.templates["natural_movie_one"] for recording in load_recordings(tmp_path)
    )
    assert one is two
    assert three is not one
    np.testing.assert_array_equal(three, pictures + 1)


def test_the_same_file_under_two_names_is_loaded_once(tmp_path, simple):
    (tmp_path / "link.nwb").symlink_to(simple)
    assert len(load_recordings([tmp_path, simple])) == 1
    assert Path(load_recordings([simple, tmp_path])[0].source) == simple


def test_every_format_is_known_by_one_name():
    names = [known.name for known in FORMATS]
    assert names == [
        "NWB 1", "NWB 2", "torch-brain", "CaImAn", "Inscopix", "Minian", "suite2p", "arrays"
    ]  # fmt: skip


@pytest.mark.parametrize("names_units_after_file", [True, False])
def test_a_new_format_is_one_constant_in_the_list(tmp_path, monkeypatch, names_units_after_file):
    def read(path, _):
        path = Path(path)
        return recording_from_arrays(
            np.loadtxt(path), recording_id=path.stem, sampling_rate=10.0, source=str(path)
        )

    mine = Format(
        name="text",
        read=read,
        names_units_after_file=names_units_after_file,
        suffixes=(".dat",),
        recognises=lambda path: path.is_file() and path.read_bytes()[:1].isdigit(),
    )
    monkeypatch.setattr(loading, "FORMATS", (*FORMATS, mine))
    monkeypatch.setattr(loading, "_SUFFIXES", (*loading._SUFFIXES, ".dat"))
    for day in ("day1", "day2"):
        (tmp_path / day).mkdir()
        np.savetxt(tmp_path / day / "m7.dat", np.ones((9, 2)))
    assert identify(tmp_path / "day1" / "m7.dat") == "text"
    one, two = load_recordings(tmp_path)
    assert (one.recording_id, two.recording_id) == ("day1-m7.dat", "day2-m7.dat")
    shared = set(one.unit_ids) & set(two.unit_ids)
    assert shared == (set() if names_units_after_file else {"m7/0", "m7/1"})
