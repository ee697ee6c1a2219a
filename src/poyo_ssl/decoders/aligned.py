"""Linear decoders that learn from the labels of other animals, through a shared stimulus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from poyo_ssl.alignment.placement import ORDERED_COLUMNS, shows
from poyo_ssl.alignment.responses import (
    Responses,
    SharedStimulus,
    measure_responses,
    require_unscored,
)
from poyo_ssl.alignment.shared_response import Loadings, SharedSpace
from poyo_ssl.decoders.frame_templates import FrameTemplates, Showings
from poyo_ssl.decoders.linear import ALPHAS, LinearReadout
from poyo_ssl.decoders.placed_templates import PlacedTemplates
from poyo_ssl.decoders.template_choice import fit_templates, merit_of
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.divide import Divided, DividedRecording
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.task_windows import TaskWindows, find_windows
from poyo_ssl.windows.tasks import Task, presentation_period

NUM_DIMENSIONS = 8
"""Dimensions of the shared space; fewer where recordings saw too few bins."""
OTHERS_SPREAD = 0.1
"""Standard deviation of the others' answers in :func:`fit_ridge_towards`, where one is right."""
CENTER_WINDOWS = 6.0
"""Labelled windows that weigh as much as the mean of all unlabelled ones."""


def find_shared_stimulus(
    task: Task, later: Sequence[DividedRecording], earlier: Sequence[DividedRecording]
) -> SharedStimulus | None:
    """A stimulus other than the task's that all later and at least two earlier recordings show.

    The earlier ones must have labels of the task, too. None where there is no such stimulus.
    """
    teaching = [d for d in earlier if _teaches(d, task)]
    for name in sorted({name for d in later for name in d.recording.stimuli} - {task.stimulus}):
        for column in ORDERED_COLUMNS:
            num_teaching = sum(shows(d, name, column) for d in teaching)
            if num_teaching >= 2 and all(shows(d, name, column) for d in later):
                return SharedStimulus(stimulus=name, column=column)
    return None


