"""How rough and how curved the loss of networks is that learned from one diet or another.

    python benchmarks/landscape.py ../shared/data/sub-527550471_ses-527745328-StimA_ophys.nwb

Networks learn the direction of drifting gratings from as many predictable, unpredictable or random
units of a real session, three seeds each (units are drawn anew where there are more of them). Of
the cross-entropy on all training windows, without dropout and in double precision, are measured
about the weights that were found:

- how much of its variance along filter-normalised random directions, from -1 to 1 for all, no
  parabola explains (roughness; a plain bowl of the same curvature has 0: the control);
- the largest eigenvalue and the trace of the Hessian;
- the barrier on the straight line to the network of another seed;
- the empirical Fisher information of test windows: the squared gradient of the log-probability of
  what was shown, a window.

Rows go to ``--output`` as they come, and the same command goes on where it stopped. Writes
benchmarks/results/landscape.json and .md. Takes 15 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from over_recordings import save_tables, to_markdown
from scipy.stats import t

import poyo_ssl as ps
from poyo_ssl.model.readouts import LabelDecoder
from poyo_ssl.study.landscape import LossSurface, roughness
from poyo_ssl.windows.activity import Windows

TASK = "direction"
DIETS = ("predictable", "unpredictable", "random")
SEEDS = range(3)
NEXT = 5
"""From a seed to that of the network at the other end of a barrier."""
NUM_DIRECTIONS = 10
STEPS = np.linspace(-1, 1, 21)
NUM_PROBES = 10
MEASURES = (
    "accuracy", "loss", "roughness", "bowl", "largest_eigenvalue", "trace", "barrier", "fisher",
)  # fmt: skip
RATIO_OF = ("roughness", "largest_eigenvalue", "trace", "barrier", "fisher")


@dataclass(frozen=True)
class Fitted:
    """A network and the windows that it is asked about."""

    network: LabelDecoder
    train: tuple[Windows, torch.Tensor]
    test: tuple[Windows, torch.Tensor]
    accuracy: float

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """All weights."""
        return [p for p in self.network.parameters() if p.requires_grad]

    def loss(self) -> torch.Tensor:
        """Cross-entropy on the training windows."""
        windows, target = self.train
        return F.cross_entropy(self.network(windows), target)

    def fisher(self) -> float:
        """Squared gradient of the log-probability of what was shown, the mean of test windows."""
        windows, target = self.test
        found = []
        for i in range(len(target)):
            one = Windows(windows.activity[i : i + 1], windows.unit_index)
            loss = F.cross_entropy(self.network(one), target[i : i + 1])
            gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            found.append(sum(float(g.square().sum()) for g in gradients if g is not None))
        return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/landscape"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = joblib.Parallel(n_jobs=options.jobs, batch_size=1)(
        joblib.delayed(kept)(options.output / f"{diet}-{seed}.json", options.data, diet, seed)
        for seed in SEEDS
        for diet in DIETS
    )
    table = pd.DataFrame(rows)
    means = table.groupby("diet", sort=False)[list(MEASURES)].mean().reset_index()
    ratios = pd.DataFrame([ratio_of(table, measure) for measure in RATIO_OF])
    page = [
        "# Loss surfaces by diet",
        f"`python benchmarks/landscape.py DATA`: {TASK} of drifting gratings, as many units of "
        f"each diet, {len(SEEDS)} seeds, {NUM_DIRECTIONS} directions a network. `bowl`: roughness "
        "of a parabola of the same curvature. `loss` and `barrier` are in nats.",
        to_markdown(means),
        "## Predictable over unpredictable units",
        "Geometric means over seeds, 95 % interval of their logarithms (t).",
        to_markdown(ratios),
    ]
    save_tables("landscape", {"rows": table, "means": means, "ratios": ratios}, page)
    print("\n\n".join(page))


def kept(path: Path, data: Path, diet: str, seed: int) -> dict:
    """The row of a file, which is written where it is not there."""
    if not path.is_file():
        torch.set_num_threads(1)
        row = {"diet": diet, "seed": seed, **measure(data, diet, seed)}
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(json.dumps(row))
        os.replace(unfinished, path)
        print(row, flush=True)
    return json.loads(path.read_text())


def measure(data: Path, diet: str, seed: int) -> dict[str, float]:
    """All that is asked of one network."""
    [recording] = ps.load_recordings(data)
    units = choose_units(recording, diet, seed)
    fitted, other = (fit(recording, units, seed + shift) for shift in (0, NEXT))
    rng = np.random.default_rng(seed)
    surface = LossSurface(fitted.parameters, fitted.loss)
    profiles = [
        surface.profile(surface.random_direction(rng), STEPS) for _ in range(NUM_DIRECTIONS)
    ]
    bowls = [np.polynomial.Polynomial.fit(STEPS, losses, 2)(STEPS) for losses in profiles]
    there = torch.nn.utils.parameters_to_vector(other.parameters).detach().numpy()
    between = surface.profile(there - surface.origin.numpy(), np.linspace(0, 1, 11))
    straight = np.linspace(between[0], between[-1], len(between))
    return {
        "accuracy": fitted.accuracy,
        "loss": float(fitted.loss().detach()),
        "roughness": float(np.mean([roughness(STEPS, losses) for losses in profiles])),
        "bowl": float(np.mean([roughness(STEPS, losses) for losses in bowls])),
        "largest_eigenvalue": surface.largest_eigenvalue(rng),
        "trace": surface.trace(rng, NUM_PROBES).value,
        "barrier": float((between - straight).max()),
        "fisher": fitted.fisher(),
    }


def choose_units(recording: ps.Recording, diet: str, seed: int) -> list[str]:
    """As many of every diet as the rarer kind has."""
    partition = ps.partition_by_predictability(ps.divide([recording], TASK))
    ids = {
        "predictable": recording.unit_ids[partition.select(recording, "predictable")],
        "unpredictable": recording.unit_ids[partition.select(recording, "unpredictable")],
        "random": recording.unit_ids,
    }
    number = min(len(of_diet) for of_diet in ids.values())
    drawn = np.random.default_rng(seed).permutation(len(ids[diet]))[:number]
    return ids[diet][np.sort(drawn)].tolist()


def fit(recording: ps.Recording, units: list[str], seed: int) -> Fitted:
    """One network, trained as by default, and its windows in double precision."""
    divided = ps.divide([recording], TASK)
    population = ps.Population(divided, {recording.recording_id: units})
    decoder = ps.finetune(population, TASK, config=ps.FinetuningConfig(members=1), seed=seed)
    [accuracy] = ps.evaluate(decoder, divided).table["accuracy"]
    network = decoder.networks[0].double()
    asked = {}
    for part in ("train", "test"):
        [source] = population.labelled_sources(
            network.encoder, divided.task(TASK), part, decoder.question.num_timesteps
        )
        batch = source.batch(np.arange(len(source)), np.zeros(len(source), dtype=int))
        asked[part] = Windows(batch.activity.double(), batch.unit_index), batch.target
    return Fitted(network, asked["train"], asked["test"], float(accuracy))


def ratio_of(rows: pd.DataFrame, measure: str) -> dict:
    """Of a measure, predictable over unpredictable, paired by seed."""
    by_diet = rows.pivot_table(index="seed", columns="diet", values=measure)
    ratios = np.log(by_diet["predictable"] / by_diet["unpredictable"])
    interval = t.ppf(0.975, len(ratios) - 1) * ratios.sem()
    low, value, high = (float(np.exp(ratios.mean() + k * interval)) for k in (-1, 0, 1))
    return {"measure": measure, "ratio": value, "low": low, "high": high}


if __name__ == "__main__":
    main()
