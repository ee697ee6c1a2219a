"""Kinds of answers: what may be answered, what counts as right, and what guessing would score.

A task names its kind. Everything that depends on the kind and needs no network is here, one class
a kind; how a network learns it is in :mod:`poyo_ssl.finetuning.answering`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from poyo_ssl.metrics.labels import balanced_accuracy
from poyo_ssl.metrics.pictures import (
    peak_signal_to_noise,
    pixel_correlation,
    structural_similarity,
)

BLANK_IMAGE = -1
"""The image of a blank sweep, in the column ``image``; see ``Recording.stimuli``."""
LARGEST_PSNR = 10 * np.log10(12 * 255**2)
"""PSNR in dB of rounding to 8-bit grey values. A look-up that finds the very picture shown counts
as this much, not as infinitely much, which no mean survives."""
SECONDS_NEAR = 1.0
"""A movie frame counts as identified up to so many seconds away."""
SECONDS_CLOSE = 0.2
"""The same for a reader who asks for more."""


class Scored(NamedTuple):
    """Answers held against what was right."""

    predicted: np.ndarray
    """Class, movie frame or value (num_windows,), or pictures (num_windows, 64, 128)."""
    per_window: np.ndarray
    """The main metric of every window, (num_windows,); its mean is the main metric."""
    scores: dict[str, float]
    """Metric to value over all windows, the main one first."""


class Shown(NamedTuple):
    """What scores depend on beside the answers."""

    frame_period: float
    """Seconds between presentations."""
    pictures: np.ndarray | None = None
    """The pictures in [0, 1], (num_pictures, 64, 128), where needed."""


class Written(NamedTuple):
    """Answers as a table for readers holds them, each (num_windows,)."""

    truth: list[str]
    """What was right: the class by name, movie frame or value."""
    answer: list[str]
    """What was decoded, in the same way; empty for pictures."""
    scores: list[str]
    """Labels: JSON of log-probabilities by class; values and frames: what was decoded."""


@dataclass(frozen=True)
class Answer(ABC):
    """A kind of answer."""

    tolerance: float = 1e-3
    """Answers as near as this are the same."""
    period: float | None = None
    """Answers a multiple of this apart are the same; None for no period."""

    metric: ClassVar[str]
    """The main metric, which headlines and intervals use."""
    needs_pictures: ClassVar[bool] = False
    """Whether the pictures shown must be known."""
    has_budget: ClassVar[bool] = False
    """Whether less than all labels may be learned from."""
    is_about_frames: ClassVar[bool] = False
    """Whether a window is asked what was shown at the onset, not what it is a response to."""

    def clean(self, stored: pd.Series) -> np.ndarray:
        """Answers as a table holds them, with NaN or None where there is none, (num_rows,)."""
        values = stored.to_numpy(dtype=float, copy=True)
        if stored.name == "image":
            values[values <= BLANK_IMAGE] = np.nan
        return values

    @abstractmethod
    def classes(self, answers: list[np.ndarray]) -> np.ndarray:
        """Every possible answer, sorted, (num_classes,); empty where there are no classes.

        Args:
            answers: Cleaned answers of every recording.
        """

    @abstractmethod
    def targets(self, answers: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each cleaned answer is one of the classes, and its target, (num_rows,) each."""

    @abstractmethod
    def score(self, answers: np.ndarray, target: np.ndarray, shown: Shown) -> Scored:
        """Holds answers of a decoder against the targets.

        Args:
            answers: As :meth:`poyo_ssl.decoders.fitted_decoder.FittedDecoder.predict` gives them.
            target: (num_windows,).
            shown: When, and which pictures.
        """

    def written(self, answers: np.ndarray, target: np.ndarray, classes: np.ndarray) -> Written:
        """Answers and targets as text, numbers with ten digits.

        Args:
            answers: As :meth:`poyo_ssl.decoders.fitted_decoder.FittedDecoder.predict` gives them.
            target: (num_windows,).
            classes: Every possible answer, (num_classes,).
        """
        decoded = _as_text(answers)
        return Written(_as_text(target), decoded, decoded)

    def numbers(self, text: pd.Series, classes: np.ndarray) -> np.ndarray:
        """What :meth:`written` made of answers or targets, as numbers again; NaN for no text."""
        return pd.to_numeric(text).to_numpy(dtype=float)

    def as_pictures(self, predicted: np.ndarray, pictures: np.ndarray) -> np.ndarray | None:
        """What was decoded, as pictures in [0, 1], (num_windows, 64, 128); None if it is none.

        Args:
            predicted: As :class:`Scored` has it.
            pictures: All that may be shown, in [0, 1], (num_pictures, 64, 128).
        """
        return None

    @abstractmethod
    def chance(self, classes: np.ndarray, frame_period: float) -> float | None:
        """Expected main metric of guessing; None where the mean picture takes its place."""


