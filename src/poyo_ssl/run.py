"""The whole method on one's own recordings, from partition to report."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from poyo_ssl.arms import ARMS, Setting, arms_for
from poyo_ssl.evaluation import MAIN_METRIC, Evaluation, chance_level, evaluate
from poyo_ssl.finetuning import FinetuningConfig
from poyo_ssl.metrics import confusion_matrix
from poyo_ssl.model.checkpoints import load_encoder, save_encoder, write_json
from poyo_ssl.model.encoder import EncoderConfig
from poyo_ssl.population import DividedRecording, Population, divide
from poyo_ssl.predictability import (
    Partition,
    PredictabilityConfig,
    partition_by_predictability,
    summarize_partition,
)
from poyo_ssl.predictability_figure import plot_predictability
from poyo_ssl.pretraining import PretrainingConfig, pretrain
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.splits import SplitConfig
from poyo_ssl.recordings.tasks import TASKS, Task, can_answer, find_task
from poyo_ssl.report import write_report
from poyo_ssl.results import summarize
from poyo_ssl.training import TrainingConfig

logger = logging.getLogger(__name__)

CITATIONS = [
    "Bae, Azabou, Cha, Richards (2025). Decoding Dynamic Visual Experience from Calcium Imaging "
    "via Cell-Pattern-Aware SSL. arXiv:2510.18516.",
    "Azabou et al. (2025). Multi-session, multi-task neural decoding from distinct cell-types and "
    "brain regions (POYO+). ICLR.",
    "de Vries et al. (2020). A large-scale standardized physiological survey reveals functional "
    "organization of the mouse visual cortex. Nature Neuroscience 23, 138-151 (Allen Brain "
    "Observatory; cite wherever results on it appear).",
]
DISTRIBUTIONS = ("poyo-ssl", "torch", "torch-brain", "lightning", "numpy", "scikit-learn")
NUM_SHOWN_FRAMES = 8


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
        percent = round(100 * self.label_fraction)
        return f"decoders/{self.task}/{self.units}/{arm}/labels-{percent}/seed-{self.seed}"


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


def run(
    recordings: list[Recording],
    directory: Path,
    config: RunConfig,
    *,
    command: str = "",
    is_simulated: bool = False,
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Path:
    """Runs the whole method: partition, pretrain, fine-tune, evaluate, report.

    Units are partitioned within the training part; the encoder is pretrained on the predictable
    ones; every arm is fitted on the same windows of the same units and scored on the same test
    windows, beside reference decoders. What was already fitted with the same recordings and
    config is not fitted again, so an interrupted run goes on where it stopped.

    Args:
        recordings: At least one, all of one sampling rate.
        directory: Where results, checkpoints and ``report.html`` go.
        config: Every option.
        command: The command line, for the record.
        is_simulated: Say on the report that the data are invented.
        on_progress: Called with a stage's name, fits done and fits in all.

    Returns:
        Path of the report.

    Raises:
        RecordingError: If the recordings cannot answer the tasks.
    """
    started = time.perf_counter()
    experiment = plan(recordings, directory, config)
    _claim(experiment)
    _write_recordings(experiment)
    _pretrain_all(experiment, on_progress)
    fits = experiment.fits()
    jobs = [delayed(_fit_and_score)(experiment, fit) for fit in fits]
    results = []
    for result in _in_parallel(jobs, config.jobs):
        results.append(result)
        on_progress("decoders", len(results), len(fits))
    _write_results(experiment, fits)
    seconds = time.perf_counter() - started
    write_json(
        directory / "run.json",
        {
            "title": config.title,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "is_simulated": is_simulated,
            "seconds": round(seconds, 1),
            "versions": {name: version(name) for name in DISTRIBUTIONS},
            "hardware": describe_hardware(),
            "config": asdict(config),
            "seeds": list(range(config.num_seeds)),
            "tasks": [_describe_task(task, experiment) for task in experiment.tasks],
            "citation": CITATIONS,
        },
    )
    return write_report(directory)


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


def _claim(experiment: Experiment) -> None:
    """Makes the directory this run's own, or refuses one that belongs to another run."""
    directory = experiment.directory
    mine = {
        "config": json.loads(json.dumps(asdict(experiment.config))),
        "recordings": {
            d.recording.recording_id: fingerprint(d.recording) for d in experiment.divided
        },
    }
    for name in ("jobs", "title"):
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
    digest = hashlib.sha256(np.ascontiguousarray(recording.timestamps).tobytes())
    digest.update(np.ascontiguousarray(recording.df_over_f).tobytes())
    return digest.hexdigest()


