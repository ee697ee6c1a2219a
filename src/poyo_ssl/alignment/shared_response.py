"""The shared response model: time courses that all animals have, and where each unit lies in them.

References:
    Chen et al., A reduced-dimension fMRI shared response model, NeurIPS 2015.
    Haxby et al., Neuron 2011 (hyperalignment; time-segment matching).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from poyo_ssl.alignment.responses import Bins, Responses
from poyo_ssl.recordings.recording import RecordingError

NUM_STEPS = 20
"""Alternations of Procrustes steps and means; the time courses change little after ten."""
DIMENSIONS = (4, 8, 16, 32, 64)
"""Numbers of dimensions that are tried."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Loadings:
    """Where the units of one recording lie in the shared space."""

    unit_ids: list[str]
    weights: np.ndarray
    """(num_units, num_dimensions): orthonormal columns; with fewer units than dimensions
    orthonormal rows, which reach only a part of the space."""
    center: np.ndarray
    """Mean normalised activity that counts as zero, (num_units,)."""
    scale: float
    """Factor that gives the projected responses a mean square of 1."""

    def project(self, activity: np.ndarray) -> np.ndarray:
        """Activity of the units, (n, num_units), in the shared space, (n, num_dimensions)."""
        result: np.ndarray = self.scale * (activity - self.center) @ self.weights
        return result

    def shuffled(self, seed: int) -> Loadings:
        """Permutes the weights among units: the control for whether the units carry them."""
        order = np.random.default_rng([seed, 0x5F1E]).permutation(len(self.weights))
        return Loadings(
            unit_ids=self.unit_ids,
            weights=self.weights[order],
            center=self.center,
            scale=self.scale,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedSpace:
    """Time courses of a shared stimulus that every animal's units can be turned to."""

    bins: Bins
    """Which time bin of the stimulus each row of ``courses`` is, (num_bins,)."""
    courses: np.ndarray
    """(num_bins, num_dimensions)."""

    @staticmethod
    def fit(recordings: Sequence[Responses], num_dimensions: int | None = None) -> SharedSpace:
        """Finds time courses S and orthonormal loadings W with ``P W ≈ S`` in all recordings.

        Every recording counts the same. A bin that a recording did not see does not count for it.

        Args:
            recordings: Responses P of one or more recordings.
            num_dimensions: Up to 64; None chooses by time-segment matching.

        Raises:
            RecordingError: If there are too few recordings, or they share too few bins.
        """
        if len(recordings) < (2 if num_dimensions is None else 1):
            raise RecordingError(
                f"A shared space was asked of {len(recordings)} recordings; to choose its "
                "dimensions takes two. Give more recordings that show the stimulus, or the number "
                "of dimensions."
            )
        if num_dimensions is None:
            num_dimensions = choose_dimensions(recordings)
        bins = sorted({key for r in recordings for key in r.bins})
        if not 1 <= num_dimensions <= min(DIMENSIONS[-1], len(bins)):
            raise RecordingError(
                f"A shared space of {num_dimensions} dimensions was asked for; {len(bins)} bins of "
                f"the stimulus allow 1 to {min(DIMENSIONS[-1], len(bins))}."
            )
        row = {key: i for i, key in enumerate(bins)}
        rows = [np.array([row[key] for key in r.bins]) for r in recordings]
        compact = [_compact(_standardised(r.activity)) for r in recordings]
        seen = np.zeros((len(bins), 1))
        gram = np.zeros((len(bins), len(bins)))
        for index, factor in zip(rows, compact, strict=True):
            seen[index] += 1
            gram[np.ix_(index, index)] += factor @ factor.T
        variance, vectors = np.linalg.eigh(gram / np.sqrt(seen * seen.T))
        kept = slice(None, -num_dimensions - 1, -1)
        courses = vectors[:, kept] * np.sqrt(variance[kept].clip(0))
        courses *= np.where(courses[np.abs(courses).argmax(0), range(num_dimensions)] < 0, -1, 1)
        for _ in range(NUM_STEPS):
            total = np.zeros_like(courses)
            for index, factor in zip(rows, compact, strict=True):
                total[index] += factor @ _nearest_orthonormal(factor.T @ courses[index])
            courses = total / seen
        return SharedSpace(bins=bins, courses=courses)

    def place(self, responses: Responses) -> Loadings:
        """Places the units of a recording, new or not, by one Procrustes step.

        Raises:
            RecordingError: If the recording saw fewer than two bins of the space.
        """
        row = {key: i for i, key in enumerate(self.bins)}
        known = [i for i, key in enumerate(responses.bins) if key in row]
        if len(known) < 2:
            raise RecordingError(
                f"Recording '{responses.recording_id}' shares {len(known)} bins of the stimulus "
                f"with the {len(self.bins)} of the space, too few to place its units."
            )
        values = responses.activity[known]
        standard = _standardised(values)
        courses = self.courses[[row[responses.bins[i]] for i in known]]
        weights = _nearest_orthonormal(standard.T @ courses)
        center = values.mean(axis=0)
        size = float(np.sqrt(np.square((values - center) @ weights).mean()))
        return Loadings(
            unit_ids=responses.unit_ids,
            weights=weights,
            center=center,
            scale=1 / size if size > 0 else 0.0,
        )

    def settings(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"bins": [list(key) for key in self.bins], "courses": self.courses.tolist()}

    @staticmethod
    def of(settings: dict[str, Any]) -> SharedSpace:
        """Inverse of :meth:`settings`.

        Raises:
            KeyError: If something is missing.
            ValueError: If bins and courses do not belong together.
        """
        bins = [(float(value), int(number)) for value, number in settings["bins"]]
        courses = np.array(settings["courses"], dtype=float)
        if courses.ndim != 2 or len(courses) != len(bins):
            raise ValueError(f"{len(bins)} bins with time courses of shape {courses.shape}")
        return SharedSpace(bins=bins, courses=courses)


def choose_dimensions(recordings: Sequence[Responses]) -> int:
    """The number of dimensions in which held-out bins of recordings are told apart best.

    Loadings are found on every other value of the stimulus; see :func:`segment_matching`.
    """
    values = sorted({value for r in recordings for value, _ in r.bins})
    num_bins = min(
        sum(value in values[half::2] for value, _ in r.bins) for r in recordings for half in (0, 1)
    )
    possible = [k for k in DIMENSIONS if k <= max(num_bins // 2, DIMENSIONS[0])] or [1]
    if num_bins < 2 * DIMENSIONS[0]:
        return max(1, min(num_bins // 2, DIMENSIONS[0]))
    return max(possible, key=lambda k: (segment_matching(recordings, k), -k))


def segment_matching(recordings: Sequence[Responses], num_dimensions: int) -> float:
    """How often a held-out bin of one recording is nearest to the same bin of all others.

    Returns:
        Mean over recordings and both halves of the stimulus's values, in [0, 1]; nearness is
        correlation over dimensions.
    """
    values = sorted({value for r in recordings for value, _ in r.bins})
    found = []
    for half in (0, 1):
        fitted = set(values[half::2])
        parts = [(_only(r, fitted, True), _only(r, fitted, False)) for r in recordings]
        space = SharedSpace.fit([part for part, _ in parts], num_dimensions)
        projected = [space.place(one).project(other.activity) for one, other in parts]
        for i, (_, other) in enumerate(parts):
            reference: dict[tuple[float, int], list[np.ndarray]] = {k: [] for k in other.bins}
            for j, (_, another) in enumerate(parts):
                for key, value in zip(another.bins, projected[j], strict=True):
                    if j != i and key in reference:
                        reference[key].append(value)
            rows = [n for n, key in enumerate(other.bins) if reference[key]]
            if len(rows) < 2:
                continue
            means = np.stack([np.mean(reference[other.bins[n]], axis=0) for n in rows])
            nearness = _unit_rows(projected[i][rows]) @ _unit_rows(means).T
            found.append((nearness.argmax(1) == np.arange(len(rows))).mean())
    return float(np.mean(found)) if found else 0.0


def _only(responses: Responses, values: set[float], is_in: bool) -> Responses:
    rows = [i for i, (value, _) in enumerate(responses.bins) if (value in values) == is_in]
    return Responses(
        recording_id=responses.recording_id,
        unit_ids=responses.unit_ids,
        bins=[responses.bins[i] for i in rows],
        activity=responses.activity[rows],
        reliability=responses.reliability,
    )


def _standardised(values: np.ndarray) -> np.ndarray:
    """Centred over bins, and divided by one factor so that the mean square is 1.

    Units keep their relative size: those that answer reliably are large beside the fluctuation
    that they were normalised by, and giving all the same size lost 0.03 to 0.1 of accuracy.
    """
    centred = values - values.mean(axis=0)
    size = float(np.sqrt(np.square(centred).mean()))
    result: np.ndarray = centred / size if size > 0 else centred
    return result


def _compact(values: np.ndarray) -> np.ndarray:
    """A factor of the same Gram matrix over bins with at most as many columns as bins."""
    if values.shape[1] <= values.shape[0]:
        return values
    left, size, _ = np.linalg.svd(values, full_matrices=False)
    result: np.ndarray = left * size
    return result


def _nearest_orthonormal(matrix: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    result: np.ndarray = left @ right
    return result


def _unit_rows(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    result: np.ndarray = centred / np.maximum(length, 1e-12)
    return result
