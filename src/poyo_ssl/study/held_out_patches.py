"""Training and held-out time cut into patches, the same for all that predict one unit's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from poyo_ssl.model.encoder import EncoderConfig
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.divide import DividedRecording
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.task_windows import find_any_windows


@dataclass(frozen=True, kw_only=True, eq=False)
class Patches:
    """Mean normalised activity of all patches of a recording, in windows that do not overlap."""

    recording_id: str
    unit_ids: list[str]
    train: np.ndarray
    """On training time, (num_windows, num_patches, num_units)."""
    held_out: np.ndarray
    """On held-out time, the same form."""
    first_timestep: np.ndarray
    """Where each held-out window begins, (num_windows,)."""


def cut_patches(
    population: Population, encoder_config: EncoderConfig, window_length: float
) -> list[Patches]:
    """Cuts training and held-out time of every recording into windows, and these into patches.

    Args:
        population: Recordings and units.
        encoder_config: Its patch length.
        window_length: Seconds.

    Raises:
        RecordingError: If a recording has no held-out or training window, or a single unit.
    """
    rate = population.sampling_rate
    num_timesteps = encoder_config.window_timesteps(window_length, rate)
    size = encoder_config.patch_timesteps(rate)
    cut, problems = [], []
    for divided in population.divided:
        activity = population.activity[divided.recording.recording_id]
        first = {
            part: find_any_windows(divided.recording, intervals, num_timesteps)[::num_timesteps]
            for part, intervals in (("train", divided.training), ("held_out", _held_out(divided)))
        }
        problems += _find_problems(divided, first, num_timesteps / rate, len(activity.unit_ids))
        means = {
            part: activity.windows(starts, num_timesteps).double().unflatten(1, (-1, size)).mean(2)
            for part, starts in first.items()
        }
        cut.append(
            Patches(
                recording_id=activity.recording_id,
                unit_ids=activity.unit_ids,
                train=means["train"].numpy(),
                held_out=means["held_out"].numpy(),
                first_timestep=first["held_out"],
            )
        )
    if problems:
        raise RecordingError(" ".join(problems))
    return cut


def _held_out(divided: DividedRecording) -> np.ndarray:
    """Time that validates or tests some task, seconds, (n, 2)."""
    parts = [part for splits in divided.splits.values() for part in (splits.valid, splits.test)]
    return np.concatenate([np.empty((0, 2)), *parts])


def _find_problems(
    divided: DividedRecording, first: dict[str, np.ndarray], seconds: float, num_units: int
) -> list[str]:
    """Why nothing can be reconstructed in a recording."""
    problems, name = [], divided.recording.recording_id
    for part, remedy in (
        ("held_out", "Divide it for a task that it can answer, raise test_fraction"),
        ("train", "Lower test_fraction"),
    ):
        if not len(first[part]):
            tasks = ", ".join(divided.splits) or "no task"
            problems.append(
                f"Recording '{name}', divided for {tasks}, has no {part.replace('_', '-')} window "
                f"of {seconds:.1f} s. {remedy} or lower window_length."
            )
    if num_units < 2:
        problems.append(f"Recording '{name}' has one unit, and no other to tell it from.")
    return problems
