"""Unit embeddings that all animals share: where a unit lies in the space of a shared stimulus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from poyo_ssl.alignment.responses import SharedStimulus, measure_responses, require_unscored
from poyo_ssl.alignment.shared_response import DIMENSIONS, Loadings, SharedSpace
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.activity import UnitScale
from poyo_ssl.windows.divide import DividedRecording
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import Task

ORDERED_COLUMNS = ("movie_frame", "segment")
"""Columns that say which part of a stimulus was shown, the same in every animal."""
ROTATION_SEED = 0
"""Seed of the one rotation from the shared space to embeddings; another seed would make saved
encoders useless to new animals."""


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """How units of all animals are placed in one space."""

    stimulus: str = ""
    """What all animals saw, as stimulus/column (natural_movie_one/movie_frame); empty: the first
    with a column movie_frame or segment that all recordings show and nothing is asked about."""
    num_dimensions: int | None = 8
    """Dimensions of the space, up to 64; none: as many as tell held-out parts of the stimulus
    apart best."""
    bin_width: float = 0.25
    """Seconds; see ``SharedStimulus``."""
    smoothing: float = 0.6
    """Seconds; see ``SharedStimulus``."""

    def __post_init__(self) -> None:
        if self.stimulus and self.stimulus.count("/") != 1:
            raise ValueError(
                "alignment.stimulus must name a stimulus and its column, such as "
                f"natural_movie_one/movie_frame, got '{self.stimulus}'."
            )
        if self.num_dimensions is not None and not 1 <= self.num_dimensions <= DIMENSIONS[-1]:
            raise ValueError(
                f"alignment.num_dimensions must lie in 1 to {DIMENSIONS[-1]} or be none, got "
                f"{self.num_dimensions}."
            )
        SharedStimulus(stimulus="", column="", bin_width=self.bin_width, smoothing=self.smoothing)

    def shared(
        self, recordings: Sequence[DividedRecording], asked: Sequence[str]
    ) -> SharedStimulus:
        """What recordings are aligned by.

        Args:
            recordings: Those to align.
            asked: Stimuli that are asked about.

        Raises:
            RecordingError: If nothing is named and there is none that all of them show.
        """
        if self.stimulus:
            stimulus, column = self.stimulus.split("/")
        else:
            stimulus, column = find_common_stimulus(recordings, asked)
        return SharedStimulus(
            stimulus=stimulus, column=column, bin_width=self.bin_width, smoothing=self.smoothing
        )

    def fit(self, population: Population, asked: Sequence[str]) -> Placement:
        """The space of a population's recordings, which places units.

        Args:
            population: Those to align.
            asked: Stimuli that are asked about.

        Raises:
            RecordingError: If too few of them can be aligned, or one cannot.
        """
        shared = self.shared(population.divided, asked)
        return Placement.fit(population, shared, self.num_dimensions)


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """How units of any recording get their embeddings, as an encoder keeps it.

    A unit's embedding is its row of the loadings, turned by a rotation common to all recordings,
    and so large that the sum of activity times embedding over a recording's units, divided by the
    square root of their number, has the variance 1 while the shared stimulus is shown.
    """

    shared: SharedStimulus
    space: SharedSpace

    @classmethod
    def fit(
        cls, population: Population, shared: SharedStimulus, num_dimensions: int | None = None
    ) -> Self:
        """Finds the space of a population's recordings.

        Args:
            population: At least two recordings that show the stimulus in their training time.
            shared: What all of them saw.
            num_dimensions: Dimensions of the shared space; None chooses.

        Raises:
            RecordingError: If there are too few recordings, or one does not show the stimulus.
        """
        responses = [measure_responses(population, d, shared) for d in population.divided]
        return cls(shared=shared, space=SharedSpace.fit(responses, num_dimensions))

    def place(self, population: Population) -> dict[str, Loadings]:
        """Recording id to where its units lie; looks at training time alone.

        Raises:
            RecordingError: If a recording does not show the shared stimulus there.
        """
        return {
            d.recording.recording_id: self.space.place(
                measure_responses(population, d, self.shared)
            )
            for d in population.divided
        }

    def place_unscored(self, population: Population, task: Task) -> dict[str, Loadings]:
        """The same for a task to be scored.

        Raises:
            RecordingError: If the task tests what units are placed by, or a recording does not show
                that.
        """
        placed = self.place(population)
        for divided in population.divided:
            require_unscored(divided, task, self.shared)
        return placed

    def embeddings(self, loadings: Loadings, dim: int) -> Tensor:
        """Embeddings of a recording's units, (num_units, dim).

        Raises:
            ValueError: If the space has more dimensions than embeddings have.
        """
        num_units, num_dimensions = loadings.weights.shape
        if num_dimensions > dim:
            raise ValueError(
                f"Embeddings of size {dim} cannot hold a space of {num_dimensions} dimensions. "
                "Take a larger dim of the encoder, or fewer dimensions."
            )
        size = loadings.scale * np.sqrt(num_units * dim / num_dimensions)
        turned: np.ndarray = size * loadings.weights @ _rotation(dim)[:num_dimensions]
        return torch.from_numpy(turned).float()

    def centred(self, population: Population, placed: dict[str, Loadings]) -> Population:
        """The population, for networks relative to the mean response to the shared stimulus.

        What all units do together while it is shown differs between animals for reasons that have
        nothing to do with what they see: left in, it moved a decoder of other animals to chance.
        """
        return population.rescaled(
            UnitScale(
                {
                    name: _with_rest(table, placed[name])
                    for name, table in population.scale.tables.items()
                }
            )
        )

    def settings(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"shared": asdict(self.shared), "space": self.space.settings()}

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Self:
        """Inverse of :meth:`settings`.

        Raises:
            KeyError: If something is missing.
            ValueError: If it does not belong together.
        """
        space = SharedSpace.of(settings["space"])
        return cls(shared=SharedStimulus(**settings["shared"]), space=space)


def find_common_stimulus(
    recordings: Sequence[DividedRecording], left_out: Sequence[str]
) -> tuple[str, str]:
    """A stimulus that all recordings show, the first by name, and its column.

    Args:
        recordings: Those to align.
        left_out: Stimuli that are asked about.

    Raises:
        RecordingError: If there is none.
    """
    for name in sorted({name for d in recordings for name in d.recording.stimuli} - {*left_out}):
        for column in ORDERED_COLUMNS:
            if all(shows(d, name, column) for d in recordings):
                return name, column
    found = {d.recording.recording_id: sorted(d.recording.stimuli) for d in recordings}
    raise RecordingError(
        f"No stimulus with a column {' or '.join(ORDERED_COLUMNS)} is shown in all of "
        f"{len(recordings)} recordings (found: {found}). Units are aligned by what all animals "
        "saw: name it (alignment.stimulus), leave out the recordings without it, or leave out "
        "alignment."
    )


def shows(divided: DividedRecording, stimulus: str, column: str) -> bool:
    """Whether a recording has presentations of a stimulus with that column."""
    table = divided.recording.stimuli.get(stimulus)
    return table is not None and column in table and len(table) > 0


def _with_rest(table: pd.DataFrame, loadings: Loadings) -> pd.DataFrame:
    rest = pd.Series(loadings.center, index=loadings.unit_ids).reindex(table.index)
    return table.assign(rest=rest.fillna(0.0))


@cache
def _rotation(dim: int) -> np.ndarray:
    """An orthonormal matrix, the same for ever, (dim, dim)."""
    normal = np.random.default_rng(ROTATION_SEED).normal(size=(dim, dim))
    orthonormal: np.ndarray = np.linalg.qr(normal)[0]
    return orthonormal
