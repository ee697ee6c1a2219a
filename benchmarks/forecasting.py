"""Can the next second of every unit be forecast? Closed forms, and networks that correct them.

    python benchmarks/forecasting.py --data ../shared/data [--jobs 2] [--output runs/forecasting]

Two real sessions of gratings (Allen Brain Observatory, one mouse), 12 real recordings of spike
counts while textures were shown (Yu et al. 2022), and an observatory that is simulated in memory
(configs/simulated_observatory.yaml). From two seconds of all units every unit is forecast ten
steps of 0.1 s ahead, z-scored with training statistics, on the last fifth of every stretch without
a gap; the tenth before it validates, and a second between parts is left out.

Networks (``--seeds`` of each) start from scratch or from an encoder pretrained by masked activity
on the same training time, and correct a linear forecast from each unit's own past. Every fit's
forecasts go to ``--output`` as they come, and the same command goes on where it stopped. Writes
benchmarks/results/forecasting.json, .csv.gz (every unit) and .md. Takes 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
import torch
import yaml
from over_recordings import to_markdown
from result_files import RESULTS, as_columns, save_json, save_rows

import poyo_ssl as ps
from poyo_ssl.metrics.intervals import gain_interval
from poyo_ssl.metrics.scales import scale_of
from poyo_ssl.predictability.unit_statistics import compute_predictability
from poyo_ssl.recordings.simulation.simulator import SimulatorConfig, simulate_observatory
from poyo_ssl.study.forecast_windows import (
    ForecastConfig,
    ForecastWindows,
    Spans,
    cut_forecast_windows,
    hold_out_ends,
)
from poyo_ssl.study.forecasting import (
    by_step,
    compare_sides,
    over_horizon,
    r2_of_units,
    score_units,
    score_windows,
)
from poyo_ssl.study.forecasting_network import fit_forecaster, forecast_by_network
from poyo_ssl.study.linear_forecasts import FORECASTS, OwnPast

ALLEN = "sub-527550471_ses-{}_ophys.nwb"
OBSERVATORY = Path(__file__).parents[1] / "configs" / "simulated_observatory.yaml"
CONFIG, ENCODER, PRETRAINING = ForecastConfig(), ps.EncoderConfig(), ps.PretrainingConfig()
TRAINING = ps.TrainingConfig(
    max_steps=800, patience=4, max_valid_windows=256, unit_dropout=0.3, jitter=0.0
)
SEED = 0  # of the bootstrap
SMALLEST_P = 0.001  # written out
ADDED = "pasts of all less own past"
ROOTED = "own past, of signed square roots"
FEWEST_UNITS = 10  # of a kind, in a recording
NETWORKS = {"network": False, "network, pretrained": True}
"""Whether the encoder was pretrained."""
GAINS = [
    ("AR(1)", "copy"),
    ("own past", "AR(1)"),
    ("pasts of all", "own past"),
    ("network", "own past"),
    ("network", "pasts of all"),
    ("network, pretrained", "network"),
    ("network, pretrained", "pasts of all"),
]


def load_allen(session: str, data: Path) -> list[ps.Recording]:
    return ps.load_recordings(data / ALLEN.format(session))


def load_yu(data: Path) -> list[ps.Recording]:
    paths = sorted((data / "yu_sequences").glob("texture_*.npz"))
    return [ps.load_recordings(path)[0] for path in paths]


def simulate(data: Path) -> list[ps.Recording]:
    settings = yaml.safe_load(OBSERVATORY.read_text())
    config = SimulatorConfig(**settings | {"lines": tuple(settings["lines"])})
    return list(simulate_observatory(config))


SETS: dict[str, Callable[[Path], list[ps.Recording]]] = {
    "drifting gratings": partial(load_allen, "527745328-StimA"),
    "static gratings": partial(load_allen, "527676626-StimB"),
    "textures, spike counts": load_yu,
    "simulated": simulate,
}


@dataclass(frozen=True)
class Asked:
    """Recordings, and the windows of their parts."""

    population: ps.Population
    spans: Spans
    parts: list[dict[str, ForecastWindows]]

    @staticmethod
    def of(recordings: list[ps.Recording]) -> Asked:
        divided = [hold_out_ends(recording, CONFIG) for recording in recordings]
        units = {r.recording_id: list(r.unit_ids) for r in recordings}
        population = ps.Population(divided, units)
        spans = Spans.of(CONFIG, ENCODER, population.sampling_rate)
        return Asked(population, spans, cut_forecast_windows(population, spans))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("runs/forecasting"))
    parser.add_argument("--seeds", type=int, default=3, help="networks of each kind")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    forecasts = [
        *[(name, "closed", forecast_closed) for name in SETS],
        *[
            (name, f"{number}-{seed}", partial(forecast_network, is_pretrained=is_it, seed=seed))
            for seed in range(options.seeds)
            for name in SETS
            for number, is_it in enumerate(NETWORKS.values())
        ],
    ]
    joblib.Parallel(n_jobs=options.jobs, batch_size=1)(
        joblib.delayed(keep)(path_of(options.output, name, what), name, options.data, forecast)
        for name, what, forecast in forecasts
    )
    save({name: Scored.of(name, options) for name in SETS}, options)


def path_of(output: Path, name: str, what: str) -> Path:
    return output / f"{name.replace(', ', '-').replace(' ', '_')}-{what}.npz"


def keep(
    path: Path, name: str, data: Path, forecast: Callable[[Asked], dict[str, np.ndarray]]
) -> None:
    """Writes the forecasts of a file where it is not there."""
    if path.is_file():
        return
    torch.set_num_threads(1)
    asked = Asked.of(SETS[name](data))
    started = time.perf_counter()
    found = forecast(asked) | {"seconds": np.array(time.perf_counter() - started)}
    unfinished = path.with_suffix(".partial")
    with unfinished.open("wb") as file:
        np.savez(file, **found)
    os.replace(unfinished, path)
    print(path.stem, f"{found['seconds']:.0f} s", found.get("steps", ""), flush=True)


def forecast_closed(asked: Asked) -> dict[str, np.ndarray]:
    """Every closed form of every recording, by its name and the recording's position."""
    return {
        f"{name}/{k}": forecast(parts["train"], parts["test"].past).astype(np.float32)
        for k, parts in enumerate(asked.parts)
        for name, forecast in FORECASTS.items()
    }


