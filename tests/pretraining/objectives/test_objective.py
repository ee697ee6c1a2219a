"""All objectives: labels weigh what they are told to, and monitors say whether latents differ."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

import pytest
import torch
import torch.nn.functional as F

from poyo_ssl.model.losses import effective_rank
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.objectives import OBJECTIVES
from poyo_ssl.windows.training_batches import WindowBatch

SELF_SUPERVISED = ("masked_activity", "masked_latents", "split_units")


def unlabelled(group: WindowBatch) -> WindowBatch:
    return replace(group, target=torch.full_like(group.target, -1))


def test_every_objective_has_a_class_of_its_own_and_options_have_an_objective():
    assert len(set(OBJECTIVES.values())) == len(OBJECTIVES)
    config = PretrainingConfig()
    groups = {f.name for f in fields(config) if is_dataclass(getattr(config, f.name))}
    assert groups - {"training"} <= set(OBJECTIVES)


@pytest.mark.parametrize("name", SELF_SUPERVISED)
def test_without_a_weight_labels_have_no_effect(make, group, name):
    module = make(name)
    terms, same = module.losses([group]), module.losses([unlabelled(group)])
    assert module.labels is None
    assert not any("label" in term for term in terms)
    assert torch.equal(terms["loss"], same["loss"])


@pytest.mark.parametrize("name", ["masked_activity", "split_units"])
def test_labels_add_their_weighted_cross_entropy_to_the_loss_of_other_windows(make, group, name):
    module = make(name, label_weight=0.3, batch_size=128)
    alone = make(name).losses([unlabelled(group)])
    # windows that only a label is asked of may be shorter
    labelled = replace(group, activity=group.activity[:3, :10] + 1.0, target=group.target[1:4])
    terms = module.losses([unlabelled(group), labelled])
    torch.testing.assert_close(terms["loss"], alone["loss"] + 0.3 * terms["label_loss"])
    latents = module.encoder(*labelled.windows)
    logits = module.labels.answer(module.encoder, latents, 10)
    torch.testing.assert_close(terms["label_loss"], F.cross_entropy(logits, labelled.target))
    accuracy = (logits.argmax(1) == labelled.target).float().mean()
    assert terms["label_accuracy"] == accuracy


def test_labels_alone_are_all_there_is_to_supervised_pretraining(make, group):
    module = make("labels", label_weight=0.5)
    terms = module.losses([group])
    torch.testing.assert_close(terms["loss"], 0.5 * terms["label_loss"])
    relabelled = module.losses([replace(group, target=group.target.flip(0))])
    assert relabelled["loss"] != terms["loss"]


@pytest.mark.parametrize("name", [name for name, o in OBJECTIVES.items() if o.is_trained])
def test_monitors_are_computed_in_validation_and_where_curves_have_a_point(make, group, name):
    module = make(name, **({"label_weight": 1.0} if name == "labels" else {}))
    assert "effective_rank" not in module.losses([group])  # the first step has no point
    terms = module.eval().losses([group])
    assert 1 <= float(terms["effective_rank"]) <= 16
    assert float(terms["latent_variance"]) > 0


@torch.no_grad()
def test_monitors_are_of_the_mean_latents(make, group):
    module = make("labels", label_weight=1.0).eval()
    features = module.encoder(*group.windows).mean(1)
    terms = module.losses([group])
    torch.testing.assert_close(terms["effective_rank"], effective_rank(features))
    torch.testing.assert_close(terms["latent_variance"], features.var(0, correction=0).mean())
