"""The network in the space that animals share, on 25 recordings of mouse visual cortex.

``python benchmarks/yu_network.py DATA`` (a folder with the recordings of Yu et al. 2022, one
``.npz`` each) writes ``results/yu_network.json`` and ``.md``; rows go to ``--output`` as they come,
and the same command goes on where it stopped. Each recording is left out in turn. Units are placed
by every other segment of the sequence that all recordings saw; a network learns to tell the other
segments apart from the labels of the other recordings and is brought to the one left out, with no
label of its own and with 1, 2 or 5 a class, beside the same network from scratch and closed forms.

Reference: Yu, Stirman, Dorsett and Smith, Current Biology 2022.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from over_recordings import mean_over_recordings, save_tables, to_markdown
from scipy.stats import t, ttest_rel

import poyo_ssl as ps
from poyo_ssl.alignment.placement import Placement
from poyo_ssl.alignment.responses import SharedStimulus
from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.decoders.linear import LinearReadout
from poyo_ssl.decoders.network import ClassNetwork
from poyo_ssl.decoders.reference_decoders import LabelReadout
from poyo_ssl.finetuning.answering import balance
from poyo_ssl.finetuning.placing import place_decoder
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.finetuning.teachers import aligned, aligned_ridge, ridge_readout
from poyo_ssl.windows.splits import SplitConfig

SHARED = SharedStimulus(stimulus="sequence", column="segment")
SEQUENCES = {"rdk": (12, 3.0), "texture": (16, 4.0)}
"""Number of segments and their length in seconds."""
NUM_DIMENSIONS = 8
ENCODER = ps.EncoderConfig(tokens="projected", patch_length=0.5, latent_step=1.0)
OTHERS = ps.FinetuningConfig(
    members=2,
    transfer="weights",
    training=ps.TrainingConfig(
        max_steps=150, batch_size=48, lr=3e-3, unit_dropout=0.3, jitter=0.0, valid_every=1_000
    ),
)
"""Learning from the other recordings."""
SCRATCH = ps.FinetuningConfig(
    members=2,
    training=ps.TrainingConfig(max_steps=100, lr=3e-3, jitter=0.0, valid_every=1_000),
)
PRETRAINED = ps.FinetuningConfig(
    members=2,
    training=ps.TrainingConfig(
        max_steps=60, lr=3e-4, unit_lr_factor=30.0, jitter=0.0, valid_every=1_000
    ),
)


def load(data: Path, sequence: str, half: int) -> list[ps.Recording]:
    """Recordings with two stimuli: the segments that align, and those that are told apart.

    The table of the latter has every segment, so that what is held out ends with its segment; the
    others have no label, and ``showing`` -1 where those to tell apart have their repeat.
    """
    num_segments, _ = SEQUENCES[sequence]
    asked = range(1 - half, num_segments, 2)
    recordings = []
    for path in sorted(data.glob(f"{sequence}_*.npz")):
        [recording] = ps.load_recordings(path)
        table = recording.stimulus("sequence")
        is_asked = table["segment"].isin(asked)
        told_apart = table.assign(
            segment=table["segment"].where(is_asked), showing=table["repeat"].where(is_asked, -1)
        )
        stimuli = {"asked": told_apart, "sequence": table[~is_asked].reset_index(drop=True)}
        recordings.append(replace(recording, stimuli=stimuli))
    return recordings


def of_all_units(divided: ps.Divided) -> ps.Population:
    """All units of all recordings."""
    chosen = {d.recording.recording_id: list(d.recording.unit_ids) for d in divided}
    return ps.Population(divided, chosen)


def with_steps(config: ps.FinetuningConfig, max_steps: int, lr: float) -> ps.FinetuningConfig:
    """The same, learning for so many steps at a learning rate."""
    return replace(config, training=replace(config.training, max_steps=max_steps, lr=lr))


def learn_of_others(
    divided: ps.Divided, task: str, config: ps.FinetuningConfig = OTHERS
) -> ClassNetwork:
    """A network of recordings whose units are placed."""
    population = of_all_units(divided)
    torch.manual_seed(0)
    encoder = ps.Encoder(ENCODER, population.sampling_rate)
    encoder.placement = Placement.fit(population, SHARED, NUM_DIMENSIONS)
    decoder = ps.finetune(population, task, encoder, config)
    assert isinstance(decoder, ClassNetwork)
    return decoder


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked of every recording."""

    name: str
    """Of the results."""
    halves: tuple[int, ...]
    """Of the segments, which are told apart in turn."""
    draws: dict[int, int]
    """Own labels a class to draws of the repeats that are labelled."""
    without: Callable[..., dict[str, FittedDecoder]]
    """Makes the decoders that know no label of the recording."""
    with_labels: Callable[..., dict[str, FittedDecoder]]
    """Makes those that know some."""
    pairs: tuple[tuple[str, str], ...]
    """Decoders that are compared."""


