"""What a run leaves behind: tables, predictions and the facts that a report needs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from poyo_ssl.clock.check import check_clock
from poyo_ssl.comparison.experiment import Experiment, PlannedFit, pretrained_name
from poyo_ssl.comparison.run_plan import RunPlan
from poyo_ssl.comparison.summary import summarize
from poyo_ssl.evaluation.evaluate import Evaluation
from poyo_ssl.evaluation.film import Film, as_bytes, film_file
from poyo_ssl.evaluation.saved_runs import describe_splits
from poyo_ssl.file_names import EXPERIMENT, MOVIE, PREDICTIONS, SPLITS, file_name
from poyo_ssl.metrics.labels import confusion_matrix
from poyo_ssl.predictability.figure import plot_predictability
from poyo_ssl.predictability.partition import Partition, summarize_partition
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.result_files import (
    NUMBER,
    SCORES,
    naming_damage,
    read_curves,
    read_json,
    read_pretraining,
    read_scores,
)
from poyo_ssl.whole_files import partial_file, publish, write_arrays, write_csv, write_json
from poyo_ssl.windows.answers import class_names
from poyo_ssl.windows.label_budget import LabelBudget

CITATIONS = [
    "Bae, Azabou, Cha, Richards (2025). Decoding Dynamic Visual Experience from Calcium Imaging "
    "via Cell-Pattern-Aware SSL. arXiv:2510.18516.",
    "Azabou et al. (2025). Multi-session, multi-task neural decoding from distinct cell-types and "
    "brain regions (POYO+). ICLR.",
    "de Vries et al. (2020). A large-scale standardized physiological survey reveals functional "
    "organization of the mouse visual cortex. Nature Neuroscience 23, 138-151 (Allen Brain "
    "Observatory; cite wherever results on it appear).",
]
DISTRIBUTIONS = ("poyo-ssl", "torch", "lightning", "numpy", "scikit-learn")
NUM_SHOWN_FRAMES = 8
CURVES, FRAMES = "curves.csv", "frames.npz"
"""Files of a fit; the first is also gathered for the run, as its predictions are."""
FIT = (CURVES, PREDICTIONS, SCORES)
"""Files of every fit, in the order in which they are written."""
ENCODER = ("config.json",)
"""What is written last of a pretrained encoder."""
DESCRIPTION = (
    "recordings.json", SPLITS, "clock.json", "predictability.json", "units.csv",
    "predictability.png", "warnings.csv", EXPERIMENT,
)  # fmt: skip
"""What tells of the recordings and not of any fit."""


def seconds_spent(directory: Path) -> float:
    """Seconds that a run which is now resumed, or extended, had taken before."""
    path = directory / "run.json"
    return float(read_json(path, {"seconds": NUMBER})["seconds"]) if path.is_file() else 0.0


def seconds_of_fits(directory: Path, run_plan: RunPlan) -> float:
    """Seconds of one core that all encoders and fits took."""
    encoders = {directory / planned.name for planned in run_plan.pretrainings}
    fits = [read_scores(directory / fit.name)[0] for fit in run_plan.fits]
    return sum(row["seconds"] for row in [*map(read_pretraining, encoders), *fits])


def write_facts(directory: Path, run_plan: RunPlan, command: str, seconds: float) -> None:
    """Command, config, versions, hardware and time of a run, for its report."""
    config = run_plan.config
    write_json(
        directory / "run.json",
        {
            "title": config["title"],
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "is_simulated": run_plan.is_simulated,
            "seconds": round(seconds, 1),
            "versions": {name: version(name) for name in DISTRIBUTIONS},
            "hardware": describe_hardware(),
            "config": config,
            "seeds": list(range(config["num_seeds"])),
            "tasks": [planned.described() for planned in run_plan.tasks],
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


def write_results(directory: Path, run_plan: RunPlan) -> None:
    """Gathers what the fits saved into the tables and pictures of the run."""
    fits = run_plan.fits
    pretrainings = _write_pretrainings(directory, run_plan).set_index(["arm", "seed"])["seconds"]
    scores, windows, curves = [], [], []
    for fit in fits:
        rows = read_scores(directory / fit.name)
        kind = "reference" if fit.arm in run_plan.references else "network"
        keys: dict[str, Any] = {
            "kind": kind,
            "label_fraction": _label_fraction(fit.labels, rows),
        }
        seconds = float(pretrainings.get((fit.arm, fit.seed), 0.0))
        scores += [{**row, **keys, "pretraining_seconds": seconds} for row in rows]
        windows.append(_read_windows(directory, run_plan, fit, rows[0], keys))
        curves.append(
            read_curves(directory / fit.name / CURVES).assign(
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
    curves += _pretraining_curves(directory, run_plan)
    table = tabulate(scores)
    write_csv(directory / "scores.csv", table)
    write_csv(directory / CURVES, pd.concat(curves))
    summary = summarize(table, pd.concat(windows), run_plan.config["baseline"])
    write_csv(directory / "summary.csv", summary)
    _gather_predictions(directory, fits)
    _write_confusions(directory, run_plan)
    _write_movies(directory, run_plan)


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
    with naming_damage(path):
        return pd.read_csv(
            path,
            usecols=columns,
            dtype={name: numbers.get(name, str) for name in columns},
            keep_default_na=False,
            na_values={"value": [""]},
            float_precision="round_trip",
        )


def _read_windows(
    directory: Path,
    run_plan: RunPlan,
    fit: PlannedFit,
    row: dict[str, Any],
    keys: dict[str, Any],
) -> pd.DataFrame:
    """Every test window of a fit, its answers as numbers: what intervals and p values are of."""
    columns = ["recording", "trial", "metric", "value", "truth", "answer"]
    path = directory / fit.name / PREDICTIONS
    found = read_predictions(path, columns)
    planned = run_plan.task(fit.task)
    with naming_damage(path):
        target, predicted = (
            planned.task.answer.numbers(found[name], planned.classes)
            for name in ("truth", "answer")
        )
    named = {name: row[name] for name in ("task", "split", "units", "arm", "labels", "seed")}
    return (
        found.drop(columns=["truth", "answer"])
        .rename(columns={"recording": "recording_id", "trial": "window"})
        .assign(target=target, predicted=predicted, **named, **keys)
    )


def _gather_predictions(directory: Path, fits: Sequence[PlannedFit]) -> None:
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


def _pretraining_curves(directory: Path, run_plan: RunPlan) -> list[pd.DataFrame]:
    return [
        read_curves(directory / planned.name / CURVES).assign(
            stage="pretrain",
            fit=pretrained_name(planned.arm, planned.seed),
            task="pretraining",
            units=planned.units,
            arm=planned.arm,
            labels="",
            label_fraction=np.nan,
            seed=planned.seed,
        )
        for planned in run_plan.pretrainings
    ]


def _write_pretrainings(directory: Path, run_plan: RunPlan) -> pd.DataFrame:
    """Writes what every encoder was pretrained on, and how long it took."""
    columns = ["arm", "seed", "units", "objective", "num_recordings", "num_units", "seconds"]
    rows = [
        {
            "arm": planned.arm,
            "seed": planned.seed,
            "units": planned.units,
            "objective": planned.objective,
            **read_pretraining(directory / planned.name),
        }
        for planned in run_plan.pretrainings
    ]
    table = pd.DataFrame(rows, columns=columns)
    write_csv(directory / "pretrainings.csv", table)
    return table


def _write_confusions(directory: Path, run_plan: RunPlan) -> None:
    """Counts over all seeds and recordings, with the most labels, for label tasks."""
    counts: dict[tuple[str, str, str], pd.DataFrame] = {}
    for fit in run_plan.fits:
        planned = run_plan.task(fit.task)
        if not planned.task.answer.has_budget or fit.labels != run_plan.most_labels(fit.task):
            continue
        names, path = class_names(planned.classes), directory / fit.name / PREDICTIONS
        found = read_predictions(path, ["truth", "answer"])
        target, predicted = (
            pd.Index(names).get_indexer(pd.Index(found[column])) for column in ("truth", "answer")
        )
        with naming_damage(path):  # what is none of the classes
            counted = confusion_matrix(predicted, target, len(names))
        matrix = pd.DataFrame(counted, index=names, columns=names)
        key = (fit.task, fit.units, fit.arm)
        counts[key] = counts[key] + matrix if key in counts else matrix
    for key, table in counts.items():
        path = directory / "confusion" / f"{file_name(*key)}.csv"
        write_csv(path, table.rename_axis("").reset_index())


def _write_movies(directory: Path, run_plan: RunPlan) -> None:
    """A few reconstructed movie frames of every arm: first seed, first recording."""
    for fit in run_plan.fits:
        if not run_plan.task(fit.task).task.answer.needs_pictures or fit.seed != 0:
            continue
        path = directory / fit.name / FRAMES
        with naming_damage(path), np.load(path, allow_pickle=False) as saved:
            shown = dict(saved)
        name = f"{file_name(fit.task, fit.units, fit.arm)}.npz"
        write_arrays(directory / MOVIE / name, shown)


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
