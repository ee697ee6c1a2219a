"""One run compares encoders that learned from different units, recordings and labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.comparison.config import PretrainingArm, RunConfig
from poyo_ssl.comparison.plan import plan
from poyo_ssl.comparison.run import run
from poyo_ssl.evaluation.saved_runs import LearnedFrom, evaluate_run
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.model.checkpoints import load_encoder
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.simulation.simulator import simulate_observatory
from poyo_ssl.recordings.storage import save_recording
from poyo_ssl.report.headline import compute_headlines
from poyo_ssl.report.results import load_results
from poyo_ssl.windows.label_budget import LabelBudget, most_labels
from poyo_ssl.windows.tasks import DIRECTION, MOVIE_HELD_OUT, stimulus_tasks
from tiny_fits import few_steps
from tiny_runs import SIMULATOR, tiny_run_config

pytestmark = pytest.mark.usefixtures("units_undescribed")
TINY = tiny_run_config()
REFERENCES = (
    "ridge", "ridge, time bins", "ridge, semi-supervised", "logistic", "condition posterior",
    "aligned",
    "aligned, shuffled", "ridge, aligned", "ridge, aligned, shuffled",
)  # fmt: skip
"""The last four because the other animals saw the movie, too."""
ARMS = {
    "predictable": PretrainingArm(),
    "random, 8": PretrainingArm(units="random across"),
    "labels first": PretrainingArm(
        units="all", pretraining=replace(TINY.pretraining, label_weight=0.1), teacher="ridge"
    ),
}
CONFIG = replace(
    TINY,
    arms=("scratch", *ARMS),
    pretrainings=ARMS,
    label_fractions=(1.0,),
    labels_per_class=(2,),
    baseline="ridge",
)


@pytest.fixture(scope="module")
def recordings():
    """Two recordings to decode, with ten gratings of each direction."""
    return simulate_observatory(replace(SIMULATOR, grating_trials_per_condition=2))


@pytest.fixture(scope="module")
def earlier():
    """Two recordings of other mice to pretrain on."""
    return simulate_observatory(replace(SIMULATOR, lines=("Vip", "Rorb"), units_per_recording=6))


@pytest.fixture(scope="module")
def finished(recordings, earlier, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("comparison")
    run(recordings, directory, CONFIG, pretraining_recordings=earlier)
    return directory


def units_of(directory: Path, arm: str) -> set[str]:
    encoder = load_encoder(directory / "pretrained" / arm / "seed-0")
    return set(list(encoder.unit_embedding.vocab)[1:])


# other recordings ----------------------------------------------------------------------------


def test_encoders_learn_from_the_units_of_their_diet_in_the_other_recordings(finished):
    units = pd.read_csv(finished / "units.csv")
    units = units[units["recording_id"].str.contains("Vip|Rorb")]
    predictable = set(units.loc[units["is_predictable"], "unit_id"])
    assert units_of(finished, "predictable") == predictable
    assert units_of(finished, "labels first") == set(units["unit_id"])
    drawn = units_of(finished, "random, 8")
    assert len(drawn) == len(predictable)
    assert drawn <= set(units["unit_id"])


def test_only_the_given_recordings_are_decoded(finished):
    scores = pd.read_csv(finished / "scores.csv")
    assert set(scores["recording_id"]) == {"sim0-Sst-0", "sim0-Cux2-0"}


def test_the_test_parts_of_the_other_recordings_stay_unseen(recordings, earlier):
    experiment = plan(recordings, Path("unused"), CONFIG, earlier)
    for divided in experiment.earlier:
        answered = {task.name for task in stimulus_tasks([divided.recording])}
        assert set(divided.splits) == answered
        for splits in divided.splits.values():
            is_tested = divided.recording.is_inside(splits.test)
            assert is_tested.any()
            assert not (divided.recording.is_inside(divided.training) & is_tested).any()


def test_the_record_of_a_run_knows_the_other_recordings(finished):
    known = LearnedFrom.read(finished)
    assert len(known.digests) == 4
    assert known.parts("sim0-Vip-0", DIRECTION).test.size
    listed = json.loads((finished / "recordings.json").read_text())
    notes = {row["recording_id"]: row["notes"] for row in listed}
    assert notes["sim0-Vip-0"] == ["Only pretrained on."]
    assert notes["sim0-Sst-0"] == []


def test_a_run_with_other_recordings_to_pretrain_on_is_another_run(finished, recordings):
    with pytest.raises(ValueError, match="a run of other recordings"):
        run(recordings, finished, CONFIG)


def test_a_recording_given_twice_is_refused_whatever_it_is_called(recordings):
    renamed = replace(recordings[0], recording_id="another name")
    for again in (recordings[0], renamed):
        with pytest.raises(RecordingError, match=rf"both .*'{again.recording_id}'. Leave"):
            plan(recordings, Path("unused"), CONFIG, [again])


def test_other_recordings_of_another_rate_are_refused(recordings, earlier):
    faster = replace(earlier[0], timestamps=earlier[0].timestamps / 2)
    with pytest.raises(RecordingError, match=r"10\.00 to 20\.00 Hz"):
        plan(recordings, Path("unused"), CONFIG, [faster])


def test_every_pretraining_that_cannot_begin_is_told_of_before_any_work(recordings, tmp_path):
    config = replace(
        CONFIG,
        tasks=("movie_held_out",),
        pretrainings={
            "nobody": PretrainingArm(lines=("Ntsr1",)),
            "unlabelled": ARMS["labels first"],
        },
        arms=("nobody", "unlabelled"),
    )
    with pytest.raises(
        RecordingError, match=r"Arm 'nobody': The diet .*Arm 'unlabelled': .*task 'direction'"
    ):
        run(recordings, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


# pretrainings --------------------------------------------------------------------------------


def test_every_encoder_is_pretrained_once_for_all_labels(finished):
    encoders = list(finished.glob("pretrained/*/seed-*/weights.safetensors"))
    assert len(encoders) == len(ARMS) * CONFIG.num_seeds
    assert not list(finished.glob("pretrained/*/seed-*/checkpoints"))
    table = pd.read_csv(finished / "pretrainings.csv").set_index(["arm", "seed"])
    assert len(table) == len(encoders)
    assert table.loc[("labels first", 0), "num_units"] == 12
    assert table.loc[("random, 8", 1), "num_units"] == table.loc[("predictable", 1), "num_units"]


def test_equal_pretrainings_are_made_once_whichever_arms_are_asked_for(recordings, tmp_path):
    twin = {"twin": PretrainingArm(teacher="ridge"), "other": PretrainingArm(units="all")}
    for arms in (("twin",), ("predictable", "twin", "other")):
        config = replace(CONFIG, pretrainings={**ARMS, **twin}, arms=arms)
        experiment = plan(recordings, tmp_path, config)
        assert experiment.pretrained_directory("twin", 0).parent.name == "predictable"
        assert experiment.pretrained_directory("other", 0).parent.name == "other"


def test_what_an_encoder_is_pretrained_on_can_be_said(recordings, earlier, tmp_path):
    on = {
        "both": PretrainingArm(units="all", recordings="both"),
        "decoded": PretrainingArm(units="all", recordings="decoded"),
        "other": PretrainingArm(units="all"),
    }
    experiment = plan(recordings, tmp_path, replace(CONFIG, pretrainings=on, arms=()), earlier)
    found = {
        name: {d.recording.recording_id for d in experiment.pretraining_population(name, 0).divided}
        for name in on
    }
    assert found["decoded"] == {r.recording_id for r in recordings}
    assert found["other"] == {r.recording_id for r in earlier}
    assert found["both"] == found["decoded"] | found["other"]


def test_an_interrupted_pretraining_goes_on_from_its_checkpoint(recordings, tmp_path, monkeypatch):
    config = replace(CONFIG, arms=("predictable",), num_seeds=1, labels_per_class=())
    with monkeypatch.context() as patch:
        patch.setattr("poyo_ssl.comparison.fits.save_encoder", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(recordings, tmp_path, config)
    checkpoints = tmp_path / "pretrained/predictable/seed-0/checkpoints"
    assert list(checkpoints.iterdir())
    run(recordings, tmp_path, config)
    assert not checkpoints.exists()


def interrupt(*_):
    raise KeyboardInterrupt


def test_arms_may_be_fitted_in_ways_of_their_own():
    own = few_steps(max_steps=9)
    config = replace(CONFIG, pretrainings={"labels": PretrainingArm(labels=own)}, arms=("labels",))
    assert config.finetuning_of("labels", DIRECTION) == own
    assert config.finetuning_of("labels", MOVIE_HELD_OUT) == config.movie
    assert config.finetuning_of("scratch", DIRECTION) == config.labels
    assert config.pretraining_of("labels") == config.pretraining
    assert own != FinetuningConfig()


# labels --------------------------------------------------------------------------------------


def test_every_arm_learns_from_exactly_so_many_labels_of_every_class(finished):
    scores = pd.read_csv(finished / "scores.csv")
    few = scores[scores["labels"] == "2 per class"]
    assert set(few["arm"]) == {*REFERENCES, "scratch", *ARMS}
    assert set(few["num_train"]) == {2 * 8}
    assert (few.groupby("arm")["seed"].nunique() == CONFIG.num_seeds).all()
    one = few[(few["arm"] == "scratch") & (few["seed"] == 0) & (few["metric"] == "accuracy")]
    share = one["num_train"].sum() / one["num_labelled"].sum()
    assert few["label_fraction"].to_numpy() == pytest.approx(share)
    assert (scores.loc[scores["labels"] == "100%", "label_fraction"] == 1).all()


def test_more_labels_per_class_than_there_are_are_refused_before_any_work(recordings, tmp_path):
    config = replace(CONFIG, labels_per_class=(2, 99))
    with pytest.raises(
        RecordingError, match=r"'sim0-Sst-0' has .* but labels_per_class asks for 99"
    ):
        run(recordings, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_tasks_that_ask_for_pictures_use_all_labels():
    assert CONFIG.budgets(MOVIE_HELD_OUT) == [LabelBudget()]
    assert CONFIG.budgets(DIRECTION) == [LabelBudget(), LabelBudget(per_class=2)]
    assert most_labels(CONFIG.budgets(DIRECTION)) == LabelBudget()
    few = replace(CONFIG, label_fractions=(), labels_per_class=(2, 5, 3))
    assert most_labels(few.budgets(DIRECTION)) == LabelBudget(per_class=5)


def test_saved_decoders_say_from_how_many_labels_they_learned(finished, recordings, tmp_path):
    path = save_recording(recordings[0], tmp_path)
    rows = evaluate_run(finished, [path], tmp_path / "scores.json")
    assert {row["labels"] for row in rows} == {"100%", "2 per class"}
    assert {row["arm"] for row in rows} == {*REFERENCES, "scratch", *ARMS}


# tables --------------------------------------------------------------------------------------


def test_the_summary_says_how_long_an_arm_takes_with_its_pretraining(finished):
    summary = pd.read_csv(finished / "summary.csv")
    has_encoder = summary["arm"].isin(list(ARMS))
    assert (summary.loc[has_encoder, "pretraining_seconds"] > 0).all()
    assert (summary.loc[~has_encoder, "pretraining_seconds"] == 0).all()
    assert (summary.loc[summary["kind"] == "network", "seconds"] > 0).all()
    assert set(summary["baseline"]) == {"ridge"}
    gains = summary.loc[summary["arm"] != "ridge", "gain_over_baseline"]
    assert np.isfinite(gains).all()


def test_the_report_of_a_comparison_is_about_its_first_pretraining(finished):
    assert compute_headlines(load_results(finished))[0].scores.startswith("Predictable 0.")
    page = (finished / "report.html").read_text()
    assert "Gain over ridge" in page
    assert "2 per class" in page


# what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arms": ("keto",)}, "Unknown arm 'keto'. Choose from: scratch, .*pretrained"),
        ({"labels_per_class": (0,)}, "labels_per_class must be at least 1"),
        ({"baseline": "pretrained", "arms": ("scratch",)}, "'pretrained' is not fitted"),
        ({"pretrainings": {"ridge": PretrainingArm()}}, "cannot be called 'ridge'"),
        ({"pretrainings": {"a/b": PretrainingArm()}}, "cannot be called 'a/b'"),
        ({"pretrainings": {"a__b": PretrainingArm()}}, "cannot be called 'a__b'"),
    ],
)
def test_impossible_comparisons_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**options)


def test_an_unknown_diet_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"Unknown diet 'keto'. Choose from: predictable"):
        PretrainingArm(units="keto")
