"""What was shown beside the property that is asked about helps to tell it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from poyo_ssl.decoders.class_scores import load_scores, save_scores
from poyo_ssl.decoders.condition_posterior import ConditionReadout, ConditionResponses
from poyo_ssl.finetuning.condition_choice import (
    ConditionOptions,
    Conditions,
    condition_posterior,
    possible_others,
)
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.finetuning.teachers import chosen_label_teacher, ridge_readout
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.label_budget import LabelBudget
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import SplitConfig
from tiny_fits import setting_of

RATE, UNITS = 10.0, 12
TASK = "drum/speed,window_length=1.0"


def watching_a_drum(num_repeats: int = 20) -> Recording:
    """Of units that tell the speed by rising with it in one direction, falling in the other."""
    rng = np.random.default_rng(0)
    speed, direction = np.meshgrid([1, 2, 3], ["left", "right"])
    shown = pd.DataFrame({"speed": speed.ravel(), "direction": direction.ravel()})
    shown = pd.concat([shown] * num_repeats, ignore_index=True)
    shown = shown.iloc[rng.permutation(len(shown))].reset_index(drop=True)
    start = np.arange(len(shown)) * 2.0
    activity = rng.normal(0, 0.5, (len(shown) * 20, UNITS))
    sign = np.where(shown["direction"] == "left", 1, -1)
    for trial in range(len(shown)):
        rows = slice(trial * 20, trial * 20 + 10)
        activity[rows, 0] += 5 * sign[trial]
        activity[rows, 1] += (shown["speed"][trial] - 2) * sign[trial]
    table = shown.assign(start=start, end=start + 1.0)
    return Recording(
        recording_id="drum",
        df_over_f=activity.astype(np.float32),
        timestamps=np.arange(len(activity)) / RATE,
        units=pd.DataFrame({"unit_id": [f"u{n}" for n in range(UNITS)]}),
        stimuli={"drum": table},
    )


def setting_with(recording: Recording, labels: LabelBudget | float = 1.0) -> Setting:
    divided = divide([recording], [TASK], SplitConfig(valid_fraction=0.0, test_fraction=0.3))
    population = Population(divided, {"drum": list(recording.unit_ids)})
    return replace(setting_of(population, divided.task(TASK)), labels=labels)


def accuracy(readout, setting) -> float:
    [divided] = setting.population.divided
    windows = setting.population.divided.windows(
        divided, setting.task, "test", setting.num_timesteps
    )
    features = setting.features(divided, windows, readout.num_bins)
    answers = readout.scores(features, setting.unit_ids(divided)).argmax(1)
    return float((answers == windows.target).mean())


def test_a_property_is_told_by_way_of_another():
    setting = setting_with(watching_a_drum())
    readout = condition_posterior(setting)
    assert accuracy(readout, setting) > 0.9
    assert accuracy(ridge_readout(setting, 1), setting) < 0.6
    assert len(readout.class_of) == 6
    chosen = chosen_label_teacher(setting)
    assert isinstance(chosen, ConditionReadout)


def test_what_was_shown_in_tests_is_not_looked_at():
    """The other property is known of training windows only."""
    recording = watching_a_drum()
    setting = setting_with(recording)
    [divided] = setting.population.divided
    windows = setting.population.divided.windows(
        divided, setting.task, "test", setting.num_timesteps
    )
    table = recording.stimuli["drum"].copy()
    table.loc[windows.trial, "direction"] = "never shown"
    other = setting_with(replace(recording, stimuli={"drum": table}))
    mine, theirs = condition_posterior(setting).conditions, condition_posterior(other).conditions
    np.testing.assert_array_equal(mine.weights, theirs.weights)


def test_columns_that_are_no_property_make_no_conditions():
    """One value for every trial, one for all, or one for every answer."""
    recording = watching_a_drum()
    table = recording.stimuli["drum"]
    table = table.assign(trial=np.arange(len(table)), screen="left", sound=table["speed"] * 10)
    setting = setting_with(replace(recording, stimuli={"drum": table}))
    assert list(possible_others(setting)) == [(), ("direction",)]


def test_one_label_a_class_is_a_mean_a_class():
    setting = setting_with(watching_a_drum(), LabelBudget(per_class=1))
    readout = condition_posterior(setting)
    assert readout.num_bins == ConditionOptions().num_bins
    assert readout.class_of.tolist() == [0, 1, 2]
    assert np.isfinite(readout.conditions.weights).all()


def test_what_is_saved_scores_the_same():
    setting = setting_with(watching_a_drum())
    readout = condition_posterior(setting).scaled(2.0)
    again = load_scores(*save_scores(readout))
    features = np.random.default_rng(1).normal(size=(5, readout.num_bins * UNITS))
    unit_ids = readout.conditions.unit_ids
    np.testing.assert_array_equal(
        readout.scores(features, unit_ids), again.scores(features, unit_ids)
    )


def test_without_others_it_is_linear_discriminant_analysis():
    setting = setting_with(watching_a_drum())
    [divided] = setting.population.divided
    windows = setting.training_windows(divided)
    features = setting.features(divided, windows, 1)
    [responses] = Conditions.of(setting, ()).responses(setting, 1)
    readout = responses.readout(0.3, 0.0)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(features, windows.target)
    weights = readout.weights[0].T * len(features) / (len(features) - 3)  # ours: free ones
    np.testing.assert_allclose(
        np.diff(weights, axis=0), np.diff(model.coef_, axis=0), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("num_windows", [8, 40])
def test_fewer_windows_than_features_give_the_same_as_the_whole_covariance(num_windows):
    rng = np.random.default_rng(0)
    features, condition = rng.normal(size=(num_windows, 20)), np.arange(num_windows) % 2
    responses = ConditionResponses(
        features=features,
        condition=condition,
        properties=np.array([[0], [1]]),
        unit_ids=[str(n) for n in range(20)],
    )
    means = np.stack([features[condition == n].mean(0) for n in range(2)])
    noise = features - means[condition]
    covariance = noise.T @ noise / (num_windows - 2)
    covariance = 0.5 * covariance + 0.5 * np.trace(covariance) / 20 * np.eye(20)
    expected = np.linalg.solve(covariance, (means - features.mean(0)).T)
    found = responses.readout(0.5, 0.0).weights[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_sums_of_effects_stand_in_for_means_of_few_windows():
    """What properties add is told exactly where it is all there is."""
    design = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    effects = np.array([[1.0, 0.0], [0.0, 2.0]])
    features = effects[0] * design[:, :1] + effects[1] * design[:, 1:]
    condition = np.repeat(np.arange(4), 3)
    noise = np.random.default_rng(0).normal(0, 1, (12, 2))
    noise -= np.stack([noise[condition == n].mean(0) for n in range(4)])[condition]
    responses = ConditionResponses(
        features=features[condition] + noise,
        condition=condition,
        properties=design,
        unit_ids=["a", "b"],
    )
    own, summed = responses.readout(1.0, 0.0), responses.readout(1.0, 1.0)
    np.testing.assert_allclose(own.weights, summed.weights, atol=1e-6)


def test_conditions_of_a_thousand_units_are_told_apart():
    """Log-likelihoods of many units lie far below any that stands for what was never shown."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal((4, 1000))
    condition = np.tile(np.arange(4), 5)
    features = means[condition] + 0.3 * rng.standard_normal((20, 1000))
    responses = ConditionResponses(
        features=features,
        condition=condition,
        properties=np.arange(5)[:, None],  # the last is never shown
        unit_ids=[f"u{n}" for n in range(1000)],
    )
    readout = ConditionReadout(
        conditions=responses.readout(0.1, 0.0), class_of=np.arange(5), num_classes=5
    )
    fresh = means[condition] + 0.3 * rng.standard_normal((20, 1000))
    scores = readout.scores(fresh.astype(np.float32), responses.unit_ids)
    assert (scores.argmax(axis=1) == condition).all()
    assert np.isfinite(scores).all()
