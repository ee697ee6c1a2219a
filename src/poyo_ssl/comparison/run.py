"""The whole method on one's own recordings, from partition to report."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed

from poyo_ssl.collected_warnings import collect_warnings
from poyo_ssl.comparison.config import RunConfig
from poyo_ssl.comparison.plan import Experiment, PlannedFit, claim, plan
from poyo_ssl.comparison.run_directory import (
    CURVES,
    PRETRAINING_FACTS,
    is_finished,
    save_fit,
    seconds_spent,
    write_facts,
    write_recordings,
    write_results,
    write_warnings,
)
from poyo_ssl.decoders.fitted_decoder import Origin
from poyo_ssl.evaluation.evaluate import describe_evaluation, evaluate_recording
from poyo_ssl.file_names import file_name
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.model.checkpoints import load_encoder, save_encoder
from poyo_ssl.pretraining.pretrain import pretrain
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.report.page import write_report
from poyo_ssl.whole_files import write_csv, write_json


def run(
    recordings: list[Recording],
    directory: Path,
    config: RunConfig,
    *,
    pretraining_recordings: Sequence[Recording] = (),
    command: str = "",
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Path:
    """Runs the whole method: partition, pretrain, fine-tune, evaluate, report.

    Units are partitioned within the training part; encoders are pretrained on the units that the
    config names; every arm is fitted on the same windows of the same units and scored on the same
    test windows, beside reference decoders. What was already fitted with the same recordings and
    config is not fitted again, so an interrupted run resumes where it stopped.

    Args:
        recordings: At least one, all of one sampling rate; decoders are fitted to them.
        directory: Where results, checkpoints and ``report.html`` go.
        config: Every option.
        pretraining_recordings: Other recordings; encoders are pretrained on their training parts
            instead.
        command: The command line, for the record.
        on_progress: Called with a stage's name, fits done and fits in all after each fit.

    Returns:
        Path of the report.

    Raises:
        RecordingError: If the recordings cannot answer the tasks, or encoders have nothing to be
            pretrained on.
    """
    started = time.perf_counter()
    with collect_warnings("poyo_ssl") as said:
        experiment = plan(recordings, directory, config, pretraining_recordings)
    claim(experiment)
    seconds_before = seconds_spent(experiment)
    write_recordings(experiment)
    write_warnings(experiment, said)
    _pretrain_all(experiment, on_progress)
    fits = experiment.fits()
    missing = [fit for fit in fits if not is_finished(directory / fit.name)]
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
    """Pretrains every encoder once; tasks, units, labels and arms alike share it."""
    wanted = {
        experiment.pretrained_directory(arm, seed): (arm, seed)
        for arm in experiment.pretrained_arms
        for seed in range(experiment.config.num_seeds)
    }
    missing = [which for path, which in wanted.items() if not (path / "config.json").is_file()]
    jobs = [delayed(_pretrain)(experiment, arm, seed) for arm, seed in missing]
    num_found = len(wanted) - len(missing)
    for done, _ in enumerate(_in_parallel(jobs, experiment.config.jobs), start=num_found + 1):
        on_progress("pretraining", done, len(wanted))


def _pretrain(experiment: Experiment, arm: str, seed: int) -> None:
    """Pretrains one encoder; stopped or killed, it resumes from its checkpoints."""
    directory = experiment.pretrained_directory(arm, seed)
    checkpoints = directory / "checkpoints"
    torch.set_num_threads(1)
    started = time.perf_counter()
    population = experiment.pretraining_population(arm, seed)
    encoder = pretrain(
        population,
        experiment.config.pretraining_of(arm),
        encoder=experiment.config.encoder,
        seed=seed,
        checkpoint_directory=checkpoints,
        log_directory=experiment.directory / "tensorboard" / file_name(arm) / f"seed-{seed}",
    )
    assert encoder.fit is not None
    write_csv(directory / CURVES, encoder.fit.curves)
    facts = {
        "seconds": round(time.perf_counter() - started, 2),
        "num_recordings": len(population.divided),
        "num_units": len(population.unit_ids),
    }
    write_json(directory / PRETRAINING_FACTS, facts)
    save_encoder(encoder, directory)
    if checkpoints.is_dir():  # what is found in closed form has none
        shutil.rmtree(checkpoints)


def _fit_and_score(experiment: Experiment, fit: PlannedFit) -> None:
    """Fits one decoder, scores it on every test window, and saves both."""
    directory = experiment.directory / fit.name
    torch.set_num_threads(1)
    started = time.perf_counter()
    task = experiment.divided.task(fit.task)
    population = experiment.population(fit.units)
    setting = Setting(
        population=population,
        task=task,
        encoder=experiment.config.encoder,
        config=experiment.config.finetuning_of(fit.arm, task),
        seed=fit.seed,
        labels=fit.labels,
        pretrained=lambda: load_encoder(experiment.pretrained_directory(fit.arm, fit.seed)),
        earlier=experiment.earlier,
    )
    decoder, curves = experiment.config.all_arms[fit.arm].fit(setting)
    seconds = time.perf_counter() - started
    pictures = population.divided.pictures(task).numpy() if task.answer.needs_pictures else None
    decoder.origin = Origin.of(fit.units, fit.labels, fit.seed, experiment.config.splits)
    rows, evaluations = [], []
    for divided in population.divided.answering(task):
        if not len(divided.splits[task.name].test):
            continue  # it trains or validates as a whole
        recording, splits = divided.recording, divided.splits[task.name]
        evaluation = evaluate_recording(decoder, recording, splits, pictures=pictures)
        labelled = population.divided.windows(divided, task, "train", setting.num_timesteps)
        rows.append(
            {
                **describe_evaluation(decoder, recording, splits, evaluation),
                "num_labelled": len(labelled),
                "num_train": len(setting.training_windows(divided)),
                "seconds": round(seconds, 2),
            }
        )
        evaluations.append(evaluation)
    decoder.save(directory)
    save_fit(directory, curves, evaluations, rows, pictures)
