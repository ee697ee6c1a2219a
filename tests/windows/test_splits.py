"""Splits leak nothing: laws that hold for any recording, and cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.held_out_values import HeldOutValues
from poyo_ssl.windows.intervals import lie_inside
from poyo_ssl.windows.movie_splits import (
    held_out_movie_frames,
    split_by_movie_frame,
    split_by_repeat,
)
from poyo_ssl.windows.splits import (
    SplitConfig,
    SplitError,
    Splits,
    named_part,
    require_known_names,
    training_intervals,
    whole_recording_as,
)
from poyo_ssl.windows.task_windows import find_windows
from poyo_ssl.windows.tasks import DIRECTION, MOVIE_HELD_OUT
from poyo_ssl.windows.trial_splits import (
    AFTER_LAST_TRIAL,
    LONGEST_PAUSE,
    split_by_trial,
    split_by_value,
)

TOLERANCE = 1e-9
"""Seconds; two sums of the same times may differ by rounding."""

law = settings(max_examples=60, deadline=None)


def make_recording(timestamps: np.ndarray, **stimuli: pd.DataFrame) -> Recording:
    return Recording(
        recording_id="split-test",
        df_over_f=np.zeros((len(timestamps), 1), dtype=np.float32),
        timestamps=timestamps,
        units=pd.DataFrame({"unit_id": ["0"]}),
        stimuli=stimuli,
    )


def make_trials(*onsets: float, duration: float = 0.5) -> pd.DataFrame:
    starts = np.array(onsets)
    return pd.DataFrame({"start": starts, "end": starts + duration})


def make_movie(
    num_frames: int, num_repeats: int, frame_period: float, start: float = 0.0, pause: float = 0.0
) -> pd.DataFrame:
    """``num_repeats`` showings, each ``pause`` seconds after the one before."""
    showings = []
    for repeat in range(num_repeats):
        onset = start + repeat * (num_frames * frame_period + pause)
        starts = onset + frame_period * np.arange(num_frames)
        showings.append(
            pd.DataFrame(
                {
                    "start": starts,
                    "end": starts + frame_period,
                    "movie_frame": np.arange(num_frames),
                    "repeat": repeat,
                }
            )
        )
    return pd.concat(showings, ignore_index=True)


@st.composite
def segmented_timestamps(draw: st.DrawFn) -> np.ndarray:
    """Imaging at one rate, interrupted by gaps."""
    rate = draw(st.sampled_from([2.0, 7.5, 30.0]))
    start, pieces = draw(st.floats(0, 50)), []
    for _ in range(draw(st.integers(1, 4))):
        piece = start + np.arange(draw(st.integers(20, 400))) / rate
        pieces.append(piece)
        start = piece[-1] + draw(st.floats(3.0, 60.0))
    return np.concatenate(pieces)


def is_cut_to_trials(timestamps: np.ndarray, onsets: list[float]) -> bool:
    """Whether several trials, and most of all, are alone in their run of imaging."""
    starts = make_recording(timestamps).segment_intervals[:, 0]
    in_segment = np.bincount(np.searchsorted(starts, onsets, side="right"))
    num_alone = np.sum(in_segment == 1)
    return num_alone > 1 and num_alone > len(onsets) / 2


@st.composite
def recordings_with_trials(draw: st.DrawFn) -> Recording:
    """Trials of one duration at random distances, in blocks apart by pauses or by gaps."""
    timestamps = draw(segmented_timestamps())
    distance = st.tuples(st.floats(0.1, 1.0), st.sampled_from([0.0] * 7 + [LONGEST_PAUSE + 0.1]))
    onsets = []
    for start, end in make_recording(timestamps).segment_intervals:
        room = (end - start) / 12  # less than the longest pause
        distances = [share * room + pause for share, pause in draw(st.lists(distance, max_size=11))]
        inside = start + np.cumsum(distances)
        onsets += list(inside[inside < end])
    assume(onsets)
    trials = make_trials(*onsets, duration=0.01)
    assume(not is_cut_to_trials(timestamps, onsets))
    order = np.array(draw(st.permutations(range(len(trials)))), dtype=int)
    return make_recording(timestamps, drifting_gratings=trials.iloc[order])


def blocks_of(recording: Recording) -> list[np.ndarray]:
    """Onsets of the trials of every block, found trial by trial."""
    blocks: list[list[float]] = []
    before = (-1, 0.0)
    for trial in recording.stimulus("drifting_gratings").sort_values("start").itertuples():
        segment = int(np.sum(recording.segment_intervals[:, 0] <= trial.start))
        if segment != before[0] or trial.start - before[1] > LONGEST_PAUSE:
            blocks.append([])
        blocks[-1].append(trial.start)
        before = (segment, trial.end)
    return [np.array(block) for block in blocks]


@st.composite
def recordings_with_movie(draw: st.DrawFn) -> Recording:
    """A movie with back-to-back or paused repeats, jittered onsets and dropped movie frames."""
    movie = make_movie(
        num_frames=draw(st.integers(12, 60)),
        num_repeats=draw(st.integers(3, 6)),
        frame_period=draw(st.sampled_from([1 / 30, 0.1, 0.5])),
        start=draw(st.floats(0, 20)),
        pause=draw(st.sampled_from([0.0, 0.0, 0.3, 5.0])),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    period = movie["end"][0] - movie["start"][0]
    jitter = draw(st.sampled_from([0.0, 0.2])) * period
    movie["start"] += rng.uniform(-jitter, jitter, len(movie))
    movie["end"] += rng.uniform(-jitter, jitter, len(movie))
    is_dropped = rng.random(len(movie)) < draw(st.sampled_from([0.0, 0.05]))
    is_dropped |= draw(st.booleans()) & (movie["movie_frame"].to_numpy() == 0)
    movie = movie[~is_dropped].sample(frac=1.0, random_state=0)
    timestamps = np.arange(0.0, movie["end"].max() + 5.0, 1 / 7.5)
    return make_recording(timestamps, natural_movie_one=movie)


configs = st.builds(
    SplitConfig,
    valid_fraction=st.sampled_from([0.0, 0.1, 0.3]),
    test_fraction=st.sampled_from([0.1, 0.2, 0.5]),
    held_out_blocks=st.integers(1, 4),
    guard=st.sampled_from([0.0, 0.15, 1.0]),
)


def split_or_skip(split, *arguments) -> Splits:
    """The split, where one is possible; that it says so otherwise has tests of its own."""
    try:
        return split(*arguments)
    except SplitError as error:
        assume("overlap" in str(error))
        raise


def overlap(one: np.ndarray, two: np.ndarray) -> float:
    """Seconds that two sets of intervals share, pair by pair."""
    shared = np.minimum(one[:, None, 1], two[None, :, 1]) - np.maximum(
        one[:, None, 0], two[None, :, 0]
    )
    return float(np.clip(shared, 0, None).sum())


def distance(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Shortest time between each interval of ``one`` and any of ``two``, seconds."""
    apart = np.maximum(two[None, :, 0] - one[:, None, 1], one[:, None, 0] - two[None, :, 1])
    return np.clip(apart, 0, None).min(axis=1, initial=np.inf)


