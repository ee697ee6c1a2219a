"""Reference decoders as fitted decoders: they answer, are saved and loaded as networks are."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from poyo_ssl.decoders.condition_posterior import ConditionReadout, LabelScores
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
        """Scores, (num_windows, num_classes); for frames the likeliest, (num_windows,)."""
        num_timesteps = self.question.num_timesteps
        features = activity.binned(first_timestep, num_timesteps, self.readout.num_bins)
        return self.readout.scores(features, activity.unit_ids)

    def unit_importance(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Absolute weights."""
        return self.readout.unit_importance(activity.unit_ids)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The readout."""
        return scores_state(self.readout)

    @classmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds the readout."""
        return cls(question, scores_of(settings, tensors))


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
        settings, tensors = readout_state(self.pixels.readout)
        tensors["mean_picture"] = torch.from_numpy(self.pixels.mean_picture)
        tensors["components"] = torch.from_numpy(self.pixels.components)
        return settings, tensors

    @classmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds the readout."""
        pixels = PictureReadout(
            readout=readout_of(settings, tensors),
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


def readout_state(readout: LinearReadout) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A linear readout as settings (JSON-ready) and tensors."""
    tensors = {
        f"readout.{name}": torch.from_numpy(getattr(readout, name))
        for name in ("weights", "center", "intercept")
    }
    return {"readout_unit_ids": readout.unit_ids}, tensors


def readout_of(settings: dict[str, Any], tensors: dict[str, Tensor]) -> LinearReadout:
    """Inverse of :func:`readout_state`."""
    return LinearReadout(
        unit_ids=settings["readout_unit_ids"],
        **{name: tensors[f"readout.{name}"].numpy() for name in ("weights", "center", "intercept")},
    )


def scores_state(readout: LabelScores) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The same of whatever scores labels."""
    if isinstance(readout, LinearReadout):
        return readout_state(readout)
    (linear, of_linear), (settings, tensors) = readout_state(readout.conditions), readout.state()
    return linear | settings, of_linear | tensors


def scores_of(settings: dict[str, Any], tensors: dict[str, Tensor]) -> LabelScores:
    """Inverse of :func:`scores_state`."""
    linear = readout_of(settings, tensors)
    if "conditions" not in settings:
        return linear
    return ConditionReadout.of(linear, settings, tensors)
