"""Can predictable units be told from the others? Held-out R² beside skewness and kurtosis.

    python benchmarks/reconstruction.py --data ../shared/data [--seeds 3]

Two real sessions and an observatory that is simulated in memory
(configs/simulated_observatory.yaml). Writes benchmarks/results/reconstruction.json, .csv.gz (every
unit), .md and .png. Takes six minutes.

Every unit is predicted from the others on the time that validates or tests: by a network
pretrained on masked activity, by a line from the population mean, and by ridge on all others. The
network's R² is the mean over seeds; the others have nothing random. The linear ones are measured
a second time on z-scores without the signed square root that the package's networks read.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure
from result_files import RESULTS, save_json, save_rows

from poyo_ssl.model.encoder import EncoderConfig
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.recordings.loading import load_recording
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.simulation.simulator import SimulatorConfig, simulate_observatory
from poyo_ssl.study.held_out_patches import cut_patches
from poyo_ssl.study.linear_reconstruction import (
    predict_by_population_mean,
    predict_by_ridge,
    variance_explained,
)
from poyo_ssl.study.reconstruction import ESTIMATES, correlate_with_proxies, measure_reconstruction
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import DIRECTION, MOVIE, ORIENTATION, Task

SESSIONS = {
    "drifting gratings": ("sub-527550471_ses-527745328-StimA_ophys.nwb", DIRECTION),
    "static gratings": ("sub-527550471_ses-527676626-StimB_ophys.nwb", ORIENTATION),
}
OBSERVATORY = Path(__file__).parents[1] / "configs" / "simulated_observatory.yaml"
ENCODER, PRETRAINING = EncoderConfig(), PretrainingConfig()
SEED = 0  # of the bootstrap
TITLES = {
    "r2_network": "network",
    "r2_population_mean": "population mean",
    "r2_ridge": "ridge",
    "r2_network_above_mean": "network above the mean",
    "r2_ridge_above_mean": "ridge above the mean",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=3, help="networks for each set of recordings")
    options = parser.parse_args()
    units, seeds, without_root = [], [], []
    for name, population in populations(options.data):
        runs = [
            rename(measure_reconstruction(population, ENCODER, PRETRAINING, seed=seed), name)
            for seed in range(options.seeds)
        ]
        seeds += [
            correlate_with_proxies(run, seed=SEED).assign(seed=k) for k, run in enumerate(runs)
        ]
        units.append(average(runs))
        without_root.append(measure_without_root(population, units[-1]))
    table = pd.concat(units, ignore_index=True)
    rooted = pd.concat(without_root, ignore_index=True)
    result = {
        "command": f"python benchmarks/reconstruction.py --data {options.data} "
        f"--seeds {options.seeds}",
        "rows": describe(table),
        "rows_without_square_root": describe(rooted),
        "network_by_seed": by_seed(pd.concat(seeds)),
    }
    save_json("reconstruction", result)
    save_rows("reconstruction", table.round(4))
    (RESULTS / "reconstruction.md").write_text(format_markdown(result))
    plot_units(table, RESULTS / "reconstruction.png")
    print(format_markdown(result))


def populations(data: Path) -> Iterator[tuple[str, Population]]:
    """Each real session by itself, then all simulated recordings together."""
    for name, (file, task) in SESSIONS.items():
        yield name, population_of([load_recording(data / file)], [task])
    settings = yaml.safe_load(OBSERVATORY.read_text())
    config = SimulatorConfig(**settings | {"lines": tuple(settings["lines"])})
    yield "simulated", population_of(simulate_observatory(config), [DIRECTION, MOVIE])


def population_of(recordings: list[Recording], tasks: list[Task]) -> Population:
    divided = divide(recordings, tasks, SplitConfig())
    return Population(divided, {r.recording_id: list(r.unit_ids) for r in recordings})


def rename(units: pd.DataFrame, name: str) -> pd.DataFrame:
    """Real sessions are called after their stimulus, simulated ones 'simulated' and their id."""
    if name == "simulated":
        return units.assign(recording_id="simulated: " + units["recording_id"])
    return units.assign(recording_id=name)


def average(runs: list[pd.DataFrame]) -> pd.DataFrame:
    """Every unit's mean over seeds."""
    together = pd.concat(runs).groupby(["recording_id", "unit_id"], sort=False)
    return together.mean().reset_index()


def measure_without_root(population: Population, units: pd.DataFrame) -> pd.DataFrame:
    """The linear estimates of z-scores; the network's are left out."""
    for name, activity in population.activity.items():
        rooted = activity.values  # noqa: PD011 (a tensor, not a table)
        population.activity[name] = replace(activity, values=rooted.sign() * rooted.square())
    means, ridges = [], []
    for patches in cut_patches(population, ENCODER, PRETRAINING.window_length):
        train, held_out = (
            part.reshape(-1, part.shape[-1]) for part in (patches.train, patches.held_out)
        )
        means.append(variance_explained(held_out, predict_by_population_mean(train, held_out)))
        ridges.append(variance_explained(held_out, predict_by_ridge(train, held_out)))
    mean, ridge = np.concatenate(means), np.concatenate(ridges)
    return units.drop(columns=["r2_network", "r2_network_above_mean"]).assign(
        r2_population_mean=mean, r2_ridge=ridge, r2_ridge_above_mean=ridge - mean
    )