def parts_sharing(intervals: Splits, times: np.ndarray) -> np.ndarray:
    """In how many parts each time lies."""
    counts = np.zeros(len(times), dtype=int)
    for part in (intervals.train, intervals.valid, intervals.test, intervals.guard):
        for start, end in part:
            counts += (times >= start) & (times < end)
    return counts


@pytest.mark.parametrize("split", [split_by_repeat, split_by_movie_frame])
@law
@given(recording=recordings_with_movie(), config=configs)
def test_parts_of_a_movie_are_disjoint_and_none_to_learn_from_or_test_on_is_empty(
    split, recording, config
):
    splits = split_or_skip(split, recording, "natural_movie_one", config)
    assert len(splits.train)
    assert len(splits.test)
    assert overlap(splits.train, splits.withheld) <= TOLERANCE
    assert overlap(splits.valid, splits.test) <= TOLERANCE
    assert overlap(splits.guard, np.concatenate([splits.valid, splits.test])) <= TOLERANCE


@law
@given(recording=recordings_with_trials(), config=configs)
def test_every_trial_of_a_split_block_belongs_to_exactly_one_part(recording, config):
    splits = split_or_skip(split_by_trial, recording, "drifting_gratings", config)
    assert len(splits.test)
    num_split = 0
    for onsets in blocks_of(recording):
        num_test = round(config.test_fraction * len(onsets))
        num_valid = round(config.valid_fraction * len(onsets))
        is_split = num_test > 0 and num_valid + num_test < len(onsets)
        assert np.all(parts_sharing(splits, onsets) == is_split)
        for name, number in [("valid", num_valid), ("test", num_test)]:
            starts, ends = splits.part(name).T[:, :, None]
            assert np.sum((onsets >= starts) & (onsets < ends)) == number * is_split
        num_split += is_split
    assert num_split == len(splits.train) == len(splits.test)


@law
@given(recording=recordings_with_trials(), config=configs)
def test_trials_of_a_block_train_first_then_validate_then_test_without_a_hole(recording, config):
    splits = split_or_skip(split_by_trial, recording, "drifting_gratings", config)
    for (_, train_end), (test_start, test_end) in zip(splits.train, splits.test, strict=True):
        valid = splits.valid[(splits.valid[:, 0] >= train_end) & (splits.valid[:, 1] <= test_end)]
        edges = [train_end, *valid.ravel(), test_start]
        assert edges == sorted(edges)
        assert edges[0::2] == edges[1::2]


@law
@given(recording=recordings_with_trials(), config=configs)
def test_a_block_lasts_from_its_first_onset_to_shortly_after_its_last_trial(recording, config):
    splits = split_or_skip(split_by_trial, recording, "drifting_gratings", config)
    blocks = blocks_of(recording)
    onsets = np.concatenate(blocks)
    last_of = {block[0]: block[-1] for block in blocks}
    for (start, _), (_, end) in zip(splits.train, splits.test, strict=True):
        last = last_of[start]
        [segment_end] = [
            stop for first, stop in recording.segment_intervals if first <= start < stop
        ]
        following = onsets[onsets > last].min(initial=np.inf)
        assert end == pytest.approx(min(last + 0.01 + AFTER_LAST_TRIAL, segment_end))
        assert end <= following


@law
@given(recording=recordings_with_trials(), config=configs)
def test_parts_of_trials_never_cross_a_gap_in_imaging(recording, config):
    splits = split_or_skip(split_by_trial, recording, "drifting_gratings", config)
    for start, end in np.concatenate([splits.train, splits.valid, splits.test]):
        holders = recording.segment_intervals
        assert np.any((holders[:, 0] <= start) & (end <= holders[:, 1]))


def make_cut_recording(pauses: np.ndarray) -> Recording:
    """Trials of 2 s, imaged from 1 s before to 2 s after each onset, apart by the pauses (s)."""
    onsets = 1.0 + np.append(0.0, np.cumsum(2.0 + np.asarray(pauses)))
    timestamps = np.concatenate([onset - 1.0 + np.arange(48) / 16 for onset in onsets])
    return make_recording(timestamps, drifting_gratings=make_trials(*onsets, duration=2.0))


