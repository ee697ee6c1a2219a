"""The stages from files to files, one function for each command that is not a whole run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import pandas as pd

from poyo_ssl.adaptation.adapt import Adaptation, AdaptationConfig, adapt
from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.evaluation.evaluate import score_test_parts
from poyo_ssl.evaluation.saved_runs import describe_splits
from poyo_ssl.file_names import EXPERIMENT, PREDICTIONS, SPLITS
from poyo_ssl.finetuning.config import DecodingConfig
from poyo_ssl.finetuning.finetune import finetune
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.finetuning.teachers import label_teacher
from poyo_ssl.model.checkpoints import save_encoder
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.output_directory import alone_in
from poyo_ssl.predictability.activity_statistics import ActivityConfig
from poyo_ssl.predictability.figure import plot_predictability, plot_sensitivity
from poyo_ssl.predictability.partition import Partition, partition_by_predictability
from poyo_ssl.predictability.screening import Screening, screen
from poyo_ssl.predictability.sensitivity import vary_thresholds
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.pretrain import pretrain
from poyo_ssl.recordings.loading import load_recordings
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.training.data_parallel import is_first_process
from poyo_ssl.whole_files import write_csv, write_json
from poyo_ssl.windows.divide import Divided, divide
from poyo_ssl.windows.label_budget import LabelBudget
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import find_task, stimulus_tasks

logger = logging.getLogger(__name__)

Options = ParamSpec("Options")
Result = TypeVar("Result")


def _alone(
    stage: Callable[Concatenate[list[Path], Path, Options], Result],
) -> Callable[Concatenate[list[Path], Path, Options], Result]:
    """Keeps other calls from writing to a stage's output; processes of one fit share it."""

    @wraps(stage)
    def write(
        files: list[Path], output: Path, /, *args: Options.args, **options: Options.kwargs
    ) -> Result:
        with alone_in(output) if is_first_process() else nullcontext():
            return stage(files, output, *args, **options)

    return write


_DEFAULT_SOURCE = SourceConfig()


@dataclass(frozen=True, kw_only=True)
class PredictabilityStage:
    """Options of ``poyo-ssl predictability``."""

    predictability: PredictabilityConfig = field(default_factory=PredictabilityConfig)
    """Thresholds and where they come from."""
    splits: SplitConfig = field(default_factory=SplitConfig)
    """Valid and test parts of every stimulus, which the statistics do not see."""


@dataclass(frozen=True, kw_only=True)
class PretrainStage:
    """Options of ``poyo-ssl pretrain``."""

    predictability: PredictabilityConfig = field(default_factory=PredictabilityConfig)
    """Which units count as predictable."""
    splits: SplitConfig = field(default_factory=SplitConfig)
    """Valid and test parts of every stimulus, which pretraining does not see."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Size of the encoder."""
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)
    """Objective and training."""
    seed: int = 0
    """Seed of weights, masks and batches."""


@dataclass(frozen=True, kw_only=True)
class OneTask:
    """What the stages that fit one decoder are asked."""

    task: str = "direction"
    """Task to decode: a name, such as direction or movie_frame, or any column of any table as
    stimulus/column, with options after commas."""


@dataclass(frozen=True, kw_only=True)
class AdaptStage(AdaptationConfig, OneTask):
    """Options of ``poyo-ssl adapt``."""


