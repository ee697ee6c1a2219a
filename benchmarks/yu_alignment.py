"""Labels of other animals, through a shared stimulus, on 25 recordings of mouse visual cortex.

``python benchmarks/yu_alignment.py DATA`` (a folder with the recordings of Yu et al. 2022, one
``.npz`` each) writes ``results/yu_alignment.json`` and ``.md``. Each recording is left out in
turn. Units are aligned on every other segment of the sequence that all recordings saw; the other
segments are told apart, with labels of the other recordings and none, 1, 2 or 5 of its own.

Reference: Yu, Stirman, Dorsett and Smith, Current Biology 2022.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from over_recordings import mean_over_recordings, save_tables, to_markdown
from scipy.stats import kurtosis, ttest_rel

from poyo_ssl.alignment.responses import Responses, SharedStimulus, measure_responses
from poyo_ssl.alignment.shared_response import SharedSpace
from poyo_ssl.decoders.aligned import (
    NUM_DIMENSIONS,
    AlignedDecoder,
    fit_across_animals,
    fit_ridge_towards,
)
from poyo_ssl.decoders.linear import fit_ridge
from poyo_ssl.decoders.linear_transfer import fit_semi_supervised_ridge
from poyo_ssl.recordings.loading import load_recordings
from poyo_ssl.windows.divide import DividedRecording, divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.principal_modes import PrincipalModes
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.task_windows import find_any_windows
from poyo_ssl.windows.tasks import Task

SHARED = SharedStimulus(stimulus="sequence", column="segment")
SEQUENCES = {"rdk": (12, 3.0), "texture": (16, 4.0)}
"""Number of segments and their length in seconds."""
BUDGETS = (1, 2, 5)
NUM_DRAWS = 4
NUM_SOURCES = (1, 2, 4, 8)
SHARES = {"1/16": 1 / 16, "1/8": 1 / 8, "1/4": 1 / 4, "1/2": 1 / 2}
"""Parts of the cells of every recording."""
DIETS = (
    "predictable", "random", "unpredictable",
    "predictable, rate matched", "unpredictable, rate matched",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Animal:
    """One recording, divided into what aligns and what is told apart."""

    name: str
    responses: Responses
    features: np.ndarray
    """Mean activity in the windows to tell apart, (num_windows, num_units)."""
    target: np.ndarray
    repeat: np.ndarray
    modes: PrincipalModes
    diets: dict[str, np.ndarray]
    """Columns of the units of every diet."""

    def only(self, columns: np.ndarray) -> Animal:
        """The same with some units."""
        one = self.responses
        responses = Responses(
            recording_id=one.recording_id,
            unit_ids=[one.unit_ids[i] for i in columns],
            bins=one.bins,
            activity=one.activity[:, columns],
            reliability=one.reliability[columns],
        )
        return Animal(
            self.name, responses, self.features[:, columns], self.target, self.repeat,
            self.modes, {},
        )  # fmt: skip


def prepare(data: Path, sequence: str, half: int, delay: float) -> list[Animal]:
    """All recordings of a sequence; ``delay`` s after a change of segment nothing is looked at."""
    num_segments, length = SEQUENCES[sequence]
    asked = tuple(range(1 - half, num_segments, 2))
    task = Task(
        stimulus="sequence", column="segment", window_offset=delay, window_length=length - delay
    )
    config = SplitConfig(
        held_out_column="segment", held_out_values=asked, valid_fraction=0.0, guard=delay
    )
    recordings = [load_recordings(path)[0] for path in sorted(data.glob(f"{sequence}_*.npz"))]
    if not recordings:
        return []
    divided = divide(recordings, task, config)
    population = Population(divided, {r.recording_id: list(r.unit_ids) for r in recordings})
    return [_prepare_one(population, d, task) for d in population.divided]


def _prepare_one(population: Population, divided: DividedRecording, task: Task) -> Animal:
    recording = divided.recording
    activity = population.activity[recording.recording_id]
    num_timesteps = round(task.length * recording.sampling_rate)
    windows = population.divided.windows(divided, task, "test", num_timesteps)
    anywhere = find_any_windows(recording, divided.training, num_timesteps)[::2]
    assert windows.trial is not None
    return Animal(
        recording.recording_id,
        measure_responses(population, divided, SHARED),
        activity.binned(windows.first_timestep, num_timesteps, 1),
        np.unique(windows.target, return_inverse=True)[1],
        recording.stimulus("sequence")["repeat"].to_numpy()[windows.trial],
        PrincipalModes.measure(activity.binned(anywhere, num_timesteps, 1)),
        _diets(recording.df_over_f[recording.is_inside(divided.training)]),
    )


def _diets(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Halves of the units by kurtosis on training time; matched ones within pairs of like rate."""
    tails = np.nan_to_num(kurtosis(counts, axis=0, fisher=False), nan=np.inf)
    by_tail = np.argsort(tails, kind="stable")
    half = len(by_tail) // 2
    by_rate = np.argsort((counts > 0).mean(axis=0), kind="stable")[: 2 * half].reshape(-1, 2)
    is_swapped = tails[by_rate[:, 0]] > tails[by_rate[:, 1]]
    low = np.where(is_swapped, by_rate[:, 1], by_rate[:, 0])
    high = np.where(is_swapped, by_rate[:, 0], by_rate[:, 1])
    drawn = np.random.default_rng(0).permutation(len(by_tail))
    halves = (by_tail[:half], drawn[:half], by_tail[-half:], low, high)
    return dict(zip(DIETS, halves, strict=True))


