"""Recordings cut into the arrays that scikit-learn takes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

import poyo_ssl as ps

RATE = 10.0


def make_recording(rng, **stimuli) -> ps.Recording:
    return ps.recording_from_arrays(
        rng.normal(size=(800, 3)).astype(np.float32),
        recording_id="day",
        sampling_rate=RATE,
        unit_ids=["a", "b", "c"],
        stimuli={name: pd.DataFrame(table) for name, table in stimuli.items()},
        running=pd.DataFrame({"timestamp": np.arange(80.0), "speed": np.arange(80.0)}),
    )


@pytest.fixture
def recording(rng):
    onsets = 1.0 + 2.0 * np.arange(38)
    kind = np.array(["go", "stop"] * 19, dtype=object)
    kind[4] = None  # a blank
    repeats = {"start": 0.5 * np.arange(40), "end": 0.5 * np.arange(40) + 0.5}
    repeats |= {"repeat": np.arange(40) // 10, "frame": np.arange(40) % 10}
    return make_recording(
        rng, sequence={"start": onsets, "end": onsets + 1.5, "kind": kind}, movie=repeats
    )


def test_a_trial_is_what_was_imaged_after_its_onset(recording):
    X, y, groups = ps.trials(recording, "sequence/kind,window_offset=0.2,window_length=1")
    assert X.shape == (37, 10, 3)
    assert X.dtype == np.float32
    assert np.array_equal(X[0], recording.df_over_f[12:22])
    assert np.array_equal(X[4], recording.df_over_f[112:122])  # after the blank
    assert y[:5].tolist() == ["go", "stop", "go", "stop", "stop"]
    assert np.all(np.diff(groups) >= 0)
    assert len(np.unique(groups)) == 30


def test_units_are_taken_in_the_order_asked_for(recording):
    X, _, _ = ps.trials(recording, "sequence/kind")
    chosen, _, _ = ps.trials(recording, "sequence/kind", ["c", "a"])
    assert np.array_equal(chosen, X[..., [2, 0]])
    with pytest.raises(ps.RecordingError, match=r"has no unit d \(found: 3, such as a\)"):
        ps.trials(recording, "sequence/kind", ["a", "d"])


def test_no_sample_is_in_two_groups(recording):
    X, y, groups = ps.trials(recording, "movie/frame,kind=frames,split=repeat,window_length=1.2")
    assert np.unique(groups).tolist() == [0, 1, 2, 3]
    first = [int(np.flatnonzero(recording.df_over_f[:, 0] == trial[0, 0])[0]) for trial in X]
    samples = [
        {
            at + step
            for at, of in zip(first, groups, strict=True)
            if of == group
            for step in range(12)
        }
        for group in range(4)
    ]
    assert not any(one & two for one, two in pairwise(samples))
    assert y[:3].tolist() == [0, 1, 2]


def test_a_time_series_is_cut_into_bins(recording):
    X, y, _ = ps.trials(recording, "running_speed,window_length=4")
    assert X.shape == (20, 40, 3)
    assert y[:2].tolist() == [1.5, 5.5]


def test_what_has_no_trials_is_refused(recording, rng):
    with pytest.raises(ValueError, match="asks for pictures"):
        ps.trials(recording, "movie")
    with pytest.raises(ps.RecordingError, match="None of 1 recordings"):
        ps.trials(recording, "direction")