@dataclass(frozen=True, kw_only=True)
class FinetuneStage(DecodingConfig, OneTask):
    """Options of ``poyo-ssl finetune``."""

    labels: LabelBudget = field(default_factory=LabelBudget)
    """Labelled training windows to learn from."""
    with_teacher: bool = False
    """Label tasks: learn from a closed-form ridge teacher on unlabelled windows too."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Size of the encoder where none is given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        task = find_task(self.task)
        if self.with_teacher and not task.answer.has_budget:
            raise ValueError(f"with_teacher needs a label task; {self.task} asks for {task.kind}.")

    @property
    def budget(self) -> LabelBudget:
        """``labels``."""
        return self.labels


def measure_predictability(
    files: list[Path],
    output: Path,
    options: PredictabilityStage,
    *,
    figure: Path | None = None,
    sensitivity_figure: Path | None = None,
    with_statistics: bool = False,
    source: SourceConfig = _DEFAULT_SOURCE,
    jobs: int = 1,
    address: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Partition:
    """Writes skewness, kurtosis and the verdict of every unit as CSV, one row per unit.

    Only time that no default split of any stimulus withholds is used. The measured units are
    written before thresholds are looked for, so they are there even where no knee is found.

    Args:
        files: Recordings; see ``find_recording_files``. One is in memory at a time and worker.
        output: CSV.
        options: Thresholds and splits.
        figure: Where to draw kurtosis against skewness.
        sensitivity_figure: Where to draw who changes side when the thresholds move.
        with_statistics: Measure event rate, Fano factor, autocorrelation and noise level, too.
        source: What the files do not say about themselves.
        jobs: Recordings measured at a time; see ``map_in_parallel``.
        address: A Ray cluster to run on.
        on_progress: Called with the recordings done and those in all.

    Raises:
        ValueError: If no recording can be read or no unit is predictable.
    """
    screening = screen(
        files,
        splits=options.splits,
        predictability=options.predictability,
        source=source,
        activity=ActivityConfig() if with_statistics else None,
        jobs=jobs,
        address=address,
        on_progress=on_progress,
    )
    _write_units(screening, screening.units, output)
    partition = screening.partition
    _write_units(screening, partition.units, output)
    for path, plot in (
        (figure, lambda path: plot_predictability(partition, path)),
        (sensitivity_figure, lambda path: plot_sensitivity(vary_thresholds(partition), path)),
    ):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            plot(path)
    return partition


def _write_units(screening: Screening, units: pd.DataFrame, output: Path) -> None:
    """The units and, where measured, their other statistics."""
    if screening.activity is not None:
        units = units.merge(
            screening.activity, on=["recording_id", "unit_id"], validate="one_to_one"
        )
    write_csv(output, units)


@_alone
def pretrain_encoder(
    files: list[Path],
    output: Path,
    options: PretrainStage,
    *,
    source: SourceConfig = _DEFAULT_SOURCE,
) -> None:
    """Pretrains an encoder on the predictable units of the recordings and saves it.

    Stopped or killed, the same call resumes from ``output/checkpoints``.
    """
    recordings = load_recordings(files, source)
    divided = divide(recordings, stimulus_tasks(recordings), options.splits)
    units = partition_by_predictability(divided, options.predictability)
    encoder = pretrain(
        units.population(divided, "predictable"),
        options.pretraining,
        encoder=options.encoder,
        seed=options.seed,
        checkpoint_directory=output / "checkpoints",
        log_directory=output / "logs",
        show_progress=True,
    )
    if not is_first_process():
        return
    assert encoder.fit is not None
    write_csv(output / "curves.csv", encoder.fit.curves)
    save_encoder(encoder, output)


@_alone
def finetune_decoder(
    files: list[Path],
    output: Path,
    options: FinetuneStage,
    encoder: str | Path | None = None,
    *,
    source: SourceConfig = _DEFAULT_SOURCE,
) -> list[dict[str, Any]]:
    """Fits a decoder, saves it, and scores it on the test part of every recording.

    Every answer there goes to ``predictions.csv``.

    Stopped or killed, the same call resumes from ``output/checkpoints``. Where there
    are several processes, only the first saves and scores; the others return no scores.
    """
    divided = divide(load_recordings(files, source), options.task, options.splits)
    task = divided.task(options.task)
    partition = partition_by_predictability(
        divided, options.predictability, may_be_empty=options.units != "predictable"
    )
    population = partition.population(divided, options.units)
    pretrained = Encoder.from_pretrained(encoder) if encoder is not None else None
    setting = Setting(
        population=population,
        task=task,
        encoder=pretrained.config if pretrained else options.encoder,
        config=options.finetuning,
        seed=options.seed,
        labels=options.budget,
    )
    decoder = finetune(
        population,
        task,
        pretrained or options.encoder,
        options.finetuning,
        arm=("pretrained" if pretrained else "scratch") + " + teacher" * options.with_teacher,
        seed=options.seed,
        labels=options.budget,
        teacher=label_teacher(setting) if options.with_teacher else None,
        checkpoint_directory=output / "checkpoints",
        log_directory=output / "logs",
        show_progress=True,
    )
    if not is_first_process():
        return []
    assert decoder.fit is not None
    write_csv(output / "curves.csv", decoder.fit.curves)
    decoder.origin = options.origin
    _save(decoder, divided, output)
    scores, predictions = score_test_parts(decoder, population.divided)
    write_csv(output / PREDICTIONS, predictions)
    return scores


@_alone
def adapt_decoder(
    files: list[Path],
    output: Path,
    options: AdaptStage,
    pretrained: str | Path,
    *,
    source: SourceConfig = _DEFAULT_SOURCE,
) -> Adaptation:
    """Brings a pretrained encoder to recordings, and saves the decoder and what it took.

    Stopped or killed, the same call resumes from ``output/checkpoints``. Where there
    are several processes, only the first saves.

    Args:
        files: Recordings; see ``find_recording_files``.
        output: Directory of the decoder.
        options: Task, units, way to transfer and training.
        pretrained: What ``Encoder.from_pretrained`` takes: the directory that ``poyo-ssl pretrain``
            wrote, a name, or a repository of the Hub.
        source: What the files do not say about themselves.
    """
    encoder = Encoder.from_pretrained(pretrained)
    decoder, adaptation = adapt(
        encoder,
        load_recordings(files, source),
        options.task,
        options,
        checkpoint_directory=output / "checkpoints",
        log_directory=output / "logs",
        show_progress=True,
    )
    if is_first_process():
        for fit, curves in adaptation.curves.items():
            write_csv(output / f"{fit}_curves.csv", curves)
        _save(decoder, adaptation.divided, output)
        write_csv(output / PREDICTIONS, adaptation.predictions)
        write_json(output / "adaptation.json", adaptation.facts)
    return adaptation


def _save(decoder: FittedDecoder, divided: Divided, output: Path) -> None:
    """Saves a decoder and what it learned from, without which it could not be scored again."""
    decoder.save(output)
    digests = {d.recording.recording_id: d.recording.fingerprint() for d in divided}
    write_json(output / EXPERIMENT, {"recordings": digests})
    write_json(output / SPLITS, [row for d in divided for row in describe_splits(d)])
