"""Pretraining hides what it says, predicts it from the rest, and sees no test activity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from poyo_ssl.model.checkpoints import load_encoder, network_tensors, save_encoder
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.model.masking import PATTERNS, hide_last_steps
from poyo_ssl.population import DividedRecording, Population, divide
from poyo_ssl.pretraining import (
    MaskedActivity,
    MaskedLatents,
    PretrainingConfig,
    choose_hidden,
    pretrain,
)
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sampling import WindowBatch
from poyo_ssl.recordings.splits import Splits
from poyo_ssl.recordings.tasks import DIRECTION, MOVIE
from poyo_ssl.training import TrainingConfig

QUICK = TrainingConfig(
    max_steps=4, batch_size=8, valid_every=2, patience=2, unit_dropout=0.3, jitter=0.0
)


@pytest.fixture
def group() -> WindowBatch:
    """Five windows of 20 samples (four patches) of six units, and a direction for each."""
    return WindowBatch(
        activity=torch.randn(5, 20, 6, generator=torch.Generator().manual_seed(0)),
        unit_index=torch.arange(1, 7),
        target=torch.tensor([0, 1, 2, 3, 0]),
    )


def masked_activity(encoder, **changes) -> MaskedActivity:
    torch.manual_seed(1)
    return MaskedActivity(encoder, PretrainingConfig(training=QUICK, **changes), seed=0)


def masked_latents(encoder, num_directions: int = 4, **changes) -> MaskedLatents:
    torch.manual_seed(1)
    config = PretrainingConfig(objective="masked_latents", training=QUICK, **changes)
    return MaskedLatents(encoder, config, num_directions)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


# masked activity


@torch.no_grad()
@pytest.mark.parametrize("pattern", PATTERNS)
def test_predictions_do_not_depend_on_what_is_hidden(tiny_encoder, group, pattern):
    # the published code hides one column of features and lets the answer through
    module = masked_activity(tiny_encoder, pattern=pattern)
    predicted, true = module.predict_hidden(group, seeded())
    is_hidden = PATTERNS[pattern](5, 4, 6, 0.5, seeded()).repeat_interleave(5, dim=1)
    garbage = replace(group, activity=group.activity.masked_fill(is_hidden, 1e4))
    predicted_from_garbage, true_garbage = module.predict_hidden(garbage, seeded())
    assert torch.equal(predicted, predicted_from_garbage)
    assert torch.equal(true_garbage, torch.full_like(true, 1e4))
    # what is not hidden is read
    louder = torch.where(is_hidden, group.activity, group.activity + 1.0)
    predicted_from_louder, same = module.predict_hidden(replace(group, activity=louder), seeded())
    assert torch.equal(same, true)
    assert (predicted_from_louder - predicted).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_truth_is_the_activity_of_the_patches_asked_about(tiny_encoder, group, pattern):
    # a sample that says where it is: 1000 x window + 10 x timestep + 0.1 x unit
    window, timestep, unit = torch.meshgrid(*(torch.arange(n) for n in (5, 20, 6)), indexing="ij")
    coded = replace(group, activity=(1000 * window + 10 * timestep + 0.1 * unit).float())
    module = masked_activity(tiny_encoder, pattern=pattern, num_queries=3)
    asked: list[tuple[torch.Tensor, torch.Tensor]] = []
    module.network.register_forward_pre_hook(lambda _, args: asked.append((args[3], args[4])))
    predicted, true = module.predict_hidden(coded, seeded())
    assert predicted.shape == true.shape == (5, 3, 5)
    [(asked_unit, asked_patch)] = asked
    for w in range(5):
        for q in range(3):
            steps = 5 * asked_patch[w, q] + torch.arange(5)
            expected = 1000 * w + 10 * steps + 0.1 * asked_unit[w, q]
            torch.testing.assert_close(true[w, q], expected)


@torch.no_grad()
def test_a_prediction_depends_on_the_unit_and_the_time_asked_about(tiny_encoder, group):
    network = masked_activity(tiny_encoder).network
    is_hidden = torch.zeros(5, 4, 6, dtype=torch.bool)

    def ask(unit: int, patch: int) -> torch.Tensor:
        asked = torch.full((5, 1), unit), torch.full((5, 1), patch)
        answer: torch.Tensor = network(group.activity, group.unit_index, is_hidden, *asked)
        return answer

    assert ask(0, 0).shape == (5, 1, 5)
    assert not torch.allclose(ask(0, 0), ask(1, 0), atol=1e-3)
    assert not torch.allclose(ask(0, 0), ask(0, 3), atol=1e-5)


def test_only_hidden_positions_are_asked_about_and_none_twice():
    is_hidden = torch.rand(50, 6, 8, generator=seeded()) < 0.4
    asked = choose_hidden(is_hidden, 5, seeded())
    assert asked.shape == (50, 5)
    assert is_hidden.flatten(1).gather(1, asked).all()
    assert all(len(set(row.tolist())) == 5 for row in asked)


def test_no_more_is_asked_than_the_window_that_hides_least_can_answer():
    is_hidden = torch.zeros(2, 3, 4, dtype=torch.bool)
    is_hidden[0] = True
    is_hidden[1, 2, 1:3] = True
    asked = choose_hidden(is_hidden, 64, seeded())
    assert asked.shape == (2, 2)
    assert sorted(asked[1].tolist()) == [9, 10]


def test_every_hidden_position_may_be_asked_about():
    is_hidden = torch.zeros(400, 3, 4, dtype=torch.bool)
    is_hidden[:, :, ::2] = True
    counts = choose_hidden(is_hidden, 2, seeded()).flatten().bincount(minlength=12)
    assert (counts > 0).tolist() == [True, False, True, False] * 3
    assert counts[counts > 0].min() > 80  # 800 draws of six positions


def test_the_loss_is_the_mean_squared_error_of_hidden_patches(tiny_encoder, group):
    module = masked_activity(tiny_encoder)
    terms = module.losses([group])
    predicted, true = module.predict_hidden(group, torch.Generator().manual_seed(0))
    error = (predicted - true).square().mean()
    torch.testing.assert_close(terms["loss"], error)
    torch.testing.assert_close(terms["r2"], 1 - error / true.var(unbiased=False))


def test_masks_depend_on_the_seed_and_every_validation_hides_the_same(tiny_encoder, group):
    module, other = masked_activity(tiny_encoder), masked_activity(tiny_encoder)
    other.seed = 5
    assert module.losses([group])["loss"] == module.losses([group])["loss"]
    assert module.losses([group])["loss"] != other.losses([group])["loss"]
    steps = iter(range(100))

    class Advancing(MaskedActivity):
        @property
        def global_step(self) -> int:
            return next(steps)

    module.__class__ = Advancing
    assert module.losses([group])["loss"] != module.losses([group])["loss"]
    module.eval()
    assert module.losses([group])["loss"] == module.losses([group])["loss"]


def test_a_lone_unit_spoils_neither_loss_nor_gradient(tiny_encoder, group):
    # unit dropout, or a recording with one predictable unit, leaves nothing to read
    lone = replace(group, activity=group.activity[..., :1], unit_index=group.unit_index[:1])
    module = masked_activity(tiny_encoder, pattern="units")
    loss = module.losses([lone, group])["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


# masked latents


@torch.no_grad()
def test_without_masking_the_two_views_are_identical(tiny_config, group):
    # dropout is off in both views, whatever the encoder was built with
    encoder = Encoder(replace(tiny_config, dropout=0.5), 10.0)
    encoder.add_units([f"tiny-{i}" for i in range(6)])
    network = masked_latents(encoder).network
    nothing = torch.zeros(4, dtype=torch.bool)
    masked, unmasked = network(group.activity, group.unit_index, nothing)
    assert torch.equal(masked, unmasked)
    last = torch.tensor([False, False, True, True])
    masked, again = network(group.activity, group.unit_index, last)
    assert torch.equal(again, unmasked)
    assert not torch.allclose(masked, again)


@torch.no_grad()
def test_the_masked_view_knows_nothing_of_the_hidden_steps(tiny_encoder, group, monkeypatch):
    network = masked_latents(tiny_encoder).network
    latents = tiny_encoder.read_windows(group.activity, group.unit_index)
    hidden = torch.tensor([False, False, True, True])
    is_hidden = hidden.repeat_interleave(2)

    def views(read: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        monkeypatch.setattr(tiny_encoder, "read_windows", lambda *_: read)
        masked, unmasked = network(group.activity, group.unit_index, hidden)
        return masked, unmasked

    masked, unmasked = views(latents)
    garbage = latents.masked_fill(is_hidden[:, None], 50.0)
    masked_garbage, unmasked_garbage = views(garbage)
    assert torch.equal(masked, masked_garbage)
    assert not torch.allclose(unmasked, unmasked_garbage)
    seen = latents.clone()
    seen[:, 0] += 1.0
    assert not torch.allclose(views(seen)[0], masked)


@torch.no_grad()
def test_all_features_of_hidden_steps_are_replaced(tiny_encoder, group, monkeypatch):
    # the published code replaces a single one
    network = masked_latents(tiny_encoder).network
    processed: list[torch.Tensor] = []
    monkeypatch.setattr(tiny_encoder, "process", lambda x, _: processed.append(x) or x)
    hidden = torch.tensor([False, False, False, True])
    network(group.activity, group.unit_index, hidden)
    masked, unmasked = processed
    assert torch.equal(masked[:, :6], unmasked[:, :6])
    assert (masked[:, 6:] != unmasked[:, 6:]).all()
    assert torch.equal(masked[:, 6:], masked[:1, 6:].expand(5, -1, -1))
    assert not torch.equal(masked[:, 6], masked[:, 7])  # two latents of one step differ


def test_the_target_has_no_gradient(tiny_encoder, group):
    module = masked_latents(tiny_encoder, num_directions=0)
    is_hidden = hide_last_steps(4, 0.5).repeat_interleave(2)
    parameters = [p for p in module.parameters() if p is not module.network.masked_token]

    def gradients(loss: torch.Tensor) -> torch.Tensor:
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        return torch.cat([g.flatten() for g in grads if g is not None])

    def by_hand(*, is_stopped: bool) -> torch.Tensor:
        masked, target = module.network(group.activity, group.unit_index, hide_last_steps(4, 0.5))
        target = target.detach() if is_stopped else target
        return (masked[:, is_hidden] - target[:, is_hidden]).abs().mean()

    ours = gradients(module.losses([group])["loss"])
    torch.testing.assert_close(ours, gradients(by_hand(is_stopped=True)))
    through = gradients(by_hand(is_stopped=False))
    assert ours.shape == through.shape
    assert not torch.allclose(ours, through, atol=1e-3 * float(through.abs().max()))


def test_the_label_loss_weighs_a_hundredth(tiny_encoder, group):
    assert PretrainingConfig().label_weight == 0.01
    module = masked_latents(tiny_encoder)
    terms = module.losses([group])
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 0.01 * terms["direction"])
    _, unmasked = module.network(group.activity, group.unit_index, hide_last_steps(4, 0.5))
    expected = F.cross_entropy(module.network.readout(unmasked.mean(1)), group.target)
    torch.testing.assert_close(terms["direction"], expected)


def test_without_directions_no_label_is_used(tiny_encoder, group):
    module = masked_latents(tiny_encoder, num_directions=0)
    terms = module.losses([replace(group, target=torch.full((5,), -1))])
    assert "direction" not in terms
    assert torch.equal(terms["loss"], terms["reconstruction"])


def test_collapse_is_visible(tiny_encoder, group):
    module = masked_latents(tiny_encoder)
    healthy = module.losses([group])
    still = replace(group, activity=torch.zeros_like(group.activity))
    collapsed = module.losses([still])
    assert healthy["target_variance"] > 0
    assert healthy["effective_rank"] > collapsed["effective_rank"]


# the whole stage


@pytest.mark.parametrize(
    ("objective", "label_weight", "metrics"),
    [
        ("masked_activity", 0.01, {"loss", "r2"}),
        (
            "masked_latents",
            0.01,
            {"loss", "reconstruction", "direction", "target_variance", "effective_rank"},
        ),
        (
            "masked_latents",
            0.0,
            {"loss", "reconstruction", "target_variance", "effective_rank"},
        ),
    ],
)
def test_every_objective_trains_on_a_tiny_session(
    tiny_population, tiny_config, tmp_path, objective, label_weight, metrics
):
    config = PretrainingConfig(objective=objective, label_weight=label_weight, training=QUICK)
    encoder, result = pretrain(tiny_population, tiny_config, config, seed=0)
    assert np.isfinite(result.curves["value"]).all()
    valid = result.curves[result.curves["metric"].str.startswith("valid/")]
    assert set(valid["metric"]) == {f"valid/{name}" for name in metrics}
    assert list(encoder.unit_embedding.vocab)[1:] == tiny_population.unit_ids
    save_encoder(encoder, tmp_path)
    saved, ours = network_tensors(load_encoder(tmp_path)), network_tensors(encoder)
    assert all(torch.equal(saved[name], ours[name]) for name in ours)


@pytest.mark.parametrize("objective", ["masked_activity", "masked_latents"])
def test_pretraining_changes_the_encoder_and_repeats_bit_for_bit(
    tiny_population, tiny_config, tiny_encoder, objective
):
    config = PretrainingConfig(objective=objective, training=QUICK)
    weights = []
    for seed in (0, 0, 1):
        torch.rand(11)
        encoder, _ = pretrain(tiny_population, tiny_config, config, seed=seed)
        weights.append(network_tensors(encoder))
    one, same, other = weights
    assert all(torch.equal(one[name], same[name]) for name in one)
    changed = {name for name in one if not torch.equal(one[name], other[name])}
    assert "unit_embedding.weight" in changed
    fresh = network_tensors(tiny_encoder)  # made with seed 0
    learned = {name for name in one if not torch.equal(one[name], fresh[name])}
    assert {"unit_embedding.weight", "read.to_value.weight"} <= learned


@pytest.mark.parametrize("objective", ["masked_activity", "masked_latents"])
def test_test_activity_has_no_influence_on_pretraining(
    tiny_divided, tiny_population, tiny_config, objective
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
    config = PretrainingConfig(objective=objective, training=replace(QUICK, jitter=0.3))
    one, _ = pretrain(tiny_population, tiny_config, config, seed=0)
    two, _ = pretrain(changed, tiny_config, config, seed=0)
    ours, theirs = network_tensors(one), network_tensors(two)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_training_activity_has_influence_on_pretraining(tiny_divided, tiny_population, tiny_config):
    recording = tiny_divided.recording
    changed = Population(
        [replace(tiny_divided, recording=replace(recording, df_over_f=-recording.df_over_f))],
        {"tiny": list(recording.unit_ids)},
    )
    config = PretrainingConfig(training=QUICK)
    one, _ = pretrain(tiny_population, tiny_config, config, seed=0)
    two, _ = pretrain(changed, tiny_config, config, seed=0)
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
        QUICK, max_steps=150, batch_size=32, lr=1e-2, valid_every=50, unit_dropout=0.0
    )
    config = PretrainingConfig(num_queries=12, training=training)
    _, result = pretrain(population, tiny_config, config, seed=0)
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
    config = PretrainingConfig(objective="masked_latents", training=QUICK)
    with pytest.raises(RecordingError, match="drifting_gratings"):
        pretrain(population, tiny_config, config, seed=0)
    pretrain(population, tiny_config, replace(config, label_weight=0.0), seed=0)


def test_labelled_pretraining_of_recordings_not_divided_for_it_says_so(
    tiny_recording, tiny_config, split_config
):
    population = Population(
        divide([tiny_recording], [MOVIE], split_config), {"tiny": list(tiny_recording.unit_ids)}
    )
    config = PretrainingConfig(objective="masked_latents", training=QUICK)
    with pytest.raises(RecordingError, match=DIRECTION.name):
        pretrain(population, tiny_config, config, seed=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden_fraction": 0.0}, "hidden_fraction must lie"),
        ({"hidden_fraction": 1.0}, "hidden_fraction must lie"),
        ({"num_queries": 0}, "num_queries must be at least 1"),
        ({"label_weight": -0.1}, "label_weight not negative"),
        ({"window_length": 0.0}, "window_length"),
        ({"objective": "masked"}, "masked_activity or masked_latents, got 'masked'"),
        ({"pattern": "columns"}, "random_patches, units, future, got 'columns'"),
    ],
)
def test_impossible_options_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        PretrainingConfig(**wrong)
