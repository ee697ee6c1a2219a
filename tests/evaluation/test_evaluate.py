"""Scores are what one would compute by hand, over every test window."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from skimage.metrics import peak_signal_noise_ratio

from poyo_ssl.decoders.fitted_decoder import FittedDecoder, Origin, Question
from poyo_ssl.evaluation.evaluate import PREDICTIONS, chance_level, evaluate_recording
from poyo_ssl.metrics.pictures import structural_similarity
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import Splits
from poyo_ssl.windows.tasks import DIRECTION, MOVIE_FRAME, MOVIE_HELD_OUT, Task
from tiny_fits import ENCODER


class Oracle(FittedDecoder):
    """Answers with whatever it was told, and remembers which windows it was asked about."""

    KIND = "oracle"

    def __init__(self, question: Question, answers) -> None:
        super().__init__(question)
        self.answers = answers
        self.asked = np.array([])

    def answer(self, activity, first_timestep):
        self.asked = first_timestep
        return self.answers(len(first_timestep))

    def state(self):
        return {}, {}

    @classmethod
    def of(cls, question, settings, tensors):
        raise AssertionError("an oracle is never saved, so never loaded")


def oracle(population: Population, task: Task, answers) -> Oracle:
    question = Question(
        arm="oracle",
        task=task,
        classes=population.divided.classes(task),
        num_timesteps=ENCODER.window_timesteps(task.window_length, 10.0),
        sampling_rate=10.0,
        scale=population.scale,
    )
    return Oracle(question, answers)


@pytest.fixture(scope="module")
def population(tiny_recording, split_config) -> Population:
    divided = divide([tiny_recording], [DIRECTION, MOVIE_FRAME, MOVIE_HELD_OUT], split_config)
    return Population(divided, {"tiny": list(tiny_recording.unit_ids)})


@pytest.fixture(scope="module")
def splits(population):
    return population.divided[0].splits


def shown_inside(table: pd.DataFrame, parts: np.ndarray) -> pd.DataFrame:
    starts = table["start"].to_numpy()
    return table[np.any([(starts >= a) & (starts < b - 1e-6) for a, b in parts], axis=0)]


# which windows -------------------------------------------------------------------------------


def test_every_test_trial_with_an_answer_is_scored(population, tiny_recording, splits):
    table = tiny_recording.stimulus("drifting_gratings").copy()
    table.loc[table.index[-1], "orientation"] = np.nan  # a blank sweep, which has no answer
    recording = replace(tiny_recording, stimuli={"drifting_gratings": table})
    trials = shown_inside(table, splits["direction"].test)[:-1]
    assert len(trials) == 11
    decoder = oracle(population, DIRECTION, lambda count: np.zeros((count, 4)))
    evaluation = evaluate_recording(decoder, recording, splits["direction"])
    assert np.allclose(tiny_recording.timestamps[decoder.asked], trials["start"] + 0.3)
    assert np.array_equal(evaluation.target, trials["orientation"] // 90)


def test_movie_frames_of_every_repeat_are_scored_where_a_window_does_not_reach_training(
    population, tiny_recording, splits
):
    parts = splits["movie_held_out"]
    shown = shown_inside(tiny_recording.stimulus("natural_movie_one"), parts.test)
    # validation lies just before: windows of 0.7 s before a frame must not reach into it
    first_allowed = [start + 0.7 for start, _ in parts.test]
    expected = [
        row.movie_frame
        for row in shown.itertuples()
        for first, (start, end) in zip(first_allowed, parts.test, strict=True)
        if start <= row.start < end and row.start > first - 1e-6
    ]
    decoder = oracle(population, MOVIE_HELD_OUT, lambda count: np.zeros((count, 64, 128)))
    pictures = population.divided.pictures(MOVIE_HELD_OUT).numpy()
    evaluation = evaluate_recording(decoder, tiny_recording, parts, pictures=pictures)
    assert evaluation.target.tolist() == expected
    assert len(expected) == 6 * 13  # six repeats of 20 held-out frames, less the first 7


def test_a_whole_recording_is_scored_where_no_part_is_named(population, tiny_recording):
    decoder = oracle(population, DIRECTION, lambda count: np.zeros((count, 4)))
    evaluation = evaluate_recording(decoder, tiny_recording)
    trials = tiny_recording.stimulus("drifting_gratings").dropna()
    assert len(evaluation.target) == len(trials)


def test_a_part_without_a_window_is_refused(population, tiny_recording):
    decoder = oracle(population, DIRECTION, lambda count: np.zeros((count, 4)))
    nothing = Splits(
        train=np.array([[65.0, 100.0]]), valid=np.empty((0, 2)), test=np.array([[10.0, 20.0]])
    )
    with pytest.raises(
        RecordingError, match=r"'tiny' has no window of drifting_gratings to score: 60 present"
    ):
        evaluate_recording(decoder, tiny_recording, nothing)


def test_a_recording_of_blank_sweeps_is_refused(population, tiny_recording):
    table = tiny_recording.stimulus("drifting_gratings").assign(orientation=np.nan)
    blank = replace(tiny_recording, stimuli={"drifting_gratings": table})
    decoder = oracle(population, DIRECTION, lambda count: np.zeros((count, 4)))
    with pytest.raises(RecordingError, match="none of which has a known answer"):
        evaluate_recording(decoder, blank)


def test_a_recording_without_the_stimulus_is_refused(population, tiny_recording):
    other = replace(tiny_recording, stimuli={}, templates={})
    decoder = oracle(population, DIRECTION, lambda count: np.zeros((count, 4)))
    with pytest.raises(RecordingError, match=r"has no drifting_gratings \(found: no stimulus"):
        evaluate_recording(decoder, other)


# scores by hand ------------------------------------------------------------------------------


def test_accuracy_is_by_hand(population, tiny_recording, splits):
    decoder = oracle(population, DIRECTION, lambda count: np.tile([0, 5, 1, 2], (count, 1)))
    evaluation = evaluate_recording(decoder, tiny_recording, splits["direction"])
    is_right = evaluation.target == 1
    assert evaluation.recording_id == "tiny"
    assert np.all(evaluation.predicted == 1)
    assert np.array_equal(evaluation.per_window, is_right)
    assert evaluation.scores["accuracy"] == pytest.approx(is_right.mean())
    # recall is 1 in one class and 0 in the others that occur
    num_classes = len(np.unique(evaluation.target))
    assert evaluation.scores["balanced_accuracy"] == pytest.approx(1 / num_classes)
    assert next(iter(evaluation.scores)) == "accuracy"


def test_frames_within_a_second_are_counted_by_hand(population, tiny_recording, splits):
    decoder = oracle(population, MOVIE_FRAME, lambda count: np.full(count, 30))
    evaluation = evaluate_recording(decoder, tiny_recording, splits["movie_frame"])
    is_near = np.abs(evaluation.target - 30) <= 10  # ten movie frames are a second here
    assert 0 < is_near.mean() < 1
    assert np.array_equal(evaluation.per_window, is_near)
    is_close = np.abs(evaluation.target - 30) <= 2
    assert evaluation.scores == {
        "within_1s": pytest.approx(is_near.mean()),
        "within_200ms": pytest.approx(is_close.mean()),
    }


def test_pictures_are_scored_against_those_shown(population, tiny_recording, splits):
    pictures = population.divided.pictures(MOVIE_HELD_OUT).numpy()
    grey = np.full((64, 128), 0.5, dtype=np.float32)
    decoder = oracle(population, MOVIE_HELD_OUT, lambda count: np.repeat(grey[None], count, 0))
    evaluation = evaluate_recording(
        decoder, tiny_recording, splits["movie_held_out"], pictures=pictures
    )
    true = pictures[evaluation.target]
    psnr = [peak_signal_noise_ratio(picture, grey, data_range=1.0) for picture in true]
    assert evaluation.scores["psnr"] == pytest.approx(np.mean(psnr), rel=1e-4)
    expected = structural_similarity(np.repeat(grey[None], len(true), 0), true)
    assert np.allclose(evaluation.per_window, expected)
    assert evaluation.scores["ssim"] == pytest.approx(expected.mean())
    assert next(iter(evaluation.scores)) == "ssim"


def test_perfect_pictures_score_one(population, tiny_recording, splits):
    pictures = population.divided.pictures(MOVIE_HELD_OUT).numpy()
    decoder = oracle(population, MOVIE_HELD_OUT, lambda count: np.zeros((count, 64, 128)))
    target = evaluate_recording(
        decoder, tiny_recording, splits["movie_held_out"], pictures=pictures
    ).target
    right = oracle(population, MOVIE_HELD_OUT, lambda count: pictures[target])
    scores = evaluate_recording(
        right, tiny_recording, splits["movie_held_out"], pictures=pictures
    ).scores
    assert scores["ssim"] == pytest.approx(1, abs=1e-5)
    # as good as a picture that was only rounded to bytes
    rounded = np.random.default_rng(0).random((64, 128))
    noise = peak_signal_noise_ratio(rounded, np.round(255 * rounded) / 255, data_range=1.0)
    assert scores["psnr"] == pytest.approx(noise, abs=0.2)
    assert scores["correlation"] == pytest.approx(1, abs=1e-5)


# predictions ---------------------------------------------------------------------------------


def test_predictions_of_labels_are_by_hand(population, tiny_recording, splits, split_config):
    decoder = oracle(population, DIRECTION, lambda count: np.tile([0.0, 5.0, 1.0, 2.0], (count, 1)))
    decoder.origin = Origin.of("all", 0.5, 3, replace(split_config, folds=4, fold=2))
    found = evaluate_recording(decoder, tiny_recording, splits["direction"]).predictions
    assert tuple(found.columns) == PREDICTIONS
    constant = found.drop(columns=["trial", "onset", "truth", "value"]).drop_duplicates()
    [row] = constant.to_dict(orient="records")
    scores = json.loads(row.pop("scores"))
    assert row == {
        "recording": "tiny", "task": "direction", "arm": "oracle", "units": "all",
        "labels": "50%", "seed": 3, "fold": 2, "answer": "90", "metric": "accuracy",
    }  # fmt: skip
    total = np.log(np.exp([0, 5, 1, 2]).sum())
    assert scores == pytest.approx(
        {"0": -total, "90": 5 - total, "180": 1 - total, "270": 2 - total}, abs=1e-4
    )
    table = tiny_recording.stimulus("drifting_gratings").iloc[found["trial"]]
    assert found["onset"].tolist() == table["start"].tolist()
    assert found["truth"].astype(float).tolist() == table["orientation"].tolist()
    assert found["value"].tolist() == (found["truth"] == "90").astype(float).tolist()


def test_predictions_of_frames_are_frames_and_of_pictures_scores_alone(
    population, tiny_recording, splits
):
    frames = oracle(population, MOVIE_FRAME, lambda count: np.full(count, 30))
    found = evaluate_recording(frames, tiny_recording, splits["movie_frame"]).predictions
    assert set(found["answer"]) == set(found["scores"]) == {"30"}
    assert found["fold"].isna().all()  # what is not known stays empty
    pictures = oracle(population, MOVIE_HELD_OUT, lambda count: np.zeros((count, 64, 128)))
    found = evaluate_recording(
        pictures, tiny_recording, splits["movie_held_out"],
        pictures=population.divided.pictures(MOVIE_HELD_OUT).numpy(),
    ).predictions  # fmt: skip
    assert set(found["answer"]) == set(found["scores"]) == {""}
    assert set(found["metric"]) == {"ssim"}
    movie = tiny_recording.stimulus("natural_movie_one")
    assert found["truth"].astype(int).tolist() == movie["movie_frame"][found["trial"]].tolist()


# chance --------------------------------------------------------------------------------------


def test_chance_of_a_label_is_one_over_the_classes(population, tiny_recording):
    assert chance_level(DIRECTION, tiny_recording, population.divided.classes(DIRECTION)) == 0.25


def test_chance_of_a_frame_within_a_second_is_counted_by_hand(population, tiny_recording):
    frames = np.arange(100)
    is_near = np.abs(frames[:, None] - frames) <= 10
    found = chance_level(MOVIE_FRAME, tiny_recording, population.divided.classes(MOVIE_FRAME))
    assert found == pytest.approx(is_near.mean())


def test_pictures_have_no_chance_level(population, tiny_recording):
    classes = population.divided.classes(MOVIE_HELD_OUT)
    assert chance_level(MOVIE_HELD_OUT, tiny_recording, classes) is None
