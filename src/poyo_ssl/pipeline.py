"""The whole method on one's own recordings, from partition to report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed

from poyo_ssl.arms import ARMS, Setting
from poyo_ssl.evaluation import evaluate
from poyo_ssl.experiment import Experiment, Fit, RunConfig, claim, plan
from poyo_ssl.model.checkpoints import load_encoder, save_encoder, write_json
from poyo_ssl.pretraining import pretrain
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.tasks import find_task
from poyo_ssl.report import write_report
from poyo_ssl.run_files import (
    save_predictions,
    seconds_spent,
    write_facts,
    write_recordings,
    write_results,
)


def run(
    recordings: list[Recording],
    directory: Path,
    config: RunConfig,
    *,
    command: str = "",
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
        on_progress: Called with a stage's name, fits done and fits in all after each fit.

    Returns:
        Path of the report.

    Raises:
        RecordingError: If the recordings cannot answer the tasks.
    """
    started = time.perf_counter()
    experiment = plan(recordings, directory, config)
    claim(experiment)
    seconds_before = seconds_spent(experiment)
    write_recordings(experiment)
    _pretrain_all(experiment, on_progress)
    fits = experiment.fits()
    missing = [fit for fit in fits if not (directory / fit.name / "scores.json").is_file()]
    jobs = [delayed(_fit_and_score)(experiment, fit) for fit in missing]
    num_found = len(fits) - len(missing)
    for done, _ in enumerate(_in_parallel(jobs, config.jobs), start=num_found + 1):
        on_progress("decoders", done, len(fits))
    write_results(experiment, fits)
    seconds = seconds_before + time.perf_counter() - started
    write_facts(experiment, command, seconds)
    return write_report(directory)


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
    num_seeds = experiment.config.num_seeds
    missing = [
        seed
        for seed in range(num_seeds)
        if not (experiment.pretrained_directory(seed) / "config.json").is_file()
    ]
    jobs = [delayed(_pretrain)(experiment, seed) for seed in missing]
    num_found = num_seeds - len(missing)
    for done, _ in enumerate(_in_parallel(jobs, experiment.config.jobs), start=num_found + 1):
        on_progress("pretraining", done, num_seeds)


def _pretrain(experiment: Experiment, seed: int) -> None:
    directory = experiment.pretrained_directory(seed)
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
    """Fits one decoder, scores it on every test window, and saves both."""
    directory = experiment.directory / fit.name
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
        labels=fit.label_fraction,
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
        save_predictions(directory / f"{recording.recording_id}.npz", task, evaluation, pictures)
    curves.to_csv(directory / "curves.csv", index=False)
    decoder.save(directory)
    write_json(directory / "scores.json", scores)