def forecast_network(asked: Asked, is_pretrained: bool, seed: int) -> dict[str, np.ndarray]:
    """One network's of every recording, and the best and last step of its fit."""
    population = asked.population
    start: ps.Encoder | ps.EncoderConfig = ENCODER
    if is_pretrained:
        start = ps.pretrain(population, PRETRAINING, encoder=ENCODER, seed=seed)
    linear = {p["train"].recording_id: OwnPast.fit(p["train"]) for p in asked.parts}
    fitted = fit_forecaster(population, asked.spans, linear, start, TRAINING, seed=seed)
    tests = [parts["test"] for parts in asked.parts]
    forecasts = {
        str(k): forecast_by_network(
            fitted.network, population.activity[test.recording_id], test.first_timestep
        )
        for k, test in enumerate(tests)
    }
    return forecasts | {"steps": np.array([fitted.fit.best_step, fitted.fit.curves["step"].max()])}


class Scored(NamedTuple):
    """Every forecast of a set of recordings, scored."""

    steps: pd.DataFrame
    """``forecast`` and ``step`` to scores of all units together."""
    units: pd.DataFrame
    """Every unit's, over the horizon and seeds, by ``forecast``."""
    gains: pd.DataFrame
    """Of one forecast over another, in R²."""
    fits: pd.DataFrame
    """Steps and seconds of every network."""

    @staticmethod
    def of(name: str, options: argparse.Namespace) -> Scored:
        asked = Asked.of(SETS[name](options.data))
        forecasts, fits = read_forecasts(options.output, name, asked, options.seeds)
        scores = {what: score(asked, seeds) for what, seeds in forecasts.items()}
        windows = {
            what: windows_of(asked, list(islice(cycle(seeds), options.seeds)))
            for what, seeds in forecasts.items()
        }
        steps = {what: by_step(table, scores["copy"]) for what, table in scores.items()}
        units = {what: over_horizon(table) for what, table in scores.items()}
        units[ADDED] = units["pasts of all"].assign(
            r2=units["pasts of all"]["r2"] - units["own past"]["r2"]
        )
        units[ROOTED] = over_horizon(score_square_roots(asked))
        kinds = pd.concat([kinds_of(parts, asked.population) for parts in asked.parts])
        gains = pd.DataFrame(
            {"forecast": one, "over": other, **gain_of(windows[one], windows[other])}
            for one, other in GAINS
        )
        return Scored(
            pd.concat(steps, names=["forecast"]).reset_index(),
            pd.concat(units, names=["forecast"])
            .reset_index(level=0)
            .merge(kinds, on=["recording_id", "unit_id"]),
            gains,
            fits,
        )


