"""What follows is forecast where it can be, and held-out time stays unseen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge

from poyo_ssl.metrics.intervals import Interval
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.study.forecast_windows import (
    ForecastConfig,
    Spans,
    cut_forecast_windows,
    hold_out_ends,
)
from poyo_ssl.study.forecasting import (
    by_step,
    compare_sides,
    over_horizon,
    r2_of_units,
    score_units,
    score_windows,
)
from poyo_ssl.study.forecasting_network import fit_forecaster, forecast_by_network
from poyo_ssl.study.linear_forecasts import FORECASTS, PENALTIES, OwnPast, fit_ar1, fit_ridge
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.windows.activity import LARGEST_Z
from poyo_ssl.windows.population import Population

CONFIG = ForecastConfig(context=1.0, horizon=0.3, guard=1.0)
AR1 = np.array([0.9, 0.6, 0.0])


def recorded(traces: np.ndarray, gap_after: int | None = None) -> Recording:
    """A recording at 10 Hz, with a gap of ten seconds."""
    timestamps = np.arange(len(traces)) / 10
    if gap_after is not None:
        timestamps[gap_after:] += 10.0
    units = pd.DataFrame({"unit_id": [f"u{i}" for i in range(traces.shape[1])]})
    return Recording(
        recording_id="one",
        df_over_f=traces.astype(np.float32),
        timestamps=timestamps,
        units=units,
    )


def population_of(recording: Recording, config: ForecastConfig = CONFIG) -> Population:
    return Population([hold_out_ends(recording, config)], {"one": list(recording.unit_ids)})


@pytest.fixture(scope="module")
def lagged(tiny_config):
    """Three autoregressions, a unit that the first drove 0.3 s before, and one that it drives by
    the square; cut into windows."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3_000, 5))
    traces = noise.copy()
    for now in range(1, len(traces)):
        traces[now, :3] += AR1 * traces[now - 1, :3]
    traces[3:, 3] = traces[:-3, 0] + 0.1 * noise[3:, 3]
    traces[3:, 4] = np.abs(traces[:-3, 0]) + 0.1 * noise[3:, 4]
    population = population_of(recorded(traces, gap_after=1_400))
    spans = Spans.of(CONFIG, tiny_config, population.sampling_rate)
    [parts] = cut_forecast_windows(population, spans, train_stride=1)
    return population, spans, parts


def test_no_window_of_a_part_comes_within_the_guard_of_another(lagged):
    population, spans, parts = lagged
    times = population.divided[0].recording.timestamps
    asked = {
        part: [times[first : first + spans.num_timesteps] for first in windows.first_timestep]
        for part, windows in parts.items()
    }
    for windows in asked.values():
        assert max(np.ptp(window) for window in windows) < spans.num_timesteps / 10  # no gap
    seen = {part: np.unique(np.concatenate(windows)) for part, windows in asked.items()}
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        apart = np.abs(seen[one][:, None] - seen[other]).min()
        assert apart >= CONFIG.guard, (one, other)
    for part in ("valid", "test"):  # every second of theirs is forecast once
        assert np.diff(parts[part].first_timestep).min() == spans.num_steps


def test_windows_are_clipped_z_scores_and_the_future_follows_the_past(lagged):
    population, spans, parts = lagged
    recording = population.divided[0].recording
    inside = recording.df_over_f[recording.is_inside(population.divided[0].training)]
    z = np.clip((recording.df_over_f - inside.mean(0)) / inside.std(0), -LARGEST_Z, LARGEST_Z)
    test = parts["test"]
    first = test.first_timestep[4]
    np.testing.assert_allclose(test.past[4], z[first : first + spans.num_past], atol=1e-4)
    after = first + spans.num_past
    np.testing.assert_allclose(test.future[4], z[after : after + spans.num_steps], atol=1e-4)


