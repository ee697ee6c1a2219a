"""Are interneurons the predictable cells? Skewness and kurtosis of cells of known type.

    python benchmarks/interneurons.py --data ../shared/data [--figure interneurons.png]

Reads interneurons/gcamp6f_cells.h5 (single GCaMP6f cells of mouse V1 from the ground truth of
Rupprecht et al. 2021) and writes benchmarks/results/interneurons.json and .md. Takes seconds.

A cell counts once: its recordings are not independent. Their names tell which cell they are of
(``..._Cell05_PuffKCl01_mini_3``), save in two of the pyramidal sets, whose numbers name the
recording; there every recording counts as a cell.

Rate, noise and duration change both statistics, and differ between the preparations. So all is
measured several times: as recorded; after low-pass filtering to a common rate; at that rate in
the first two minutes of every cell alone; with noise added until all cells are equally noisy.
"""

import argparse
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.stats
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d

from poyo_ssl.predictability.activity_statistics import compute_activity_statistics
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.predictability.unit_statistics import compute_predictability

GROUPS = ("pyramidal, in vivo", "PV, slice", "PV, in vivo", "SST, slice", "VIP, slice")
COMMON_RATE = 10.0  # Hz; the slowest recordings have 26.6
LOW_PASS = 0.1  # seconds, standard deviation of the Gaussian
COMMON_DURATION = 120.0  # seconds
COMMON_NOISE = 2.5  # % / sqrt(Hz), that of the noisiest group
NOISE_PER_SIGMA = 100 * np.sqrt(2) * scipy.stats.norm.ppf(0.75)  # of white noise at 1 Hz
MIN_DURATION = 60.0  # seconds that a cell needs to count
NUM_RESAMPLES = 5000
SEED = 0

Trace = tuple[float, np.ndarray]
"""Sampling rate (Hz) and ΔF/F, shape (num_timesteps,)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--figure", type=Path, help="where to draw every cell")
    options = parser.parse_args()
    cells = read_cells(options.data / "interneurons" / "gcamp6f_cells.h5")
    measured = {name: measure_cells(cells, treat) for name, treat in TREATMENTS.items()}
    result = {
        "command": f"python benchmarks/interneurons.py --data {options.data}",
        "thresholds": {name: getattr(PredictabilityConfig(), name) for name in THRESHOLDS},
        "treatments": {
            name: {group: describe_group(table, group) for group in GROUPS}
            for name, table in measured.items()
        },
    }
    results = Path(__file__).parent / "results"
    text = format_markdown(result)
    (results / "interneurons.json").write_text(json.dumps(result, indent=1) + "\n")
    (results / "interneurons.md").write_text(text)
    print(text)
    if options.figure is not None:
        plot_cells(measured["as recorded"], options.figure)


def read_cells(path: Path) -> dict[tuple[str, str], list[Trace]]:
    """(Group, cell) to the traces of its recordings."""
    cells: dict[tuple[str, str], list[Trace]] = {}
    with h5py.File(path) as file:
        for dataset, recordings in file.items():
            for name, recording in recordings.items():
                where = "slice" if "Vitro" in name else "in vivo"
                group = f"{recording.attrs['cell_type']}, {where}"
                rate = 1 / np.median(np.diff(recording["timestamps"][:]))
                trace = recording["df_over_f"][:].astype(float)
                cells.setdefault((group, f"{dataset}/{cell_of(name)}"), []).append((rate, trace))
    return cells


def cell_of(name: str) -> str:
    found = re.match(r".*?_[Cc]ell_?\d+[A-Z]?(?=_)", name)
    return found[0] if found else name


def as_recorded(traces: list[Trace]) -> list[Trace]:
    return traces


def at_common_rate(traces: list[Trace]) -> list[Trace]:
    """Low-pass filtered, then sampled by linear interpolation."""
    resampled = []
    for rate, trace in traces:
        smooth = gaussian_filter1d(trace, LOW_PASS * rate)
        seconds = np.arange(len(trace)) / rate
        resampled.append(
            (COMMON_RATE, np.interp(np.arange(0, seconds[-1], 1 / COMMON_RATE), seconds, smooth))
        )
    return resampled


def for_common_duration(traces: list[Trace]) -> list[Trace]:
    """At the common rate, the beginning of the cell's time; nothing where it is shorter."""
    trace = np.concatenate([trace for _, trace in at_common_rate(traces)])
    wanted = round(COMMON_DURATION * COMMON_RATE)
    return [(COMMON_RATE, trace[:wanted])] if len(trace) >= wanted else []


