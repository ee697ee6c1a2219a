"""Stages read files and write files, and never score what a decoder learned from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.comparison.run import run
from poyo_ssl.comparison.run_directory import read_predictions
from poyo_ssl.decoders.loading import load_decoder
from poyo_ssl.evaluation.saved_runs import evaluate_run
from poyo_ssl.model.checkpoints import CheckpointError, load_encoder, save_encoder
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.output_directory import OutputError, alone_in
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.objectives.masked_activity import MaskedActivityConfig
from poyo_ssl.pretraining.objectives.masked_latents import MaskedLatentsConfig
from poyo_ssl.pretraining.objectives.split_units import SplitUnitsConfig
from poyo_ssl.recordings.loading import load_recordings
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.storage import save_recording
from poyo_ssl.stages import (
    AdaptStage,
    FinetuneStage,
    PredictabilityStage,
    PretrainStage,
    adapt_decoder,
    finetune_decoder,
    measure_predictability,
    pretrain_encoder,
)
from poyo_ssl.training.window_module import WindowModule
from poyo_ssl.windows.label_budget import LabelBudget
from tiny_fits import ENCODER, few_steps, with_units_in_order
from tiny_runs import SPLITS, tiny_observatory, tiny_run_config

PREDICTABILITY = PredictabilityConfig(min_timesteps=100)
PRETRAIN = PretrainStage(
    predictability=PREDICTABILITY,
    splits=SPLITS,
    encoder=ENCODER,
    pretraining=PretrainingConfig(
        training=few_steps(3).training, masked_activity=MaskedActivityConfig(num_queries=8)
    ),
)
FINETUNE = FinetuneStage(
    units="all",
    predictability=PREDICTABILITY,
    splits=SPLITS,
    encoder=ENCODER,
    finetuning=few_steps(3),
)


def cut(recording: Recording, first: int, stop: int | None) -> Recording:
    """Some timesteps of a session, with what was shown in them, under the same name."""
    timestamps = recording.timestamps[first:stop]
    return replace(
        recording,
        df_over_f=recording.df_over_f[first:stop],
        timestamps=timestamps,
        stimuli={
            name: table[(table["start"] >= timestamps[0]) & (table["end"] <= timestamps[-1])]
            for name, table in recording.stimuli.items()
        },
        running=None,
        pupil=None,
    )


@pytest.fixture(scope="module")
def session() -> Recording:
    """One session whose gratings are shown before 66 s and after 118 s."""
    return tiny_observatory()[0]


@pytest.fixture(scope="module")
def halves(session, tmp_path_factory):
    """The session cut in two files; the second lacks two units and has one of its own."""
    folder = tmp_path_factory.mktemp("halves")
    middle = int(np.searchsorted(session.timestamps, 100.0))
    later = with_units_in_order(cut(session, middle, None), np.array([7, 5, 4, 3, 2, 1]))
    units = later.units.copy()
    units.loc[0, "unit_id"] = "a new cell"
    first = save_recording(cut(session, 0, middle), folder / "first")
    second = save_recording(replace(later, units=units), folder / "second")
    return first, second


@pytest.fixture(scope="module")
def fitted_run(halves, tmp_path_factory):
    """A run on the first half alone."""
    directory = tmp_path_factory.mktemp("run")
    config = tiny_run_config(arms=("scratch",), num_seeds=1, label_fractions=(0.5, 1.0))
    run(load_recordings(halves[0]), directory, config)
    return directory


# evaluate ------------------------------------------------------------------------------------


def test_the_recording_that_a_run_learned_from_is_scored_on_its_test_part(
    fitted_run, halves, tmp_path
):
    rows = evaluate_run(fitted_run, [halves[0]], tmp_path / "scores.json")
    expected = pd.read_csv(fitted_run / "scores.csv").query("metric == 'accuracy'")
    expected = expected.set_index(["arm", "labels", "seed"])
    assert len(rows) == len(expected)
    for row in rows:
        in_table = expected.loc[(row["arm"], row["labels"], row["seed"])]
        assert row["part"] == "test"
        assert row["num_test"] == in_table["num_test"]
        assert row["scores"]["accuracy"] == pytest.approx(in_table["value"])
        assert row["missing_units"] == []
        assert row["unknown_units"] == []
    assert json.loads((tmp_path / "scores.json").read_text())["scores"] == rows
    for saved in fitted_run.glob("decoders/**/scores.json"):  # the same rows, and what was learned
        for row in json.loads(saved.read_text()):
            again = next(r for r in rows if (r["arm"], r["labels"]) == (row["arm"], row["labels"]))
            assert set(row) - set(again) == {"num_labelled", "num_train", "seconds"}
            assert again.items() <= row.items()
    pd.testing.assert_frame_equal(
        *(
            pd.read_csv(path).sort_values(["arm", "labels", "trial"], ignore_index=True)
            for path in (tmp_path / "scores.predictions.csv", fitted_run / "predictions.csv")
        )
    )


def test_another_part_of_the_session_is_scored_whole_with_the_units_both_know(
    fitted_run, halves, session, tmp_path
):
    rows = evaluate_run(fitted_run, [halves[1]], tmp_path / "scores.json")
    shown = session.stimulus("drifting_gratings").dropna()
    known = set(shown.query("start < 100")["orientation"])
    later = shown.query("start > 100 and orientation in @known")
    assert len(known) == 7  # one direction is shown only later: no answer that could be given
    for row in rows:
        assert row["recording_id"] == session.recording_id
        assert row["part"] == "whole recording"
        assert row["num_test"] == len(later) == 15
        assert row["num_known_units"] == 5
        assert row["missing_units"] == sorted(session.unit_ids[[0, 6, 7]])
        assert row["unknown_units"] == ["a new cell"]
        assert row["chance"] == 1 / 7


def test_training_data_stay_unscored_beside_another_part_of_the_same_name(
    fitted_run, halves, tmp_path
):
    # both files hold the same id, so each is called after its file
    first = shutil.copy(halves[0], tmp_path / "learned-from.h5")
    second = shutil.copy(halves[1], tmp_path / "later.h5")
    rows = evaluate_run(fitted_run, [first, second], tmp_path / "scores.json")
    parts = {row["recording_id"]: row["part"] for row in rows}
    assert parts == {"learned-from": "test", "later": "whole recording"}


def test_leaving_units_out_does_not_make_training_data_new(fitted_run, session, tmp_path):
    middle = int(np.searchsorted(session.timestamps, 100.0))
    fewer = with_units_in_order(cut(session, 0, middle), np.array([6, 1, 2]))
    path = save_recording(fewer, tmp_path)
    rows = evaluate_run(fitted_run, [path], tmp_path / "scores.json")
    assert {row["part"] for row in rows} == {"test"}
    assert {row["num_known_units"] for row in rows} == {3}


@pytest.fixture(scope="module")
def first_half(halves) -> Recording:
    [recording] = load_recordings(halves[0])
    return recording


@pytest.fixture(scope="module")
def tested(fitted_run) -> tuple[float, float]:
    """When the first half's test part lies, seconds."""
    [row] = json.loads((fitted_run / "splits.json").read_text())
    [(start, end)] = row["test"]
    return start, end


