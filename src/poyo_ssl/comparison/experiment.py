"""Everything the fits of a run share, and each of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from poyo_ssl.comparison.arms import arms_for
from poyo_ssl.comparison.config import RunConfig
from poyo_ssl.comparison.diets import choose_units
from poyo_ssl.decoders.aligned import find_shared_stimulus
from poyo_ssl.decoders.linear_transfer import shows_tuning
from poyo_ssl.file_names import file_name, fit_folder
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.predictability.partition import Partition
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.windows.divide import Divided
from poyo_ssl.windows.label_budget import LabelBudget
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import Task, find_task


@dataclass(frozen=True, kw_only=True)
class PlannedFit:
    """One decoder to be fitted and scored."""

    task: str
    units: str
    arm: str
    labels: LabelBudget
    seed: int

    @property
    def name(self) -> str:
        """Path of its results below the run's directory."""
        return fit_folder(self.task, self.units, self.arm, self.labels.text, self.seed)


@dataclass(frozen=True, eq=False)
class Experiment:
    """Everything the fits of a run share."""

    divided: Divided
    earlier: Divided
    """Recordings that are only pretrained on; none: encoders are pretrained on ``divided``."""
    partition: Partition
    config: RunConfig
    directory: Path

    @cached_property
    def tasks(self) -> list[Task]:
        """Tasks of the run, in order."""
        return list(self.divided.tasks.values())

    @property
    def pretrained_arms(self) -> list[str]:
        """Arms whose encoder is pretrained, in order."""
        return [name for name in self.config.pretrainings if name in self.config.arms]

    def population(self, units: str) -> Population:
        """The recordings with only the units of one group, made once."""
        if units not in self._populations:
            self._populations[units] = self.partition.population(self.divided, units)
        return self._populations[units]

    @cached_property
    def _populations(self) -> dict[str, Population]:
        return {}

    def given_encoder(self, arm: str) -> Encoder:
        """The encoder that an arm is given, looked up and read once.

        Raises:
            CheckpointError: If there is none.
        """
        source = self.config.pretrainings[arm].encoder
        if source not in self._given:
            self._given[source] = Encoder.from_pretrained(source)
        return self._given[source]

    @property
    def given_arms(self) -> list[str]:
        """Arms that have an encoder given; of those with the same one, the first."""
        given = [arm for arm in self.pretrained_arms if self.config.pretrainings[arm].encoder]
        return list(dict.fromkeys(map(self.encoder_of, given)))

    @cached_property
    def _given(self) -> dict[str, Encoder]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """What travels to other processes: traces, not what is made of them or lies on disk."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_populations", "_given")}

    def pretraining_population(self, arm: str, seed: int) -> Population:
        """What the encoder of an arm is pretrained on: the units of its diet."""
        pretraining = self.config.pretrainings[arm]
        divided = {
            "other": self.earlier if len(self.earlier) else self.divided,
            "decoded": self.divided,
            "both": self.earlier + self.divided,
        }[pretraining.recordings]
        chosen = choose_units(
            pretraining.units,
            self.partition,
            divided.recordings,
            seed=seed,
            lines=pretraining.lines,
        )
        return Population(divided, chosen)

    def pretraining_of(self, arm: str, population: Population) -> PretrainingConfig:
        """How the encoder of an arm is pretrained, with the stimulus that places its units named.

        Args:
            arm: Name of a pretraining.
            population: What it is pretrained on.

        Raises:
            RecordingError: If the decoded recordings and those show none but what is asked about.
        """
        config = self.config.pretraining_of(arm)
        if config.alignment is None or config.alignment.stimulus:
            return config
        asked = [task.stimulus for task in self.tasks]
        if config.label_weight:
            asked.append(find_task(config.label_task).stimulus)
        shared = config.alignment.shared([*population.divided, *self.divided], asked)
        named = replace(config.alignment, stimulus=f"{shared.stimulus}/{shared.column}")
        return replace(config, alignment=named)

    def has_tuning(self, task: Task, units: str) -> bool:
        """Whether an earlier day tells how the decoded cells are tuned to what a task asks."""
        chosen = self.partition.choose(self.divided, units).values()
        return shows_tuning(self.earlier, task, [u for ids in chosen for u in ids])

    def has_alignment(self, task: Task) -> bool:
        """Whether other animals saw a stimulus by which the decoded cells can be aligned."""
        answering = self.divided.answering(task)
        return find_shared_stimulus(task, answering, self.earlier) is not None

    def encoder_of(self, arm: str) -> str:
        """The arm whose encoders an arm begins with; equal ones are made once."""
        return next(name for name in self.config.pretrainings if self._learns_like(name, arm))

    def pretrained_directory(self, arm: str, seed: int) -> Path:
        """Where the pretrained encoder of an arm and seed lies."""
        return self.directory / pretrained_name(self.encoder_of(arm), seed)

    def given_directory(self, arm: str) -> Path:
        """Where the run keeps the encoder that an arm is given."""
        return self.directory / given_name(self.encoder_of(arm))

    def _learns_like(self, one: str, other: str) -> bool:
        first, second = self.config.pretrainings[one], self.config.pretrainings[other]
        return (
            (first.units, first.lines, first.recordings, first.encoder)
            == (second.units, second.lines, second.recordings, second.encoder)
        ) and self.config.pretraining_of(one) == self.config.pretraining_of(other)

    def fits(self) -> list[PlannedFit]:
        """Every decoder to fit."""
        arms = self.config.all_arms
        return [
            PlannedFit(task=task.name, units=units, arm=arm, labels=labels, seed=seed)
            for task in self.tasks
            for units in self.config.units
            for arm in arms_for(
                task,
                self.config.arms,
                arms,
                has_tuning=self.has_tuning(task, units),
                has_alignment=self.has_alignment(task),
            )
            for labels in self.config.budgets(task)
            for seed in range(self._num_seeds(arms[arm].is_seeded, labels))
        ]

    def _num_seeds(self, is_seeded: bool, labels: LabelBudget) -> int:
        return self.config.num_seeds if is_seeded or not labels.is_everything else 1


def given_name(arm: str) -> str:
    """Path of the encoder that an arm is given, below the run's directory."""
    return f"given/{file_name(arm)}"


def pretrained_name(arm: str, seed: int) -> str:
    """Path of a pretrained encoder below the run's directory."""
    return f"pretrained/{file_name(arm)}/seed-{seed}"
