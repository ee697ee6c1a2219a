"""Screening many recordings, one at a time."""

from __future__ import annotations

import logging
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from poyo_ssl.predictability.activity_statistics import ActivityConfig, measure_activity
from poyo_ssl.predictability.partition import partition_recordings, summarize_partition
from poyo_ssl.predictability.screening import Screening, find_training_time, screen
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.recordings.loading import load_recordings
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.recordings.storage import save_recording
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import DIRECTION, MOVIE, MOVIE_FRAME, MOVIE_HELD_OUT, TASKS

ALLEN_SESSION = (
    Path(__file__).resolve().parents[2]
    / "../shared/data/sub-527550471_ses-527745328-StimA_ophys.nwb"
)


def screen_files(paths: object, splits: SplitConfig, **options: object) -> Screening:
    options = {"predictability": PredictabilityConfig(), "source": SourceConfig(), **options}
    return screen(paths, splits=splits, **options)


@pytest.fixture(scope="module")
def directory(tmp_path_factory, tiny_recording: Recording) -> Path:
    """Three sessions of three Cre lines; half of the units have rare transients."""
    directory = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(5)
    for number, line in enumerate(["Sst", "Vip", "Cux2"]):
        name = f"session-{number}"
        traces = tiny_recording.df_over_f.copy()
        traces[:, :3] += 20 * (rng.random((len(traces), 3)) < 0.01)
        units = tiny_recording.units.assign(
            unit_id=[f"{name}/{i}" for i in range(6)], cre_line=line
        )
        stimuli = dict(tiny_recording.stimuli)
        if number == 2:
            del stimuli["drifting_gratings"]  # so that sessions answer different tasks
        recording = replace(
            tiny_recording, recording_id=name, df_over_f=traces, units=units, stimuli=stimuli
        )
        save_recording(recording, directory)
    return directory


def test_screening_files_equals_partitioning_recordings_in_memory(directory, split_config):
    recordings = load_recordings(directory)
    divided = divide(recordings, [DIRECTION, MOVIE_FRAME, MOVIE, MOVIE_HELD_OUT], split_config)
    training = {d.recording.recording_id: d.training for d in divided}
    expected = partition_recordings(recordings, training, PredictabilityConfig())
    found = screen_files(directory, split_config)
    assert_frame_equal(found.partition.units, expected.units)
    assert summarize_partition(found.partition) == summarize_partition(expected)
    assert 0 < expected.units["is_predictable"].sum() < 18
    assert found.left_out == {}
    assert found.undivided.empty


def test_two_workers_find_what_one_finds(directory, split_config):
    one = screen_files(directory, split_config, activity=ActivityConfig())
    two = screen_files(directory, split_config, activity=ActivityConfig(), jobs=2)
    assert_frame_equal(one.units, two.units)
    assert_frame_equal(one.activity, two.activity)


def test_the_order_of_paths_is_of_no_importance(directory, split_config):
    files = sorted(directory.glob("*.h5"))
    one = screen_files(files, split_config)
    two = screen_files(files[::-1], split_config)
    assert_frame_equal(one.units, two.units)


def test_nothing_withheld_by_any_task_is_measured(directory, split_config, tmp_path):
    """Noise in all withheld time leaves every number as it was."""
    (recording,) = load_recordings(directory / "session-0.h5")
    (divided,) = divide(
        [recording],
        [task for task in TASKS.values() if task.stimulus in recording.stimuli],
        split_config,
    )
    changed = np.array(recording.df_over_f)
    changed[~recording.is_inside(divided.training)] = 1000.0
    assert (changed == 1000.0).any()
    save_recording(replace(recording, df_over_f=changed), tmp_path)
    assert_frame_equal(
        screen_files(tmp_path, split_config).units,
        screen_files(directory / "session-0.h5", split_config).units,
    )


