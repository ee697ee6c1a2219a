"""The pieces of a run: an encoder that is pretrained, a decoder that is fitted and scored."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch

from poyo_ssl.comparison.experiment import Experiment, PlannedFit
from poyo_ssl.comparison.run_directory import CURVES, save_fit
from poyo_ssl.decoders.fitted_decoder import Origin
from poyo_ssl.evaluation.evaluate import describe_evaluation, evaluate_recording
from poyo_ssl.evaluation.film import Film, pictures_at_hand
from poyo_ssl.file_names import file_name
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.model.checkpoints import load_encoder, save_encoder
from poyo_ssl.model.fit import NO_CURVES
from poyo_ssl.pretraining.pretrain import pretrain
from poyo_ssl.result_files import PRETRAINING_FACTS
from poyo_ssl.whole_files import write_csv, write_json


def pretrain_encoder(experiment: Experiment, arm: str, seed: int) -> None:
    """Pretrains one encoder; stopped or killed, it resumes from its checkpoints."""
    directory = experiment.pretrained_directory(arm, seed)
    checkpoints = directory / "checkpoints"
    torch.set_num_threads(1)
    if experiment.config.pretrainings[arm].encoder:
        _take_given_encoder(experiment.given_directory(arm), directory)
        return
    started = time.perf_counter()
    population = experiment.pretraining_population(arm, seed)
    encoder = pretrain(
        population,
        experiment.pretraining_of(arm, population),
        encoder=experiment.config.encoder,
        seed=seed,
        checkpoint_directory=checkpoints,
        log_directory=experiment.directory / "logs" / file_name(arm) / f"seed-{seed}",
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


def _take_given_encoder(kept: Path, directory: Path) -> None:
    """Copies the encoder that the run keeps of elsewhere to where its own are."""
    encoder = load_encoder(kept)
    learned = encoder.provenance
    write_csv(directory / CURVES, NO_CURVES)
    facts = {
        "seconds": 0.0,
        "num_recordings": len(learned.recordings) if learned else 0,
        "num_units": len(encoder.unit_embedding.vocab) - 1,
    }
    write_json(directory / PRETRAINING_FACTS, facts)
    save_encoder(encoder, directory)


def fit_and_score(experiment: Experiment, fit: PlannedFit) -> None:
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
    decoder = experiment.config.all_arms[fit.arm].fit(setting)
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
    curves = NO_CURVES if decoder.fit is None else decoder.fit.curves
    save_fit(directory, curves, evaluations, rows, pictures, films)
