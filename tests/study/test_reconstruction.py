"""What can be told of a unit from the others is told, and held-out time stays unseen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from pandas.testing import assert_frame_equal
from sklearn.linear_model import LinearRegression, Ridge

from poyo_ssl.model.checkpoints import network_tensors
from poyo_ssl.predictability.unit_statistics import compute_predictability
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.objectives.masked_activity import MaskedActivityConfig
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.study.held_out_patches import cut_patches
from poyo_ssl.study.linear_reconstruction import (
    predict_by_population_mean,
    predict_by_ridge,
    ridge_weights,
    variance_explained,
)
from poyo_ssl.study.reconstruction import (
    ESTIMATES,
    correlate_with_proxies,
    divide_units,
    fit_network,
    measure_reconstruction,
    predict_by_network,
    reconstruct_held_out,
)
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import DIRECTION

SHORT = PretrainingConfig(training=TrainingConfig(max_steps=3, batch_size=8, jitter=0.0))


def population_of(recording) -> Population:
    divided = divide([recording], [DIRECTION], SplitConfig(valid_fraction=0.2, test_fraction=0.2))
    return Population(divided, {recording.recording_id: list(recording.unit_ids)})


@pytest.fixture(scope="module")
def gratings(tiny_recording) -> Population:
    return population_of(tiny_recording)


def test_a_copy_of_another_unit_is_reconstructed_and_pure_noise_is_not(tiny_recording, tiny_config):
    rng = np.random.default_rng(5)
    traces = tiny_recording.df_over_f.copy()
    traces[:, 1] = traces[:, 0]
    traces[:, 5] = rng.normal(size=len(traces))
    population = population_of(replace(tiny_recording, df_over_f=traces))
    found = measure_reconstruction(population, tiny_config, SHORT, seed=0)
    r2 = found.set_index("unit_id")["r2_ridge"]
    assert r2["tiny-0"] > 0.95
    assert r2["tiny-1"] > 0.95
    assert -0.1 < r2["tiny-5"] < 0.03


def test_the_network_learns_what_units_share(tiny_recording, tiny_config):
    rng = np.random.default_rng(5)
    traces = 0.5 * rng.normal(size=tiny_recording.df_over_f.shape)
    traces += np.convolve(rng.normal(size=len(traces) + 9), np.ones(10) / 10**0.5, "valid")[:, None]
    population = population_of(replace(tiny_recording, df_over_f=traces))
    longer = replace(SHORT, training=TrainingConfig(max_steps=100, lr=0.01, jitter=0.0))
    found = measure_reconstruction(population, tiny_config, longer, seed=0)
    assert found["r2_population_mean"].min() > 0.8
    assert found["r2_network"].min() > 0.4


def test_units_are_measured_as_the_package_measures_them_and_differences_add_up(
    gratings, tiny_config
):
    found = measure_reconstruction(gratings, tiny_config, SHORT, seed=0)
    [divided] = gratings.divided
    expected = compute_predictability(
        divided.recording.df_over_f, divided.recording.is_inside(divided.training)
    )
    assert_frame_equal(found[["skewness", "kurtosis"]], expected[["skewness", "kurtosis"]])
    assert list(found["unit_id"]) == gratings.unit_ids
    for name in ("network", "ridge"):
        above = found[f"r2_{name}"] - found["r2_population_mean"]
        np.testing.assert_allclose(found[f"r2_{name}_above_mean"], above)


def test_held_out_values_decide_neither_weights_nor_predictions_of_other_time(
    gratings, tiny_config
):
    [divided] = gratings.divided
    recording = divided.recording
    is_valid = recording.is_inside(divided.splits["direction"].valid)
    spoiled = recording.df_over_f.copy()
    spoiled[is_valid] = 50 * np.random.default_rng(6).normal(size=spoiled[is_valid].shape)
    changed = population_of(replace(recording, df_over_f=spoiled))
    weights = [
        network_tensors(fit_network(population, tiny_config, SHORT, seed=0))
        for population in (gratings, changed)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    [ours] = reconstruct_held_out(gratings, tiny_config, SHORT, seed=0)
    [theirs] = reconstruct_held_out(changed, tiny_config, SHORT, seed=0)
    is_tested = ~is_valid[ours.patches.first_timestep]
    assert is_tested.any()
    assert not is_tested.all()
    for name in ("network", "population_mean", "ridge"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        np.testing.assert_array_equal(mine[is_tested], other[is_tested])
        assert not np.allclose(mine[~is_tested], other[~is_tested])


def test_patches_are_means_of_held_out_time_and_of_none_else(gratings, tiny_config):
    [patches] = cut_patches(gratings, tiny_config, 2.0)
    [divided] = gratings.divided
    values = gratings.activity["tiny"].values.double().numpy()  # noqa: PD011
    withheld = divided.recording.is_inside(divided.splits["direction"].withheld)
    for window, first in zip(patches.held_out, patches.first_timestep, strict=True):
        assert withheld[first : first + 20].all()
        np.testing.assert_allclose(window, values[first : first + 20].reshape(4, 5, 6).mean(1))
    assert np.diff(patches.first_timestep).min() >= 20


def test_the_order_of_units_does_not_matter_to_what_is_linear(rng):
    train, held_out = rng.normal(size=(80, 7)), rng.normal(size=(30, 7))
    train, held_out = train + train[:, :1], held_out + held_out[:, :1]
    order = rng.permutation(7)
    for predict in (predict_by_population_mean, predict_by_ridge):
        np.testing.assert_allclose(
            predict(train, held_out)[:, order], predict(train[:, order], held_out[:, order])
        )


def test_one_inverse_gives_the_ridge_of_every_unit_on_the_others(rng):
    train = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6))
    train -= train.mean(0)
    weights = ridge_weights(train.T @ train, penalty=3.0)
    for unit in range(6):
        others = np.arange(6) != unit
        model = Ridge(alpha=3.0, fit_intercept=False).fit(train[:, others], train[:, unit])
        np.testing.assert_allclose(weights[others, unit], model.coef_, rtol=1e-8)
        assert weights[unit, unit] == 0


def test_the_population_mean_is_a_line_from_the_mean_of_the_others(rng):
    train, held_out = rng.normal(2.0, size=(50, 5)), rng.normal(2.0, size=(20, 5))
    predicted = predict_by_population_mean(train, held_out)
    for unit in range(5):
        others = np.arange(5) != unit
        line = LinearRegression().fit(train[:, others].mean(1)[:, None], train[:, unit])
        expected = line.predict(held_out[:, others].mean(1)[:, None])
        np.testing.assert_allclose(predicted[:, unit], expected)


def test_r2_is_one_when_right_zero_for_the_mean_and_missing_for_a_constant(rng):
    true = rng.normal(size=(10, 4, 3))
    true[..., 2] = 1.0
    assert variance_explained(true, true)[:2].tolist() == [1.0, 1.0]
    means = np.broadcast_to(true.mean((0, 1)), true.shape)
    np.testing.assert_allclose(variance_explained(true, means)[:2], 0, atol=1e-12)
    assert np.isnan(variance_explained(true, means)[2])


@pytest.mark.parametrize(("hidden_fraction", "num_groups"), [(0.5, 2), (0.25, 4), (0.9, 2)])
def test_every_unit_is_hidden_once_in_groups_that_the_seed_decides(hidden_fraction, num_groups):
    groups = divide_units(11, hidden_fraction, seed=3)
    assert len(groups) == num_groups
    assert sorted(np.concatenate(groups)) == list(range(11))
    assert all(
        np.array_equal(one, two)
        for one, two in zip(groups, divide_units(11, hidden_fraction, seed=3), strict=True)
    )


def test_the_network_predicts_hidden_units_without_having_seen_them(gratings, tiny_config):
    network = fit_network(gratings, tiny_config, SHORT, seed=0)
    [patches] = cut_patches(gratings, tiny_config, SHORT.window_length)
    groups = [np.array([0, 4, 2]), np.array([5, 1, 3])]
    activity = gratings.activity["tiny"]
    values = activity.values.clone()  # noqa: PD011
    values[:, groups[0]] = 7.0
    before = predict_by_network(network, activity, patches, groups)
    after = predict_by_network(network, replace(activity, values=values), patches, groups)
    np.testing.assert_array_equal(before[..., groups[0]], after[..., groups[0]])
    assert not np.allclose(before[..., groups[1]], after[..., groups[1]])


def test_rank_correlations_are_scipys_and_their_intervals_hold_them(rng):
    units = pd.DataFrame(rng.normal(size=(40, 7)), columns=[*ESTIMATES, "skewness", "kurtosis"])
    units.insert(0, "recording_id", "one")
    units["r2_ridge"] -= 2 * units["kurtosis"]
    found = correlate_with_proxies(units, seed=0).set_index(["estimate", "proxy"])
    for (estimate, proxy), row in found.iterrows():
        expected = scipy.stats.spearmanr(units[estimate], units[proxy]).statistic
        assert row["spearman"] == pytest.approx(expected)
        assert row["low"] < row["spearman"] < row["high"]
    assert found.loc[("r2_ridge", "kurtosis"), "high"] < -0.5


def test_too_few_units_to_correlate_are_refused():
    units = pd.DataFrame(0.0, index=range(4), columns=[*ESTIMATES, "skewness", "kurtosis"])
    with pytest.raises(ValueError, match="'one' has 4 units with R², too few"):
        correlate_with_proxies(units.assign(recording_id="one"), seed=0)


def test_a_recording_that_holds_nothing_out_is_refused(tiny_recording, tiny_config):
    population = Population(
        divide([tiny_recording], [], SplitConfig()), {"tiny": list(tiny_recording.unit_ids)}
    )
    with pytest.raises(RecordingError, match="divided for no task, has no held-out window"):
        measure_reconstruction(population, tiny_config, SHORT, seed=0)


def test_a_single_unit_is_refused(gratings, tiny_config):
    alone = Population(gratings.divided, {"tiny": ["tiny-3"]})
    with pytest.raises(RecordingError, match="has one unit, and no other"):
        measure_reconstruction(alone, tiny_config, SHORT, seed=0)


def test_another_objective_is_refused(gratings, tiny_config):
    hidden = MaskedActivityConfig(pattern="future", remove_modes=2)
    other = replace(SHORT, masked_activity=hidden)
    with pytest.raises(
        ValueError, match=r"activity\.pattern: future, masked_activity\.remove_modes: 2\. Set"
    ):
        measure_reconstruction(gratings, tiny_config, other, seed=0)