def _in_parallel(jobs: list[Any], num_jobs: int) -> Iterator[Any]:
    """Results in order of completion; one core each, so that results do not depend on the count."""
    workers = min(num_jobs or os.cpu_count() or 1, max(1, len(jobs)))
    if workers == 1:
        for function, args, kwargs in jobs:
            yield function(*args, **kwargs)
        return
    yield from Parallel(n_jobs=workers, return_as="generator_unordered")(jobs)


def _pretrain_all(experiment: Experiment, on_progress: Callable[[str, int, int], None]) -> None:
    if not any(arm.startswith("pretrained") for arm in experiment.config.arms):
        return
    jobs = [delayed(_pretrain)(experiment, seed) for seed in range(experiment.config.num_seeds)]
    for done, _ in enumerate(_in_parallel(jobs, experiment.config.jobs), start=1):
        on_progress("pretraining", done, len(jobs))


def _pretrain(experiment: Experiment, seed: int) -> None:
    directory = experiment.pretrained_directory(seed)
    if (directory / "config.json").is_file():
        return
    torch.set_num_threads(1)
    encoder, result = pretrain(
        experiment.population("predictable"),
        experiment.config.encoder,
        experiment.config.pretraining,
        seed=seed,
        log_directory=experiment.directory / "tensorboard" / f"pretrained-{seed}",
    )
    directory.mkdir(parents=True, exist_ok=True)
    result.curves.to_csv(directory / "curves.csv", index=False)
    save_encoder(encoder, directory)


def _fit_and_score(experiment: Experiment, fit: Fit) -> None:
    """Fits one decoder, scores it on every test window, and saves both; does nothing twice."""
    directory = experiment.directory / fit.name
    if (directory / "scores.json").is_file():
        return
    torch.set_num_threads(1)
    started = time.perf_counter()
    task = find_task(fit.task)
    population = experiment.population(fit.units)
    setting = Setting(
        population=population,
        task=task,
        encoder=experiment.config.encoder,
        config=experiment.config.movie if task.kind == "images" else experiment.config.labels,
        seed=fit.seed,
        label_fraction=fit.label_fraction,
        pretrained=lambda: load_encoder(experiment.pretrained_directory(fit.seed)),
    )
    decoder, curves = ARMS[fit.arm].fit(setting)
    seconds = time.perf_counter() - started
    pictures = population.pictures(task).numpy() if task.kind == "images" else None
    scores = []
    directory.mkdir(parents=True, exist_ok=True)
    for divided in population.answering(task):
        recording, splits = divided.recording, divided.splits[task.name]
        evaluation = evaluate(decoder, recording, splits, pictures=pictures)
        scores.append(
            {
                "recording_id": recording.recording_id,
                "num_train": len(setting.training_windows(divided)),
                "num_test": len(evaluation.target),
                "seconds": round(seconds, 2),
                "scores": evaluation.scores,
            }
        )
        _save_predictions(directory / f"{recording.recording_id}.npz", task, evaluation, pictures)
    curves.to_csv(directory / "curves.csv", index=False)
    decoder.save(directory)
    write_json(directory / "scores.json", scores)