def by_decoder(rows: list[dict]) -> dict[tuple, dict]:
    return {(row["arm"], row["labels"]): row for row in rows}


def test_a_stretch_of_the_training_recording_is_scored_on_its_test_part_alone(
    fitted_run, halves, first_half, tested, tmp_path
):
    # from within the training part to within the test part
    middle = np.searchsorted(first_half.timestamps, np.mean(tested))
    path = save_recording(cut(first_half, 100, int(middle)), tmp_path)
    rows = evaluate_run(fitted_run, [path], tmp_path / "scores.json")
    whole = evaluate_run(fitted_run, [halves[0]], tmp_path / "whole.json")
    for decoder, row in by_decoder(rows).items():
        assert row["part"] == "test"
        assert 0 < row["num_test"] < by_decoder(whole)[decoder]["num_test"]


def test_a_stretch_that_was_all_learned_from_is_refused(fitted_run, first_half, tested, tmp_path):
    start = int(np.searchsorted(first_half.timestamps, tested[0]))
    path = save_recording(cut(first_half, 0, start), tmp_path)
    with pytest.raises(ValueError, match=r"has no window of drifting_gratings to score"):
        evaluate_run(fitted_run, [path], tmp_path / "scores.json")


def test_the_whole_session_of_a_half_that_was_learned_from_is_scored_on_the_test_part(
    fitted_run, halves, session, tmp_path
):
    path = save_recording(session, tmp_path)
    rows = by_decoder(evaluate_run(fitted_run, [path], tmp_path / "scores.json"))
    expected = by_decoder(evaluate_run(fitted_run, [halves[0]], tmp_path / "half.json"))
    assert rows.keys() == expected.keys()
    for decoder, row in rows.items():
        for column in ("part", "num_test", "scores"):
            assert row[column] == expected[decoder][column]