def test_trials_that_were_each_imaged_alone_are_split_by_their_order():
    recording = make_cut_recording(np.full(127, 8.0))
    assert len(recording.segments) == 128
    splits = split_by_trial(recording, "drifting_gratings", SplitConfig())
    # onsets at 1, 11, 21 ... s: 89 train, 13 validate, 26 test
    assert np.allclose(splits.train, [[1.0, 891.0]])
    assert np.allclose(splits.valid, [[891.0, 1021.0]])
    assert np.allclose(splits.test, [[1021.0, 1273.0]])
    windows = {
        part: find_windows(
            recording,
            replace(DIRECTION, column="start", window_offset=0.0),
            splits.part(part),
            recording.stimulus("drifting_gratings")["start"].to_numpy(),
            32,
        )
        for part in ("train", "valid", "test")
    }
    assert [len(found) for found in windows.values()] == [89, 13, 26]


@law
@given(pauses=st.lists(st.floats(2.0, LONGEST_PAUSE - 0.1), min_size=9, max_size=40))
def test_cuts_in_the_imaging_between_trials_change_no_part(pauses):
    cut = make_cut_recording(np.array(pauses))
    whole = replace(
        cut,
        timestamps=(times := np.arange(0.0, cut.timestamps[-1] + 0.06, 1 / 16)),
        df_over_f=np.zeros((len(times), 1), dtype=np.float32),
    )
    found, wanted = (split_by_trial(r, "drifting_gratings", SplitConfig()) for r in (cut, whole))
    for part in ("train", "valid", "test"):
        assert np.allclose(found.part(part), wanted.part(part), atol=AFTER_LAST_TRIAL + 0.1)
        assert len(found.part(part)) == 1


def test_a_long_pause_between_trials_imaged_alone_ends_a_block():
    pauses = np.full(19, 8.0)
    pauses[9] = LONGEST_PAUSE + 0.1
    splits = split_by_trial(make_cut_recording(pauses), "drifting_gratings", SplitConfig())
    assert len(splits.train) == len(splits.test) == 2


def test_pauses_that_are_all_nominal_end_no_block_but_one_twice_as_long_does():
    pauses = np.full(19, 60.0)
    splits = split_by_trial(make_cut_recording(pauses), "drifting_gratings", SplitConfig())
    assert len(splits.train) == 1
    pauses[9] = 121.0
    splits = split_by_trial(make_cut_recording(pauses), "drifting_gratings", SplitConfig())
    assert len(splits.train) == 2


@law
@given(recording=recordings_with_movie(), config=configs)
def test_repeats_are_split_whole_and_in_order(recording, config):
    splits = split_or_skip(split_by_repeat, recording, "natural_movie_one", config)
    table = recording.stimulus("natural_movie_one")
    middle = (0.5 * (table["start"] + table["end"])).to_numpy()
    role = np.full(len(table), "none", dtype=object)
    for name in ("train", "valid", "test"):
        for start, end in splits.part(name):
            role[(middle >= start) & (middle < end)] = name
    assert "none" not in role
    of_repeat = pd.Series(role).groupby(table["repeat"].to_numpy()).agg(["nunique", "first"])
    assert (of_repeat["nunique"] == 1).all()
    order = of_repeat["first"].map({"train": 0, "valid": 1, "test": 2})
    assert order.is_monotonic_increasing


@law
@given(recording=recordings_with_movie(), config=configs)
def test_held_out_movie_frames_are_never_shown_in_training(recording, config):
    splits = split_or_skip(split_by_movie_frame, recording, "natural_movie_one", config)
    table = recording.stimulus("natural_movie_one")
    is_test, is_valid = held_out_movie_frames(int(table["movie_frame"].max()) + 1, config)
    starts, ends = table["start"].to_numpy(), table["end"].to_numpy()
    middle = 0.5 * (starts + ends)
    for name, is_of_part in [("test", is_test), ("valid", is_valid)]:
        inside = np.zeros(len(table), dtype=bool)
        for start, end in splits.part(name):
            inside |= (middle >= start) & (middle < end)
        assert np.array_equal(inside, is_of_part[table["movie_frame"].to_numpy()])
    shown = np.zeros(len(table), dtype=bool)
    for start, end in splits.train:
        shown |= (middle >= start) & (middle < end)
    assert not np.any((is_test | is_valid)[table["movie_frame"].to_numpy()[shown]])


@law
@given(recording=recordings_with_movie(), config=configs)
def test_training_stays_a_guard_away_from_every_held_out_movie_frame_of_any_repeat(
    recording, config
):
    splits = split_or_skip(split_by_movie_frame, recording, "natural_movie_one", config)
    table = recording.stimulus("natural_movie_one").sort_values("start")
    is_test, is_valid = held_out_movie_frames(int(table["movie_frame"].max()) + 1, config)
    held_out = table[(is_test | is_valid)[table["movie_frame"].to_numpy()]]
    # a presentation is over when the next begins, even if its nominal end lies later
    following = table["start"].shift(-1).reindex(held_out.index).fillna(np.inf)
    spans = np.stack([held_out["start"], np.minimum(held_out["end"], following)], axis=1)
    assert distance(splits.train, spans).min() >= config.guard - TOLERANCE
    free = training_intervals(recording, [splits])
    assert distance(free, spans).min(initial=np.inf) >= config.guard - TOLERANCE


@law
@given(recording=recordings_with_movie(), config=configs)
def test_training_on_a_movie_spans_no_pause_between_its_repeats(recording, config):
    splits = split_or_skip(split_by_movie_frame, recording, "natural_movie_one", config)
    table = recording.stimulus("natural_movie_one")
    bounds = table.groupby("repeat").agg(start=("start", "min"), end=("end", "max"))
    pauses = np.stack([bounds["end"][:-1], bounds["start"][1:]], axis=1)
    pauses = pauses[pauses[:, 1] - pauses[:, 0] > 2.0]
    assert overlap(splits.train, pauses) == 0