def with_common_noise(traces: list[Trace]) -> list[Trace]:
    """White noise added up to the common level, then as at the common rate."""
    rng = np.random.default_rng(SEED)
    noisy = []
    for rate, trace in traces:
        missing = max(COMMON_NOISE**2 - noise_level(rate, trace) ** 2, 0.0)
        sigma = np.sqrt(missing * rate) / NOISE_PER_SIGMA
        noisy.append((rate, trace + sigma * rng.normal(size=len(trace))))
    return at_common_rate(noisy)


TREATMENTS = {
    "as recorded": as_recorded,
    f"low-passed, {COMMON_RATE:.0f} Hz": at_common_rate,
    f"low-passed, {COMMON_RATE:.0f} Hz, first {COMMON_DURATION:.0f} s": for_common_duration,
    f"noise raised to {COMMON_NOISE} %/√Hz, low-passed, {COMMON_RATE:.0f} Hz": with_common_noise,
}
THRESHOLDS = ("skewness_max", "kurtosis_max")


def noise_level(rate: float, trace: np.ndarray) -> float:
    return float(compute_activity_statistics(trace[:, None], rate)["noise_level"].item())


def measure_cells(cells: dict[tuple[str, str], list[Trace]], treat) -> pd.DataFrame:
    """One row per cell: its recordings together, as the package measures a unit."""
    config = PredictabilityConfig()
    rows = []
    for (group, cell), recordings in cells.items():
        traces = treat(recordings)
        seconds = sum(len(trace) / rate for rate, trace in traces)
        if seconds < MIN_DURATION:
            continue
        together = np.concatenate([trace for _, trace in traces])
        (statistics,) = compute_predictability(together[:, None]).to_dict(orient="records")
        rows.append(
            {
                "group": group,
                "cell": cell,
                "recordings": len(recordings),
                "seconds": seconds,
                "noise": np.median([noise_level(rate, trace) for rate, trace in recordings]),
                "skewness": statistics["skewness"],
                "kurtosis": statistics["kurtosis"],
                "is_predictable": statistics["skewness"] <= config.skewness_max
                and statistics["kurtosis"] <= config.kurtosis_max,
            }
        )
    return pd.DataFrame(rows)


def describe_group(table: pd.DataFrame, group: str) -> dict:
    """Numbers of one group, and its ranks among the pyramidal cells."""
    cells, pyramidal = table[table["group"] == group], table[table["group"] == GROUPS[0]]
    share = scipy.stats.binomtest(int(cells["is_predictable"].sum()), len(cells))
    described = {
        "num_cells": len(cells),
        "num_recordings": int(cells["recordings"].sum()),
        "minutes_per_cell": float(cells["seconds"].median() / 60),
        "noise_as_recorded": float(cells["noise"].median()),
        "share_predictable": interval(share.statistic, share.proportion_ci(method="wilson")),
    }
    for statistic in ("skewness", "kurtosis"):
        values = cells[statistic].to_numpy()
        described[statistic] = {
            average.__name__: interval(
                average(values),
                scipy.stats.bootstrap(
                    (values,),
                    average,
                    n_resamples=NUM_RESAMPLES,
                    method="percentile",
                    rng=np.random.default_rng(SEED),
                ).confidence_interval,
            )
            for average in (np.median, np.mean)
        }
        if group != GROUPS[0]:
            described[statistic] |= rank(values, pyramidal[statistic].to_numpy())
    return described


