"""Is a predictable cell predictable again? Half against half, and one session against another.

    python benchmarks/stability.py --data ../shared/data

Two real sessions of the same imaging plane, 132 cells in both: drifting gratings on one day,
static gratings on another. Writes benchmarks/results/stability.json and .md. Takes seconds.

The noise level stays as it is for a cell (its place and brightness); it tells whether the cells
of the two sessions are the same ones at all.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats

from poyo_ssl.predictability.activity_statistics import compute_activity_statistics
from poyo_ssl.predictability.screening import find_training_time
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.predictability.unit_statistics import compute_predictability
from poyo_ssl.recordings.loading import load_recording
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.splits import SplitConfig

SESSIONS = {
    "drifting gratings": "sub-527550471_ses-527745328-StimA_ophys.nwb",
    "static gratings": "sub-527550471_ses-527676626-StimB_ophys.nwb",
}
NUM_RESAMPLES = 2000
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    whole, rows = {}, {}
    for name, file in SESSIONS.items():
        recording = load_recording(options.data / file)
        timesteps = np.flatnonzero(recording.is_inside(training_time(recording)))
        first, second = np.array_split(timesteps, 2)
        rows[f"{name}: first and second half"] = compare(
            measure(recording, first), measure(recording, second)
        )
        whole[name] = measure(recording, timesteps)
    rows["one session and the other"] = compare(*whole.values())
    result = {"command": f"python benchmarks/stability.py --data {options.data}", "rows": rows}
    results = Path(__file__).parent / "results"
    (results / "stability.json").write_text(json.dumps(result, indent=1) + "\n")
    (results / "stability.md").write_text(format_markdown(result))
    print(format_markdown(result))


def training_time(recording: Recording) -> np.ndarray:
    return find_training_time(recording, SplitConfig())[0]


def measure(recording: Recording, timesteps: np.ndarray) -> pd.DataFrame:
    """Skewness, kurtosis, noise level and verdict of every unit in some timesteps."""
    config = PredictabilityConfig()
    is_inside = np.zeros(recording.num_timesteps, dtype=bool)
    is_inside[timesteps] = True
    units = compute_predictability(recording.df_over_f, is_inside)
    units["noise_level"] = compute_activity_statistics(
        recording.df_over_f[timesteps], recording.sampling_rate
    )["noise_level"]
    units["is_predictable"] = (units["skewness"] <= config.skewness_max) & (
        units["kurtosis"] <= config.kurtosis_max
    )
    return units.set_index(recording.unit_ids)


def compare(one: pd.DataFrame, two: pd.DataFrame) -> dict:
    """Rank correlations over the units of both, and how many change side."""
    both = one.join(two, how="inner", lsuffix="_one", rsuffix="_two")
    sides = both[["is_predictable_one", "is_predictable_two"]].to_numpy(dtype=bool)
    shares = sides.mean(axis=0)
    return {
        "num_units": len(both),
        "rank_correlation": {
            name: correlate(both[f"{name}_one"].to_numpy(), both[f"{name}_two"].to_numpy())
            for name in ("noise_level", "skewness", "kurtosis")
        },
        "share_predictable": shares.tolist(),
        "share_changed": float((sides[:, 0] != sides[:, 1]).mean()),
        "share_changed_by_chance": float(shares @ (1 - shares)[::-1]),
    }


def correlate(one: np.ndarray, two: np.ndarray) -> list[float]:
    """Spearman's correlation and its 95 % bootstrap interval over units."""

    def correlation(one: np.ndarray, two: np.ndarray) -> float:
        return float(scipy.stats.spearmanr(one, two).statistic)

    bounds = scipy.stats.bootstrap(
        (one, two),
        correlation,
        paired=True,
        vectorized=False,
        n_resamples=NUM_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return [correlation(one, two), float(bounds.low), float(bounds.high)]


def format_markdown(result: dict) -> str:
    lines = [
        f"`{result['command']}`",
        "",
        "Spearman's correlation over units [95 % interval]. Predictable by the published "
        "thresholds, training time only. By chance: as many as would change side if both "
        "verdicts had nothing to do with each other.",
        "",
        "| compared | units | noise level | skewness | kurtosis | predictable | change side "
        "| by chance |",
        "|---" * 8 + "|",
    ]
    for name, row in result["rows"].items():
        correlations = [
            f"{value:.2f} [{low:.2f}, {high:.2f}]"
            for value, low, high in row["rank_correlation"].values()
        ]
        cells = [
            name,
            str(row["num_units"]),
            *correlations,
            " and ".join(f"{share:.0%}" for share in row["share_predictable"]),
            f"{row['share_changed']:.0%}",
            f"{row['share_changed_by_chance']:.0%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