def save_later(halves, run, folder, seconds_early: float):
    """The second half, said to begin so long before the first half's last sample has ended."""
    [later] = load_recordings(halves[1])
    [row] = json.loads((run / "splits.json").read_text())
    timestamps = later.timestamps.copy()
    timestamps[0] = row["segments"][-1][1] - seconds_early
    return save_recording(replace(later, timestamps=timestamps), folder)


def test_jitter_between_two_parts_of_a_session_is_no_overlap(fitted_run, halves, tmp_path):
    path = save_later(halves, fitted_run, tmp_path, 0.04)  # of a sample's 0.1 s
    rows = evaluate_run(fitted_run, [path], tmp_path / "scores.json")
    assert {row["part"] for row in rows} == {"whole recording"}


def test_a_single_sample_of_overlap_makes_it_the_same_recording(fitted_run, halves, tmp_path):
    path = save_later(halves, fitted_run, tmp_path, 0.06)
    with pytest.raises(ValueError, match="has no window of drifting_gratings to score"):
        evaluate_run(fitted_run, [path], tmp_path / "scores.json")


def test_a_recording_that_was_not_divided_for_the_task_is_not_scored_whole(
    fitted_run, halves, tmp_path
):
    other = shutil.copytree(fitted_run, tmp_path / "run")
    [row] = json.loads((other / "splits.json").read_text())
    (other / "splits.json").write_text(json.dumps([{**row, "task": "orientation"}]))
    with pytest.raises(
        ValueError, match=r"learned from recording 'sim0-Sst-0' without a test part for direction"
    ):
        evaluate_run(other, [halves[0]], tmp_path / "scores.json")


def test_a_renamed_copy_is_normalised_by_its_own_statistics(session, tmp_path):
    days = [
        replace(session, recording_id="quiet"),
        # by the average of both days every sample would be clipped
        replace(session, recording_id="loud", df_over_f=session.df_over_f + 100),
    ]
    files = [save_recording(day, tmp_path / day.recording_id) for day in days]
    rows = finetune_decoder(files, tmp_path / "decoder", replace(FINETUNE, with_teacher=True))
    # of two files that hold one recording each is called after its file
    twice = [shutil.copy(files[1], tmp_path / name) for name in ("one.h5", "two.h5")]
    again = evaluate_run(tmp_path / "decoder", twice, tmp_path / "scores.json")
    expected = {row["recording_id"]: row["scores"] for row in rows}["loud"]
    assert [row["recording_id"] for row in again] == ["one", "two"]
    assert [row["part"] for row in again] == ["test", "test"]
    assert [row["scores"] for row in again] == [expected, expected]


def test_recordings_of_other_cells_are_left_out_and_named(fitted_run, halves, tmp_path, caplog):
    stranger = save_recording(tiny_observatory()[1], tmp_path)
    rows = evaluate_run(fitted_run, [halves[1], stranger], tmp_path / "scores.json")
    assert {row["recording_id"] for row in rows} == {"sim0-Sst-0"}
    assert "knows none of the 8 units of recording 'sim0-Cux2-0'" in caplog.text


def test_a_run_that_knows_no_unit_is_refused(fitted_run, tmp_path):
    stranger = save_recording(tiny_observatory()[1], tmp_path)
    with pytest.raises(ValueError, match=r"No decoder in .* could be scored: .*knows none"):
        evaluate_run(fitted_run, [stranger], tmp_path / "scores.json")
    assert not (tmp_path / "scores.json").exists()


def test_a_recording_without_the_stimulus_is_refused_by_name(fitted_run, session, tmp_path):
    path = save_recording(replace(session, stimuli={}, templates={}), tmp_path)
    with pytest.raises(ValueError, match="'sim0-Sst-0' cannot answer direction"):
        evaluate_run(fitted_run, [path], tmp_path / "scores.json")


def test_one_decoder_out_of_a_run_is_not_scored_as_if_it_had_learned_nothing(
    fitted_run, halves, tmp_path
):
    inside = fitted_run / "decoders/direction/all/ridge/labels-100/seed-0"
    with pytest.raises(ValueError, match=r"is no run: experiment.json .*not one inside it"):
        evaluate_run(inside, [halves[0]], tmp_path / "scores.json")


