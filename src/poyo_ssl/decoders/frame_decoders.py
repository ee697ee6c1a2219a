"""Look-ups of movie frames as fitted decoders: of the nearest, of all at once, of all in turn."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from poyo_ssl.decoders.fitted_decoder import FittedDecoder, Question
from poyo_ssl.decoders.frame_templates import FrameTemplates, GaussianTemplates
from poyo_ssl.decoders.placed_templates import PlacedTemplates
from poyo_ssl.windows.activity import Activity

NUM_LOOKS = 10
"""Windows that a filter looks through, the last of them the one that it is asked about."""
JUMP = 0.05
"""Probability that a movie goes on anywhere instead of where it should, from look to look."""


class NearestFrame(FittedDecoder):
    """Looks up the training movie frame whose mean response is nearest.

    Args:
        question: What is asked.
        templates: What every movie frame evokes.
        pictures: Pictures to answer with for image tasks, (num_frames, 64, 128); None for frames.
    """

    KIND = "nearest frame"
    TEMPLATES: ClassVar[type[FrameTemplates]] = FrameTemplates

    def __init__(
        self, question: Question, templates: FrameTemplates, pictures: np.ndarray | None
    ) -> None:
        super().__init__(question)
        self.templates = templates
        self.pictures = pictures

    def posterior(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """How probable every movie frame is, (num_windows, num_frames); 0 for one never seen."""
        num_bins = self.templates.num_bins
        features = activity.binned(first_timestep, self.question.num_timesteps, num_bins)
        return self.templates.probabilities(features, activity.unit_ids)

    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Movie frames (num_windows,), or pictures (num_windows, 64, 128)."""
        posterior = self.posterior(activity, first_timestep)
        if self.pictures is None:
            return posterior.argmax(axis=1)
        return self.show(posterior, self.pictures)

    def show(self, posterior: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """The picture of the most probable movie frame, (num_windows, 64, 128)."""
        return pictures[posterior.argmax(axis=1)]

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The templates, and the pictures where there are any."""
        settings, tensors = self.templates.state()
        if self.pictures is not None:
            tensors["pictures"] = torch.from_numpy(self.pictures)
        return settings, tensors

    @classmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds the look-up."""
        pictures = tensors["pictures"].numpy() if "pictures" in tensors else None
        return cls(question, cls.TEMPLATES.of(settings, tensors), pictures)


class AlignedFrame(NearestFrame):
    """Looks up the frame in what the movie evoked in other animals, in a space that all share."""

    KIND = "aligned frame"
    TEMPLATES: ClassVar[type[FrameTemplates]] = PlacedTemplates


class FramePosterior(NearestFrame):
    """Posterior over movie frames under gaussian noise and a uniform prior over those shown.

    For image tasks it answers with the mean picture under the posterior.
    """

    KIND = "frame posterior"
    TEMPLATES: ClassVar[type[FrameTemplates]] = GaussianTemplates

    def show(self, posterior: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """The mean of all pictures, weighed by how probable they are, (num_windows, 64, 128)."""
        mean: np.ndarray = np.tensordot(posterior, pictures, axes=1)
        return mean.clip(0.0, 1.0)  # probabilities add up to one but for rounding


class FrameFilter(FramePosterior):
    """A Bayesian filter: where the movie was tells where it is, and nothing later does.

    It looks through up to ``NUM_LOOKS`` windows, one after the other and the last the one asked
    about, of which the first starts from equal probabilities. From one to the next the movie goes
    on at its pace or, with probability ``JUMP``, anywhere; past its end it may go on anywhere, too.

    Args:
        question: See :class:`NearestFrame`.
        templates: See :class:`NearestFrame`.
        pictures: See :class:`NearestFrame`.
        pace: Movie frames shown in the time of an imaging sample.
    """

    KIND = "frame filter"
    TEMPLATES = FrameTemplates

    def __init__(
        self,
        question: Question,
        templates: FrameTemplates,
        pictures: np.ndarray | None,
        pace: float = 1.0,
    ) -> None:
        super().__init__(question, templates, pictures)
        self.pace = pace

    @property
    def context(self) -> int:
        """Samples before the window."""
        return (NUM_LOOKS - 1) * self.question.num_timesteps

    def posterior(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """How probable every movie frame is, given the looks back to a gap in the imaging."""
        back = self.question.num_timesteps * np.arange(NUM_LOOKS)[::-1, None]
        looks = np.asarray(first_timestep) - back
        is_imaged = looks >= activity.imaged_since(first_timestep)
        places, index = np.unique(looks[is_imaged], return_inverse=True)
        likelihood = super().posterior(activity, places)
        row = np.zeros(looks.shape, dtype=int)
        row[is_imaged] = index
        posterior = np.repeat(self._anywhere()[None], len(first_timestep), axis=0)
        was_there = np.zeros(len(first_timestep), dtype=bool)
        for rows, is_there in zip(row, is_imaged, strict=True):
            posterior[was_there] = self._move_on(posterior[was_there])
            joint = posterior[is_there] * likelihood[rows[is_there]]
            posterior[is_there] = joint / joint.sum(axis=1, keepdims=True)
            was_there = is_there
        return posterior

    def _anywhere(self) -> np.ndarray:
        """Equal probabilities of all movie frames that training showed, (num_frames,)."""
        anywhere = np.zeros(self.templates.responses.shape[-1], dtype=np.float32)
        anywhere[self.templates.seen] = 1 / len(self.templates.seen)
        return anywhere

    def _move_on(self, posterior: np.ndarray) -> np.ndarray:
        """Probabilities one look later, before it is seen, (num_windows, num_frames)."""
        num_frames = posterior.shape[1]
        step = min(round(self.pace * self.question.num_timesteps), num_frames)
        moved = np.zeros_like(posterior)
        moved[:, step:] = (1 - JUMP) * posterior[:, : num_frames - step]
        return moved + (1 - moved.sum(axis=1, keepdims=True)) * self._anywhere()

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The templates, the pictures where there are any, and the pace."""
        settings, tensors = super().state()
        return {**settings, "pace": self.pace}, tensors

    @classmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds the filter."""
        decoder = super().of(question, settings, tensors)
        decoder.pace = settings["pace"]
        return decoder
