"""The engine: a schedule that warms up, seeds that decide, the best weights kept."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from types import ModuleType
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poyo_ssl.model.readouts import LabelDecoder
from poyo_ssl.training import loggers
from poyo_ssl.training.config import LoggerName, TrainingConfig
from poyo_ssl.training.window_module import WindowModule, learning_rate_factor
from poyo_ssl.windows import activity
from poyo_ssl.windows.training_batches import WindowBatch, WindowSource
from tiny_training import QUICK, MeanDecoding, make_source, run


def valid_loss(module: MeanDecoding, source: WindowSource) -> float:
    batch = source.batch(np.arange(40), np.zeros(40, dtype=int))
    with torch.no_grad():
        return float(module.losses([batch])["loss"])


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_the_learning_rate_warms_up_to_its_peak_and_then_falls_to_zero(fraction):
    config = TrainingConfig(max_steps=200, warmup_fraction=fraction)
    factors = np.array([learning_rate_factor(step, config) for step in range(200)])
    top = round(200 * fraction)
    assert factors[top] == 1.0
    assert factors.max() == 1.0
    assert 0 < factors[0] < 0.1
    assert np.all(np.diff(factors[: top + 1]) > 0)
    assert np.all(np.diff(factors[top:]) < 0)
    assert 0 < factors[-1] < 1e-3
    # linear, then half a cosine
    assert factors[top // 2] == pytest.approx(0.5, abs=0.05)
    assert factors[(top + 200) // 2] == pytest.approx(0.5, abs=1e-6)
    assert learning_rate_factor(200, config) == pytest.approx(0.0)
    assert learning_rate_factor(300, config) == pytest.approx(0.0)


def test_without_warm_up_the_learning_rate_starts_at_its_peak():
    config = TrainingConfig(max_steps=10, warmup_fraction=0.0)
    assert learning_rate_factor(0, config) == 1.0
    assert learning_rate_factor(0, TrainingConfig(max_steps=1)) == 1.0


def test_the_optimiser_follows_the_schedule_at_every_step():
    rates: list[float] = []

    class Watched(MeanDecoding):
        def on_train_batch_start(self, *args) -> None:
            rates.append(self.optimizers().param_groups[0]["lr"])

    config = replace(QUICK, warmup_fraction=0.5)
    run(Watched(config))
    expected = [config.lr * learning_rate_factor(step, config) for step in range(12)]
    assert rates == pytest.approx(expected)


def test_training_learns():
    module = MeanDecoding(replace(QUICK, max_steps=40))
    before = valid_loss(module, make_source(1))
    result = run(module)
    assert valid_loss(module, make_source(1)) < 0.6 * before
    assert result.best_step == 40
    assert result.seconds > 0
    assert len(module.history) == 40


def test_the_same_seed_gives_bit_identical_weights():
    one, two = MeanDecoding(QUICK, dropout=0.5), MeanDecoding(QUICK, dropout=0.5)
    run(one, seed=3)
    torch.rand(17)
    run(two, seed=3)
    assert torch.equal(one.weight, two.weight)


@pytest.mark.parametrize("changes", [{"seed": 4}, {"batch_seed": 1}])
def test_another_seed_gives_other_weights(changes):
    one, two = MeanDecoding(QUICK, dropout=0.5), MeanDecoding(QUICK, dropout=0.5)
    run(one, seed=3)
    run(two, **({"seed": 3} | changes))
    assert not torch.equal(one.weight, two.weight)


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_training_stops_early_and_keeps_the_weights_that_validated_best(ema_decay):
    # validation says the opposite of training, so it gets worse from the first step on
    config = replace(QUICK, max_steps=60, patience=3, valid_every=2, ema_decay=ema_decay)
    module, valid = MeanDecoding(config), make_source(1, is_flipped=True)
    with torch.no_grad():
        module.network[1].weight.zero_()
    result = run(module, valid=valid)
    curve = result.curves[result.curves["metric"] == "valid/loss"].set_index("step")["value"]
    assert curve.index.tolist() == [2, 4, 6, 8]
    assert len(module.history) == 8
    assert result.best_step == curve.idxmin() == 2
    assert valid_loss(module, valid) == pytest.approx(curve.min(), rel=1e-5)
    if ema_decay is None:
        assert torch.equal(module.weight, module.history[1])


def test_the_best_weights_may_come_last():
    config = replace(QUICK, patience=3)
    module, valid = MeanDecoding(config), make_source(1)
    result = run(module, valid=valid)
    curve = result.curves[result.curves["metric"] == "valid/loss"].set_index("step")["value"]
    assert curve.index.tolist() == [4, 8, 12]
    assert result.best_step == curve.idxmin() == 12
    assert torch.equal(module.weight, module.history[-1])


def test_without_patience_the_last_weights_are_kept():
    module = MeanDecoding(replace(QUICK, patience=None))
    result = run(module, valid=make_source(1, is_flipped=True))
    assert result.best_step == 12
    assert torch.equal(module.weight, module.history[-1])
    assert (result.curves["metric"] == "valid/loss").sum() == 3


def test_the_moving_average_of_weights_is_what_is_kept():
    module = MeanDecoding(replace(QUICK, ema_decay=0.7))
    run(module)
    average = module.history[0]
    for known, weight in enumerate(module.history[1:], start=1):
        decay = min(0.7, (1 + known) / (10 + known))  # the first weights are soon forgotten
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(module.weight, average)
    assert not torch.allclose(module.weight, module.history[-1])


def test_the_averaged_weights_are_those_that_are_validated():
    module, valid = MeanDecoding(replace(QUICK, ema_decay=0.7)), make_source(1)
    result = run(module, valid=valid)
    curve = result.curves[result.curves["metric"] == "valid/loss"].set_index("step")["value"]
    assert valid_loss(module, valid) == pytest.approx(curve[12], rel=1e-5)


@pytest.mark.parametrize(
    ("logger", "written"), [("csv", "version_0/metrics.csv"), ("tensorboard", "events.out.*")]
)
def test_curves_are_kept_and_can_be_watched(tmp_path, logger, written):
    result = run(MeanDecoding(replace(QUICK, logger=logger)), log_directory=tmp_path / "logs")
    assert result.curves.columns.tolist() == ["step", "metric", "value"]
    assert result.curves.loc[result.curves["metric"] == "train/loss", "step"].tolist() == [10]
    [watched] = (tmp_path / "logs").glob(written)
    assert watched.stat().st_size


def test_weights_and_biases_gets_a_run_in_the_directory_of_the_fit(tmp_path, monkeypatch):
    """Its library is not installed for tests; it is given what Lightning documents."""
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    made = []
    monkeypatch.setattr(loggers, "WandbLogger", lambda **options: made.append(options))
    loggers.LOGGERS["wandb"](tmp_path / "logs" / "full" / "seed-0", 10)
    assert made == [
        {
            "name": "logs/full/seed-0",
            "save_dir": tmp_path / "logs" / "full" / "seed-0",
            "project": "poyo-ssl",
        }
    ]


@pytest.mark.parametrize("logger", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed_is_said_to_be_an_extra(tmp_path, monkeypatch, logger):
    monkeypatch.setitem(sys.modules, logger, None)
    with pytest.raises(ImportError, match=rf'pip install "poyo-ssl\[{logger}\]".*logger: csv'):
        run(MeanDecoding(replace(QUICK, logger=logger)), log_directory=tmp_path)


def test_every_name_of_a_logger_is_one():
    assert set(get_args(LoggerName)) == set(loggers.LOGGERS)


def test_nothing_is_written_without_being_asked_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(MeanDecoding(QUICK), valid=make_source(1))
    assert list(tmp_path.iterdir()) == []


def test_a_fitted_module_is_ready_to_predict():
    module = MeanDecoding(QUICK, dropout=0.5)
    run(module)
    assert not module.training
    assert not module.network.training


def test_unit_embeddings_have_a_learning_rate_of_their_own_and_no_decay(tiny_encoder):
    network = LabelDecoder(tiny_encoder, num_classes=2, query_time=1.0)
    module = WindowModule(network, replace(QUICK, unit_lr_factor=7.0, weight_decay=0.1))
    optimizer = module.configure_optimizers()["optimizer"]
    rest, units = optimizer.param_groups
    assert [id(p) for p in units["params"]] == [id(tiny_encoder.unit_embedding.weight)]
    assert units["initial_lr"] == pytest.approx(7 * 0.05)
    assert rest["initial_lr"] == 0.05
    assert units["weight_decay"] == 0
    assert rest["weight_decay"] == 0.1
    assert {id(p) for p in rest["params"]} | {id(p) for p in units["params"]} == {
        id(p) for p in module.parameters()
    }
    assert len(rest["params"]) + 1 == len(list(module.parameters()))


def test_frozen_parameters_are_not_given_to_the_optimiser(tiny_encoder):
    network = LabelDecoder(tiny_encoder, num_classes=2, query_time=1.0)
    tiny_encoder.requires_grad_(False)
    [group] = WindowModule(network, QUICK).configure_optimizers()["optimizer"].param_groups
    assert all(p.requires_grad for p in group["params"])
    assert len(group["params"]) == sum(p.requires_grad for p in network.parameters())


def test_gradients_are_clipped():
    seen: list[float] = []

    class Watched(MeanDecoding):
        def losses(self, batch: list[WindowBatch]) -> dict[str, Tensor]:
            return {"loss": 1e4 * super().losses(batch)["loss"]}

        def on_before_zero_grad(self, optimizer) -> None:  # what the last step used
            norms = [p.grad.norm() for p in self.parameters() if p.grad is not None]
            if norms:
                seen.append(float(torch.stack(norms).norm()))

    run(Watched(replace(QUICK, gradient_clip=0.5)))
    assert seen
    assert max(seen) <= 0.5 + 1e-4


def test_lamb_trains_too():
    module = MeanDecoding(replace(QUICK, optimizer="lamb", max_steps=40))
    before = valid_loss(module, make_source(1))
    run(module)
    assert type(module.configure_optimizers()["optimizer"]).__name__ == "Lamb"
    assert math.isfinite(valid_loss(module, make_source(1)))
    assert valid_loss(module, make_source(1)) < before


@pytest.mark.parametrize("accumulate", [2, 8])
def test_a_step_in_parts_is_the_same_step(accumulate):
    config = replace(QUICK, ema_decay=0.9, patience=3)
    whole, parts = MeanDecoding(config), MeanDecoding(replace(config, accumulate=accumulate))
    result, in_parts = run(whole, valid=make_source(1)), run(parts, valid=make_source(1))
    torch.testing.assert_close(parts.weight, whole.weight)
    assert in_parts.best_step == result.best_step
    columns = ["step", "metric"]
    assert in_parts.curves[columns].equals(result.curves[columns])
    np.testing.assert_allclose(in_parts.curves["value"], result.curves["value"], rtol=1e-5)


def test_parts_of_a_step_drop_different_features():
    config = replace(QUICK, accumulate=8, max_steps=1)
    module = MeanDecoding(config, dropout=0.5)
    dropped = []
    module.network[0].register_forward_hook(lambda _, x, y: dropped.append((y == 0).tolist()))
    run(module)
    assert len(dropped) == 8
    assert len({str(pattern) for pattern in dropped}) > 4


def test_bfloat16_computes_in_it_and_keeps_weights_in_float32():
    module = MeanDecoding(replace(QUICK, precision="bfloat16", max_steps=40))
    kinds = set()
    module.network.register_forward_hook(lambda _, x, y: kinds.add(y.dtype))
    before = valid_loss(module, make_source(1))
    kinds.clear()
    run(module)
    assert kinds == {torch.bfloat16}
    assert module.weight.dtype == torch.float32
    assert valid_loss(module, make_source(1)) < 0.6 * before


def test_recordings_on_the_device_train_the_same_weights(monkeypatch):
    in_memory = MeanDecoding(QUICK)
    run(in_memory, valid=make_source(1), is_mixed=True)
    # on a CPU the device is where the recordings already are: let it gather as others do
    monkeypatch.setattr(activity, "gather_in_memory", activity.gather_on_device)
    on_device = MeanDecoding(replace(QUICK, activity_on="device"))
    run(on_device, valid=make_source(1), is_mixed=True)
    assert torch.equal(on_device.weight, in_memory.weight)


def test_recordings_in_half_precision_train_nearly_the_same_weights():
    exact, half = (
        MeanDecoding(replace(QUICK, activity_precision=precision))
        for precision in ("float32", "float16")
    )
    run(exact, valid=make_source(1))
    run(half, valid=make_source(1))
    assert not torch.equal(half.weight, exact.weight)
    torch.testing.assert_close(half.weight, exact.weight, rtol=0.01, atol=0.01)


def test_lamb_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    module = MeanDecoding(replace(QUICK, optimizer="lamb"))
    with pytest.raises(ImportError, match=r'pip install "poyo-ssl\[lamb\]".*optimizer: adamw'):
        module.configure_optimizers()


def test_a_module_must_say_what_it_minimises():
    with pytest.raises(TypeError, match="WindowModule must say what it minimises"):
        WindowModule(nn.Linear(1, 1), QUICK).losses([])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_steps": 0}, "must be at least 1"),
        ({"batch_size": 0}, "must be at least 1"),
        ({"valid_every": 0}, "must be at least 1"),
        ({"max_valid_windows": 0}, "max_valid_windows must be at least 1"),
        ({"lr": 0.0}, "must be positive"),
        ({"unit_lr_factor": -1.0}, "must be positive"),
        ({"gradient_clip": 0.0}, "must be positive"),
        ({"warmup_fraction": 1.0}, "warmup_fraction and unit_dropout must lie"),
        ({"unit_dropout": 1.0}, "warmup_fraction and unit_dropout must lie"),
        ({"ema_decay": 1.0}, "ema_decay must lie"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"jitter": -0.1}, "must not be negative"),
        ({"weight_decay": -0.1}, "must not be negative"),
        ({"optimizer": "sgd"}, "optimizer must be adamw or lamb"),
        ({"precision": "float16"}, "precision must be float32 or bfloat16"),
        ({"accumulate": 0}, "must be at least 1"),
        ({"checkpoint_every": 0}, "must be at least 1"),
        ({"keep_checkpoints": 0}, "must be at least 1"),
        ({"accumulate": 3}, "batch_size must be a multiple of accumulate"),
        ({"rank_timeout": 0.0}, "rank_timeout must be positive"),
    ],
)
def test_impossible_options_are_refused_and_shown(wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        TrainingConfig(**wrong)
    [(name, value)] = wrong.items()
    assert f"{name}={value!r}" in str(caught.value)


def test_all_impossible_options_are_reported_at_once():
    with pytest.raises(ValueError, match=r"max_steps.*lr.*ema_decay.*patience"):
        TrainingConfig(max_steps=0, lr=-1, ema_decay=2.0, patience=0)


def test_steps_and_jitter_that_are_not_given_suit_the_windows():
    config = TrainingConfig(batch_size=32)
    assert [config.for_windows(n, 2.0).max_steps for n in (10, 300, 320, 2_000, 9_000)] == [
        300, 300, 320, 2_000, 3_000,
    ]  # fmt: skip
    assert config.for_windows(10, 0.4).jitter == pytest.approx(0.04)
    given = replace(config, max_steps=7, jitter=0.5)
    assert given.for_windows(2_000, 0.4) == given
    for unknown in ("num_steps", "largest_shift"):
        with pytest.raises(ValueError, match="is not given"):
            getattr(config, unknown)
