"""Reference decoders as fitted decoders: they answer, are saved and loaded as networks are."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from poyo_ssl.decoders.class_scores import LabelScores, load_scores, save_scores
from poyo_ssl.decoders.fitted_decoder import FittedDecoder, Question
from poyo_ssl.decoders.linear import LinearReadout
from poyo_ssl.decoders.movie_reference import PictureReadout
from poyo_ssl.windows.activity import Activity


class LabelReadout(FittedDecoder):
    """What scores labels in closed form, from binned activity."""

    KIND = "label readout"

    def __init__(self, question: Question, readout: LabelScores) -> None:
        super().__init__(question)
        self.readout = readout

    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Scores, (num_windows, num_classes)."""
        num_timesteps = self.question.num_timesteps
        features = activity.binned(first_timestep, num_timesteps, self.readout.num_bins)
        return self.readout.scores(features, activity.unit_ids)

    def unit_importance(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Absolute weights."""
        return self.readout.unit_importance(activity.unit_ids)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The readout."""
        return save_scores(self.readout)

    @classmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds the readout."""
        return cls(question, load_scores(settings, tensors))


class ValueReadout(LabelReadout):
    """A number that is linear in binned activity."""

    KIND = "value readout"

    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Values, (num_windows,)."""
        return super().answer(activity, first_timestep)[:, 0]


class PixelReadout(FittedDecoder):
    """Ridge to the principal components of the movie."""

    KIND = "pixel readout"

    def __init__(self, question: Question, pixels: PictureReadout) -> None:
        super().__init__(question)
        self.pixels = pixels

    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Pictures in [0, 1], (num_windows, 64, 128)."""
        num_timesteps = self.question.num_timesteps
        readout = self.pixels.readout
        features = activity.binned(first_timestep, num_timesteps, readout.num_bins)
        return self.pixels.pictures(readout.scores(features, activity.unit_ids))

    def unit_importance(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Absolute weights."""
        return self.pixels.readout.unit_importance(activity.unit_ids)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The readout, the mean picture and the components."""
        settings, tensors = self.pixels.readout.state()
        tensors["mean_picture"] = torch.from_numpy(self.pixels.mean_picture)
        tensors["components"] = torch.from_numpy(self.pixels.components)
        return settings, tensors

    @classmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds the readout."""
        pixels = PictureReadout(
            readout=LinearReadout.of(settings, tensors),
            mean_picture=tensors["mean_picture"].numpy(),
            components=tensors["components"].numpy(),
        )
        return cls(question, pixels)


class MeanFrame(FittedDecoder):
    """Always the mean training picture: what knowing nothing about the activity scores."""

    KIND = "mean frame"

    def __init__(self, question: Question, mean_picture: np.ndarray) -> None:
        super().__init__(question)
        self.mean_picture = mean_picture

    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """The same picture for every window, (num_windows, 64, 128)."""
        return np.repeat(self.mean_picture[None], len(first_timestep), axis=0)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The picture."""
        return {}, {"mean_picture": torch.from_numpy(self.mean_picture)}

    @classmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds the picture."""
        return cls(question, tensors["mean_picture"].numpy())
