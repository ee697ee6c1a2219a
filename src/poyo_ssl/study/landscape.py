"""How a loss changes about the weights that were found: profiles, curvature, roughness."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from poyo_ssl.study.information import Estimate

STEP = 1e-4
"""Length of the steps of finite differences, relative to that of the weights."""


class LossSurface:
    """A loss as a function of the weights of a network, about where they are.

    Weights are put back after every question. Curvature is that of central differences of
    gradients, which any network has, twice differentiable code or not; give weights in double
    precision.

    Args:
        parameters: What may move.
        loss: The loss at the present weights, a number; nothing in it may be random.

    References:
        Li et al. 2018, Visualizing the loss landscape of neural nets (directions).
        Hutchinson 1990 (trace).
    """

    def __init__(self, parameters: Sequence[nn.Parameter], loss: Callable[[], Tensor]) -> None:
        self.parameters = list(parameters)
        self.loss = loss
        self.origin = nn.utils.parameters_to_vector(self.parameters).detach().clone()

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.origin.numel()

    def random_direction(self, rng: np.random.Generator) -> np.ndarray:
        """A gaussian direction in which every filter is as long as that of the weights, (size,).

        A filter is a row of a matrix. Biases and gains of norms do not move.
        """
        parts = []
        for parameter in self.parameters:
            drawn = torch.from_numpy(rng.normal(size=tuple(parameter.shape))).to(parameter)
            if parameter.ndim < 2:
                parts.append(torch.zeros_like(drawn).flatten())
                continue
            rows, drawn = parameter.detach().flatten(1), drawn.flatten(1)
            length = rows.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
            parts.append((drawn * length).flatten())
        direction: np.ndarray = torch.cat(parts).numpy()
        return direction

    def profile(self, direction: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The loss so many lengths of a direction away, (num_steps,)."""
        losses = []
        with torch.no_grad():
            for step in steps:
                self._move(step * direction)
                losses.append(float(self.loss()))
        self._move(np.zeros(self.size))
        return np.array(losses)

    def gradient(self, offset: np.ndarray) -> np.ndarray:
        """Of the loss so far away, (size,)."""
        self._move(offset)
        gradients = torch.autograd.grad(self.loss(), self.parameters, allow_unused=True)
        filled = [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(self.parameters, gradients, strict=True)
        ]
        self._move(np.zeros(self.size))
        result: np.ndarray = torch.cat([g.flatten() for g in filled]).numpy()
        return result

    def hessian_product(self, vector: np.ndarray) -> np.ndarray:
        """The Hessian times a vector, (size,)."""
        vector = np.asarray(vector).ravel()
        length = float(np.linalg.norm(vector))
        if length == 0:
            return np.zeros(self.size)
        epsilon = STEP * float(self.origin.norm()) / length
        difference = self.gradient(epsilon * vector) - self.gradient(-epsilon * vector)
        product: np.ndarray = difference / (2 * epsilon)
        return product

    def largest_eigenvalue(self, rng: np.random.Generator, tolerance: float = 0.01) -> float:
        """Of the Hessian, to a relative tolerance."""
        hessian = LinearOperator(
            (self.size, self.size), matvec=self.hessian_product, dtype=np.float64
        )
        start = rng.normal(size=self.size)
        [value] = eigsh(
            hessian, k=1, which="LA", v0=start, tol=tolerance, return_eigenvectors=False
        )
        return float(value)

    def trace(self, rng: np.random.Generator, num_probes: int = 20) -> Estimate:
        """Trace of the Hessian from random signs, and the standard error of the draw."""
        probes = rng.choice([-1.0, 1.0], size=(num_probes, self.size))
        found = [float(probe @ self.hessian_product(probe)) for probe in probes]
        return Estimate(float(np.mean(found)), float(np.std(found, ddof=1) / num_probes**0.5))

    def _move(self, offset: np.ndarray) -> None:
        moved = self.origin + torch.from_numpy(np.asarray(offset)).to(self.origin)
        with torch.no_grad():
            nn.utils.vector_to_parameters(moved, self.parameters)


def roughness(steps: np.ndarray, losses: np.ndarray) -> float:
    """The part of the variance along a profile that no parabola explains; a bowl has none.

    Args:
        steps: Where the loss was asked for, (num_steps,), four at least.
        losses: (num_steps,).

    Returns:
        Between 0 and 1; 0 where the loss does not change.
    """
    if len(steps) < 4:
        raise ValueError(f"A parabola goes through {len(steps)} points; ask for at least 4.")
    fitted = np.polynomial.Polynomial.fit(steps, losses, deg=2)
    variance = float(np.var(losses))
    return float(np.var(losses - fitted(steps)) / variance) if variance > 0 else 0.0
