"""Options of ``poyo-ssl run``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from poyo_ssl.comparison.arms import ARMS, Arm, network_arm
from poyo_ssl.comparison.diets import find_diet
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.teachers import TEACHERS
from poyo_ssl.kinds_of_arguments import require_numbers
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.predictability.partition import find_group
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.windows.label_budget import LabelBudget
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import Task, find_task

SCRATCH = "scratch"
"""The arm that every gain is measured against."""

PRETRAINED = "pretrained"
"""The arm that begins with a pretrained encoder where nothing else is said."""

_LISTS = ("tasks", "units", "arms", "label_fractions", "labels_per_class")
"""Options of a run that are lists, each of which is gone through."""


@dataclass(frozen=True, kw_only=True)
class PretrainingArm:
    """A network that begins with a pretrained encoder."""

    units: str = "predictable"
    """What the encoder is pretrained on: predictable, unpredictable, all, random (in every
    recording as many units as are predictable), random across (the same over all recordings),
    mixed (half and half, as many in all as are predictable) or inhibitory."""
    lines: tuple[str, ...] = ()
    """Cre lines to take these units from, such as Sst; none: all lines."""
    pretraining: PretrainingConfig | None = None
    """Objective and training; none: those of the run."""
    labels: FinetuningConfig | None = None
    """Fitting of label and frame tasks; none: that of the run."""
    movie: FinetuningConfig | None = None
    """Fitting of image tasks; none: that of the run."""
    teacher: str | None = None
    """A closed-form teacher that is learned from and added: ridge, as in scratch + teacher; chosen,
    the one that tells left-out training labels best (look-up of movie frames, ridge of pictures);
    semi-supervised; transferred or shuffled, which need an earlier day of the same cells; aligned,
    which needs other animals that saw a stimulus which the decoded ones saw, too; look-up, of movie
    frames."""
    recordings: Literal["other", "decoded", "both"] = "other"
    """What the encoder is pretrained on: the recordings given to pretrain on, where there are
    any; the training parts of those to decode; or both."""
    encoder: str = ""
    """A pretrained encoder to begin with, of the run's size: a directory, the name of one that
    comes with the package, or owner/name on the Hub, instead of units, lines, pretraining and
    recordings; empty: one is pretrained as these say."""

    def __post_init__(self) -> None:
        find_diet(self.units)
        names = ("units", "lines", "pretraining", "recordings")
        defaults = {option.name: option.default for option in fields(self)}
        unused = [name for name in names if getattr(self, name) != defaults[name]]
        if self.encoder and unused:
            raise ValueError(
                f"The encoder '{self.encoder}' is pretrained already: leave out either encoder or "
                f"{' and '.join(unused)}, which say how one is pretrained."
            )
        if self.teacher is not None and self.teacher not in TEACHERS:
            raise ValueError(
                f"Unknown teacher '{self.teacher}'. Choose from: {', '.join(TEACHERS)}; or none."
            )
        if self.recordings not in ("other", "decoded", "both"):
            raise ValueError(f"recordings must be other, decoded or both, got '{self.recordings}'.")

    @property
    def learned_from(self) -> str:
        """The diet, or the encoder that is given."""
        return self.encoder or self.units


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What ``poyo-ssl run`` does; every stage has its own part."""

    title: str = "Decoding visual experience from calcium imaging"
    """Heading of the report."""
    tasks: tuple[str, ...] = ()
    """Tasks to decode: names, or any column of any table as stimulus/column, with options after
    commas (sequence/segment,split=repeat,window_length=3); none: drifting-grating direction,
    static-grating orientation and movie reconstruction of held-out frames, as far as the
    recordings show them."""
    own_tasks: dict[str, Task] = field(default_factory=dict)
    """Your own questions by name, decoded beside ``tasks``: stimulus, column, kind, split and
    window."""
    units: tuple[str, ...] = ("unpredictable", "all")
    """Units to decode: unpredictable, predictable, all."""
    arms: tuple[str, ...] = ("scratch", "scratch + chosen teacher", PRETRAINED)
    """Networks to fit beside the reference decoders, which are always there: scratch, any of the
    pretrainings, and with a teacher: scratch + chosen teacher, scratch + teacher (ridge), and
    scratch + semi-supervised, transferred, shuffled, aligned or look-up (movie frames) teacher."""
    pretrainings: dict[str, PretrainingArm] = field(
        default_factory=lambda: {PRETRAINED: PretrainingArm()}
    )
    """Name of an arm to how its encoder is pretrained."""
    baseline: str = SCRATCH
    """Arm that gains are measured against, beside scratch."""
    label_fractions: tuple[float, ...] = (1.0,)
    """Parts of the training labels of label tasks to learn from, each in turn."""
    labels_per_class: tuple[int, ...] = ()
    """Numbers of training labels per class and recording to learn from, too; label tasks only."""
    num_seeds: int = 3
    """Seeds of every network."""
    jobs: int = 0
    """Fits at a time, one CPU core each; 0 takes every core."""
    splits: SplitConfig = field(default_factory=SplitConfig)
    """Train, valid and test parts."""
    earlier_splits: SplitConfig | None = None
    """Parts of recordings that are only pretrained on, where training parts alone are learned from;
    none: divided like the others, by ``splits``."""
    predictability: PredictabilityConfig = field(default_factory=PredictabilityConfig)
    """Which units count as predictable."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Size of the network."""
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)
    """What encoders learn first."""
    labels: FinetuningConfig = field(default_factory=FinetuningConfig)
    """Fitting of label and frame tasks."""
    movie: FinetuningConfig = field(
        default_factory=lambda: FinetuningConfig(
            training=TrainingConfig(max_steps=800, jitter=0.0, valid_every=50)
        )
    )
    """Fitting of image tasks."""

    def __post_init__(self) -> None:
        require_numbers(self)
        for name in _LISTS:
            _require_each_once(name, getattr(self, name))
        for name in self.tasks:
            find_task(name)
        for name in self.units:
            find_group(name)
        problems = list(self._problems())
        if problems:
            raise ValueError(" ".join(problems))

    def _problems(self) -> Iterator[str]:
        if not self.units:
            yield "units must name at least one group."
        if not self.label_fractions and not self.labels_per_class:
            yield "label_fractions and labels_per_class must not both be empty."
        if not all(0 < fraction <= 1 for fraction in self.label_fractions):
            yield f"label_fractions must lie in (0, 1], got {self.label_fractions}."
        if not all(number >= 1 for number in self.labels_per_class):
            yield f"labels_per_class must be at least 1, got {self.labels_per_class}."
        for name in self.own_tasks.keys() & {find_task(task).name for task in self.tasks}:
            yield f"'{name}' is in tasks and in own_tasks. Call the own one something else."
        if self.num_seeds < 1 or self.jobs < 0:
            yield "num_seeds must be at least 1 and jobs not negative."
        yield from self._problems_of_arms()

    def _problems_of_arms(self) -> Iterator[str]:
        for name in self.pretrainings:
            if name in ARMS or "__" in name or not re.fullmatch(r"\w[\w .,+-]*", name):
                yield (
                    f"A pretraining cannot be called '{name}': its name must be of letters, "
                    "digits, spaces, dots, commas, + and -, and not that of another arm."
                )
        references = [name for name, arm in self.all_arms.items() if arm.is_reference]
        networks = [name for name in self.all_arms if name not in references]
        for name in self.arms:
            if name not in networks:
                yield f"Unknown arm '{name}'. Choose from: {', '.join(networks)}."
        fitted = [*references, *self.arms]
        if self.baseline not in (SCRATCH, *fitted):
            yield f"The baseline '{self.baseline}' is not fitted. Choose from: {', '.join(fitted)}."

    def beginning_with(self, encoder: str) -> RunConfig:
        """This config with the arm ``pretrained`` beginning with an encoder, and all of its size.

        Args:
            encoder: See :attr:`PretrainingArm.encoder`.

        Raises:
            CheckpointError: If there is none.
        """
        known = self.pretrainings.get(PRETRAINED, PretrainingArm())
        given = PretrainingArm(
            labels=known.labels, movie=known.movie, teacher=known.teacher, encoder=encoder
        )
        return replace(
            self,
            arms=tuple(dict.fromkeys([*self.arms, PRETRAINED])),
            pretrainings={**self.pretrainings, PRETRAINED: given},
            encoder=Encoder.from_pretrained(encoder).config,
        )

    def asked(self) -> list[Task]:
        """The tasks that were asked for, in order; none: those that the recordings can answer."""
        own = [replace(task, name=name) for name, task in self.own_tasks.items()]
        return [*map(find_task, self.tasks), *own]

    @property
    def all_arms(self) -> Mapping[str, Arm]:
        """Every arm that can be asked for, by name; pretrainings last."""
        pretrained = {
            name: network_arm(name, is_pretrained=True, teacher=arm.teacher)
            for name, arm in self.pretrainings.items()
        }
        return {**ARMS, **pretrained}

    def budgets(self, task: Task) -> list[LabelBudget]:
        """How many labels of a task are learned from, each in turn."""
        if not task.answer.has_budget:
            return [LabelBudget()]
        fractions = [LabelBudget(fraction=fraction) for fraction in self.label_fractions]
        return [*fractions, *(LabelBudget(per_class=n) for n in self.labels_per_class)]

    def pretraining_of(self, arm: str) -> PretrainingConfig:
        """How the encoder of an arm is pretrained."""
        return self.pretrainings[arm].pretraining or self.pretraining

    def objective_of(self, arm: str) -> str:
        """What the encoder of an arm is pretrained by; empty where it is given."""
        return "" if self.pretrainings[arm].encoder else self.pretraining_of(arm).objective

    def finetuning_of(self, arm: str, task: Task) -> FinetuningConfig:
        """How a network is fitted to a task."""
        own = self.pretrainings.get(arm, PretrainingArm())
        if task.answer.needs_pictures:
            return own.movie or self.movie
        return own.labels or self.labels


def _require_each_once(name: str, values: Sequence[object]) -> None:
    """Refuses lists that hold something twice, whose scores would count twice, and bare texts.

    Raises:
        ValueError: If it is so.
    """
    if isinstance(values, str):
        raise ValueError(f"{name} must be a list, got '{values}'. Write ('{values}',).")
    twice = sorted({str(value) for value in values if list(values).count(value) > 1})
    if twice:
        raise ValueError(f"{name} names {', '.join(twice)} more than once. Name each once.")