def interval(value: float, bounds) -> list[float]:
    return [float(value), float(bounds.low), float(bounds.high)]


def rank(values: np.ndarray, pyramidal: np.ndarray) -> dict[str, float]:
    """How often a cell lies below a pyramidal one, and the two-sided Mann-Whitney test of it.

    The p value is multiplied by the number of tests of one treatment (Bonferroni).
    """
    test = scipy.stats.mannwhitneyu(values, pyramidal)
    num_tests = 2 * (len(GROUPS) - 1)
    return {
        "share_below_pyramidal": float(1 - test.statistic / (len(values) * len(pyramidal))),
        "p": float(min(1.0, num_tests * test.pvalue)),
    }


def format_markdown(result: dict) -> str:
    limits = result["thresholds"]
    parts = [
        f"`{result['command']}`\n\nOne GCaMP6f cell counts once; [95 % interval over cells]. "
        f"Predictable: skewness <= {limits['skewness_max']} and kurtosis <= "
        f"{limits['kurtosis_max']} (Pearson's), the published thresholds. P(below): how often a "
        "cell lies below a pyramidal one, with the Mann-Whitney p value times "
        f"{2 * (len(GROUPS) - 1)} tests. Noise as recorded, %/√Hz.\n"
    ]
    for treatment, groups in result["treatments"].items():
        parts.append(
            f"\n**{treatment[0].upper()}{treatment[1:]}**\n\n"
            "| cells | n | recordings | min per cell | noise | median skewness | mean skewness "
            "| median kurtosis | mean kurtosis | predictable | P(kurtosis below) | P(skewness "
            "below) |\n" + "|---" * 12 + "|\n"
        )
        parts += [format_row(group, numbers) for group, numbers in groups.items()]
    return "".join(parts)


def format_row(group: str, numbers: dict) -> str:
    averages = [
        format_interval(numbers[statistic][average])
        for statistic in ("skewness", "kurtosis")
        for average in ("median", "mean")
    ]
    ranks = [
        f"{numbers[statistic]['share_below_pyramidal']:.2f} (p = {numbers[statistic]['p']:.2g})"
        if "p" in numbers[statistic]
        else ""
        for statistic in ("kurtosis", "skewness")
    ]
    cells = [
        group,
        str(numbers["num_cells"]),
        str(numbers["num_recordings"]),
        f"{numbers['minutes_per_cell']:.1f}",
        f"{numbers['noise_as_recorded']:.1f}",
        *averages,
        format_interval(numbers["share_predictable"], digits=2),
        *ranks,
    ]
    return "| " + " | ".join(cells) + " |\n"


def format_interval(numbers: list[float], digits: int = 1) -> str:
    value, low, high = (f"{number:.{digits}f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def plot_cells(table: pd.DataFrame, path: Path) -> None:
    """Every cell, and the published thresholds."""
    figure = Figure(figsize=(9, 4), layout="constrained", dpi=150)
    rng = np.random.default_rng(SEED)
    for axes, statistic in zip(figure.subplots(1, 2), ("skewness", "kurtosis"), strict=True):
        for place, group in enumerate(GROUPS):
            values = table.loc[table["group"] == group, statistic].to_numpy()
            spread = place + rng.uniform(-0.15, 0.15, size=len(values))
            axes.scatter(values, spread, s=14, alpha=0.7, linewidths=0)
            axes.plot([np.median(values)] * 2, [place - 0.3, place + 0.3], color="#333333")
        axes.axvline(
            getattr(PredictabilityConfig(), f"{statistic}_max"), color="#333333", linestyle="--"
        )
        axes.set_yticks(range(len(GROUPS)), GROUPS)
        axes.set_xlabel(f"{statistic} of a cell's ΔF/F")
        axes.spines[["top", "right"]].set_visible(False)
        if statistic == "kurtosis":
            axes.set_xscale("log")
            axes.tick_params(labelleft=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    main()
