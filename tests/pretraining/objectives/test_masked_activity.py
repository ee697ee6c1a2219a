"""What is hidden stays hidden, what is asked about is what was hidden, and parts hide the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from poyo_ssl.model.masking import PATTERNS
from poyo_ssl.pretraining.objectives.activity_modes import ActivityModes
from poyo_ssl.pretraining.objectives.masked_activity import HiddenPatches
from poyo_ssl.windows.training_batches import WindowBatch


def predict(module, group: WindowBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted and true hidden patches."""
    question = module.hide(group)
    [predicted], _ = module.network([question])
    return predicted, question.truth(group.activity, 5)


@torch.no_grad()
@pytest.mark.parametrize("pattern", PATTERNS)
def test_predictions_do_not_depend_on_what_is_hidden(make, group, pattern):
    # the published code hides one column of features and lets the answer through
    module = make("masked_activity", pattern=pattern)
    predicted, true = predict(module, group)
    is_hidden = PATTERNS[pattern](5, 4, 6, 0.5, module.generator()).repeat_interleave(5, dim=1)
    garbage = replace(group, activity=group.activity.masked_fill(is_hidden, 1e4))
    predicted_from_garbage, true_garbage = predict(module, garbage)
    assert torch.equal(predicted, predicted_from_garbage)
    assert torch.equal(true_garbage, torch.full_like(true, 1e4))
    # what is not hidden is read
    louder = torch.where(is_hidden, group.activity, group.activity + 1.0)
    predicted_from_louder, same = predict(module, replace(group, activity=louder))
    assert torch.equal(same, true)
    assert (predicted_from_louder - predicted).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_truth_is_the_activity_of_the_patches_asked_about(make, group, pattern):
    # a sample that says where it is: 1000 x window + 10 x timestep + 0.1 x unit
    window, timestep, unit = torch.meshgrid(*(torch.arange(n) for n in (5, 20, 6)), indexing="ij")
    coded = replace(group, activity=(1000 * window + 10 * timestep + 0.1 * unit).float())
    module = make("masked_activity", pattern=pattern, num_queries=3)
    question = module.hide(coded)
    true = question.truth(coded.activity, 5)
    assert true.shape == (5, 3, 5)
    for w in range(5):
        for q in range(3):
            patch, asked = question.asked_patch[w, q], question.asked_unit[w, q]
            assert question.is_hidden[w, patch, asked]
            expected = 1000 * w + 10 * (5 * patch + torch.arange(5)) + 0.1 * asked
            torch.testing.assert_close(true[w, q], expected)


@torch.no_grad()
def test_a_prediction_depends_on_the_unit_and_the_time_asked_about(make, group):
    network = make("masked_activity").network

    def ask(unit: int, patch: int) -> torch.Tensor:
        question = HiddenPatches(
            group=group,
            is_hidden=torch.zeros(5, 4, 6, dtype=torch.bool),
            asked_unit=torch.full((5, 1), unit),
            asked_patch=torch.full((5, 1), patch),
        )
        [answer], _ = network([question])
        return answer

    assert ask(0, 0).shape == (5, 1, 5)
    assert not torch.allclose(ask(0, 0), ask(1, 0), atol=1e-3)
    assert not torch.allclose(ask(0, 0), ask(0, 3), atol=1e-5)


def test_the_loss_is_the_mean_squared_error_of_hidden_patches(make, group):
    module = make("masked_activity")
    terms = module.losses([group])
    predicted, true = predict(module, group)
    error = (predicted - true).square().mean()
    torch.testing.assert_close(terms["loss"], error)
    torch.testing.assert_close(terms["r2"], 1 - error / true.var(unbiased=False))


def test_every_window_weighs_the_same_whatever_its_recording(make, group):
    module = make("masked_activity")
    few = replace(group, activity=3 * group.activity[:1], target=group.target[:1])
    together = module.losses([group, few])["loss"]
    one, other = module.losses([group])["loss"], module.losses([few])["loss"]
    torch.testing.assert_close(together, (5 * one + other) / 6)