def read_forecasts(
    output: Path, name: str, asked: Asked, num_seeds: int
) -> tuple[dict[str, list[list[np.ndarray]]], pd.DataFrame]:
    """Forecast to seeds (one where nothing is random) to recordings; and fits of networks."""
    positions = range(len(asked.parts))
    closed = np.load(path_of(output, name, "closed"))
    found = {what: [[closed[f"{what}/{k}"] for k in positions]] for what in FORECASTS}
    fits = []
    for number, what in enumerate(NETWORKS):
        files = [np.load(path_of(output, name, f"{number}-{seed}")) for seed in range(num_seeds)]
        found[what] = [[file[str(k)] for k in positions] for file in files]
        for seed, file in enumerate(files):
            best, last = map(int, file["steps"])
            fits.append([name, what, seed, best, last, round(float(file["seconds"]))])
    columns = ["recordings", "forecast", "seed", "best_step", "last_step", "seconds"]
    return found, pd.DataFrame(fits, columns=columns)


def score(asked: Asked, seeds: list[list[np.ndarray]]) -> pd.DataFrame:
    """Scores of all units and seeds together in one table."""
    return pd.concat(
        score_units(parts["train"], parts["test"], forecast)
        for recordings in seeds
        for parts, forecast in zip(asked.parts, recordings, strict=True)
    )


def score_square_roots(asked: Asked) -> pd.DataFrame:
    """Scores of forecasting each unit from its own past, of what networks read."""
    cut = cut_forecast_windows(asked.population, asked.spans, scaled=lambda rooted: rooted)
    return pd.concat(
        score_units(
            parts["train"],
            parts["test"],
            FORECASTS["own past"](parts["train"], parts["test"].past),
        )
        for parts in cut
    )


