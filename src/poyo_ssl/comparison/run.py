"""The whole method on one's own recordings, from partition to report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from poyo_ssl.collected_warnings import collect_warnings
from poyo_ssl.comparison.config import RunConfig
from poyo_ssl.comparison.experiment import Experiment, PlannedFit
from poyo_ssl.comparison.fits import fit_and_score, pretrain_encoder
from poyo_ssl.comparison.plan import claim, plan
from poyo_ssl.comparison.run_directory import (
    ENCODER,
    FIT,
    seconds_of_fits,
    seconds_spent,
    write_facts,
    write_recordings,
    write_results,
    write_warnings,
)
from poyo_ssl.comparison.run_neurons import write_neurons
from poyo_ssl.comparison.run_plan import RunPlan
from poyo_ssl.comparison.shared_work import Claim, Part, Piece, Workers
from poyo_ssl.comparison.sweep import TABLE, Sweep
from poyo_ssl.file_names import EXPERIMENT
from poyo_ssl.output_directory import alone_in, naming_lost_output
from poyo_ssl.ray_tasks import on_ray
from poyo_ssl.recordings.recording import Recording, as_recordings
from poyo_ssl.worker_processes import Caller, call_in_processes


def run(
    recordings: Sequence[Recording],
    directory: str | Path,
    config: RunConfig,
    *,
    pretraining_recordings: Sequence[Recording] = (),
    address: str | None = None,
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
        address: A Ray cluster whose machines pretrain and fit, such as ``auto`` or
            ``ray://head:10001``; all must see the directory under the same path. None: processes
            of this machine.
        command: The command line, for the record.
        on_progress: Called with a stage's name, fits done and fits in all after each fit.

    Returns:
        Path of the report.

    Raises:
        RecordingError: If the recordings cannot answer the tasks, or encoders have nothing to be
            pretrained on.
        OutputError: If another process writes to the directory, it vanishes or fills up, or a
            machine of the cluster does not see it.
        ConnectionError: If no cluster answers at the address, or it is gone.
        ChildProcessError: If a fit has cost too many workers of the cluster.
        ToldToEnd: If a signal tells a worker process to end.
    """
    started = time.perf_counter()
    if address is not None:
        directory = Path(directory).absolute()  # workers of the cluster are elsewhere
    experiment, said = _plan(recordings, directory, config, pretraining_recordings)
    directory = experiment.directory
    with alone_in(directory):
        run_plan = _prepare(experiment, said)
        with naming_lost_output(directory / EXPERIMENT):
            seconds_before = seconds_spent(directory)
            stages = _pieces(experiment, run_plan)
            with _caller(address, experiment) as call:
                _workers(experiment, on_progress, call=call).do(stages)
            _write_tables(experiment, run_plan)
            seconds = seconds_before + time.perf_counter() - started
            write_facts(directory, run_plan, command, seconds)
            from poyo_ssl.report.page import write_report  # plotly is large, and only for this

            return write_report(directory)


