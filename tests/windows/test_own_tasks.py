"""Questions of one's own: any column, text or number, of any table or time series."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import poyo_ssl as ps
from poyo_ssl.comparison.config import RunConfig
from poyo_ssl.decoders import value_decoders
from poyo_ssl.windows.answers import Shown, Values
from poyo_ssl.windows.task_windows import find_windows
from poyo_ssl.windows.tasks import find_classes, find_task, presentations

RATE = 10.0


def session(table: dict, name: str = "trials", *, seed: int = 0, **facts) -> ps.Recording:
    """Four units, of which each of the first two prefers one half of the trials."""
    starts = 2.0 + 3.0 * np.arange(len(next(iter(table.values()))))
    shown = pd.DataFrame({"start": starts, "end": starts + 1.5, **table})
    times = np.arange(int((starts[-1] + 6) * RATE)) / RATE
    rng = np.random.default_rng(seed)
    df_over_f = rng.normal(size=(len(times), 4))
    for i, start in enumerate(starts):
        df_over_f[(times >= start) & (times < start + 1.5), i % 2] += 2.0
    return ps.Recording(
        recording_id="own", df_over_f=df_over_f.astype(np.float32), timestamps=times,
        units=pd.DataFrame({"unit_id": list("abcd")}), stimuli={name: shown}, **facts,
    )  # fmt: skip


def test_a_text_describes_a_task_of_ones_own():
    task = find_task("sequence/segment,split=repeat,window_length=3,window_offset=0.2")
    assert (task.stimulus, task.column, task.split) == ("sequence", "segment", "repeat")
    assert (task.window_length, task.window_offset, task.name) == (3.0, 0.2, "sequence_segment")
    with pytest.raises(ValueError, match=r"no option of a task.*window_length"):
        find_task("sequence/segment,windows=3")
    with pytest.raises(ValueError, match="window_length must be a number, got 'long'"):
        find_task("sequence/segment,window_length=long")


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "x" * 90])
def test_a_name_that_could_be_a_path_is_no_name_of_a_task(name):
    with pytest.raises(ValueError, match="name of a task"):
        ps.Task(name=name, stimulus="s", column="c")
    made = ps.Task(stimulus=name, column="c").name
    assert "/" not in made
    assert not made.startswith(".")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("tolerance=nan", "tolerance must be a finite number"),
        ("period=nan", "period must be a finite number"),
        ("kind=values,kind=labels", "gives an option of a task twice"),
    ],
)
def test_options_of_a_task_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        find_task(f"sequence/segment,{options}")


def test_labels_may_be_text_and_empty_ones_have_no_window():
    recording = session({"odour": ["rose", "mint", None, "mint"]})
    task = ps.Task(stimulus="trials", column="odour", window_length=1.0)
    classes = find_classes([recording], task)
    assert classes.tolist() == ["mint", "rose"]
    windows = find_windows(recording, task, np.array([[0.0, 99.0]]), classes, 10)
    assert windows.target.tolist() == [1, 0, 0]


def test_rounding_and_a_full_turn_make_no_classes():
    recording = session({"angle": [0.0, 45.0, 45.0000003, 360.0, 359.9999999, 90.0]})
    task = ps.Task(stimulus="trials", column="angle", window_length=1.0, period=360.0)
    classes = find_classes([recording], task)
    assert classes.tolist() == [0.0, 45.0, 90.0]
    windows = find_windows(recording, task, np.array([[0.0, 99.0]]), classes, 10)
    assert windows.target.tolist() == [0, 1, 1, 0, 0, 2]


def test_a_blank_scene_is_no_class_and_has_no_window():
    recording = session({"image": [0, -1, 2, 1]}, "natural_scenes")
    task = find_task("scene")
    classes = find_classes([recording], task)
    assert classes.tolist() == [0, 1, 2]
    windows = find_windows(recording, task, np.array([[0.0, 99.0]]), classes, 4)
    assert windows.target.tolist() == [0, 2, 1]


def test_answers_that_are_all_empty_or_all_different_are_refused_with_what_to_do():
    nothing = session({"x": [np.nan] * 4})
    with pytest.raises(
        ps.RecordingError, match="All 4 answers in the column x of trials are empty"
    ):
        find_classes([nothing], ps.Task(stimulus="trials", column="x"))
    many = session({"x": np.linspace(0, 9, 1200)})
    with pytest.raises(ps.RecordingError, match=r"1200 different answers.*kind: values"):
        find_classes([many], ps.Task(stimulus="trials", column="x"))


def test_a_window_is_as_long_as_a_presentation_where_nothing_is_said():
    divided = ps.divide([session({"side": ["left", "right"] * 10})], "trials/side")
    assert divided.task("trials/side").window_length == pytest.approx(1.5)


def test_a_task_of_ones_own_is_decoded_saved_and_loaded_anywhere(tmp_path):
    divided = ps.divide([session({"side": ["left", "right"] * 20})], "trials/side")
    population = ps.Population(divided, {"own": list("abcd")})
    few = ps.TrainingConfig(max_steps=60, batch_size=16, jitter=0.0)
    decoder = ps.finetune(
        population, "trials/side", config=ps.FinetuningConfig(members=1, training=few)
    )
    scores = ps.evaluate(decoder, divided)
    assert scores.mean()["accuracy"] > 0.8
    decoder.save(tmp_path)
    loaded = ps.load_decoder(tmp_path)
    assert loaded.question.task == decoder.question.task
    assert loaded.question.classes.tolist() == ["left", "right"]
    assert ps.evaluate(loaded, divided).table.equals(scores.table)


def running(recording: ps.Recording) -> pd.DataFrame:
    """A speed that the first unit follows."""
    smooth = np.convolve(recording.df_over_f[:, 0], np.ones(10) / 10, "same")
    return pd.DataFrame({"timestamp": recording.timestamps, "speed": 10 + 5 * smooth})


def test_a_time_series_is_asked_about_in_bins():
    still = session({"side": ["left"] * 30})
    recording = session({"side": ["left"] * 30}, running=running(still))
    table = presentations(recording, find_task("running_speed"))
    assert table["start"].diff().dropna().to_numpy() == pytest.approx(1.0)
    inside = (recording.timestamps >= 5) & (recording.timestamps < 6)
    assert table["speed"][5] == pytest.approx(recording.running["speed"][inside].mean())


def test_a_number_is_decoded_by_ridge_kernel_ridge_and_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr(value_decoders, "MOST_KERNEL_WINDOWS", 400)
    still = session({"side": ["left"] * 80})
    recording = session({"side": ["left"] * 80}, running=running(still))
    few = ps.FinetuningConfig(members=1, training=ps.TrainingConfig(max_steps=150, batch_size=32))
    config = RunConfig(
        tasks=("running_speed",), units=("all",), arms=("scratch",), num_seeds=1, jobs=1,
        labels=few, predictability=ps.PredictabilityConfig(min_timesteps=100),
    )  # fmt: skip
    ps.run([recording], tmp_path, config)
    scores = pd.read_csv(tmp_path / "scores.csv").set_index(["arm", "metric"])["value"]
    assert scores["ridge", "r2"] > 0.5
    assert scores["kernel ridge", "r2"] > 0.3
    assert scores["scratch", "r2"] > 0.2
    assert scores["ridge", "correlation"] > 0.7
    assert (tmp_path / "report.html").stat().st_size > 0
    [folder] = tmp_path.glob("decoders/running_speed/all/kernel ridge/*/seed-0")
    decoder = ps.load_decoder(folder)
    [divided] = ps.divide([recording], "running_speed")
    again = ps.evaluate(decoder, [divided]).mean()
    assert again["r2"] == pytest.approx(scores["kernel ridge", "r2"], abs=1e-6)
    for folder in tmp_path.glob("decoders/running_speed/all/*/*/seed-0"):
        answers = ps.load_decoder(folder).predict(recording, np.empty(0, dtype=int))
        assert answers.shape == (0,)


def test_variance_explained_is_one_for_the_truth_and_zero_for_the_mean():
    target = np.array([1.0, 2.0, 4.0])
    values = Values()
    assert values.score(target, target, Shown(1.0)).scores["r2"] == 1.0
    mean = np.full(3, target.mean())
    scored = values.score(mean, target, Shown(1.0))
    assert scored.scores == {"r2": pytest.approx(0.0), "correlation": 0.0}
    assert scored.per_window.mean() == pytest.approx(scored.scores["r2"])


def test_a_held_out_day_of_the_same_cells_is_one_config_away():
    days = [session({"side": ["left", "right"] * 20}) for _ in range(2)]
    days = [
        ps.Recording(**{**day.__dict__, "recording_id": f"day{i}"}) for i, day in enumerate(days)
    ]
    splits = ps.SplitConfig(train=("day0",), test=("day1",))
    divided = ps.divide(days, "trials/side", splits)
    config = ps.PredictabilityConfig(min_timesteps=100)
    units = ps.partition_by_predictability(divided, config)
    population = units.population(divided, "all")
    few = ps.FinetuningConfig(
        members=1, training=ps.TrainingConfig(max_steps=60, batch_size=16, jitter=0.0)
    )
    scores = ps.evaluate(ps.finetune(population, "trials/side", config=few), divided)
    assert scores.table["recording_id"].tolist() == ["day1"]
    assert scores.mean()["accuracy"] > 0.8


def test_one_day_trains_and_another_tests_in_a_run(tmp_path):
    days = [
        replace(session({"side": ["left", "right"] * 20}, seed=seed), recording_id=name)
        for seed, name in enumerate(("monday", "tuesday"))
    ]
    config = RunConfig(
        tasks=("trials/side",), units=("all",), arms=(), num_seeds=1, jobs=1,
        predictability=ps.PredictabilityConfig(min_timesteps=100),
        splits=ps.SplitConfig(train=("monday",), test=("tuesday",)),
    )  # fmt: skip
    ps.run(days, tmp_path, config)
    scores = pd.read_csv(tmp_path / "scores.csv").query("metric == 'accuracy'")
    assert set(scores["recording_id"]) == {"tuesday"}
    assert (scores.query("arm == 'ridge'")["value"] > 0.8).all()
    with pytest.raises(ValueError, match=r"No recording is called 'friday'"):
        ps.run(days, tmp_path, replace(config, splits=ps.SplitConfig(test=("friday",))))


def test_a_run_that_pretrains_nothing_needs_no_predictable_unit(tmp_path):
    nobody = ps.PredictabilityConfig(min_timesteps=100, skewness_max=1e-9, kurtosis_max=1e-9)
    config = RunConfig(
        tasks=("trials/side",), units=("all",), arms=(), num_seeds=1, jobs=1, predictability=nobody
    )
    recording = session({"side": ["left", "right"] * 20})
    ps.run([recording], tmp_path, config)
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert set(scores["arm"]) == {
        "ridge",
        "ridge, time bins",
        "ridge, semi-supervised",
        "logistic",
        "condition posterior",
    }
    with pytest.raises(ValueError, match="No unit of 1 recordings is predictable"):
        ps.run([recording], tmp_path, replace(config, units=("predictable",)))
