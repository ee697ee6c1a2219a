"""What units did around a stimulus, in time that decoders may learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.tasks import Task, presentation_period, presentations

MOST_TRIAL_BINS, MOST_MOVIE_BINS = 60, 120
"""Bins that an average around presentations, and one over a whole movie, has at most."""
MOST_LABELS = 24
"""Labels that are told apart at most."""
_FEWEST_TO_HALVE = 2
"""Presentations of every label below which labels are not told apart."""
_SHORTEST_AFTER = 0.5
"""Seconds after a stimulus that are shown at least: calcium outlasts it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Responses:
    """Average activity of every unit around a stimulus.

    Where labels are few, of each unit by the label that it prefers. One half of the presentations
    says which that is and when a unit peaks, the other is shown: what is chosen by its own peak
    looks like a response even if it is noise.
    """

    times: np.ndarray
    """Centres of the bins, seconds from the onset, (num_bins,)."""
    duration: float
    """Seconds that the stimulus lasts."""
    average: np.ndarray
    """Standard deviations from the mean of training time, (num_bins, num_units); NaN where no
    training time is."""
    peak: np.ndarray
    """When the average over the other half is largest, seconds from the onset, (num_units,)."""
    reliability: np.ndarray
    """Correlation of the averages of the two halves over all labels, (num_units,); NaN where one
    of them is constant."""
    num_presentations: int
    """How many there were, in both halves."""
    is_preferred: bool
    """Whether the average is over presentations of the preferred label alone."""


class _Shown(NamedTuple):
    """What is averaged."""

    onsets: np.ndarray
    """Seconds, (num_presentations,)."""
    label: np.ndarray
    """Place of what was shown among the labels that are told apart, (num_presentations,)."""
    first: float
    """Seconds from the onset at which averages begin, and"""
    last: float
    """end."""
    duration: float
    """Seconds that the stimulus lasts."""
    most_bins: int


def measure_responses(
    recording: Recording,
    task: Task,
    intervals: np.ndarray,
    classes: np.ndarray,
    columns: np.ndarray,
) -> Responses | None:
    """Averages the activity around the presentations that a task asks about.

    Around trials, or over the whole movie where the task is about its frames.

    Args:
        recording: One session.
        task: What is asked, of a stimulus.
        intervals: Time that counts, seconds, (n, 2), such as ``splits.train``.
        classes: Every possible answer, sorted, (num_classes,).
        columns: Units, as columns of ΔF/F, (num_units,).

    Returns:
        None where the recording has no such stimulus, or none of it in the intervals.
    """
    if task.stimulus not in recording.stimuli:
        return None
    is_inside = recording.is_inside(intervals)
    shown = _shown_inside(recording, _find_shown(recording, task, classes), is_inside)
    if not len(shown.onsets):
        return None
    num_bins = (shown.last - shown.first) * recording.sampling_rate
    edges = np.linspace(
        shown.first, shown.last, int(np.clip(num_bins, 2, shown.most_bins)) + 1
    )  # fmt: skip
    times = (edges[:-1] + edges[1:]) / 2
    traces = _standardised(recording.df_over_f[:, columns], is_inside)
    labels = np.unique(shown.label)
    halves = _halve(shown.label)
    by_label = [
        np.stack(
            [
                _average_around(
                    recording, traces, is_inside, shown.onsets[half & (shown.label == k)], edges
                )
                for k in labels
            ]
        )
        for half in halves
    ]  # each (num_labels, num_bins, num_units)
    # a bin may be longer than the stimulus: the first one after the onset always counts
    is_during = (times > 0) & (times <= max(shown.duration, edges[1] - edges[0]))
    strength = np.nan_to_num(by_label[0][:, is_during], nan=-np.inf).mean(axis=1)
    preferred = strength.argmax(axis=0)
    sorting, average = (half[preferred, :, np.arange(len(columns))].T for half in by_label)
    return Responses(
        times=times,
        duration=shown.duration,
        average=average,
        peak=times[np.where(np.isnan(sorting), -np.inf, sorting).argmax(axis=0)],
        reliability=_correlations(*(half.reshape(-1, len(columns)) for half in by_label)),
        num_presentations=len(shown.onsets),
        is_preferred=len(labels) > 1,
    )


def mean_responses(
    recording: Recording, first_timestep: np.ndarray, num_timesteps: int, columns: np.ndarray
) -> np.ndarray:
    """Mean ΔF/F of units in windows, (num_windows, num_units); NaN where samples are missing."""
    rows = np.asarray(first_timestep)[:, None] + np.arange(num_timesteps)
    window = np.repeat(np.arange(len(rows)), num_timesteps)
    shape = (len(rows), recording.num_timesteps)
    weights = np.full(rows.size, 1 / num_timesteps)
    means = sparse.csr_array((weights, (window, rows.ravel())), shape=shape)
    result: np.ndarray = means @ recording.df_over_f[:, columns].astype(float)
    return result


