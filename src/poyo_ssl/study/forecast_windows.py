"""Held-out time of recordings, and windows of a past and the second that follows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from poyo_ssl.kinds_of_arguments import require_numbers
from poyo_ssl.model.encoder import EncoderConfig
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.activity import Activity
from poyo_ssl.windows.divide import DividedRecording
from poyo_ssl.windows.intervals import cut_out
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import Splits
from poyo_ssl.windows.task_windows import find_any_windows


@dataclass(frozen=True, kw_only=True)
class ForecastConfig:
    """What is forecast from what, and which time is held out."""

    context: float = 2.0
    """Seconds of activity of all units that are read; a whole number of the encoder's patches."""
    horizon: float = 1.0
    """Seconds after it that are forecast."""
    bin_length: float = 0.1
    """Seconds that activity is averaged over: one step ahead."""
    valid_fraction: float = 0.1
    """Part of every stretch without a gap that validates, before what tests."""
    test_fraction: float = 0.2
    """Part of every stretch without a gap that tests: its end."""
    guard: float = 1.0
    """Seconds left out on either side of what validates or tests; activity that was evoked there
    lasts into them."""

    def __post_init__(self) -> None:
        require_numbers(self)
        if min(self.context, self.horizon, self.bin_length) <= 0 or self.guard < 0:
            raise ValueError(
                f"context, horizon and bin_length must be positive and guard not negative; {self}."
            )
        if min(self.valid_fraction, self.test_fraction) <= 0 or (
            self.valid_fraction + self.test_fraction >= 1
        ):
            raise ValueError(
                "valid_fraction and test_fraction must be positive and leave something to train "
                f"on, got {self.valid_fraction} and {self.test_fraction}."
            )


