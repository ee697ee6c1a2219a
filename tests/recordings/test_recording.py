import numpy as np
import pandas as pd
import pytest

from poyo_ssl.recordings.recording import Recording, RecordingError, is_one_rate


def make_recording(**changes) -> Recording:
    """Ten timesteps at 10 Hz of three units, with a gap of one second after the sixth."""
    timestamps = np.arange(10) / 10.0
    timestamps[6:] += 1.0
    fields = {
        "recording_id": "mine",
        "df_over_f": np.arange(30, dtype=np.float32).reshape(10, 3),
        "timestamps": timestamps,
        "units": pd.DataFrame({"unit_id": ["a", "b", "c"], "cre_line": ["Sst", None, "Vip"]}),
    }
    return Recording(**(fields | changes))


def samples(**columns: list) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_sizes_and_ids():
    recording = make_recording()
    assert (recording.num_timesteps, recording.num_units) == (10, 3)
    assert recording.unit_ids.tolist() == ["a", "b", "c"]
    assert recording.sampling_rate == pytest.approx(10.0)


def test_a_gap_splits_a_recording_into_segments():
    recording = make_recording()
    assert recording.segments.tolist() == [[0, 6], [6, 10]]
    np.testing.assert_allclose(recording.segment_intervals, [[0.0, 0.6], [1.6, 2.0]])


def test_without_a_gap_there_is_one_segment_even_if_the_clock_jitters():
    timestamps = np.arange(10) / 10.0
    timestamps[5] += 0.04  # 1.4 periods after the sample before: no gap
    recording = make_recording(timestamps=timestamps)
    assert recording.segments.tolist() == [[0, 10]]


def test_segments_cover_every_timestep_once():
    timestamps = np.cumsum(np.random.default_rng(0).choice([0.1, 0.1, 0.1, 5.0], size=10))
    segments = make_recording(timestamps=timestamps).segments
    covered = np.concatenate([np.arange(first, stop) for first, stop in segments])
    assert covered.tolist() == list(range(10))


def test_timestep_at_gives_the_first_sample_at_or_after_a_time():
    recording = make_recording()
    assert recording.timestep_at(np.array([0.0, 0.2, 0.26, 1.0, 1.6])).tolist() == [0, 2, 3, 6, 6]
    # a time that jitter puts just after its sample still means that sample
    assert recording.timestep_at(np.array([0.2 + 1e-9, 0.24])).tolist() == [2, 2]


def test_is_inside_takes_half_open_intervals():
    recording = make_recording()
    inside = recording.is_inside(np.array([[0.2, 0.4], [1.7, 9.0]]))
    assert np.flatnonzero(inside).tolist() == [2, 3, 7, 8, 9]
    assert not recording.is_inside(np.empty((0, 2))).any()


