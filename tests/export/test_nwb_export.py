"""Predictions and predictability in a copy of an NWB session, or in a new one."""

from __future__ import annotations

import warnings
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from nwbinspector import Importance, inspect_nwbfile
from pynwb import NWBHDF5IO

import poyo_ssl as ps
from decoded_tables import predictions_of, units_of, write_run
from nwb_files import add_gratings, add_traces, new_session, traces, write
from poyo_ssl.cli import main
from poyo_ssl.recordings.sources import StimulusTable
from shared_data import DATA, needs_shared_data


def problems_of(path: Path) -> set[str]:
    """What the inspector, which validates too, finds that is more than a suggestion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(inspect_nwbfile(nwbfile_path=path))
    above = (m for m in found if m.importance.value > Importance.BEST_PRACTICE_SUGGESTION.value)
    return {f"{m.check_function_name} {m.location}: {m.message}" for m in above}


def contents_of(path: Path) -> dict[str, object]:
    """Every dataset and attribute of a file by its path; references as what they point at."""
    found: dict[str, object] = {}
    with h5py.File(path) as file:

        def plain(value):
            return file[value].name if isinstance(value, h5py.Reference) else value

        def note(name, item):
            if isinstance(item, h5py.Dataset):
                found[name] = item[()] if item.dtype.kind != "O" else item.asstr()[()]
            for key, value in item.attrs.items():
                found[f"{name}@{key}"] = plain(value)

        file.visititems(note)
    return found


@pytest.fixture
def session(tmp_path) -> Path:
    """Four ROIs, of which the second is no cell."""
    made = new_session()
    add_traces(made, traces())
    add_gratings(made)
    table = made.processing["ophys"]["ImageSegmentation"]["PlaneSegmentation"]
    table.add_column("Accepted", "sorted by hand", data=[1, 0, 1, 1])
    return write(made, tmp_path / "session.nwb")


def test_a_copy_holds_the_session_and_what_was_found_out(session, tmp_path):
    [recording] = ps.load_recordings(session)
    copied: list[tuple[int, int]] = []
    copy = ps.write_nwb(
        recording,
        tmp_path / "out" / "decoded.nwb",
        predictions=predictions_of(recording.recording_id),
        units=units_of(recording),
        on_progress=lambda *counts: copied.append(counts),
    )
    assert copied[-1] == (session.stat().st_size,) * 2
    before, after = contents_of(session), contents_of(copy)
    columns = before.pop("processing/ophys/ImageSegmentation/PlaneSegmentation@colnames")
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    with NWBHDF5IO(copy, "r") as io:
        written = io.read()
        rois = written.processing["ophys"]["ImageSegmentation"]["PlaneSegmentation"].to_dataframe()
        assert list(rois) == [*columns, "skewness", "kurtosis", "predictable"]
        np.testing.assert_array_equal(rois["skewness"], [0.0, np.nan, 1.0, np.nan])
        np.testing.assert_array_equal(rois["kurtosis"], [3.0, np.nan, 4.0, np.nan])
        assert rois["predictable"].tolist() == [True, False, False, True]
        table = written.processing["decoding"]["direction"]
        assert table["arm"][:].tolist() == ["ridge"] * 3 + ["scratch"] * 3
        assert table["trial"][:3].tolist() == [4, 7, 9]
        assert table["answer"][:3].tolist() == ["0", "45", "a/b"]
        assert table["log_probability"].description.endswith("0, 45, a/b")
        np.testing.assert_allclose(np.exp(table["log_probability"][2]), [0.2, 0.2, 0.6])
        assert "fold" not in table.colnames
    [again] = ps.load_recordings(copy)
    assert again.fingerprint() == recording.fingerprint()


@needs_shared_data
def test_the_inspector_minds_nothing_in_a_copy_of_a_real_session(tmp_path):
    source = DATA / "sub-527550471_ses-527745328-StimA_ophys.nwb"
    [recording] = ps.load_recordings(source)
    copy = ps.write_nwb(
        recording,
        tmp_path / "decoded.nwb",
        predictions=predictions_of(recording.recording_id),
        units=units_of(recording),
    )
    assert problems_of(copy) == set()


def test_a_new_file_holds_what_a_recording_does(tiny_recording, tmp_path):
    speed = np.arange(tiny_recording.num_timesteps, dtype=float)
    recording = replace(
        tiny_recording,
        running=pd.DataFrame({"timestamp": tiny_recording.timestamps, "speed": speed}),
        stimuli={"drifting_gratings": tiny_recording.stimuli["drifting_gratings"]},
    )
    path = ps.write_nwb(
        recording,
        tmp_path / "new.nwb",
        predictions=predictions_of("tiny"),
        units=units_of(recording),
        session_start_time=datetime(2026, 5, 4, 10, 30, tzinfo=UTC),
        subject={"subject_id": "m1", "species": "Mus musculus", "sex": "F", "age": "P90D"},
    )
    assert problems_of(path) == set()
    gratings = StimulusTable(table="intervals/drifting_gratings")
    [read] = ps.load_recordings(path, ps.SourceConfig(stimuli={"drifting_gratings": gratings}))
    assert read.fingerprint() == recording.fingerprint()
    pd.testing.assert_frame_equal(
        read.stimuli["drifting_gratings"], recording.stimuli["drifting_gratings"]
    )
    pd.testing.assert_frame_equal(read.running, recording.running)


def test_what_cannot_be_written_is_said(session, tiny_recording, tmp_path):
    [recording] = ps.load_recordings(session)
    predictions = predictions_of(recording.recording_id)
    copy = ps.write_nwb(recording, tmp_path / "once.nwb", predictions=predictions)
    with pytest.raises(ps.RecordingError, match="module 'decoding' already"):
        ps.write_nwb(ps.load_recordings(copy)[0], tmp_path / "b.nwb", predictions=predictions)
    with pytest.raises(ps.RecordingError, match="own file"):
        ps.write_nwb(recording, session, predictions=predictions)
    with pytest.raises(ps.RecordingError, match="recordings in the table: other"):
        ps.write_nwb(recording, tmp_path / "b.nwb", predictions=predictions_of("other"))
    with pytest.raises(ps.RecordingError, match="session_start_time, such as"):
        ps.write_nwb(tiny_recording, tmp_path / "b.nwb", predictions=predictions_of("tiny"))
    with pytest.raises(ps.RecordingError, match=r"take this subject .*'specie'"):
        ps.write_nwb(
            tiny_recording,
            tmp_path / "b.nwb",
            predictions=predictions_of("tiny"),
            session_start_time=datetime(2026, 5, 4, tzinfo=UTC),
            subject={"specie": "Mus musculus"},
        )
    fewer = replace(recording, df_over_f=recording.df_over_f[:, :2], units=recording.units.iloc[:2])
    with pytest.raises(ps.RecordingError, match="has 3 units, but recording '11-StimA' has 2"):
        ps.write_nwb(fewer, tmp_path / "b.nwb", units=units_of(recording))
    strangers = units_of(recording).assign(unit_id=list("abc"))
    with pytest.raises(ps.RecordingError, match="knows none of the 3 units"):
        ps.write_nwb(recording, tmp_path / "b.nwb", units=strangers)
    with pytest.raises(ValueError, match="no table of predictions"):
        ps.write_nwb(recording, tmp_path / "b.nwb", predictions=predictions.drop(columns="arm"))
    with pytest.raises(ps.RecordingError, match="is copied with what it says of the session"):
        ps.write_nwb(
            recording, tmp_path / "b.nwb", predictions=predictions, subject={"species": "Mus"}
        )
    assert [path.name for path in tmp_path.glob("*b.nwb*")] == []


def test_a_run_is_exported_by_the_ending_of_the_output(session, tmp_path, capsys):
    [recording] = ps.load_recordings(session)
    run = write_run(tmp_path / "run", recording)
    assert main(["export", str(run), str(session), "--output", str(tmp_path / "a.nwb")]) == 0
    with h5py.File(tmp_path / "a.nwb") as file:
        assert len(file["processing/decoding/direction/onset"]) == 6
    words = ["export", str(run), str(session), "--output", str(tmp_path / "a.nwb")]
    for more, said in (
        ([], "a.nwb' exists. Name another file, or set may_replace"),
        (["--may_replace", "--session_start_time", "2026-05-04"], "for sessions that are not NWB"),
    ):
        before = (tmp_path / "a.nwb").read_bytes()
        assert main([*words, *more]) == 1
        assert said in " ".join(capsys.readouterr().err.split())
        assert (tmp_path / "a.nwb").read_bytes() == before
    assert main([*words, "--may_replace"]) == 0
    assert (tmp_path / "a.nwb").read_bytes() != before
    (run / "units.csv").write_text((run / "units.csv").read_text().replace("11-StimA,", "other,"))
    (run / "predictions.csv").rename(tmp_path / "other_day.csv")
    words = ["export", str(run), str(session), "--output", str(tmp_path / "b.nwb")]
    assert main(words) == 1
    assert "knows nothing of recording '11-StimA'" in " ".join(capsys.readouterr().err.split())
    assert main([*words, "--predictions", str(tmp_path / "other_day.csv")]) == 0
    with h5py.File(tmp_path / "b.nwb") as file:
        assert "skewness" not in file["processing/ophys/ImageSegmentation/PlaneSegmentation"]
    assert main(["export", str(run), str(session), "--output", str(tmp_path / "a.mat")]) == 1
    assert "end in .nwb or .npy" in " ".join(capsys.readouterr().err.split())


def test_rois_of_suite2p_that_are_no_cells_are_not_predictable(tmp_path):
    plane = tmp_path / "mouse" / "suite2p" / "plane0"
    plane.mkdir(parents=True)
    np.save(plane / "F.npy", 100 + np.random.default_rng(0).normal(size=(5, 900)))
    np.save(plane / "iscell.npy", np.array([[0, 0.1], [1, 0.9], [1, 0.9], [0, 0.2], [1, 0.8]]))
    options = {"suite2p.sampling_rate": 30.0, "suite2p.neuropil_factor": 0.0}
    source = ps.SourceConfig(
        suite2p=replace(ps.SourceConfig().suite2p, sampling_rate=30.0, neuropil_factor=0.0)
    )
    [recording] = ps.load_recordings(tmp_path / "mouse", source)
    assert recording.unit_ids.tolist() == ["mouse/1", "mouse/2", "mouse/4"]
    run, output = write_run(tmp_path / "run", recording), plane / "predictable.npy"
    words = [word for name, value in options.items() for word in (f"--source.{name}", str(value))]
    assert main(["export", str(run), str(plane), "--output", str(output), *words]) == 0
    assert np.load(output).tolist() == [False, True, False, False, True]
    ps.write_predictable(recording, output, units_of(recording))  # over what it wrote before
    fluorescence = (plane / "F.npy").read_bytes()
    with pytest.raises(ps.RecordingError, match="exists and holds something other"):
        ps.write_predictable(recording, plane / "F.npy", units_of(recording))
    assert (plane / "F.npy").read_bytes() == fluorescence
    with pytest.raises(ps.RecordingError, match=r"do not end in a row of F\.npy"):
        ps.write_predictable(
            replace(recording, units=pd.DataFrame({"unit_id": ["a/x", "a/y", "a/z"]})),
            output,
            units_of(recording).assign(unit_id=["a/x", "a/y", "a/z"]),
        )
