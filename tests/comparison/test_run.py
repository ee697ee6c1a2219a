"""The whole method, from recordings to a report: complete, resumable, and the same each time."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.comparison.config import RunConfig
from poyo_ssl.comparison.experiment import PlannedFit as Fit
from poyo_ssl.comparison.plan import plan
from poyo_ssl.comparison.run import run
from poyo_ssl.decoders.loading import load_decoder
from poyo_ssl.evaluation.evaluate import PREDICTIONS, evaluate_recording
from poyo_ssl.model.checkpoints import load_encoder
from poyo_ssl.neurons.storage import load_neurons
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.storage import open_recording, save_recording
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.tasks import DIRECTION, find_task
from tiny_runs import SPLITS, tiny_observatory, tiny_run_config

NETWORKS = ("scratch", "scratch + teacher", "pretrained")
EVERYTHING = tiny_run_config(
    tasks=("direction", "movie_held_out"), arms=NETWORKS, label_fractions=(0.5, 1.0)
)

RESUMED = tiny_run_config(arms=("pretrained",), label_fractions=(0.5, 1.0))


@pytest.fixture(scope="module")
def recordings():
    return tiny_observatory()


@pytest.fixture(scope="module")
def finished(recordings, tmp_path_factory) -> Path:
    """A run of both kinds of task, all arms, two seeds and two label fractions."""
    directory = tmp_path_factory.mktemp("run")
    report = run(recordings, directory, EVERYTHING, command="poyo-ssl run x --output y")
    assert report == directory / "report.html"
    return directory


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(scope="module")
def small(recordings, tmp_path_factory) -> Path:
    """A run of one task and one network, two seeds and two label fractions."""
    directory = tmp_path_factory.mktemp("small run")
    run(recordings, directory, RESUMED)
    return directory


@pytest.fixture
def resumed(units_undescribed, small, tmp_path) -> Path:
    return shutil.copytree(small, tmp_path / "run")


def times_of(directory: Path, name: str) -> dict[str, int]:
    paths = directory.rglob(name)
    return {str(path.relative_to(directory)): path.stat().st_mtime_ns for path in paths}


def without_seconds(directory: Path) -> pd.DataFrame:
    return pd.read_csv(directory / "scores.csv").drop(columns=["seconds", "pretraining_seconds"])


def fits_of(recordings, config) -> list[Fit]:
    return plan(recordings, Path("unused"), config).fits()


# what a run leaves behind --------------------------------------------------------------------


def test_a_run_leaves_everything_that_a_report_and_a_reader_need(finished, recordings):
    for name in (
        "experiment.json", "run.json", "recordings.json", "splits.json", "predictability.json",
        "units.csv", "predictability.png", "scores.csv", "summary.csv", "curves.csv",
        "report.html", "confusion/direction__all__ridge.csv",
        "movie/movie_held_out__all__scratch + teacher.npz",
        "decoders/movie_held_out/all/scratch/labels-100/seed-1/film/sim0-%53st-0.npz",
    ):  # fmt: skip
        assert (finished / name).stat().st_size > 0, name
    for seed in range(2):
        assert (
            load_encoder(finished / f"pretrained/pretrained/seed-{seed}").config
            == EVERYTHING.encoder
        )
    for fit in fits_of(recordings, EVERYTHING):
        for name in ("config.json", "weights.safetensors", "scores.json", "curves.csv"):
            assert (finished / fit.name / name).is_file(), (fit.name, name)
    assert [path.name for path in finished.rglob(".*")] == [".lock"]  # no half-written file


def test_units_are_described_with_every_decoder_that_tells_of_them(finished, recordings):
    described = load_neurons(finished / "neurons.npz")
    assert [neurons.recording_id for neurons in described] == [r.recording_id for r in recordings]
    for neurons in described:
        direction, movie = neurons.tasks
        assert set(direction.importance) == {
            "ridge", "ridge, time bins", "ridge, semi-supervised", "logistic",
            "condition posterior", *NETWORKS,
        }  # fmt: skip
        assert set(movie.importance) == {"ridge to pixels", *NETWORKS}
        assert set(direction.latents) == set(movie.latents) == set(NETWORKS)
    assert '<h2 id="neurons">' in (finished / "report.html").read_text()


def test_scores_cover_every_arm_seed_recording_and_label_fraction(finished):
    scores = pd.read_csv(finished / "scores.csv")
    main = scores[scores["metric"].isin(["accuracy", "ssim"])]
    linear = {
        "ridge": 1,
        "ridge, time bins": 1,
        "ridge, semi-supervised": 1,
        "logistic": 2,
        "condition posterior": 1,
    }
    label_arms = {**linear, **dict.fromkeys(NETWORKS, 2)}
    references = ("mean frame", "nearest frame", "frame posterior", "frame filter")
    movie_arms = {
        **dict.fromkeys((*references, "ridge to pixels"), 1), **dict.fromkeys(NETWORKS, 2)
    }  # fmt: skip
    expected = {("movie_held_out", arm, 1.0): num for arm, num in movie_arms.items()}
    for arm, num_seeds in label_arms.items():
        expected["direction", arm, 1.0] = num_seeds
        expected["direction", arm, 0.5] = 2  # the draw of labels depends on the seed
    found = main.groupby(["task", "arm", "label_fraction"])["seed"].nunique().to_dict()
    assert found == expected
    assert set(main.groupby(["task", "arm", "label_fraction"])["recording_id"].nunique()) == {2}
    assert np.isfinite(scores["value"]).all()


def test_every_arm_is_scored_and_trained_on_as_many_windows(finished):
    scores = pd.read_csv(finished / "scores.csv")
    windows = ["task", "recording_id", "num_test"]
    assert len(scores[windows].drop_duplicates()) == 4  # two tasks, two recordings
    windows = ["task", "recording_id", "label_fraction", "num_train"]
    assert len(scores[windows].drop_duplicates()) == 6  # and half the labels of one task
    trained = scores[scores["task"] == "direction"].groupby("label_fraction")["num_train"].max()
    assert trained[0.5] < trained[1.0]


def test_saved_decoders_give_the_scores_of_the_tables(finished, recordings):
    scores = pd.read_csv(finished / "scores.csv").query(
        "task == 'direction' and seed == 0 and label_fraction == 1 and metric == 'accuracy'"
    )
    scores = scores.set_index(["arm", "recording_id"])["value"]
    for arm in ("ridge", "pretrained"):
        decoder = load_decoder(finished / f"decoders/direction/all/{arm}/labels-100/seed-0")
        for divided in divide(recordings, [find_task(t) for t in EVERYTHING.tasks], SPLITS):
            found = evaluate_recording(decoder, divided.recording, divided.splits["direction"])
            expected = scores[arm, divided.recording.recording_id]
            assert found.scores["accuracy"] == pytest.approx(expected)


def test_the_accuracy_can_be_computed_from_the_predictions(finished):
    predictions = pd.read_csv(finished / "predictions.csv", keep_default_na=False, dtype=str)
    assert tuple(predictions.columns) == PREDICTIONS
    keys = ["task", "arm", "units", "labels", "seed", "recording"]
    labels = predictions[predictions["task"] == "direction"]
    accuracy = (labels["truth"] == labels["answer"]).groupby([labels[key] for key in keys]).mean()
    scores = pd.read_csv(finished / "scores.csv", dtype={"seed": str})
    scores = scores.rename(columns={"recording_id": "recording"}).set_index(keys)
    expected = scores.loc[scores["metric"] == "accuracy", "value"]
    assert len(accuracy) == len(expected)
    pd.testing.assert_series_equal(accuracy, expected.sort_index(), check_names=False)
    for row in labels.sample(20, random_state=0).itertuples():
        probabilities = np.exp(pd.Series(json.loads(row.scores)))
        assert probabilities.idxmax() == row.answer
        assert probabilities.sum() == pytest.approx(1, abs=1e-3)
        assert float(row.value) == (row.truth == row.answer)


def test_predictions_say_which_trial_was_asked_about(finished, recordings):
    predictions = pd.read_csv(finished / "predictions.csv")
    shown = {r.recording_id: r.stimuli for r in recordings}
    for (name, task), rows in predictions.groupby(["recording", "task"]):
        stimulus, column = {
            "direction": ("drifting_gratings", "orientation"),
            "movie_held_out": ("natural_movie_one", "movie_frame"),
        }[task]
        table = shown[name][stimulus].iloc[rows["trial"]]
        np.testing.assert_allclose(rows["onset"], table["start"])
        np.testing.assert_allclose(rows["truth"].astype(float), table[column])


def test_confusions_count_every_test_window_of_every_seed(finished):
    scores = pd.read_csv(finished / "scores.csv").query(
        "task == 'direction' and label_fraction == 1 and metric == 'accuracy'"
    )
    for arm in ("ridge", "scratch"):
        counts = pd.read_csv(finished / f"confusion/direction__all__{arm}.csv", index_col=0)
        rows = scores[scores["arm"] == arm]
        assert counts.to_numpy().sum() == rows["num_test"].sum()
        right = np.trace(counts.to_numpy())
        assert right == pytest.approx((rows["value"] * rows["num_test"]).sum())


def test_the_record_of_a_run_says_how_to_repeat_it(finished):
    facts = json.loads((finished / "run.json").read_text())
    assert facts["command"] == "poyo-ssl run x --output y"
    assert facts["seeds"] == [0, 1]
    assert facts["config"]["labels"]["training"]["max_steps"] == 3
    assert {"torch", "numpy", "poyo-ssl"} <= set(facts["versions"])
    assert facts["hardware"]["num_cores"] > 0
    assert [task["name"] for task in facts["tasks"]] == ["direction", "movie_held_out"]
    assert facts["tasks"][0]["chance"] == 1 / 8
    assert facts["tasks"][1]["chance"] is None
    assert any("de Vries" in citation for citation in facts["citation"])


def test_pretraining_learns_from_predictable_units_alone(finished):
    units = pd.read_csv(finished / "units.csv")
    known = load_encoder(finished / "pretrained/pretrained/seed-0").unit_embedding.vocab
    predictable = set(units.loc[units["is_predictable"], "unit_id"])
    assert 0 < len(predictable) < len(units)
    assert set(list(known)[1:]) == predictable


def test_the_report_names_arms_and_says_that_data_are_simulated(finished):
    page = (finished / "report.html").read_text()
    for text in ("scratch + teacher", "ridge to pixels", "Simulated data"):
        assert text in page


def test_samples_that_are_no_numbers_outside_training_do_not_stop_a_run(recordings, tmp_path):
    [clean, _] = recordings
    [divided] = divide([clean], [DIRECTION], SPLITS)
    is_test = clean.is_inside(divided.splits["direction"].test)
    traces = clean.df_over_f.copy()
    traces[is_test, 2] = np.nan  # a cell that is lost in the test part of every block
    lost = replace(clean, df_over_f=traces)
    decoders = []
    for name, recording in (("clean", clean), ("lost", lost)):
        run([recording], tmp_path / name, tiny_run_config(arms=(), num_seeds=1))
        folder = tmp_path / name / "decoders/direction/all/ridge/labels-100/seed-0"
        decoders.append(load_decoder(folder).readout)
    assert np.array_equal(decoders[0].weights, decoders[1].weights)
    scores = pd.read_csv(tmp_path / "lost" / "scores.csv")
    assert np.isfinite(scores["value"]).all()


# simulated or not ----------------------------------------------------------------------------


def facts_of(recordings, directory: Path) -> dict:
    run(recordings, directory, tiny_run_config(arms=(), num_seeds=1))
    return json.loads((directory / "run.json").read_text())


def test_a_simulated_recording_is_known_as_such_from_its_file(recordings, tmp_path):
    path = save_recording(recordings[0], tmp_path)
    assert facts_of([open_recording(path)], tmp_path / "run")["is_simulated"] is True


def test_a_recording_of_another_source_is_not_called_simulated(tiny_recording, tmp_path):
    for source in (None, "simulated-in-name-only.nwb"):
        recording = replace(tiny_recording, source=source)
        directory = tmp_path / str(source)
        assert facts_of([recording], directory)["is_simulated"] is False
        assert "Simulated data" not in (directory / "report.html").read_text()


# resuming ------------------------------------------------------------------------------------


def test_a_finished_run_is_not_fitted_again(copied, recordings):
    weights, scores = times_of(copied, "weights.safetensors"), without_seconds(copied)
    assert len(weights) == len(fits_of(recordings, EVERYTHING)) + 2
    run(recordings, copied, EVERYTHING)
    assert times_of(copied, "weights.safetensors") == weights
    pd.testing.assert_frame_equal(without_seconds(copied), scores)


def test_an_interrupted_run_fits_only_what_is_missing(resumed, recordings):
    weights, scores = times_of(resumed, "weights.safetensors"), without_seconds(resumed)
    missing = "decoders/direction/all/pretrained/labels-50/seed-1"
    (resumed / missing / "scores.json").unlink()
    (resumed / "report.html").unlink()
    run(recordings, resumed, RESUMED)
    after = times_of(resumed, "weights.safetensors")
    assert [name for name in after if after[name] != weights[name]] == [
        f"{missing}/weights.safetensors"
    ]
    pd.testing.assert_frame_equal(without_seconds(resumed), scores)
    assert (resumed / "report.html").is_file()


def test_an_interrupted_pretraining_is_repeated_alone(resumed, recordings):
    weights = times_of(resumed, "weights.safetensors")
    bits = (resumed / "pretrained/pretrained/seed-1/weights.safetensors").read_bytes()
    (resumed / "pretrained/pretrained/seed-1/config.json").unlink()
    run(recordings, resumed, RESUMED)
    after = times_of(resumed, "weights.safetensors")
    assert [name for name in after if after[name] != weights[name]] == [
        "pretrained/pretrained/seed-1/weights.safetensors"
    ]
    assert (resumed / "pretrained/pretrained/seed-1/weights.safetensors").read_bytes() == bits


def test_a_directory_of_another_config_is_refused_and_kept(copied, recordings):
    scores = (copied / "scores.csv").read_bytes()
    other = replace(EVERYTHING, splits=replace(SPLITS, guard=SPLITS.guard / 2))
    with pytest.raises(ValueError, match=r"another config\. Choose a new output directory"):
        run(recordings, copied, other)
    assert (copied / "scores.csv").read_bytes() == scores


def test_a_directory_of_other_recordings_is_refused(copied, recordings):
    changed = replace(recordings[0], df_over_f=recordings[0].df_over_f + 1)
    with pytest.raises(ValueError, match="a run of other recordings"):
        run([changed, recordings[1]], copied, EVERYTHING)


def test_jobs_and_title_may_change_when_a_run_goes_on(resumed, recordings):
    run(recordings, resumed, replace(RESUMED, title="Another heading", jobs=2))
    assert "Another heading" in (resumed / "report.html").read_text()


def test_arms_and_labels_are_added_without_fitting_the_old_ones_again(recordings, tmp_path):
    run(recordings, tmp_path, tiny_run_config(arms=(), num_seeds=1))
    before = times_of(tmp_path, "weights.safetensors")
    config = tiny_run_config(arms=("pretrained",), label_fractions=(0.5, 1.0), num_seeds=1)
    run(recordings, tmp_path, config)
    after = times_of(tmp_path, "weights.safetensors")
    assert before.items() < after.items()
    assert "pretrained" in set(pd.read_csv(tmp_path / "summary.csv")["arm"])


def test_more_seeds_are_added_without_fitting_the_old_ones_again(resumed, recordings):
    weights = times_of(resumed, "weights.safetensors")
    seconds = json.loads((resumed / "run.json").read_text())["seconds"]
    run(recordings, resumed, replace(RESUMED, num_seeds=RESUMED.num_seeds + 1))
    after = times_of(resumed, "weights.safetensors")
    assert all(after[name] == time for name, time in weights.items())
    assert len(after) > len(weights)
    assert json.loads((resumed / "run.json").read_text())["seconds"] > seconds


def test_the_number_of_jobs_does_not_change_a_score(recordings, tmp_path):
    tables = []
    for jobs in (1, 2):
        config = tiny_run_config(arms=("scratch", "pretrained"), jobs=jobs)
        run(recordings, tmp_path / str(jobs), config)
        tables.append(without_seconds(tmp_path / str(jobs)))
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)


def test_tasks_that_a_look_up_can_answer_perfectly_come_to_a_report(recordings, tmp_path):
    # every test picture of "movie" was shown in training; gratings have five frequencies
    tasks = ("movie", "movie_frame", "temporal_frequency")
    config = tiny_run_config(tasks=tasks, arms=(), num_seeds=1)
    run(recordings, tmp_path, config)
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert set(summary["task"]) == set(tasks)
    assert np.isfinite(summary["mean"]).all()


def test_progress_is_told_stage_by_stage(recordings, tmp_path):
    told = []
    config = tiny_run_config(arms=("pretrained",), num_seeds=1)
    run(recordings, tmp_path, config, on_progress=lambda *progress: told.append(progress))
    assert told == [("pretraining", 1, 1), *[("decoders", done, 6) for done in range(1, 7)]]


# plans ---------------------------------------------------------------------------------------


def test_every_decoder_of_a_run_has_a_place_of_its_own(recordings):
    config = replace(EVERYTHING, label_fractions=(0.001, 0.004, 0.01, 0.125, 1.0))
    names = [fit.name for fit in fits_of(recordings, config)]
    assert len(names) == len(set(names))


def test_the_default_tasks_are_those_that_the_recordings_show(recordings):
    config = tiny_run_config(tasks=())
    assert {fit.task for fit in fits_of(recordings, config)} == {"direction", "movie_held_out"}
    gratings = replace(recordings[0], templates={})  # a movie without its pictures
    assert {fit.task for fit in fits_of([gratings], config)} == {"direction"}


def test_recordings_without_a_known_stimulus_are_refused(recordings):
    bare = replace(recordings[0], stimuli={}, templates={})
    with pytest.raises(RecordingError, match=r"any default task .*found stimuli: none.*gratings"):
        plan([bare], Path("unused"), tiny_run_config(tasks=()))


def test_a_task_that_no_recording_can_answer_is_refused(recordings):
    with pytest.raises(RecordingError, match=r"'orientation', which needs static_gratings"):
        plan(recordings, Path("unused"), tiny_run_config(tasks=("orientation",)))


def test_a_part_without_a_window_is_refused_before_anything_is_fitted(recordings, tmp_path):
    config = replace(
        tiny_run_config(tasks=("movie_held_out",)),
        splits=replace(SPLITS, test_fraction=0.01, guard=0.1),
    )
    with pytest.raises(RecordingError, match=r"no test window for the task 'movie_held_out'"):
        run(recordings, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_recordings_of_different_rates_are_refused(recordings):
    faster = replace(recordings[1], timestamps=recordings[1].timestamps / 2)
    with pytest.raises(RecordingError, match=r"10\.00 to 20\.00 Hz"):
        plan([recordings[0], faster], Path("unused"), tiny_run_config())


def test_a_recording_under_two_names_does_not_count_twice(recordings):
    copy = replace(recordings[0], recording_id="copy")
    with pytest.raises(RecordingError, match=r"and 'copy' hold the same traces"):
        plan([recordings[0], copy], Path("unused"), tiny_run_config())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ("smell",)}, r"Unknown task 'smell'. Choose from: direction"),
        ({"units": ("some",)}, "Unknown group of units 'some'"),
        ({"units": ()}, "units must name at least one group"),
        ({"arms": ("ridge",)}, "Unknown arm 'ridge'. Choose from: scratch"),
        ({"arms": ("mlp",)}, "Unknown arm 'mlp'"),
        ({"label_fractions": ()}, "label_fractions"),
        ({"label_fractions": (0.0,)}, "label_fractions"),
        ({"num_seeds": 0}, "num_seeds"),
        ({"jobs": -1}, "jobs"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**options)


def test_fits_of_a_plan_learn_from_the_units_they_name(recordings):
    config = tiny_run_config(units=("predictable", "unpredictable", "all"))
    experiment = plan(recordings, Path("unused"), config)
    predictable, unpredictable, every = (
        set(experiment.population(units).unit_ids) for units in config.units
    )
    assert not predictable & unpredictable
    assert predictable | unpredictable == every
    assert len(experiment.population("unpredictable").divided.answering(DIRECTION)) == 1