def learn(sources: list[Animal]) -> AlignedDecoder:
    """What the labels of some recordings say."""
    space = SharedSpace.fit([one.responses for one in sources], NUM_DIMENSIONS)
    projected = [space.place(one.responses).project(one.features) for one in sources]
    targets = [one.target for one in sources]
    weights = fit_across_animals(projected, targets, int(targets[0].max()) + 1)
    return AlignedDecoder(shared=SHARED, space=space, weights=weights)


def score_without_labels(
    animal: Animal, sources: list[Animal], shuffle: int | None = None
) -> float:
    """Accuracy in a recording of which no label is known."""
    decoder = learn(sources)
    loadings = decoder.space.place(animal.responses)
    if shuffle is not None:
        loadings = loadings.shuffled(shuffle)
    readout = decoder.readout(loadings)
    scores = readout.scores(animal.features, animal.responses.unit_ids)
    return float((scores.argmax(1) == animal.target).mean())


def score_with_labels(animal: Animal, sources: list[Animal], budget: int) -> dict[str, float]:
    """Accuracy on the repeats that were not labelled, mean over draws of repeats."""
    decoder = learn(sources)
    loadings, ids = decoder.space.place(animal.responses), animal.responses.unit_ids
    others, shuffled = (decoder.readout(one) for one in (loadings, loadings.shuffled(0)))
    num_classes = decoder.weights.shape[1]
    found: dict[str, list[float]] = {}
    for draw in range(NUM_DRAWS):
        repeats = np.unique(animal.repeat)
        labelled = np.isin(animal.repeat, np.random.default_rng(draw).permutation(repeats)[:budget])
        x, y = animal.features[labelled].astype(float), animal.target[labelled]
        own = fit_semi_supervised_ridge(x, y, num_classes, ids, animal.modes)
        prior = others.weights[0].astype(float)
        readouts = {
            "ridge": fit_ridge(x, y, num_classes, ids),
            "ridge, semi-supervised": own,
            "ridge, aligned": fit_ridge_towards(x, y, others, animal.modes.mean),
            "ridge, aligned, shuffled": fit_ridge_towards(x, y, shuffled, animal.modes.mean),
            "ridge, starting from aligned": fit_semi_supervised_ridge(
                x, y, num_classes, ids, animal.modes, prior
            ),
        }
        for name, readout in readouts.items():
            right = readout.scores(animal.features[~labelled], ids).argmax(1)
            found.setdefault(name, []).append(float((right == animal.target[~labelled]).mean()))
    return {name: float(np.mean(scores)) for name, scores in found.items()}


def score_sources(animal: Animal, sources: list[Animal], number: int) -> float:
    """Accuracy without a label, mean over draws of so many source recordings."""
    drawn = (
        np.random.default_rng(draw).permutation(len(sources))[:number] for draw in range(NUM_DRAWS)
    )
    return float(np.mean([score_without_labels(animal, [sources[i] for i in d]) for d in drawn]))