def windows_of(asked: Asked, seeds: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Scores of windows, (num_seeds, num_windows) a recording."""
    return [
        np.stack(
            [score_windows(parts["train"], parts["test"], recordings[k]) for recordings in seeds]
        )
        for k, parts in enumerate(asked.parts)
    ]


def gain_of(one: list[np.ndarray], other: list[np.ndarray]) -> dict[str, float]:
    gain = gain_interval(one, other, scale_of("r2"))
    return {"gain": gain.mean, "low": gain.low, "high": gain.high, "p": gain.p_value}


def kinds_of(parts: dict[str, ForecastWindows], population: ps.Population) -> pd.DataFrame:
    """Whether units are predictable by the published thresholds, on training time."""
    recording_id = parts["train"].recording_id
    [divided] = [d for d in population.divided if d.recording.recording_id == recording_id]
    recording = divided.recording
    units = compute_predictability(recording.df_over_f, recording.is_inside(divided.training))
    limits = ps.PredictabilityConfig()
    is_predictable = (units["skewness"] <= limits.skewness_max) & (
        units["kurtosis"] <= limits.kurtosis_max
    )
    return pd.DataFrame(
        {
            "recording_id": recording_id,
            "unit_id": recording.unit_ids,
            "is_predictable": is_predictable.to_numpy(),
        }
    )


def save(found: dict[str, Scored], options: argparse.Namespace) -> None:
    """Tables of all sets."""
    tables = {
        "methods": pd.concat(methods_of(name, scored) for name, scored in found.items()),
        "sides": pd.concat(sides_of(name, scored.units) for name, scored in found.items()),
        "gains": together({name: scored.gains for name, scored in found.items()}),
        "steps": together({name: scored.steps for name, scored in found.items()}),
        "fits": pd.concat(scored.fits for scored in found.values()),
    }
    save_json("forecasting", {key: as_columns(table, 4) for key, table in tables.items()})
    units = together({name: scored.units for name, scored in found.items()})
    units = units[units["forecast"] != ADDED]
    save_rows("forecasting", units.drop(columns=["error", "absolute_error", "spread"]).round(3))
    fits = tables["fits"]
    command = f"python benchmarks/forecasting.py --data {options.data} --seeds {options.seeds}"
    page = [
        "# Forecasts of the next second",
        f"`{command}`, {fits['seconds'].sum() / 60:.0f} minutes of fits of networks on one CPU "
        "core each, which other jobs shared. `R2`: of all units and steps together, the mean over "
        "recordings; [95 %], bootstrap over recordings and units. `R2_first`, `R2_last`: of the "
        "first and last step (0.1 s and 1 s ahead). `median_unit`: of the R² of single units. "
        "`MAE`: z-scores. `above_copy`: 1 - MSE / MSE of copying. Networks: mean over "
        f"{options.seeds} seeds.",
        to_markdown(tables["methods"]),
        "## Gains in R²",
        "[95 %] over blocks of windows; from three recordings on over recordings, from three seeds "
        "on over seeds, too.",
        with_p(tables["gains"]),
        "## Predictable and unpredictable units",
        "Of recordings with ten units or more of both kinds; all of the textures are unpredictable "
        "by the published thresholds. `median`: of the R² of units. `probability`: that a "
        "predictable unit has the higher one. `p`: Mann and Whitney, over units.",
        with_p(tables["sides"]),
        "## Fits",
        to_markdown(fits),
    ]
    (RESULTS / "forecasting.md").write_text("\n\n".join(page) + "\n")
    print("\n\n".join(page))


def with_p(table: pd.DataFrame) -> str:
    """A table whose p values say how small they are."""
    return to_markdown(
        table.assign(p=[f"{p:.3f}" if p >= SMALLEST_P else f"< {SMALLEST_P}" for p in table["p"]])
    )


def together(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables of all sets below each other."""
    return pd.concat(tables, names=["recordings"]).reset_index(level=0).reset_index(drop=True)


def methods_of(name: str, scored: Scored) -> pd.DataFrame:
    """One row a forecast."""
    rows = []
    for what, steps in scored.steps.groupby("forecast", sort=False):
        units = scored.units[scored.units["forecast"] == what]
        r2 = r2_of_units(units, seed=SEED)
        rows.append(
            {
                "recordings": name,
                "forecast": what,
                "R2": r2.mean,
                "low": r2.low,
                "high": r2.high,
                "R2_first": steps["r2"].iloc[0],
                "R2_last": steps["r2"].iloc[-1],
                "median_unit": units["r2"].median(),
                "MAE": steps["absolute_error"].mean(),
                "above_copy": steps["above_copy"].mean(),
            }
        )
    return pd.DataFrame(rows)


def sides_of(name: str, units: pd.DataFrame) -> pd.DataFrame:
    """One row for each recording with enough units of both kinds, and forecast."""
    asked = ("AR(1)", "own past", "pasts of all", "network, pretrained", ADDED, ROOTED)
    sides = {what: compare_sides(units[units["forecast"] == what]) for what in asked}
    table = pd.concat(sides, names=["forecast"]).reset_index(level=0)
    table = table[table[["num_predictable", "num_unpredictable"]].min(axis=1) >= FEWEST_UNITS]
    table.insert(0, "recordings", name)
    return table.rename(columns={"p_value": "p"})


if __name__ == "__main__":
    main()