def _save_predictions(
    path: Path, task: Task, evaluation: Evaluation, pictures: np.ndarray | None
) -> None:
    """Keeps what the tables and figures need: a score per window, and a few pictures."""
    arrays = {"per_window": evaluation.per_window, "target": evaluation.target}
    if task.kind == "images":
        assert pictures is not None
        shown = np.linspace(0, len(evaluation.target) - 1, NUM_SHOWN_FRAMES).round().astype(int)
        arrays |= {
            "movie_frame": evaluation.target[shown],
            "true": _as_bytes(pictures[evaluation.target[shown]]),
            "predicted": _as_bytes(evaluation.predicted[shown]),
            "ssim": evaluation.per_window[shown],
        }
    else:
        arrays["predicted"] = evaluation.predicted
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _as_bytes(pictures: np.ndarray) -> np.ndarray:
    return np.round(255 * pictures).astype(np.uint8)


def _write_recordings(experiment: Experiment) -> None:
    """What was recorded, who is predictable, and which part is what."""
    directory, partition = experiment.directory, experiment.partition
    recordings, splits = [], []
    for divided in experiment.divided:
        recording = divided.recording
        recordings.append(_describe_recording(recording, partition))
        for name, parts in divided.splits.items():
            splits.append(
                {
                    "recording_id": recording.recording_id,
                    "task": name,
                    "segments": recording.segment_intervals.tolist(),
                    **{
                        part: getattr(parts, part).tolist()
                        for part in ("train", "valid", "test", "guard")
                    },
                }
            )
    write_json(directory / "recordings.json", recordings)
    write_json(directory / "splits.json", splits)
    write_json(directory / "predictability.json", summarize_partition(partition))
    partition.units.to_csv(directory / "units.csv", index=False)
    plot_predictability(partition, directory / "predictability.png")


def _describe_recording(recording: Recording, partition: Partition) -> dict[str, Any]:
    segments = recording.segment_intervals
    return {
        "recording_id": recording.recording_id,
        "subject_id": recording.subject_id,
        "container_id": recording.container_id,
        "session_type": recording.session_type,
        "source": recording.source,
        "num_units": recording.num_units,
        "num_predictable": int(partition.is_predictable(recording).sum()),
        "num_unpredictable": int(partition.is_unpredictable(recording).sum()),
        "num_excluded": int(partition.is_excluded(recording).sum()),
        "num_timesteps": recording.num_timesteps,
        "sampling_rate": recording.sampling_rate,
        "duration_s": float(np.diff(segments, axis=1).sum()),
        "num_segments": len(segments),
        "cre_lines": _count(recording.units, "cre_line"),
        "areas": _count(recording.units, "area"),
        "stimuli": {
            name: {
                "num_presentations": len(table),
                "duration_s": float((table["end"] - table["start"]).sum()),
            }
            for name, table in recording.stimuli.items()
        },
        "notes": [],
    }


def _count(units: pd.DataFrame, column: str) -> dict[str, int]:
    if column not in units:
        return {}
    return {str(k): int(v) for k, v in units[column].dropna().value_counts().items()}


def _describe_task(task: Task, experiment: Experiment) -> dict[str, Any]:
    population = Population(
        experiment.divided,
        {d.recording.recording_id: list(d.recording.unit_ids[:1]) for d in experiment.divided},
    )
    recording = population.answering(task)[0].recording
    return {
        "name": task.name,
        "title": task.title,
        "chance": chance_level(task, recording, population.classes(task)),
        "kind": task.kind,
        "split": task.split,
    }


