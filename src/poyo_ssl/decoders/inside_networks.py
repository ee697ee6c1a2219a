"""What networks make of windows: which units they listen to, and their latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from poyo_ssl.model.encoder import Encoder
from poyo_ssl.model.readouts import LabelDecoder, MovieDecoder
from poyo_ssl.windows.activity import Activity, Windows

_BATCH_SIZE = 64


def gradient_times_input(
    network: LabelDecoder | MovieDecoder,
    activity: Activity,
    first_timestep: np.ndarray,
    num_timesteps: int,
    decision: Callable[[Tensor], Tensor],
) -> np.ndarray:
    """How much the activity of every unit changes what a network decides for.

    The absolute value of gradient times input, summed over a window and averaged over windows.

    Args:
        network: In evaluation mode.
        activity: Normalised activity of units that the network knows.
        first_timestep: First sample of every window, (num_windows,), one at least.
        num_timesteps: Imaging samples in a window.
        decision: Answers of the network to one number a window, (num_windows,).

    Returns:
        (num_units,).

    References:
        Shrikumar, Greenside, Shcherbina and Kundaje (2016), arXiv:1605.01713.
    """
    index = network.encoder.unit_rows(activity.unit_ids)
    total = torch.zeros(len(activity.unit_ids))
    for windows in _batches(activity, first_timestep, num_timesteps):
        windows.requires_grad_()
        decided = decision(network(Windows(windows, index))).sum()
        (gradient,) = torch.autograd.grad(decided, windows)
        total += (gradient * windows).detach().abs().sum(dim=(0, 1))
    importance: np.ndarray = (total / len(first_timestep)).numpy()
    return importance


@torch.inference_mode()
def mean_latents(
    encoder: Encoder, activity: Activity, first_timestep: np.ndarray, num_timesteps: int
) -> np.ndarray:
    """What an encoder makes of windows, mean over the latents of each, (num_windows, D)."""
    index = encoder.unit_rows(activity.unit_ids)
    batches = _batches(activity, first_timestep, num_timesteps)
    parts = [encoder(windows, index).mean(dim=1) for windows in batches]
    latents: np.ndarray = torch.cat(parts).numpy()
    return latents


def _batches(
    activity: Activity, first_timestep: np.ndarray, num_timesteps: int
) -> Iterator[Tensor]:
    for first in range(0, len(first_timestep), _BATCH_SIZE):
        yield activity.windows(first_timestep[first : first + _BATCH_SIZE], num_timesteps)
