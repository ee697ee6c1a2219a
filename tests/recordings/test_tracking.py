"""Cells that ROICaT and track2p found in several sessions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import poyo_ssl as ps

DAYS = {"monday": [0, 2, 3], "tuesday": [1, 2]}
"""Rows of ``F.npy`` that are cells."""
TRACKED = {"monday": ["m1/cell-0", "monday/2", "m1/cell-1"], "tuesday": ["m1/cell-0", "m1/cell-1"]}


class Explosive:
    """What a crafted pickle would run."""

    def __reduce__(self):
        return (Path("exploded").touch, ())


@pytest.fixture
def recordings(rng) -> list[ps.Recording]:
    return [
        ps.recording_from_arrays(
            rng.normal(size=(50, len(rows))),
            recording_id=day,
            sampling_rate=10.0,
            unit_ids=[f"{day}/{row}" for row in rows],
        )
        for day, rows in DAYS.items()
    ]


def write_roicat_json(folder: Path) -> Path:
    """Of monday rows 0 and 3 and of tuesday rows 1 and 2 are cells 0 and 1; all else is nobody."""
    path = folder / "m1.tracking.results_clusters.json"
    path.write_text(json.dumps({"labels_bySession": [[0, 5, -1, 1], [-1, 0, 1]], "labels": []}))
    return path


def write_roicat_csv(folder: Path, monday: str = "monday", tuesday: str = "tuesday") -> Path:
    """Tuesday first."""
    sessions = {tuesday: [-1, 0, 1], monday: [0, 5, -1, 1]}
    rows = [
        {"fov_name": "plane0", "session_name": name, "roi_session_index": row, "ucid": label}
        for name, labels in sessions.items()
        for row, label in enumerate(labels)
    ]
    pd.DataFrame(rows).to_csv(folder / "ROICaT.tracking.results.csv", index=False)
    return folder / "ROICaT.tracking.results.csv"


def write_track2p(folder: Path, order: str = "C", dtype: type = object) -> Path:
    rows = np.array([[0, 1], [3, 2], [1, None]], dtype=dtype, order=order)
    np.save(folder / "plane0_suite2p_indices.npy", rows, allow_pickle=True)
    return folder / "plane0_suite2p_indices.npy"


@pytest.mark.parametrize(
    "write",
    [
        write_roicat_json,
        write_roicat_csv,
        write_track2p,
        lambda folder: write_track2p(folder, order="F"),
        lambda folder: write_track2p(folder, dtype=float),
    ],
)
def test_a_tracked_cell_has_one_id_in_all_sessions(write, recordings, tmp_path):
    tracked = ps.track_units(recordings, write(tmp_path), subject_id="m1")
    assert {r.recording_id: r.unit_ids.tolist() for r in tracked} == TRACKED
    assert [r.fingerprint() for r in tracked] == [r.fingerprint() for r in recordings]


def test_sessions_are_matched_by_name_and_what_is_assumed_without_names_is_said(
    recordings, tmp_path, caplog
):
    named = write_roicat_csv(tmp_path)
    (tuesday,) = ps.track_units(recordings[1:], named, subject_id="m1")
    assert tuesday.unit_ids.tolist() == TRACKED["tuesday"]
    renamed = write_roicat_csv(tmp_path, "a", "b")
    with pytest.raises(ps.RecordingError, match=r"'b', 'a', and .* 'monday', 'tuesday'. Say"):
        ps.track_units(recordings, renamed, subject_id="m1")
    with pytest.raises(ps.RecordingError, match="2 different sessions"):
        ps.track_units(recordings, renamed, subject_id="m1", sessions=["a", "a"])
    for path, sessions in ((renamed, ["a", "b"]), (write_roicat_json(tmp_path), [0, 1])):
        tracked = ps.track_units(recordings, path, subject_id="m1", sessions=sessions)
        assert {r.recording_id: r.unit_ids.tolist() for r in tracked} == TRACKED
    assert "are taken for its sessions" not in caplog.text
    ps.track_units(recordings, write_track2p(tmp_path), subject_id="m1")
    assert "'monday', 'tuesday' are taken for its sessions 0, 1" in caplog.text


@pytest.mark.parametrize("write", [write_roicat_json, write_track2p])
def test_sessions_in_another_order_are_found_by_their_number_of_rois(write, recordings, tmp_path):
    for recording, num_rois in zip(recordings, (4, 3), strict=True):
        folder = tmp_path / recording.recording_id / "suite2p" / "plane0"
        folder.mkdir(parents=True)
        np.save(folder / "F.npy", np.ones((num_rois, 50)))
        np.save(folder / "iscell.npy", np.ones((num_rois, 2)))
    monday, tuesday = (
        replace(recording, source=str(tmp_path / recording.recording_id))
        for recording in recordings
    )
    assert ps.track_units([monday, tuesday], write(tmp_path), subject_id="m1")
    with pytest.raises(ps.RecordingError, match=r"'tuesday' is taken for, and .* has 3 ROIs"):
        ps.track_units([tuesday, monday], write(tmp_path), subject_id="m1")


def test_nothing_in_a_crafted_file_is_run(recordings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "plane0_suite2p_indices.npy"
    np.save(path, np.array([[0, Explosive()]], dtype=object), allow_pickle=True)
    with pytest.raises(ps.RecordingError, match="asks to run"):
        ps.track_units(recordings, path, subject_id="m1")
    assert not (tmp_path / "exploded").exists()


def test_what_is_not_read_is_said(recordings, tmp_path):
    def track(path, given=recordings):
        ps.track_units(given, path, subject_id="m1")

    with pytest.raises(ps.RecordingError, match="none is run"):
        track(tmp_path / "results.pkl")
    with pytest.raises(ps.RecordingError, match="as JSON beside it"):
        track(tmp_path / "m1.tracking.results_all.richfile")
    matches = write_track2p(tmp_path).rename(tmp_path / "plane0_match_mat.npy")
    with pytest.raises(ps.RecordingError, match=r"only 'plane0_suite2p_indices\.npy'"):
        track(matches)
    labels = write_roicat_json(tmp_path)
    with pytest.raises(ps.RecordingError, match="tracks 2 sessions, and 1 recordings"):
        track(labels, recordings[:1])
    labels.write_text(json.dumps({"labels_bySession": [[0, 1, 2], [0, 1]]}))  # cells alone
    with pytest.raises(
        ps.RecordingError, match=r"3 ROIs of recording 'monday', but not 'monday/3'"
    ):
        track(labels)
    labels.write_text("[1, 2]")
    with pytest.raises(ps.RecordingError, match="no labels_bySession"):
        track(labels)
    table = write_roicat_csv(tmp_path)
    table.write_text(table.read_text().replace("plane0,monday", "plane1,monday"))
    with pytest.raises(ps.RecordingError, match="several planes: plane0, plane1"):
        track(table)
    with pytest.raises(ps.RecordingError, match="cannot be opened"):
        track(tmp_path / "absent.json")
