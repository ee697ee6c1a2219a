"""What a run leaves behind: tables, predictions and the facts that a report needs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from poyo_ssl.clock.check import check_clock
from poyo_ssl.comparison.plan import Experiment, PlannedFit, pretrained_name
from poyo_ssl.comparison.summary import summarize
from poyo_ssl.evaluation.evaluate import Evaluation, chance_level
from poyo_ssl.evaluation.film import Film, as_bytes, film_file
from poyo_ssl.evaluation.saved_runs import describe_splits
from poyo_ssl.file_names import MOVIE, SPLITS, file_name
from poyo_ssl.metrics.labels import confusion_matrix
from poyo_ssl.predictability.figure import plot_predictability
from poyo_ssl.predictability.partition import Partition, summarize_partition
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.simulation.simulator import SIMULATED_BY
from poyo_ssl.whole_files import partial_file, publish, write_arrays, write_csv, write_json
from poyo_ssl.windows.answers import class_names
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
CURVES, PREDICTIONS, SCORES, FRAMES = "curves.csv", "predictions.csv", "scores.json", "frames.npz"
"""Files of a fit; the first two are also gathered for the run."""
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


def save_fit(
    directory: Path,
    curves: pd.DataFrame,
    evaluations: list[Evaluation],
    rows: list[dict[str, Any]],
    pictures: np.ndarray | None,
    films: dict[str, Film],
) -> None:
    """Keeps what the tables and figures need of one fit; the scores come last.

    Args:
        directory: The fit's own.
        curves: Learning curves.
        evaluations: One a recording.
        rows: One row of scores a recording.
        pictures: Image tasks: what was shown, in [0, 1], (num_pictures, 64, 128).
        films: Recording id to what was shown and decoded, where pictures are at hand.
    """
    write_csv(directory / CURVES, curves)
    write_csv(directory / PREDICTIONS, pd.concat([e.predictions for e in evaluations]))
    if pictures is not None:
        write_arrays(directory / FRAMES, _choose_frames(evaluations[0], pictures))
    for recording_id, film in films.items():
        film.save(directory / film_file(recording_id))
    write_json(directory / SCORES, rows)


def is_finished(directory: Path) -> bool:
    """Whether a fit was scored and all of it is there."""
    return all((directory / name).is_file() for name in (CURVES, PREDICTIONS, SCORES))


def _choose_frames(evaluation: Evaluation, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """A few movie frames as shown and as decoded."""
    shown = np.linspace(0, len(evaluation.target) - 1, NUM_SHOWN_FRAMES).round().astype(int)
    return {
        "movie_frame": evaluation.target[shown],
        "true": as_bytes(pictures[evaluation.target[shown]]),
        "predicted": as_bytes(evaluation.predicted[shown]),
        "ssim": evaluation.per_window[shown],
    }


def write_recordings(experiment: Experiment) -> None:
    """What was recorded, who is predictable, and which part is what."""
    directory, partition = experiment.directory, experiment.partition
    recordings, splits, clocks = [], [], []
    for divided in [*experiment.divided, *experiment.earlier]:
        notes = ["Only pretrained on."] if divided in experiment.earlier else []
        recordings.append(_describe_recording(divided.recording, partition, notes))
        splits += describe_splits(divided)
        clocks += [check.as_dict() for check in check_clock(divided.recording)]
    write_json(directory / "recordings.json", recordings)
    write_json(directory / SPLITS, splits)
    write_json(directory / "clock.json", clocks)
    write_json(directory / "predictability.json", summarize_partition(partition))
    write_csv(directory / "units.csv", partition.units)
    plot_predictability(partition, directory / "predictability.png")


def write_warnings(experiment: Experiment, said: Iterable[str]) -> None:
    """What was warned of, by recording.

    Args:
        experiment: Its recordings have the warnings of their readers.
        said: What was warned of when they were divided; it names the recordings in quotes.
    """
    recordings = [d.recording for d in [*experiment.divided, *experiment.earlier]]
    rows = [
        (recording.recording_id, text) for recording in recordings for text in recording.warnings
    ]
    for text in said:
        named = [r.recording_id for r in recordings if f"'{r.recording_id}'" in text]
        rows += [(recording_id, text) for recording_id in named or [""]]
    table = pd.DataFrame(list(dict.fromkeys(rows)), columns=["recording", "warning"])
    write_csv(experiment.directory / "warnings.csv", table)


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
        rows = json.loads((directory / fit.name / SCORES).read_text())
        kind = "reference" if arms[fit.arm].is_reference else "network"
        keys: dict[str, Any] = {
            "kind": kind,
            "label_fraction": _label_fraction(fit.labels, rows),
        }
        seconds = float(pretrainings.get((fit.arm, fit.seed), 0.0))
        scores += [{**row, **keys, "pretraining_seconds": seconds} for row in rows]
        windows.append(_read_windows(experiment, fit, rows[0], keys))
        curve = pd.read_csv(directory / fit.name / CURVES)
        curves.append(
            curve.assign(
                stage="finetune",
                fit=fit.name,
                task=fit.task,
                units=fit.units,
                arm=fit.arm,
                labels=fit.labels.text,
                label_fraction=keys["label_fraction"],
                seed=fit.seed,
            )
        )
    curves += _pretraining_curves(experiment)
    table = tabulate(scores)
    write_csv(directory / "scores.csv", table)
    write_csv(directory / CURVES, pd.concat(curves))
    summary = summarize(table, pd.concat(windows), experiment.config.baseline)
    write_csv(directory / "summary.csv", summary)
    _gather_predictions(directory, fits)
    _write_confusions(experiment, fits)
    _write_movies(experiment, fits)


def tabulate(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows of scores as a table: one row a metric, lists of units left out."""
    left_out = ("scores", "missing_units", "unknown_units")
    return pd.DataFrame(
        [
            {**{name: row[name] for name in row if name not in left_out}, **score}
            for row in rows
            for score in ({"metric": k, "value": v} for k, v in row["scores"].items())
        ]
    )