@law
@given(recording=recordings_with_trials(), config=configs)
def test_unlabelled_learning_sees_all_of_the_segments_but_nothing_withheld(recording, config):
    splits = split_or_skip(split_by_trial, recording, "drifting_gratings", config)
    free = training_intervals(recording, [splits])
    segments = recording.segment_intervals
    assert overlap(free, splits.withheld) <= TOLERANCE
    assert all(np.any((segments[:, 0] <= start) & (end <= segments[:, 1])) for start, end in free)
    length = np.diff(free, axis=1).sum() + overlap(segments, splits.withheld)
    assert length == pytest.approx(np.diff(segments, axis=1).sum())


def test_two_stimuli_are_both_withheld_from_unlabelled_learning():
    timestamps = np.arange(0.0, 100.0, 0.1)
    trials = make_trials(*np.arange(0.0, 20.0, 2.0))
    movie = make_movie(num_frames=60, num_repeats=5, frame_period=0.2, start=30.0)
    recording = make_recording(timestamps, drifting_gratings=trials, natural_movie_one=movie)
    config = SplitConfig(valid_fraction=0.0)
    both = [
        split_by_trial(recording, "drifting_gratings", config),
        split_by_repeat(recording, "natural_movie_one", config),
    ]
    free = training_intervals(recording, both)
    assert np.allclose(free, [[0.0, 16.0], [20.5, 78.0], [90.0, 100.0]])
    only_movie = training_intervals(recording, both[1:])
    assert np.allclose(only_movie, [[0.0, 78.0], [90.0, 100.0]])


@pytest.mark.parametrize(
    ("imaged_until", "test_end"), [(40.0, 30.5), (30.0, 30.0)], ids=["imaged", "clipped"]
)
def test_ten_trials_are_split_seven_one_two(imaged_until, test_end):
    timestamps = np.arange(0.0, imaged_until - 0.05, 0.1)
    recording = make_recording(timestamps, static_gratings=make_trials(*np.arange(1.0, 30.0, 3.0)))
    splits = split_by_trial(recording, "static_gratings", SplitConfig())
    assert np.allclose(splits.train, [[1.0, 22.0]])
    assert np.allclose(splits.valid, [[22.0, 25.0]])
    assert np.allclose(splits.test, [[25.0, test_end]])
    assert len(splits.guard) == 0


@pytest.mark.parametrize(
    ("pause", "train"),
    [(LONGEST_PAUSE, [[0.0, 59.5]]), (LONGEST_PAUSE + 0.25, [[0.0, 21.0], [47.75, 68.75]])],
)
def test_only_a_pause_longer_than_the_longest_ends_a_block(pause, train):
    before = np.arange(0.0, 30.0, 3.0)
    after = before[-1] + 0.5 + pause + before
    recording = make_recording(
        np.arange(0.0, 100.0, 0.1), static_gratings=make_trials(*before, *after)
    )
    splits = split_by_trial(recording, "static_gratings", SplitConfig())
    assert np.allclose(splits.train, train)


def test_a_block_ends_where_the_next_begins_even_if_its_last_trial_is_said_to_last_longer():
    first = make_trials(*np.arange(0.0, 30.0, 3.0))
    first.loc[8, "end"] = 90.0
    second = make_trials(*np.arange(60.0, 90.0, 3.0))
    trials = pd.concat([first, second], ignore_index=True)
    recording = make_recording(np.arange(0.0, 100.0, 0.1), static_gratings=trials)
    splits = split_by_trial(recording, "static_gratings", SplitConfig())
    assert np.allclose(splits.test, [[24.0, 60.0], [84.0, 89.5]])


GRATINGS_OF_SESSION = np.array([[60.0, 181.0], [540.0, 661.0], [900.0, 1021.0]])
"""Blocks of gratings in :func:`make_session`, to two seconds after their last trial."""
MOVIE_OF_SESSION = np.array([[210.0, 510.0]])


def make_session() -> Recording:
    """A session of the Allen kind: one segment of 18 minutes with three blocks of 40 gratings, ten
    showings of a movie between the first two, and grey between the others."""
    starts = np.concatenate([start + 3.0 * np.arange(40) for start, _ in GRATINGS_OF_SESSION])
    gratings = make_trials(*starts, duration=2.0).assign(
        orientation=np.resize(np.arange(0.0, 360.0, 45.0), len(starts))
    )
    movie = make_movie(num_frames=900, num_repeats=10, frame_period=1 / 30, start=210.0)
    return make_recording(
        np.arange(0.0, 1080.0, 0.1), drifting_gratings=gratings, natural_movie_one=movie
    )


def test_every_block_of_a_session_imaged_without_a_gap_is_split():
    recording = make_session()
    assert len(recording.segments) == 1
    splits = split_by_trial(recording, "drifting_gratings", SplitConfig())
    first, end = GRATINGS_OF_SESSION.T
    assert np.allclose(splits.train, np.stack([first, first + 84], axis=1))
    assert np.allclose(splits.valid, np.stack([first + 84, first + 96], axis=1))
    assert np.allclose(splits.test, np.stack([first + 96, end], axis=1))


def test_the_movie_between_blocks_of_gratings_belongs_to_no_part_of_them():
    splits = split_by_trial(make_session(), "drifting_gratings", SplitConfig())
    for name in ("train", "valid", "test", "guard"):
        assert overlap(getattr(splits, name), MOVIE_OF_SESSION) == 0, name


def test_gratings_and_held_out_movie_frames_together_leave_ample_time_to_learn_from():
    recording = make_session()
    gratings = split_by_trial(recording, "drifting_gratings", SplitConfig())
    movie = split_by_movie_frame(recording, "natural_movie_one", SplitConfig())
    free = training_intervals(recording, [gratings, movie])
    assert np.diff(free, axis=1).sum() > 0.7 * 1080
    assert overlap(free, MOVIE_OF_SESSION) == pytest.approx(np.diff(movie.train, axis=1).sum())
    assert overlap(free, MOVIE_OF_SESSION) > 0.4 * 300
    # neither stimulus takes labelled training time from the other
    assert overlap(free, gratings.train) == pytest.approx(3 * 84)
    assert overlap(free, movie.train) == pytest.approx(np.diff(movie.train, axis=1).sum())


