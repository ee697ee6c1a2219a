"""Options that are impossible, or that would do nothing, are refused with what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.objectives.masked_activity import MaskedActivityConfig
from poyo_ssl.pretraining.objectives.masked_latents import MaskedLatentsConfig
from poyo_ssl.pretraining.objectives.split_units import SplitUnitsConfig
from poyo_ssl.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"label_weight": -0.1}, "label_weight must not be negative"),
        ({"embedding_modes": -1}, "embedding_modes must not be negative"),
        ({"window_length": 0.0}, "window_length must be positive"),
        ({"objective": "masked"}, "masked_latents, split_units, labels, modes, got 'masked'"),
        ({"label_weight": 1.0, "label_task": "smell"}, "Unknown task 'smell'"),
        ({"label_weight": 1.0, "label_task": "movie"}, "ask for labels; movie asks for images"),
    ],
)
def test_impossible_options_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        PretrainingConfig(**wrong)


@pytest.mark.parametrize(
    ("options", "wrong", "message"),
    [
        (MaskedActivityConfig, {"hidden_fraction": 0.0}, "hidden_fraction must lie"),
        (MaskedActivityConfig, {"hidden_fraction": 1.0}, "hidden_fraction must lie"),
        (MaskedActivityConfig, {"num_queries": 0}, "num_queries must be at least 1"),
        (MaskedActivityConfig, {"remove_modes": -1}, "remove_modes must not be negative"),
        (MaskedActivityConfig, {"pattern": "columns"}, "random_patches, units, future, got 'col"),
        (MaskedLatentsConfig, {"hidden_fraction": 2.0}, "hidden_fraction must lie"),
        (MaskedLatentsConfig, {"target": "mean"}, "stop_gradient, ema, got 'mean'"),
        (MaskedLatentsConfig, {"target": "ema", "teacher_decay": 1.0}, "teacher_decay must lie"),
        (MaskedLatentsConfig, {"teacher_decay": 0.9}, "teacher_decay needs target: ema"),
        (SplitUnitsConfig, {"remove_modes": -1}, "remove_modes must not be negative"),
    ],
)
def test_impossible_options_of_an_objective_are_refused_with_its_name(options, wrong, message):
    name = next(name for name, value in vars(PretrainingConfig()).items() if type(value) is options)
    with pytest.raises(ValueError, match=f"^{name}: .*{message}"):
        options(**wrong)


@pytest.mark.parametrize(
    ("idle", "message"),
    [
        (
            {"masked_latents": MaskedLatentsConfig(target="ema")},
            "masked_activity does not read masked_latents.target: leave it out, or set objective: "
            "masked_latents",
        ),
        (
            {"objective": "split_units", "masked_activity": MaskedActivityConfig(num_queries=8)},
            "split_units does not read masked_activity.num_queries",
        ),
        (
            {"objective": "masked_latents", "split_units": SplitUnitsConfig(remove_modes=1)},
            "masked_latents does not read split_units.remove_modes",
        ),
        (
            {
                "objective": "labels",
                "label_weight": 1.0,
                "masked_activity": MaskedActivityConfig(hidden_fraction=0.3),
            },
            "labels does not read masked_activity.hidden_fraction",
        ),
        ({"label_task": "orientation"}, "label_task does nothing with label_weight: 0"),
        ({"objective": "labels"}, "learns from nothing else: set label_weight: 1"),
        (
            {"objective": "labels", "label_weight": 1.0, "window_length": 1.0},
            "leave window_length out",
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(idle, message):
    with pytest.raises(ValueError, match=message):
        PretrainingConfig(**idle)


def test_all_problems_are_told_at_once():
    with pytest.raises(ValueError, match=r"hidden_fraction.*num_queries.*remove_modes"):
        MaskedActivityConfig(hidden_fraction=2.0, num_queries=0, remove_modes=-1)
    with pytest.raises(ValueError, match=r"window_length.*label_task does nothing"):
        PretrainingConfig(window_length=-1.0, label_task="orientation")


def test_batches_that_labels_cannot_share_are_refused():
    odd = TrainingConfig(batch_size=7)
    PretrainingConfig(training=odd)
    with pytest.raises(ValueError, match=r"share a batch.*multiple of 2 x training\.accumulate"):
        PretrainingConfig(training=odd, label_weight=1.0)
    with pytest.raises(ValueError, match="share a batch"):
        PretrainingConfig(training=TrainingConfig(batch_size=8, accumulate=8), label_weight=1.0)


def test_batches_too_small_to_correlate_features_are_refused():
    enough = TrainingConfig(batch_size=64)
    config = PretrainingConfig(objective="split_units", training=enough)
    for few in (
        {"training": TrainingConfig(batch_size=32)},
        {"training": replace(enough, accumulate=2)},
        {"label_weight": 1.0},
    ):
        with pytest.raises(ValueError, match=r"over the 32 unlabelled windows.*needs 64"):
            replace(config, **few)
    replace(config, label_weight=1.0, training=TrainingConfig(batch_size=128))


@pytest.mark.parametrize(
    ("objective", "label_weight", "streams"),
    [
        ("masked_activity", 0.0, ("unlabelled",)),
        ("masked_activity", 0.1, ("unlabelled", "labelled")),
        ("masked_latents", 0.0, ("unlabelled",)),
        ("masked_latents", 0.01, ("labelled",)),
        ("labels", 1.0, ("labelled",)),
    ],
)
def test_labels_bring_windows_of_their_own_or_share_them(objective, label_weight, streams):
    assert PretrainingConfig(objective=objective, label_weight=label_weight).streams == streams
