"""Windows lie where they should: worked out by hand, and as laws for any recording."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.task_windows import find_any_windows, find_windows, is_without_gap
from poyo_ssl.windows.tasks import (
    DIRECTION,
    MOVIE,
    MOVIE_FRAME,
    MOVIE_HELD_OUT,
    ORIENTATION,
    TASKS,
    can_answer,
    find_classes,
    find_task,
    split_task,
)

CLASSES = np.array([0.0, 90.0])
ALWAYS = np.array([[-1e3, 1e3]])
TASK = replace(DIRECTION, window_offset=0.2, window_length=0.5)


def make_recording(timestamps: np.ndarray, onsets: list[float], answers: list[float]) -> Recording:
    """One unit; gratings of half a second."""
    starts = np.array(onsets, dtype=float)
    return Recording(
        recording_id="tasks",
        df_over_f=np.zeros((len(timestamps), 1), dtype=np.float32),
        timestamps=timestamps,
        units=pd.DataFrame({"unit_id": ["0"]}),
        stimuli={
            "drifting_gratings": pd.DataFrame(
                {"start": starts, "end": starts + 0.5, "orientation": answers}
            )
        },
    )


def find(recording: Recording, intervals: np.ndarray = ALWAYS, num_timesteps: int = 5):
    return find_windows(recording, TASK, intervals, CLASSES, num_timesteps)


# ten samples a second: 0.0 ... 4.9, a gap, 10.0 ... 14.9
TIMES = np.concatenate([np.arange(50), 100 + np.arange(50)]) / 10


def test_windows_begin_at_the_offset_and_answer_by_class():
    windows = find(make_recording(TIMES, [1.0, 2.0, 11.0], [90.0, 0.0, 90.0]))
    assert windows.first_timestep.tolist() == [12, 22, 62]
    assert windows.target.tolist() == [1, 0, 1]
    assert windows.num_timesteps == 5
    assert len(windows) == 3


def test_onsets_between_samples_go_to_the_nearest_sample():
    windows = find(make_recording(TIMES, [1.02, 2.08], [0.0, 0.0]))
    assert windows.first_timestep.tolist() == [12, 23]


def test_windows_come_in_order_of_time():
    windows = find(make_recording(TIMES, [11.0, 1.0, 2.0], [90.0, 0.0, 90.0]))
    assert windows.first_timestep.tolist() == [12, 22, 62]
    assert windows.target.tolist() == [0, 1, 1]


def test_blank_sweeps_and_unknown_answers_have_no_window():
    windows = find(make_recording(TIMES, [1.0, 2.0, 3.0], [np.nan, 45.0, 90.0]))
    assert windows.first_timestep.tolist() == [32]


def test_a_window_that_would_run_into_a_gap_does_not_exist():
    # samples end at 4.9 s: a window from 4.5 s fits, one from 4.6 s does not
    windows = find(make_recording(TIMES, [4.3, 4.4], [0.0, 90.0]))
    assert windows.first_timestep.tolist() == [45]


def test_a_window_that_would_begin_in_a_gap_is_not_moved_behind_it():
    # 4.8 s is imaged but 5.0 s is not; 7 s is not either; 9.9 s is nearly at the next segment
    recording = make_recording(TIMES, [4.8, 7.0, 9.5, 9.8], [0.0, 0.0, 0.0, 90.0])
    windows = find(recording)
    assert windows.first_timestep.tolist() == [50]
    assert windows.target.tolist() == [1]


def test_a_window_beyond_either_end_of_the_recording_does_not_exist():
    task = replace(TASK, window_offset=-0.5)
    recording = make_recording(TIMES, [0.1, 0.5, 14.8, 16.0], [0.0, 90.0, 0.0, 0.0])
    windows = find_windows(recording, task, ALWAYS, CLASSES, 5)
    assert windows.first_timestep.tolist() == [0, 93]
    assert find(recording).first_timestep.tolist() == [3, 7]


def test_windows_stay_inside_the_intervals_to_the_last_sample():
    # onset 1.0: samples 1.2 ... 1.6, the last of which lasts until 1.7
    recording = make_recording(TIMES, [1.0], [0.0])
    inside = [(1.0, 1.7), (0.0, 3.0)]
    outside = [(1.0, 1.6), (1.3, 3.0), (1.1, 3.0), (2.0, 3.0)]
    assert [len(find(recording, np.array([pair]))) for pair in inside] == [1, 1]
    assert [len(find(recording, np.array([pair]))) for pair in outside] == [0] * 4


def test_a_window_may_not_straddle_two_intervals():
    recording = make_recording(TIMES, [1.0], [0.0])
    assert len(find(recording, np.array([[0.0, 1.4], [1.4, 3.0]]))) == 0


def test_a_sample_at_a_border_belongs_to_the_later_part_alone():
    before, after = np.array([[0.0, 2.0]]), np.array([[2.0, 4.0]])
    recording = make_recording(TIMES, [1.3, 1.4, 1.8], [0.0, 0.0, 0.0])
    assert find(recording, before).first_timestep.tolist() == [15]  # 1.5 ... 1.9 s
    assert find_any_windows(recording, before, 5).max() == 15
    assert find_any_windows(recording, after, 5).min() == 20


def test_all_windows_of_an_interval_are_found():
    recording = make_recording(TIMES, [1.0], [0.0])
    intervals = np.array([[0.0, 1.0], [4.0, 10.8]])
    first = find_any_windows(recording, intervals, 5)
    assert first.tolist() == [*range(6), *range(40, 46), *range(50, 54)]
    assert find_any_windows(recording, intervals, 200).tolist() == []


@pytest.mark.parametrize(
    ("first", "stop", "expected"),
    [(0, 50, True), (45, 51, False), (50, 51, True), (49, 50, True), (50, 100, True)],
)
def test_gaps_are_found_between_samples(first, stop, expected):
    recording = make_recording(TIMES, [1.0], [0.0])
    assert is_without_gap(recording, np.array([first]), np.array([stop])).tolist() == [expected]


@st.composite
def sessions(draw: st.DrawFn) -> tuple[Recording, np.ndarray]:
    """A recording with gaps, and borders of parts: both may fall on samples and onsets."""
    rate = draw(st.sampled_from([4.0, 10.0, 30.0]))
    pieces, start = [], draw(st.sampled_from([0.0, 3.3]))
    for _ in range(draw(st.integers(1, 3))):
        pieces.append(start + np.arange(draw(st.integers(5, 60))) / rate)
        start = pieces[-1][-1] + draw(st.sampled_from([0.6, 2.0, 60.0]))
    timestamps = np.concatenate(pieces)
    somewhere = st.one_of(
        st.sampled_from(timestamps.tolist()),
        st.floats(float(timestamps[0]) - 1, float(timestamps[-1]) + 1),
    )
    onsets = draw(st.lists(somewhere, min_size=1, max_size=25))
    answers = draw(
        st.lists(st.sampled_from([0.0, 90.0, np.nan]), min_size=len(onsets), max_size=len(onsets))
    )
    borders = sorted(draw(st.lists(somewhere, min_size=3, max_size=6, unique=True)))
    return make_recording(timestamps, onsets, answers), np.array(borders)


@settings(max_examples=150, deadline=None)
@given(session=sessions(), num_timesteps=st.integers(1, 12), offset=st.sampled_from([-0.7, 0, 0.3]))
def test_windows_of_any_recording_obey_the_law(session, num_timesteps, offset):
    recording, borders = session
    task = replace(TASK, window_offset=offset)
    table = recording.stimuli["drifting_gratings"]
    times, period = recording.timestamps, 1 / recording.sampling_rate
    parts = [np.array([pair]) for pair in pairwise(borders)]
    claimed = np.zeros(recording.num_timesteps, dtype=int)
    for part in parts:
        windows = find_windows(recording, task, part, CLASSES, num_timesteps)
        is_used = np.zeros(recording.num_timesteps, dtype=bool)
        for first, target in zip(windows.first_timestep, windows.target, strict=True):
            steps = np.arange(first, first + num_timesteps)
            is_used[steps] = True
            # no gap inside, and every sample in the part
            assert np.all(np.diff(times[steps]) <= 1.5 * period)
            assert recording.is_inside(part)[steps].all() or times[first] >= part[0, 0] - 1e-6
            assert times[steps[-1]] < part[0, 1]
            # some trial with this answer asked for this moment
            wanted = table["start"][table["orientation"] == CLASSES[target]] + offset
            assert np.abs(wanted - times[first]).min() <= period
        any_first = find_any_windows(recording, part, num_timesteps)
        assert set(windows.first_timestep) <= set(any_first)
        is_used[(any_first[:, None] + np.arange(num_timesteps)).ravel()] = True
        claimed += is_used
    assert claimed.max(initial=0) <= 1


@pytest.mark.parametrize("task", [DIRECTION, MOVIE, MOVIE_HELD_OUT], ids=lambda task: task.split)
def test_train_valid_and_test_share_no_sample(tiny_recording, split_config, task):
    splits = split_task(tiny_recording, task, split_config)
    classes = find_classes([tiny_recording], task)
    num_timesteps = round(task.window_length * tiny_recording.sampling_rate)
    used = {}
    for part in ("train", "valid", "test"):
        reach = splits.reach(part)
        windows = find_windows(
            tiny_recording, task, splits.part(part), classes, num_timesteps, reach=reach
        ).first_timestep
        free = find_any_windows(tiny_recording, reach, num_timesteps)
        assert len(windows) > 0
        assert set(windows) <= set(free)
        used[part] = set((free[:, None] + np.arange(num_timesteps)).ravel().tolist())
    assert not used["train"] & used["valid"]
    assert not used["train"] & used["test"]
    assert not used["valid"] & used["test"]


def test_a_window_may_reach_beyond_the_part_its_stimulus_was_shown_in():
    recording = make_recording(TIMES, [1.0, 2.0], [0.0, 90.0])
    part, reach = np.array([[0.5, 1.3]]), np.array([[0.5, 1.7], [1.8, 4.0]])
    windows = find_windows(recording, TASK, part, CLASSES, 5, reach=reach)
    assert windows.first_timestep.tolist() == [12]
    assert len(find_windows(recording, TASK, part, CLASSES, 6, reach=reach)) == 0


def test_held_out_movie_frames_are_asked_of_no_training_window(tiny_recording, split_config):
    splits = split_task(tiny_recording, MOVIE_HELD_OUT, split_config)
    classes = find_classes([tiny_recording], MOVIE_HELD_OUT)
    asked = {
        part: set(
            find_windows(tiny_recording, MOVIE_HELD_OUT, splits.part(part), classes, 10).target
        )
        for part in ("train", "valid", "test")
    }
    assert not asked["train"] & asked["test"]
    assert not asked["valid"] & asked["test"]


def test_the_movie_frame_asked_about_was_shown_in_the_window(tiny_recording):
    classes = find_classes([tiny_recording], MOVIE)
    windows = find_windows(tiny_recording, MOVIE, ALWAYS, classes, 10)
    # windows begin 0.7 s before their movie frame, which is shown at 10 Hz from 0 s
    assert windows.target.tolist() == [(first + 7) % 100 for first in windows.first_timestep]
    assert len(windows) == 600 - 7


def test_classes_are_the_labels_that_occur(tiny_recording):
    assert find_classes([tiny_recording], DIRECTION).tolist() == [0, 90, 180, 270]
    other = make_recording(TIMES, [1.0, 2.0], [45.0, np.nan])
    assert find_classes([tiny_recording, other], DIRECTION).tolist() == [0, 45, 90, 180, 270]
    assert find_classes([tiny_recording], MOVIE_FRAME).tolist() == list(range(100))


def test_asking_for_a_stimulus_nobody_saw_names_what_there_is(tiny_recording):
    with pytest.raises(RecordingError, match=r"static_gratings.*found: drifting_gratings, natural"):
        find_classes([tiny_recording], ORIENTATION)


def test_pictures_are_needed_to_be_asked_for_pictures(tiny_recording):
    without = replace(tiny_recording, templates={})
    assert can_answer(tiny_recording, MOVIE)
    assert not can_answer(without, MOVIE)
    assert can_answer(without, MOVIE_FRAME)
    assert not can_answer(tiny_recording, ORIENTATION)
    empty = make_recording(TIMES, [], [])
    assert not can_answer(empty, DIRECTION)


def test_tasks_are_found_by_name():
    assert [find_task(name) for name in TASKS] == list(TASKS.values())
    with pytest.raises(ValueError, match=r"Unknown task 'colour'.*direction, temporal_frequency"):
        find_task("colour")


def test_windows_can_be_taken_by_position():
    windows = find(make_recording(TIMES, [1.0, 2.0, 11.0], [90.0, 0.0, 90.0]))
    taken = windows.take(np.array([2, 0]))
    assert taken.first_timestep.tolist() == [62, 12]
    assert taken.target.tolist() == [1, 1]
    assert taken.num_timesteps == 5
