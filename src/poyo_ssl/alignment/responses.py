"""What units do to a stimulus that several animals saw, measured on training time alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.divide import DividedRecording
from poyo_ssl.windows.intervals import begin_inside
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.task_windows import find_any_windows
from poyo_ssl.windows.tasks import Task

Bins = list[tuple[float, int]]
"""Value of the shared column and number of the bin within its presentation."""


@dataclass(frozen=True, kw_only=True)
class SharedStimulus:
    """A stimulus that several animals saw, and the clock on which responses are compared."""

    stimulus: str
    """Name of its table."""
    column: str
    """Column of numbers that says what was shown, such as ``movie_frame`` or ``segment``."""
    bin_width: float = 0.25
    """Seconds. Longer presentations are cut into bins; shorter ones, such as movie frames, are
    counted together, and their column must number them 0, 1, 2, ..."""
    smoothing: float = 0.6
    """Standard deviation (s) of a Gaussian over the bins of one value (over neighbouring movie
    frames); nothing is smoothed over the border of two values. 0: none."""

    def __post_init__(self) -> None:
        if not self.bin_width > 0 or not self.smoothing >= 0:
            raise ValueError(
                "bin_width must be positive seconds and smoothing not negative, got "
                f"{self.bin_width} and {self.smoothing}."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Responses:
    """Mean response of the units of one recording to a shared stimulus."""

    recording_id: str
    unit_ids: list[str]
    bins: Bins
    """Those that the recording saw on training time, sorted."""
    activity: np.ndarray
    """Mean normalised activity, (num_bins, num_units), smoothed."""
    reliability: np.ndarray
    """Correlation of every unit's response in odd and even showings, corrected for their number
    (Spearman-Brown), (num_units,); NaN where a bin was shown once only."""

    @property
    def center(self) -> np.ndarray:
        """Mean response of every unit, (num_units,)."""
        center: np.ndarray = self.activity.mean(axis=0)
        return center


def measure_responses(
    population: Population, divided: DividedRecording, shared: SharedStimulus
) -> Responses:
    """Averages the activity of a recording's chosen units over all showings in training time.

    Args:
        population: Holds the activity, normalised on training time.
        divided: One of its recordings; nothing that a task withholds from training is looked at.
        shared: What was shown.

    Raises:
        RecordingError: If the recording shows it nowhere in its training time.
    """
    activity = population.activity[divided.recording.recording_id]
    first, keys, num_timesteps = _find_bins(divided, shared)
    shown = activity.binned(first, num_timesteps, 1).astype(np.float64)
    bins, index = np.unique(keys, axis=0, return_inverse=True)
    showing = pd.Series(index).groupby(index).cumcount().to_numpy()
    halves = [_mean_by(shown[showing % 2 == i], index[showing % 2 == i], len(bins)) for i in (0, 1)]
    smooth = _smoothing_matrix(bins, shared, _is_counted(divided, shared))
    return Responses(
        recording_id=divided.recording.recording_id,
        unit_ids=activity.unit_ids,
        bins=[(float(value), int(number)) for value, number in bins],
        activity=smooth @ _mean_by(shown, index, len(bins)),
        reliability=_reliability(*halves),
    )


def require_unscored(divided: DividedRecording, task: Task, shared: SharedStimulus) -> None:
    """Refuses to align a recording on values whose other showings the task tests.

    Raises:
        RecordingError: If a value is shown in training time and in the task's test part, too.
    """
    if task.stimulus != shared.stimulus or task.name not in divided.splits:
        return
    table = divided.recording.stimulus(shared.stimulus)
    onsets = table["start"].to_numpy(dtype=float)
    is_tested = begin_inside(onsets, divided.splits[task.name].test)
    is_aligned = begin_inside(onsets, divided.training)
    values = table[shared.column].to_numpy()
    both = np.intersect1d(values[is_tested], values[is_aligned])
    if len(both):
        raise RecordingError(
            f"The task '{task.name}' tests {len(both)} values of {shared.stimulus}/"
            f"{shared.column} (such as {both[0]}) on which recording "
            f"'{divided.recording.recording_id}' would be aligned: aligning would use the answers. "
            "Align on another stimulus, or hold those values out (held_out_column of the splits)."
        )


def _find_bins(
    divided: DividedRecording, shared: SharedStimulus
) -> tuple[np.ndarray, np.ndarray, int]:
    """First timesteps of all bins in training time, their keys (num, 2), and their length."""
    recording = divided.recording
    table = recording.stimulus(shared.stimulus)
    if shared.column not in table:
        raise RecordingError(
            f"{shared.stimulus} of recording '{recording.recording_id}' has no column "
            f"'{shared.column}' (found: {', '.join(map(str, table.columns))})."
        )
    values = pd.to_numeric(table[shared.column], errors="coerce").to_numpy(dtype=float)
    starts = table["start"].to_numpy(dtype=float)
    lengths = table["end"].to_numpy(dtype=float) - starts
    length = float(np.median(lengths))
    if _is_counted(divided, shared):
        per_bin = round(shared.bin_width / length)
        is_first = np.isfinite(values) & (values % per_bin == 0)
        starts, keys = starts[is_first], values[is_first] // per_bin
        number = np.zeros(len(keys))
    else:
        num_bins = max(1, round(length / shared.bin_width))
        is_shown = np.isfinite(values) & (lengths > 0.5 * length)
        number = np.tile(np.arange(num_bins), is_shown.sum())
        starts = np.repeat(starts[is_shown], num_bins) + number * length / num_bins
        keys = np.repeat(values[is_shown], num_bins)
    num_timesteps = max(1, round(shared.bin_width * recording.sampling_rate))
    first = recording.timestep_at(starts)
    may_start = np.zeros(recording.num_timesteps + 1, dtype=bool)
    may_start[find_any_windows(recording, divided.training, num_timesteps)] = True
    inside = may_start[first]
    nearest = recording.timestamps[np.minimum(first, recording.num_timesteps - 1)]
    inside &= np.abs(nearest - starts) < 1 / recording.sampling_rate
    if not inside.any():
        raise RecordingError(
            f"Recording '{recording.recording_id}' shows {shared.stimulus}/{shared.column} nowhere "
            "in its training time, so its units cannot be aligned. Align on another stimulus, or "
            "withhold less of it."
        )
    return first[inside], np.stack([keys, number], axis=1)[inside], num_timesteps


def _is_counted(divided: DividedRecording, shared: SharedStimulus) -> bool:
    """Whether several presentations, such as movie frames, make one bin."""
    table = divided.recording.stimulus(shared.stimulus)
    return float((table["end"] - table["start"]).median()) <= 0.5 * shared.bin_width


def _mean_by(values: np.ndarray, index: np.ndarray, num: int) -> np.ndarray:
    """Mean of the rows of every index, (num, num_units); NaN where there is none."""
    total = np.zeros((num, values.shape[1]))
    np.add.at(total, index, values)
    count = np.bincount(index, minlength=num)[:, None]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _smoothing_matrix(bins: np.ndarray, shared: SharedStimulus, is_counted: bool) -> np.ndarray:
    """Weights of every bin on every bin, rows of sum 1, (num_bins, num_bins)."""
    if shared.smoothing == 0:
        return np.eye(len(bins))
    time = (bins[:, 0] if is_counted else bins[:, 1]) * shared.bin_width
    weight = np.exp(-0.5 * np.square((time[:, None] - time) / shared.smoothing))
    if not is_counted:
        weight *= bins[:, :1] == bins[:, 0]
    result: np.ndarray = weight / weight.sum(axis=1, keepdims=True)
    return result


def _reliability(odd: np.ndarray, even: np.ndarray) -> np.ndarray:
    is_there = np.isfinite(odd[:, 0]) & np.isfinite(even[:, 0])
    if is_there.sum() < 2:
        return np.full(odd.shape[1], np.nan)
    one, other = odd[is_there] - odd[is_there].mean(0), even[is_there] - even[is_there].mean(0)
    scale = np.sqrt(np.square(one).sum(0) * np.square(other).sum(0))
    correlation = (one * other).sum(0) / np.maximum(scale, 1e-12)
    result: np.ndarray = 2 * correlation / np.maximum(1 + correlation, 1e-12)
    return result