@pytest.mark.parametrize(("part", "per_block"), [("train", 28), ("valid", 4), ("test", 8)])
def test_every_trial_of_a_part_has_its_whole_direction_window_there(part, per_block):
    recording = make_session()
    splits = split_by_trial(recording, "drifting_gratings", SplitConfig())
    table = recording.stimulus("drifting_gratings")
    starts = table["start"].to_numpy() + DIRECTION.window_offset
    ends = starts + DIRECTION.window_length
    # the last trial of a block among them: what it evoked lasts beyond the stimulus
    assert lie_inside(starts, ends, splits.part(part)).sum() == 3 * per_block
    classes = np.arange(0.0, 360.0, 45.0)
    windows = find_windows(recording, DIRECTION, splits.part(part), classes, 20)
    assert len(windows) == 3 * per_block


def test_guards_lie_on_either_side_of_a_test_part_and_the_valid_part_before_it():
    # 10 s of movie at 10 Hz, twice; one held-out part: valid 3-4 s, test 4-6 s of each repeat
    movie = make_movie(num_frames=100, num_repeats=2, frame_period=0.1)
    recording = make_recording(np.arange(0.0, 30.0, 0.1), natural_movie_one=movie)
    config = SplitConfig(held_out_blocks=1, guard=1.0)
    splits = split_by_movie_frame(recording, "natural_movie_one", config)
    assert np.allclose(splits.valid, [[3.0, 4.0], [13.0, 14.0]])
    assert np.allclose(splits.test, [[4.0, 6.0], [14.0, 16.0]])
    assert np.allclose(splits.train, [[0.0, 2.0], [7.0, 12.0], [17.0, 20.0]])
    assert np.allclose(splits.guard, [[2.0, 3.0], [6.0, 7.0], [12.0, 13.0], [16.0, 17.0]])


HELD_OUT_FROM_THE_START = SplitConfig(
    valid_fraction=0.4, test_fraction=0.4, held_out_blocks=1, guard=1.0
)
"""Of a movie of 10 s, 0-3 s are valid and 3-7 s are test."""


def test_guards_reach_across_the_border_of_back_to_back_repeats():
    movie = make_movie(num_frames=100, num_repeats=2, frame_period=0.1)
    recording = make_recording(np.arange(0.0, 30.0, 0.1), natural_movie_one=movie)
    splits = split_by_movie_frame(recording, "natural_movie_one", HELD_OUT_FROM_THE_START)
    assert np.allclose(splits.valid, [[0.0, 3.0], [10.0, 13.0]])
    assert np.allclose(splits.test, [[3.0, 7.0], [13.0, 17.0]])
    assert np.allclose(splits.train, [[8.0, 9.0], [18.0, 20.0]])
    assert np.allclose(splits.guard, [[-1.0, 0.0], [7.0, 8.0], [9.0, 10.0], [17.0, 18.0]])


def test_guards_reach_into_a_pause_between_repeats_and_no_further():
    movie = make_movie(num_frames=100, num_repeats=2, frame_period=0.1, pause=0.6)
    recording = make_recording(np.arange(0.0, 30.0, 0.1), natural_movie_one=movie)
    splits = split_by_movie_frame(recording, "natural_movie_one", HELD_OUT_FROM_THE_START)
    # the second repeat begins at 10.6 s with a valid part
    assert np.allclose(splits.train[0], [8.0, 9.6])


def test_defaults_leave_training_time_on_the_thirty_seconds_of_natural_movie_one():
    movie = make_movie(num_frames=900, num_repeats=10, frame_period=1 / 30)
    recording = make_recording(np.arange(0.0, 301.0, 1 / 30), natural_movie_one=movie)
    splits = split_by_movie_frame(recording, "natural_movie_one", SplitConfig())
    seconds = {name: np.diff(splits.part(name), axis=1).sum() for name in ("train", "test")}
    assert seconds["test"] == pytest.approx(60.0)
    assert seconds["train"] > 120.0
    # even the shortest stretch, at the very beginning, holds windows; those between parts many
    lengths = np.sort(np.diff(splits.train, axis=1)[:, 0])
    assert lengths[0] > MOVIE_HELD_OUT.window_length
    assert lengths[2] > 3 * MOVIE_HELD_OUT.window_length


def test_held_out_blocks_lie_apart_in_the_movie_each_behind_its_valid_part():
    is_test, is_valid = held_out_movie_frames(900, SplitConfig(held_out_blocks=2))
    assert np.flatnonzero(is_test).tolist() == [*range(180, 270), *range(630, 720)]
    assert np.flatnonzero(is_valid).tolist() == [*range(135, 180), *range(585, 630)]


def test_the_default_holds_out_four_parts_of_the_movie():
    is_test, is_valid = held_out_movie_frames(1000, SplitConfig())
    tested = [range(first, first + 50) for first in (100, 350, 600, 850)]
    assert np.flatnonzero(is_test).tolist() == [frame for part in tested for frame in part]
    validated = [range(part.start - 25, part.start) for part in tested]
    assert np.flatnonzero(is_valid).tolist() == [frame for part in validated for frame in part]


