"""The simulated observatory has the shapes, statistics and difficulty of a real one."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from poyo_ssl.recordings.simulation.cells import LINES
from poyo_ssl.recordings.simulation.simulator import (
    SimulatorConfig,
    simulate_observatory,
    simulate_recordings,
)
from poyo_ssl.windows.movie_splits import split_by_movie_frame
from poyo_ssl.windows.splits import SplitConfig, training_intervals
from poyo_ssl.windows.trial_splits import split_by_trial

PREDICTABLE_LINES = ("Sst", "Vip", "Pvalb", "Ntsr1")

TINY = SimulatorConfig(
    lines=("Sst", "Cux2"),
    recordings_per_line=1,
    units_per_recording=20,
    grating_trials_per_condition=1,
    blank_sweeps=3,
    movie_frames=60,
    movie_repeats=3,
    movie_height=16,
    movie_width=32,
    static_trials_per_condition=1,
    spontaneous_duration=5.0,
    gap_duration=5.0,
)


@pytest.fixture(scope="module")
def tiny():
    return simulate_observatory(TINY)


@pytest.fixture(scope="module")
def observatory():
    """One recording of every line, with a movie short enough to be shown ten times."""
    config = replace(
        SimulatorConfig.demo(seed=1),
        lines=tuple(LINES),
        units_per_recording=64,
        movie_frames=300,
        movie_repeats=10,
        movie_height=32,
        movie_width=64,
    )
    return {recording.units["cre_line"][0]: recording for recording in simulate_recordings(config)}


@pytest.fixture(scope="module")
def demo():
    """The demo, but for a movie of fewer pixels."""
    return simulate_observatory(replace(SimulatorConfig.demo(), movie_height=32, movie_width=64))


def signed_root(activity):
    return np.sign(activity) * np.sqrt(np.abs(activity))


def test_the_same_seed_gives_the_same_recordings(tiny):
    for one, two in zip(tiny, simulate_observatory(TINY), strict=True):
        assert one.recording_id == two.recording_id
        np.testing.assert_array_equal(one.df_over_f, two.df_over_f)
        np.testing.assert_array_equal(one.running, two.running)


def test_another_seed_gives_other_cells_another_movie_and_other_names(tiny):
    (other,) = simulate_observatory(replace(TINY, lines=("Sst",), seed=1))
    assert not np.allclose(other.df_over_f, tiny[0].df_over_f)
    one, two = (r.templates["natural_movie_one"] for r in (tiny[0], other))
    assert not np.array_equal(one, two)
    assert not set(other.unit_ids) & set(tiny[0].unit_ids)


def test_a_recording_is_the_same_whatever_is_simulated_beside_it(tiny):
    more = replace(TINY, lines=("Vip", "Cux2", "Sst"), recordings_per_line=2)
    found = {recording.recording_id: recording for recording in simulate_recordings(more)}
    for recording in tiny:
        same = found[recording.recording_id]
        np.testing.assert_array_equal(recording.df_over_f, same.df_over_f)
        for name, table in recording.stimuli.items():
            np.testing.assert_array_equal(table, same.stimuli[name])


def test_recordings_know_their_cells_their_movie_and_that_they_are_simulated(tiny):
    sst = tiny[0]
    assert sst.recording_id == "sim0-Sst-0"
    assert sst.df_over_f.shape == (len(sst.timestamps), 20)
    assert sst.df_over_f.dtype == np.float32
    assert sst.unit_ids[3] == "sim-0/Sst-0/3"
    assert set(sst.units["cre_line"]) == {"Sst"}
    assert set(sst.units["area"]) == {"VISp"}
    assert set(sst.units["imaging_depth_um"]) == {275}
    assert sst.templates["natural_movie_one"].shape == (60, 16, 32)
    assert "simulated" in sst.source
    np.testing.assert_array_equal(*(r.templates["natural_movie_one"] for r in tiny))


def test_blocks_are_apart_by_gaps_in_the_imaging(tiny):
    intervals = tiny[0].segment_intervals
    assert len(intervals) == 5  # three blocks of gratings, movie, static gratings
    np.testing.assert_allclose(intervals[1:, 0] - intervals[:-1, 1], TINY.gap_duration, atol=0.05)
    assert tiny[0].sampling_rate == pytest.approx(30.0)


def test_every_presentation_lies_inside_a_segment(tiny):
    for recording in tiny:
        starts, ends = recording.segment_intervals.T
        for table in recording.stimuli.values():
            segment = np.searchsorted(starts, table["start"], side="right") - 1
            assert np.all(table["end"] <= ends[segment])


def test_stimulus_tables_hold_every_condition_as_often_as_asked(tiny):
    drifting = tiny[0].stimulus("drifting_gratings")
    static = tiny[0].stimulus("static_gratings")
    movie = tiny[0].stimulus("natural_movie_one")
    assert len(drifting) == 8 * 5 + 3
    assert drifting["orientation"].isna().sum() == 3
    assert set(drifting.groupby(["orientation", "temporal_frequency"]).size()) == {1}
    assert set(static.groupby(["orientation", "spatial_frequency", "phase"]).size()) == {1}
    assert len(static) == 6 * 5 * 4
    assert set(movie.groupby(["movie_frame", "repeat"]).size()) == {1}
    assert len(movie) == 60 * 3
    np.testing.assert_allclose(movie["start"].diff().dropna(), 1 / 30, atol=1e-9)
    np.testing.assert_allclose(static["end"] - static["start"], 0.25)
    assert "spontaneous" in tiny[0].stimuli


def test_the_demo_shows_four_mice_a_minute_of_movie_three_times(
    demo,
):
    assert [r.recording_id for r in demo] == [
        "sim0-Sst-0",
        "sim0-Ntsr1-0",
        "sim0-Cux2-0",
        "sim0-Rorb-0",
    ]
    for recording in demo:
        assert recording.num_units == 70
        assert recording.num_timesteps / 30 / 60 == pytest.approx(12, abs=0.5)
        assert set(recording.stimuli) == {"drifting_gratings", "natural_movie_one", "spontaneous"}
        movie = recording.stimulus("natural_movie_one")
        assert len(movie) == 3 * 1800
        assert set(movie.groupby("movie_frame").size()) == {3}
        assert (movie["movie_frame"].max() + 1) / 30 == 60
        assert len(recording.stimulus("drifting_gratings")) == 8 * 5 * 4 + 8


def test_simulated_recordings_can_be_split_and_leave_time_to_learn_from(demo):
    config = SplitConfig()
    for recording in demo:
        gratings = split_by_trial(recording, "drifting_gratings", config)
        assert len(gratings.train) == len(gratings.valid) == len(gratings.test) == 3
        movie = split_by_movie_frame(recording, "natural_movie_one", config)
        assert len(movie.test) == 3 * config.held_out_blocks
        free = np.diff(training_intervals(recording, [gratings, movie]), axis=1).sum()
        assert free > 0.6 * np.diff(recording.segment_intervals, axis=1).sum()


def test_static_gratings_and_spontaneous_activity_can_be_left_out():
    bare = replace(TINY, lines=("Sst",), include_static_gratings=False, spontaneous_duration=0.0)
    (recording,) = simulate_observatory(bare)
    assert set(recording.stimuli) == {"drifting_gratings", "natural_movie_one"}


def test_slower_imaging_gives_fewer_samples_of_the_same_session(tiny):
    (slow,) = simulate_observatory(replace(TINY, lines=("Sst",), sampling_rate=11.0))
    assert slow.sampling_rate == pytest.approx(11.0)
    assert slow.num_timesteps / tiny[0].num_timesteps == pytest.approx(11 / 30, rel=0.01)
    assert len(slow.segments) == len(tiny[0].segments)


def test_behaviour_is_sampled_with_the_imaging_and_wide_pupils_go_with_running(observatory):
    for recording in (observatory["Sst"], observatory["Cux2"]):
        np.testing.assert_array_equal(recording.running["timestamp"], recording.timestamps)
        np.testing.assert_array_equal(recording.pupil["timestamp"], recording.timestamps)
        is_running = recording.running["speed"] > 5
        assert 0.05 < is_running.mean() < 0.7
        size = recording.pupil["size"]
        assert size[is_running].mean() > size[~is_running].mean()


def test_interneurons_fire_regularly_and_pyramidal_cells_in_rare_bursts(observatory):
    skewness, kurtosis = {}, {}
    for line, recording in observatory.items():
        skewness[line] = scipy.stats.skew(recording.df_over_f, axis=0).mean()
        kurtosis[line] = scipy.stats.kurtosis(recording.df_over_f, axis=0, fisher=False).mean()
    others = set(LINES) - set(PREDICTABLE_LINES)
    # published thresholds 3.51 and 22.62; published means of the kept lines 1.87 and 7.32
    assert all(skewness[line] < 3.51 and kurtosis[line] < 22.62 for line in PREDICTABLE_LINES)
    assert np.mean([skewness[line] for line in PREDICTABLE_LINES]) == pytest.approx(1.87, abs=0.6)
    assert np.mean([kurtosis[line] for line in PREDICTABLE_LINES]) == pytest.approx(7.32, abs=2.5)
    assert sum(kurtosis[line] > 22.62 for line in others) >= 7
    assert sum(skewness[line] > 3.51 for line in others) >= 6
    assert max(kurtosis.values()) < 148.5  # the largest published mean of a line


def test_units_of_a_pyramidal_line_are_mixed_as_in_a_real_session(observatory):
    traces = observatory["Cux2"].df_over_f
    skewness = scipy.stats.skew(traces, axis=0)
    kurtosis = scipy.stats.kurtosis(traces, axis=0, fisher=False)
    share = np.mean((skewness > 3.51) | (kurtosis > 22.62))
    assert 0.35 < share < 0.85  # 145 of 254 in session 527745328-StimA


@pytest.mark.parametrize("line", ["Sst", "Ntsr1", "Cux2", "Rorb"])
def test_ridge_reads_the_direction_of_gratings_well_but_not_perfectly(observatory, line):
    recording = observatory[line]
    table = recording.stimulus("drifting_gratings").dropna()
    first = recording.timestep_at(table["start"].to_numpy() + 0.3)
    activity = signed_root(np.stack([recording.df_over_f[a : a + 60].mean(axis=0) for a in first]))
    ridge = make_pipeline(StandardScaler(), RidgeClassifier(100.0))
    accuracy = cross_val_score(ridge, activity, table["orientation"].astype(str), cv=5).mean()
    assert 0.4 < accuracy < 0.97  # chance is 0.125


def score_second_of_movie(recording, *, first_test_repeat):
    """Accuracy of telling which second of the movie is shown, in repeats that were not fitted."""
    table = recording.stimulus("natural_movie_one")
    table = table[table["movie_frame"] % 5 == 0]
    first = recording.timestep_at(table["start"].to_numpy() + 0.1)
    activity = signed_root(np.stack([recording.df_over_f[a : a + 8].mean(axis=0) for a in first]))
    second = table["movie_frame"].to_numpy() // 30
    is_test = table["repeat"].to_numpy() >= first_test_repeat
    decoder = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    decoder.fit(activity[~is_test], second[~is_test])
    return decoder.score(activity[is_test], second[is_test])


@pytest.mark.parametrize("line", ["Sst", "Cux2"])
def test_the_second_of_the_movie_can_be_read_from_an_unseen_repeat(observatory, line):
    accuracy = score_second_of_movie(observatory[line], first_test_repeat=8)
    assert 0.2 < accuracy < 0.98  # chance is 0.1


def test_the_second_of_the_demos_movie_can_be_read_from_its_last_repeat(demo):
    for recording in demo:
        accuracy = score_second_of_movie(recording, first_test_repeat=2)
        assert 4 / 60 < accuracy < 0.9  # chance is 1 / 60


def test_repeats_of_the_movie_share_a_signal_but_not_the_noise(observatory):
    recording = observatory["Sst"]
    table = recording.stimulus("natural_movie_one")
    first = recording.timestep_at(table.groupby("repeat")["start"].min().to_numpy())
    repeats = np.stack([recording.df_over_f[a : a + 300] for a in first])  # (10, 300, num_units)
    odd, even = repeats[::2].mean(axis=0), repeats[1::2].mean(axis=0)
    shared = [np.corrcoef(a, b)[0, 1] for a, b in zip(odd.T, even.T, strict=True)]
    single = [np.corrcoef(a, b)[0, 1] for a, b in zip(*repeats[:2].transpose(0, 2, 1), strict=True)]
    assert np.median(shared) > 0.2
    assert np.median(single) < np.median(shared)
    assert max(single) < 0.95


def test_full_sessions_have_the_real_shapes():
    full = SimulatorConfig.full()
    assert full.units_per_recording == 174
    assert full.movie_frames * full.movie_repeats == 9000
    assert 8 * 5 * full.grating_trials_per_condition + full.blank_sweeps == 628
    assert len(full.lines) == 13


def test_all_faults_of_a_config_are_named_at_once():
    with pytest.raises(ValueError, match="Sts") as caught:
        SimulatorConfig(lines=("Sts",), sampling_rate=200.0, movie_repeats=0)
    assert "sampling_rate must lie between 10 and 60 Hz" in str(caught.value)
    assert "movie_repeats must be at least 1, got 0" in str(caught.value)
