"""What every fitted decoder shares: the question, the units it knows, and how it is saved.

A decoder knows its units by identity. Asked about a recording, it uses the units that both know,
normalised by statistics of training time, and says which it missed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from poyo_ssl.model.checkpoints import CheckpointError, save_checkpoint
from poyo_ssl.model.fit import Fit
from poyo_ssl.model.model_card import ModelCard, list_names
from poyo_ssl.model.sharing import Shareable
from poyo_ssl.recordings.recording import Recording, RecordingError, is_one_rate
from poyo_ssl.windows.activity import Activity, UnitScale
from poyo_ssl.windows.label_budget import LabelBudget
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """What every fitted decoder shares: the question, the answers and the units."""

    arm: str
    """Name in results, such as ``ridge`` or ``pretrained``."""
    task: Task
    classes: np.ndarray
    """Possible answers, sorted: label values, text or movie frames, (num_classes,); empty where any
    number may be the answer."""
    num_timesteps: int
    """Imaging samples in a window."""
    sampling_rate: float
    """Imaging rate in Hz of the recordings it was fitted on."""
    scale: UnitScale
    """Training mean and standard deviation of every unit it knows, in every recording."""
    untrained: tuple[int, ...] = ()
    """Positions of labels among the classes that no training part showed."""

    @staticmethod
    def about(population: Population, task: Task, num_timesteps: int, arm: str) -> Question:
        """What is asked of a decoder that is fitted on a population.

        Args:
            population: Recordings divided for the task, and chosen units.
            task: What is asked, as the recordings were divided for it.
            num_timesteps: Imaging samples in a window.
            arm: Name in results.

        Raises:
            RecordingError: If only one label occurs.
        """
        population.divided.require_choice(task)
        return Question(
            arm=arm,
            task=task,
            classes=population.divided.classes(task),
            num_timesteps=num_timesteps,
            sampling_rate=population.sampling_rate,
            scale=population.scale,
            untrained=population.divided.untrained(task),
        )

    def known_units(self, recording: Recording) -> list[str]:
        """The recording's units that the decoder uses, in column order.

        In a recording that it was fitted on these are the units that it was fitted on there; in
        any other, such as another day of the same cells, those it knows from any session: see
        :meth:`UnitScale.table_for`.

        Raises:
            RecordingError: If there is none, or the recording is sampled at another rate.
        """
        shared = self.known_among(recording.unit_ids, recording.recording_id)
        self.require_rate(recording.sampling_rate, recording.recording_id)
        return shared

    def require_rate(self, sampling_rate: float, recording_id: str) -> None:
        """Refuses a recording of another imaging rate.

        Args:
            sampling_rate: Imaging rate of the recording, Hz.
            recording_id: Name of the recording, for the message.

        Raises:
            RecordingError: If the decoder was fitted at another one.
        """
        if not is_one_rate(sampling_rate, self.sampling_rate):
            raise RecordingError(
                f"Recording '{recording_id}' is sampled at {sampling_rate:.2f} Hz but the decoder "
                f"was fitted at {self.sampling_rate:.2f} Hz. Resample it first."
            )

    def known_among(self, unit_ids: np.ndarray, recording_id: str) -> list[str]:
        """The units of a recording that the decoder uses, in the order of the recording.

        Args:
            unit_ids: Units of the recording, (num_units,); at least one.
            recording_id: Whose units they are.

        Raises:
            RecordingError: If there is none.
        """
        known = self.scale.table_for(recording_id).index
        shared = unit_ids[np.isin(unit_ids, known.to_numpy(dtype=str))]
        if not len(shared):
            raise RecordingError(
                f"The decoder '{self.arm}' knows none of the {len(unit_ids)} units of "
                f"recording '{recording_id}' (it knows {len(known)}, such as "
                f"{known[0]}; found, such as {unit_ids[0]}). "
                "Score it on recordings of the same cells, or fit a new decoder."
            )
        return [str(unit_id) for unit_id in shared]

    def missing_units(self, recording: Recording) -> list[str]:
        """Units that the decoder learned from and would expect in a recording that lacks them.

        These are the units of the recording it was fitted on, or for any other recording those
        of every session that shares a cell with it; units of other mice are not missed.

        Returns:
            Sorted.
        """
        tables, name = self.scale.tables, recording.recording_id
        sessions = [tables[name]] if name in tables else tables.values()
        found = set(recording.unit_ids.tolist())
        learned = [set(table.index) for table in sessions]
        return sorted(set().union(*(ids for ids in learned if ids & found)) - found)

    def settings(self) -> dict[str, Any]:
        """JSON-ready form, without the scale."""
        return {
            "arm": self.arm,
            "task": self.task.settings(),
            "classes": self.classes.tolist(),
            "num_timesteps": self.num_timesteps,
            "sampling_rate": self.sampling_rate,
            "untrained": list(self.untrained),
            "scale_units": {name: list(t.index) for name, t in self.scale.tables.items()},
        }

    def tensors(self) -> dict[str, Tensor]:
        """The scale as tensors, recording after recording."""
        table = pd.concat(self.scale.tables.values())
        return {f"scale.{name}": torch.tensor(table[name].to_numpy()) for name in table}

    @staticmethod
    def of(settings: dict[str, Any], tensors: dict[str, Tensor]) -> Question:
        """Inverse of ``settings`` and ``tensors``."""
        units: dict[str, list[str]] = settings["scale_units"]
        named = [settings["arm"], *(unit_id for ids in units.values() for unit_id in ids)]
        if not all(isinstance(name, str) for name in named):
            raise TypeError("arm and units must be texts")
        table = pd.DataFrame(
            {
                name: tensors[f"scale.{name}"].numpy()
                for name in ("mean", "sd", "rest")
                if name in ("mean", "sd") or f"scale.{name}" in tensors
            },
            index=pd.Index([u for ids in units.values() for u in ids], name="unit_id"),
        )
        ends = np.cumsum([len(ids) for ids in units.values()])
        tables = {
            name: table.iloc[end - len(ids) : end]
            for (name, ids), end in zip(units.items(), ends, strict=True)
        }
        return Question(
            arm=settings["arm"],
            task=Task.of(settings["task"]),
            classes=np.array(settings["classes"]),
            num_timesteps=settings["num_timesteps"],
            sampling_rate=settings["sampling_rate"],
            scale=UnitScale(tables),
            untrained=tuple(settings.get("untrained", ())),
        )


@dataclass(frozen=True, kw_only=True)
class Origin:
    """How a decoder came about, as results say it; what is not known stays empty."""

    units: str = ""
    """Group of units that it was fitted on, such as ``unpredictable``."""
    labels: str = ""
    """Budget of labels, such as ``10%`` or ``5 per class``."""
    seed: int | None = None
    """Seed of the initial weights, the batches and the choice of labels."""
    fold: int | None = None
    """The fold that it is tested on, where recordings were divided into folds."""

    @classmethod
    def of(cls, units: str, labels: LabelBudget | float, seed: int, splits: SplitConfig) -> Origin:
        """Describes a fit with these options."""
        fold = None if splits.folds is None else splits.fold
        return cls(units=units, labels=LabelBudget.of(labels).text, seed=seed, fold=fold)

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Origin:
        """The one that a config holds as a dict.

        Raises:
            TypeError: If it holds something else.
        """
        origin = cls(**settings)
        texts, numbers = (origin.units, origin.labels), (origin.seed, origin.fold)
        if not (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(number, int | None) for number in numbers)
        ):
            raise TypeError(f"origin is {settings}")
        return origin


class FittedDecoder(Shareable, ABC):
    """Something that answers a task from windows of a recording."""

    KIND: ClassVar[str]
    kinds: ClassVar[dict[str, type[FittedDecoder]]] = {}
    """``KIND`` to class: every kind of decoder that a module in this package defines."""

    def __init_subclass__(cls) -> None:
        if "KIND" in vars(cls):  # a class that several kinds share has none
            cls.kinds[cls.KIND] = cls

    def __init__(self, question: Question) -> None:
        self.question = question
        self.fit: Fit | None = None
        """Curves and seconds, where a network was fitted in this process."""
        self.origin = Origin()
        """How it came about, where that was said before it was saved."""

    def __repr__(self) -> str:
        question = self.question
        units = len({u for table in question.scale.tables.values() for u in table.index})
        fitted = "" if self.fit is None else f", {self.fit}"
        return f"<{question.arm} decoder of {question.task.name} from {units} units{fitted}>"

    def predict(self, recording: Recording, first_timestep: np.ndarray) -> np.ndarray:
        """Answers for windows of a recording.

        Args:
            recording: Any recording that shares units with the decoder.
            first_timestep: First sample of every window, integers of shape (num_windows,); there
                may be no window.

        Returns:
            Label tasks: scores, (num_windows, num_classes), larger is likelier. Value tasks: the
            value, (num_windows,). Frame tasks: the movie frame, (num_windows,). Image tasks:
            pictures in [0, 1], (num_windows, 64, 128).

        Raises:
            RecordingError: If no unit is shared or the sampling rates differ.
        """
        unit_ids = self.question.known_units(recording)
        activity = Activity.of(recording, unit_ids, self.question.scale)
        return self.answer(activity, first_timestep)

    @property
    def context(self) -> int:
        """Samples before a window that an answer takes into account where they were imaged."""
        return 0

    @abstractmethod
    def answer(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray:
        """Answers from normalised activity of units that the decoder knows."""

    def unit_importance(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray | None:
        """How much every unit counts in the answers, in any scale, (num_units,), not negative.

        Args:
            activity: Normalised activity of units that the decoder knows.
            first_timestep: First sample of every window, (num_windows,).

        Returns:
            None where the decoder does not tell.
        """
        return None

    def latents(self, activity: Activity, first_timestep: np.ndarray) -> np.ndarray | None:
        """What an encoder makes of windows, mean over its latents, (num_windows, D).

        Args:
            activity: Normalised activity of units that the decoder knows.
            first_timestep: First sample of every window, (num_windows,).

        Returns:
            None where the decoder has no encoder.
        """
        return None

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Settings (JSON-ready) and tensors beside those of the question."""

    @classmethod
    @abstractmethod
    def of(cls, question: Question, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Inverse of ``state``."""

    def save(self, directory: str | Path) -> None:
        """Writes weights, config and units; see :func:`poyo_ssl.decoders.loading.load_decoder`."""
        settings, tensors = self.state()
        provenance = self.provenance
        save_checkpoint(
            directory,
            {**self.question.tensors(), **tensors},
            {
                "kind": self.KIND,
                "origin": asdict(self.origin),
                "provenance": None if provenance is None else asdict(provenance),
                **self.question.settings(),
                **settings,
            },
        )

    def write_weights(self, directory: Path) -> None:
        """Saves weights, config and units."""
        self.save(directory)

    @classmethod
    def read_weights(cls, directory: Path) -> Self:
        """Loads a decoder of this kind; of any kind where called of this class itself."""
        from poyo_ssl.decoders.loading import load_decoder  # which knows every kind

        decoder = load_decoder(directory)
        if not isinstance(decoder, cls):
            raise CheckpointError(
                f"'{directory}' holds a {type(decoder).__name__}, not a {cls.__name__}. Load it "
                "with FittedDecoder.from_pretrained."
            )
        return decoder

    def facts(self) -> dict[str, str]:
        """What the model card says of the decoder."""
        question, origin = self.question, self.origin
        task, tables = question.task, question.scale.tables
        units = dict.fromkeys(unit for table in tables.values() for unit in table.index)
        facts = {
            "Kind": f"decoder '{question.arm}' ({self.KIND})",
            "Task": f"{task.title}: {task.column} of {task.stimulus}",
            "Answers": list_names(question.classes) if len(question.classes) else "any number",
            "Window": f"{task.length:g} s from {task.window_offset:g} s after the onset",
            "Units": list_names(units) + (f" ({origin.units})" if origin.units else ""),
            "Recordings": list_names(tables),
            "Imaging rate": f"{question.sampling_rate:.4g} Hz",
        }
        if origin.labels:
            facts["Labels"] = origin.labels
        if origin.seed is not None:
            facts["Seed"] = str(origin.seed)
        return facts

    def model_card(self, source: str, scores: Mapping[str, float]) -> ModelCard:
        """What others should know."""
        settings, _ = self.state()
        return ModelCard(
            title=f"Decoder: {self.question.task.title}",
            usage=(
                f"import poyo_ssl as ps\n\ndecoder = ps.FittedDecoder.from_pretrained({source!r})\n"
                'print(ps.evaluate(decoder, ps.load_recordings("session.nwb")))  # of these cells'
            ),
            facts=self.facts(),
            provenance=self.provenance,
            config={"task": self.question.task.settings(), **settings},
            scores=scores,
        )
