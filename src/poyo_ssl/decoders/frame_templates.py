"""What a look-up of movie frames knows: the activity that each evokes, and the noise about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array
from scipy.special import log_softmax
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from poyo_ssl.windows.activity import normalise

MAX_FOLDS = 8
"""Showings of the movie are left out one by one or, where there are more, in so many groups."""
SMALLEST_NOISE = 1e-3
"""Variance of the activity of every unit at least, where training shows none; that of normalised
activity is about one."""
MAX_NOISE_WINDOWS = 1000
"""Windows that noise is measured in, evenly spaced."""


class TemplateOptions(NamedTuple):
    """What is chosen in training; these where the movie was shown but once."""

    num_bins: int = 6
    """Equal bins that a window is averaged in."""
    width: float = 0.5
    """Seconds of the movie over which templates are averaged, the SD of a gaussian."""
    is_standardised: bool = False
    """Whether binned activity is standardised and its signed root taken: units of rare events then
    count as much as others (better on one day), and what changes between days counts more."""
    sharpness: float = 10.0
    """Factor from similarity to log-likelihood."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Showings:
    """The training windows of one recording."""

    features: np.ndarray
    """Binned activity, (num_windows, num_bins * num_units), bins outermost."""
    movie_frame: np.ndarray
    """In order of time, (num_windows,)."""
    unit_ids: list[str]
    frame_period: float
    """Seconds that a movie frame is shown."""

    def take(self, index: np.ndarray) -> Showings:
        """The windows at these positions."""
        return replace(self, features=self.features[index], movie_frame=self.movie_frame[index])

    @property
    def fold(self) -> np.ndarray:
        """How often the movie frame had been shown before, modulo folds, (num_windows,)."""
        order = np.argsort(self.movie_frame, kind="stable")
        counts = np.bincount(self.movie_frame)
        before = np.empty(len(order), dtype=int)
        before[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        return before % MAX_FOLDS


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameTemplates:
    """Mean activity evoked by every movie frame; a frame is as similar as its mean correlates."""

    unit_ids: list[str]
    center: np.ndarray
    """Mean of the features over the training windows, (num_bins, num_units); 0 where they are not
    standardised."""
    spread: np.ndarray
    """Their standard deviation, (num_bins, num_units); 1 where they are not standardised."""
    responses: np.ndarray
    """Mean features, (num_bins, num_units, num_movie_frames); NaN for movie frames never seen in
    training."""
    is_standardised: bool
    """Whether features are standardised; see :class:`TemplateOptions`."""
    sharpness: float
    """Factor from similarity to log-likelihood."""
    SETTINGS: ClassVar[tuple[str, ...]] = ("unit_ids", "is_standardised", "sharpness")
    ARRAYS: ClassVar[tuple[str, ...]] = ("center", "spread", "responses")
    _known: dict[tuple[str, ...], Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def num_bins(self) -> int:
        """Equal bins that a window is averaged in."""
        return self.responses.shape[0]

    @cached_property
    def seen(self) -> np.ndarray:
        """Movie frames that training showed, (num_seen,)."""
        return np.flatnonzero(np.isfinite(self.responses).all(axis=(0, 1)))

    def scores(self, features: np.ndarray, unit_ids: list[str]) -> np.ndarray:
        """Log-likelihood of every movie frame up to a constant of the window.

        Args:
            features: Binned activity, (num_windows, num_bins * len(unit_ids)), bins outermost.
            unit_ids: Units of the features, all known here.

        Returns:
            (num_windows, num_movie_frames); frames never seen in training come last.
        """
        similarity = self.sharpness * self._similarity(features, unit_ids)
        least = similarity.min(axis=1, keepdims=True) - 1
        scores = np.repeat(least, self.responses.shape[-1], axis=1)
        scores[:, self.seen] = similarity
        return scores

    def probabilities(self, features: np.ndarray, unit_ids: list[str]) -> np.ndarray:
        """Posterior of movie frames, all that were seen being alike before, (n, num_frames)."""
        posterior = np.zeros((len(features), self.responses.shape[-1]), dtype=np.float32)
        similarity = self.sharpness * self._similarity(features, unit_ids)
        posterior[:, self.seen] = np.exp(log_softmax(similarity, axis=1))
        return posterior

    def answers(self, scores: np.ndarray, temperature: float) -> np.ndarray:
        """Probabilities to learn from; the scale of likelihoods needs no temperature."""
        result: np.ndarray = np.exp(log_softmax(scores, axis=1))
        return result

    def _similarity(self, features: np.ndarray, unit_ids: list[str]) -> np.ndarray:
        """Similarity of windows to every seen frame, (num_windows, num_seen)."""
        units = tuple(unit_ids)
        if units not in self._known:
            position = {unit_id: i for i, unit_id in enumerate(self.unit_ids)}
            columns = [position[unit_id] for unit_id in unit_ids]
            self._known.clear()  # a stream asks with the same units again and again
            self._known[units] = (columns, self._prepare(columns))
        columns, prepared = self._known[units]
        if self.is_standardised:
            center, spread = self.center[:, columns].ravel(), self.spread[:, columns].ravel()
            features = normalise(features, center, spread)
        return self._compare(features, *prepared)

    def _prepare(self, columns: list[int]) -> tuple[np.ndarray, ...]:
        """What :meth:`_compare` needs to know of some units."""
        return (_standardise(self._templates(columns)).T,)

    def _compare(self, features: np.ndarray, *prepared: np.ndarray) -> np.ndarray:
        """Similarity of windows by their features, (num_windows, num_bins * num_units)."""
        [templates] = prepared
        result: np.ndarray = _standardise(features) @ templates
        return result

    def _templates(self, columns: list[int]) -> np.ndarray:
        """(num_seen, num_bins * num_units)."""
        return self.responses[:, columns][..., self.seen].reshape(-1, len(self.seen)).T

    @classmethod
    def fit(cls, showings: Showings, num_frames: int, options: TemplateOptions) -> Self:
        """Templates of one recording."""
        features = showings.features
        center, spread = np.zeros(features.shape[1]), np.ones(features.shape[1])
        if options.is_standardised:
            center, spread = features.mean(axis=0), features.std(axis=0)
            spread = np.where(spread > 0, spread, 1)
            features = normalise(features, center, spread)
        width = options.width / showings.frame_period
        templates = average_by_frame(features, showings.movie_frame, num_frames, width)
        num_units = len(showings.unit_ids)
        responses = templates.T.reshape(-1, num_units, num_frames).astype(np.float32)
        return cls(
            unit_ids=showings.unit_ids,
            center=center.reshape(-1, num_units).astype(np.float32),
            spread=spread.reshape(-1, num_units).astype(np.float32),
            responses=responses,
            is_standardised=options.is_standardised,
            sharpness=options.sharpness,
            **cls._measure(features, showings.movie_frame, responses),
        )

    @classmethod
    def _measure(
        cls, features: np.ndarray, movie_frame: np.ndarray, responses: np.ndarray
    ) -> dict[str, Any]:
        """What a kind of templates knows beside the responses, (bins, units, frames)."""
        return {}

    @classmethod
    def merge(cls, templates: Sequence[Self]) -> Self:
        """Templates of several recordings; those of a unit seen in several are averaged.

        A movie frame that one recording did not show is known from the others.
        """
        unit_ids = list(dict.fromkeys(u for t in templates for u in t.unit_ids))
        position = {unit_id: i for i, unit_id in enumerate(unit_ids)}

        def average(name: str) -> Any:
            stacks: list[list[np.ndarray]] = [[] for _ in unit_ids]
            for table in templates:
                for column, unit_id in enumerate(table.unit_ids):
                    stacks[position[unit_id]].append(getattr(table, name)[:, column])
            means = [np.ma.masked_invalid(stack).mean(axis=0).filled(np.nan) for stack in stacks]
            return np.stack(means, axis=1).astype(np.float32)

        return replace(
            templates[0],
            unit_ids=unit_ids,
            _known={},
            **{name: average(name) for name in ("center", "spread", "responses")},
        )

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Settings (JSON-ready) and tensors."""
        arrays = {name: getattr(self, name) for name in self.ARRAYS}
        tensors = {f"templates.{k}": torch.from_numpy(value) for k, value in arrays.items()}
        settings = {name: getattr(self, name) for name in self.SETTINGS}
        return settings, tensors

    @classmethod
    def of(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Inverse of :meth:`state`."""
        known: dict[str, Any] = {name: settings[name] for name in cls.SETTINGS}
        known |= {name: tensors[f"templates.{name}"].numpy() for name in cls.ARRAYS}
        return cls(**known)


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianTemplates(FrameTemplates):
    """Templates with gaussian noise whose covariance among units is the same for all movie frames.

    The similarity of a frame is the log-likelihood of the activity given the frame, up to a
    constant of the window. Bins count as independent; the sharpness corrects for their not being.
    """

    noise: np.ndarray
    """Covariance of the features about the mean response to the frame shown, with Ledoit-Wolf
    shrinkage (2004) towards a multiple of the identity, (num_units, num_units)."""

    ARRAYS: ClassVar[tuple[str, ...]] = (*FrameTemplates.ARRAYS, "noise")

    def _prepare(self, columns: list[int]) -> tuple[np.ndarray, ...]:
        templates = self._templates(columns)
        by_bin = templates.reshape(len(templates) * self.num_bins, -1)
        noise = self.noise[np.ix_(columns, columns)]
        weights = np.linalg.solve(noise, by_bin.T).T.reshape(templates.shape)
        return weights.T, 0.5 * (weights * templates).sum(axis=1)

    def _compare(self, features: np.ndarray, *prepared: np.ndarray) -> np.ndarray:
        weights, half_norms = prepared
        result: np.ndarray = features @ weights - half_norms
        return result

    @classmethod
    def _measure(
        cls, features: np.ndarray, movie_frame: np.ndarray, responses: np.ndarray
    ) -> dict[str, Any]:
        step = -(-len(features) // MAX_NOISE_WINDOWS)
        expected = responses[..., movie_frame[::step]].transpose(2, 0, 1)
        noise = features[::step].reshape(expected.shape) - expected
        covariance, _ = ledoit_wolf(noise.reshape(-1, noise.shape[-1]), assume_centered=True)
        noise_floor = SMALLEST_NOISE * np.eye(len(covariance))
        return {"noise": (covariance + noise_floor).astype(np.float32)}

    @classmethod
    def merge(cls, templates: Sequence[Self]) -> Self:
        """Merges the means; noise of units never recorded together counts as uncorrelated."""
        merged = super().merge(templates)
        noise = np.zeros((len(merged.unit_ids),) * 2)
        count = np.zeros(len(merged.unit_ids))
        for table in templates:
            columns = [merged.unit_ids.index(unit_id) for unit_id in table.unit_ids]
            noise[np.ix_(columns, columns)] += table.noise
            count[columns] += 1
        # a covariance again, which a plain mean over the recordings of each pair need not be
        return replace(merged, noise=(noise / np.sqrt(np.outer(count, count))).astype(np.float32))


Kind = TypeVar("Kind", bound=FrameTemplates)


def average_by_frame(
    activity: np.ndarray, movie_frame: np.ndarray, num_frames: int, width: float
) -> np.ndarray:
    """Mean activity of every movie frame and those about it.

    Args:
        activity: (num_windows, num_features).
        movie_frame: (num_windows,).
        num_frames: Movie frames in all.
        width: SD of the gaussian that weighs movie frames, in movie frames; 0 for each by itself.

    Returns:
        (num_frames, num_features); NaN for frames that are no window's own.
    """
    num_windows = len(movie_frame)
    is_of_frame = csr_array(
        (np.ones(num_windows, dtype=np.float32), (movie_frame, np.arange(num_windows))),
        shape=(num_frames, num_windows),
    )
    sums = is_of_frame @ activity
    counts = np.bincount(movie_frame, minlength=num_frames).astype(np.float32)
    is_seen = counts > 0
    if width > 0:
        sums = gaussian_filter1d(sums, width, axis=0, mode="constant")
        counts = gaussian_filter1d(counts, width, mode="constant")
    return np.where(is_seen[:, None], sums / np.where(is_seen, counts, 1)[:, None], np.nan)


def _standardise(rows: np.ndarray) -> np.ndarray:
    """Rows of zero mean and unit norm, so that products are correlations."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    unit: np.ndarray = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return unit
