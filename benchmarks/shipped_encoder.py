"""Makes the encoder that comes with the package, and says what it is worth to new animals.

    python benchmarks/shipped_encoder.py --data ../shared/data

Invents sixteen mice of eight Cre lines that watch drifting gratings, pretrains the default encoder
on the direction of what they saw, drops the embeddings of their cells, which nobody else has, and
writes src/poyo_ssl/model/shipped/simulated. Then decodes direction, with few labels, in animals
that it has not seen: an invented one and the real drifting-gratings session of DANDI:000728.
Writes benchmarks/results/shipped_encoder.json and .md, and the scores into the model card. Takes
ten minutes of one core.
"""

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

import time
from dataclasses import replace
from pathlib import Path

import pandas as pd

import poyo_ssl as ps
from poyo_ssl.comparison.run_directory import describe_hardware
from poyo_ssl.metrics.intervals import seed_interval
from poyo_ssl.model.shipped import SHIPPED
from poyo_ssl.recordings.simulation.simulator import SimulatorConfig, simulate_observatory

NAME = "simulated"
SESSION = "sub-527550471_ses-527745328-StimA_ophys.nwb"
MICE = SimulatorConfig(
    lines=("Cux2", "Rorb", "Slc17a7", "Emx1", "Ntsr1", "Sst", "Vip", "Pvalb"),
    recordings_per_line=2,
    units_per_recording=60,
    grating_trials_per_condition=3,
    blank_sweeps=0,
    movie_frames=30,
    movie_repeats=1,
    movie_height=8,
    movie_width=8,
    include_static_gratings=False,
    spontaneous_duration=0.0,
    gap_duration=10.0,
    seed=100,
)
OTHERS = replace(
    MICE, lines=("Cux2",), recordings_per_line=1, grating_trials_per_condition=6,
    seed=101,
)  # fmt: skip
PRETRAINING = ps.PretrainingConfig(
    objective="labels",
    label_weight=1.0,
    training=ps.TrainingConfig(max_steps=600, unit_dropout=0.3, jitter=0.2),
)
SPLITS = ps.SplitConfig(valid_fraction=0.0, test_fraction=0.3)
TRAINING = ps.TrainingConfig(max_steps=150, batch_size=16, jitter=0.2)
LABELS = (2, 5)
"""Labelled trials of every direction."""
SEEDS = 3
WAYS = {
    "scratch": None,
    "shipped": "full",
    "shipped, only units learn": "units",
}
"""What a decoder starts from, to its way to transfer; None: nothing."""
SIMULATED, REAL = ANIMALS = ("a new simulated mouse", "a real mouse")
WORTH = "## What it is worth to an animal that it has not seen"
RESULTS = Path(__file__).parent / "results" / "shipped_encoder.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--keep", action="store_true", help="score the encoder that is there")
    parser.add_argument("--animals", choices=ANIMALS, help="score these, keep scores of the others")
    options = parser.parse_args()
    if not options.keep:
        make_encoder().save_pretrained(SHIPPED / NAME, name=NAME)
    asked = ANIMALS if options.animals is None else (options.animals,)
    animals = {where: load(where, options.data) for where in asked}
    rows = [
        score(recording, where, way, labels, seed)
        for where, recordings in animals.items()
        for recording in recordings
        for labels in LABELS
        for seed in range(SEEDS)
        for way in WAYS
    ]
    if RESULTS.is_file():
        known = json.loads(RESULTS.read_text())["scores"]
        rows = [row for row in known if row["where"] not in asked] + rows
    result = {
        "command": f"python benchmarks/shipped_encoder.py --data {options.data}",
        "hardware": describe_hardware(),
        "scores": rows,
        "table": summarize(pd.DataFrame(rows)),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(format_markdown(result))
    write_worth(SHIPPED / NAME / "README.md", result)
    print(format_markdown(result))


def load(where: str, data: Path) -> list[ps.Recording]:
    if where == SIMULATED:
        return simulate_observatory(OTHERS)
    return ps.load_recordings(data / SESSION)


def make_encoder() -> ps.Encoder:
    started = time.process_time()
    divided = ps.divide(simulate_observatory(MICE), "direction", SPLITS)
    encoder = ps.pretrain(all_units(divided), PRETRAINING, seed=0, show_progress=True)
    encoder.unit_embedding.subset_vocab([])
    print(f"{time.process_time() - started:.0f} s of processor time to make the encoder")
    return encoder


def all_units(divided: ps.Divided) -> ps.Population:
    ids = {d.recording.recording_id: list(d.recording.unit_ids) for d in divided}
    return ps.Population(divided, ids)


def score(recording: ps.Recording, where: str, way: str, labels: int, seed: int) -> dict:
    """Accuracy of one decoder on the test part of an animal that the encoder does not know."""
    divided = ps.divide([recording], "direction", SPLITS)
    transfer = WAYS[way]
    config = ps.FinetuningConfig(training=TRAINING, members=1, transfer=transfer or "full")
    started = time.process_time()
    decoder = ps.finetune(
        all_units(divided),
        "direction",
        None if transfer is None else ps.Encoder.from_pretrained(NAME),
        config,
        seed=seed,
        labels=ps.LabelBudget(per_class=labels),
    )
    [evaluation] = ps.evaluate(decoder, divided).evaluations
    print(where, labels, seed, way, evaluation.scores["accuracy"], flush=True)
    return {
        "where": where,
        "recording": recording.recording_id,
        "way": way,
        "labels": labels,
        "seed": seed,
        "accuracy": evaluation.scores["accuracy"],
        "seconds": round(time.process_time() - started, 1),
    }


def summarize(scores: pd.DataFrame) -> list[dict]:
    """Means over recordings of every seed, then mean and 95 % interval over seeds."""
    table = []
    for (where, labels, way), rows in scores.groupby(["where", "labels", "way"], sort=False):
        interval = seed_interval(rows.groupby("seed")["accuracy"].mean().to_numpy())
        table.append(
            {
                "where": where,
                "labels": labels,
                "way": way,
                "mean": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "seconds": float(rows["seconds"].mean()),
            }
        )
    return table


def format_markdown(result: dict) -> str:
    return f"`{result['command']}`\n\n{describe(result['table'])}"


def describe(table: list[dict]) -> str:
    lines = [
        f"Accuracy of 8 directions (chance 0.125), mean [95 % interval over {SEEDS} seeds], of one "
        f"network after {TRAINING.max_steps} steps on few labels of an animal that the encoder has "
        "not seen; processor seconds of a fit and its score. The seeds differ in their labels, "
        "too.",
        "",
        "| animals | labels a direction | from scratch | from it | from it, only units learn | s |",
        "|---|---|---|---|---|---|",
    ]
    cells = {(row["where"], row["labels"]): {} for row in table}
    for row in table:
        cells[row["where"], row["labels"]][row["way"]] = row
    for (where, labels), ways in cells.items():
        scores = [f"{w['mean']:.3f} [{w['low']:.3f}, {w['high']:.3f}]" for w in ways.values()]
        seconds = " / ".join(f"{w['seconds']:.0f}" for w in ways.values())
        lines.append(f"| {where} | {labels} | {' | '.join(scores)} | {seconds} |")
    worse = sum(ways["shipped"]["mean"] < ways["scratch"]["mean"] for ways in cells.values())
    lines += ["", f"Starting from it was worse than from scratch in {worse} of {len(cells)} rows."]
    return "\n".join(lines) + "\n"


def write_worth(card: Path, result: dict) -> None:
    """Adds to a model card what the encoder is worth, as it was measured."""
    text = card.read_text(encoding="utf-8").partition(WORTH)[0].rstrip()
    card.write_text(f"{text}\n\n{WORTH}\n\n{describe(result['table'])}", encoding="utf-8")


if __name__ == "__main__":
    main()