class Spans(NamedTuple):
    """The config in imaging samples and bins."""

    context_timesteps: int
    """Samples that a network reads."""
    bin_timesteps: int
    """Samples in a bin."""
    num_past: int
    """Bins of the past; they end where the context does."""
    num_steps: int
    """Bins ahead that are forecast."""

    @staticmethod
    def of(config: ForecastConfig, encoder_config: EncoderConfig, sampling_rate: float) -> Spans:
        """At an imaging rate in Hz."""
        size = max(1, round(config.bin_length * sampling_rate))
        context = encoder_config.window_timesteps(config.context, sampling_rate)
        steps = max(1, round(config.horizon * sampling_rate / size))
        return Spans(context, size, context // size, steps)

    @property
    def num_timesteps(self) -> int:
        """Samples of context and horizon together."""
        return self.context_timesteps + self.num_steps * self.bin_timesteps

    def bins(self, activity: Tensor) -> Tensor:
        """Means of the bins that end where (B, timesteps, U) ends, (B, bins, U)."""
        size = self.bin_timesteps
        return activity[:, activity.shape[1] % size :].unflatten(1, (-1, size)).mean(2)


@dataclass(frozen=True, kw_only=True, eq=False)
class ForecastWindows:
    """Pasts and what followed, of one part of a recording; z-scores where nothing is said."""

    recording_id: str
    unit_ids: list[str]
    first_timestep: np.ndarray
    """Where each context begins, (num_windows,)."""
    past: np.ndarray
    """(num_windows, num_past, num_units)."""
    future: np.ndarray
    """(num_windows, num_steps, num_units)."""


def hold_out_ends(recording: Recording, config: ForecastConfig) -> DividedRecording:
    """Holds out the end of every stretch without a gap: it tests, and what comes before validates.

    Whatever was shown; a decoder that has seen a stimulus in training may see it again.

    Returns:
        The recording and its parts, under the name ``forecasting``.
    """
    imaged = recording.segment_intervals
    start, end = imaged.T
    first_test = end - config.test_fraction * (end - start)
    first_valid = first_test - config.valid_fraction * (end - start)
    test = np.stack([first_test, end], axis=1)
    around = np.array([-config.guard, config.guard])
    valid = cut_out(np.stack([first_valid, first_test], axis=1), test + around)
    train = cut_out(imaged, np.concatenate([valid, test]) + around)
    guard = cut_out(imaged, np.concatenate([train, valid, test]))
    parts = Splits(train=train, valid=valid, test=test, guard=guard)
    return DividedRecording(recording, {"forecasting": parts})


def z_scored(activity: Activity) -> Activity:
    """The same without the signed square root that networks read: z-scores, clipped at 8."""
    return replace(activity, values=unrooted(activity.values))


def unrooted(activity: Tensor) -> Tensor:
    """z-scores, clipped at 8, of the signed square roots that networks read."""
    return activity * activity.abs()


def cut_forecast_windows(
    population: Population,
    spans: Spans,
    *,
    train_stride: int = 2,
    scaled: Callable[[Activity], Activity] = z_scored,
) -> list[dict[str, ForecastWindows]]:
    """Cuts training, validation and test time of every recording into windows.

    Args:
        population: Recordings of :func:`hold_out_ends`, and units.
        spans: Lengths.
        train_stride: Bins from one training window to the next. Those that validate and test
            follow each other by the horizon: every second of theirs is forecast once.
        scaled: What is forecast, of the activity as networks read it.

    Returns:
        ``train``, ``valid`` and ``test`` of each recording.

    Raises:
        RecordingError: If a part of a recording is too short for a window.
    """
    cut: list[dict[str, ForecastWindows]] = []
    problems: list[str] = []
    for divided in population.divided:
        activity = scaled(population.activity[divided.recording.recording_id])
        horizon = spans.num_steps * spans.bin_timesteps
        strides = {"train": train_stride * spans.bin_timesteps, "valid": horizon, "test": horizon}
        splits = divided.splits["forecasting"]
        firsts = {
            part: np.concatenate(
                list(_firsts(divided.recording, splits.part(part), spans.num_timesteps, stride))
            )
            for part, stride in strides.items()
        }
        problem = list(_find_problems(divided.recording, firsts, spans))
        if not problem:
            cut.append({part: _cut(activity, first, spans) for part, first in firsts.items()})
        problems += problem
    if problems:
        raise RecordingError(" ".join(problems))
    return cut


def _firsts(
    recording: Recording, intervals: np.ndarray, num_timesteps: int, stride: int
) -> Iterator[np.ndarray]:
    """First timesteps of windows a stride apart in each of the intervals."""
    yield np.empty(0, dtype=int)
    for interval in intervals:
        yield find_any_windows(recording, interval[None], num_timesteps)[::stride]


def _cut(activity: Activity, first: np.ndarray, spans: Spans) -> ForecastWindows:
    begin = spans.context_timesteps - spans.num_past * spans.bin_timesteps
    num_bins = spans.num_past + spans.num_steps
    bins = activity.binned(first + begin, spans.num_timesteps - begin, num_bins)
    past, future = np.split(bins.reshape(len(first), num_bins, -1), [spans.num_past], axis=1)
    return ForecastWindows(
        recording_id=activity.recording_id,
        unit_ids=activity.unit_ids,
        first_timestep=first,
        past=past,
        future=future,
    )


def _find_problems(
    recording: Recording, firsts: dict[str, np.ndarray], spans: Spans
) -> Iterator[str]:
    """Which parts are too short."""
    short = [part for part, first in firsts.items() if not len(first)]
    if short:
        longest = float(np.diff(recording.segment_intervals, axis=1).max())
        yield (
            f"Recording '{recording.recording_id}' has no window of "
            f"{spans.num_timesteps / recording.sampling_rate:.1f} s (context and horizon) to "
            f"{' and '.join(short)} on: its longest stretch without a gap is {longest:.1f} s. "
            "Lower context, horizon or guard, raise valid_fraction or test_fraction, or leave it "
            "out."
        )
