"""The published Calcium POYO+ as a fitted decoder: one of its readouts, for one of our tasks.

It reads ΔF/F as it is, where our networks read normalised activity; the decoder's scale is one that
can be undone. Its window is centred on the middle of the presentation, which it is asked about.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from poyo_ssl.decoders.fitted_decoder import FittedDecoder, Origin, Question
from poyo_ssl.decoders.network import in_batches
from poyo_ssl.model.calcium_poyo_plus import READOUTS, CalciumPOYOPlus, build_calcium_poyo_plus
from poyo_ssl.model.checkpoints import CheckpointError, network_tensors
from poyo_ssl.model.provenance import Provenance
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.activity import Activity, UnitScale
from poyo_ssl.windows.tasks import find_task

logger = logging.getLogger(__name__)

_RANGE = 1000.0
"""The scale's standard deviation: ΔF/F up to eight times as much passes without clipping."""


class Readout(NamedTuple):
    """What one of the published readouts answers."""

    name: str
    """Among :data:`poyo_ssl.model.calcium_poyo_plus.READOUTS`."""
    classes: np.ndarray
    """Its answers in order, as recordings of the Allen Institute hold them, (num_classes,)."""
    presentation: float
    """Seconds that the stimulus is shown; the network was asked about the middle."""


PUBLISHED_TASKS: Mapping[str, Readout] = MappingProxyType(
    {
        "direction": Readout("drifting_gratings_orientation", 45.0 * np.arange(8), 2.0),
        "temporal_frequency": Readout(
            "drifting_gratings_temporal_frequency", np.array([1.0, 2.0, 4.0, 8.0, 15.0]), 2.0
        ),
        "orientation": Readout("static_gratings_orientation", 30.0 * np.arange(6), 0.25),
        "spatial_frequency": Readout(
            "static_gratings_spatial_frequency", np.array([0.02, 0.04, 0.08, 0.16, 0.32]), 0.25
        ),
        "phase": Readout("static_gratings_phase", 0.25 * np.arange(5), 0.25),  # the last is unused
        "scene": Readout("natural_scenes", np.arange(-1.0, 118.0), 0.25),  # -1 is a blank
        "movie_frame": Readout("natural_movie_one_frame", np.arange(900.0), 1 / 30),
        "movie_two_frame": Readout("natural_movie_two_frame", np.arange(900.0), 1 / 30),
        "movie_three_frame": Readout("natural_movie_three_frame", np.arange(3600.0), 1 / 30),
    }
)
"""Our tasks that a published readout answers, with classes as brainsets numbers them."""