@given(num_frames=st.integers(100, 2000), config=configs)
def test_held_out_frames_are_as_many_as_asked_and_no_frame_is_both(num_frames, config):
    is_test, is_valid = held_out_movie_frames(num_frames, config)
    assert not np.any(is_test & is_valid)
    assert np.sum(np.diff(is_test.astype(int)) == 1) == config.held_out_blocks
    assert is_test.mean() == pytest.approx(config.test_fraction, abs=0.05)
    # a valid part is cut short only where the movie begins
    room = 0.5 * (1 - config.test_fraction)
    assert is_valid.mean() >= min(config.valid_fraction, room) - 0.05
    assert is_valid.mean() <= config.valid_fraction + 0.05
    ends_of_valid = np.flatnonzero(is_valid[:-1] & ~is_valid[1:])
    assert np.all(is_test[ends_of_valid + 1])


@law
@given(recording=recordings_with_movie(), config=configs)
def test_windows_reach_into_guards_but_never_into_another_part(recording, config):
    splits = split_or_skip(split_by_movie_frame, recording, "natural_movie_one", config)
    free = training_intervals(recording, [splits])
    for name in ("valid", "test"):
        part, reach = splits.part(name), splits.reach(name)
        length = np.diff(part, axis=1).sum()
        assert overlap(reach, part) == pytest.approx(length)
        assert np.diff(reach, axis=1).sum() == pytest.approx(length + overlap(reach, splits.guard))
        assert overlap(reach, splits.train) <= TOLERANCE
        assert overlap(reach, free) <= TOLERANCE
        # every guard that touches a part of this name is within its reach, and no other
        for guard in splits.guard:
            is_reached = overlap(guard[None], reach) > TOLERANCE
            assert is_reached == (distance(guard[None], part)[0] <= TOLERANCE)
    assert splits.reach("train") is splits.train
    assert overlap(splits.reach("valid"), splits.test) <= TOLERANCE
    assert overlap(splits.reach("test"), splits.valid) <= TOLERANCE


def test_a_part_reaches_into_the_guards_that_touch_it():
    movie = make_movie(num_frames=100, num_repeats=2, frame_period=0.1)
    recording = make_recording(np.arange(0.0, 30.0, 0.1), natural_movie_one=movie)
    config = SplitConfig(held_out_blocks=1, guard=1.0)
    splits = split_by_movie_frame(recording, "natural_movie_one", config)
    # valid 3-4 s, test 4-6 s of each repeat
    assert np.allclose(splits.reach("valid"), [[2.0, 4.0], [12.0, 14.0]])
    assert np.allclose(splits.reach("test"), [[4.0, 7.0], [14.0, 17.0]])
    assert splits.reach("train") is splits.train


def test_close_held_out_parts_share_a_guard_that_training_never_enters():
    movie = make_movie(num_frames=100, num_repeats=1, frame_period=0.1)
    recording = make_recording(np.arange(0.0, 30.0, 0.1), natural_movie_one=movie)
    # valid 1.5-2 and 6.5-7 s, test 2-3 and 7-8 s; two guards of 1.9 s fill the 3.5 s between them
    splits = split_by_movie_frame(
        recording, "natural_movie_one", SplitConfig(held_out_blocks=2, guard=1.9)
    )
    assert np.allclose(splits.reach("test"), [[2.0, 6.5], [7.0, 9.9]])
    assert np.allclose(splits.reach("valid"), [[-0.4, 2.0], [3.0, 7.0]])
    assert np.allclose(splits.train, [[9.9, 10.0]])


def test_without_guards_a_part_reaches_no_further_than_itself():
    splits = split_by_trial(make_session(), "drifting_gratings", SplitConfig())
    for name in ("train", "valid", "test"):
        assert np.array_equal(splits.reach(name), splits.part(name))
    none = np.empty((0, 2))
    only = Splits(train=np.array([[0.0, 1.0]]), valid=none, test=none, guard=np.array([[1.0, 2.0]]))
    assert only.reach("test").shape == (0, 2)


@pytest.mark.parametrize("part", ["train", "valid", "test", "guard"])
def test_splits_refuse_parts_that_overlap(part):
    parts = {"train": [[0.0, 1.0]], "valid": [[2.0, 3.0]], "test": [[4.0, 5.0]], "guard": []}
    parts[part] = [*parts[part], [0.5, 6.0]]
    arrays = {name: np.array(pairs).reshape(-1, 2) for name, pairs in parts.items()}
    with pytest.raises(SplitError, match="overlaps"):
        Splits(**arrays)


@given(
    cuts=st.lists(st.floats(0, 100), min_size=6, max_size=6, unique=True),
    leak=st.floats(1e-3, 5.0),
)
def test_splits_accept_neighbours_and_refuse_any_longer_overlap(cuts, leak):
    edges = np.cumsum(np.sort(cuts) + 0.1)
    train, valid, test = edges[None, 0:2], edges[None, 1:3], edges[None, 2:4]
    assert Splits(train=train, valid=valid, test=test).part("test") is test
    longer = train + np.array([0.0, leak])
    with pytest.raises(SplitError, match="train interval"):
        Splits(train=longer, valid=valid, test=test)


def test_splits_refuse_intervals_that_run_backwards():
    none = np.empty((0, 2))
    with pytest.raises(SplitError, match="end after it starts"):
        Splits(train=np.array([[2.0, 1.0]]), valid=none, test=none)


def test_an_unknown_part_is_refused():
    none = np.empty((0, 2))
    splits = Splits(train=none, valid=none, test=np.array([[0.0, 1.0]]))
    with pytest.raises(SplitError, match="choose train, valid or test"):
        splits.part("guard")
    with pytest.raises(SplitError, match="choose train, valid or test"):
        splits.reach("guard")


