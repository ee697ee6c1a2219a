"""Every pair of options works, or is refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from allpairspy import AllPairs

from poyo_ssl.comparison.config import PretrainingArm, RunConfig
from poyo_ssl.comparison.plan import plan
from poyo_ssl.comparison.run import run
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.finetuning.teachers import TEACHERS
from poyo_ssl.model.checkpoints import network_tensors
from poyo_ssl.model.encoder import EncoderConfig
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.objectives import OBJECTIVES
from poyo_ssl.pretraining.objectives.masked_activity import MaskedActivityConfig
from poyo_ssl.pretraining.pretrain import pretrain
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.training.transfer import EMBEDDINGS, TRANSFERS
from poyo_ssl.windows.label_budget import LabelBudget
from poyo_ssl.windows.tasks import find_task
from tiny_fits import ENCODER
from tiny_runs import SPLITS, tiny_observatory

ARM = "net"
NEEDED = {
    "labels": {"label_weight": 1.0},
    "modes": {"embedding_modes": 3},
}
"""Objective to what it does nothing without."""


class Choice(NamedTuple):
    """One row of the cover."""

    objective: str
    tokens: str
    pattern: str
    transfer: str
    embeddings: str
    teacher: str | None
    task: str
    precision: str
    accumulate: int
    diet: str

    def config(self) -> RunConfig:
        """A run of this choice, two steps each."""
        training = TrainingConfig(
            max_steps=2,
            batch_size=64,
            valid_every=2,
            max_valid_windows=8,
            precision=self.precision,
            accumulate=self.accumulate,
        )
        finetuning = FinetuningConfig(
            training=training,
            transfer=self.transfer,
            embeddings=self.embeddings,
            members=2,
        )
        pretraining = PretrainingConfig(
            objective=self.objective,
            masked_activity=MaskedActivityConfig(pattern=self.pattern),
            training=replace(training, jitter=0.0),
            **NEEDED.get(self.objective, {}),
        )
        return RunConfig(
            tasks=(self.task,),
            units=("all",),
            arms=(ARM,),
            num_seeds=1,
            jobs=1,
            pretrainings={ARM: PretrainingArm(units=self.diet, teacher=self.teacher)},
            pretraining=pretraining,
            labels=finetuning,
            movie=finetuning,
            encoder=self.encoder(),
            splits=SPLITS,
            predictability=PredictabilityConfig(min_timesteps=100),
        )

    def encoder(self) -> EncoderConfig:
        """Concatenated tokens hold one sample each."""
        patch_length = 0.0 if self.tokens == "concatenated" else ENCODER.patch_length
        return replace(ENCODER, tokens=self.tokens, patch_length=patch_length)


VALUES = {
    "objective": list(OBJECTIVES),
    "tokens": ["gain", "concatenated", "projected"],
    "pattern": ["units", "random_patches", "future"],
    "transfer": list(TRANSFERS),
    "embeddings": list(EMBEDDINGS),
    "teacher": [None, *TEACHERS],
    "task": ["direction", "running_speed", "movie_frame", "movie_held_out"],
    "precision": ["float32", "bfloat16"],
    "accumulate": [1, 2],
    "diet": ["all", "predictable"],
}
"""Every option's values; the first of each go with everything."""
PAIRS = [
    {one: value, other: other_value}
    for one, other in combinations(VALUES, 2)
    for value in VALUES[one]
    for other_value in VALUES[other]
]


