"""What is looked for before any long work starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import numpy as np

from poyo_ssl.alignment.placement import ORDERED_COLUMNS
from poyo_ssl.comparison.config import RunConfig
from poyo_ssl.comparison.experiment import Experiment
from poyo_ssl.finetuning.finetune import Start, transfer_encoder
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.training.transfer import TransferError
from poyo_ssl.windows.divide import DividedRecording
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import Task, find_task


def find_problems(experiment: Experiment) -> list[str]:
    """Whatever would make some fit of a run impossible or meaningless, in sentences."""
    found = [
        *_problems_of_answers(experiment),
        *_problems_of_windows(experiment),
        *_problems_of_pretraining(experiment),
        *_problems_of_tuning(experiment),
        *_problems_of_alignment(experiment),
        *_problems_of_teachers(experiment),
    ]
    return list(dict.fromkeys(found))


def _problems_of_answers(experiment: Experiment) -> Iterator[str]:
    """Tasks of which only one label occurs."""
    for task in experiment.tasks:
        try:
            experiment.divided.require_choice(task)
        except RecordingError as error:
            yield str(error)


def _problems_of_windows(experiment: Experiment) -> Iterator[str]:
    """Parts without a window, and classes without the labels that a budget asks for."""
    for units in experiment.config.units:
        population = experiment.population(units)
        for task in experiment.tasks:
            for part in ("train", "test"):
                parts = [d.splits[task.name].part(part) for d in population.divided.answering(task)]
                if not any(map(len, parts)):
                    yield (
                        f"No recording has a {part} part for the task '{task.name}' with units of "
                        f"the group {units}. Name recordings in splits.train and splits.test that "
                        "share units, or leave that to be divided."
                    )
            for d in population.divided.answering(task):
                yield from _problems_of_parts(experiment.config, population, d, task)


def _problems_of_parts(
    config: RunConfig, population: Population, divided: DividedRecording, task: Task
) -> Iterator[str]:
    length = config.encoder.window_timesteps(task.length, population.sampling_rate)
    name = divided.recording.recording_id
    windows = {
        part: population.divided.windows(divided, task, part, length) for part in ("train", "test")
    }
    for part, found in windows.items():
        if len(found) == 0 and len(divided.splits[task.name].part(part)):
            yield (
                f"Recording '{name}' has no {part} window for the task '{task.name}': its windows "
                f"of {task.length} s do not fit into that part. Give it more trials, "
                "give the task a shorter window_length, or leave it out."
            )
    wanted = max(labels.per_class or 0 for labels in config.budgets(task))
    if not task.answer.has_budget or not len(windows["train"]):
        return
    counts = np.bincount(windows["train"].target, minlength=len(population.divided.classes(task)))
    if wanted and wanted > counts.min():
        yield (
            f"Recording '{name}' has {counts.min()} to {counts.max()} training windows per class "
            f"of the task '{task.name}', but labels_per_class asks for {wanted}. Ask for at most "
            f"{counts.min()}."
        )


def _problems_of_pretraining(experiment: Experiment) -> Iterator[str]:
    """Diets that take no unit, labels to pretrain on that no recording has, unfit encoders."""
    for arm in experiment.pretrained_arms:
        if experiment.config.pretrainings[arm].encoder:
            yield from _problems_of_given_encoder(experiment, arm)
            continue
        try:
            population = experiment.pretraining_population(arm, seed=0)
            pretraining = experiment.pretraining_of(arm, population)
        except RecordingError as error:
            yield f"Arm '{arm}': {error}"
            continue
        task = find_task(pretraining.label_task)
        if pretraining.label_weight > 0 and not population.divided.answering(task):
            yield (
                f"Arm '{arm}': its encoder learns from labels of the task '{task.name}', which no "
                "recording that it is pretrained on was divided for. Add the task to tasks, or "
                "set label_weight: 0."
            )
        encoder = Encoder(experiment.config.encoder, population.sampling_rate)
        if pretraining.alignment is not None:
            try:
                encoder.placement = pretraining.alignment.fit(population, asked=[])
                encoder.place_units(encoder.placement.place(population))
            except ValueError as error:
                yield f"Arm '{arm}': {error}"
                continue
        encoder.add_units(population.unit_ids)
        yield from _problems_of_transfer(experiment, arm, encoder)


def _problems_of_given_encoder(experiment: Experiment, arm: str) -> Iterator[str]:
    """One that is not there, or reads other windows than the arms beside it."""
    source = experiment.config.pretrainings[arm].encoder
    try:
        encoder = experiment.given_encoder(arm)
    except (OSError, ValueError) as error:
        yield f"Arm '{arm}': {error}"
        return
    found, wanted = encoder.config, experiment.config.encoder
    if found != wanted:
        differing = [
            f"{field.name}: {getattr(found, field.name)}"
            for field in fields(found)
            if getattr(found, field.name) != getattr(wanted, field.name)
        ]
        yield (
            f"Arm '{arm}': the encoder '{source}' is of another size or kind than the run's, "
            f"beside which it is compared. Set, under encoder, {', '.join(differing)}."
        )
        return
    yield from _problems_of_transfer(experiment, arm, encoder)


def _problems_of_transfer(experiment: Experiment, arm: str, encoder: Encoder) -> Iterator[str]:
    """Ways to transfer that need units which the encoder will not know, and other rates.

    An encoder that places units places those decoded; not by what is tested.
    """
    start = Start(encoder=encoder)
    for task in experiment.tasks:
        for units in experiment.config.units:
            config = experiment.config.finetuning_of(arm, task)
            decoded = experiment.population(units)
            try:
                known = start
                if encoder.placement is not None:
                    known = start.placing(encoder.placement.place_unscored(decoded, task))
                transfer_encoder(known, decoded, config, seed=0)
            except (TransferError, RecordingError) as error:
                yield f"Arm '{arm}': {error}"


def _problems_of_teachers(experiment: Experiment) -> Iterator[str]:
    """Encoders that would be pretrained in vain, as their teachers can answer none of the tasks."""
    kinds = dict.fromkeys(task.kind for task in experiment.tasks)
    for name in experiment.pretrained_arms:
        arm = experiment.config.all_arms[name]
        if not set(kinds) & set(arm.kinds):
            yield (
                f"Arm '{name}': its teacher '{experiment.config.pretrainings[name].teacher}' "
                f"answers {' and '.join(arm.kinds)}, but the tasks ask for {' and '.join(kinds)}. "
                "Choose another teacher or none, or leave the arm out."
            )


def _problems_of_tuning(experiment: Experiment) -> Iterator[str]:
    """Networks that learn from an earlier day where there is none of the same cells."""
    arms = experiment.config.all_arms
    needing = [name for name in experiment.config.arms if arms[name].needs_tuning]
    can_fit = any(
        experiment.has_tuning(task, units)
        for task in experiment.tasks
        for units in experiment.config.units
    )
    if needing and not can_fit:
        yield (
            f"The arms {needing} learn how cells are tuned from gratings of an earlier day, but no "
            f"task asks for an angle, or none of {len(experiment.earlier)} recordings to pretrain "
            "on shows gratings to the decoded cells. Give such a recording to pretrain on, or "
            "leave the arms out."
        )


def _problems_of_alignment(experiment: Experiment) -> Iterator[str]:
    """Networks that learn from other animals where none of them can be aligned."""
    arms = experiment.config.all_arms
    needing = [name for name in experiment.config.arms if arms[name].needs_alignment]
    if needing and not any(map(experiment.has_alignment, experiment.tasks)):
        asked = ", ".join(task.name for task in experiment.tasks)
        yield (
            f"The arms {needing} learn from other animals that saw what the decoded ones saw, but "
            f"fewer than two of {len(experiment.earlier)} recordings to pretrain on have labels of "
            f"a task ({asked}) and show a stimulus with a column "
            f"{' or '.join(ORDERED_COLUMNS)} that the decoded recordings show, too. Give such "
            "recordings to pretrain on, or leave the arms out."
        )
