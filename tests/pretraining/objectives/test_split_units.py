"""Halves of the units share no unit, and their features are compared, not the recordings'."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from poyo_ssl.pretraining.objectives.activity_modes import ActivityModes
from poyo_ssl.pretraining.objectives.split_units import split_units
from poyo_ssl.windows.activity import Windows


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("num_units", [2, 5, 6])
def test_halves_are_disjoint_and_hold_every_unit_once(group, num_units):
    whole = Windows(group.activity[..., :num_units], group.unit_index[:num_units])
    (one, one_units), (other, other_units) = split_units(whole, seeded())
    assert sorted(one_units.tolist() + other_units.tolist()) == list(range(1, num_units + 1))
    assert len(one_units) == num_units // 2
    assert torch.equal(one, group.activity[..., one_units - 1])
    assert torch.equal(other, group.activity[..., other_units - 1])


def test_halves_are_drawn_anew(group):
    drawn = {tuple(split_units(group.windows, seeded(i))[0][1].tolist()) for i in range(20)}
    assert len(drawn) > 10


def test_a_lone_unit_is_in_both_halves(make, group):
    lone = replace(group, activity=group.activity[..., :1], unit_index=group.unit_index[:1])
    one, other = split_units(lone.windows, seeded())
    assert torch.equal(one[0], other[0])
    loss = make("split_units").losses([lone, group])["loss"]
    loss.backward()
    assert torch.isfinite(loss)


@torch.no_grad()
def test_features_do_not_tell_recordings_apart(make, group):
    network = make("split_units").network
    louder = replace(group, activity=5 + group.activity)
    features, latents = network([group.windows, louder.windows])
    assert features.shape == (10, 32)
    assert latents.shape == (10, 8, 16)
    torch.testing.assert_close(features[:5].mean(0), torch.zeros(32), atol=1e-5, rtol=0)
    torch.testing.assert_close(features[5:].mean(0), torch.zeros(32), atol=1e-5, rtol=0)


@torch.no_grad()
def test_halves_that_say_the_same_agree(make, group):
    # units with equal embeddings and equal activity: each half is the other
    module = make("split_units")
    module.encoder.unit_embedding.weight[1:] = module.encoder.unit_embedding.weight[1]
    same = replace(group, activity=group.activity[..., :1].repeat(1, 1, 6))
    assert float(module.losses([same])["agreement"]) == pytest.approx(1.0, abs=1e-3)
    assert float(module.losses([group])["agreement"]) < 0.9


@torch.no_grad()
def test_removed_modes_are_not_read(make, group):
    module = make("split_units", remove_modes=1, label_weight=1.0, batch_size=128)
    module.modes = ActivityModes({"tiny": torch.zeros(7)}, {"tiny": torch.full((7, 1), 6**-0.5)})
    gain = torch.randn(5, 20, 1, generator=seeded())
    unlabelled = replace(group, target=torch.full((5,), -1))
    quiet = module.losses([unlabelled, group])
    loud = module.losses([replace(g, activity=g.activity + gain) for g in (unlabelled, group)])
    for name in ("loss", "agreement", "label_loss"):
        torch.testing.assert_close(loud[name], quiet[name], atol=1e-3, rtol=1e-3)
    module.modes = None
    with_gain = module.losses([replace(unlabelled, activity=group.activity + gain), group])
    assert not torch.allclose(with_gain["loss"], quiet["loss"], atol=1e-2)