def test_what_happens_on_held_out_time_changes_no_forecast(lagged, tiny_config):
    population, spans, parts = lagged
    recording = population.divided[0].recording
    other = recording.df_over_f.copy()
    other[~recording.is_inside(population.divided[0].training)] *= -7.0
    changed = population_of(replace(recording, df_over_f=other))
    [after] = cut_forecast_windows(changed, spans, train_stride=1)
    for name, forecast in FORECASTS.items():
        np.testing.assert_array_equal(
            forecast(parts["train"], parts["test"].past),
            forecast(after["train"], parts["test"].past),
            err_msg=name,
        )
    config = TrainingConfig(max_steps=2, batch_size=4, patience=None, unit_dropout=0.0)
    fitted = [
        fit_forecaster(
            asked, spans, {"one": OwnPast.fit(cut["train"])}, tiny_config, config, seed=0
        )
        for asked, cut in ((population, parts), (changed, after))
    ]
    for one, two in zip(*(f.network.parameters() for f in fitted), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_coefficients_of_autoregressions_are_recovered(lagged):
    _, _, parts = lagged
    np.testing.assert_allclose(fit_ar1(parts["train"])[:3], AR1, atol=0.05)
    past = parts["test"].past
    forecast = FORECASTS["AR(1)"](parts["train"], past)
    mean = parts["train"].past.mean((0, 1))
    np.testing.assert_allclose(
        forecast[:, 2] - mean, fit_ar1(parts["train"]) ** 3 * (past[:, -1] - mean), atol=1e-6
    )


def test_each_forecast_says_what_it_can_know(lagged):
    _, _, parts = lagged
    train, test = parts["train"], parts["test"]
    r2 = {
        name: over_horizon(score_units(train, test, forecast(train, test.past)))["r2"].to_numpy()
        for name, forecast in FORECASTS.items()
    }
    assert np.abs(r2["mean"]).max() < 0.02
    of_theory = [np.mean(a ** (2 * np.arange(1, 4))) for a in AR1]
    np.testing.assert_allclose(r2["AR(1)"][:3], of_theory, atol=0.08)
    np.testing.assert_allclose(r2["own past"][:3], of_theory, atol=0.08)
    assert r2["own past"][3] < 0.85
    assert r2["pasts of all"][3] > r2["own past"][3] + 0.05
    assert np.all(r2["copy"] <= r2["AR(1)"] + 0.01)


def test_ridge_is_that_of_the_best_penalty(rng):
    features = rng.normal(size=(1, 60, 4))
    targets = features[0] @ rng.normal(size=(4, 6)) + 0.1 * rng.normal(size=(60, 6))
    targets = np.concatenate([targets, rng.normal(size=(60, 6))], axis=1)
    weights = fit_ridge(features, targets.reshape(1, 60, 2, 6))[0]
    for unit, penalty in ((0, PENALTIES[0]), (1, None)):
        fits = [
            Ridge(alpha=alpha, fit_intercept=False)
            .fit(features[0], targets[:, 6 * unit : 6 * unit + 6])
            .coef_.T
            for alpha in ([penalty] if penalty else PENALTIES)
        ]
        assert min(np.abs(weights[:, unit] - fit).max() for fit in fits) < 1e-8
    assert np.abs(weights[:, 1]).max() < 0.1 * np.abs(weights[:, 0]).max()


def test_a_network_forecasts_what_no_line_can(lagged, tiny_config):
    population, spans, parts = lagged
    train, test = parts["train"], parts["test"]
    config = TrainingConfig(
        max_steps=150, batch_size=32, lr=0.01, valid_every=75, patience=4, unit_dropout=0.0
    )
    linear = {"one": OwnPast.fit(train)}
    fitted = fit_forecaster(population, spans, linear, tiny_config, config, seed=0)
    forecast = forecast_by_network(fitted.network, population.activity["one"], test.first_timestep)
    r2, of_lines, of_copy = (
        over_horizon(score_units(train, test, found))["r2"]
        for found in (
            forecast,
            FORECASTS["pasts of all"](train, test.past),
            FORECASTS["copy"](train, test.past),
        )
    )
    assert r2[4] > of_lines[4] + 0.15
    assert r2.mean() > of_copy.mean() + 0.3


def test_a_network_begins_at_the_forecast_that_it_corrects(lagged, tiny_config):
    population, spans, parts = lagged
    linear = OwnPast.fit(parts["train"])
    config = TrainingConfig(max_steps=1, lr=1e-12, patience=None, ema_decay=None)
    fitted = fit_forecaster(population, spans, {"one": linear}, tiny_config, config, seed=0)
    test = parts["test"]
    np.testing.assert_allclose(
        forecast_by_network(fitted.network, population.activity["one"], test.first_timestep),
        linear.forecast(test.past),
        atol=1e-4,
    )


def test_scores_agree_with_each_other(lagged):
    _, _, parts = lagged
    train, test = parts["train"], parts["test"]
    scores, copied = (
        score_units(train, test, FORECASTS[name](train, test.past)) for name in ("AR(1)", "copy")
    )
    units = over_horizon(scores)
    r2 = r2_of_units(units, seed=0)
    assert r2.mean == pytest.approx(
        score_windows(train, test, FORECASTS["AR(1)"](train, test.past)).mean(), rel=1e-5
    )
    assert isinstance(r2, Interval)
    assert r2.low < r2.mean < r2.high
    steps = by_step(scores, copied)
    left = test.future[:, 1] - FORECASTS["AR(1)"](train, test.past)[:, 1]
    assert steps.loc[2, "absolute_error"] == pytest.approx(np.abs(left).mean(), rel=1e-5)
    assert (by_step(copied, copied)["above_copy"] == 0).all()
    compared = compare_sides(units.assign(is_predictable=units["r2"] > 0.3)).iloc[0]
    assert compared["probability"] == 1.0
    assert compared["num_predictable"] + compared["num_unpredictable"] == 5


def test_a_recording_that_is_too_short_is_refused(tiny_config):
    short = population_of(recorded(np.random.default_rng(0).normal(size=(60, 2))))
    spans = Spans.of(CONFIG, tiny_config, 10.0)
    with pytest.raises(
        RecordingError, match=r"'one' has no window of 1\.3 s .* to valid and test on: .* is 6\.0 s"
    ):
        cut_forecast_windows(short, spans)


def test_a_config_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(ValueError, match=r"leave something to train on, got 0\.5 and 0\.5"):
        ForecastConfig(valid_fraction=0.5, test_fraction=0.5)
    with pytest.raises(ValueError, match="must be positive"):
        ForecastConfig(horizon=0.0)