def _find_shown(recording: Recording, task: Task, classes: np.ndarray) -> _Shown:
    table = presentations(recording, task)
    assert table is not None
    duration = float(np.median(table["end"].to_numpy(dtype=float) - table["start"]))
    is_answered, target = task.answer.targets(task.answer.clean(table[task.column]), classes)
    starts, target = table["start"].to_numpy(dtype=float)[is_answered], target[is_answered]
    period = presentation_period(recording, task)
    if task.answer.is_about_frames:
        is_first = target == target.min(initial=len(classes))
        onsets, duration = starts[is_first], len(classes) * period
        nothing = np.zeros(len(onsets), dtype=int)
        return _Shown(onsets, nothing, 0.0, duration, duration, MOST_MOVIE_BINS)
    pause = max(period - duration, 0.5 * duration)
    has_labels = task.answer.has_budget and len(classes) <= MOST_LABELS
    label = target.astype(int) if has_labels else np.zeros(len(starts), dtype=int)
    last = duration + max(pause, _SHORTEST_AFTER)
    return _Shown(starts, label, -min(pause, duration), last, duration, MOST_TRIAL_BINS)


def _shown_inside(recording: Recording, shown: _Shown, is_inside: np.ndarray) -> _Shown:
    """The presentations during which some sample counts, of one label where some are too rare."""
    count = np.append(0, np.cumsum(is_inside))
    first = np.searchsorted(recording.timestamps, shown.onsets)
    stop = np.searchsorted(recording.timestamps, shown.onsets + shown.duration)
    counts = count[stop] > count[first]
    onsets, label = shown.onsets[counts], shown.label[counts]
    if len(label) and np.unique(label, return_counts=True)[1].min() < _FEWEST_TO_HALVE:
        label = np.zeros_like(label)
    return shown._replace(onsets=onsets, label=label)


def _halve(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every other presentation of each label, and those between; one alone is in both halves."""
    place = pd.Series(label).groupby(label).cumcount().to_numpy()
    is_alone = np.bincount(label)[label] == 1
    return (place % 2 == 0) | is_alone, (place % 2 == 1) | is_alone


def _standardised(traces: np.ndarray, is_inside: np.ndarray) -> np.ndarray:
    """Traces (num_timesteps, num_units) as standard deviations of training time; NaN is 0."""
    inside = traces[is_inside]
    is_there = np.isfinite(inside)
    count = np.maximum(is_there.sum(axis=0), 1)
    mean = np.where(is_there, inside, 0).sum(axis=0, dtype=float) / count
    squares = np.where(is_there, np.square(inside - mean), 0).sum(axis=0)
    sd = np.sqrt(squares / count)
    scaled = (traces - mean.astype(np.float32)) / np.where(sd > 0, sd, 1).astype(np.float32)
    return np.nan_to_num(scaled)


def _average_around(
    recording: Recording,
    traces: np.ndarray,
    is_inside: np.ndarray,
    onsets: np.ndarray,
    edges: np.ndarray,
) -> np.ndarray:
    """Mean of the samples in every bin around onsets, (num_bins, num_units); NaN for none."""
    middle = recording.timestamps + 0.5 / recording.sampling_rate  # a sample lasts one period
    first = np.searchsorted(middle, onsets + edges[0])
    stop = np.searchsorted(middle, onsets + edges[-1])
    counts = stop - first
    rows = np.repeat(first - np.append(0, np.cumsum(counts)[:-1]), counts) + np.arange(counts.sum())
    since = middle[rows] - np.repeat(onsets, counts)
    bins = np.clip(np.searchsorted(edges, since, side="right") - 1, 0, len(edges) - 2)
    weights = is_inside[rows].astype(np.float32)
    shape = (len(edges) - 1, recording.num_timesteps)
    samples = sparse.csr_array((weights, (bins, rows)), shape=shape)
    total = samples.sum(axis=1)[:, None]
    with np.errstate(invalid="ignore"):
        average: np.ndarray = np.where(total > 0, samples @ traces / total, np.nan)
    return average


def _correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's of every column over the rows that both have, (num_columns,)."""
    is_there = ~(np.isnan(one).any(axis=1) | np.isnan(other).any(axis=1))
    one, other = (half[is_there] - half[is_there].mean(axis=0) for half in (one, other))
    scale = np.sqrt(np.square(one).sum(axis=0) * np.square(other).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        result: np.ndarray = (one * other).sum(axis=0) / scale
    return result