def score(
    recording: ps.Recording, others: list[ps.Recording], length: float, questions: Questions
) -> list[tuple]:
    """What is answered right in one recording: ``what``, ``labels``, ``draw`` and ``accuracy``."""
    torch.set_num_threads(1)
    task = f"asked/segment,window_length={length}"
    names = tuple(one.recording_id for one in others)
    taught = ps.divide(others, task, SplitConfig(train=names))
    decoder = learn_of_others(taught, task)
    repeats = np.unique(recording.stimulus("sequence")["repeat"])
    rows = []
    for labels, num_draws in {0: 1, **questions.draws}.items():
        for draw in range(num_draws):
            order = np.random.default_rng(draw).permutation(repeats)
            held_out = tuple(int(repeat) for repeat in order[labels:])
            # without a label one repeat is left to train on all the same, and not used
            splits = SplitConfig(
                held_out_column="showing",
                held_out_values=held_out if labels else tuple(int(r) for r in order[1:]),
                valid_fraction=0.0,
                guard=0.0,
            )
            divided = ps.divide([recording], task, splits)
            answer = questions.with_labels if labels else questions.without
            for what, fitted in answer(of_all_units(divided), task, decoder, taught, draw).items():
                [accuracy] = ps.evaluate(fitted, divided).table["accuracy"]
                rows.append((what, labels, draw, float(accuracy)))
    return rows


def answer_without(
    population: ps.Population, task: str, decoder: ClassNetwork, taught: ps.Divided, draw: int
) -> dict[str, FittedDecoder]:
    """Decoders that know no label of the recording."""
    setting = setting_of(population, task, taught, draw)
    return {
        "network of others": place_decoder(decoder, population),
        "aligned": LabelReadout(setting.question("aligned"), aligned(setting)),
    }


def answer_with_labels(
    population: ps.Population, task: str, decoder: ClassNetwork, taught: ps.Divided, draw: int
) -> dict[str, FittedDecoder]:
    """Decoders that know the labels of some repeats."""
    setting = setting_of(population, task, taught, draw)
    fit = partial(ps.finetune, population, task, seed=draw)
    teacher = aligned_ridge(setting)
    pretrained = fit(decoder, PRETRAINED)
    taught_network = fit(decoder, PRETRAINED, teacher=teacher)
    together = added(pretrained, teacher, population)
    answers = {
        "ridge": LabelReadout(setting.question("ridge"), ridge_readout(setting, 1)),
        "ridge, aligned": LabelReadout(setting.question("ridge, aligned"), teacher),
        "scratch": fit(ENCODER, SCRATCH),
        "pretrained": pretrained,
        "pretrained + teacher": taught_network,
        "pretrained + teacher, blend 0.25": blended(taught_network, teacher, 0.25),
        "pretrained, added to teacher": together,
        "pretrained, added to teacher, blend 0.25": blended(together, teacher, 0.25),
    }
    if draw == 0:
        shuffled = replace(PRETRAINED, embeddings="shuffled")
        answers["pretrained, shuffled"] = fit(decoder, shuffled)
    return answers


def blended(network: ClassNetwork, teacher: LinearReadout, blend: float) -> ClassNetwork:
    """The same network, so many of its standard deviations added to those of a teacher."""
    return ClassNetwork(network.question, network.networks, teacher, blend, network.spread)


def added(network: ClassNetwork, teacher: LinearReadout, population: ps.Population) -> ClassNetwork:
    """A network that learned from labels alone, added to a teacher."""
    question = network.question
    sources = population.labelled_sources(
        network.networks[0].encoder, question.task, "train", question.num_timesteps
    )
    return balance(ClassNetwork(question, network.networks, teacher, 0.5), sources)


def answer_longer_without(
    population: ps.Population, task: str, decoder: ClassNetwork, taught: ps.Divided, draw: int
) -> dict[str, FittedDecoder]:
    """The network of others, and the same after twice the steps."""
    longer = learn_of_others(taught, task, with_steps(OTHERS, 300, OTHERS.training.lr))
    return {
        "network of others": place_decoder(decoder, population),
        "network of others, 300 steps": place_decoder(longer, population),
    }


def answer_longer_with_labels(
    population: ps.Population, task: str, decoder: ClassNetwork, taught: ps.Divided, draw: int
) -> dict[str, FittedDecoder]:
    """Networks from scratch that learn for longer, slower, and with attention to single units."""
    fit = partial(ps.finetune, population, task, seed=draw)
    of_units = replace(ENCODER, tokens="gain")
    return {
        "scratch": fit(ENCODER, SCRATCH),
        "scratch, 300 steps at a third of the rate": fit(ENCODER, with_steps(SCRATCH, 300, 1e-3)),
        "scratch, gain tokens, 200 steps": fit(of_units, with_steps(SCRATCH, 200, 2e-3)),
    }


