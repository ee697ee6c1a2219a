"""What a run leaves behind: tables, predictions and the facts that a report needs."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from poyo_ssl.comparison.config import slug
from poyo_ssl.comparison.plan import Experiment, PlannedFit
from poyo_ssl.comparison.summary import summarize
from poyo_ssl.evaluation.evaluate import Evaluation, chance_level
from poyo_ssl.evaluation.saved_runs import describe_splits
from poyo_ssl.metrics.labels import confusion_matrix
from poyo_ssl.predictability.figure import plot_predictability
from poyo_ssl.predictability.partition import Partition, summarize_partition
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.simulation.simulator import SIMULATED_BY
from poyo_ssl.whole_files import write_json
from poyo_ssl.windows.label_budget import LabelBudget
from poyo_ssl.windows.tasks import Task

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
PRETRAINING_FACTS = "pretraining.json"
"""Beside every pretrained encoder: seconds, and how much it learned from."""


def seconds_spent(experiment: Experiment) -> float:
    """Seconds that a run which is now resumed, or extended, had taken before."""
    path = experiment.directory / "run.json"
    return float(json.loads(path.read_text())["seconds"]) if path.is_file() else 0.0


def write_facts(experiment: Experiment, command: str, seconds: float) -> None:
    """Command, config, versions, hardware and time of a run, for its report.

    The report says that the data are invented as soon as one recording is simulated.
    """
    config = experiment.config
    everything = [*experiment.divided, *experiment.earlier]
    sources = [d.recording.source or "" for d in everything]
    write_json(
        experiment.directory / "run.json",
        {
            "title": config.title,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "is_simulated": any(source.startswith(SIMULATED_BY) for source in sources),
            "seconds": round(seconds, 1),
            "versions": {name: version(name) for name in DISTRIBUTIONS},
            "hardware": describe_hardware(),
            "config": asdict(config),
            "seeds": list(range(config.num_seeds)),
            "tasks": [_describe_task(task, experiment) for task in experiment.tasks],
            "citation": CITATIONS,
        },
    )


def save_predictions(
    path: Path, task: Task, evaluation: Evaluation, pictures: np.ndarray | None
) -> None:
    """Keeps what the tables and figures need: a score per window, and a few pictures."""
    arrays = {"per_window": evaluation.per_window, "target": evaluation.target}
    if task.answer.needs_pictures:
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


def write_recordings(experiment: Experiment) -> None:
    """What was recorded, who is predictable, and which part is what."""
    directory, partition = experiment.directory, experiment.partition
    recordings, splits = [], []
    for divided in [*experiment.divided, *experiment.earlier]:
        notes = ["Only pretrained on."] if divided in experiment.earlier else []
        recordings.append(_describe_recording(divided.recording, partition, notes))
        splits += describe_splits(divided)
    write_json(directory / "recordings.json", recordings)
    write_json(directory / "splits.json", splits)
    write_json(directory / "predictability.json", summarize_partition(partition))
    partition.units.to_csv(directory / "units.csv", index=False)
    plot_predictability(partition, directory / "predictability.png")


def _describe_recording(
    recording: Recording, partition: Partition, notes: list[str]
) -> dict[str, Any]:
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
        "notes": notes,
    }


def _count(units: pd.DataFrame, column: str) -> dict[str, int]:
    if column not in units:
        return {}
    return {str(k): int(v) for k, v in units[column].dropna().value_counts().items()}


def _describe_task(task: Task, experiment: Experiment) -> dict[str, Any]:
    recording = experiment.divided.answering(task)[0].recording
    return {
        "name": task.name,
        "title": task.title,
        "chance": chance_level(task, recording, experiment.divided.classes(task)),
        "kind": task.kind,
        "split": task.split,
    }


def write_results(experiment: Experiment, fits: list[PlannedFit]) -> None:
    """Gathers what the fits saved into the tables and pictures of the run."""
    directory = experiment.directory
    arms = experiment.config.all_arms
    pretrainings = _write_pretrainings(experiment).set_index(["arm", "seed"])["seconds"]
    scores, windows, curves = [], [], []
    for fit in fits:
        task = experiment.divided.task(fit.task)
        folder = directory / fit.name
        rows = json.loads((folder / "scores.json").read_text())
        keys = {
            "task": fit.task,
            "split": task.split,
            "units": fit.units,
            "arm": fit.arm,
            "kind": "reference" if arms[fit.arm].is_reference else "network",
            "labels": fit.labels.text,
            "label_fraction": _label_fraction(fit.labels, rows),
        }
        for row in rows:
            found = row.pop("scores")
            row["pretraining_seconds"] = float(pretrainings.get((fit.arm, fit.seed), 0.0))
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
                        "metric": task.answer.metric,
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
                labels=keys["labels"],
                label_fraction=keys["label_fraction"],
                seed=fit.seed,
            )
        )
    curves += _pretraining_curves(experiment)
    table = pd.DataFrame(scores)
    table.to_csv(directory / "scores.csv", index=False)
    pd.concat(curves).to_csv(directory / "curves.csv", index=False)
    summary = summarize(table, pd.concat(windows), experiment.config.baseline)
    summary.to_csv(directory / "summary.csv", index=False)
    _write_confusions(experiment, fits)
    _write_movies(experiment, fits)


def _label_fraction(labels: LabelBudget, rows: list[dict[str, Any]]) -> float:
    """The part of the labels that a fit learned from, over all recordings."""
    if labels.per_class is None:
        return labels.fraction
    return sum(row["num_train"] for row in rows) / sum(row["num_labelled"] for row in rows)


def _pretraining_curves(experiment: Experiment) -> list[pd.DataFrame]:
    return [
        pd.read_csv(experiment.pretrained_directory(arm, seed) / "curves.csv").assign(
            stage="pretrain",
            fit=f"pretrained/{slug(arm)}/seed-{seed}",
            task="pretraining",
            units=experiment.config.pretrainings[arm].units,
            arm=arm,
            labels="",
            label_fraction=np.nan,
            seed=seed,
        )
        for arm in experiment.pretrained_arms
        for seed in range(experiment.config.num_seeds)
    ]


def _write_pretrainings(experiment: Experiment) -> pd.DataFrame:
    """Writes what every encoder was pretrained on, and how long it took."""
    columns = ["arm", "seed", "units", "objective", "num_recordings", "num_units", "seconds"]
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "units": experiment.config.pretrainings[arm].units,
            "objective": experiment.config.pretraining_of(arm).objective,
            **json.loads(
                (experiment.pretrained_directory(arm, seed) / PRETRAINING_FACTS).read_text()
            ),
        }
        for arm in experiment.pretrained_arms
        for seed in range(experiment.config.num_seeds)
    ]
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(experiment.directory / "pretrainings.csv", index=False)
    return table


def _write_confusions(experiment: Experiment, fits: list[PlannedFit]) -> None:
    """Counts over all seeds and recordings, with the most labels, for label tasks."""
    counts: dict[tuple[str, str, str], np.ndarray] = {}
    names: dict[str, list[str]] = {}
    for fit in fits:
        task = experiment.divided.task(fit.task)
        if not task.answer.has_budget or fit.labels != experiment.config.most_labels(task):
            continue
        for path in sorted((experiment.directory / fit.name).glob("*.npz")):
            classes = experiment.divided.classes(task)
            names[fit.task] = [v if isinstance(v, str) else f"{v:g}" for v in classes.tolist()]
            with np.load(path, allow_pickle=False) as arrays:
                matrix = confusion_matrix(arrays["predicted"], arrays["target"], len(classes))
            key = (fit.task, fit.units, fit.arm)
            counts[key] = counts.get(key, 0) + matrix
    folder = experiment.directory / "confusion"
    folder.mkdir(exist_ok=True)
    for (task_name, units, arm), matrix in counts.items():
        table = pd.DataFrame(matrix, index=names[task_name], columns=names[task_name])
        table.to_csv(folder / f"{task_name}__{units}__{arm}.csv")


def _write_movies(experiment: Experiment, fits: list[PlannedFit]) -> None:
    """A few reconstructed movie frames of every arm: first seed, first recording."""
    folder = experiment.directory / "movie"
    folder.mkdir(exist_ok=True)
    for fit in fits:
        task = experiment.divided.task(fit.task)
        if not task.answer.needs_pictures or fit.seed != 0:
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
