"""Recordings and predictions as objects of xarray and pynapple, and back."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pynapple
import pytest
import xarray

import poyo_ssl as ps
from decoded_tables import predictions_of


@pytest.fixture(scope="module")
def recording(tiny_recording) -> ps.Recording:
    """The tiny session with a gap, a cre line of one unit, and running speed."""
    speed = np.arange(tiny_recording.num_timesteps, dtype=float)
    return replace(
        tiny_recording,
        units=tiny_recording.units.assign(cre_line=["Sst", *[None] * 5], depth=np.arange(6.0)),
        running=pd.DataFrame({"timestamp": tiny_recording.timestamps, "speed": speed}),
    )


def test_a_recording_goes_to_xarray_and_comes_back(recording):
    dataset = ps.to_xarray(recording)
    assert dataset.df_over_f.dims == ("time", "unit")
    np.testing.assert_array_equal(dataset.running_speed, recording.running["speed"])
    np.testing.assert_array_equal(
        dataset.drifting_gratings_start, recording.stimuli["drifting_gratings"]["start"]
    )
    for traces in (dataset.df_over_f, dataset.df_over_f.transpose()):
        back = ps.recording_from_xarray(traces, recording_id="tiny", stimuli=recording.stimuli)
        assert back.fingerprint() == recording.fingerprint()
        pd.testing.assert_frame_equal(back.units[recording.units.columns], recording.units)


def test_arrays_of_minian_need_their_rate(rng):
    traces = xarray.DataArray(
        rng.normal(size=(3, 50)),
        dims=("unit_id", "frame"),
        coords={"unit_id": [5, 8, 9], "frame": np.arange(50)},
    )
    recording = ps.recording_from_xarray(traces, recording_id="m1", sampling_rate=20.0)
    assert recording.unit_ids.tolist() == ["m1/5", "m1/8", "m1/9"]
    assert recording.sampling_rate == pytest.approx(20.0)
    np.testing.assert_array_equal(recording.df_over_f, traces.to_numpy().T.astype(np.float32))
    with pytest.raises(ps.RecordingError, match="either sampling_rate or timestamps"):
        ps.recording_from_xarray(traces, recording_id="m1")
    late = traces.rename(frame="time").assign_coords(time=7 + np.arange(traces.sizes["frame"]) / 20)
    with pytest.raises(ps.RecordingError, match="either sampling_rate or timestamps"):
        ps.recording_from_xarray(late, recording_id="m1", sampling_rate=20.0)  # 7 s would be lost
    with pytest.raises(ps.RecordingError, match=r"\('unit_id', 'step'\)"):
        ps.recording_from_xarray(traces.rename(frame="step"), recording_id="m1")
    with pytest.raises(ps.RecordingError, match="got Dataset"):
        ps.recording_from_xarray(traces.to_dataset(name="C"), recording_id="m1")


def test_a_recording_goes_to_pynapple_and_comes_back(recording):
    found = ps.to_pynapple(recording)
    assert len(found["df_over_f"].time_support) == len(recording.segments) == 2
    back = ps.recording_from_pynapple(
        found["df_over_f"],
        recording_id="tiny",
        stimuli={"drifting_gratings": found["drifting_gratings"]},
        series={"running": found["running"]},
    )
    assert back.fingerprint() == recording.fingerprint()
    assert back.unit_ids.tolist() == recording.unit_ids.tolist()
    pd.testing.assert_frame_equal(
        back.stimuli["drifting_gratings"], recording.stimuli["drifting_gratings"]
    )
    np.testing.assert_array_equal(back.series["running"]["speed"], recording.running["speed"])
    assert len(found["natural_movie_one"]) == 600  # frames touch each other; none is merged
    with pytest.raises(ps.RecordingError, match="stimuli\\['a'\\] must be a IntervalSet"):
        ps.recording_from_pynapple(found["df_over_f"], recording_id="t", stimuli={"a": [1, 2]})


def test_presentations_that_overlap_are_shortened_aloud_and_starts_never_shared(recording, caplog):
    def intervals_of(start, end):
        table = pd.DataFrame({"start": start, "end": end, "orientation": [0.0, 45.0, 90.0]})
        shown = replace(recording, stimuli={"a/b": table})
        return ps.to_pynapple(shown)["a/b"]

    apart = intervals_of([3.0, 1.0, 5.0], [4.0, 2.0, 6.0])
    assert apart["orientation"].tolist() == [45.0, 0.0, 90.0]
    intervals_of([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
    assert "overlap the next one" not in caplog.text
    overlapping = intervals_of([1.0, 2.0, 5.0], [2.5, 3.0, 6.0])
    np.testing.assert_allclose(overlapping.end, [2.0 - 1e-6, 3.0, 6.0], rtol=0, atol=1e-9)
    assert "1 of 3 presentations of 'a/b' overlap the next one" in caplog.text
    with pytest.raises(ps.RecordingError, match=r"presentations 0 and 1 .* start at 1.0 s"):
        intervals_of([1.0, 1.0, 5.0], [2.0, 3.0, 6.0])


def test_columns_that_are_only_numbered_name_no_cell(rng):
    frame = pynapple.TsdFrame(t=np.arange(50) / 10, d=rng.normal(size=(50, 2)))
    recording = ps.recording_from_pynapple(frame, recording_id="day1")
    assert recording.unit_ids.tolist() == ["day1/0", "day1/1"]


def test_predictions_become_columns_and_log_probabilities():
    table = predictions_of("tiny")
    dataset = ps.to_xarray(table)
    assert dataset["class"].to_numpy().tolist() == ["0", "45", "a/b"]
    assert dataset.trial.to_numpy().tolist() == [4, 7, 9] * 2
    scores = ps.to_pynapple(table[table["arm"] == "ridge"])
    np.testing.assert_array_equal(scores.t, [11.0, 14.0, 17.0])
    np.testing.assert_allclose(scores.values, dataset.log_probability[:3])
    with pytest.raises(ValueError, match="arm: ridge, scratch"):
        ps.to_pynapple(table)
    with pytest.raises(ValueError, match="several tasks: direction, other"):
        ps.to_xarray(pd.concat([table, predictions_of("tiny", "other")]))


def test_predicted_numbers_are_numbers():
    table = predictions_of("tiny", "running_speed").assign(
        truth="1.5", answer="2.5", scores="2.5", fold="1"
    )
    dataset = ps.to_xarray(table)
    assert dataset.answer.to_numpy().tolist() == [2.5] * 6
    assert dataset.fold.to_numpy().tolist() == [1] * 6
    assert "log_probability" not in dataset
    frame = ps.to_pynapple(table[table["arm"] == "ridge"])
    assert list(frame.columns) == ["truth", "answer"]


@pytest.mark.parametrize(
    ("library", "convert"), [("xarray", ps.to_xarray), ("pynapple", ps.to_pynapple)]
)
def test_a_missing_library_is_named_with_its_extra(library, convert, recording, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf'pip install "poyo-ssl\[{library}\]"'):
        convert(recording)