def is_predictable(units: pd.DataFrame) -> pd.Series:
    config = PredictabilityConfig()
    return (units["skewness"] <= config.skewness_max) & (units["kurtosis"] <= config.kurtosis_max)


def describe(units: pd.DataFrame) -> list[dict]:
    """Rank correlations and medians, one row per recording and estimate."""
    correlations = correlate_with_proxies(units, seed=SEED)
    rows = []
    for (name, estimate), pair in correlations.groupby(["recording_id", "estimate"], sort=False):
        table = units[units["recording_id"] == name]
        sides = is_predictable(table)
        row = {
            "recording": name,
            "estimate": estimate,
            "num_patches": int(table["num_patches"].iloc[0]),
            "num_predictable": int(sides.sum()),
            "num_unpredictable": int((~sides).sum()),
            "median_predictable": float(table.loc[sides, estimate].median()),
            "median_unpredictable": float(table.loc[~sides, estimate].median()),
        }
        for proxy in pair.itertuples():
            row[proxy.proxy] = [proxy.spearman, proxy.low, proxy.high]
        rows.append(row)
    return rows


def by_seed(seeds: pd.DataFrame) -> list[dict]:
    """Smallest and largest rank correlation of a single network, over seeds."""
    network = seeds[seeds["estimate"] == "r2_network"]
    spans = network.groupby(["recording_id", "proxy"], sort=False)["spearman"]
    return spans.agg(["min", "max"]).reset_index().to_dict(orient="records")


def format_markdown(result: dict) -> str:
    rows = result["rows"]
    sizes = {row["recording"]: row for row in rows}
    lines = [
        f"`{result['command']}`",
        "",
        "R² of every unit's activity on held-out time, predicted from the other units, in patches "
        "of a third of a second. Medians of predictable and unpredictable units (published "
        "thresholds, training time), and Spearman's correlation of R² with skewness and kurtosis "
        "over units [95 % interval]. Above the mean: less the R² of the population mean.",
        "",
        *[
            f"- {name}: {row['num_predictable']} predictable and {row['num_unpredictable']} "
            f"unpredictable units, {row['num_patches']} held-out patches"
            for name, row in sizes.items()
        ],
        "",
        *format_table(rows),
        "",
        "The same of z-scores, without the signed square root:",
        "",
        *format_table(result["rows_without_square_root"]),
        "",
        "Spearman's correlation of a single network, smallest and largest over seeds: "
        + "; ".join(
            f"{row['recording_id']}, {row['proxy']}: {row['min']:.2f} to {row['max']:.2f}"
            for row in result["network_by_seed"]
        )
        + ".",
    ]
    return "\n".join(lines) + "\n"


def format_table(rows: list[dict]) -> list[str]:
    lines = [
        "| recording | predicted by | R² predictable | R² unpredictable | with skewness "
        "| with kurtosis |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        correlations = [
            f"{value:.2f} [{low:.2f}, {high:.2f}]"
            for value, low, high in (row["skewness"], row["kurtosis"])
        ]
        medians = [f"{row[f'median_{side}']:.3f}" for side in ("predictable", "unpredictable")]
        cells = [row["recording"], TITLES[row["estimate"]], *medians, *correlations]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def plot_units(units: pd.DataFrame, path: Path) -> None:
    """R² against kurtosis: a column for each recording, a row for each predictor."""
    names, estimates = units["recording_id"].unique(), ESTIMATES[:3]
    figure = Figure(figsize=(2.7 * len(names), 7), layout="constrained", dpi=120)
    panels = figure.subplots(len(estimates), len(names), sharex=True, sharey=True)
    sides = is_predictable(units)
    for row, estimate in zip(panels, estimates, strict=True):
        row[0].set_ylabel(f"R², {TITLES[estimate]}")
        for axes, name in zip(row, names, strict=True):
            for side, colour, marker in ((sides, "#0072B2", "o"), (~sides, "#D55E00", "^")):
                chosen = units[side & (units["recording_id"] == name)]
                axes.scatter(chosen["kurtosis"], chosen[estimate], 9, colour, marker, alpha=0.6)
            axes.axhline(0, color="#888888", linewidth=0.6)
            axes.set_xscale("log")
    for axes, name in zip(panels[0], names, strict=True):
        axes.set_title(name, fontsize="medium")
    figure.supxlabel("kurtosis on training time (blue: predictable)")
    figure.savefig(path)


if __name__ == "__main__":
    main()