def test_a_stimulus_that_was_not_shown_is_named_beside_those_that_were():
    shown = pd.DataFrame({"start": [0.0], "end": [0.1]})
    recording = make_recording(stimuli={"spontaneous": shown, "drifting_gratings": shown})
    assert recording.stimulus("spontaneous") is shown
    with pytest.raises(
        RecordingError, match=r"no natural_movie_one \(found: drifting_gratings, spontaneous\)"
    ):
        recording.stimulus("natural_movie_one")
    with pytest.raises(RecordingError, match="found: no stimulus at all"):
        make_recording().stimulus("natural_movie_one")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"df_over_f": np.zeros(10)}, r"\(num_timesteps, num_units\), got \(10,\)"),
        ({"df_over_f": np.zeros((3, 10))}, "If ΔF/F is units x timesteps, transpose it"),
        ({"df_over_f": np.zeros((1, 3)), "timestamps": np.zeros(1)}, "at least two are needed"),
        ({"timestamps": np.zeros(10)}, "timestep 0 is at 0 s and the next at 0 s"),
        ({"timestamps": np.r_[np.arange(9.0), np.nan]}, "timestep 8 is at 8 s and the next at nan"),
        ({"timestamps": np.r_[np.nan, np.arange(9.0)]}, "timestep 0 is at nan s"),
        ({"timestamps": np.r_[np.arange(9.0), np.inf]}, "timestep 8 is at 8 s .* at inf s"),
        ({"timestamps": np.r_[-np.inf, np.arange(9.0)]}, "timestep 0 is at -inf s"),
        ({"units": pd.DataFrame({"unit_id": ["a", "b"]})}, "3 units but .* has 2 rows"),
        ({"units": pd.DataFrame({"name": ["a", "b", "c"]})}, r"columns \['name'\]"),
        (
            {"units": pd.DataFrame({"unit_id": ["a", "b", "a"]})},
            r"twice or more: a\. If these are different cells, number",
        ),
        (
            {"stimuli": {"bars": pd.DataFrame({"start": [1.0]})}},
            r"'bars' lacks \['end'\] \(found: start",
        ),
        (
            {"stimuli": {"bars": pd.DataFrame({"start": [0.0, 1.0], "end": [1.0, 1.0]})}},
            r"row 1 of 'bars' does not end after it starts: it lasts from 1\.0 to 1\.0 s",
        ),
        (
            {"stimuli": {"bars": pd.DataFrame({"start": [0.0], "end": [np.nan]})}},
            "row 0 of 'bars' does not end after it starts",
        ),
        (
            {"series": {"lick": samples(value=[1, 2])}},
            r"timestamp \(seconds\), at least one column",
        ),
        ({"series": {"lick": samples(timestamp=[1.0])}}, "columns \\['timestamp'\\]"),
        ({"series": {"lick": samples(timestamp=[], value=[])}}, "'lick' has 0 samples"),
        ({"series": {"lick": samples(timestamp=[1], value=["on"])}}, "numbers, but value does not"),
        (
            {"series": {"lick": samples(timestamp=[1.0, 3.0, 2.0], value=[0, 0, 0])}},
            r"'lick' must .* increasing, but row 2 is at 2 s after 3 s \(1 such rows\)",
        ),
        ({"series": {"lick": samples(timestamp=[1.0, 1.0], value=[0, 0])}}, "row 1 is at 1 s"),
        ({"series": {"lick": samples(timestamp=[np.nan, 1], value=[0, 0])}}, "row 0 is at nan s"),
        ({"series": {"lick": samples(timestamp=[0, np.inf], value=[0, 0])}}, "row 1 is at inf s"),
    ],
)
def test_a_recording_that_makes_no_sense_cannot_exist(changes, problem):
    with pytest.raises(RecordingError, match=problem) as caught:
        make_recording(**changes)
    assert "Recording 'mine'" in str(caught.value)


def test_the_file_that_a_recording_came_from_is_named():
    with pytest.raises(RecordingError, match=r"Recording 'mine' from '/data/day1\.npz': "):
        make_recording(timestamps=np.zeros(10), source="/data/day1.npz")


def test_all_problems_are_reported_at_once():
    with pytest.raises(RecordingError) as caught:
        make_recording(
            timestamps=np.zeros(10),
            units=pd.DataFrame({"unit_id": ["a", "a", "a"]}),
            stimuli={"bars": pd.DataFrame({"start": [1.0]})},
        )
    for problem in ("strictly increasing", "must be unique", "'bars' lacks"):
        assert problem in str(caught.value)


@pytest.mark.parametrize("rates", [(30.0,), (30.0, 30.5), (30.0, 30.6, 30.2)])
def test_rates_within_two_per_cent_are_one(rates):
    assert is_one_rate(*rates)
    assert is_one_rate(*rates[::-1])


@pytest.mark.parametrize("rates", [(30.0, 30.7), (30.3, 30.0, 30.7)])
def test_rates_further_apart_are_not(rates):
    assert not is_one_rate(*rates)
    assert not is_one_rate(*rates[::-1])
