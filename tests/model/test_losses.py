"""Losses whose values are known another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from poyo_ssl.model.losses import (
    barlow_twins_loss,
    cross_correlation,
    effective_rank,
    frame_loss,
    label_loss,
    picture_loss,
    teacher_loss,
)


def test_identical_pictures_have_no_loss():
    pictures = torch.rand(3, 32, 48)
    for name, value in picture_loss(pictures, pictures, ssim_weight=2.0).items():
        assert float(value) == pytest.approx(0.0, abs=1e-6), name


def test_the_picture_loss_is_the_weighted_sum_of_its_terms():
    predicted, true = torch.rand(3, 32, 48), torch.rand(3, 32, 48)
    terms = picture_loss(predicted, true, ssim_weight=0.5)
    assert float(terms["l1"]) == pytest.approx(float((predicted - true).abs().mean()))
    assert float(terms["loss"]) == pytest.approx(float(terms["l1"] + 0.5 * terms["dissimilarity"]))
    assert 0.5 < float(terms["dissimilarity"]) < 1.5  # unrelated noise


def test_flat_pictures_differ_structurally_by_their_luminance_alone():
    # SSIM of constant pictures a and b is (2ab + c) / (a² + b² + c) with c = (0.01 x range)²
    terms = picture_loss(torch.full((1, 32, 32), 0.25), torch.full((1, 32, 32), 0.75), 1.0)
    ssim = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert float(terms["dissimilarity"]) == pytest.approx(1 - ssim, abs=1e-3)
    assert float(terms["l1"]) == pytest.approx(0.5)


def test_following_the_gradient_of_the_picture_loss_lowers_both_terms():
    torch.manual_seed(0)
    true = torch.rand(1, 24, 24)
    predicted = torch.full_like(true, 0.5).requires_grad_()
    optimizer = torch.optim.Adam([predicted], lr=0.02)
    first = last = picture_loss(predicted, true, 1.0)
    for _ in range(30):
        optimizer.zero_grad()
        last["loss"].backward()
        optimizer.step()
        last = picture_loss(predicted, true, 1.0)
    assert last["l1"] < 0.3 * first["l1"]
    assert last["dissimilarity"] < 0.3 * first["dissimilarity"]


def test_smoothed_cross_entropy_by_hand():
    logits = torch.tensor([[2.0, 0.0, 0.0]])
    total = math.exp(2) + 2
    right, wrong = -math.log(math.exp(2) / total), -math.log(1 / total)
    # the label keeps 0.7 and each of the three classes gets 0.1
    expected = 0.8 * right + 0.1 * wrong + 0.1 * wrong
    assert float(label_loss(logits, torch.tensor([0]), 0.3)) == pytest.approx(expected)
    assert float(label_loss(logits, torch.tensor([0]), 0.0)) == pytest.approx(right)


def test_frame_loss_is_the_cross_entropy_with_a_gaussian_over_the_frames_about():
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.5]])
    weight = [math.exp(-0.5 * (distance / 1.5) ** 2) for distance in (1, 0, 1, 2)]
    target = [0.8 * each / sum(weight) + 0.2 / 4 for each in weight]
    total = math.log(sum(math.exp(logit) for logit in logits[0].tolist()))
    expected = -sum(
        t * (logit - total) for t, logit in zip(target, logits[0].tolist(), strict=True)
    )
    found = frame_loss(logits, torch.tensor([1]), width=1.5, smoothing=0.2)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_without_a_width_one_frame_alone_is_right(rng):
    logits, frame = torch.from_numpy(rng.normal(size=(5, 7))), torch.tensor([0, 6, 3, 3, 1])
    found = frame_loss(logits, frame, width=0.0, smoothing=0.1)
    assert float(found) == float(label_loss(logits, frame, 0.1))
    narrow = frame_loss(logits, frame, width=1e-3, smoothing=0.1)
    assert float(narrow) == pytest.approx(float(found))


def test_agreeing_with_the_teacher_costs_nothing():
    logits = torch.randn(5, 4)
    assert float(teacher_loss(logits, logits.softmax(1))) == pytest.approx(0.0, abs=1e-6)


def test_disagreeing_with_the_teacher_costs_the_divergence():
    # teacher (1, 0) against (1/4, 3/4): log 4; (1/2, 1/2) against (1/4, 3/4): log(4/3) / 2
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    teacher = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    expected = (math.log(4) + 0.5 * math.log(4 / 3)) / 2
    assert float(teacher_loss(logits, teacher)) == pytest.approx(expected, rel=1e-5)


def test_features_along_one_direction_have_rank_one():
    features = torch.randn(50, 1) @ torch.randn(1, 8) + 3.0
    assert float(effective_rank(features)) == pytest.approx(1.0, abs=1e-3)


def test_constant_features_have_rank_one():
    assert float(effective_rank(torch.full((50, 8), 2.0))) == pytest.approx(1.0, abs=1e-3)


def test_isotropic_features_have_full_rank():
    corners = torch.cat([torch.eye(8), -torch.eye(8)])
    assert float(effective_rank(corners + 5.0)) == pytest.approx(8.0, rel=1e-4)


def test_effective_rank_of_a_known_spectrum():
    # variances 3/4 and 1/4: the exponential of their entropy
    features = torch.tensor([[3**0.5, 0.0], [-(3**0.5), 0.0], [0.0, 1.0], [0.0, -1.0]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(effective_rank(features)) == pytest.approx(math.exp(entropy), rel=1e-5)


# two views


def decorrelated(num_windows: int = 32, num_features: int = 8) -> torch.Tensor:
    """Features of zero mean, none correlated with another."""
    noise = torch.randn(num_windows, num_features, generator=torch.Generator().manual_seed(0))
    return torch.linalg.qr(noise - noise.mean(0)).Q


def test_the_cross_correlation_is_pearsons():
    one, other = torch.randn(20, 3), torch.randn(20, 3)
    expected = np.corrcoef(one.T, other.T)[:3, 3:]
    np.testing.assert_allclose(cross_correlation(5 * one + 2, other - 7), expected, atol=1e-5)


def test_identical_decorrelated_views_have_no_barlow_twins_loss_and_others_have_one():
    features = decorrelated()
    assert barlow(features, 3 * features - 1) == pytest.approx(0.0, abs=1e-4)
    # views that share nothing, views whose features repeat each other, views that do not vary
    assert barlow(features, decorrelated().flip(1)) == pytest.approx(1.02, abs=1e-2)
    repeated = features[:, :1].repeat(1, 8)
    assert barlow(repeated, repeated) == pytest.approx(0.02 * 7, abs=1e-3)
    assert barlow(torch.ones(32, 8), torch.ones(32, 8)) == pytest.approx(1.0, abs=1e-3)


def barlow(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(barlow_twins_loss(cross_correlation(one, other), 0.02))


def test_features_that_do_not_vary_leave_the_gradient_finite():
    features = torch.ones(16, 4, requires_grad=True)
    barlow_twins_loss(cross_correlation(features, features), 0.02).backward()
    assert torch.isfinite(features.grad).all()
