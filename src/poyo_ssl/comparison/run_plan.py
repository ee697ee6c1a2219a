"""What a run does as a file, ``plan.json``, from which tables are made without recordings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from poyo_ssl.comparison.experiment import Experiment, PlannedFit, pretrained_name
from poyo_ssl.evaluation.evaluate import chance_level
from poyo_ssl.recordings.simulation.simulator import SIMULATED_BY
from poyo_ssl.result_files import ResultsError, naming_damage, read_json, require_fields
from poyo_ssl.whole_files import write_json
from poyo_ssl.windows.label_budget import LabelBudget, most_labels
from poyo_ssl.windows.tasks import Task

PLAN = "plan.json"


@dataclass(frozen=True, eq=False)
class PlannedTask:
    """A task, and what its recordings make of it."""

    task: Task
    classes: np.ndarray
    """Every possible answer, sorted, (num_classes,); empty where there are no classes."""
    chance: float | None
    """Main metric of guessing; None where the mean picture takes its place."""

    def described(self) -> dict[str, Any]:
        """What a report says of it."""
        task = self.task
        return {
            "name": task.name,
            "title": task.title,
            "chance": self.chance,
            "kind": task.kind,
            "split": task.split,
        }


@dataclass(frozen=True)
class PlannedPretraining:
    """The encoder of an arm and a seed."""

    arm: str
    seed: int
    made_for: str
    """The first arm that begins with the same encoder."""
    units: str
    """A diet, or the encoder that is given."""
    objective: str
    """Empty where the encoder is given."""

    @property
    def is_given(self) -> bool:
        """Whether it comes from elsewhere."""
        return not self.objective

    @property
    def name(self) -> str:
        """Path of the encoder below the run's directory."""
        return pretrained_name(self.made_for, self.seed)


@dataclass(frozen=True, eq=False)
class RunPlan:
    """Every pretraining and fit of a run, and what its tables say of them."""

    tasks: tuple[PlannedTask, ...]
    pretrainings: tuple[PlannedPretraining, ...]
    fits: tuple[PlannedFit, ...]
    references: frozenset[str]
    """Arms that are reference decoders."""
    config: Mapping[str, Any]
    """The ``RunConfig`` as plain values."""
    is_simulated: bool
    """Whether any recording is: the report says so."""

    @classmethod
    def of(cls, experiment: Experiment) -> RunPlan:
        """The plan of an experiment whose recordings are there."""
        config, divided = experiment.config, experiment.divided
        sources = [d.recording.source or "" for d in [*divided, *experiment.earlier]]
        return cls(
            tasks=tuple(_plan_task(task, experiment) for task in experiment.tasks),
            pretrainings=tuple(
                PlannedPretraining(
                    arm=arm,
                    seed=seed,
                    made_for=experiment.encoder_of(arm),
                    units=config.pretrainings[arm].learned_from,
                    objective=config.objective_of(arm),
                )
                for arm in experiment.pretrained_arms
                for seed in range(config.num_seeds)
            ),
            fits=tuple(experiment.fits()),
            references=frozenset(n for n, arm in config.all_arms.items() if arm.is_reference),
            config=json.loads(json.dumps(asdict(config))),
            is_simulated=any(source.startswith(SIMULATED_BY) for source in sources),
        )

    @classmethod
    def load(cls, directory: Path) -> RunPlan:
        """The plan in a run's directory.

        Raises:
            ResultsError: If there is none, or it cannot be read.
        """
        path = directory / PLAN
        if not path.is_file():
            raise ResultsError(
                f"'{directory}' holds no {PLAN}, so it is no run of 'poyo-ssl run', or one of an "
                "older version. Run its command again: what is finished is kept."
            )
        fields = {"tasks": list, "pretrainings": list, "fits": list, "references": list,
                  "config": dict, "is_simulated": bool}  # fmt: skip
        stored = read_json(path, fields)
        with naming_damage(path):
            return cls._from_json(stored)

    @classmethod
    def _from_json(cls, stored: dict[str, Any]) -> RunPlan:
        lists = ("arms", "label_fractions", "labels_per_class")
        require_fields(
            stored["config"],
            {"title": str, "baseline": str, "num_seeds": int, **dict.fromkeys(lists, list)},
        )
        texts = dict.fromkeys(("arm", "made_for", "units", "objective"), str)
        for row in stored["pretrainings"]:
            require_fields(row, {"seed": int, **texts})
        texts = dict.fromkeys(("task", "units", "arm"), str)
        for row in stored["fits"]:
            require_fields(row, {"seed": int, "labels": dict, **texts})
        return cls(
            tasks=tuple(
                PlannedTask(Task.of(task["task"]), np.array(task["classes"]), task["chance"])
                for task in stored["tasks"]
            ),
            pretrainings=tuple(PlannedPretraining(**row) for row in stored["pretrainings"]),
            fits=tuple(
                PlannedFit(**{**row, "labels": LabelBudget(**row["labels"])})
                for row in stored["fits"]
            ),
            references=frozenset(stored["references"]),
            config=stored["config"],
            is_simulated=stored["is_simulated"],
        )

    def save(self, directory: Path) -> None:
        """Writes ``plan.json``."""
        write_json(directory / PLAN, self._as_json())

    def is_saved_in(self, directory: Path) -> bool:
        """Whether a directory holds the same plan."""
        path = directory / PLAN
        return path.is_file() and json.loads(path.read_text()) == self._as_json()

    def _as_json(self) -> dict[str, Any]:
        return {
            "tasks": [
                {
                    "task": planned.task.settings(),
                    "classes": planned.classes.tolist(),
                    "chance": planned.chance,
                }
                for planned in self.tasks
            ],
            "pretrainings": [asdict(planned) for planned in self.pretrainings],
            "fits": [asdict(fit) for fit in self.fits],
            "references": sorted(self.references),
            "config": dict(self.config),
            "is_simulated": self.is_simulated,
        }

    def __add__(self, other: RunPlan) -> RunPlan:
        """What either does, of two plans of the same experiment."""
        both = (self.config, other.config)
        joined = ("arms", "label_fractions", "labels_per_class")
        config = {
            **self.config,
            **{name: _union(config[name] for config in both) for name in joined},
            "num_seeds": max(config["num_seeds"] for config in both),
        }
        return RunPlan(
            tasks=self.tasks,
            pretrainings=tuple(_union((self.pretrainings, other.pretrainings))),
            fits=tuple(_union((self.fits, other.fits))),
            references=self.references,
            config=config,
            is_simulated=self.is_simulated,
        )

    def task(self, name: str) -> PlannedTask:
        """A task by its name."""
        return {planned.task.name: planned for planned in self.tasks}[name]

    def most_labels(self, task: str) -> LabelBudget:
        """The most that decoders of a task learn from."""
        return most_labels(fit.labels for fit in self.fits if fit.task == task)


def _plan_task(task: Task, experiment: Experiment) -> PlannedTask:
    classes = experiment.divided.classes(task)
    recording = experiment.divided.answering(task)[0].recording
    return PlannedTask(task, classes, chance_level(task, recording, classes))


def _union(parts: Iterable[Iterable[Any]]) -> list[Any]:
    """Everything that occurs, once, in order."""
    return list(dict.fromkeys(item for part in parts for item in part))
