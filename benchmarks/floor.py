"""What a training step of CalciumPOYOPlus costs at least: operations and bytes on this machine.

Matrix products are counted by formula, in multiply-adds: a forward pass multiplies once, a
backward pass twice (once for either factor), data have no gradient, and nothing is computed
again. Divided by the speed of one large matrix product, that is a time which no order of these
operations can beat; bytes are held against the speed of copying.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from training_step import NUM_CLASSES, NUM_QUERIES, Setting

FEED_FORWARD = 12
"""Multiply-adds of a feed-forward network per vector and squared dim: 8 to widen, 4 to narrow."""
MATRIX = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied."""
COPIED_BYTES = 2**28
REPETITIONS = 10


def textbook_multiply_adds(setting: Setting) -> int:
    """Of the published order: every token of every window is projected to a key and a value."""
    s, latents, cross = setting, _latents(setting), _cross(setting)
    tokens = s.timesteps * s.units
    value_map = 2 * tokens * s.dim // 2  # activity is data
    queries = latents * s.dim * cross
    keys_and_values = tokens * s.dim * 2 * cross
    scores_and_pooling = 2 * latents * tokens * cross
    window = value_map + 3 * (queries + keys_and_values + scores_and_pooling)
    return s.batch * (window + _after_reading(s))


def grid_multiply_adds(setting: Setting) -> int:
    """Of our order: what windows of a recording have in common is computed once for all of them.

    Queries, keys, values and the products of queries and keys are; only pooling is left to do for
    every window.
    """
    s, latents, cross = setting, _latents(setting), _cross(setting)
    tokens = s.timesteps * s.units
    queries = latents * s.dim * cross
    keys_and_values = (s.units + 2) * s.dim * 2 * cross  # slope and offset beside the units
    scores = latents * s.timesteps * (s.units + 2) * cross
    recording = 3 * (queries + keys_and_values + scores)
    pooling = 3 * latents * tokens * cross
    return s.recordings * recording + s.batch * (pooling + _after_reading(s))


def _latents(setting: Setting) -> int:
    return setting.latents_per_step * setting.latent_steps


def _cross(setting: Setting) -> int:
    return setting.cross_heads * setting.dim_head


def _after_reading(s: Setting) -> int:
    """Of one window, behind the pooling: the same in either order."""
    latents, cross, width = _latents(s), _cross(s), s.self_heads * s.dim_head
    feed_forward = FEED_FORWARD * s.dim**2
    read = latents * (cross * s.dim + feed_forward)
    block = latents * (4 * s.dim * width + 2 * latents * width + feed_forward)
    answer = 2 * s.dim * cross + 2 * latents * cross + feed_forward + s.dim * NUM_CLASSES
    return 3 * (read + s.depth * block + latents * s.dim * 2 * cross + NUM_QUERIES * answer)


@dataclass(frozen=True)
class Speed:
    """What the machine does at best, measured."""

    multiply_adds_per_second: float
    """In the product of two large matrices."""
    bytes_per_second: float
    """Read and written in copying a large array."""


def measure_speed(setting: Setting) -> Speed:
    """The best of several repetitions, with the threads, device and precision of a setting."""
    torch.set_num_threads(setting.threads)
    size = MATRIX[torch.device(setting.device).type]
    dtype = torch.bfloat16 if setting.bf16 else torch.float32
    one, two, product = (
        torch.ones(size, size, device=setting.device, dtype=dtype) for _ in range(3)
    )
    source = torch.ones(COPIED_BYTES, device=setting.device, dtype=torch.uint8)
    target = torch.zeros_like(source)
    return Speed(
        multiply_adds_per_second=size**3 / _best(lambda: torch.mm(one, two, out=product), setting),
        bytes_per_second=2 * COPIED_BYTES / _best(lambda: target.copy_(source), setting),
    )


def _best(action: Callable[[], object], setting: Setting) -> float:
    """Fewest seconds of an action, after one that is not timed."""
    times = []
    for _ in range(1 + REPETITIONS):
        started = time.perf_counter()
        action()
        if setting.device != "cpu":
            torch.cuda.synchronize(setting.device)
        times.append(time.perf_counter() - started)
    return min(times[1:])
