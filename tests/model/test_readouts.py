"""Answers of the right shape about the right instant, and pictures that start as the mean frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from poyo_ssl.model.encoder import Encoder
from poyo_ssl.model.readouts import InstantReader, LabelDecoder, MovieDecoder
from poyo_ssl.windows.activity import Windows
from poyo_ssl.windows.pictures import IMAGE_SIZE

UNITS = torch.arange(1, 7)


@pytest.fixture
def activity() -> torch.Tensor:
    """Four windows of 20 samples of six units."""
    return torch.randn(4, 20, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mean_frame() -> torch.Tensor:
    """A picture that reaches both ends of the grey scale."""
    return torch.linspace(0, 1, IMAGE_SIZE[1]).expand(IMAGE_SIZE).clone()


def test_a_label_decoder_gives_one_logit_per_class(tiny_encoder, activity):
    decoder = LabelDecoder(tiny_encoder, num_classes=5, query_time=1.0)
    assert decoder.encoder is tiny_encoder
    assert decoder(Windows(activity, UNITS)).shape == (4, 5)


def test_reading_an_instant_concatenates_the_answers(tiny_encoder, activity):
    reader = InstantReader(tiny_encoder, num_queries=3, query_time=1.0)
    assert reader.dim_out == 48
    answers = reader([Windows(activity, UNITS)])
    assert answers.shape == (4, 48)
    # each question keeps its own place
    reader.query_embedding.data = reader.query_embedding.data.flip(0)
    torch.testing.assert_close(
        reader([Windows(activity, UNITS)]).unflatten(1, (3, 16)),
        answers.unflatten(1, (3, 16)).flip(1),
    )


@torch.no_grad()
def test_the_answer_depends_on_the_instant_asked_about(tiny_encoder, activity):
    reader = InstantReader(tiny_encoder, num_queries=1, query_time=0.1)
    early = reader([Windows(activity, UNITS)])
    reader.query_time = 1.8
    assert (reader([Windows(activity, UNITS)]) - early).abs().max() > 1e-4


@torch.no_grad()
def test_decoders_do_not_care_about_the_order_of_units(tiny_encoder, activity, mean_frame):
    order = torch.tensor([5, 2, 0, 1, 3, 4])
    labels = LabelDecoder(tiny_encoder, num_classes=5, query_time=1.0)
    torch.testing.assert_close(
        labels(Windows(activity, UNITS)),
        labels(Windows(activity[:, :, order], UNITS[order])),
        atol=1e-5,
        rtol=1e-4,
    )


@torch.no_grad()
def test_windows_of_several_recordings_are_answered_as_each_alone(tiny_encoder, activity):
    labels = LabelDecoder(tiny_encoder, num_classes=5, query_time=1.0).eval()
    groups = [
        Windows(activity, UNITS),
        Windows(activity[:1, :, :3], UNITS[3:]),
        Windows(activity[2:, :, 1:4], UNITS[:3]),
    ]
    alone = torch.cat([labels(group) for group in groups])
    torch.testing.assert_close(labels(*groups), alone, atol=1e-6, rtol=1e-5)


def test_an_untrained_movie_decoder_gives_exactly_the_mean_frame(
    tiny_encoder, activity, mean_frame
):
    decoder = MovieDecoder(tiny_encoder, mean_frame=mean_frame, query_time=0.7)
    pictures = decoder(Windows(activity, UNITS))
    assert pictures.shape == (4, *IMAGE_SIZE)
    assert torch.equal(pictures, mean_frame.expand(4, -1, -1))


@torch.no_grad()
def test_an_untrained_movie_decoder_with_a_teacher_gives_exactly_its_picture(
    tiny_encoder, activity, mean_frame
):
    generator = torch.Generator().manual_seed(2)
    components = 0.1 * torch.randn(3, *IMAGE_SIZE, generator=generator)
    scores = torch.randn(4, 3, generator=generator)
    decoder = MovieDecoder(
        tiny_encoder, mean_frame=mean_frame, query_time=0.7, components=components
    )
    taught = (mean_frame + torch.einsum("bk,khw->bhw", scores, components)).clamp(0, 1)
    torch.testing.assert_close(decoder(Windows(activity, UNITS), scores=scores), taught)
    # a teacher that knows nothing scores zero
    assert torch.equal(decoder(Windows(activity, UNITS)), mean_frame.expand(4, -1, -1))


@torch.no_grad()
def test_pictures_stay_on_the_grey_scale(tiny_encoder, activity, mean_frame):
    decoder = MovieDecoder(tiny_encoder, mean_frame=mean_frame, query_time=0.7)
    ramp = torch.linspace(-3, 3, 64)[:, None].expand(IMAGE_SIZE)
    decoder.image_decoder.to_grey.register_forward_hook(lambda *_: ramp.expand(4, 1, -1, -1))
    pictures = decoder(Windows(activity, UNITS))
    torch.testing.assert_close(pictures, (mean_frame + ramp).clamp(0, 1).expand(4, -1, -1))
    assert pictures.min() == 0
    assert pictures.max() == 1


def test_a_picture_beyond_the_grey_scale_can_be_corrected(tiny_encoder, activity, mean_frame):
    decoder = MovieDecoder(tiny_encoder, mean_frame=mean_frame, query_time=0.7)
    to_grey = decoder.image_decoder.to_grey
    to_grey.register_forward_hook(lambda _module, _inputs, correction: correction - 5.0)
    pictures = decoder(Windows(activity, UNITS))
    assert torch.equal(pictures, torch.zeros_like(pictures))
    pictures.sum().backward()
    assert to_grey.weight.grad.abs().max() > 0


@pytest.mark.parametrize("dim", [8, 48])
def test_the_resolution_is_the_same_for_every_model_size(tiny_config, activity, mean_frame, dim):
    encoder = Encoder(replace(tiny_config, dim=dim), sampling_rate=10.0)
    encoder.add_units([str(i) for i in range(6)])
    decoder = MovieDecoder(encoder, mean_frame=mean_frame, query_time=0.7, num_queries=2)
    assert decoder(Windows(activity, UNITS)).shape == (4, 64, 128)


def test_a_mean_frame_of_another_size_is_refused(tiny_encoder):
    with pytest.raises(ValueError, match=r"must have shape \(64, 128\)"):
        MovieDecoder(tiny_encoder, mean_frame=torch.zeros(32, 64), query_time=0.7)


def test_the_mean_frame_is_kept_with_the_weights_and_is_not_learned(tiny_encoder, mean_frame):
    decoder = MovieDecoder(tiny_encoder, mean_frame=mean_frame, query_time=0.7)
    assert torch.equal(decoder.state_dict()["image_decoder.mean_frame"], mean_frame)
    assert "image_decoder.mean_frame" not in dict(decoder.named_parameters())


def test_a_few_steps_teach_four_windows_four_pictures(tiny_encoder, activity):
    height, width = torch.meshgrid(torch.arange(64), torch.arange(128), indexing="ij")
    centres = [(16, 30), (48, 30), (16, 100), (48, 100)]
    shown = torch.stack(
        [0.3 + 0.4 * torch.exp(-((height - y) ** 2 + (width - x) ** 2) / 400) for y, x in centres]
    )
    mean_frame = shown.mean(0)
    torch.manual_seed(1)
    decoder = MovieDecoder(tiny_encoder, mean_frame=mean_frame, query_time=1.0)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    for _ in range(60):
        loss = F.mse_loss(decoder(Windows(activity, UNITS)), shown)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        learned = decoder(Windows(activity, UNITS))
    of_mean_frame = F.l1_loss(mean_frame.expand_as(shown), shown)
    assert F.l1_loss(learned, shown) < 0.5 * of_mean_frame
    # every window has its own picture
    distances = (learned[:, None] - shown[None]).abs().mean((2, 3))
    assert distances.argmin(1).tolist() == [0, 1, 2, 3]


def test_every_parameter_of_a_movie_decoder_learns(tiny_encoder, activity, mean_frame):
    decoder = MovieDecoder(tiny_encoder, mean_frame=0.25 + 0.5 * mean_frame, query_time=0.7)
    torch.nn.init.normal_(decoder.image_decoder.to_grey.weight, std=0.01)
    decoder(Windows(activity, UNITS)).square().sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad.abs().max() > 0, name
