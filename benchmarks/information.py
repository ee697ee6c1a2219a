"""What activity says about a stimulus, by diet, and how many labels pretraining is worth.

    python benchmarks/information.py ../shared/data/sub-527550471_ses-527745328-StimA_ophys.nwb \\
        ../shared/data/sub-527550471_ses-527676626-StimB_ophys.nwb

Linear Fisher information between neighbouring directions (or orientations) in as many predictable,
unpredictable and random units of a real session, without the bias of few trials: means over draws
of units, standard errors from a jackknife over blocks of trials. What else changes from trial to
trial, such as the temporal frequency, counts as noise. Predictability is measured on the
training time of the task's split; all trials count, since nothing is fitted to be scored.

The labels that pretraining is worth are read off ``benchmarks/results/yu_network.csv.gz``: how many
of its own a decoder without the other animals needs to be as good, with a bootstrap over
recordings. Writes benchmarks/results/information.json and .md in two minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from over_recordings import save_tables, to_markdown
from result_files import read_rows
from scipy.stats import t

import poyo_ssl as ps
from poyo_ssl.study.information import equivalent_labels, information_of_neighbours, jackknife

TASKS = {"direction": 360.0, "orientation": 180.0}
NUM_UNITS = (10, 20, 40)
NUM_DRAWS = 40
NUM_BLOCKS = 20
"""Of trials that follow each other, of which a jackknife leaves out one at a time."""
LABELS = (1, 2, 5)
NUM_BOOTSTRAPS = 2_000
WORTH = {"pretrained": "scratch", "pretrained + teacher, blend 0.25": "ridge"}
"""With the other animals, and the same or the best without."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    options = parser.parse_args()
    known = [row for path in options.data for row in information_of(path)]
    information = pd.DataFrame(known)
    worth = pd.DataFrame(list(labels_worth()))
    page = [
        "# What units know, and what labels are worth",
        "`python benchmarks/information.py DATA`: linear Fisher information between neighbours, "
        "1/degree², in the mean of "
        f"{NUM_DRAWS} draws of units; ± 95 % (jackknife over {NUM_BLOCKS} blocks of trials). "
        "`ratio`: to unpredictable units, its interval from the same jackknife, of logarithms.",
        to_markdown(information),
        "## Own labels a class that reach what pretraining reaches",
        "25 recordings (Yu et al. 2022). Read off the mean curve of `without`, which was measured "
        f"at {', '.join(map(str, LABELS))} labels a class: {LABELS[-1]} means as many or more. "
        "[95 %], bootstrap over recordings.",
        to_markdown(worth),
    ]
    save_tables("information", {"information": information, "worth": worth}, page)
    print("\n\n".join(page))


def information_of(path: Path) -> Iterator[dict]:
    """One row a diet and number of units."""
    [recording] = ps.load_recordings(path)
    [task] = [t for t in TASKS if ps.find_task(t).stimulus in recording.stimuli]
    divided = ps.divide([recording], task)
    partition = ps.partition_by_predictability(divided)
    groups = ("unpredictable", "predictable", "all")
    diets = {name: recording.unit_ids[partition.select(recording, name)] for name in groups}
    diets["random"] = diets.pop("all")
    responses, stimulus, units = responses_to(recording, task)
    block = np.arange(len(stimulus)) * NUM_BLOCKS // len(stimulus)
    for num_units in NUM_UNITS:
        found = {
            diet: spread_over_blocks(responses, stimulus, block, columns, num_units, TASKS[task])
            for diet, columns in {
                diet: np.flatnonzero(np.isin(units, ids)) for diet, ids in diets.items()
            }.items()
        }
        reference, without = found["unpredictable"]
        for diet, (value, values_without) in found.items():
            factor = t.ppf(0.975, NUM_BLOCKS - 1)
            error = jackknife(values_without, value).standard_error
            log_ratio = np.log(value / reference)
            of_ratio = jackknife(np.log(values_without / without), log_ratio).standard_error
            yield {
                "task": task,
                "units": num_units,
                "diet": diet,
                "candidates": len(diets[diet]),
                "information": value * 1e3,
                "interval": factor * error * 1e3,
                "ratio": float(np.exp(log_ratio)),
                "low": float(np.exp(log_ratio - factor * of_ratio)),
                "high": float(np.exp(log_ratio + factor * of_ratio)),
            }


def responses_to(recording: ps.Recording, task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean normalised activity of every window, what was shown, and the units."""
    divided = ps.divide([recording], task, ps.SplitConfig(train=(recording.recording_id,)))
    population = ps.Population(divided, {recording.recording_id: list(recording.unit_ids)})
    [one] = divided
    asked = divided.task(task)
    timesteps = round(asked.length * recording.sampling_rate)
    windows = divided.windows(one, asked, "train", timesteps)
    activity = population.activity[recording.recording_id]
    responses = activity.binned(windows.first_timestep, timesteps, 1)
    return responses, divided.classes(asked)[windows.target], np.array(activity.unit_ids)


def spread_over_blocks(
    responses: np.ndarray,
    stimulus: np.ndarray,
    block: np.ndarray,
    columns: np.ndarray,
    num_units: int,
    period: float,
) -> tuple[float, np.ndarray]:
    """Information in the mean of draws of units: of all trials, and without each block."""
    rng = np.random.default_rng(0)
    draws = [rng.choice(columns, num_units, replace=False) for _ in range(NUM_DRAWS)]

    def measure(kept: np.ndarray) -> float:
        found = [
            information_of_neighbours(responses[np.ix_(kept, draw)], stimulus[kept], period)
            for draw in draws
        ]
        return float(np.mean(found))

    everything = np.arange(len(stimulus))
    without = [measure(everything[block != left_out]) for left_out in range(NUM_BLOCKS)]
    return measure(everything), np.array(without)


def labels_worth() -> Iterator[dict]:
    """One row a sequence and number of own labels beside the other animals."""
    rows = read_rows("yu_network")
    per = rows.groupby(["sequence", "what", "labels", "recording_id"])["accuracy"].mean()
    rng = np.random.default_rng(0)
    for sequence in rows["sequence"].unique():
        for what, without in WORTH.items():
            for labels in LABELS:
                reached = per[sequence, what, labels]
                curve = pd.DataFrame({n: per[sequence, without, n] for n in LABELS}).loc[
                    reached.index
                ]

                def worth(index: np.ndarray, curve: np.ndarray, reached: np.ndarray) -> float:
                    return equivalent_labels(
                        LABELS, curve[index].mean(axis=0), reached[index].mean()
                    )

                asked = curve.to_numpy(), reached.to_numpy()
                number = len(reached)
                drawn = [
                    worth(rng.integers(number, size=number), *asked) for _ in range(NUM_BOOTSTRAPS)
                ]
                low, high = np.quantile(drawn, [0.025, 0.975])
                yield {
                    "sequence": sequence,
                    "with the others": what,
                    "without": without,
                    "labels": labels,
                    "worth": worth(np.arange(number), *asked),
                    "low": float(low),
                    "high": float(high),
                }


if __name__ == "__main__":
    main()