MAIN = Questions(
    name="yu_network",
    halves=(0, 1),
    draws={1: 2, 2: 1, 5: 1},
    without=answer_without,
    with_labels=answer_with_labels,
    pairs=(
        ("pretrained", "scratch"),
        ("pretrained", "pretrained, shuffled"),
        ("pretrained + teacher", "ridge"),
        ("pretrained + teacher", "ridge, aligned"),
        ("network of others", "aligned"),
    ),
)
LONGER = Questions(
    name="yu_network_steps",
    halves=(0,),
    draws={1: 1, 2: 1},
    without=answer_longer_without,
    with_labels=answer_longer_with_labels,
    pairs=(
        ("network of others, 300 steps", "network of others"),
        ("scratch, 300 steps at a third of the rate", "scratch"),
        ("scratch, gain tokens, 200 steps", "scratch"),
    ),
)


def setting_of(population: ps.Population, task: str, taught: ps.Divided, draw: int) -> Setting:
    """For the closed forms."""
    return Setting(
        population=population,
        task=population.divided.task(task),
        encoder=ENCODER,
        config=PRETRAINED,
        seed=draw,
        labels=1.0,
        earlier=taught,
    )


def score_all(
    data: Path, test_on: Path | None, output: Path, jobs: int, questions: Questions
) -> pd.DataFrame:
    """One row a recording, half, decoder and draw; recordings that are done are read back."""
    output = output / questions.name
    output.mkdir(parents=True, exist_ok=True)
    waiting, paths = [], []
    for sequence, (_, length) in SEQUENCES.items():
        for half in questions.halves:
            recordings = load(data, sequence, half)
            asked = recordings if test_on is None else load(test_on, sequence, half)
            for recording in asked:
                others = [r for r in recordings if r.recording_id != recording.recording_id]
                paths.append(output / f"{recording.recording_id}-{half}.json")
                if not paths[-1].is_file():
                    waiting.append(
                        (paths[-1], sequence, half, recording, others, length, questions)
                    )
    joblib.Parallel(n_jobs=jobs, batch_size=1)(joblib.delayed(_score_one)(*one) for one in waiting)
    rows = [row for path in paths for row in json.loads(path.read_text())]
    names = ["sequence", "recording_id", "half", "what", "labels", "draw", "accuracy"]
    return pd.DataFrame(rows, columns=names)


def _score_one(path, sequence, half, recording, others, length, questions) -> None:
    rows = [
        (sequence, recording.recording_id, half, *row)
        for row in score(recording, others, length, questions)
    ]
    partial_path = path.with_suffix(".partial")
    partial_path.write_text(json.dumps(rows))
    os.replace(partial_path, path)
    print(path.stem, "done", flush=True)


def compare(rows: pd.DataFrame, questions: Questions) -> pd.DataFrame:
    """Gains in per cent of the other's mean, 95 % interval and p over recordings (paired t)."""
    per = rows.groupby(["sequence", "labels", "what", "recording_id"])["accuracy"].mean()
    pooled = per.groupby(level=[1, 2, 3]).mean()
    both = pd.concat({**{s: per[s] for s in per.index.unique(0)}, "both": pooled})
    found = []
    for sequence, part in both.groupby(level=0):
        for one, other in questions.pairs:
            for labels in (0, *questions.draws):
                held = part[sequence]
                if not {(labels, one), (labels, other)} <= set(held.index.droplevel(2)):
                    continue
                a, b = held[labels, one], held[labels, other]
                gain = 100 * (a - b) / b.mean()
                interval = gain.sem() * t.ppf(0.975, len(gain) - 1)
                p = float(ttest_rel(a, b).pvalue)
                found.append((sequence, labels, one, other, gain.mean(), interval, p))
    names = ["sequence", "labels", "what", "against", "gain_percent", "interval", "p"]
    return pd.DataFrame(found, columns=names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--test_on", type=Path, help="a folder of other recordings; results are only printed"
    )
    parser.add_argument(
        "--steps",
        action="store_true",
        help="ask instead whether the networks have stopped learning (half an hour)",
    )
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    questions = LONGER if options.steps else MAIN
    rows = score_all(options.data, options.test_on, options.output, options.jobs, questions)
    summary = mean_over_recordings(rows, ["sequence", "labels", "what"])
    pairs = compare(rows, questions)
    if options.test_on is not None:
        print(to_markdown(summary), to_markdown(pairs), sep="\n\n")
        return
    page = [
        "# The network in the space that animals share",
        f"`python benchmarks/yu_network.py DATA{' --steps' * options.steps}`: 25 recordings (Yu "
        f"et al. 2022), each left out in turn, {len(questions.halves)} of both halves of the "
        f"segments, {NUM_DIMENSIONS} dimensions, 2 members; chance rdk .167, texture .125. Unless "
        "said otherwise, learning from the others takes 150 steps of 48 windows, from scratch 100, "
        "pretrained 60. Intervals: 95 % over recordings.",
        to_markdown(summary),
        "## Gains, paired over recordings, in per cent of the other's mean",
        to_markdown(pairs),
    ]
    save_tables(questions.name, {"rows": rows, "summary": summary, "pairs": pairs}, page)


if __name__ == "__main__":
    main()
