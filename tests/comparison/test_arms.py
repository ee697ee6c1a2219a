"""All arms of a comparison answer the same question about the same windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import poyo_ssl.finetuning.teachers
from poyo_ssl.comparison.arms import ARMS, arms_for, network_arm
from poyo_ssl.decoders import value_decoders
from poyo_ssl.decoders.linear import LinearReadout
from poyo_ssl.decoders.reference_decoders import LabelReadout, PixelReadout
from poyo_ssl.evaluation.evaluate import evaluate_recording
from poyo_ssl.finetuning.teachers import NUM_BINS, label_teacher
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.label_budget import LabelBudget
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import DIRECTION, MOVIE, MOVIE_FRAME, MOVIE_HELD_OUT, ORIENTATION
from tiny_fits import ENCODER, few_steps, fit_arm, setting_of

LINEAR = ("ridge", "ridge, time bins", "ridge, semi-supervised", "logistic", "condition posterior")
LOOK_UPS = ("nearest frame", "frame posterior", "frame filter")
NETWORKS = ("scratch", "scratch + teacher", "pretrained")
ALL = {**ARMS, "pretrained": network_arm("pretrained", is_pretrained=True)}


@pytest.fixture(scope="module")
def two_recordings(tiny_recording, split_config) -> Population:
    """The tiny session, and one of three other cells that saw the same."""
    other = replace(
        tiny_recording,
        recording_id="other",
        df_over_f=tiny_recording.df_over_f[:, :3],
        units=pd.DataFrame({"unit_id": ["x", "y", "z"]}),
    )
    divided = divide([tiny_recording, other], [DIRECTION, MOVIE_FRAME, MOVIE], split_config)
    return Population(
        divided, {d.recording.recording_id: list(d.recording.unit_ids) for d in divided}
    )


def pretrained_encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(ENCODER, 10.0)
    encoder.add_units(["tiny-0", "x"])
    return encoder


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (DIRECTION, [*LINEAR, *NETWORKS]),
        (MOVIE_FRAME, [*LOOK_UPS, "scratch", "pretrained"]),
        (MOVIE, ["mean frame", *LOOK_UPS, "ridge to pixels", *NETWORKS]),
        (MOVIE_HELD_OUT, ["mean frame", *LOOK_UPS, "ridge to pixels", *NETWORKS]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_every_kind_of_task_has_its_arms(task, expected):
    assert arms_for(task, NETWORKS, ALL) == expected


@pytest.mark.parametrize(
    ("task", "arm"), [("direction", a) for a in LINEAR] + [("movie", "ridge to pixels")]
)
def test_windows_of_fewer_samples_than_bins_are_resolved_by_sample(
    tiny_recording, split_config, task, arm
):
    """At 10 Hz a window of 0.3 s has three samples, and reference decoders ask for five bins."""
    divided = divide([tiny_recording], [f"{task},window_length=0.3"], split_config)
    [task] = divided.tasks.values()
    population = Population(divided, {"tiny": list(tiny_recording.unit_ids)})
    setting = replace(setting_of(population, task), encoder=replace(ENCODER, patch_length=0.1))
    assert setting.num_timesteps == 3
    decoder = fit_arm(arm, setting)
    assert np.isfinite(decoder.predict(tiny_recording, np.array([0, 5]))).all()


def test_reference_decoders_are_there_even_without_any_network():
    assert arms_for(DIRECTION, ()) == list(LINEAR)
    assert arms_for(DIRECTION, ("scratch",))[-1] == "scratch"


def test_an_unknown_arm_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"Unknown arms \['mlp'\]. Choose from: ridge, .*scratch"):
        arms_for(DIRECTION, ("scratch", "mlp"))


@pytest.mark.parametrize("task", [DIRECTION, MOVIE_FRAME, MOVIE], ids=lambda task: task.name)
def test_every_arm_is_scored_on_the_same_test_windows(two_recordings, task, monkeypatch):
    pictures = two_recordings.divided.pictures(task).numpy() if task.kind == "images" else None
    scored: dict[str, list[np.ndarray]] = {}
    for arm in arms_for(task, NETWORKS, ALL):
        decoder = fit_arm(arm, setting_of(two_recordings, task, pretrained=pretrained_encoder))
        predict, asked = decoder.predict, scored.setdefault(arm, [])

        def spy(recording, first_timestep, predict=predict, asked=asked):
            asked.append(first_timestep)
            return predict(recording, first_timestep)

        monkeypatch.setattr(decoder, "predict", spy)
        for divided in two_recordings.divided.answering(task):
            evaluation = evaluate_recording(
                decoder, divided.recording, divided.splits[task.name], pictures=pictures
            )
            asked.append(evaluation.target)
            windows = two_recordings.divided.windows(
                divided, task, "test", decoder.question.num_timesteps
            )
            assert np.array_equal(asked[-2], windows.first_timestep)
            assert np.array_equal(asked[-1], windows.target)
    assert len(scored) == len(arms_for(task, NETWORKS, ALL))
    first = scored.pop(next(iter(scored)))
    assert len(first) == 4
    for arm, asked in scored.items():
        assert all(np.array_equal(*pair) for pair in zip(first, asked, strict=True)), arm


FITTED_ONCE = [
    name
    for name, arm in ARMS.items()
    if not (arm.is_seeded or arm.needs_tuning or arm.needs_alignment)
]


@pytest.mark.parametrize("arm", FITTED_ONCE)
def test_arms_that_are_fitted_once_do_not_depend_on_the_seed(two_recordings, monkeypatch, arm):
    monkeypatch.setattr(value_decoders, "MOST_KERNEL_WINDOWS", 100)
    task = DIRECTION if "labels" in ARMS[arm].kinds else MOVIE
    one, two = (
        fit_arm(arm, setting_of(two_recordings, task, seed=seed)).state()[1] for seed in (0, 5)
    )
    assert all(np.array_equal(one[k].numpy(), two[k].numpy(), equal_nan=True) for k in one)


def test_ridge_of_two_recordings_knows_the_units_of_both(two_recordings, split_config):
    decoder = fit_arm("ridge", setting_of(two_recordings, DIRECTION))
    assert isinstance(decoder, LabelReadout)
    assert decoder.readout.unit_ids == two_recordings.unit_ids
    for divided in two_recordings.divided:
        # other cells do not enter: each recording is answered as by a ridge of its own
        ids = {divided.recording.recording_id: list(divided.recording.unit_ids)}
        alone = fit_arm("ridge", setting_of(Population([divided], ids), DIRECTION))
        first = np.array([650, 700, 2200])
        expected = alone.predict(divided.recording, first)
        assert np.allclose(decoder.predict(divided.recording, first), expected, atol=1e-4)


@pytest.mark.parametrize(("cost", "num_bins"), [(0.9, NUM_BINS), (1.0, NUM_BINS), (1.1, 1)])
def test_a_teacher_uses_time_bins_where_they_cost_nothing(
    two_recordings, monkeypatch, cost, num_bins
):
    def error(features, target):
        # nine units in two recordings: the mean activity has six and three features
        return cost if features.shape[1] in (6 * NUM_BINS, 3 * NUM_BINS) else 1.0

    monkeypatch.setattr(poyo_ssl.finetuning.teachers, "leave_one_out_error", error)
    teacher = label_teacher(setting_of(two_recordings, DIRECTION))
    assert isinstance(teacher, LinearReadout)
    assert teacher.num_bins == num_bins


def test_the_mean_frame_is_that_of_the_pictures_shown_in_training(tiny_population, tiny_divided):
    setting = setting_of(tiny_population, MOVIE_HELD_OUT)
    decoder = fit_arm("mean frame", setting)
    shown = np.unique(setting.training_windows(tiny_divided).target)
    assert 0 < len(shown) < 100
    pictures = tiny_population.divided.pictures(MOVIE_HELD_OUT).numpy()
    answer = decoder.predict(tiny_divided.recording, np.array([5, 9]))
    assert np.allclose(answer, pictures[shown].mean(axis=0), atol=1e-6)


def test_the_look_up_answers_with_pictures_shown_in_training(tiny_population, tiny_divided):
    setting = setting_of(tiny_population, MOVIE_HELD_OUT)
    decoder = fit_arm("nearest frame", setting)
    shown = np.unique(setting.training_windows(tiny_divided).target)
    pictures = tiny_population.divided.pictures(MOVIE_HELD_OUT).numpy()
    answers = decoder.predict(tiny_divided.recording, np.arange(0, 550, 10))
    for answer in answers:
        assert (pictures[shown] == answer).all(axis=(1, 2)).any()


def test_the_movie_network_with_a_teacher_starts_from_the_teachers_pictures(
    tiny_population, tiny_recording
):
    config = few_steps(max_steps=1, lr=1e-30)
    setting = setting_of(tiny_population, MOVIE_HELD_OUT, config=config)
    first = np.arange(0, 550, 50)
    ridge = fit_arm("ridge to pixels", setting)
    assert isinstance(ridge, PixelReadout)
    corrected = fit_arm("scratch + teacher", setting).predict(tiny_recording, first)
    assert np.allclose(corrected, ridge.predict(tiny_recording, first), atol=1e-5)


# learning from an earlier day --------------------------------------------------------------------


def test_arms_that_need_an_earlier_day_are_there_only_with_one():
    without = arms_for(DIRECTION, NETWORKS, ALL)
    with_one = arms_for(DIRECTION, NETWORKS, ALL, has_tuning=True)
    assert set(with_one) - set(without) == {"ridge, transferred", "ridge, transferred, shuffled"}


def day_before(recording, split_config) -> list:
    """The same cells and gratings on another day, as if they were static ones."""
    table = recording.stimulus("drifting_gratings")
    renamed = {"static_gratings": table.assign(orientation=table["orientation"] % 180)}
    earlier = replace(recording, recording_id="day-before", stimuli=renamed)
    return divide([earlier], [ORIENTATION], split_config)


@pytest.mark.parametrize("arm", ["ridge, transferred", "scratch + transferred teacher"])
def test_what_was_learned_on_an_earlier_day_can_be_decoded(
    tiny_population, tiny_recording, split_config, arm
):
    setting = replace(
        setting_of(tiny_population, DIRECTION, labels=LabelBudget(per_class=1)),
        earlier=day_before(tiny_recording, split_config),
    )
    [divided] = tiny_population.divided.answering(DIRECTION)
    found = evaluate_recording(
        fit_arm(arm, setting), divided.recording, divided.splits["direction"]
    )
    assert 0 <= found.scores["accuracy"] <= 1


def test_tuning_of_other_cells_is_another_decoder(tiny_population, tiny_recording, split_config):
    setting = replace(
        setting_of(tiny_population, DIRECTION, labels=LabelBudget(per_class=1)),
        earlier=day_before(tiny_recording, split_config),
    )
    own, shuffled = (
        fit_arm(arm, setting).readout.weights
        for arm in ("ridge, transferred", "ridge, transferred, shuffled")
    )
    assert not np.allclose(own, shuffled)
