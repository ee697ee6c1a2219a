"""Does accuracy in a new animal grow with the size of the network, and with the number of animals?

``python benchmarks/scaling.py DATA`` (a folder with the recordings of Yu et al. 2022, one ``.npz``
each) writes ``results/scaling.json`` and ``.md``; rows go to ``--output`` as they come, and the
same command goes on where it stopped. A seed draws an order of the recordings: the last four are
the new animals, the first 1, 2, 4 or 8 are learned from. Units are placed by every other segment
of the sequence that all recordings saw, in eight dimensions; one network of each size learns the
other segments from the labels of the source animals and answers in the new ones with no label of
theirs, and after fine-tuning on two a class, beside the same network from scratch.

Width, depth and heads follow one rule. Learning rate and number of steps are chosen for each size
where the two halves of the segments have changed their places, which is not scored.

Reference: Yu, Stirman, Dorsett and Smith, Current Biology 2022.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from over_recordings import mean_over_recordings, save_tables, to_markdown
from scipy.stats import t
from yu_network import (
    ENCODER,
    NUM_DIMENSIONS,
    OTHERS,
    PRETRAINED,
    SCRATCH,
    SEQUENCES,
    SHARED,
    load,
    of_all_units,
    setting_of,
)

import poyo_ssl as ps
from poyo_ssl.alignment.placement import Placement
from poyo_ssl.decoders.network import NetworkDecoder
from poyo_ssl.decoders.reference_decoders import LabelReadout
from poyo_ssl.finetuning.placing import place_decoder
from poyo_ssl.finetuning.teachers import aligned, aligned_ridge
from poyo_ssl.windows.splits import SplitConfig

SIZES = {24: 1, 48: 1, 96: 1, 160: 2, 256: 2}
"""Width to depth; two heads of half the width."""
NUM_SOURCES = (1, 2, 4, 8)
NUM_NEW = 4
SEEDS = range(5)
TRIED = ((1e-3, 150), (3e-3, 150), (9e-3, 150), (1e-3, 450))
"""Learning rates and numbers of steps of 48 windows that every size is tuned over; faster ones for
longer learn the source animals by heart and lose."""
NUM_TUNED = 2
"""New animals that networks from scratch are tuned on."""
TUNED_ON, SCORED = 1, 0
"""Halves of the segments that are told apart."""
LABELS = 2
"""Of a class, for fine-tuning."""
Learning = tuple[float, int]
"""Learning rate and number of steps."""


@dataclass(frozen=True)
class Animals:
    """Recordings to learn from and new ones."""

    sequence: str
    sources: list[ps.Recording]
    new: list[ps.Recording]

    @classmethod
    def draw(cls, data: Path, sequence: str, half: int, seed: int, num_sources: int) -> Animals:
        """Of an order that the seed draws; more sources hold the fewer ones."""
        recordings = load(data, sequence, half)
        order = np.random.default_rng(seed).permutation(len(recordings))
        ordered = [recordings[i] for i in order]
        return cls(sequence, ordered[:num_sources], ordered[-NUM_NEW:])

    @property
    def task(self) -> str:
        """The segments that do not align."""
        return f"asked/segment,window_length={SEQUENCES[self.sequence][1]}"

    def taught(self) -> ps.Divided:
        """All windows of the sources are learned from."""
        names = tuple(one.recording_id for one in self.sources)
        return ps.divide(self.sources, self.task, SplitConfig(train=names))

    def asked(self, recording: ps.Recording, seed: int) -> ps.Divided:
        """Two repeats of a new recording train, all others are scored."""
        repeats = np.unique(recording.stimulus("sequence")["repeat"])
        held_out = np.random.default_rng(seed).permutation(repeats)[LABELS:]
        splits = SplitConfig(
            held_out_column="showing",
            held_out_values=tuple(int(repeat) for repeat in held_out),
            valid_fraction=0.0,
            guard=0.0,
        )
        return ps.divide([recording], self.task, splits)


def encoder_of(width: int) -> ps.EncoderConfig:
    """One recipe at every size."""
    return replace(ENCODER, dim=width, dim_head=width // 2, depth=SIZES[width])


def learning_by(config: ps.FinetuningConfig, lr: float, max_steps: int) -> ps.FinetuningConfig:
    """A single network that learns at a rate for so many steps."""
    return replace(config, members=1, training=replace(config.training, lr=lr, max_steps=max_steps))


def learn(animals: Animals, placement: Placement, width: int, by: Learning, seed: int):
    """A network of the source animals."""
    population = of_all_units(animals.taught())
    torch.manual_seed(seed)
    encoder = ps.Encoder(encoder_of(width), population.sampling_rate)
    encoder.placement = placement
    config = learning_by(OTHERS, *by)
    decoder = ps.finetune(population, animals.task, encoder, config, seed=seed)
    assert isinstance(decoder, NetworkDecoder)
    return decoder


def place(animals: Animals) -> Placement:
    """The space of the source animals."""
    return Placement.fit(of_all_units(animals.taught()), SHARED, NUM_DIMENSIONS)


def accuracy_of(decoder, divided: ps.Divided) -> float:
    """In one recording."""
    [accuracy] = ps.evaluate(decoder, divided).table["accuracy"]
    return float(accuracy)


def tune(data: Path, sequence: str, width: int) -> Iterator[dict]:
    """Accuracy without a label on the other half, at every rate and number of steps."""
    animals = Animals.draw(data, sequence, TUNED_ON, SEEDS[0], max(NUM_SOURCES))
    placement = place(animals)
    for rate, steps in TRIED:
        decoder = learn(animals, placement, width, (rate, steps), SEEDS[0])
        found = [
            accuracy_of(place_decoder(decoder, of_all_units(divided)), divided)
            for divided in (animals.asked(one, SEEDS[0]) for one in animals.new)
        ]
        yield {"width": width, "lr": rate, "steps": steps, "accuracy": float(np.mean(found))}


def tune_scratch(data: Path, sequence: str, width: int) -> Iterator[dict]:
    """The same for networks that learn from the labels of the new animal alone."""
    animals = Animals.draw(data, sequence, TUNED_ON, SEEDS[0], 1)
    divisions = [animals.asked(one, SEEDS[0]) for one in animals.new[:NUM_TUNED]]
    for rate, steps in TRIED:
        config = learning_by(SCRATCH, rate, steps)
        decoders = [
            ps.finetune(of_all_units(divided), animals.task, encoder_of(width), config)
            for divided in divisions
        ]
        found = [accuracy_of(*pair) for pair in zip(decoders, divisions, strict=True)]
        yield {"width": width, "lr": rate, "steps": steps, "accuracy": float(np.mean(found))}


def score(
    data: Path, sequence: str, seed: int, num_sources: int, learned: dict[int, Learning]
) -> Iterator[dict]:
    """What networks of every size, and the closed form, know of new animals without a label."""
    animals = Animals.draw(data, sequence, SCORED, seed, num_sources)
    placement, taught = place(animals), animals.taught()
    decoders = {w: learn(animals, placement, w, by, seed) for w, by in learned.items()}
    for recording in animals.new:
        divided = animals.asked(recording, seed)
        population = of_all_units(divided)
        setting = setting_of(population, animals.task, taught, seed)
        told: dict[tuple[str, int, int], Callable] = {}
        if num_sources > 1:  # choosing dimensions, as closed forms do, takes two
            told["aligned", 0, 0] = lambda s=setting: LabelReadout(
                s.question("aligned"), aligned(s)
            )
            told["ridge, aligned", 0, LABELS] = lambda s=setting: LabelReadout(
                s.question("ridge, aligned"), aligned_ridge(s)
            )
        for width, decoder in decoders.items():
            told["pretrained", width, 0] = lambda d=decoder, p=population: place_decoder(d, p)
            told["pretrained", width, LABELS] = lambda d=decoder, p=population, w=width: (
                ps.finetune(p, animals.task, d, brought(w), seed=seed)
            )
        for (what, width, labels), fit in told.items():
            if labels and num_sources < max(NUM_SOURCES):
                continue
            yield row_of(recording, what, width, num_sources, labels, accuracy_of(fit(), divided))


def brought(width: int) -> ps.FinetuningConfig:
    """Fine-tuning at the same rate a parameter, whatever the width."""
    return learning_by(PRETRAINED, PRETRAINED.training.lr * 64 / width, 60)


def score_scratch(
    data: Path, sequence: str, seed: int, learned: dict[int, Learning]
) -> Iterator[dict]:
    """The same networks, from the labels of the new animal alone."""
    animals = Animals.draw(data, sequence, SCORED, seed, 1)
    for recording in animals.new:
        divided = animals.asked(recording, seed)
        population = of_all_units(divided)
        for width, by in learned.items():
            decoder = ps.finetune(
                population, animals.task, encoder_of(width), learning_by(SCRATCH, *by), seed=seed
            )
            yield row_of(recording, "scratch", width, 0, LABELS, accuracy_of(decoder, divided))


def row_of(recording, what, width, num_sources, labels, accuracy) -> dict:
    """One answer in one recording."""
    return {
        "sequence": recording.recording_id.split("_")[0],
        "recording_id": recording.recording_id,
        "what": what,
        "width": width,
        "sources": num_sources,
        "labels": labels,
        "accuracy": accuracy,
    }


def kept(path: Path, rows: Callable[[], Iterator[dict]]) -> list[dict]:
    """Rows of a file, which is written where it is not there."""
    if not path.is_file():
        torch.set_num_threads(1)
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(json.dumps(list(rows())))
        os.replace(unfinished, path)
        print(path.stem, "done", flush=True)
    return json.loads(path.read_text())


def in_parallel(jobs: int, tasks: dict[Path, Callable[[], Iterator[dict]]]) -> pd.DataFrame:
    """The rows of all files."""
    lists = joblib.Parallel(n_jobs=jobs, batch_size=1)(
        joblib.delayed(kept)(path, rows) for path, rows in tasks.items()
    )
    return pd.DataFrame([row for rows in lists for row in rows])


def best_learning(tuned: pd.DataFrame) -> dict[int, Learning]:
    """Rate and steps of the highest mean over the sequences, for every width."""
    means = tuned.groupby(["width", "lr", "steps"])["accuracy"].mean()
    return {int(width): of.idxmax()[1:] for width, of in means.groupby(level=0)}


def count_parameters(width: int) -> int:
    """Of the encoder, without what belongs to single units."""
    encoder = ps.Encoder(encoder_of(width), 10.0)
    return sum(parameter.numel() for parameter in encoder.parameters())


def slopes_of(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Accuracy a tenfold, a line for every recording; 95 % interval over recordings."""
    found = []
    keys = ["what", "labels", "sources"] if by == "parameters" else ["what", "labels", "width"]
    for key, part in rows.groupby(keys):
        if part[by].nunique() < 3:
            continue
        per = part.groupby(["recording_id", by])["accuracy"].mean()
        slopes = np.array(
            [
                np.polyfit(np.log10(one.index.get_level_values(1)), one.to_numpy(), 1)[0]
                for _, one in per.groupby(level=0)
            ]
        )
        interval = t.ppf(0.975, len(slopes) - 1) * slopes.std(ddof=1) / len(slopes) ** 0.5
        found.append((*key, by, slopes.mean(), interval, len(slopes)))
    return pd.DataFrame(
        found, columns=["what", "labels", keys[2], "over", "a tenfold", "interval", "recordings"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/scaling"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    data, place_of = options.data, options.output
    tuned = {
        what: in_parallel(
            options.jobs,
            {
                place_of / f"tune-{what}-{sequence}-{width}.json": partial(
                    of, data, sequence, width
                )
                for sequence in SEQUENCES
                for width in SIZES
            },
        )
        for what, of in {"pretrained": tune, "scratch": tune_scratch}.items()
    }
    learned = {what: best_learning(table) for what, table in tuned.items()}
    tasks = {}
    for seed in SEEDS:
        for sequence in SEQUENCES:
            of_seed = (data, sequence, seed)
            tasks[place_of / f"scratch-{sequence}-{seed}.json"] = partial(
                score_scratch, *of_seed, learned["scratch"]
            )
            for number in NUM_SOURCES:
                tasks[place_of / f"pretrained-{sequence}-{seed}-{number}.json"] = partial(
                    score, *of_seed, number, learned["pretrained"]
                )
    rows = in_parallel(options.jobs, tasks)
    sizes = {width: count_parameters(width) for width in SIZES}
    rows["parameters"] = rows["width"].map(sizes)
    networks = rows[rows["width"] > 0]
    summary = mean_over_recordings(rows, ["sequence", "labels", "what", "sources", "width"])
    over_size = slopes_of(networks, "parameters")
    over_animals = slopes_of(rows[rows["labels"] == 0], "sources")
    chosen = pd.DataFrame(
        [(what, w, sizes[w], *by) for what, of in learned.items() for w, by in of.items()],
        columns=["what", "width", "parameters", "lr", "steps"],
    )
    page = [
        "# Size of the network and number of animals",
        f"`python benchmarks/scaling.py DATA`: recordings of Yu et al. 2022, {len(SEEDS)} draws of "
        f"source and new animals, {NUM_NEW} new ones each; one network, no members; chance rdk "
        ".167, texture .125. `labels`: of the new animal, a class. Intervals: 95 % over "
        "recordings.",
        to_markdown(summary),
        "## Accuracy for ten times the parameters",
        to_markdown(over_size),
        "## Accuracy for ten times the animals, without a label of the new one",
        to_markdown(over_animals),
        "## How each size learned: the best on the other half of the segments",
        to_markdown(chosen),
    ]
    tables = {"summary": summary, "over_size": over_size, "over_animals": over_animals}
    save_tables("scaling", {"rows": rows, "chosen": chosen, **tables}, page)


if __name__ == "__main__":
    main()