def _write_results(experiment: Experiment, fits: list[Fit]) -> None:
    """Gathers what the fits saved into the tables and pictures of the run."""
    directory = experiment.directory
    scores, windows, curves = [], [], []
    for fit in fits:
        task = find_task(fit.task)
        keys = {
            "task": fit.task,
            "split": task.split,
            "units": fit.units,
            "arm": fit.arm,
            "kind": "reference" if ARMS[fit.arm].is_reference else "network",
            "label_fraction": fit.label_fraction,
        }
        folder = directory / fit.name
        for row in json.loads((folder / "scores.json").read_text()):
            found = row.pop("scores")
            for metric, value in found.items():
                scores.append({**keys, **row, "seed": fit.seed, "metric": metric, "value": value})
            with np.load(folder / f"{row['recording_id']}.npz", allow_pickle=False) as arrays:
                per_window = arrays["per_window"]
            windows.append(
                pd.DataFrame(
                    {
                        **keys,
                        "recording_id": row["recording_id"],
                        "seed": fit.seed,
                        "metric": MAIN_METRIC[task.kind],
                        "window": np.arange(len(per_window)),
                        "value": per_window,
                    }
                )
            )
        curve = pd.read_csv(folder / "curves.csv")
        curves.append(
            curve.assign(
                stage="finetune",
                fit=fit.name,
                task=fit.task,
                units=fit.units,
                arm=fit.arm,
                label_fraction=fit.label_fraction,
                seed=fit.seed,
            )
        )
    curves += _pretraining_curves(experiment)
    table = pd.DataFrame(scores)
    table.to_csv(directory / "scores.csv", index=False)
    pd.concat(curves).to_csv(directory / "curves.csv", index=False)
    summarize(table, pd.concat(windows)).to_csv(directory / "summary.csv", index=False)
    _write_confusions(experiment, fits)
    _write_movies(experiment, fits)


def _pretraining_curves(experiment: Experiment) -> list[pd.DataFrame]:
    curves = []
    for path in sorted((experiment.directory / "pretrained").glob("seed-*/curves.csv")):
        seed = int(path.parent.name.removeprefix("seed-"))
        curves.append(
            pd.read_csv(path).assign(
                stage="pretrain",
                fit=path.parent.name,
                task="pretraining",
                units="predictable",
                arm=experiment.config.pretraining.objective,
                label_fraction=np.nan,
                seed=seed,
            )
        )
    return curves


def _write_confusions(experiment: Experiment, fits: list[Fit]) -> None:
    """Counts over all seeds and recordings, with all labels, for label tasks."""
    counts: dict[tuple[str, str, str], np.ndarray] = {}
    names: dict[str, list[str]] = {}
    for fit in fits:
        task = find_task(fit.task)
        if task.kind != "labels" or fit.label_fraction != max(experiment.config.label_fractions):
            continue
        for path in sorted((experiment.directory / fit.name).glob("*.npz")):
            classes = experiment.population(fit.units).classes(task)
            names[fit.task] = [f"{value:g}" for value in classes]
            with np.load(path, allow_pickle=False) as arrays:
                matrix = confusion_matrix(arrays["predicted"], arrays["target"], len(classes))
            key = (fit.task, fit.units, fit.arm)
            counts[key] = counts.get(key, 0) + matrix
    folder = experiment.directory / "confusion"
    folder.mkdir(exist_ok=True)
    for (task_name, units, arm), matrix in counts.items():
        table = pd.DataFrame(matrix, index=names[task_name], columns=names[task_name])
        table.to_csv(folder / f"{task_name}__{units}__{arm}.csv")


def _write_movies(experiment: Experiment, fits: list[Fit]) -> None:
    """A few reconstructed movie frames of every arm: first seed, first recording."""
    folder = experiment.directory / "movie"
    folder.mkdir(exist_ok=True)
    for fit in fits:
        task = find_task(fit.task)
        if task.kind != "images" or fit.seed != 0:
            continue
        path = sorted((experiment.directory / fit.name).glob("*.npz"))[0]
        with np.load(path, allow_pickle=False) as arrays:
            shown = {name: arrays[name] for name in ("movie_frame", "true", "predicted", "ssim")}
        np.savez_compressed(
            folder / f"{fit.task}__{fit.units}__{fit.arm}.npz", allow_pickle=False, **shown
        )


def describe_hardware() -> dict[str, Any]:
    """Processor, cores, memory and device, for the record."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {
        "cpu": _processor_name(),
        "num_cores": os.cpu_count(),
        "memory_gb": round(pages * size / 2**30, 1),
        "device": device,
    }


def _processor_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