def fit_across_animals(
    projected: Sequence[np.ndarray], targets: Sequence[np.ndarray], num_classes: int
) -> np.ndarray:
    """Ridge to one-hot labels in a shared space, its penalty chosen across animals.

    Args:
        projected: Activity in windows of every recording, (num_windows, num_dimensions) each.
        targets: Class of every window.
        num_classes: Classes in all.

    Returns:
        (num_dimensions, num_classes); the penalty is the one at which the labels of a recording
        are told best by the others.
    """
    wanted = [np.eye(num_classes)[target] - 1 / num_classes for target in targets]
    gram = [x.T @ x for x in projected]
    moment = [x.T @ y for x, y in zip(projected, wanted, strict=True)]
    all_gram, all_moment = np.sum(gram, axis=0), np.sum(moment, axis=0)
    identity = np.eye(len(all_gram))

    def told(alpha: float) -> float:
        right = [
            (x @ np.linalg.solve(all_gram - g + alpha * identity, all_moment - m)).argmax(1) == y
            for x, g, m, y in zip(projected, gram, moment, targets, strict=True)
        ]
        return float(np.mean([r.mean() for r in right]))

    alpha = max(ALPHAS, key=told) if len(projected) > 1 else ALPHAS[len(ALPHAS) // 2]
    weights: np.ndarray = np.linalg.solve(all_gram + alpha * identity, all_moment)
    return weights


@dataclass(frozen=True, kw_only=True, eq=False)
class InSharedSpace:
    """What other animals tell, wherever units have a place in their space."""

    shared: SharedStimulus
    space: SharedSpace

    def place(self, population: Population, divided: DividedRecording, task: Task) -> Loadings:
        """Places a recording's units, which looks at no label and nothing that the task tests."""
        require_unscored(divided, task, self.shared)
        return self.space.place(measure_responses(population, divided, self.shared))


@dataclass(frozen=True, kw_only=True, eq=False)
class AlignedDecoder(InSharedSpace):
    """What other animals' labels say of a shared space."""

    weights: np.ndarray
    """(num_dimensions, num_classes)."""

    def readout(self, loadings: Loadings) -> LinearReadout:
        """The decoder of a recording without any label of its own."""
        num_classes = self.weights.shape[1]
        return LinearReadout.from_coefficients(
            (loadings.scale * loadings.weights @ self.weights).T,
            np.full(num_classes, 1 / num_classes),
            loadings.center,
            loadings.unit_ids,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class AlignedTemplates(InSharedSpace):
    """What a movie evokes in other animals, in a space that they share."""

    templates: FrameTemplates
    """Templates whose units are the dimensions of the shared space."""

    def readout(self, loadings: Loadings) -> PlacedTemplates:
        """The look-up of a recording without any showing of its own."""
        return PlacedTemplates.of_units(self.templates, loadings)


@dataclass(frozen=True, kw_only=True, eq=False)
class AlignedAnimals(InSharedSpace):
    """Other animals in one space, and the windows that they have answers to."""

    population: Population
    loadings: dict[str, Loadings]
    """Recording id to where its units lie."""
    windows: dict[str, TaskWindows]
    """Recording id to its training windows of the task."""

    @classmethod
    def fit(
        cls,
        earlier: Divided,
        task: Task,
        classes: np.ndarray,
        shared: SharedStimulus,
        length: float | None = None,
    ) -> AlignedAnimals:
        """Aligns all recordings that show the shared stimulus; some have answers to a task.

        Args:
            earlier: Other recordings; at least two of those have answers.
            task: What is asked.
            classes: The possible answers, (num_classes,).
            shared: What all of them saw.
            length: Length of the windows to decode, seconds; None takes the task's.

        Raises:
            RecordingError: If fewer than two of them can be learned from.
        """
        length = length or task.length
        placing = [d for d in earlier if shows(d, shared.stimulus, shared.column)]
        teaching = [d for d in placing if _teaches(d, task)]
        if len(teaching) < 2:
            raise RecordingError(
                f"Only {len(teaching)} of {len(earlier)} other recordings show {shared.stimulus} "
                f"and have labels of the task '{task.name}'. Give at least two to learn from."
            )
        chosen = {d.recording.recording_id: list(d.recording.unit_ids) for d in placing}
        population = Population(placing, chosen)
        responses = [measure_responses(population, d, shared) for d in population.divided]
        space = SharedSpace.fit(responses, _num_dimensions(responses))
        return cls(
            shared=shared,
            space=space,
            population=population,
            loadings={one.recording_id: space.place(one) for one in responses},
            windows={
                d.recording.recording_id: find_windows(
                    d.recording,
                    task,
                    d.splits[task.name].train,
                    classes,
                    max(1, round(length * d.recording.sampling_rate)),
                    reach=d.splits[task.name].reach("train"),
                )
                for d in teaching
            },
        )

    def features(self, recording_id: str, num_bins: int) -> np.ndarray:
        """Activity in the shared space in equal bins, (num_windows, num_bins * num_dimensions)."""
        windows = self.windows[recording_id]
        activity = self.population.activity[recording_id]
        binned = activity.binned(windows.first_timestep, windows.num_timesteps, num_bins)
        by_bin = binned.reshape(len(windows) * num_bins, -1)
        return self.loadings[recording_id].project(by_bin).reshape(len(windows), -1)


def fit_aligned_decoder(
    earlier: Divided,
    task: Task,
    classes: np.ndarray,
    shared: SharedStimulus,
    length: float | None = None,
) -> AlignedDecoder:
    """Aligns other recordings and learns from their labelled training windows.

    Args:
        earlier: Other recordings; those that show the shared stimulus and have labels are used.
        task: What is asked.
        classes: The possible answers, (num_classes,).
        shared: What all of them saw.
        length: Length of the windows to decode, seconds; None takes the task's.

    Raises:
        RecordingError: If fewer than two of them can be learned from.
    """
    animals = AlignedAnimals.fit(earlier, task, classes, shared, length)
    weights = fit_across_animals(
        [animals.features(name, 1) for name in animals.windows],
        [windows.target for windows in animals.windows.values()],
        len(classes),
    )
    return AlignedDecoder(shared=shared, space=animals.space, weights=weights)


def fit_aligned_templates(
    earlier: Divided,
    task: Task,
    classes: np.ndarray,
    shared: SharedStimulus,
    length: float | None = None,
) -> AlignedTemplates:
    """Measures what each movie frame evokes in the shared space, in all animals together.

    The arguments and errors are those of :func:`fit_aligned_decoder`.
    """
    animals = AlignedAnimals.fit(earlier, task, classes, shared, length)
    dimensions = [f"dimension {i}" for i in range(animals.space.courses.shape[1])]

    def showings(num_bins: int) -> list[Showings]:
        return [
            Showings(
                features=animals.features(d.recording.recording_id, num_bins),
                movie_frame=animals.windows[d.recording.recording_id].target,
                unit_ids=dimensions,
                frame_period=presentation_period(d.recording, task),
            )
            for d in animals.population.divided
            if d.recording.recording_id in animals.windows
        ]

    shortest = min(windows.num_timesteps for windows in animals.windows.values())
    templates = fit_templates(
        FrameTemplates, showings, len(classes), merit_of(task), max_bins=shortest
    )
    return AlignedTemplates(shared=shared, space=animals.space, templates=templates)


def fit_ridge_towards(
    features: np.ndarray,
    target: np.ndarray,
    others: LinearReadout,
    unlabelled_mean: np.ndarray,
) -> LinearReadout:
    """Ridge on own labels that is shrunk towards what other animals say.

    ``minimise |Y - X W|^2 + |x|^2 |W - s W0|^2`` with the mean ``|x|^2`` of the labelled windows:
    one window's worth of trust, which own labels outweigh as they become many. The others' part
    ``s`` is fixed, since a few labels that are fitted exactly do not tell how good it is; and so
    few windows are centred on their own mean only as far as they outnumber ``CENTER_WINDOWS``.

    Args:
        features: Mean activity in labelled windows, (num_windows, num_units).
        target: Class of each window, (num_windows,).
        others: Learned from other animals, for the same units.
        unlabelled_mean: Mean activity in unlabelled windows, (num_units,).
    """
    num_windows, num_classes = len(target), others.weights.shape[-1]
    center = features.sum(axis=0) + CENTER_WINDOWS * unlabelled_mean
    center /= num_windows + CENTER_WINDOWS
    centred = (features - center).astype(np.float64)
    start = others.weights[0].astype(np.float64)
    spread = float((centred @ start).std())
    start *= OTHERS_SPREAD / spread if spread > 0 else 0.0
    gram = centred @ centred.T
    penalty = max(float(np.trace(gram)) / num_windows, 1e-12)
    wanted = np.eye(num_classes)[target] - 1 / num_classes - centred @ start
    weights = start + centred.T @ np.linalg.solve(gram + penalty * np.eye(num_windows), wanted)
    return LinearReadout.from_coefficients(
        weights.T, np.full(num_classes, 1 / num_classes), center, others.unit_ids
    )


def _num_dimensions(responses: Sequence[Responses]) -> int:
    num_bins = len({key for one in responses for key in one.bins})
    return min(NUM_DIMENSIONS, num_bins)


def _teaches(divided: DividedRecording, task: Task) -> bool:
    return task.name in divided.splits and len(divided.splits[task.name].train) > 0