class Labels(Answer):
    """One of several classes, numbers or text."""

    metric = "accuracy"
    has_budget = True

    def clean(self, stored: pd.Series) -> np.ndarray:
        """Numbers with NaN, or text with None, where there is no answer."""
        if pd.api.types.is_numeric_dtype(stored):
            return super().clean(stored)
        text = [str(value) if value is not None and value == value else "" for value in stored]
        return np.array([value or None for value in text], dtype=object)

    def classes(self, answers: list[np.ndarray]) -> np.ndarray:
        """Every answer that occurs; what lies within the tolerance of a smaller one is that one."""
        if any(part.dtype == object for part in answers):
            text = {str(value) for part in answers for value in part if value is not None}
            return np.array(sorted(text))
        found = self._wrap(np.concatenate(answers))
        found = np.unique(found[np.isfinite(found)])
        is_new = np.append(True, np.diff(found) > self.tolerance)[: len(found)]
        return found[is_new]

    def targets(self, answers: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Index of the class that an answer is."""
        if classes.dtype.kind == "U":
            text = np.array([value or "" for value in answers], dtype=str)
            index = np.minimum(np.searchsorted(classes, text), len(classes) - 1)
            return (classes[index] == text) & (text != ""), index
        answers = self._wrap(answers)
        nearest = np.abs(answers[:, None] - classes).argmin(axis=1)
        return np.abs(answers - classes[nearest]) <= self.tolerance, nearest

    def score(self, answers: np.ndarray, target: np.ndarray, shown: Shown) -> Scored:
        """Accuracy, and accuracy balanced over the classes shown."""
        predicted = answers.argmax(axis=1)
        per_window = (predicted == target).astype(float)
        scores = {
            "accuracy": float(per_window.mean()),
            "balanced_accuracy": balanced_accuracy(predicted, target),
        }
        return Scored(predicted, per_window, scores)

    def written(self, answers: np.ndarray, target: np.ndarray, classes: np.ndarray) -> Written:
        """Names of classes, and the softmax of the scores as log-probabilities."""
        names = class_names(classes)
        scores = [
            json.dumps(dict(zip(names, row, strict=True)))
            for row in np.round(log_softmax(answers.astype(float), axis=1), 4).tolist()
        ]
        predicted = answers.argmax(axis=1)
        return Written([names[k] for k in target], [names[k] for k in predicted], scores)

    def numbers(self, text: pd.Series, classes: np.ndarray) -> np.ndarray:
        """The index of every class that is named."""
        place = {name: index for index, name in enumerate(class_names(classes))}
        return text.map(place).to_numpy(dtype=float)

    def chance(self, classes: np.ndarray, frame_period: float) -> float:
        """One over the number of classes."""
        return 1.0 / len(classes)

    def _wrap(self, answers: np.ndarray) -> np.ndarray:
        """Answers in [0, period), where a rounding error below the period counts as 0."""
        if self.period is None:
            return answers
        wrapped = np.mod(answers, self.period)
        wrapped[wrapped > self.period - self.tolerance] = 0.0
        return wrapped


class Values(Answer):
    """A number, such as running speed."""

    metric = "r2"

    def classes(self, answers: list[np.ndarray]) -> np.ndarray:
        """None: any number may be the answer."""
        return np.empty(0)

    def targets(self, answers: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The numbers themselves."""
        return np.isfinite(answers), answers

    def score(self, answers: np.ndarray, target: np.ndarray, shown: Shown) -> Scored:
        """Variance explained, and Pearson's correlation (0 where either does not vary)."""
        variance = float(np.square(target - target.mean()).mean())
        per_window = 1 - np.square(answers - target) / max(variance, 1e-300)
        spread = float(answers.std() * target.std())
        covariance = float(((answers - answers.mean()) * (target - target.mean())).mean())
        scores = {
            "r2": float(per_window.mean()),
            "correlation": covariance / spread if spread > 0 else 0.0,
        }
        return Scored(answers, per_window, scores)

    def chance(self, classes: np.ndarray, frame_period: float) -> float:
        """What the mean of the test part would explain, 0."""
        return 0.0


class _ShownInOrder(Answer):
    """What is shown at an onset: picture k of 0 to the largest that occurs."""

    is_about_frames = True

    def classes(self, answers: list[np.ndarray]) -> np.ndarray:
        """0 to the largest number that occurs."""
        return np.arange(int(np.nanmax(np.concatenate(answers))) + 1, dtype=float)

    def targets(self, answers: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number shown."""
        return np.isin(answers, classes), np.searchsorted(classes, answers)


class Frames(_ShownInOrder):
    """Which movie frame was shown."""

    metric = "within_1s"

    def score(self, answers: np.ndarray, target: np.ndarray, shown: Shown) -> Scored:
        """Whether the frame decoded lies within a second, and a fifth, of the one shown."""
        distance = np.abs(answers - target)
        per_window = (distance <= _frames_within(SECONDS_NEAR, shown.frame_period)).astype(float)
        is_close = distance <= _frames_within(SECONDS_CLOSE, shown.frame_period)
        scores = {"within_1s": float(per_window.mean()), "within_200ms": float(is_close.mean())}
        return Scored(answers, per_window, scores)

    def as_pictures(self, predicted: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """The picture of the frame decoded."""
        return pictures[np.clip(np.round(predicted).astype(int), 0, len(pictures) - 1)]

    def chance(self, classes: np.ndarray, frame_period: float) -> float:
        """The mean share of frames that lie within a second of a frame."""
        near, frames = _frames_within(SECONDS_NEAR, frame_period), np.arange(len(classes))
        span = np.minimum(frames + near, len(frames) - 1) - np.maximum(frames - near, 0)
        return float((span + 1).mean() / len(frames))


class Pictures(_ShownInOrder):
    """The picture itself."""

    metric = "ssim"
    needs_pictures = True

    def score(self, answers: np.ndarray, target: np.ndarray, shown: Shown) -> Scored:
        """Structural similarity, PSNR and correlation of pixels.

        Raises:
            ValueError: If the pictures shown are not given.
        """
        if shown.pictures is None:
            raise ValueError(
                "Pictures are scored against those that were shown: give pictures, "
                "(num_pictures, 64, 128) in [0, 1], or a recording that has templates."
            )
        true = shown.pictures[target]
        per_window = structural_similarity(answers, true)
        scores = {
            "ssim": float(per_window.mean()),
            "psnr": float(np.minimum(peak_signal_to_noise(answers, true), LARGEST_PSNR).mean()),
            "correlation": float(pixel_correlation(answers, true).mean()),
        }
        return Scored(answers, per_window, scores)

    def written(self, answers: np.ndarray, target: np.ndarray, classes: np.ndarray) -> Written:
        """The movie frame shown; a picture is no text."""
        nothing = [""] * len(target)
        return Written(_as_text(target), nothing, nothing)

    def as_pictures(self, predicted: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """The pictures themselves."""
        return predicted

    def chance(self, classes: np.ndarray, frame_period: float) -> None:
        """Unknown; the mean picture is a reference decoder."""
        return None


ANSWERS: Mapping[str, type[Answer]] = MappingProxyType(
    {"labels": Labels, "values": Values, "frames": Frames, "images": Pictures}
)
"""``Task.kind`` to what it means."""


def class_names(classes: np.ndarray) -> list[str]:
    """What results call the classes: text as it is, numbers with up to ten digits."""
    return classes.tolist() if classes.dtype.kind == "U" else _as_text(classes)


def _as_text(numbers: np.ndarray) -> list[str]:
    return [f"{number:.10g}" for number in numbers.tolist()]


def _frames_within(seconds: float, frame_period: float) -> int:
    return round(seconds / frame_period)
