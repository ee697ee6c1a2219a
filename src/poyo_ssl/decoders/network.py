"""The network as a fitted decoder, and loading of fitted decoders of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from poyo_ssl.decoders.class_scores import ClassScores, load_scores, save_scores
from poyo_ssl.decoders.fitted_decoder import FittedDecoder, Question
from poyo_ssl.decoders.inside_networks import gradient_times_input, mean_latents
from poyo_ssl.model.checkpoints import (
    build_encoder,
    encoder_settings,
    network_tensors,
    restore,
)
from poyo_ssl.model.model_card import list_names
from poyo_ssl.model.readouts import LabelDecoder, MovieDecoder
from poyo_ssl.windows.activity import Activity, Windows

BATCH_SIZE = 128
"""Windows predicted at once."""


class NetworkDecoder(FittedDecoder):
    """Trained networks, alone or added to the closed-form teacher that they learned from.

    The networks answer together: scores are the mean of their log-probabilities, pictures the mean
    of theirs.

    Args:
        question: What is asked.
        networks: Fitted label or movie decoders of the same units, one at least.
        teacher: Linear readout or look-up whose scores the network's are added to, or linear one
            whose picture the network corrects; None for none.
        blend: Standard deviation of the network's part relative to the teacher's.
        spread: Standard deviations of the teacher's and the network's scores in training.
    """

    KIND = "network"

    def __init__(
        self,
        question: Question,
        networks: Sequence[LabelDecoder | MovieDecoder],
        teacher: ClassScores | None = None,
        blend: float = 0.0,
        spread: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(question)
        self.networks = [network.eval() for network in networks]
        self.teacher = teacher
        self.blend = blend
        self.spread = spread

    @torch.inference_mode()
    def network_scores(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Mean log-probabilities of the networks alone, centred over the classes, (n, K)."""
        index = self.networks[0].encoder.unit_rows(activity.unit_ids)
        parts = []
        for first in in_batches(first_timestep):
            windows = Windows(activity.windows(first, self.question.num_timesteps), index)
            answers = [network(windows).log_softmax(dim=1) for network in self.networks]
            parts.append(torch.stack(answers).mean(0))
        out = torch.cat(parts)
        centred: np.ndarray = (out - out.mean(dim=1, keepdim=True)).numpy()
        return centred

    @torch.inference_mode()
    def pictures(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Pictures in [0, 1], starting from the teacher's where there is one, (n, 64, 128)."""
        index = self.networks[0].encoder.unit_rows(activity.unit_ids)
        num_timesteps, teacher = self.question.num_timesteps, self.teacher
        if teacher is not None:  # bins of all windows at once: they are found over the recording
            features = activity.binned(first_timestep, num_timesteps, teacher.num_bins)
        pictures = []
        for at in in_batches(np.arange(len(first_timestep))):
            scores = None
            if teacher is not None:
                scores = torch.from_numpy(teacher.scores(features[at], activity.unit_ids)).float()
            windows = activity.windows(first_timestep[at], num_timesteps)
            each = [network(Windows(windows, index), scores=scores) for network in self.networks]
            pictures.append(torch.stack(each).mean(0))
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

    def unit_importance(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Gradient times input of what the first network, without its teacher, decides for.

        That is the score of its answer above the mean score, or the squared distance of its
        picture from the mean picture.
        """
        network = self.networks[0]

        def decision(answers: Tensor) -> Tensor:
            if isinstance(network, MovieDecoder):
                mean_frame = network.image_decoder.mean_frame
                return (answers - mean_frame).square().sum(dim=(1, 2))
            return answers.amax(dim=1) - answers.mean(dim=1)

        num_timesteps = self.question.num_timesteps
        return gradient_times_input(network, activity, first_timestep, num_timesteps, decision)

    def latents(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """What the first network's encoder makes of windows, (num_windows, D)."""
        encoder = self.networks[0].encoder
        return mean_latents(encoder, activity, first_timestep, self.question.num_timesteps)

    def facts(self) -> dict[str, str]:
        """Those of every decoder, the networks, and what the encoder was pretrained on."""
        network = self.networks[0]
        facts = super().facts()
        facts["Networks"] = (
            f"{len(self.networks)} of {sum(p.numel() for p in network.parameters()):,} parameters"
        )
        pretraining = network.encoder.provenance
        if pretraining is not None:
            facts["Pretrained on"] = list_names(pretraining.recordings) + (
                " (simulated)" if pretraining.is_simulated else ""
            )
        return facts

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Networks, vocabulary, and the teacher where there is one."""
        network = self.networks[0]
        settings: dict[str, Any] = {
            "network": type(network).__name__,
            "query_time": network.reader.query_time,
            "num_queries": len(network.reader.query_embedding),
            "members": len(self.networks),
            **encoder_settings(network.encoder),
        }
        tensors = member_tensors(self.networks)
        if self.teacher is not None:
            taught, teacher_tensors = save_scores(self.teacher)
            settings["teacher"] = {**taught, "blend": self.blend, "spread": list(self.spread)}
            tensors.update(teacher_tensors)
        return settings, tensors

    @classmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds networks and teacher."""
        networks = []
        for weights in members_of(tensors, settings):
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
            networks.append(network)
        if "teacher" not in settings:
            return cls(question, networks)
        taught = settings["teacher"]
        teacher = load_scores(taught, tensors)
        return cls(question, networks, teacher, taught["blend"], tuple(taught["spread"]))


def member_tensors(networks: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Weights of every network, by names that :func:`members_of` understands."""
    return {
        f"network.{member}.{name}": value
        for member, network in enumerate(networks)
        for name, value in network_tensors(network).items()
    }


def members_of(tensors: dict[str, Tensor], settings: dict[str, Any]) -> list[dict[str, Tensor]]:
    """Weights of every network of a saved decoder; before there were members, there was one."""
    prefixes = [f"network.{member}." for member in range(settings.get("members", 0))]
    return [
        {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix)
        }
        for prefix in prefixes or ["network."]
    ]


def in_batches(first_timestep: np.ndarray) -> list[np.ndarray]:
    """Windows in groups that are predicted at once."""
    return np.array_split(first_timestep, -(-len(first_timestep) // BATCH_SIZE))


def teacher_scores(
    teacher: ClassScores, activity: Activity, first_timestep: np.ndarray, num_timesteps: int
) -> np.ndarray:
    """A teacher's scores, centred over the classes, (num_windows, num_classes)."""
    features = activity.binned(first_timestep, num_timesteps, teacher.num_bins)
    scores = teacher.scores(features, activity.unit_ids)
    centred: np.ndarray = scores - scores.mean(axis=1, keepdims=True)
    return centred
