"""Fitted decoders: all that is needed to predict from a recording, whatever they were made of.

A decoder knows its units by identity. Asked about a recording, it uses the units that both know,
normalised by the training part's statistics, and says which it missed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from poyo_ssl.model.checkpoints import (
    CheckpointError,
    build_encoder,
    encoder_settings,
    load_checkpoint,
    network_tensors,
    restore,
    save_checkpoint,
)
from poyo_ssl.model.decoders import LabelDecoder, MovieDecoder
from poyo_ssl.population import unit_rows
from poyo_ssl.recordings.activity import Activity, UnitScale
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.tasks import Task, find_task
from poyo_ssl.reference import FrameTemplates, LinearReadout, PictureReadout

BATCH_SIZE = 128
"""Windows predicted at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DecoderFrame:
    """What every fitted decoder shares: the question, the answers and the units."""

    arm: str
    """Name in results, such as ``ridge`` or ``pretrained``."""
    task: Task
    classes: np.ndarray
    """Possible answers, sorted: label values or movie frames, (num_classes,)."""
    num_timesteps: int
    """Imaging samples in a window."""
    sampling_rate: float
    """Imaging rate in Hz of the recordings it was fitted on."""
    scale: UnitScale
    """Training mean and standard deviation of every unit it knows."""

    def known_units(self, recording: Recording) -> list[str]:
        """The recording's units that the decoder knows, in column order.

        Raises:
            RecordingError: If there is none.
        """
        known = set(self.scale.table.index)
        shared = [unit_id for unit_id in recording.unit_ids if unit_id in known]
        if not shared:
            raise RecordingError(
                f"The decoder '{self.arm}' knows none of the {recording.num_units} units of "
                f"recording '{recording.recording_id}' (it knows {len(known)}, such as "
                f"{next(iter(self.scale.table.index))}; found, such as {recording.unit_ids[0]}). "
                "Score it on recordings of the same cells, or fit a new decoder."
            )
        rate = recording.sampling_rate
        if not 0.98 < rate / self.sampling_rate < 1.02:
            raise RecordingError(
                f"Recording '{recording.recording_id}' is sampled at {rate:.2f} Hz but the decoder "
                f"was fitted at {self.sampling_rate:.2f} Hz. Resample it first."
            )
        return shared

    def settings(self) -> dict[str, Any]:
        """JSON-ready form, without the scale."""
        return {
            "arm": self.arm,
            "task": self.task.name,
            "classes": self.classes.tolist(),
            "num_timesteps": self.num_timesteps,
            "sampling_rate": self.sampling_rate,
            "scale_unit_ids": list(self.scale.table.index),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The scale as tensors."""
        table = self.scale.table
        return {f"scale.{name}": torch.tensor(table[name].to_numpy()) for name in table}

    @staticmethod
    def of(settings: dict[str, Any], tensors: dict[str, Tensor]) -> DecoderFrame:
        """Inverse of ``settings`` and ``tensors``."""
        index = pd.Index(settings["scale_unit_ids"], name="unit_id")
        columns = {name: tensors[f"scale.{name}"].numpy() for name in ("mean", "sd")}
        return DecoderFrame(
            arm=settings["arm"],
            task=find_task(settings["task"]),
            classes=np.array(settings["classes"]),
            num_timesteps=settings["num_timesteps"],
            sampling_rate=settings["sampling_rate"],
            scale=UnitScale(pd.DataFrame(columns, index=index)),
        )


class FittedDecoder(ABC):
    """Something that answers a task from windows of a recording."""

    KIND: ClassVar[str]

    def __init__(self, frame: DecoderFrame) -> None:
        self.frame = frame

    def predict(self, recording: Recording, first_timestep: np.ndarray) -> np.ndarray:
        """Answers for windows of a recording.

        Args:
            recording: Any recording that shares units with the decoder.
            first_timestep: Of every window, (num_windows,).

        Returns:
            Label tasks: scores, (num_windows, num_classes), larger is likelier. Frame tasks: the
            movie frame, (num_windows,). Image tasks: pictures in [0, 1], (num_windows, 64, 128).

        Raises:
            RecordingError: If no unit is shared or the sampling rates differ.
        """
        unit_ids = self.frame.known_units(recording)
        activity = Activity.of(recording, unit_ids, self.frame.scale)
        return self.answer(activity, first_timestep)

    @abstractmethod
    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Answers from normalised activity of units that the decoder knows."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Settings (JSON-ready) and tensors beside those of the frame."""

    @classmethod
    @abstractmethod
    def of(cls, frame: DecoderFrame, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Inverse of ``state``."""

    def save(self, directory: Path) -> None:
        """Writes weights, config and units; see :func:`load_decoder`."""
        settings, tensors = self.state()
        save_checkpoint(
            directory,
            {**self.frame.tensors(), **tensors},
            {"kind": self.KIND, **self.frame.settings(), **settings},
        )


class LabelReadout(FittedDecoder):
    """Ridge or logistic regression on binned activity."""

    KIND = "label readout"

    def __init__(self, frame: DecoderFrame, readout: LinearReadout) -> None:
        super().__init__(frame)
        self.readout = readout

    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Scores, (num_windows, num_classes); for frames the likeliest, (num_windows,)."""
        num_timesteps = self.frame.num_timesteps
        features = activity.binned(first_timestep, num_timesteps, self.readout.num_bins)
        return self.readout.scores(features, activity.unit_ids)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The readout."""
        return _readout_state(self.readout)

    @classmethod
    def of(cls, frame: DecoderFrame, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds the readout."""
        return cls(frame, _readout_of(settings, tensors))


class PixelReadout(FittedDecoder):
    """Ridge to the principal components of the movie."""

    KIND = "pixel readout"

    def __init__(self, frame: DecoderFrame, pixels: PictureReadout) -> None:
        super().__init__(frame)
        self.pixels = pixels

    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Pictures in [0, 1], (num_windows, 64, 128)."""
        num_timesteps = self.frame.num_timesteps
        readout = self.pixels.readout
        features = activity.binned(first_timestep, num_timesteps, readout.num_bins)
        return self.pixels.pictures(readout.scores(features, activity.unit_ids))

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The readout, the mean picture and the components."""
        settings, tensors = _readout_state(self.pixels.readout)
        tensors["mean_picture"] = torch.from_numpy(self.pixels.mean_picture)
        tensors["components"] = torch.from_numpy(self.pixels.components)
        return settings, tensors

    @classmethod
    def of(cls, frame: DecoderFrame, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds the readout."""
        pixels = PictureReadout(
            readout=_readout_of(settings, tensors),
            mean_picture=tensors["mean_picture"].numpy(),
            components=tensors["components"].numpy(),
        )
        return cls(frame, pixels)


class MeanFrame(FittedDecoder):
    """Always the mean training picture: what knowing nothing about the activity scores."""

    KIND = "mean frame"

    def __init__(self, frame: DecoderFrame, mean_picture: np.ndarray) -> None:
        super().__init__(frame)
        self.mean_picture = mean_picture

    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """The same picture for every window, (num_windows, 64, 128)."""
        return np.repeat(self.mean_picture[None], len(first_timestep), axis=0)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The picture."""
        return {}, {"mean_picture": torch.from_numpy(self.mean_picture)}

    @classmethod
    def of(cls, frame: DecoderFrame, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds the picture."""
        return cls(frame, tensors["mean_picture"].numpy())


class NearestFrame(FittedDecoder):
    """Looks up the training movie frame whose mean response is nearest.

    Args:
        frame: The question.
        templates: Mean response to every movie frame.
        pictures: Pictures to answer with for image tasks, (num_frames, 64, 128); None for frames.
    """

    KIND = "nearest frame"

    def __init__(
        self, frame: DecoderFrame, templates: FrameTemplates, pictures: np.ndarray | None
    ) -> None:
        super().__init__(frame)
        self.templates = templates
        self.pictures = pictures

    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Movie frames (num_windows,), or pictures (num_windows, 64, 128)."""
        num_timesteps = self.frame.num_timesteps
        features = activity.binned(first_timestep, num_timesteps, self.templates.num_bins)
        nearest = self.templates.nearest(features, activity.unit_ids)
        return nearest if self.pictures is None else self.pictures[nearest]

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The templates, and the pictures where there are any."""
        tensors = {"responses": torch.from_numpy(self.templates.responses)}
        if self.pictures is not None:
            tensors["pictures"] = torch.from_numpy(self.pictures)
        return {"unit_ids": self.templates.unit_ids}, tensors

    @classmethod
    def of(cls, frame: DecoderFrame, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuilds the look-up table."""
        templates = FrameTemplates(
            unit_ids=settings["unit_ids"], responses=tensors["responses"].numpy()
        )
        pictures = tensors["pictures"].numpy() if "pictures" in tensors else None
        return cls(frame, templates, pictures)


class NetworkDecoder(FittedDecoder):
    """A trained network, alone or added to the closed-form teacher that it learned from.

    Args:
        frame: The question.
        network: Fitted label or movie decoder.
        teacher: Linear readout whose scores the network's are added to, or whose picture the
            network corrects; None for none.
        blend: Standard deviation of the network's part relative to the teacher's.
        spread: Standard deviations of the teacher's and the network's scores in training.
    """

    KIND = "network"

    def __init__(
        self,
        frame: DecoderFrame,
        network: LabelDecoder | MovieDecoder,
        teacher: LinearReadout | None = None,
        blend: float = 0.0,
        spread: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(frame)
        self.network = network.eval()
        self.teacher = teacher
        self.blend = blend
        self.spread = spread

    @torch.inference_mode()
    def network_scores(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Centred logits of the network alone, (n, K)."""
        index = unit_rows(self.network.encoder, activity.unit_ids)
        logits = [
            self.network(activity.windows(first, self.frame.num_timesteps), index)
            for first in in_batches(first_timestep)
        ]
        out = torch.cat(logits)
        centred: np.ndarray = (out - out.mean(dim=1, keepdim=True)).numpy()
        return centred

    @torch.inference_mode()
    def pictures(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Pictures in [0, 1], starting from the teacher's where there is one, (n, 64, 128)."""
        index = unit_rows(self.network.encoder, activity.unit_ids)
        pictures = []
        for first in in_batches(first_timestep):
            scores = None
            if self.teacher is not None:
                features = activity.binned(first, self.frame.num_timesteps, self.teacher.num_bins)
                scores = torch.from_numpy(self.teacher.scores(features, activity.unit_ids)).float()
            windows = activity.windows(first, self.frame.num_timesteps)
            pictures.append(self.network(windows, index, scores))
        result: np.ndarray = torch.cat(pictures).numpy()
        return result

    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Scores (n, K), movie frames (n,), or pictures (n, 64, 128)."""
        if self.frame.task.kind == "images":
            return self.pictures(activity, first_timestep)
        scores = self.network_scores(activity, first_timestep)
        if self.teacher is not None:
            num_timesteps = self.frame.num_timesteps
            taught = teacher_scores(self.teacher, activity, first_timestep, num_timesteps)
            scores = taught / self.spread[0] + self.blend * scores / self.spread[1]
        return scores.argmax(axis=1) if self.frame.task.kind == "frames" else scores

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
            readout, readout_tensors = _readout_state(self.teacher)
            settings["teacher"] = {**readout, "blend": self.blend, "spread": list(self.spread)}
            tensors.update(readout_tensors)
        return settings, tensors

    @classmethod
    def of(cls, frame: DecoderFrame, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
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
                encoder, num_classes=len(frame.classes), query_time=settings["query_time"]
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
            return cls(frame, network)
        taught = settings["teacher"]
        teacher = _readout_of(taught, tensors)
        return cls(frame, network, teacher, taught["blend"], tuple(taught["spread"]))


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


def load_decoder(directory: Path) -> FittedDecoder:
    """Loads what :meth:`FittedDecoder.save` wrote; nothing in the files is executed.

    Raises:
        CheckpointError: If the directory holds no complete checkpoint of a fitted decoder.
    """
    tensors, settings = load_checkpoint(directory)
    kinds = {
        kind.KIND: kind
        for kind in (LabelReadout, PixelReadout, MeanFrame, NearestFrame, NetworkDecoder)
    }
    if settings.get("kind") not in kinds:
        raise CheckpointError(
            f"'{directory}' holds no fitted decoder but '{settings.get('kind')}'. "
            "Give a directory that 'poyo-ssl finetune' or 'run' wrote."
        )
    try:
        return kinds[settings["kind"]].of(DecoderFrame.of(settings, tensors), settings, tensors)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise CheckpointError(
            f"The checkpoint in '{directory}' does not load ({error!r}). It was changed after it "
            "was written: fit the decoder again."
        ) from error


def _readout_state(readout: LinearReadout) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors = {
        f"readout.{name}": torch.from_numpy(getattr(readout, name))
        for name in ("weights", "center", "intercept")
    }
    return {"readout_unit_ids": readout.unit_ids}, tensors


def _readout_of(settings: dict[str, Any], tensors: dict[str, Tensor]) -> LinearReadout:
    return LinearReadout(
        unit_ids=settings["readout_unit_ids"],
        **{name: tensors[f"readout.{name}"].numpy() for name in ("weights", "center", "intercept")},
    )