class CalciumPOYOPlusDecoder(FittedDecoder):
    """One readout of a published network.

    Args:
        question: What is asked, made by :func:`published_question`.
        network: With names of units and sessions. A unit is called ``<session>/<unit>``; a
            recording's unit is known by the recording's name and its own.
    """

    KIND = "calcium_poyo_plus"

    def __init__(self, question: Question, network: CalciumPOYOPlus) -> None:
        super().__init__(question)
        self.origin = Origin(units="all", labels="published")
        self.provenance = provenance_of(network)
        self.network = network.eval()
        self.readout = PUBLISHED_TASKS[question.task.name].name
        self._unit_rows = unit_rows(network)
        self._session_rows = {
            name_within(session): row for row, session in enumerate(network.session_ids, start=1)
        }

    def predict(self, recording: Recording, first_timestep: np.ndarray) -> np.ndarray:
        """Answers for windows of a recording; warns where the network learned from its session."""
        if recording.recording_id in self._session_rows:
            logger.warning(
                "The published network learned from parts of recording '%s' that are not known "
                "here: a score on it may count windows that it learned from.",
                recording.recording_id,
            )
        return super().predict(recording, first_timestep)

    @torch.inference_mode()
    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Scores (n, K), or movie frames (n,)."""
        question, network = self.question, self.network
        unit_index = torch.tensor([self._row(activity.recording_id, u) for u in activity.unit_ids])
        timestamps = torch.arange(question.num_timesteps) / question.sampling_rate
        task_id = 1 + list(READOUTS).index(self.readout)
        parts = []
        for first in in_batches(first_timestep):
            windows = activity.windows(first, question.num_timesteps)
            shape = (len(first), 1)
            read = network(
                _RANGE * windows * windows.abs(),  # undoes the square root of the scale
                timestamps,
                unit_index,
                torch.full(shape, self._session_rows.get(activity.recording_id, 0)),
                torch.full(shape, task_id),
                torch.full(shape, network.config.sequence_length / 2),
            )
            parts.append(read[self.readout])
        scores: np.ndarray = torch.cat(parts).numpy()
        return scores.argmax(axis=1) if question.task.answer.is_about_frames else scores

    def _row(self, recording_id: str, unit_id: str) -> int:
        """Row of a unit, by its name in any other session where this one is not known."""
        own = self._unit_rows.get(recording_id, {})
        if unit_id in own:
            return own[unit_id]
        return next(rows[unit_id] for rows in self._unit_rows.values() if unit_id in rows)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The network with this one readout."""
        others = [
            f"readout.projections.{name}."
            for name in self.network.readout.projections
            if name != self.readout
        ]
        tensors = {
            f"network.{name}": value
            for name, value in network_tensors(self.network).items()
            if not name.startswith(tuple(others))
        }
        return network_settings(self.network), tensors

    @classmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds the network."""
        weights = {
            name.removeprefix("network."): value
            for name, value in tensors.items()
            if name.startswith("network.")
        }
        return cls(question, build_calcium_poyo_plus(weights, settings, origin="the decoder"))


def published_question(network: CalciumPOYOPlus, task: str, sampling_rate: float) -> Question:
    """What a readout is asked.

    Args:
        network: With names of units.
        task: Among :data:`PUBLISHED_TASKS`.
        sampling_rate: Imaging rate in Hz of the recordings.

    Raises:
        CheckpointError: If the network does not answer it.
    """
    answered = answered_tasks(network)
    if task not in answered:
        raise CheckpointError(
            f"The network does not answer the task '{task}' (it answers: "
            f"{', '.join(answered) or 'none of ours'}). Choose one of these."
        )
    length, (_, classes, presentation) = network.config.sequence_length, PUBLISHED_TASKS[task]
    tables = {
        session: pd.DataFrame(
            {"mean": 0.0, "sd": _RANGE}, index=pd.Index(list(rows), name="unit_id")
        )
        for session, rows in unit_rows(network).items()
    }
    offset = presentation / 2 - length / 2
    return Question(
        arm="Calcium POYO+",
        task=replace(find_task(task), window_offset=offset, window_length=length),
        classes=classes,
        num_timesteps=round(length * sampling_rate),
        sampling_rate=sampling_rate,
        scale=UnitScale(tables),
    )


def answered_tasks(network: CalciumPOYOPlus) -> list[str]:
    """Our tasks for which the network has a readout of the published size."""
    sizes = {name: layer.out_features for name, layer in network.readout.projections.items()}
    return [
        task
        for task, readout in PUBLISHED_TASKS.items()
        if sizes.get(readout.name) == len(readout.classes)
    ]


def unit_rows(network: CalciumPOYOPlus) -> dict[str, dict[str, int]]:
    """Recording to unit to row of the unit embedding, called as recordings call them."""
    rows: dict[str, dict[str, int]] = {}
    for row, word in enumerate(network.unit_ids, start=1):
        session, _, unit = word.rpartition("/")
        rows.setdefault(name_within(session), {})[unit] = row
    return rows


def provenance_of(network: CalciumPOYOPlus) -> Provenance:
    """The sessions that a network learned from."""
    sessions = tuple(map(name_within, network.session_ids))
    return Provenance(recordings=sessions, animals=(), is_simulated=False)


def name_within(path: str) -> str:
    """``500964514`` of ``allen_visual_coding_ophys_2016/500964514``."""
    return path.rpartition("/")[2]


def network_settings(network: CalciumPOYOPlus) -> dict[str, Any]:
    """What no tensor of a network tells, JSON-ready."""
    return {
        "sequence_length": network.config.sequence_length,
        "latent_step": network.config.latent_step,
        "unit_ids": list(network.unit_ids),
        "session_ids": list(network.session_ids),
    }
