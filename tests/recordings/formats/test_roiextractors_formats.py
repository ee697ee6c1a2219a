"""Inscopix cell sets and folders of Minian, written by the libraries that own the formats."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

import poyo_ssl as ps
from poyo_ssl.recordings.loading import find_recording_files, identify


class Explosive:
    """What a crafted pickle would run."""

    def __reduce__(self):
        return (Path("exploded").touch, ())


@pytest.fixture
def minian(tmp_path, rng) -> Path:
    """Three cells at 20 Hz: every other frame of a camera of 40 Hz."""
    folder = tmp_path / "mouse7" / "minian"
    root = zarr.open_group(folder, mode="w", zarr_format=2)
    along = {"unit_id": [3, 5, 8], "frame": np.arange(0, 200, 2)}
    arrays = {
        "A": {
            "A": rng.random((3, 6, 7)),
            "unit_id": [3, 5, 8],
            "height": np.arange(6),
            "width": np.arange(7),
        },
        "C": {"C": rng.normal(size=(3, 100)), **along},
        "b": {"b": rng.random((6, 7))},
        "f": {"f": rng.random(100)},
        "max_proj": {"max_proj": rng.random((6, 7))},
    }
    for name, content in arrays.items():
        group = root.create_group(f"{name}.zarr")
        for key, values in content.items():
            group.create_array(key, data=np.asarray(values))
    times = {"Frame Number": np.arange(200), "Time Stamp (ms)": np.arange(200) * 25}
    pd.DataFrame(times).to_csv(folder / "timeStamps.csv", index=False)
    return folder


def test_a_folder_of_minian_is_read(minian, tmp_path):
    assert find_recording_files(tmp_path) == [minian]
    assert identify(minian) == "Minian"
    [recording] = ps.load_recordings(tmp_path)
    assert recording.unit_ids.tolist() == ["mouse7/3", "mouse7/5", "mouse7/8"]
    assert recording.sampling_rate == pytest.approx(20.0)
    stored = np.asarray(zarr.open_group(minian / "C.zarr", mode="r")["C"])
    np.testing.assert_array_equal(recording.df_over_f, stored.T.astype(np.float32))
    assert "taken as they are" in recording.warnings[0]


def test_a_folder_of_minian_without_times_or_whole_arrays_is_refused(minian):
    (minian / "timeStamps.csv").rename(minian / "away.csv")
    with pytest.raises(ps.RecordingError, match=r"no timeStamps\.csv"):
        ps.load_recordings(minian)
    (minian / "away.csv").rename(minian / "timeStamps.csv")
    shutil.rmtree(minian / "A.zarr" / "A")
    with pytest.raises(ps.RecordingError, match="cannot be read by roiextractors"):
        ps.load_recordings(minian)


def test_a_pickle_in_a_folder_of_minian_is_not_run(minian, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array = minian / "C.zarr" / "C"
    form = json.loads((array / ".zarray").read_text())
    form |= {"shape": [1, 1], "chunks": [1, 1], "dtype": "|O", "fill_value": None}
    form |= {"compressor": None, "filters": [{"id": "pickle", "protocol": 5}]}
    (array / ".zarray").write_text(json.dumps(form))
    values = np.empty((1, 1), dtype=object)
    values[0, 0] = Explosive()
    (array / "0.0").write_bytes(pickle.dumps(values))
    with pytest.raises(ps.RecordingError, match="cannot be read"):
        ps.load_recordings(minian)
    assert not (tmp_path / "exploded").exists()


def test_cells_of_inscopix_that_are_rejected_are_left_out(tmp_path, rng, caplog):
    isx = pytest.importorskip("isx", reason="isx is not there for this Python or machine")
    path, traces = tmp_path / "day1.isxd", rng.normal(size=(4, 300)).astype(np.float32)
    timing = isx.Timing(num_samples=300, period=isx.Duration.from_msecs(50))
    cells = isx.CellSet.write(str(path), timing, isx.Spacing(num_pixels=(8, 10)))
    for number, trace in enumerate(traces):
        cells.set_cell_data(number, np.ones((8, 10), np.float32), trace, f"C{number}")
    cells.set_cell_status(1, "rejected")
    cells.flush()
    assert identify(path) == "Inscopix"
    with caplog.at_level(logging.WARNING):
        [recording] = ps.load_recordings(tmp_path)
    assert recording.unit_ids.tolist() == ["day1/C0", "day1/C2", "day1/C3"]
    assert recording.sampling_rate == pytest.approx(20.0)
    np.testing.assert_array_equal(recording.df_over_f, traces[[0, 2, 3]].T)
    assert "1 of 4 cells are rejected" in caplog.text


def test_a_missing_library_is_named_with_its_extra(minian, monkeypatch):
    monkeypatch.setitem(sys.modules, "roiextractors", None)
    with pytest.raises(ps.RecordingError, match=r'pip install "poyo-ssl\[formats\]"'):
        ps.load_recordings(minian)
