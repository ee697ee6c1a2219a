"""Dropout drops what it says, scales what it keeps, and passes gradients to that alone."""

from __future__ import annotations

import pytest
import torch

from poyo_ssl.model.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.2, 0.4, 0.9])
def test_a_feature_is_dropped_with_the_probability_and_the_mean_stays(p):
    torch.manual_seed(0)
    dropped = Dropout(p)(torch.ones(1001, 997))
    share = (dropped == 0).float().mean().item()
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / dropped.numel()) ** 0.5)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert dropped.unique().numel() == 2


def test_features_are_dropped_independently():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(400_000)) > 0).double()
    for lag in (1, 2, 3, 4, 5, 16):
        correlation = torch.corrcoef(torch.stack([kept[:-lag], kept[lag:]]))[0, 1]
        assert abs(correlation) < 5 / 400_000**0.5


def test_only_what_was_kept_has_a_gradient():
    torch.manual_seed(0)
    x = torch.randn(50, 7, requires_grad=True)
    out = Dropout(0.3)(x)
    out.sum().backward()
    assert torch.equal(x.grad == 0, out == 0)
    torch.testing.assert_close(x.grad * x, out)


def test_the_seed_decides_what_is_dropped():
    x = torch.ones(100)
    first, same, other = (
        Dropout(0.5)(x) for seed in (1, 1, 2) if torch.manual_seed(seed) is not None
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_nothing_is_dropped_in_eval_mode_or_with_probability_zero():
    x = torch.randn(10)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_impossible_probabilities_are_refused(p):
    with pytest.raises(ValueError, match="p must lie in"):
        Dropout(p)
