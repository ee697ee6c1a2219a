"""Every objective trains, learns something, repeats itself, and sees no test activity."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from poyo_ssl.model.checkpoints import load_encoder, network_tensors, save_encoder
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.objectives import OBJECTIVES
from poyo_ssl.pretraining.objectives.masked_activity import MaskedActivityConfig
from poyo_ssl.pretraining.objectives.masked_latents import MaskedLatentsConfig
from poyo_ssl.pretraining.objectives.split_units import SplitUnitsConfig
from poyo_ssl.pretraining.pretrain import pretrain
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.windows.divide import DividedRecording, divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import Splits
from poyo_ssl.windows.tasks import DIRECTION, MOVIE

QUICK = TrainingConfig(
    max_steps=4, batch_size=8, valid_every=2, patience=2, unit_dropout=0.3, jitter=0.0
)
MONITORS = {"loss", "latent_variance", "effective_rank"}
LABELS = {"label_loss", "label_accuracy"}
R2 = {"r2", "r2_above_population_mean"}
LATENTS = {"reconstruction", "target_variance", "target_effective_rank"}
NO_MODE = SplitUnitsConfig(remove_modes=1)
RECIPES = {
    "activity": ({"objective": "masked_activity"}, R2),
    "activity, no mode": ({"masked_activity": MaskedActivityConfig(remove_modes=1)}, R2),
    "activity, labels": (
        {"objective": "masked_activity", "label_weight": 0.1, "window_length": 1.0},
        R2 | LABELS,
    ),
    "latents": ({"objective": "masked_latents"}, LATENTS),
    "latents, labels": ({"objective": "masked_latents", "label_weight": 0.01}, LATENTS | LABELS),
    "latents, ema": (
        {"objective": "masked_latents", "masked_latents": MaskedLatentsConfig(target="ema")},
        LATENTS,
    ),
    "split": ({"objective": "split_units", "split_units": NO_MODE}, {"agreement"}),
    "split, labels": (
        {"objective": "split_units", "split_units": NO_MODE, "label_weight": 0.1},
        {"agreement"} | LABELS,
    ),
    "labels": ({"objective": "labels", "label_weight": 1.0}, LABELS),
}
"""Options, and what is logged beside the monitors."""


def recipe(name: str, **training) -> PretrainingConfig:
    """A few steps of an objective."""
    options, _ = RECIPES[name]
    batch_size = {"split": 64, "split, labels": 128}.get(name, 8)
    return PretrainingConfig(**options, training=replace(QUICK, batch_size=batch_size, **training))


@pytest.mark.parametrize("name", RECIPES)
def test_every_objective_trains_on_a_tiny_session(tiny_population, tiny_config, tmp_path, name):
    encoder = pretrain(tiny_population, recipe(name), encoder=tiny_config, seed=0)
    result = encoder.fit
    assert np.isfinite(result.curves["value"]).all()
    valid = result.curves[result.curves["metric"].str.startswith("valid/")]
    assert set(valid["metric"]) == {f"valid/{term}" for term in MONITORS | RECIPES[name][1]}
    assert list(encoder.unit_embedding.vocab)[1:] == tiny_population.unit_ids
    save_encoder(encoder, tmp_path)
    saved, ours = network_tensors(load_encoder(tmp_path)), network_tensors(encoder)
    assert all(torch.equal(saved[term], ours[term]) for term in ours)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("latents, ema", "loss"),
        ("split", "loss"),
        ("labels", "loss"),
        ("activity, labels", "label_loss"),
    ],
)
def test_a_few_steps_lower_the_loss(tiny_population, tiny_config, name, metric):
    training = {"valid_every": 50, "lr": 1e-2, "patience": None, "ema_decay": None}
    config = recipe(name, max_steps=50, unit_dropout=0.0, **training)
    result = pretrain(tiny_population, config, encoder=tiny_config, seed=0).fit
    values = result.curves.loc[result.curves["metric"] == f"train/{metric}", "value"].to_numpy()
    assert values[-2:].mean() < 0.9 * values[:1].mean()


@pytest.mark.parametrize("name", ["activity", "latents, ema", "split, labels"])
def test_pretraining_changes_the_encoder_and_repeats_bit_for_bit(
    tiny_population, tiny_config, tiny_encoder, name
):
    config = recipe(name)
    weights = []
    for seed in (0, 0, 1):
        torch.rand(11)
        encoder = pretrain(tiny_population, config, encoder=tiny_config, seed=seed)
        weights.append(network_tensors(encoder))
    one, same, other = weights
    assert all(torch.equal(one[term], same[term]) for term in one)
    changed = {term for term in one if not torch.equal(one[term], other[term])}
    assert "unit_embedding.weight" in changed
    fresh = network_tensors(tiny_encoder)  # made with seed 0
    learned = {term for term in one if not torch.equal(one[term], fresh[term])}
    assert {"unit_embedding.weight", "read.to_value.weight"} <= learned


@pytest.mark.parametrize("name", ["activity, no mode", "latents, labels", "split, labels"])
def test_test_activity_has_no_influence_on_pretraining(
    tiny_divided, tiny_population, tiny_config, name
):
    recording = tiny_divided.recording
    tested = np.concatenate([splits.test for splits in tiny_divided.splits.values()])
    is_tested = recording.is_inside(tested)
    garbage = recording.df_over_f.copy()
    garbage[is_tested] = 1e3 * np.random.default_rng(0).normal(size=garbage[is_tested].shape)
    changed = Population(
        [replace(tiny_divided, recording=replace(recording, df_over_f=garbage))],
        {"tiny": list(recording.unit_ids)},
    )
    config = recipe(name, jitter=0.3)
    one = pretrain(tiny_population, config, encoder=tiny_config, seed=0)
    two = pretrain(changed, config, encoder=tiny_config, seed=0)
    ours, theirs = network_tensors(one), network_tensors(two)
    assert all(torch.equal(ours[term], theirs[term]) for term in ours)


@pytest.mark.parametrize("name", ["activity", "latents", "split"])
def test_the_published_tokens_are_pretrained_by_every_objective(tiny_population, tiny_config, name):
    published = replace(tiny_config, tokens="concatenated", patch_length=0.0)
    encoder = pretrain(tiny_population, recipe(name), encoder=published, seed=0)
    result = encoder.fit
    assert encoder.unit_embedding.embedding_dim == tiny_config.dim // 2
    assert np.isfinite(result.curves["value"]).all()


def test_training_activity_has_influence_on_pretraining(tiny_divided, tiny_population, tiny_config):
    recording = tiny_divided.recording
    changed = Population(
        [replace(tiny_divided, recording=replace(recording, df_over_f=-recording.df_over_f))],
        {"tiny": list(recording.unit_ids)},
    )
    config = PretrainingConfig(training=QUICK)
    one = pretrain(tiny_population, config, encoder=tiny_config, seed=0)
    two = pretrain(changed, config, encoder=tiny_config, seed=0)
    assert not torch.equal(one.unit_embedding.weight, two.unit_embedding.weight)


def test_masked_activity_learns_what_units_share(tiny_config):
    rng = np.random.default_rng(0)
    num_timesteps = 3000
    shared = np.convolve(rng.normal(size=num_timesteps + 9), np.ones(10) / 10**0.5, "valid")
    sign = np.array([1, 1, -1, 1, -1, -1])
    df_over_f = shared[:, None] * sign + 0.3 * rng.normal(size=(num_timesteps, 6))
    recording = Recording(
        recording_id="toy",
        df_over_f=df_over_f.astype(np.float32),
        timestamps=np.arange(num_timesteps) / 10.0,
        units=pd.DataFrame({"unit_id": [str(i) for i in range(6)]}),
    )
    splits = Splits(
        train=np.array([[0.0, 240.0]]),
        valid=np.array([[240.0, 290.0]]),
        test=np.array([[290.0, 300.0]]),
    )
    population = Population(
        [DividedRecording(recording, {"toy": splits})], {"toy": list(recording.unit_ids)}
    )
    training = replace(
        QUICK, max_steps=100, batch_size=32, lr=1e-2, valid_every=50, unit_dropout=0.0
    )
    config = PretrainingConfig(
        masked_activity=MaskedActivityConfig(num_queries=12), training=training
    )
    result = pretrain(population, config, encoder=tiny_config, seed=0).fit
    curves = result.curves.set_index("step")
    valid_r2 = curves.loc[curves["metric"] == "valid/r2", "value"]
    train_loss = curves.loc[curves["metric"] == "train/loss", "value"]
    assert valid_r2.max() > 0.2
    assert train_loss.iloc[-3:].mean() < 0.8 * train_loss.iloc[:3].mean()


def test_labels_are_needed_only_when_they_weigh_something(
    tiny_recording, tiny_config, split_config
):
    without = replace(
        tiny_recording,
        stimuli={"natural_movie_one": tiny_recording.stimuli["natural_movie_one"]},
    )
    population = Population(
        divide([without], [MOVIE], split_config), {"tiny": list(without.unit_ids)}
    )
    config = recipe("latents, labels")
    with pytest.raises(RecordingError, match="drifting_gratings"):
        pretrain(population, config, encoder=tiny_config, seed=0)
    pretrain(population, replace(config, label_weight=0.0), encoder=tiny_config, seed=0)


def test_labelled_pretraining_of_recordings_not_divided_for_it_says_so(
    tiny_recording, tiny_config, split_config
):
    population = Population(
        divide([tiny_recording], [MOVIE], split_config), {"tiny": list(tiny_recording.unit_ids)}
    )
    config = recipe("latents, labels")
    with pytest.raises(RecordingError, match=DIRECTION.name):
        pretrain(population, config, encoder=tiny_config, seed=0)


@pytest.mark.parametrize("name", ["activity", "activity, labels", "latents, ema"])
def test_steps_taken_in_parts_are_the_same_steps(tiny_population, tiny_config, name):
    whole = pretrain(tiny_population, recipe(name), encoder=tiny_config, seed=0)
    parts = pretrain(tiny_population, recipe(name, accumulate=2), encoder=tiny_config, seed=0)
    ours, theirs = network_tensors(whole), network_tensors(parts)
    for term in ours:
        torch.testing.assert_close(ours[term], theirs[term], atol=1e-4, rtol=1e-3)


def test_a_stopped_fit_goes_on_with_its_teacher(
    tiny_population, tiny_config, tmp_path, monkeypatch
):
    config = recipe("latents, ema", checkpoint_every=1)
    expected = pretrain(tiny_population, config, encoder=tiny_config, seed=0)
    objective = OBJECTIVES["masked_latents"]
    step = objective.optimizer_step

    def stopping(self, *args, **kwargs) -> None:
        if self.global_step == 2:
            raise KeyError("stopped")
        step(self, *args, **kwargs)

    monkeypatch.setattr(objective, "optimizer_step", stopping)
    options = {"seed": 0, "checkpoint_directory": tmp_path}
    with pytest.raises(KeyError, match="stopped"):
        pretrain(tiny_population, config, encoder=tiny_config, **options)
    monkeypatch.setattr(objective, "optimizer_step", step)
    resumed = pretrain(tiny_population, config, encoder=tiny_config, **options)
    ours, theirs = network_tensors(expected), network_tensors(resumed)
    assert all(torch.equal(ours[term], theirs[term]) for term in ours)


# going on from an encoder


def test_pretraining_goes_on_from_a_copy_of_an_encoder(tiny_divided, tiny_config, tiny_encoder):
    units = list(tiny_divided.recording.unit_ids)
    known = Encoder(tiny_config, 10.0)
    known.add_units(units[:4])
    before = copy.deepcopy(network_tensors(known))
    config = recipe("activity", lr=1e-9, ema_decay=None)
    population = Population([tiny_divided], {"tiny": units})
    going_on = pretrain(population, config, encoder=known, seed=0)
    assert all(torch.equal(before[term], value) for term, value in network_tensors(known).items())
    assert list(going_on.unit_embedding.vocab)[1:] == units
    after = network_tensors(going_on)
    torch.testing.assert_close(after["unit_embedding.weight"][:5], before["unit_embedding.weight"])
    torch.testing.assert_close(after["value_map.weight"], before["value_map.weight"])


def test_an_encoder_of_another_rate_is_refused(tiny_population, tiny_config):
    with pytest.raises(RecordingError, match=r"pretrained at 30\.00 Hz.*sampled at 10\.00 Hz"):
        pretrain(tiny_population, recipe("activity"), encoder=Encoder(tiny_config, 30.0), seed=0)