def refusal(**options: Any) -> str | None:
    """What options are refused with; None if they work, or if that depends on those not given."""

    def are(**wanted: Callable[[Any], bool]) -> bool:
        return all(name in options and is_so(options[name]) for name, is_so in wanted.items())

    if are(objective="masked_activity".__ne__, pattern="units".__ne__):
        return r"does not read masked_activity\.pattern: leave it out"
    if are(objective="split_units".__eq__, accumulate=(2).__eq__):
        return r"raise training\.batch_size or lower training\.accumulate"
    if options.get("teacher") and "task" in options:
        teacher, kind = options["teacher"], find_task(options["task"]).kind
        first, *_ = TEACHERS[teacher].kinds
        if kind not in TEACHERS[teacher].kinds:
            return f"its teacher '{teacher}' answers {first}.*but the tasks ask for {kind}"
    if options.get("teacher") == "aligned":
        return "fewer than two of 1 recordings to pretrain on"
    if are(transfer="probe".__eq__, embeddings="reset".__eq__):
        return "transfer: probe learns no embeddings, but 8 units are new"
    if are(transfer="probe".__eq__, diet="predictable".__eq__):
        return "transfer: probe learns no embeddings, but 2 units are new"
    return None


def cover() -> list[Choice]:
    """Rows that hold every pair of values that works.

    With refused pairs left out allpairspy misses others; these are gathered into rows of their own.
    """
    rows = [
        dict(zip(VALUES, row, strict=True))
        for row in AllPairs(
            list(VALUES.values()),
            filter_func=lambda row: not refusal(**dict(zip(VALUES, row, strict=False))),
        )
    ]
    for pair in PAIRS:
        if refusal(**pair) or any(pair.items() <= row.items() for row in rows):
            continue
        for row in rows:
            is_free = all(row.get(name, value) == value for name, value in pair.items())
            if is_free and not refusal(**row | pair):
                row.update(pair)
                break
        else:
            rows.append(pair if refusal(**DEFAULTS | pair) is None else pair | {"task": FRAMES})
    return [Choice(**DEFAULTS | row) for row in rows]


FRAMES = "movie_frame"
DEFAULTS = {name: values[0] for name, values in VALUES.items()}
COVER = cover()


@pytest.fixture(scope="module")
def days() -> tuple[Recording, Recording]:
    """Six regular cells and two bursty ones on two days."""
    later = tiny_observatory()[0]
    df_over_f = later.df_over_f.copy()
    df_over_f[::500, [0, 2]] += 60.0
    earlier = replace(later, recording_id="earlier", df_over_f=np.roll(df_over_f, 1, axis=0))
    return earlier, replace(later, df_over_f=df_over_f)


def test_every_pair_is_tried_or_refused():
    rows = [choice._asdict().items() for choice in COVER]
    untried = [pair for pair in PAIRS if not any(pair.items() <= row for row in rows)]
    assert [pair for pair in untried if not refusal(**pair)] == []


@pytest.mark.parametrize(
    "pair",
    [pair for pair in PAIRS if refusal(**pair)],
    ids=lambda pair: "-".join(map(str, pair.values())),
)
def test_a_pair_that_makes_no_sense_is_refused_before_anything_is_written(pair, days, tmp_path):
    earlier, later = days
    choice = Choice(**DEFAULTS | pair)
    with pytest.raises(ValueError, match=refusal(**pair)):
        run([later], tmp_path / "run", choice.config(), pretraining_recordings=[earlier])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("choice", COVER, ids=lambda choice: "-".join(map(str, choice)))
def test_pairs_that_make_sense_are_pretrained_and_fitted(choice, days, tmp_path):
    earlier, later = days
    experiment = plan([later], tmp_path / "run", choice.config(), [earlier])
    config, population = experiment.config, experiment.population("all")
    encoder = pretrain(
        experiment.pretraining_population(ARM, 0),
        config.pretraining_of(ARM),
        encoder=config.encoder,
    )
    assert all(torch.isfinite(x).all() for x in network_tensors(encoder).values())
    [task] = experiment.tasks
    setting = Setting(
        population=population,
        task=task,
        encoder=config.encoder,
        config=config.finetuning_of(ARM, task),
        seed=0,
        labels=LabelBudget(),
        pretrained=lambda: encoder,
        earlier=experiment.earlier,
    )
    decoder = config.all_arms[ARM].fit(setting)
    assert np.isfinite(decoder.predict(later, np.arange(4))).all()
