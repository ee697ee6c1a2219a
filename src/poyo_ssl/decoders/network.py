"""Networks as fitted decoders: of labels, movie frames, pictures and numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from poyo_ssl.decoders.class_scores import ClassScores, load_scores, save_scores
from poyo_ssl.decoders.fitted_decoder import FittedDecoder, Question
from poyo_ssl.decoders.inside_networks import gradient_times_input, mean_latents
from poyo_ssl.decoders.linear import LinearReadout
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
    """Trained networks that answer together.

    Args:
        question: What is asked.
        networks: One or more trained networks that know the same units.
    """

    networks: Sequence[LabelDecoder | MovieDecoder]

    def __init__(self, question: Question, networks: Sequence[LabelDecoder | MovieDecoder]) -> None:
        super().__init__(question)
        self.networks = [network.eval() for network in networks]

    def of_networks(self, question: Question, networks: Sequence[Any]) -> Self:
        """The same kind of decoder of other networks, without a teacher."""
        return type(self)(question, networks)

    @abstractmethod
    def decision(self, answers: Tensor) -> Tensor:
        """What the units' importance is for, from answers of a network to n windows, (n,)."""

    def answers_by_batch(
        self, activity: Activity, first_timestep: np.ndarray, **known: Tensor
    ) -> Iterator[Tensor]:
        """Answers of every network to windows, stacked, a batch of windows after the other.

        Args:
            activity: Normalised activity of one recording.
            first_timestep: Where windows start, (num_windows,).
            known: What networks are told beside activity, (num_windows, ...) each.

        Yields:
            (num_networks, windows of the batch, ...).
        """
        units = self.networks[0].encoder.unit_rows(activity.unit_ids)
        for at in in_batches(np.arange(len(first_timestep))):
            values = activity.windows(first_timestep[at], self.question.num_timesteps)
            windows, told = Windows(values, units), {k: value[at] for k, value in known.items()}
            yield torch.stack([network(windows, **told) for network in self.networks])

    def unit_importance(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Gradient times input of the decision of the first network, without its teacher."""
        num_timesteps = self.question.num_timesteps
        return gradient_times_input(
            self.networks[0], activity, first_timestep, num_timesteps, self.decision
        )

    def latents(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """What the first network's encoder makes of windows, (num_windows, D)."""
        encoder = self.networks[0].encoder
        return mean_latents(encoder, activity, first_timestep, self.question.num_timesteps)

    def facts(self) -> dict[str, str]:
        """What the model card says: facts of every decoder, the networks, and their pretraining."""
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
        """Networks and vocabulary."""
        reader = self.networks[0].reader
        settings = {
            "query_time": reader.query_time,
            "num_queries": len(reader.query_embedding),
            "members": len(self.networks),
            **encoder_settings(reader.encoder),
        }
        return settings, member_tensors(self.networks)


class ClassNetwork(NetworkDecoder):
    """Networks that score labels, alone or added to the closed form that they learned from.

    Their scores are the mean of their log-probabilities.

    Args:
        question: What is asked.
        networks: See :class:`NetworkDecoder`.
        teacher: What the networks' scores are added to; None for nothing.
        blend: Standard deviation of the networks' part relative to the teacher's.
        spread: Standard deviations of the teacher's and the networks' scores in training.
    """

    KIND = "label network"
    networks: Sequence[LabelDecoder]

    def __init__(
        self,
        question: Question,
        networks: Sequence[LabelDecoder],
        teacher: ClassScores | None = None,
        blend: float = 0.0,
        spread: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(question, networks)
        self.teacher = teacher
        self.blend = blend
        self.spread = spread

    @torch.inference_mode()
    def network_scores(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Mean log-probabilities of the networks alone, centred over the classes, (n, K)."""
        batches = self.answers_by_batch(activity, first_timestep)
        out = torch.cat([logits.log_softmax(dim=2).mean(0) for logits in batches])
        centred: np.ndarray = (out - out.mean(dim=1, keepdim=True)).numpy()
        return centred

    def scores(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Scores of the networks, added to the teacher's where there is one, (n, K)."""
        scores = self.network_scores(activity, first_timestep)
        if self.teacher is None:
            return scores
        num_timesteps = self.question.num_timesteps
        taught = teacher_scores(self.teacher, activity, first_timestep, num_timesteps)
        both: np.ndarray = taught / self.spread[0] + self.blend * scores / self.spread[1]
        return both

    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Scores, (n, K)."""
        return self.scores(activity, first_timestep)

    def decision(self, answers: Tensor) -> Tensor:
        """The score of the answer above the mean score."""
        return answers.amax(dim=1) - answers.mean(dim=1)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Networks, vocabulary, and the teacher where there is one."""
        settings, tensors = super().state()
        if self.teacher is not None:
            taught, of_teacher = save_scores(self.teacher)
            settings["teacher"] = {**taught, "blend": self.blend, "spread": list(self.spread)}
            tensors.update(of_teacher)
        return settings, tensors

    @classmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds networks and teacher."""
        networks = label_networks(len(question.classes), settings, tensors)
        if "teacher" not in settings:
            return cls(question, networks)
        taught = settings["teacher"]
        teacher = load_scores(taught, tensors)
        return cls(question, networks, teacher, taught["blend"], tuple(taught["spread"]))


class FrameNetwork(ClassNetwork):
    """Networks that score every movie frame and answer with the likeliest."""

    KIND = "frame network"

    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Movie frames, (n,)."""
        return self.scores(activity, first_timestep).argmax(axis=1)


class PictureNetwork(NetworkDecoder):
    """Networks that draw, from the mean picture or from that of a linear decoder.

    Args:
        question: What is asked.
        networks: See :class:`NetworkDecoder`.
        readout: Scores of the components that the networks' pictures start from; None for none.
    """

    KIND = "picture network"
    networks: Sequence[MovieDecoder]

    def __init__(
        self,
        question: Question,
        networks: Sequence[MovieDecoder],
        readout: LinearReadout | None = None,
    ) -> None:
        super().__init__(question, networks)
        self.readout = readout

    @torch.inference_mode()
    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """The mean of the networks' pictures, in [0, 1], (n, 64, 128)."""
        known = {}
        if self.readout is not None:
            num_timesteps, num_bins = self.question.num_timesteps, self.readout.num_bins
            features = activity.binned(first_timestep, num_timesteps, num_bins)
            scores = self.readout.scores(features, activity.unit_ids)
            known["scores"] = torch.from_numpy(scores).float()
        batches = self.answers_by_batch(activity, first_timestep, **known)
        pictures: np.ndarray = torch.cat([each.mean(0) for each in batches]).numpy()
        return pictures

    def decision(self, answers: Tensor) -> Tensor:
        """The squared distance of the picture from the mean picture."""
        mean_frame = self.networks[0].image_decoder.mean_frame
        return (answers - mean_frame).square().sum(dim=(1, 2))

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Networks, vocabulary, and the readout where there is one."""
        settings, tensors = super().state()
        if self.readout is not None:
            settings["readout"], of_readout = self.readout.state()
            tensors.update(of_readout)
        return settings, tensors

    @classmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds networks and readout."""
        networks = []
        for weights in members_of(tensors, settings):
            network = MovieDecoder(
                build_encoder(settings),
                mean_frame=weights["image_decoder.mean_frame"],
                query_time=settings["query_time"],
                num_queries=settings["num_queries"],
                components=weights["image_decoder.components"],
            )
            restore(network, weights)
            networks.append(network)
        known = settings.get("readout")
        return cls(question, networks, LinearReadout.of(known, tensors) if known else None)


class ValueNetwork(NetworkDecoder):
    """Networks that answer with a number, the mean of theirs.

    Args:
        question: What is asked.
        networks: See :class:`NetworkDecoder`; of one score.
        mean: Mean of the training values.
        sd: Their standard deviation.
    """

    KIND = "value network"
    networks: Sequence[LabelDecoder]

    def __init__(
        self, question: Question, networks: Sequence[LabelDecoder], mean: float, sd: float
    ) -> None:
        super().__init__(question, networks)
        self.mean = mean
        self.sd = sd

    def of_networks(self, question: Question, networks: Sequence[Any]) -> Self:
        """The same kind of decoder of other networks, with this mean and standard deviation."""
        return type(self)(question, networks, self.mean, self.sd)

    @torch.inference_mode()
    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Values, (n,)."""
        batches = self.answers_by_batch(activity, first_timestep)
        out = torch.cat([each[..., 0].mean(0) for each in batches])
        values: np.ndarray = self.mean + self.sd * out.double().numpy()
        return values

    def decision(self, answers: Tensor) -> Tensor:
        """The value."""
        return answers[:, 0]

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Networks, vocabulary and the scale of the values."""
        settings, tensors = super().state()
        return {**settings, "value_mean": self.mean, "value_sd": self.sd}, tensors

    @classmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds the networks."""
        networks = label_networks(1, settings, tensors)
        return cls(question, networks, settings["value_mean"], settings["value_sd"])


def label_networks(
    num_classes: int, settings: dict[str, Any], tensors: dict[str, Tensor]
) -> list[LabelDecoder]:
    """Rebuilds the networks of a saved decoder, each with so many scores."""
    networks = []
    for weights in members_of(tensors, settings):
        network = LabelDecoder(
            build_encoder(settings), num_classes=num_classes, query_time=settings["query_time"]
        )
        restore(network, weights)
        networks.append(network)
    return networks


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
    """Windows in groups that are predicted at once; no windows are one group of none."""
    return np.array_split(first_timestep, max(1, -(-len(first_timestep) // BATCH_SIZE)))


def teacher_scores(
    teacher: ClassScores, activity: Activity, first_timestep: np.ndarray, num_timesteps: int
) -> np.ndarray:
    """A teacher's scores, centred over the classes, (num_windows, num_classes)."""
    features = activity.binned(first_timestep, num_timesteps, teacher.num_bins)
    scores = teacher.scores(features, activity.unit_ids)
    centred: np.ndarray = scores - scores.mean(axis=1, keepdims=True)
    return centred
