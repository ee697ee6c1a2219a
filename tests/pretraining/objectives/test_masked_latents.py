"""The masked view knows nothing of what it must equal; a target learns nothing, and is watched."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from poyo_ssl.model.checkpoints import network_tensors
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.model.masking import hide_last_steps
from poyo_ssl.pretraining.objectives.masked_latents import MaskedLatentsNetwork


@torch.no_grad()
def test_without_masking_the_two_views_are_identical(tiny_config, group, make):
    # dropout is off in both views, whatever the encoder was built with
    encoder = Encoder(replace(tiny_config, dropout=0.5), 10.0)
    encoder.add_units([f"tiny-{i}" for i in range(6)])
    module = make("masked_latents")
    network = type(module)(encoder, module.config, 0, 0).network
    nothing = torch.zeros(4, dtype=torch.bool)
    masked, unmasked, _ = network([group.windows], nothing)
    assert torch.equal(masked, unmasked)
    masked, again, target = network([group.windows], torch.tensor([False, False, True, True]))
    assert torch.equal(again, unmasked)
    assert torch.equal(target, unmasked)
    assert not torch.allclose(masked, again)


@torch.no_grad()
def test_the_masked_view_knows_nothing_of_the_hidden_steps(tiny_encoder, group, monkeypatch):
    network = MaskedLatentsNetwork(tiny_encoder, with_teacher=False)
    latents = tiny_encoder.read_windows(*group.windows)
    hidden = torch.tensor([False, False, True, True])
    is_hidden = hidden.repeat_interleave(2)

    def views(read: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        monkeypatch.setattr(tiny_encoder, "read_windows", lambda *_: read)
        masked, unmasked, _ = network([group.windows], hidden)
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
    network = MaskedLatentsNetwork(tiny_encoder, with_teacher=False)
    processed: list[torch.Tensor] = []
    monkeypatch.setattr(tiny_encoder, "process", lambda x, _: processed.append(x) or x)
    network([group.windows], torch.tensor([False, False, False, True]))
    masked, unmasked = processed
    assert torch.equal(masked[:, :6], unmasked[:, :6])
    assert (masked[:, 6:] != unmasked[:, 6:]).all()
    assert torch.equal(masked[:, 6:], masked[:1, 6:].expand(5, -1, -1))
    assert not torch.equal(masked[:, 6], masked[:, 7])  # two latents of one step differ


def test_the_target_has_no_gradient(make, group):
    module = make("masked_latents")
    is_hidden = hide_last_steps(4, 0.5).repeat_interleave(2)
    parameters = [p for p in module.parameters() if p is not module.network.masked_token]

    def gradients(loss: torch.Tensor) -> torch.Tensor:
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        return torch.cat([g.flatten() for g in grads if g is not None])

    def by_hand(*, is_stopped: bool) -> torch.Tensor:
        masked, target, _ = module.network([group.windows], hide_last_steps(4, 0.5))
        target = target.detach() if is_stopped else target
        return (masked[:, is_hidden] - target[:, is_hidden]).abs().mean()

    ours = gradients(module.losses([group])["loss"])
    torch.testing.assert_close(ours, gradients(by_hand(is_stopped=True)))
    through = gradients(by_hand(is_stopped=False))
    assert ours.shape == through.shape
    assert not torch.allclose(ours, through, atol=1e-3 * float(through.abs().max()))


def test_the_labels_are_read_from_the_unmasked_view_of_the_same_windows(make, group):
    module = make("masked_latents", label_weight=0.01)
    terms = module.losses([group])
    loss = terms["reconstruction"] + 0.01 * terms["label_loss"]
    torch.testing.assert_close(terms["loss"], loss)
    _, unmasked, _ = module.network([group.windows], hide_last_steps(4, 0.5))
    num_timesteps = group.activity.shape[1]
    logits = module.labels.answer(module.encoder, unmasked, num_timesteps)
    expected = torch.nn.functional.cross_entropy(logits, group.target)
    torch.testing.assert_close(terms["label_loss"], expected)


@pytest.mark.parametrize("target", ["stop_gradient", "ema"])
def test_collapse_is_visible(make, group, target):
    module = make("masked_latents", target=target).eval()
    healthy = module.losses([group])
    still = replace(group, activity=torch.zeros_like(group.activity))
    collapsed = module.losses([still])
    assert healthy["target_variance"] > collapsed["target_variance"] > 0  # latents differ
    assert healthy["latent_variance"] > 1e-6 > collapsed["latent_variance"]
    assert healthy["target_effective_rank"] > collapsed["target_effective_rank"]


# the teacher


def test_the_teacher_begins_as_the_encoder_and_gets_no_gradient(make, group):
    module = make("masked_latents", target="ema")
    teacher = module.network.teacher
    ours, theirs = network_tensors(module.encoder), network_tensors(teacher)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    module.losses([group])["loss"].backward()
    assert all(p.grad is None for p in teacher.parameters())
    trained = {name for name, _ in module.trainable_parameters()}
    assert not any("teacher" in name for name in trained)
    assert any(p.grad is not None for p in module.encoder.parameters())


@torch.no_grad()
def test_the_teacher_follows_the_encoder_by_a_moving_average(make):
    network = make("masked_latents", target="ema").network
    weight, average = network.encoder.value_map.weight, network.teacher.value_map.weight
    weight.add_(1.0)
    expected = average.clone()
    for _ in range(3):
        network.move_teacher(0.9)
        expected = 0.9 * expected + 0.1 * weight
    torch.testing.assert_close(average, expected)
    for _ in range(300):
        network.move_teacher(0.9)
    torch.testing.assert_close(average, weight)


@torch.no_grad()
def test_the_teachers_latents_are_normalised_and_ignore_the_encoder(make, group):
    network = make("masked_latents", target="ema").network
    hidden = hide_last_steps(4, 0.5)
    *_, target = network([group.windows], hidden)
    torch.testing.assert_close(target.mean(-1), torch.zeros(5, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.var(-1, correction=0), torch.ones(5, 8), atol=1e-3, rtol=0)
    network.encoder.value_map.weight.mul_(-2.0)
    *_, same = network([group.windows], hidden)
    assert torch.equal(same, target)
    network.teacher.value_map.weight.mul_(-2.0)
    *_, other = network([group.windows], hidden)
    assert not torch.allclose(other, target)
