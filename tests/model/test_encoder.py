"""Latents depend on which unit did what when, and on nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_ssl.model.encoder import Encoder, EncoderConfig, QueryDecoder

UNITS = torch.arange(1, 7)


@pytest.fixture
def activity() -> torch.Tensor:
    """Three windows of 20 samples of six units."""
    return torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def concatenated_encoder(tiny_config) -> Encoder:
    """The tiny encoder with tokens as published: one for every imaging sample."""
    torch.manual_seed(0)
    encoder = Encoder(replace(tiny_config, tokens="concatenated", patch_length=0.0), 10.0)
    encoder.add_units([f"tiny-{i}" for i in range(6)])
    return encoder


@pytest.fixture(params=["gain", "concatenated"])
def encoder(request, tiny_encoder, concatenated_encoder) -> Encoder:
    """Both kinds of token."""
    return tiny_encoder if request.param == "gain" else concatenated_encoder


@torch.no_grad()
def test_reordering_units_leaves_latents_unchanged(encoder, activity):
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(
        encoder(activity, UNITS),
        encoder(activity[:, :, order], UNITS[order]),
        atol=1e-5,
        rtol=1e-4,
    )


@torch.no_grad()
def test_swapping_the_activity_of_two_units_changes_latents(encoder, activity):
    order = torch.tensor([1, 0, 2, 3, 4, 5])
    difference = encoder(activity, UNITS) - encoder(activity[:, :, order], UNITS)
    assert difference.abs().max() > 1e-3  # rounding is a thousand times less


@torch.no_grad()
def test_a_window_does_not_depend_on_its_neighbours_in_the_batch(encoder, activity):
    latents = encoder(activity, UNITS)
    others = activity.clone()
    others[1:] = 100 * torch.randn(2, 20, 6)
    assert torch.equal(latents[0], encoder(others, UNITS)[0])
    alone = encoder(activity[1:2], UNITS)
    torch.testing.assert_close(latents[1:2], alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_hidden_patches_have_no_influence_and_others_have(encoder, activity):
    patch = encoder.patch_timesteps
    shape = (3, 20 // patch, 6)
    is_hidden = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5
    samples_hidden = is_hidden.repeat_interleave(patch, dim=1)
    before = encoder(activity, UNITS, is_hidden)
    garbage = activity.masked_fill(samples_hidden, 1e6)
    assert torch.equal(before, encoder(garbage, UNITS, is_hidden))
    for window, number, unit in (~is_hidden).nonzero():
        changed = activity.clone()
        changed[window, patch * number : patch * (number + 1), unit] += 3.0
        after = encoder(changed, UNITS, is_hidden)
        is_changed = (after != before).flatten(1).any(1)
        assert is_changed[window]
        assert is_changed.sum() == 1


@torch.no_grad()
def test_every_sample_of_a_window_counts(encoder, activity):
    before = encoder(activity, UNITS)
    for timestep in range(20):
        changed = activity.clone()
        changed[:, timestep] += 1.0
        assert (encoder(changed, UNITS) - before).abs().max() > 1e-4


def test_a_patch_holds_consecutive_samples_of_one_unit(tiny_encoder, activity):
    patches = tiny_encoder.cut_patches(activity)
    assert patches.shape == (3, 4, 6, 5)
    for window, number, unit in ((0, 0, 0), (1, 3, 2), (2, 1, 5)):
        wanted = activity[window, 5 * number : 5 * (number + 1), unit]
        assert torch.equal(patches[window, number, unit], wanted)


@torch.no_grad()
def test_latents_read_the_tokens_of_their_kind(encoder, activity):
    seen = {}
    encoder.read.register_forward_pre_hook(lambda _, arguments: seen.update(enumerate(arguments)))
    encoder(activity, UNITS)
    latents, patches, value_map, units = (seen[place] for place in range(4))
    token_dim = 16 if encoder.config.tokens == "gain" else 8
    assert torch.equal(latents, encoder.latent_embedding.repeat(4, 1))
    assert torch.equal(patches, encoder.cut_patches(activity))
    assert value_map is encoder.value_map
    assert value_map.weight.shape == (token_dim, encoder.patch_timesteps)
    assert torch.equal(units, encoder.unit_embedding.weight[UNITS])
    assert units.shape == (6, token_dim)


def test_adding_units_keeps_the_embeddings_of_old_ones_and_gives_new_ones(tiny_encoder):
    before = tiny_encoder.unit_embedding.weight.detach().clone()
    tiny_encoder.add_units(["new-b", "tiny-3", "new-a"])
    after = tiny_encoder.unit_embedding.weight
    assert after.shape == (9, 16)
    assert torch.equal(after[:7], before)
    rows = tiny_encoder.unit_embedding.tokenizer(["tiny-0", "tiny-3", "new-b", "new-a"])
    assert rows == [1, 4, 7, 8]
    assert not torch.equal(after[7], after[8])
    assert after[7:].std() > 0.5
    assert after.requires_grad


def test_adding_known_units_changes_nothing(tiny_encoder):
    before = tiny_encoder.unit_embedding.weight.detach().clone()
    tiny_encoder.add_units([f"tiny-{i}" for i in range(6)])
    assert torch.equal(tiny_encoder.unit_embedding.weight, before)


def test_times_of_patches_and_latent_steps_are_centres(tiny_encoder):
    expected = torch.tensor([0.25, 0.75, 1.25, 1.75])
    torch.testing.assert_close(tiny_encoder.patch_times(20), expected)
    torch.testing.assert_close(tiny_encoder.latent_times(20), expected)


def test_latent_steps_fill_a_window_evenly(tiny_config):
    encoder = Encoder(replace(tiny_config, latent_step=0.7), sampling_rate=10.0)
    # 2 s / 0.7 s rounds to three steps of 2/3 s
    torch.testing.assert_close(encoder.latent_times(20), torch.tensor([1, 3, 5]) / 3)
    # a window shorter than a step has one, in its middle
    torch.testing.assert_close(encoder.latent_times(3), torch.tensor([0.15]))


def test_latents_are_ordered_by_time(tiny_encoder):
    phases = tiny_encoder.latent_phases(20)
    assert phases.shape == (8, 4)
    expected = tiny_encoder.rotary(torch.tensor([0.25, 0.25, 0.75, 0.75, 1.25, 1.25, 1.75, 1.75]))
    torch.testing.assert_close(phases, expected)


@settings(max_examples=60, deadline=None)
@given(
    sampling_rate=st.floats(1, 60),
    patch_length=st.floats(0.01, 2),
    window_length=st.floats(0.05, 10),
)
def test_windows_hold_whole_patches(sampling_rate, patch_length, window_length):
    config = EncoderConfig(dim=4, num_heads=1, dim_head=8, depth=0, patch_length=patch_length)
    encoder = Encoder(config, sampling_rate)
    num_timesteps = encoder.window_timesteps(window_length)
    patch = encoder.patch_timesteps
    assert patch >= 1
    assert num_timesteps >= patch
    assert num_timesteps % patch == 0
    if num_timesteps > patch:
        assert abs(num_timesteps - window_length * sampling_rate) <= patch / 2 + 1e-6
    assert len(encoder.patch_times(num_timesteps)) == num_timesteps // patch


@pytest.mark.parametrize("depth", [0, 2])
def test_latents_have_the_stated_shape_at_any_depth(tiny_config, activity, depth):
    encoder = Encoder(replace(tiny_config, depth=depth), sampling_rate=10.0)
    encoder.add_units([str(i) for i in range(6)])
    latents = encoder(activity, UNITS)
    assert latents.shape == (3, 8, 16)
    is_read_alone = torch.equal(latents, encoder.read_windows(activity, UNITS))
    assert is_read_alone == (depth == 0)


@torch.no_grad()
def test_dropout_acts_in_training_only(tiny_config, activity):
    encoder = Encoder(replace(tiny_config, dropout=0.5), sampling_rate=10.0)
    encoder.add_units([str(i) for i in range(6)])
    assert not torch.equal(encoder(activity, UNITS), encoder(activity, UNITS))
    encoder.eval()
    assert torch.equal(encoder(activity, UNITS), encoder(activity, UNITS))


def test_every_parameter_of_the_encoder_learns(encoder, activity):
    encoder(activity, UNITS).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_training_tells_which_of_two_units_is_active(encoder):
    generator = torch.Generator().manual_seed(0)
    activity = 0.3 * torch.randn(32, 20, 6, generator=generator)
    labels = torch.arange(32) % 2
    activity[labels == 0, :, 0] += 1.0
    activity[labels == 1, :, 3] += 1.0
    readout = torch.nn.Linear(16, 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *readout.parameters()], lr=1e-2)
    losses = []
    for _ in range(30):
        logits = readout(encoder(activity, UNITS).mean(1))
        losses.append(torch.nn.functional.cross_entropy(logits, labels))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.3 * losses[0]


def test_the_gradient_of_the_activity_is_its_slope(encoder, activity):
    encoder.double()
    one_window = activity[:1].double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda window: encoder.read_windows(window, UNITS), one_window, fast_mode=True
    )


def test_the_default_encoder_is_as_large_as_it_says():
    encoder = Encoder(EncoderConfig(), sampling_rate=30.0)
    names = [name for name, _ in encoder.named_parameters() if "unit_embedding" not in name]
    count = sum(encoder.get_parameter(name).numel() for name in names)
    assert count == 84_160


@torch.no_grad()
def test_an_answer_does_not_depend_on_the_other_questions(tiny_encoder, activity):
    decoder = QueryDecoder(tiny_encoder.config)
    latents, queries = tiny_encoder(activity, UNITS), torch.randn(3, 5, 16)
    times = tiny_encoder.rotary(torch.rand(3, 5) * 2)
    answers = decoder(queries, latents, times, tiny_encoder.latent_phases(20))
    one = decoder(queries[:, 2:3], latents, times[:, 2:3], tiny_encoder.latent_phases(20))
    torch.testing.assert_close(answers[:, 2:3], one, atol=1e-5, rtol=1e-4)
    # the same question at another time has another answer
    later = tiny_encoder.rotary(torch.full((3, 1), 0.1))
    moved = decoder(queries[:, 2:3], latents, later, tiny_encoder.latent_phases(20))
    assert (moved - one).abs().max() > 1e-4


def test_the_smallest_head_works(tiny_config, activity):
    encoder = Encoder(replace(tiny_config, dim_head=8), sampling_rate=10.0)
    encoder.add_units([str(i) for i in range(6)])
    assert torch.isfinite(encoder(activity, UNITS)).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"latents_per_step": 0}, "latents_per_step must be at least 1"),
        ({"depth": -1}, "depth must not be negative, got -1"),
        ({"dim_head": 10}, "multiple of 4 and at least 8"),
        ({"dim_head": 4}, "multiple of 4 and at least 8"),
        ({"longest_period": 0.1}, "longest_period must exceed 0.1 s"),
        ({"patch_length": -0.1}, "patch_length not negative, got 0.5 and -0.1"),
        ({"latent_step": 0.0}, "latent_step must be a positive number of seconds"),
        ({"latent_step": -1.0}, "latent_step must be a positive number of seconds"),
        ({"tokens": "additive"}, "tokens must be one of gain, concatenated, projected, got"),
        ({"tokens": "concatenated"}, "patch_length=0 and an even dim, got 0.333"),
        (
            {"tokens": "concatenated", "patch_length": 0.0, "dim": 15},
            r"patch_length=0 and an even dim, got 0\.0 and 15",
        ),
        ({"dropout": 1.0}, "dropout must lie in"),
    ],
)
def test_impossible_sizes_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**wrong)