def test_progress_counts_every_file(directory, split_config):
    calls = []
    screen_files(directory, split_config, on_progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_other_statistics_are_measured_on_training_time_when_asked_for(directory, split_config):
    assert screen_files(directory, split_config).activity is None
    config = ActivityConfig(event_threshold=3.0)
    found = screen_files(directory, split_config, activity=config)
    expected = [
        measure_activity(recording, find_training_time(recording, split_config)[0], config)
        for recording in load_recordings(directory)
    ]
    assert_frame_equal(found.activity, pd.concat(expected, ignore_index=True))
    assert found.activity["unit_id"].tolist() == found.units["unit_id"].tolist()


# recordings that cannot be measured --------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x89HDF\r\n\x1a\n" + bytes(500)])
def test_a_broken_file_among_good_ones_is_named_and_stops_nothing(
    directory, split_config, tmp_path, content, caplog
):
    broken = tmp_path / "broken.nwb"
    broken.write_bytes(content)
    found = screen_files([broken, directory], split_config)
    assert_frame_equal(found.units, screen_files(directory, split_config).units)
    assert list(found.left_out) == [broken]
    assert "broken.nwb" in found.left_out[broken]
    assert "Left out" in caplog.text


def test_a_file_cut_anywhere_is_left_out_or_measured_but_never_stops_the_others(
    directory, split_config, tmp_path
):
    whole = (directory / "session-1.h5").read_bytes()
    cut = tmp_path / "cut.h5"
    for part in np.linspace(0.05, 0.95, 7):
        cut.write_bytes(whole[: int(part * len(whole))])
        found = screen_files([directory / "session-0.h5", cut], split_config)
        assert list(found.left_out) == [cut]
        assert found.units["recording_id"].unique().tolist() == ["session-0"]


def test_nothing_but_broken_files_is_an_error_that_names_the_first_of_them(split_config, tmp_path):
    for number in range(8):
        (tmp_path / f"{number}.h5").write_bytes(b"nothing")
    with pytest.raises(RecordingError, match=r"None of 8 recordings(.|\n)*4\.h5(.|\n)*and 3 more"):
        screen_files(tmp_path, split_config)


def test_a_copy_of_a_recording_is_left_out_with_both_names(directory, split_config, tmp_path):
    copy = tmp_path / "z" / "copy.h5"
    copy.parent.mkdir()
    copy.write_bytes((directory / "session-1.h5").read_bytes())
    found = screen_files([directory, copy], split_config)
    (left_out, reason), *others = found.left_out.items()
    assert not others
    kept = ({copy, directory / "session-1.h5"} - {left_out}).pop()
    assert str(left_out) in reason
    assert str(kept) in reason
    assert len(found.units) == 18


def test_a_partition_without_a_knee_leaves_the_measured_units_at_hand(directory, split_config):
    config = PredictabilityConfig(threshold_source="knee")
    found = screen_files(directory, split_config, predictability=config)
    assert len(found.units) == 18
    with pytest.raises(ValueError, match="at least 4 Cre lines"):
        _ = found.partition


# recordings that cannot be divided ---------------------------------------------------------------


def two_trials(recording: Recording) -> Recording:
    """Its gratings cut to two trials in the middle of the first block: too few to divide."""
    gratings = recording.stimuli["drifting_gratings"].iloc[[10, 11]]
    return replace(recording, stimuli={**recording.stimuli, "drifting_gratings": gratings})


def test_time_of_a_stimulus_that_cannot_be_divided_is_not_measured(tiny_recording, split_config):
    recording = two_trials(tiny_recording)
    training, undivided = find_training_time(recording, split_config)
    assert set(undivided) == {"direction", "temporal_frequency"}
    assert "2 trials of drifting_gratings" in undivided["direction"]
    start, end = recording.stimuli["drifting_gratings"]["start"].min(), 65 + 3 * 11 + 2 + 2
    is_withheld = (recording.timestamps >= start) & (recording.timestamps < end)
    assert not (recording.is_inside(training) & is_withheld).any()
    without = replace(
        recording, stimuli={"natural_movie_one": recording.stimuli["natural_movie_one"]}
    )
    expected = recording.is_inside(find_training_time(without, split_config)[0]) & ~is_withheld
    assert np.array_equal(recording.is_inside(training), expected)


def test_pauses_in_a_stimulus_that_cannot_be_divided_are_measured(tiny_recording, split_config):
    gratings = tiny_recording.stimuli["drifting_gratings"].iloc[[3, 50]]
    recording = replace(tiny_recording, stimuli={"drifting_gratings": gratings})
    training, _ = find_training_time(recording, split_config)
    inside = recording.is_inside(training)
    withheld = sum(
        (recording.timestamps >= start) & (recording.timestamps < start + 2 + 2)
        for start in gratings["start"]
    ).astype(bool)
    assert np.array_equal(inside, ~withheld)


def test_a_movie_whose_repeats_are_unknown_is_withheld_whole(tiny_recording, split_config):
    movie = tiny_recording.stimuli["natural_movie_one"].drop(columns="repeat")
    recording = replace(tiny_recording, stimuli={"natural_movie_one": movie})
    training, undivided = find_training_time(recording, split_config)
    assert undivided
    assert training.min() >= 60.0


def test_undivided_tasks_are_reported_and_their_recordings_measured(
    tiny_recording, split_config, tmp_path, caplog
):
    save_recording(two_trials(tiny_recording), tmp_path)
    with caplog.at_level(logging.WARNING):
        found = screen_files(tmp_path, split_config)
    assert found.undivided["task"].tolist() == ["direction", "temporal_frequency"]
    assert "measured without the time of 'direction'" in caplog.text
    assert (found.units["excluded"] == "").all()


def test_a_recording_that_keeps_too_little_time_has_its_units_excluded(
    tiny_recording, split_config, tmp_path
):
    movie = tiny_recording.stimuli["natural_movie_one"]
    shown = tiny_recording.timestamps < 60.0
    recording = replace(
        tiny_recording,
        df_over_f=tiny_recording.df_over_f[shown],
        timestamps=tiny_recording.timestamps[shown],
        stimuli={"natural_movie_one": movie.assign(repeat=0)},
    )
    save_recording(recording, tmp_path)
    found = screen_files(tmp_path, split_config)
    assert set(found.undivided["task"]) == {"movie_frame", "movie"}
    assert found.units["excluded"].str.startswith("too short (0 ").all()
    assert found.partition.units["is_predictable"].sum() == 0


# size --------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_number_of_recordings(split_config, tmp_path):
    rng = np.random.default_rng(0)
    files, num_bytes = [], 40_000 * 10 * 4
    for number in range(16):
        recording = Recording(
            recording_id=f"large-{number}",
            df_over_f=rng.random((40_000, 10), dtype=np.float32),
            timestamps=np.arange(40_000) / 30.0,
            units=pd.DataFrame({"unit_id": [f"{number}/{i}" for i in range(10)]}),
        )
        files.append(save_recording(recording, tmp_path))

    def peak(files: list[Path]) -> int:
        tracemalloc.start()
        screen_files(files, split_config)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(files[:1])  # caches that are filled once
    assert peak(files) - peak(files[:2]) < 0.25 * num_bytes


@pytest.mark.skipif(not ALLEN_SESSION.is_file(), reason="the real session is not beside the code")
def test_a_real_session_is_screened_as_it_is_partitioned():
    recordings = load_recordings(ALLEN_SESSION)
    tasks = [DIRECTION, TASKS["temporal_frequency"]]
    (divided,) = divide(recordings, tasks, SplitConfig())
    expected = partition_recordings(
        recordings, {divided.recording.recording_id: divided.training}, PredictabilityConfig()
    )
    found = screen_files(ALLEN_SESSION, SplitConfig())
    assert_frame_equal(found.partition.units, expected.units)
