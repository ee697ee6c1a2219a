"""The whole method on one's own recordings, from partition to report."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import torch

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
from poyo_ssl.evaluation.film import Film, pictures_at_hand
from poyo_ssl.file_names import EXPERIMENT, file_name
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.model.checkpoints import load_encoder, save_encoder
from poyo_ssl.output_directory import alone_in, naming_lost_output, require_output
from poyo_ssl.pretraining.pretrain import pretrain
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.report.page import write_report
from poyo_ssl.whole_files import write_csv, write_json
from poyo_ssl.worker_processes import Call, call_in_processes


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
        OutputError: If another process writes to the directory, or it vanishes or fills up.
        ToldToEnd: If a signal tells a worker process to end.
    """
    started = time.perf_counter()
    with collect_warnings("poyo_ssl") as said:
        experiment = plan(recordings, directory, config, pretraining_recordings)
    with alone_in(directory):
        claim(experiment)
        with naming_lost_output(directory / EXPERIMENT):
            seconds_before = seconds_spent(experiment)
            write_recordings(experiment)
            write_warnings(experiment, said)
            _pretrain_all(experiment, on_progress)
            fits = experiment.fits()
            _fit_all(experiment, fits, on_progress)
            write_results(experiment, fits)
            seconds = seconds_before + time.perf_counter() - started
            write_facts(experiment, command, seconds)
            return write_report(directory)


def _make_all(
    experiment: Experiment, calls: list[Call], on_progress: Callable[[int], None]
) -> None:
    """Makes calls of one core each, so that results do not depend on how many run at once."""
    workers = experiment.config.jobs or os.cpu_count() or 1
    with closing(call_in_processes(calls, workers)) as finished:
        for done, _ in enumerate(finished, start=1):
            require_output(experiment.directory / EXPERIMENT)
            on_progress(done)


def _fit_all(
    experiment: Experiment,
    fits: list[PlannedFit],
    on_progress: Callable[[str, int, int], None],
) -> None:
    """Fits and scores every decoder that is not there."""
    missing = [fit for fit in fits if not is_finished(experiment.directory / fit.name)]
    num_found = len(fits) - len(missing)
    _make_all(
        experiment,
        [partial(_fit_and_score, experiment, fit) for fit in missing],
        lambda done: on_progress("decoders", num_found + done, len(fits)),
    )


def _pretrain_all(experiment: Experiment, on_progress: Callable[[str, int, int], None]) -> None:
    """Pretrains every encoder once; tasks, units, labels and arms alike share it."""
    wanted = {
        experiment.pretrained_directory(arm, seed): (arm, seed)
        for arm in experiment.pretrained_arms
        for seed in range(experiment.config.num_seeds)
    }
    missing = [which for path, which in wanted.items() if not (path / "config.json").is_file()]
    num_found = len(wanted) - len(missing)
    _make_all(
        experiment,
        [partial(_pretrain, experiment, arm, seed) for arm, seed in missing],
        lambda done: on_progress("pretraining", num_found + done, len(wanted)),
    )


def _pretrain(experiment: Experiment, arm: str, seed: int) -> None:
    """Pretrains one encoder; stopped or killed, it resumes from its checkpoints."""
    directory = experiment.pretrained_directory(arm, seed)
    checkpoints = directory / "checkpoints"
    torch.set_num_threads(1)
    started = time.perf_counter()
    population = experiment.pretraining_population(arm, seed)
    encoder = pretrain(
        population,
        experiment.pretraining_of(arm, population),
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
    rows, evaluations, films = [], [], {}
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
        shown = pictures_at_hand(recording, task) if pictures is None else pictures
        if shown is not None:
            films[recording.recording_id] = Film.of(evaluation, task, shown)
    decoder.save(directory)
    save_fit(directory, curves, evaluations, rows, pictures, films)
