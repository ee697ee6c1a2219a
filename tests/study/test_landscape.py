"""Curvature of a bowl is what its matrix says, and a bowl is not rough."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from poyo_ssl.study.landscape import LossSurface, roughness


@pytest.fixture(scope="module")
def hessian() -> np.ndarray:
    root = np.random.default_rng(0).normal(size=(14, 14))
    return root @ root.T


@pytest.fixture
def bowl(hessian) -> LossSurface:
    rng = np.random.default_rng(1)
    matrix = nn.Parameter(torch.from_numpy(rng.normal(size=(3, 4))))
    bias = nn.Parameter(torch.from_numpy(rng.normal(size=2)))
    weights = torch.from_numpy(hessian)

    def loss() -> torch.Tensor:
        vector = torch.cat([matrix.flatten(), bias])
        return 0.5 * vector @ weights @ vector

    return LossSurface([matrix, bias], loss)


def test_curvature_is_that_of_the_matrix(bowl, hessian):
    rng = np.random.default_rng(0)
    vector = rng.normal(size=14)
    assert np.allclose(bowl.hessian_product(vector), hessian @ vector, rtol=1e-6)
    largest = np.linalg.eigvalsh(hessian)[-1]
    assert bowl.largest_eigenvalue(rng) == pytest.approx(largest, rel=0.01)
    trace = bowl.trace(rng, num_probes=200)
    assert abs(trace.value - np.trace(hessian)) < 4 * trace.standard_error


def test_weights_are_put_back(bowl):
    before = [parameter.detach().clone() for parameter in bowl.parameters]
    rng = np.random.default_rng(0)
    bowl.profile(bowl.random_direction(rng), np.linspace(-1, 1, 5))
    bowl.largest_eigenvalue(rng)
    assert all(torch.equal(a, b) for a, b in zip(before, bowl.parameters, strict=True))


def test_directions_are_as_long_as_filters_and_leave_biases(bowl):
    direction = bowl.random_direction(np.random.default_rng(0))
    matrix, bias = bowl.parameters
    rows = np.linalg.norm(direction[:12].reshape(3, 4), axis=1)
    assert np.allclose(rows, matrix.detach().norm(dim=1).numpy())
    assert not direction[12:].any()
    assert len(bias) == 2


def test_a_bowl_is_not_rough_and_waves_are(bowl):
    steps = np.linspace(-1, 1, 21)
    losses = bowl.profile(bowl.random_direction(np.random.default_rng(0)), steps)
    assert losses[10] == pytest.approx(float(bowl.loss().detach()))
    assert roughness(steps, losses) < 1e-12
    assert roughness(steps, losses + np.ptp(losses) * np.sin(40 * steps)) > 0.3
    assert roughness(steps, np.ones(21)) == 0.0
    with pytest.raises(ValueError, match="at least 4"):
        roughness(steps[:3], losses[:3])
