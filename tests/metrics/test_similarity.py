import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from poyo_ssl.metrics.similarity import WINDOW, structural_similarity_of


@pytest.fixture
def pictures(rng):
    one = rng.random((3, 24, 40))
    two = np.clip(one + 0.2 * rng.normal(size=one.shape), 0, 1)
    return torch.from_numpy(one), torch.from_numpy(two)


def test_it_is_the_gaussian_ssim_of_scikit_image(pictures):
    one, two = pictures
    expected = [
        structural_similarity(
            a.numpy(), b.numpy(), gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=1.0,
        )
        for a, b in zip(one, two, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(structural_similarity_of(one, two).numpy(), expected, atol=1e-9)


def test_it_is_torchmetrics_ssim_away_from_the_edges(pictures):
    one, two = pictures
    _, full = structural_similarity_index_measure(
        one[:, None], two[:, None], data_range=1.0, reduction="none", return_full_image=True
    )
    edge = WINDOW // 2
    expected = full[..., edge:-edge, edge:-edge].mean(dim=(1, 2, 3))
    torch.testing.assert_close(structural_similarity_of(one, two), expected, atol=1e-6, rtol=0)


def test_its_gradient_is_exact(pictures):
    one, two = pictures
    one = one[:1, :12, :13].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda x: structural_similarity_of(x, two[:1, :12, :13]), (one,)
    )


def test_it_has_a_gradient_after_pictures_of_the_same_size_were_scored_without_one(pictures):
    one, two = (picture[:, :13, :17].clone() for picture in pictures)
    with torch.inference_mode():
        structural_similarity_of(one, two)
    structural_similarity_of(one.requires_grad_(True), two).sum().backward()
    assert one.grad.any()


def test_a_picture_is_wholly_similar_to_itself(pictures):
    one, _ = pictures
    torch.testing.assert_close(structural_similarity_of(one, one), torch.ones(3).double())


def test_mixed_precision_does_not_touch_it():
    one = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)) * 0.01 + 0.9
    expected = structural_similarity_of(one, one.flip(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(structural_similarity_of(one, one.flip(0)), expected)