def run_sweep(
    recordings: Sequence[Recording],
    directory: str | Path,
    sweep: Sweep,
    *,
    pretraining_recordings: Sequence[Recording] = (),
    address: str | None = None,
    command: str = "",
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Path:
    """Runs every combination of a sweep, each in a directory of its own, and one table of all.

    The fits of all runs wait in one list, so that no core is idle between runs. As in ``run``, what
    was fitted is not fitted again; values can be added to a sweep later.

    Args:
        recordings: As for ``run``, and so are the other arguments.
        directory: Where the runs and ``sweep.csv`` go.
        sweep: Options, and the values that each takes.
        pretraining_recordings: Other recordings to pretrain encoders on.
        address: A Ray cluster whose machines pretrain and fit.
        command: The command line, for the record.
        on_progress: Called with a stage's name, fits done and fits in all after each fit.

    Returns:
        Path of the table: the summary of every run, and the options that it was made with.

    Raises:
        ValueError: If a combination is none of a run.
        RecordingError: If the recordings cannot answer the tasks of one of the runs.
        OutputError: For the reasons that ``run`` has, as are other errors.
    """
    from poyo_ssl.report.page import write_report  # plotly is large, and only for this

    if address is not None:
        directory = Path(directory).absolute()
    planned = [
        _plan(recordings, place, config, pretraining_recordings)
        for place, config in sweep.runs(Path(directory)).items()
    ]
    with ExitStack() as alone:
        for experiment, _ in planned:
            alone.enter_context(alone_in(experiment.directory))
        run_plans = {experiment: _prepare(experiment, said) for experiment, said in planned}
        first = planned[0][0]
        with naming_lost_output(first.directory / EXPERIMENT):
            stages: dict[str, list[Piece]] = {}
            for experiment, run_plan in run_plans.items():
                for stage, pieces in _pieces(experiment, run_plan).items():
                    stages.setdefault(stage, []).extend(pieces)
            with _caller(address, first) as call:
                _workers(first, on_progress, call=call).do(stages)
            for experiment, run_plan in run_plans.items():
                _write_tables(experiment, run_plan)
                seconds = seconds_of_fits(experiment.directory, run_plan)
                write_facts(experiment.directory, run_plan, command, seconds)
                write_report(experiment.directory)
            sweep.write_table(Path(directory))
    return Path(directory) / TABLE


def run_part(
    recordings: Sequence[Recording],
    directory: str | Path,
    config: RunConfig,
    part: Part,
    *,
    pretraining_recordings: Sequence[Recording] = (),
    pretrain_only: bool = False,
    on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> None:
    """Does what is left of a run and not done by others, beside any number of other parts.

    The parts share a directory, on one machine or on storage that several machines see. Each fit
    is made by one of them: its own share first, then what is left of the others'. Fits that a
    killed part had begun are taken over, by those that still run or by ``run``, which also makes
    the tables and the report.

    Args:
        recordings: As for ``run``, and so are the other arguments.
        directory: Where all parts write.
        config: Every option.
        part: Which one of how many.
        pretraining_recordings: Other recordings to pretrain encoders on.
        pretrain_only: End when encoders are pretrained.
        on_progress: Called with a stage's name, fits done and fits in all after each fit.

    Raises:
        RecordingError: If the recordings cannot answer the tasks, or encoders have nothing to be
            pretrained on.
        OutputError: If the directory vanishes or fills up.
        ToldToEnd: If a signal tells a worker process to end.
    """
    experiment, said = _plan(recordings, directory, config, pretraining_recordings)
    run_plan = _prepare(experiment, said, is_shared=True)
    with naming_lost_output(experiment.directory / EXPERIMENT):
        stages = _pieces(experiment, run_plan)
        pieces = {name: part.order(found) for name, found in stages.items()}
        if pretrain_only:
            del pieces["decoders"]
        _workers(experiment, on_progress, is_patient=False).do(pieces)


def prepare_run(
    recordings: Sequence[Recording],
    directory: str | Path,
    config: RunConfig,
    *,
    pretraining_recordings: Sequence[Recording] = (),
) -> RunPlan:
    """Checks and writes down what a run is going to do, and does nothing of it.

    Args:
        recordings: As for ``run``, and so are the other arguments.
        directory: Where the run is going to write.
        config: Every option.
        pretraining_recordings: Other recordings to pretrain encoders on.

    Raises:
        RecordingError: If the recordings cannot answer the tasks, or encoders have nothing to be
            pretrained on.
    """
    experiment, said = _plan(recordings, directory, config, pretraining_recordings)
    return _prepare(experiment, said, is_shared=True)


def _plan(
    recordings: Sequence[Recording],
    directory: str | Path,
    config: RunConfig,
    earlier: Sequence[Recording],
) -> tuple[Experiment, list[str]]:
    """The experiment, and what was warned of when it was planned."""
    with collect_warnings("poyo_ssl") as said:
        experiment = plan(
            as_recordings(recordings), Path(directory), config, as_recordings(earlier)
        )
    return experiment, list(said)


def _prepare(experiment: Experiment, said: list[str], *, is_shared: bool = False) -> RunPlan:
    """Writes what is planned and what was recorded; of those that share a run, the first does."""
    directory, run_plan = experiment.directory, RunPlan.of(experiment)
    with Claim(directory).awaited():
        claim(experiment)
        if is_shared and run_plan.is_saved_in(directory):
            return run_plan
        with naming_lost_output(directory / EXPERIMENT):
            write_recordings(experiment)
            write_warnings(experiment, said)
            run_plan.save(directory)
    return run_plan


def _write_tables(experiment: Experiment, run_plan: RunPlan) -> None:
    write_results(experiment.directory, run_plan)
    write_neurons(experiment, run_plan)


def _workers(
    experiment: Experiment,
    on_progress: Callable[[str, int, int], None],
    *,
    is_patient: bool = True,
    call: Caller = call_in_processes,
) -> Workers:
    return Workers(
        marker=experiment.directory / EXPERIMENT,
        call=call,
        jobs=experiment.config.jobs,
        is_patient=is_patient,
        on_progress=on_progress,
    )


@contextmanager
def _caller(address: str | None, experiment: Experiment) -> Iterator[Caller]:
    """What does pieces of work: processes of this machine, or a Ray cluster."""
    if address is None:
        yield call_in_processes
        return
    with on_ray(address, experiment.directory / EXPERIMENT) as call:
        yield call


def _pieces(experiment: Experiment, run_plan: RunPlan) -> dict[str, list[Piece]]:
    """Every encoder once, which tasks, units, labels and arms share, and every decoder."""
    encoders = {planned.name: planned for planned in run_plan.pretrainings}
    return {
        "pretraining": [
            Piece(
                directory=experiment.directory / name,
                results=ENCODER,
                make=partial(pretrain_encoder, experiment, planned.arm, planned.seed),
            )
            for name, planned in encoders.items()
        ],
        "decoders": [
            Piece(
                directory=experiment.directory / fit.name,
                results=FIT,
                make=partial(fit_and_score, experiment, fit),
                needed=_needed(experiment, fit),
            )
            for fit in run_plan.fits
        ],
    }


def _needed(experiment: Experiment, fit: PlannedFit) -> tuple[Path, ...]:
    """The encoder that a fit begins with, if it does."""
    if fit.arm not in experiment.config.pretrainings:
        return ()
    directory = experiment.pretrained_directory(fit.arm, fit.seed)
    return tuple(directory / name for name in ENCODER)