def test_too_few_trials_or_repeats_are_refused():
    timestamps = np.arange(0.0, 30.0, 0.1)
    movie = make_movie(num_frames=20, num_repeats=1, frame_period=0.1)
    recording = make_recording(
        timestamps, static_gratings=make_trials(1.0), natural_movie_one=movie
    )
    with pytest.raises(SplitError, match="1 trials of static_gratings in 1 blocks"):
        split_by_trial(recording, "static_gratings", SplitConfig())
    with pytest.raises(SplitError, match="shows natural_movie_one 1 times"):
        split_by_repeat(recording, "natural_movie_one", SplitConfig())


def test_guards_that_leave_nothing_to_train_on_are_refused():
    movie = make_movie(num_frames=40, num_repeats=3, frame_period=0.1)
    recording = make_recording(np.arange(0.0, 30.0, 0.1), natural_movie_one=movie)
    with pytest.raises(SplitError, match="left to train on"):
        split_by_movie_frame(recording, "natural_movie_one", SplitConfig(guard=3.0))


def test_a_movie_too_short_to_hold_a_frame_out_is_refused():
    movie = make_movie(num_frames=3, num_repeats=3, frame_period=0.1)
    recording = make_recording(np.arange(0.0, 30.0, 0.1), natural_movie_one=movie)
    with pytest.raises(SplitError, match="not a single movie frame"):
        split_by_movie_frame(recording, "natural_movie_one", SplitConfig(guard=0.0))


@pytest.mark.parametrize(
    "fields",
    [
        {"valid_fraction": -0.1},
        {"test_fraction": 0.0},
        {"valid_fraction": 0.5, "test_fraction": 0.5},
        {"held_out_blocks": 0},
        {"guard": -1.0},
    ],
)
def test_impossible_fractions_blocks_and_guards_are_refused(fields):
    with pytest.raises(ValueError, match=r"must|nothing to train on"):
        SplitConfig(**fields)


def test_only_trials_wholly_inside_an_interval_count():
    starts, ends = np.array([0.0, 0.9, 2.0, 3.0]), np.array([0.5, 1.1, 2.5, 3.5])
    intervals = np.array([[0.0, 1.0], [2.0, 3.2]])
    assert lie_inside(starts, ends, intervals).tolist() == [True, False, True, False]


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_a_whole_recording_is_one_part_with_every_showing_and_nothing_else(part):
    recording = make_session()
    splits = whole_recording_as(recording, "natural_movie_one", part)
    assert np.allclose(splits.part(part), [[0.0, 1080.0]])
    assert sum(len(splits.part(name)) for name in ("train", "valid", "test")) == 1
    free = training_intervals(recording, [splits])
    assert np.array_equal(free, recording.segment_intervals if part == "train" else free[:0])


def test_recordings_are_the_part_they_are_named_for_and_others_are_divided():
    recording = make_session()
    assert named_part(recording, SplitConfig(train=("a",), test=("split-test",))) == "test"
    assert named_part(recording, SplitConfig(valid=("split-test",))) == "valid"
    assert named_part(recording, SplitConfig(train=("a",))) is None


def test_a_recording_named_for_two_parts_is_refused():
    with pytest.raises(ValueError, match="both to train and to test: day1"):
        SplitConfig(train=("day0", "day1"), test=("day1",))
    with pytest.raises(ValueError, match="test must list recording ids, got 'day1'"):
        SplitConfig(test="day1")


def test_names_of_no_recording_are_refused_with_those_that_were_found():
    recording = make_session()
    require_known_names([recording], SplitConfig(train=("split-test",)))
    with pytest.raises(SplitError, match=r"'day1' \(train\), 'day2' \(test\) \(found: split-test"):
        require_known_names([recording], SplitConfig(train=("day1",), test=("day2",)))


def folds_of(folds: int, **fields: float) -> list[SplitConfig]:
    return [SplitConfig(folds=folds, fold=fold, **fields) for fold in range(folds)]


