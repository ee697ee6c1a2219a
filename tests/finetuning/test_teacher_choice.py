"""Which closed form a network learns from is chosen on training labels alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from poyo_ssl.decoders.linear import LinearReadout
from poyo_ssl.finetuning import teacher_choice
from poyo_ssl.finetuning.finetune import finetune
from poyo_ssl.finetuning.teacher_choice import BLENDS, choose_blend, choose_teacher, weigh
from poyo_ssl.finetuning.teachers import TEACHERS, ridge_readout
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.label_budget import LabelBudget, LeftOut
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import DIRECTION
from tiny_fits import ENCODER, few_steps, setting_of


@pytest.fixture
def setting(tiny_recording, split_config):
    divided = divide([tiny_recording], [DIRECTION], split_config)
    return setting_of(Population(divided, {"tiny": list(tiny_recording.unit_ids)}), DIRECTION)


def knowing_nothing(setting) -> LinearReadout:
    readout = ridge_readout(setting, 1)
    return replace(readout, weights=np.zeros_like(readout.weights))


def ridge(setting) -> LinearReadout:
    return ridge_readout(setting, 1)


def test_parts_left_out_are_of_all_classes_and_together_all_windows(setting):
    [divided] = setting.population.divided
    everything = setting.training_windows(divided)
    parts = setting.leaving_out(3)
    left_out = [part.left_out_windows(divided) for part in parts]
    assert sorted(np.concatenate([w.first_timestep for w in left_out])) == sorted(
        everything.first_timestep
    )
    for part, windows in zip(parts, left_out, strict=True):
        kept = part.training_windows(divided)
        assert not set(kept.first_timestep) & set(windows.first_timestep)
        assert len(kept) + len(windows) == len(everything)
        assert set(windows.target) == set(everything.target)


def test_what_is_left_out_stays_out_of_every_choice_within(setting):
    """How much the network counts is judged by windows that did not choose its teacher either."""
    [divided] = setting.population.divided
    outer = setting.leaving_out(5)[-1]
    judging = set(outer.left_out_windows(divided).first_timestep)
    for inner in outer.leaving_out(2):
        kept = set(inner.training_windows(divided).first_timestep)
        left = set(inner.left_out_windows(divided).first_timestep)
        assert not judging & (kept | left)
        assert kept | left == set(outer.training_windows(divided).first_timestep)


def test_the_one_that_tells_left_out_windows_is_taken_whatever_its_place(setting):
    for names in (("ridge", "nothing"), ("nothing", "ridge")):
        known = {"ridge": ridge, "nothing": knowing_nothing}
        chosen = choose_teacher({name: known[name] for name in names}, setting)
        expected = ridge(setting)
        factor = np.abs(chosen.weights).max() / np.abs(expected.weights).max()
        np.testing.assert_allclose(chosen.weights, factor * expected.weights, rtol=1e-5)


def test_test_windows_decide_nothing(setting, monkeypatch):
    def never(self, divided, task, part, num_timesteps):
        assert part != "test"
        return windows(self, divided, task, part, num_timesteps)

    windows = type(setting.population.divided).windows
    monkeypatch.setattr(type(setting.population.divided), "windows", never)
    assert TEACHERS["chosen"].fit(setting).weights.any()


def test_a_softmax_at_the_temperature_is_calibrated(setting):
    """Scores of another scale make the same teacher: what it says is as sure as it was right."""
    temperature = setting.config.teacher.temperature
    chosen = choose_teacher({"ridge": ridge}, setting)
    larger = choose_teacher({"ridge": lambda s: ridge(s).scaled(10.0)}, setting)
    np.testing.assert_allclose(larger.weights, chosen.weights, rtol=0.3)  # a step of the grid
    colder = replace(setting.config, teacher=replace(setting.config.teacher, temperature=0.3))
    other = choose_teacher({"ridge": ridge}, replace(setting, config=colder))
    np.testing.assert_allclose(other.weights, 0.3 / temperature * chosen.weights, rtol=1e-5)


def test_one_label_a_class_takes_the_first(setting):
    few = replace(setting, labels=LabelBudget(per_class=1))
    chosen = choose_teacher({"nothing": knowing_nothing, "ridge": ridge}, few)
    assert not chosen.weights.any()


def test_the_network_counts_more_than_given_only_where_that_is_clearly_better(rng):
    target = np.arange(400) % 4
    knowing = np.eye(4)[target] + 0.5 * rng.normal(size=(400, 4))
    noise = rng.normal(size=(400, 4))
    assert weigh(noise, knowing, target, 0.5) >= 4.0
    assert weigh(knowing, noise, target, 0.5) == BLENDS[0]
    assert weigh(knowing, knowing, target, 0.5) == 0.5
    few = np.arange(6)
    assert weigh(noise[few], noise[few + 100], target[few], 0.5) == 0.5


def test_with_few_labels_its_weight_is_the_one_given(setting):
    few = replace(setting, labels=LabelBudget(per_class=2))
    assert choose_blend(ridge, few, ENCODER) == few.config.teacher.blend


def test_what_is_left_out_is_not_learned_from(setting, monkeypatch):
    """The fit that weighs network and teacher has all windows but those of one part."""
    seen = []
    fit = teacher_choice.finetune

    def watched(*args, left_out, **options):
        seen.append(left_out)
        return fit(*args, left_out=left_out, **options)

    monkeypatch.setattr(teacher_choice, "finetune", watched)
    choose_blend(ridge, replace(setting, config=few_steps(1)), ENCODER)
    assert seen == [LeftOut(4, 5)]
    [divided] = setting.population.divided
    target = setting.training_windows(divided).target
    kept, left = seen[0].kept(target), seen[0].left(target)
    assert len(kept) == pytest.approx(0.8 * len(target), abs=4)
    assert not set(kept) & set(left)


def taught_by(teacher: LinearReadout, setting):
    return finetune(
        setting.population, setting.task, ENCODER, few_steps(1), teacher=teacher, seed=setting.seed
    )


def test_a_teacher_that_says_the_same_of_all_windows_leaves_the_network_alone(setting):
    """Blind to what all units share, a ridge on one unit has no weight left."""
    nothing = knowing_nothing(setting)
    decoder = taught_by(replace(nothing, intercepts=np.zeros_like(nothing.intercepts)), setting)
    activity = setting.population.activity["tiny"]
    first = setting.training_windows(setting.population.divided[0]).first_timestep
    answer, alone = decoder.answer(activity, first), decoder.network_scores(activity, first)
    assert np.isfinite(answer).all()
    np.testing.assert_array_equal(answer.argmax(axis=1), alone.argmax(axis=1))


def test_an_answer_without_a_label_does_not_quieten_the_teacher(setting, monkeypatch):
    teacher = ridge(setting)
    spread = taught_by(teacher, setting).spread[0]
    [divided] = setting.population.divided
    target = setting.training_windows(divided).target
    windows = type(setting.population.divided).windows

    def without_class_0(*args, **options):
        found = windows(*args, **options)
        return found.take(np.flatnonzero(found.target != 0))

    assert 0 in target
    monkeypatch.setattr(type(setting.population.divided), "windows", without_class_0)
    is_shown = np.arange(teacher.num_scores)[None] > 0
    assert taught_by(replace(teacher, is_shown=is_shown), setting).spread[0] < 2 * spread