def test_a_run_without_decoders_is_refused(fitted_run, halves, tmp_path):
    for name in ("experiment.json", "splits.json"):
        shutil.copy(fitted_run / name, tmp_path / name)
    with pytest.raises(ValueError, match="holds no fitted decoder"):
        evaluate_run(tmp_path, [halves[0]], tmp_path / "scores.json")


# pretrain, finetune --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return [save_recording(recording, folder) for recording in tiny_observatory()]


@pytest.fixture(scope="module")
def encoder(files, tmp_path_factory):
    directory = tmp_path_factory.mktemp("encoder")
    pretrain_encoder(files, directory, PRETRAIN)
    return directory


@pytest.mark.parametrize(
    "options",
    [
        {
            "objective": "masked_activity",
            "masked_activity": MaskedActivityConfig(remove_modes=1),
            "label_weight": 0.1,
        },
        {
            "objective": "masked_latents",
            "masked_latents": MaskedLatentsConfig(target="ema"),
            "label_weight": 0.01,
        },
        {"objective": "split_units", "split_units": SplitUnitsConfig(remove_modes=1)},
        {"objective": "labels", "label_weight": 1.0, "label_task": "temporal_frequency"},
    ],
    ids=lambda options: options["objective"],
)
def test_every_objective_pretrains_from_files(files, tmp_path, options):
    config = PretrainingConfig(**options, training=few_steps(3, batch_size=64).training)
    pretrain_encoder(files[:1], tmp_path, replace(PRETRAIN, pretraining=config))
    assert load_encoder(tmp_path).config == ENCODER
    assert (tmp_path / "curves.csv").is_file()


def test_pretraining_saves_an_encoder_of_the_predictable_units(files, encoder, tmp_path):
    stage = PredictabilityStage(predictability=PREDICTABILITY, splits=SPLITS)
    units = measure_predictability(files, tmp_path / "units.csv", stage).units
    loaded = load_encoder(encoder)
    assert loaded.config == ENCODER
    known = set(list(loaded.unit_embedding.vocab)[1:])
    assert known == set(units.loc[units["is_predictable"], "unit_id"])
    curves = pd.read_csv(encoder / "curves.csv")
    assert "valid/loss" in set(curves["metric"])


def test_finetuning_takes_the_pretrained_encoder_whatever_size_the_options_say(
    files, encoder, tmp_path
):
    options = replace(FINETUNE, encoder=replace(ENCODER, dim=24))
    rows = finetune_decoder(files, tmp_path, options, encoder)
    decoder = load_decoder(tmp_path)
    assert decoder.question.arm == "pretrained"
    assert decoder.networks[0].encoder.config == ENCODER
    assert [row["arm"] for row in rows] == ["pretrained", "pretrained"]
    known = list(decoder.networks[0].encoder.unit_embedding.vocab)[1:]
    pretrained = list(load_encoder(encoder).unit_embedding.vocab)[1:]
    assert known[: len(pretrained)] == pretrained
    assert len(known) == 16


def run_twice(stage, directory, monkeypatch) -> None:
    """Ends a stage in the middle of its fit, and calls it again."""

    def stop(module, optimizer) -> None:
        if module.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(WindowModule, "on_before_zero_grad", stop)
        with pytest.raises(SystemExit):
            stage(directory)
    assert [path.name for path in (directory / "checkpoints").iterdir()] == ["step-00000002.ckpt"]
    assert not (directory / "weights.safetensors").exists()
    stage(directory)


def test_pretraining_that_was_stopped_goes_on_when_called_again(
    files, encoder, tmp_path, monkeypatch
):
    training = replace(PRETRAIN.pretraining.training, checkpoint_every=2)
    options = replace(PRETRAIN, pretraining=replace(PRETRAIN.pretraining, training=training))
    run_twice(lambda output: pretrain_encoder(files, output, options), tmp_path, monkeypatch)
    for name in ("weights.safetensors", "curves.csv"):
        assert (tmp_path / name).read_bytes() == (encoder / name).read_bytes()


