"""What pretraining hides. Every function returns booleans: True = hidden."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Pattern = Callable[..., Tensor]


def hide_last_steps(num_steps: int, fraction: float) -> Tensor:
    """Hides the last latent time steps: causal masking, as published (half of the steps).

    Args:
        num_steps: Latent time steps in a window.
        fraction: Part of them to hide.

    Returns:
        Shape (num_steps,); at least one step is hidden and one is left.

    Raises:
        ValueError: If there is only one step.
    """
    if num_steps < 2:
        raise ValueError(
            f"Causal masking needs at least two latent time steps, got {num_steps}. "
            "Take a longer window or a shorter latent_step."
        )
    num_hidden = min(num_steps - 1, max(1, round(fraction * num_steps)))
    return torch.arange(num_steps) >= num_steps - num_hidden


def hide_random_patches(
    num_windows: int, num_patches: int, num_units: int, fraction: float, generator: torch.Generator
) -> Tensor:
    """Hides each patch of each unit independently.

    Returns:
        Shape (num_windows, num_patches, num_units); in each window at least one patch is hidden,
        and at least one is left where there are two.
    """
    draw = torch.rand(num_windows, num_patches * num_units, generator=generator)
    is_hidden = draw < fraction
    is_hidden.scatter_(1, draw.argmax(1, keepdim=True), False)
    is_hidden.scatter_(1, draw.argmin(1, keepdim=True), True)
    return is_hidden.unflatten(1, (num_patches, num_units))


def hide_units(
    num_windows: int, num_patches: int, num_units: int, fraction: float, generator: torch.Generator
) -> Tensor:
    """Hides whole units, a different set in every window: co-smoothing, the others must tell.

    Returns:
        Shape (num_windows, num_patches, num_units); ``round(fraction * num_units)`` units are
        hidden in each window, at least one, and at least one is left where there are two.
    """
    num_hidden = max(1, min(num_units - 1, round(fraction * num_units)))
    order = torch.rand(num_windows, num_units, generator=generator).argsort(dim=1)
    is_hidden = order < num_hidden
    return is_hidden[:, None, :].expand(-1, num_patches, -1)


def hide_future(
    num_windows: int, num_patches: int, num_units: int, fraction: float, generator: torch.Generator
) -> Tensor:
    """Hides the last patches of all units, shape (num_windows, num_patches, num_units).

    The generator is not used: this pattern has nothing random.
    """
    is_hidden = hide_last_steps(num_patches, fraction)
    return is_hidden[None, :, None].expand(num_windows, -1, num_units)


PATTERNS: dict[str, Pattern] = {
    "random_patches": hide_random_patches,
    "units": hide_units,
    "future": hide_future,
}


def choose_hidden(is_hidden: Tensor, num_chosen: int, generator: torch.Generator) -> Tensor:
    """Draws hidden positions to ask about, without replacement.

    Args:
        is_hidden: (B, T, U).
        num_chosen: At most so many; fewer where some window hides fewer.
        generator: Decides the draw.

    Returns:
        Flat positions into (T, U), shape (B, Q).
    """
    flat = is_hidden.flatten(1)
    num_chosen = min(num_chosen, int(flat.sum(1).min()))
    draw = torch.rand(flat.shape, generator=generator).masked_fill(~flat, -1.0)
    return draw.topk(num_chosen, dim=1).indices