@torch.no_grad()
def test_recordings_are_predicted_together_as_they_are_alone(make, group):
    module = make("masked_activity")
    other = replace(
        group, activity=group.activity[:2, :, :4], unit_index=torch.tensor([6, 2, 4, 1])
    )
    questions = [module.hide(group), module.hide(other)]
    together, latents = module.network(questions)
    assert len(latents) == 7
    for question, predicted in zip(questions, together, strict=True):
        torch.testing.assert_close(predicted, module.network([question])[0][0])


@pytest.mark.parametrize("pattern", ["units", "random_patches"])
def test_each_window_hides_the_same_however_a_step_is_divided(make, group, pattern):
    module = make("masked_activity", batch_size=6, pattern=pattern, num_queries=2)
    whole = module.hide(replace(group, position=torch.tensor([5, 1, 0, 2, 4])))
    part = replace(
        group,
        activity=group.activity[[3, 1]],
        target=group.target[[3, 1]],
        position=torch.tensor([2, 1]),
    )
    hidden = module.hide(part)
    assert torch.equal(hidden.is_hidden, whole.is_hidden[[3, 1]])
    assert torch.equal(hidden.asked_unit, whole.asked_unit[[3, 1]])
    assert torch.equal(hidden.asked_patch, whole.asked_patch[[3, 1]])


def test_masks_depend_on_the_seed_and_every_validation_hides_the_same(make, group):
    module, other = make("masked_activity"), make("masked_activity")
    other.seed = 5
    assert module.losses([group])["loss"] == module.losses([group])["loss"]
    assert module.losses([group])["loss"] != other.losses([group])["loss"]
    steps = iter(range(100))

    class Advancing(type(module)):
        @property
        def global_step(self) -> int:
            return next(steps)

    module.__class__ = Advancing
    assert module.losses([group])["loss"] != module.losses([group])["loss"]
    module.eval()
    assert module.losses([group])["loss"] == module.losses([group])["loss"]


def test_a_lone_unit_spoils_neither_loss_nor_gradient(make, group):
    # unit dropout, or a recording with one predictable unit, leaves nothing to read
    lone = replace(group, activity=group.activity[..., :1], unit_index=group.unit_index[:1])
    module = make("masked_activity")
    loss = module.losses([lone, group])["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@torch.no_grad()
def test_the_population_mean_is_that_of_the_visible_units(make, group):
    module = make("masked_activity")
    question = module.hide(group)
    means = question.visible_mean(5)
    for w in range(5):
        for q in range(means.shape[1]):
            patch = int(question.asked_patch[w, q])
            visible = group.activity[w, 5 * patch : 5 * patch + 5, ~question.is_hidden[w, patch]]
            torch.testing.assert_close(means[w, q], visible.mean(-1))


@torch.no_grad()
def test_the_r2_of_the_population_mean_is_a_squared_correlation(make, group):
    module = make("masked_activity").eval()
    question = module.hide(group)
    true, means = question.truth(group.activity, 5), question.visible_mean(5)
    correlation = np.corrcoef(means.flatten(), true.flatten())[0, 1]
    terms = module.losses([group])
    above = float(terms["r2_above_population_mean"])
    assert above == pytest.approx(float(terms["r2"]) - correlation**2, abs=1e-5)


@torch.no_grad()
def test_units_that_all_do_the_same_are_predicted_by_the_population_mean(make, group):
    module = make("masked_activity").eval()
    shared = replace(group, activity=group.activity[..., :1].repeat(1, 1, 6))
    terms = module.losses([shared])
    torch.testing.assert_close(terms["r2_above_population_mean"], terms["r2"] - 1)


@torch.no_grad()
def test_where_all_units_are_hidden_the_population_mean_explains_nothing(make, group):
    terms = make("masked_activity", pattern="future").eval().losses([group])
    assert terms["r2_above_population_mean"] == terms["r2"]


@torch.no_grad()
def test_removed_modes_are_not_asked_for_but_still_read(make, group):
    module = make("masked_activity", remove_modes=1)
    equal = torch.full((7, 1), 6**-0.5)
    module.modes = ActivityModes({"tiny": torch.zeros(7)}, {"tiny": equal})
    target = module.target_of(group)
    torch.testing.assert_close(target, group.activity - group.activity.mean(-1, keepdim=True))
    question = module.hide(group)
    [predicted], _ = module.network([question])
    error = (predicted - question.truth(target, 5)).square().mean()
    torch.testing.assert_close(module.losses([group])["loss"], error)