def score_cells(animal: Animal, sources: list[Animal], share: float) -> float:
    """Accuracy without a label where of every recording a part of the cells is known."""

    def some(one: Animal, draw: int) -> Animal:
        num_units = len(one.responses.unit_ids)
        order = np.random.default_rng([draw, num_units]).permutation(num_units)
        return one.only(order[: max(2, round(share * num_units))])

    return float(
        np.mean(
            [
                score_without_labels(some(animal, draw), [some(one, draw) for one in sources])
                for draw in range(NUM_DRAWS)
            ]
        )
    )


def score_all(data: Path, test_on: Path | None) -> pd.DataFrame:
    """One row a recording, half and question: ``what``, ``labels`` and ``accuracy``."""
    rows = []
    for sequence in SEQUENCES:
        for half in (0, 1):
            for delay in (0.0, 1.0):
                animals = prepare(data, sequence, half, delay)
                asked = animals if test_on is None else prepare(test_on, sequence, half, delay)
                for animal in asked:
                    sources = [one for one in animals if one.name != animal.name]
                    for what, labels, accuracy in _questions(animal, sources, delay):
                        rows.append((sequence, delay, animal.name, half, what, labels, accuracy))
    names = ["sequence", "delay", "recording_id", "half", "what", "labels", "accuracy"]
    return pd.DataFrame(rows, columns=names)


def _questions(animal: Animal, sources: list[Animal], delay: float):
    yield "aligned", 0, score_without_labels(animal, sources)
    shuffled = [score_without_labels(animal, sources, draw) for draw in range(NUM_DRAWS)]
    yield "aligned, shuffled", 0, float(np.mean(shuffled))
    for budget in BUDGETS:
        for name, accuracy in score_with_labels(animal, sources, budget).items():
            yield name, budget, accuracy
    if delay:
        return
    for number in NUM_SOURCES:
        yield f"{number} sources", 0, score_sources(animal, sources, number)
    for name, share in SHARES.items():
        yield f"{name} of the cells", 0, score_cells(animal, sources, share)
    for diet in DIETS:
        eaten = [one.only(one.diets[diet]) for one in sources]
        yield f"diet: {diet}", 0, score_without_labels(animal, eaten)


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """Paired differences over recordings with p-values (paired t-test)."""
    pairs = [
        ("ridge, aligned", base, n)
        for n in BUDGETS
        for base in ("ridge", "ridge, semi-supervised", "ridge, aligned, shuffled")
    ]
    pairs += [("aligned", "aligned, shuffled", 0)]
    pairs += [
        (f"diet: {one}", f"diet: {other}", 0)
        for one, other in (
            ("predictable", "unpredictable"),
            ("predictable", "random"),
            ("predictable, rate matched", "unpredictable, rate matched"),
        )
    ]
    per = rows.groupby(["sequence", "delay", "what", "labels", "recording_id"])["accuracy"].mean()
    found = []
    for (sequence, delay), part in per.groupby(level=[0, 1]):
        for one, other, labels in pairs:
            try:
                a, b = (part.loc[sequence, delay, what, labels] for what in (one, other))
            except KeyError:
                continue  # diets are scored without a delay alone
            p = float(ttest_rel(a, b).pvalue)
            found.append((sequence, delay, one, other, labels, float((a - b).mean()), p))
    names = ["sequence", "delay", "what", "against", "labels", "difference", "p"]
    return pd.DataFrame(found, columns=names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--test_on",
        type=Path,
        help="a folder of other recordings, each of which is decoded with all of DATA as sources; "
        "results are printed, not kept",
    )
    options = parser.parse_args()
    rows = score_all(options.data, options.test_on)
    by = ["sequence", "delay", "what", "labels"]
    summary, pairs = mean_over_recordings(rows, by), compare(rows)
    if options.test_on is not None:
        print(to_markdown(summary), to_markdown(pairs), sep="\n\n")
        return
    page = [
        "# Labels of other animals through a shared stimulus",
        "`python benchmarks/yu_alignment.py DATA`: 25 recordings (Yu et al. 2022), each left out "
        f"in turn, both halves of the segments, {NUM_DIMENSIONS} dimensions; chance rdk .167, "
        "texture .125. `delay`: seconds after a change of segment at which nothing is looked at, "
        "so that no activity of an aligned segment lasts into a window that is told apart. "
        "Intervals: 95 % over recordings.",
        to_markdown(summary),
        "## Paired differences over recordings",
        to_markdown(pairs),
    ]
    save_tables("yu_alignment", {"rows": rows, "summary": summary, "pairs": pairs}, page)


if __name__ == "__main__":
    main()
