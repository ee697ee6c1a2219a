"""What dividing says: windows cut short, classes that nobody trains, ends that cannot be right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import poyo_ssl as ps
from poyo_ssl.windows.task_windows import SPARE
from poyo_ssl.windows.tasks import DIRECTION
from shared_data import DATA, needs_shared_data

RATE = 16.0
ANGLES = np.arange(0.0, 360.0, 45.0)


def cut_to_trials(after: float, num_trials: int = 64, name: str = "cut") -> ps.Recording:
    """Gratings of 2 s every 10 s, imaged from 1 s before to ``after`` seconds after the onset."""
    onsets = 10.0 * np.arange(num_trials) + 1.0
    steps = np.arange(round((1.0 + after) * RATE)) / RATE
    times = np.concatenate([onset - 1.0 + steps for onset in onsets])
    rng = np.random.default_rng(0)
    shown = pd.DataFrame(
        {"start": onsets, "end": onsets + 2.0, "orientation": np.resize(ANGLES, num_trials)}
    )
    return ps.Recording(
        recording_id=name, df_over_f=rng.normal(size=(len(times), 3)).astype(np.float32),
        timestamps=times, units=pd.DataFrame({"unit_id": list("abc")}),
        stimuli={"drifting_gratings": shown},
    )  # fmt: skip


def test_windows_of_a_named_task_become_as_long_as_trials_are_imaged(caplog):
    recording = cut_to_trials(after=2.0)
    [divided] = divided_all = ps.divide([recording], "direction")
    task = divided_all.task("direction")
    # 1.7 s are imaged from 0.3 s on; a network may round up by a sixth of a second
    assert task.length == 1.5
    assert task.length + SPARE <= 1.75
    assert "are not imaged for the 2 s" in caplog.text
    assert "last 1.5 s now" in caplog.text
    windows = [len(divided_all.windows(divided, task, part, 27)) for part in ("train", "test")]
    assert windows == [45, 13]
    assert DIRECTION.window_length == 2.0


def test_one_recording_that_is_cut_short_shortens_the_windows_of_all():
    recordings = [cut_to_trials(4.0, name="long"), cut_to_trials(2.0)]
    assert ps.divide(recordings[:1], "direction").task("direction").length == 2.0
    divided = ps.divide(recordings, "direction")
    assert {d.tasks["direction"].window_length for d in divided} == {1.5}


def test_a_window_that_was_asked_for_is_refused_with_the_length_to_give():
    recording = cut_to_trials(after=2.0)
    asked = "drifting_gratings/orientation,window_offset=0.3,window_length=2"
    with pytest.raises(ps.RecordingError, match=r"nearly all are for 1.69 s. Give .*length=1.5,"):
        ps.divide([recording], asked)
    fits = ps.divide([recording], asked.replace("length=2", "length=1.5"))
    assert fits.task("drifting_gratings_orientation").length == 1.5
    with pytest.raises(ps.RecordingError, match=r"nearly all are for 0.688 s. Give .*length=0.5,"):
        ps.divide([cut_to_trials(after=1.0)], "direction")


def test_a_single_trial_at_the_end_of_imaging_shortens_nothing(caplog):
    recording = cut_to_trials(after=9.0)
    end = recording.timestamps[-1] - 8.0
    is_kept = recording.timestamps < end
    recording = replace(
        recording, timestamps=recording.timestamps[is_kept], df_over_f=recording.df_over_f[is_kept]
    )
    assert ps.divide([recording], "direction").task("direction") == DIRECTION
    assert not caplog.text


def test_options_follow_the_name_of_a_task():
    assert ps.find_task("direction,window_length=1.5") == replace(DIRECTION, window_length=1.5)
    assert ps.find_task("direction") == DIRECTION


@needs_shared_data
def test_gratings_that_were_cut_to_their_trials_are_decoded_as_they_are():
    files = sorted((DATA / "park_gratings").glob("mrcuts2[4578].npz"))
    divided = ps.divide(ps.load_recordings(files), "direction")
    assert divided.task("direction").length == 1.5
    for d in divided:
        assert len(divided.windows(d, divided.task("direction"), "test", 25)) == 26


def blockwise(num_trials: int = 40) -> ps.Recording:
    """One direction after the other, so that the last ones are tested only."""
    recording = cut_to_trials(9.0, num_trials)
    table = recording.stimulus("drifting_gratings")
    return replace(
        recording,
        stimuli={"drifting_gratings": table.assign(orientation=np.repeat(ANGLES, num_trials // 8))},
    )


def test_classes_that_nobody_trains_are_said_and_counted_apart(caplog):
    divided = ps.divide([blockwise()], "direction")
    # of five trials of each direction in a row, 28 train, 4 validate and 8 test
    assert divided.untrained(divided.task("direction")) == (6, 7)
    assert "2 of 8 classes of the task 'direction' are tested but shown in no" in caplog.text
    assert "(270.0, 315.0)" in caplog.text
    assert "makes 8 of 8 test trials wrong" in caplog.text


def test_scores_of_trained_classes_stand_beside_those_of_all(tmp_path):
    table = blockwise().stimulus("drifting_gratings")
    angles = table["orientation"].to_numpy().copy()
    angles[-4:] = 0.0  # half of what is tested was trained
    recording = replace(
        blockwise(), stimuli={"drifting_gratings": table.assign(orientation=angles)}
    )
    divided = ps.divide([recording], "direction")
    few = ps.FinetuningConfig(training=ps.TrainingConfig(max_steps=2, batch_size=8))
    population = ps.Population(divided, {"cut": list("abc")})
    decoder = ps.finetune(population, "direction", config=few)
    decoder.save(tmp_path)
    scores = ps.evaluate(ps.load_decoder(tmp_path), divided)
    [row] = scores.table.to_dict("records")
    assert (row["num_test"], row["num_untrained"]) == (8, 4)
    assert row["trained"] == pytest.approx(2 * row["accuracy"])


def test_scores_of_classes_that_were_all_trained_are_as_ever():
    divided = ps.divide([cut_to_trials(4.0)], "direction")
    few = ps.FinetuningConfig(training=ps.TrainingConfig(max_steps=2, batch_size=8))
    population = ps.Population(divided, {"cut": list("abc")})
    scores = ps.evaluate(ps.finetune(population, "direction", config=few), divided)
    assert "num_untrained" not in scores.table
    assert scores.evaluations[0].num_untrained == 0
