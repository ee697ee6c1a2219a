"""The network as a fitted decoder, and loading of fitted decoders of every kind."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from poyo_ssl.decoders.fitted_decoder import FittedDecoder, Question
from poyo_ssl.decoders.linear import LinearReadout
from poyo_ssl.decoders.reference_decoders import (
    readout_of,
    readout_state,
)
from poyo_ssl.model.checkpoints import (
    build_encoder,
    encoder_settings,
    network_tensors,
    restore,
)
from poyo_ssl.model.readouts import LabelDecoder, MovieDecoder
from poyo_ssl.windows.activity import Activity, Windows

BATCH_SIZE = 128
"""Windows predicted at once."""


class NetworkDecoder(FittedDecoder):
    """A trained network, alone or added to the closed-form teacher that it learned from.

    Args:
        question: What is asked.
        network: Fitted label or movie decoder.
        teacher: Linear readout whose scores the network's are added to, or whose picture the
            network corrects; None for none.
        blend: Standard deviation of the network's part relative to the teacher's.
        spread: Standard deviations of the teacher's and the network's scores in training.
    """

    KIND = "network"

    def __init__(
        self,
        question: Question,
        network: LabelDecoder | MovieDecoder,
        teacher: LinearReadout | None = None,
        blend: float = 0.0,
        spread: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(question)
        self.network = network.eval()
        self.teacher = teacher
        self.blend = blend
        self.spread = spread

    @torch.inference_mode()
    def network_scores(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Centred logits of the network alone, (n, K)."""
        index = self.network.encoder.unit_rows(activity.unit_ids)
        logits = [
            self.network(Windows(activity.windows(first, self.question.num_timesteps), index))
            for first in in_batches(first_timestep)
        ]
        out = torch.cat(logits)
        centred: np.ndarray = (out - out.mean(dim=1, keepdim=True)).numpy()
        return centred

    @torch.inference_mode()
    def pictures(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Pictures in [0, 1], starting from the teacher's where there is one, (n, 64, 128)."""
        index = self.network.encoder.unit_rows(activity.unit_ids)
        num_timesteps, teacher = self.question.num_timesteps, self.teacher
        if teacher is not None:  # bins of all windows at once: they are found over the recording
            features = activity.binned(first_timestep, num_timesteps, teacher.num_bins)
        pictures = []
        for at in in_batches(np.arange(len(first_timestep))):
            scores = None
            if teacher is not None:
                scores = torch.from_numpy(teacher.scores(features[at], activity.unit_ids)).float()
            windows = activity.windows(first_timestep[at], num_timesteps)
            pictures.append(self.network(Windows(windows, index), scores=scores))
        result: np.ndarray = torch.cat(pictures).numpy()
        return result

    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Scores (n, K), movie frames (n,), or pictures (n, 64, 128)."""
        if self.question.task.answer.needs_pictures:
            return self.pictures(activity, first_timestep)
        scores = self.network_scores(activity, first_timestep)
        if self.teacher is not None:
            num_timesteps = self.question.num_timesteps
            taught = teacher_scores(self.teacher, activity, first_timestep, num_timesteps)
            scores = taught / self.spread[0] + self.blend * scores / self.spread[1]
        return scores.argmax(axis=1) if self.question.task.answer.is_about_frames else scores

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Network, vocabulary, and the teacher where there is one."""
        network = self.network
        settings: dict[str, Any] = {
            "network": type(network).__name__,
            "query_time": network.reader.query_time,
            "num_queries": len(network.reader.query_embedding),
            **encoder_settings(network.encoder),
        }
        tensors = {f"network.{k}": v for k, v in network_tensors(network).items()}
        if self.teacher is not None:
            readout, readout_tensors = readout_state(self.teacher)
            settings["teacher"] = {**readout, "blend": self.blend, "spread": list(self.spread)}
            tensors.update(readout_tensors)
        return settings, tensors

    @classmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds network and teacher."""
        weights = {
            name.removeprefix("network."): value
            for name, value in tensors.items()
            if name.startswith("network.")
        }
        encoder = build_encoder(settings)
        network: LabelDecoder | MovieDecoder
        if settings["network"] == LabelDecoder.__name__:
            network = LabelDecoder(
                encoder, num_classes=len(question.classes), query_time=settings["query_time"]
            )
        else:
            network = MovieDecoder(
                encoder,
                mean_frame=weights["image_decoder.mean_frame"],
                query_time=settings["query_time"],
                num_queries=settings["num_queries"],
                components=weights["image_decoder.components"],
            )
        restore(network, weights)
        if "teacher" not in settings:
            return cls(question, network)
        taught = settings["teacher"]
        teacher = readout_of(taught, tensors)
        return cls(question, network, teacher, taught["blend"], tuple(taught["spread"]))


def in_batches(first_timestep: np.ndarray) -> list[np.ndarray]:
    """Windows in groups that are predicted at once."""
    return np.array_split(first_timestep, -(-len(first_timestep) // BATCH_SIZE))


def teacher_scores(
    teacher: LinearReadout, activity: Activity, first_timestep: np.ndarray, num_timesteps: int
) -> np.ndarray:
    """A linear teacher's scores, centred over the classes, (num_windows, num_classes)."""
    features = activity.binned(first_timestep, num_timesteps, teacher.num_bins)
    scores = teacher.scores(features, activity.unit_ids)
    centred: np.ndarray = scores - scores.mean(axis=1, keepdims=True)
    return centred
