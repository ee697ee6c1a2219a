"""What a person is told about a recording is what it holds."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.cli.inspection import (
    summarize_recording,
    summarize_series,
    summarize_stimuli,
    with_clock,
)
from poyo_ssl.clock.check import ClockCheck
from poyo_ssl.recordings.formats.arrays import recording_from_arrays
from poyo_ssl.recordings.recording import Recording

GRATINGS = pd.DataFrame(
    {
        "start": [10.0, 20.0, 30.0, 40.0],
        "end": [12.0, 22.0, 32.0, 42.0],
        "orientation": [0.0, 90.0, np.nan, 90.0],
        "temporal_frequency": [1.0, 2.5, np.nan, 2.5],
    }
)


def make_recording(**changes) -> Recording:
    rng = np.random.default_rng(0)
    traces = rng.uniform(-0.5, 0.5, size=(600, 20)).astype(np.float32)
    traces[7, 3], traces[8, 18] = -2.0, 5.0
    recording = recording_from_arrays(traces, recording_id="day1", sampling_rate=10.0)
    return replace(recording, **changes)


def test_units_imaging_and_range_are_those_of_the_traces():
    facts = summarize_recording(make_recording())
    assert facts["recording"] == "day1"
    assert facts["units"] == "20 (day1/0 to day1/19)"
    assert facts["imaging"] == "600 timesteps at 10.00 Hz, 1.0 min without a gap"
    assert facts["ΔF/F"] == "-2 to 5"


def test_what_is_not_known_is_left_out():
    facts = summarize_recording(make_recording())
    assert not {"mouse", "container", "session type", "Cre line", "area", "depth"} & set(facts)
    units = make_recording().units.assign(cre_line="Sst", area=None, imaging_depth_um=275.0)
    facts = summarize_recording(make_recording(units=units, subject_id="m1"))
    assert (facts["mouse"], facts["Cre line"], facts["depth"]) == ("m1", "Sst", "275 µm")
    assert "area" not in facts


def test_gaps_are_counted_and_take_no_time():
    times = np.r_[np.arange(300) / 10, 1000 + np.arange(300) / 10]
    facts = summarize_recording(make_recording(timestamps=times))
    assert facts["imaging"] == "600 timesteps at 10.00 Hz, 1.0 min in 2 segments"


@pytest.mark.parametrize("unit", [0, 15, 16, 19])  # units are looked at sixteen at a time
def test_broken_and_constant_units_are_counted_wherever_they_stand(unit):
    traces = make_recording().df_over_f.copy()
    traces[5, unit] = np.nan
    traces[:, 8] = 0.25
    facts = summarize_recording(make_recording(df_over_f=traces))
    assert facts["ΔF/F"].endswith("1 units are constant, 1 units hold NaN or Inf")


def test_traces_that_are_all_broken_have_no_range():
    facts = summarize_recording(make_recording(df_over_f=np.full((600, 20), np.inf)))
    assert facts["ΔF/F"] == "20 units hold NaN or Inf"


def test_samples_of_behaviour_are_told_by_number_times_and_values():
    running = pd.DataFrame({"timestamp": [0.0, 30.0], "speed": [2.0, 3.0]})
    facts = summarize_recording(make_recording(running=running))
    assert facts["running"] == "2 samples, 0.0 to 0.5 min\nspeed 2, 3"
    assert facts["pupil"] == "not recorded"
    empty = summarize_recording(make_recording(running=running[:0]))
    assert empty["running"] == "0 samples"


def test_every_other_time_series_is_told_with_the_question_it_answers():
    series = pd.DataFrame({"timestamp": [6.0, 12.0, 18.0], "value": [1.5, np.nan, 0.5]})
    recording = make_recording(series={"lick_rate": series})
    assert summarize_series(recording) == {"lick_rate": "3 samples, 0.1 to 0.3 min\nvalue 0.5, 1.5"}
    assert summarize_recording(recording)["can decode"] == "any column, such as lick_rate/value"
    both = make_recording(series={"lick_rate": series}, stimuli={"drifting_gratings": GRATINGS})
    assert summarize_recording(both)["can decode"].split("\n") == [
        "direction, temporal_frequency",
        "any column, such as lick_rate/value",
    ]


def test_a_column_that_is_always_filled_hides_no_blank_sweep():
    numbered = GRATINGS.assign(trial=range(4))
    told = summarize_stimuli(make_recording(stimuli={"drifting_gratings": numbered}))
    assert told["drifting_gratings"].startswith("4 presentations, 1 blank,")
    unheard = pd.DataFrame({"start": [1.0, 3.0], "end": [2.0, 4.0], "tone": [5.0, np.nan]})
    told = summarize_stimuli(make_recording(stimuli={"tones": unheard}))
    assert told["tones"].startswith("2 presentations, 1 blank,")


def test_a_stimulus_is_told_by_its_times_blank_sweeps_and_values():
    pictures = np.zeros((3, 4, 5), np.uint8)
    recording = make_recording(
        stimuli={"drifting_gratings": GRATINGS}, templates={"drifting_gratings": pictures}
    )
    assert summarize_stimuli(recording)["drifting_gratings"].split("\n") == [
        "4 presentations, 1 blank, 0.2 to 0.7 min",
        "orientation 0, 90",
        "temporal_frequency 1, 2.5",
        "pictures 3 x 4 x 5",
    ]


def test_many_values_are_told_by_their_range_and_blank_scenes_by_their_number():
    scenes = pd.DataFrame({"start": np.arange(9.0), "image": [-1, *range(8)]})
    scenes["end"] = scenes["start"] + 0.25
    told = summarize_stimuli(make_recording(stimuli={"natural_scenes": scenes}))
    assert "9 presentations, 1 blank" in told["natural_scenes"]
    assert "image 9 from -1 to 7" in told["natural_scenes"]


def test_stimuli_come_in_the_order_in_which_they_were_shown():
    early = pd.DataFrame({"start": [1.0], "end": [2.0]})
    recording = make_recording(stimuli={"drifting_gratings": GRATINGS, "spontaneous": early})
    assert list(summarize_stimuli(recording)) == ["spontaneous", "drifting_gratings"]


def test_what_can_be_decoded_or_is_lacking_is_said():
    shown = {"drifting_gratings": GRATINGS}
    facts = summarize_recording(make_recording(stimuli=shown))
    assert facts["can decode"] == "direction, temporal_frequency"
    bare = {"drifting_gratings": GRATINGS[["start", "end"]]}
    facts = summarize_recording(make_recording(stimuli=bare))
    assert (
        "nothing: it lacks drifting_gratings/orientation, drifting_gratings/temporal"
        in facts["can decode"]
    )
    facts = summarize_recording(make_recording())
    assert "nothing: it has no known stimulus" in facts["can decode"]


def test_a_doubted_clock_is_told_below_its_stimulus():
    check = ClockCheck(
        recording_id="day1", stimulus="films", num_units=9, num_responding=4, warning="It is off."
    )
    told = with_clock({"films": "3 presentations", "grey": "once"}, [check])
    assert told["grey"] == "once"
    assert told["films"].split("\n") == [
        "3 presentations",
        "4 of 9 units respond",
        "WARNING: It is off. --clock_pictures DIR draws it.",
    ]