def lies_in(times: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    starts, ends = intervals.T[:, :, None]
    return np.any((times >= starts) & (times < ends), axis=0)


@law
@given(
    recording=recordings_with_trials(),
    folds=st.integers(2, 6),
    valid_fraction=st.sampled_from([0.0, 0.1, 0.3]),
    runs_per_fold=st.integers(1, 4),
    seed=st.integers(0, 3),
)
def test_over_all_folds_every_trial_tests_once_and_is_in_one_part_of_each(
    recording, folds, valid_fraction, runs_per_fold, seed
):
    onsets = np.concatenate(blocks_of(recording))
    tested = np.zeros(len(onsets), dtype=int)
    fields = {"valid_fraction": valid_fraction, "runs_per_fold": runs_per_fold, "seed": seed}
    for config in folds_of(folds, **fields):
        splits = split_or_skip(split_by_trial, recording, "drifting_gratings", config)
        assert np.all(parts_sharing(splits, onsets) == 1)
        tested += lies_in(onsets, splits.test)
    assert np.all(tested == 1)


@law
@given(recording=recordings_with_movie(), folds=st.integers(2, 6))
def test_over_all_folds_every_repeat_tests_once(recording, folds):
    table = recording.stimulus("natural_movie_one")
    middle = (0.5 * (table["start"] + table["end"])).to_numpy()
    tested = np.zeros(len(table), dtype=int)
    for config in folds_of(folds):
        splits = split_or_skip(split_by_repeat, recording, "natural_movie_one", config)
        tested += lies_in(middle, splits.test)
    assert np.all(tested == 1)


@given(
    num_frames=st.integers(40, 1000),
    folds=st.integers(2, 10),
    held_out_blocks=st.integers(1, 4),
    valid_fraction=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_over_all_folds_every_movie_frame_tests_once(
    num_frames, folds, held_out_blocks, valid_fraction
):
    tested = np.zeros(num_frames, dtype=int)
    fields = {"valid_fraction": valid_fraction, "held_out_blocks": held_out_blocks}
    for config in folds_of(folds, **fields):
        is_test, is_valid = held_out_movie_frames(num_frames, config)
        assert not np.any(is_test & is_valid)
        tested += is_test
    assert np.all(tested == 1)


def test_five_folds_of_ten_trials_hold_out_two_each_and_validate_one():
    trials = make_trials(*np.arange(0.0, 30.0, 3.0), duration=2.0)
    recording = make_recording(np.arange(0.0, 40.0, 0.1), drifting_gratings=trials)
    edges = np.append(np.arange(0.0, 30.0, 6.0), 31.0)
    tested = []
    for config in folds_of(5, runs_per_fold=1):
        splits = split_by_trial(recording, "drifting_gratings", config)
        tested += splits.test.tolist()
        [valid] = splits.valid
        assert valid[0] in edges  # it is the first trial of another run
        assert valid[1] - valid[0] == 3.0
        assert sum(lies_in(trials["start"].to_numpy(), splits.train)) == 7
    assert sorted(tested) == np.stack([edges[:-1], edges[1:]], axis=1).tolist()


def test_training_resumes_when_what_held_out_trials_evoked_has_decayed():
    trials = make_trials(*np.arange(0.0, 25.0, 0.25), duration=0.25)
    recording = make_recording(np.arange(0.0, 40.0, 0.1), static_gratings=trials)
    splits = split_by_trial(recording, "static_gratings", SplitConfig(folds=2, valid_fraction=0.0))
    [[start, end]] = splits.test
    assert np.allclose(splits.guard, [[end, end + 1.0]])
    assert np.allclose(splits.train, [[0.0, start], [end + 1.0, 27.0]])


def test_more_folds_than_trials_repeats_or_frames_are_refused():
    movie = make_movie(num_frames=20, num_repeats=3, frame_period=0.1)
    recording = make_recording(
        np.arange(0.0, 30.0, 0.1), static_gratings=make_trials(1.0, 2.0), natural_movie_one=movie
    )
    config = SplitConfig(folds=6)
    with pytest.raises(SplitError, match=r"2 trials of static_gratings in 1 blocks.*6 folds"):
        split_by_trial(recording, "static_gratings", config)
    with pytest.raises(SplitError, match="natural_movie_one 3 times: too few for 6 folds"):
        split_by_repeat(recording, "natural_movie_one", config)
    with pytest.raises(SplitError, match="20 movie frames in 4 stretches"):
        split_by_movie_frame(recording, "natural_movie_one", config)


@pytest.mark.parametrize(
    "fields",
    [
        {"folds": 1},
        {"folds": 3, "fold": 3},
        {"fold": 1},
        {"folds": 5, "test_fraction": 0.1},
        {"folds": 5, "runs_per_fold": 0},
        {"folds": 5, "held_out_column": "image", "held_out_values": (1,)},
        {"held_out_values": (1,)},
        {"seed": 1},
    ],
)
def test_impossible_folds_and_options_that_do_nothing_are_refused(fields):
    with pytest.raises(ValueError, match=r"must|needs? folds|need held_out_column|draws nothing"):
        SplitConfig(**fields)


def test_names_of_digits_are_text():
    assert SplitConfig(train=(500964514,), test=("7",)).train == ("500964514",)
    with pytest.raises(ValueError, match="both to train and to test: 7"):
        SplitConfig(train=(7,), test=("7",))


def make_sequence() -> Recording:
    """Twelve segments of 3 s, ten times, each showing imaged alone and 10 s after the last."""
    sequence = make_movie(num_frames=12, num_repeats=10, frame_period=3.0, pause=10.0)
    timestamps = np.concatenate([46.0 * repeat + np.arange(360) / 10 for repeat in range(10)])
    return make_recording(timestamps, sequence=sequence.rename(columns={"movie_frame": "segment"}))


def test_a_sequence_of_segments_is_split_by_repeat():
    splits = split_by_repeat(make_sequence(), "sequence", SplitConfig())
    starts = 46.0 * np.arange(10)
    shown = np.stack([starts, starts + 36.0], axis=1)
    assert np.allclose(splits.train, shown[:7])
    assert np.allclose(splits.valid, shown[7:8])
    assert np.allclose(splits.test, shown[8:])


def hold_out(recording: Recording, stimulus: str, config: SplitConfig) -> Splits:
    held_out = HeldOutValues.draw([recording.stimulus(stimulus)], config)
    return split_by_value(recording, stimulus, config, held_out)


def test_segments_of_a_sequence_are_held_out_in_every_repeat():
    config = SplitConfig(
        valid_fraction=0.0, held_out_column="segment", held_out_values=(2, 3, 8), guard=1.0
    )
    splits = hold_out(make_sequence(), "sequence", config)
    assert np.allclose(splits.test[:2], [[6.0, 12.0], [24.0, 27.0]])
    assert np.allclose(splits.guard[:2], [[12.0, 13.0], [27.0, 28.0]])
    assert np.allclose(splits.train[:2], [[0.0, 6.0], [13.0, 24.0]])
    table = make_sequence().stimulus("sequence")
    onsets = table["start"].to_numpy()
    assert set(table["segment"][lies_in(onsets, splits.test)]) == {2, 3, 8}
    assert not {2, 3, 8} & set(table["segment"][lies_in(onsets, splits.train)])


def test_a_column_that_is_missing_or_numbers_nothing_is_refused():
    recording = make_sequence()
    with pytest.raises(SplitError, match="no column 'movie_frame'"):
        split_by_movie_frame(recording, "sequence", SplitConfig())
    table = recording.stimulus("sequence")
    table["movie_frame"] = table["segment"] - 1
    with pytest.raises(SplitError, match="10 rows do not, such as"):
        split_by_movie_frame(recording, "sequence", SplitConfig())
    del table["repeat"]
    with pytest.raises(SplitError, match="no column 'repeat'"):
        split_by_repeat(recording, "sequence", SplitConfig())
