"""What a run is going to do: recordings divided, units partitioned, decoders listed."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from poyo_ssl.arms import ARMS, arms_for
from poyo_ssl.finetuning import FinetuningConfig
from poyo_ssl.model.checkpoints import write_json
from poyo_ssl.model.encoder import EncoderConfig
from poyo_ssl.population import DividedRecording, Population, divide
from poyo_ssl.predictability.partition import Partition, partition_by_predictability
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.pretraining import PretrainingConfig
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.splits import SplitConfig
from poyo_ssl.recordings.tasks import TASKS, Task, can_answer, find_task
from poyo_ssl.training import TrainingConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What ``poyo-ssl run`` does; every stage has its own part."""

    title: str = "Decoding visual experience from calcium imaging"
    """Heading of the report."""
    tasks: tuple[str, ...] = ()
    """Tasks to decode; none: drifting-grating direction, static-grating orientation and movie
    reconstruction of held-out frames, as far as the recordings show them."""
    units: tuple[str, ...] = ("unpredictable", "all")
    """Units to decode: unpredictable, predictable, all."""
    arms: tuple[str, ...] = ("scratch", "scratch + teacher", "pretrained")
    """Networks to fit beside the reference decoders, which are always there."""
    label_fractions: tuple[float, ...] = (1.0,)
    """Parts of the training labels of label tasks to learn from, each in turn."""
    num_seeds: int = 3
    """Seeds of every network."""
    jobs: int = 0
    """Fits at a time, one CPU core each; 0 takes every core."""
    splits: SplitConfig = field(default_factory=SplitConfig)
    """Train, valid and test parts."""
    predictability: PredictabilityConfig = field(default_factory=PredictabilityConfig)
    """Which units count as predictable."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Size of the network."""
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)
    """What the encoder learns first, on predictable units."""
    labels: FinetuningConfig = field(default_factory=FinetuningConfig)
    """Fitting of label and frame tasks."""
    movie: FinetuningConfig = field(
        default_factory=lambda: FinetuningConfig(
            training=TrainingConfig(max_steps=800, jitter=0.0, valid_every=50)
        )
    )
    """Fitting of image tasks."""

    def __post_init__(self) -> None:
        for name in self.tasks:
            find_task(name)
        unknown = set(self.units) - {"unpredictable", "predictable", "all"}
        if unknown or not self.units:
            raise ValueError(
                f"units must be among unpredictable, predictable and all, got {self.units}."
            )
        for name in self.arms:
            if name not in ARMS or ARMS[name].is_reference:
                networks = [arm for arm in ARMS if not ARMS[arm].is_reference]
                raise ValueError(f"Unknown arm '{name}'. Choose from: {', '.join(networks)}.")
        if not self.label_fractions or not all(0 < f <= 1 for f in self.label_fractions):
            raise ValueError(f"label_fractions must lie in (0, 1], got {self.label_fractions}.")
        if self.num_seeds < 1 or self.jobs < 0:
            raise ValueError("num_seeds must be at least 1 and jobs not negative.")


DEFAULT_TASKS = ("direction", "orientation", "movie_held_out")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One decoder to be fitted and scored."""

    task: str
    units: str
    arm: str
    label_fraction: float
    seed: int

    @property
    def name(self) -> str:
        """Path of its results below the run's directory."""
        arm = self.arm.replace(", ", "-").replace(" + ", "+").replace(" ", "-")
        labels = f"labels-{100 * self.label_fraction:g}"
        return f"decoders/{self.task}/{self.units}/{arm}/{labels}/seed-{self.seed}"