def test_finetuning_that_was_stopped_goes_on_when_called_again(
    files, encoder, tmp_path, monkeypatch
):
    training = replace(FINETUNE.finetuning.training, checkpoint_every=2)
    options = replace(FINETUNE, finetuning=replace(FINETUNE.finetuning, training=training))
    through = finetune_decoder(files, tmp_path / "through", options, encoder)
    run_twice(
        lambda output: finetune_decoder(files, output, options, encoder), tmp_path, monkeypatch
    )
    again = finetune_decoder(files, tmp_path, options, encoder)  # at once, what was fitted
    assert again == through
    with pytest.raises(CheckpointError, match=r"start: \w+ there, fresh here"):
        finetune_decoder(files, tmp_path, options)


def test_finetuned_decoders_are_scored_again_as_they_were(files, tmp_path):
    options = replace(FINETUNE, with_teacher=True, labels=LabelBudget(fraction=0.5), seed=2)
    rows = finetune_decoder(files, tmp_path, options)
    assert {row["arm"] for row in rows} == {"scratch + teacher"}
    again = evaluate_run(tmp_path, files, tmp_path / "scores.json")
    by_name = {row["recording_id"]: row for row in rows}
    assert {row["recording_id"]: row for row in again} == by_name
    for row in again:
        assert (row["units"], row["labels"], row["seed"]) == ("all", "50%", 2)
    pd.testing.assert_frame_equal(
        *(pd.read_csv(tmp_path / name) for name in ("predictions.csv", "scores.predictions.csv"))
    )


def test_adapting_from_files_writes_every_answer(files, encoder, tmp_path):
    options = AdaptStage(splits=SPLITS, predictability=PREDICTABILITY, finetuning=few_steps(3))
    [row] = adapt_decoder(files[:1], tmp_path, options, encoder).scores
    answers = read_predictions(tmp_path / "predictions.csv", ["recording", "truth", "answer"])
    assert set(answers["recording"]) == {row["recording_id"]}
    is_right = answers["truth"] == answers["answer"]
    assert (len(is_right), is_right.mean()) == (row["num_test"], row["scores"]["accuracy"])


@pytest.mark.parametrize("task", ["movie_frame", "movie_held_out"])
def test_movies_are_finetuned_from_files_too(files, tmp_path, task):
    [row] = finetune_decoder(files[:1], tmp_path, replace(FINETUNE, task=task))
    metric = {"movie_frame": "within_1s", "movie_held_out": "ssim"}[task]
    assert next(iter(row["scores"])) == metric
    assert (row["chance"] is None) == (task == "movie_held_out")


def test_an_encoder_of_another_rate_is_refused(files, tmp_path):
    save_encoder(Encoder(ENCODER, 30.0), tmp_path / "encoder")
    with pytest.raises(RecordingError, match=r"pretrained at 30\.00 Hz.*sampled at 10\.00 Hz"):
        finetune_decoder(files, tmp_path / "decoder", FINETUNE, tmp_path / "encoder")


def test_a_group_without_units_is_refused(files, tmp_path):
    impossible = replace(PREDICTABILITY, kurtosis_max=1e-3)
    with pytest.raises(ValueError, match=r"No unit of 2 recordings is predictable.*Raise"):
        pretrain_encoder(files, tmp_path, replace(PRETRAIN, predictability=impossible))


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="Unknown task 'smell'"):
        FinetuneStage(task="smell")
    with pytest.raises(ValueError, match="Unknown group of units 'some'"):
        FinetuneStage(units="some")
    with pytest.raises(ValueError, match="with_teacher needs a label task; movie asks for images"):
        FinetuneStage(task="movie", with_teacher=True)


# predictability ------------------------------------------------------------------------------


def test_predictability_ignores_what_is_withheld(session, tmp_path):
    options = PredictabilityStage(predictability=PREDICTABILITY, splits=SPLITS)
    tables = []
    for scale in (1.0, 50.0):
        changed = session.df_over_f.copy()
        is_tested = session.timestamps > 180.0  # the last gratings of the last block
        changed[is_tested] *= scale
        path = save_recording(replace(session, df_over_f=changed), tmp_path / f"in-{scale}")
        measure_predictability([path], tmp_path / f"{scale}.csv", options)
        tables.append((tmp_path / f"{scale}.csv").read_text())
    assert tables[0] == tables[1]


@pytest.mark.parametrize("stage", [pretrain_encoder, finetune_decoder, adapt_decoder])
def test_a_directory_that_another_process_writes_to_is_refused(stage, files, tmp_path):
    with alone_in(tmp_path / "out"), pytest.raises(OutputError, match="Another process"):
        stage(files, tmp_path / "out")
