"""Predict, then score: every test window, per recording, then averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.metrics.labels import balanced_accuracy, frame_identity_within
from poyo_ssl.metrics.pictures import peak_signal_to_noise, pixel_correlation, structural_similarity
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.pictures import resize_pictures
from poyo_ssl.windows.splits import Splits
from poyo_ssl.windows.tasks import Task, TaskWindows, find_windows

MAIN_METRIC = {"labels": "accuracy", "frames": "within_1s", "images": "ssim"}
"""Kind of task to the metric that headlines and intervals over trials use."""

LARGEST_PSNR = 10 * np.log10(12 * 255**2)
"""PSNR in dB of rounding to 8-bit grey values. A look-up that finds the very picture shown counts
as this much, not as infinitely much, which no mean survives."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """How one decoder did on one recording."""

    recording_id: str
    target: np.ndarray
    """Right answers: class or movie frame, (num_windows,)."""
    predicted: np.ndarray
    """Answers: class or movie frame (num_windows,), or pictures (num_windows, 64, 128)."""
    per_window: np.ndarray
    """The task's main metric for every window: right or wrong, or SSIM, (num_windows,)."""
    scores: dict[str, float]
    """Metric name to value over all windows."""


def evaluate(
    decoder: FittedDecoder,
    recording: Recording,
    splits: Splits | None = None,
    *,
    pictures: np.ndarray | None = None,
) -> Evaluation:
    """Scores a fitted decoder on every test window of a recording, or on every window it has.

    Args:
        decoder: Any fitted decoder.
        recording: A recording that shares units with it.
        splits: Parts of the recording for the decoder's task, whose test part is scored; None
            scores the whole recording, which is honest only if nothing was learned from it.
        pictures: Image tasks: what was shown, in [0, 1], (num_pictures, 64, 128).

    Raises:
        RecordingError: If there is no window to score, or no unit is shared.
    """
    frame = decoder.frame
    everywhere = recording.segment_intervals
    windows = find_windows(
        recording,
        frame.task,
        everywhere if splits is None else splits.test,
        frame.classes,
        frame.num_timesteps,
        reach=everywhere if splits is None else splits.reach("test"),
    )
    if len(windows) == 0:
        raise RecordingError(
            f"Recording '{recording.recording_id}' has no window of {frame.task.stimulus} to "
            f"score: {len(recording.stimulus(frame.task.stimulus))} presentations, none of which "
            "has a known answer and a full window of activity inside the part to be scored."
        )
    answers = decoder.predict(recording, windows.first_timestep)
    return score(frame.task, recording, windows, answers, pictures)


def score(
    task: Task,
    recording: Recording,
    windows: TaskWindows,
    answers: np.ndarray,
    pictures: np.ndarray | None,
) -> Evaluation:
    """Turns answers into metrics by the kind of task."""
    target = windows.target
    if task.kind == "images":
        assert pictures is not None, "image tasks are scored against the pictures shown"
        true = pictures[target]
        per_window = structural_similarity(answers, true)
        scores = {
            "ssim": float(per_window.mean()),
            "psnr": float(np.minimum(peak_signal_to_noise(answers, true), LARGEST_PSNR).mean()),
            "correlation": float(pixel_correlation(answers, true).mean()),
        }
        predicted = answers
    elif task.kind == "frames":
        predicted = answers
        tolerance = round(1.0 / movie_frame_period(recording, task))
        per_window = (np.abs(predicted - target) <= tolerance).astype(float)
        scores = {"within_1s": frame_identity_within(predicted, target, tolerance)}
    else:
        predicted = answers.argmax(axis=1)
        per_window = (predicted == target).astype(float)
        scores = {
            "accuracy": float(per_window.mean()),
            "balanced_accuracy": balanced_accuracy(predicted, target),
        }
    return Evaluation(
        recording_id=recording.recording_id,
        target=target,
        predicted=predicted,
        per_window=per_window,
        scores=scores,
    )


def movie_frame_period(recording: Recording, task: Task) -> float:
    """Seconds that a movie frame is shown."""
    return float(np.median(np.diff(recording.stimulus(task.stimulus)["start"].to_numpy())))


def chance_level(task: Task, recording: Recording, classes: np.ndarray) -> float | None:
    """Expected main metric of guessing uniformly; None for images, where the mean frame serves."""
    if task.kind == "labels":
        return 1.0 / len(classes)
    if task.kind == "frames":
        tolerance = round(1.0 / movie_frame_period(recording, task))
        frames = np.arange(len(classes))
        near = np.minimum(frames + tolerance, len(frames) - 1) - np.maximum(frames - tolerance, 0)
        return float((near + 1).mean() / len(frames))
    return None


def score_decoder(
    decoder: FittedDecoder, recording: Recording, splits: Splits | None, about: dict[str, Any]
) -> dict[str, Any]:
    """One row of scores."""
    frame = decoder.frame
    pictures = None
    if frame.task.kind == "images":
        pictures = resize_pictures(recording.templates[frame.task.stimulus]).numpy()
    known = frame.known_units(recording)
    evaluation = evaluate(decoder, recording, splits, pictures=pictures)
    return {
        "recording_id": recording.recording_id,
        "task": frame.task.name,
        "arm": frame.arm,
        **about,
        "part": "whole recording" if splits is None else "test",
        "scores": evaluation.scores,
        "chance": chance_level(frame.task, recording, frame.classes),
        "num_windows": len(evaluation.target),
        "num_known_units": len(known),
        "missing_units": frame.missing_units(recording),
        "unknown_units": sorted(set(recording.unit_ids.tolist()) - set(known)),
    }