def read_predictions(path: Path, columns: list[str]) -> pd.DataFrame:
    """Columns of a ``predictions.csv``; text stays text, whatever it looks like."""
    numbers = {"trial": int, "onset": float, "value": float}
    return pd.read_csv(
        path,
        usecols=columns,
        dtype={name: numbers.get(name, str) for name in columns},
        keep_default_na=False,
        na_values={"value": [""]},
        float_precision="round_trip",
    )


def _read_windows(
    experiment: Experiment, fit: PlannedFit, row: dict[str, Any], keys: dict[str, Any]
) -> pd.DataFrame:
    """Every test window of a fit, its answers as numbers: what intervals and p values are of."""
    columns = ["recording", "trial", "metric", "value", "truth", "answer"]
    found = read_predictions(experiment.directory / fit.name / PREDICTIONS, columns)
    task = experiment.divided.task(fit.task)
    classes = experiment.divided.classes(task)
    target, predicted = (task.answer.numbers(found[name], classes) for name in ("truth", "answer"))
    named = {name: row[name] for name in ("task", "split", "units", "arm", "labels", "seed")}
    return (
        found.drop(columns=["truth", "answer"])
        .rename(columns={"recording": "recording_id", "trial": "window"})
        .assign(target=target, predicted=predicted, **named, **keys)
    )


def _gather_predictions(directory: Path, fits: list[PlannedFit]) -> None:
    """Puts the predictions of all fits below one head; one fit is in memory at a time."""
    path = directory / PREDICTIONS
    with partial_file(path) as partial:
        with partial.open("xb") as whole:
            for place, fit in enumerate(fits):
                head, _, rows = (directory / fit.name / PREDICTIONS).read_bytes().partition(b"\n")
                whole.write(rows if place else head + b"\n" + rows)
        publish(partial, path)


def _label_fraction(labels: LabelBudget, rows: list[dict[str, Any]]) -> float:
    """The part of the labels that a fit learned from, over all recordings."""
    if labels.per_class is None:
        return labels.fraction
    return sum(row["num_train"] for row in rows) / sum(row["num_labelled"] for row in rows)


def _pretraining_curves(experiment: Experiment) -> list[pd.DataFrame]:
    return [
        pd.read_csv(experiment.pretrained_directory(arm, seed) / CURVES).assign(
            stage="pretrain",
            fit=pretrained_name(arm, seed),
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
    write_csv(experiment.directory / "pretrainings.csv", table)
    return table


def _write_confusions(experiment: Experiment, fits: list[PlannedFit]) -> None:
    """Counts over all seeds and recordings, with the most labels, for label tasks."""
    counts: dict[tuple[str, str, str], pd.DataFrame] = {}
    for fit in fits:
        task = experiment.divided.task(fit.task)
        if not task.answer.has_budget or fit.labels != experiment.config.most_labels(task):
            continue
        names = class_names(experiment.divided.classes(task))
        found = read_predictions(experiment.directory / fit.name / PREDICTIONS, ["truth", "answer"])
        target, predicted = (
            pd.Index(names).get_indexer(pd.Index(found[column])) for column in ("truth", "answer")
        )
        matrix = pd.DataFrame(
            confusion_matrix(predicted, target, len(names)), index=names, columns=names
        )
        key = (fit.task, fit.units, fit.arm)
        counts[key] = counts[key] + matrix if key in counts else matrix
    for key, table in counts.items():
        path = experiment.directory / "confusion" / f"{file_name(*key)}.csv"
        write_csv(path, table.rename_axis("").reset_index())


def _write_movies(experiment: Experiment, fits: list[PlannedFit]) -> None:
    """A few reconstructed movie frames of every arm: first seed, first recording."""
    for fit in fits:
        task = experiment.divided.task(fit.task)
        if not task.answer.needs_pictures or fit.seed != 0:
            continue
        with np.load(experiment.directory / fit.name / FRAMES, allow_pickle=False) as shown:
            name = f"{file_name(fit.task, fit.units, fit.arm)}.npz"
            write_arrays(experiment.directory / MOVIE / name, shown)


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