@dataclass(frozen=True, eq=False)
class Experiment:
    """Everything the fits of a run share."""

    divided: list[DividedRecording]
    partition: Partition
    config: RunConfig
    directory: Path

    @cached_property
    def tasks(self) -> list[Task]:
        """Tasks of the run, in order."""
        return list({name: find_task(name) for d in self.divided for name in d.splits}.values())

    def population(self, units: str) -> Population:
        """The recordings with only the units of one group; excluded units are in none."""
        chosen = {
            d.recording.recording_id: list(
                d.recording.unit_ids[self.partition.select(d.recording, units)]
            )
            for d in self.divided
        }
        return Population(self.divided, chosen)

    def pretrained_directory(self, seed: int) -> Path:
        """Where the pretrained encoder of a seed lies."""
        return self.directory / "pretrained" / f"seed-{seed}"

    def fits(self) -> list[Fit]:
        """Every decoder to fit."""
        fits = []
        for task in self.tasks:
            fractions = self.config.label_fractions if task.kind == "labels" else (1.0,)
            for units in self.config.units:
                for arm in arms_for(task, self.config.arms):
                    for fraction in fractions:
                        is_seeded = ARMS[arm].is_seeded or fraction < 1
                        for seed in range(self.config.num_seeds if is_seeded else 1):
                            fits.append(
                                Fit(
                                    task=task.name,
                                    units=units,
                                    arm=arm,
                                    label_fraction=fraction,
                                    seed=seed,
                                )
                            )
        return fits


def plan(recordings: list[Recording], directory: Path, config: RunConfig) -> Experiment:
    """Divides the recordings and partitions their units, before any long work starts."""
    names = config.tasks or tuple(
        name for name in DEFAULT_TASKS if any(can_answer(r, TASKS[name]) for r in recordings)
    )
    if not names:
        found = sorted({name for r in recordings for name in r.stimuli})
        raise RecordingError(
            f"None of {len(recordings)} recordings can answer any default task "
            f"({', '.join(DEFAULT_TASKS)}; found stimuli: {', '.join(found) or 'none'}). The "
            "tasks need drifting gratings, static gratings, or natural movie one with its "
            "pictures."
        )
    divided = divide(recordings, [find_task(name) for name in names], config.splits)
    partition = partition_by_predictability(
        recordings,
        {d.recording.recording_id: d.training for d in divided},
        config.predictability,
    )
    experiment = Experiment(divided, partition, config, directory)
    for units in config.units:
        for task in experiment.tasks:
            population = experiment.population(units)
            for d in population.answering(task):
                rate = population.sampling_rate
                length = config.encoder.window_timesteps(task.window_length, rate)
                for part in ("train", "test"):
                    if len(population.windows(d, task, part, length)) == 0:
                        raise RecordingError(
                            f"Recording '{d.recording.recording_id}' has no {part} window for "
                            f"the task '{task.name}': its windows of {task.window_length} s do "
                            "not fit into that part. Give it more trials, or leave the task out."
                        )
    return experiment


def claim(experiment: Experiment) -> None:
    """Makes the directory this run's own, or refuses one that belongs to another run."""
    directory = experiment.directory
    mine = {
        "config": json.loads(json.dumps(asdict(experiment.config))),
        "recordings": {
            d.recording.recording_id: fingerprint(d.recording) for d in experiment.divided
        },
    }
    # none of these changes a fit: more seeds can be added to a run later
    for name in ("jobs", "title", "num_seeds"):
        mine["config"].pop(name)
    path = directory / "experiment.json"
    if path.is_file():
        if json.loads(path.read_text()) != mine:
            raise ValueError(
                f"'{directory}' holds a run of other recordings or another config. Choose a new "
                "output directory, or delete it to start over."
            )
        logger.info("Going on with the run in %s", directory)
        return
    directory.mkdir(parents=True, exist_ok=True)
    write_json(path, mine)


def fingerprint(recording: Recording) -> str:
    """A digest of the traces and timestamps: equal for the same recording, whatever its file."""
    digest = hashlib.sha256(np.ascontiguousarray(recording.timestamps).data)
    digest.update(np.ascontiguousarray(recording.df_over_f).data)
    return digest.hexdigest()
