"""Times skewness and kurtosis of every unit: in one pass (ours) and by scipy.stats.

    python benchmarks/predictability.py

Writes benchmarks/results/predictability.json and .md: median seconds of processor time on one
thread, which other work on the machine disturbs less than the clock, the two in turn in the same
process, and the largest relative difference of each to scipy in float64.

The floor is what numpy needs for the passes that no arrangement of this computation avoids, run on
one block that stays in cache, times the number of blocks: minimum and maximum, conversion to
float64, and for each of four powers one sum, with one subtraction and three products between them.
Of every value 4 bytes are read from memory, once, and 11 operations done (2 comparisons, 1
conversion, 1 subtraction, 3 products, 4 sums): 79 MB take 3 ms to read at 30 GB/s, so the
operations set the floor, not the memory.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is loaded

import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.stats

from poyo_ssl.predictability.unit_statistics import compute_predictability

SHAPES = [(114_000, 174), (5_000, 20_000)]
REPEATS = 4
BLOCK_TIMESTEPS, BLOCK_UNITS = 1024, 174
UNITS_AT_A_TIME = 500  # of the float64 oracle, so that it fits in memory


def draw_traces(shape: tuple[int, int]) -> np.ndarray:
    """Noise of a photodetector and rare transients, ΔF/F, float32."""
    rng = np.random.default_rng(0)
    traces = rng.standard_normal(shape, dtype=np.float32)
    traces *= 0.05
    traces[rng.integers(shape[0], size=shape[1] * 50), np.tile(np.arange(shape[1]), 50)] += 1.0
    return traces


def ours(traces: np.ndarray) -> pd.DataFrame:
    return compute_predictability(traces)[["skewness", "kurtosis"]]


def peer(traces: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "skewness": scipy.stats.skew(traces, axis=0),
            "kurtosis": scipy.stats.kurtosis(traces, axis=0, fisher=False),
        }
    )


def oracle(traces: np.ndarray) -> pd.DataFrame:
    groups = np.array_split(np.arange(traces.shape[1]), -(-traces.shape[1] // UNITS_AT_A_TIME))
    return pd.concat([peer(traces[:, group].astype(np.float64)) for group in groups])


def seconds(function: Callable[[np.ndarray], object], traces: np.ndarray) -> float:
    start = time.process_time()
    function(traces)
    return time.process_time() - start


def floor_seconds(num_values: int) -> float:
    """The passes themselves, on one block in cache: no reading, no bookkeeping."""
    block = draw_traces((BLOCK_TIMESTEPS, BLOCK_UNITS))
    ones, values, powers = np.ones(len(block)), *np.empty((2, *block.shape))

    def passes(block: np.ndarray) -> None:
        minimum, _ = block.min(axis=0), block.max(axis=0)
        np.copyto(values, block)
        np.subtract(values, minimum, out=values)
        np.multiply(values, values, out=powers)
        ones @ values, ones @ powers
        np.multiply(values, powers, out=values)
        np.multiply(powers, powers, out=powers)
        ones @ values, ones @ powers

    return min(seconds(passes, block) for _ in range(300)) * num_values / block.size


def peak_bytes(traces: np.ndarray) -> int:
    tracemalloc.start()
    ours(traces)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def largest_difference(found: pd.DataFrame, exact: pd.DataFrame) -> float:
    return float(np.max(np.abs(found.to_numpy() / exact.to_numpy() - 1.0)))


def measure(shape: tuple[int, int]) -> dict[str, object]:
    traces = draw_traces(shape)
    exact = oracle(traces)
    times: dict[str, list[float]] = {"poyo_ssl": [], "scipy": []}
    for _ in range(REPEATS + 1):
        times["poyo_ssl"].append(seconds(ours, traces))
        times["scipy"].append(seconds(peer, traces))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    floor = floor_seconds(traces.size)
    return {
        "shape": list(shape),
        "bytes": traces.nbytes,
        "median_seconds": medians,
        "least_seconds": {name: min(values[1:]) for name, values in times.items()},
        "speedup": medians["scipy"] / medians["poyo_ssl"],
        "floor_seconds": floor,
        "times_the_floor": medians["poyo_ssl"] / floor,
        "peak_bytes_beside_traces": peak_bytes(traces),
        "largest_relative_difference": {
            "poyo_ssl": largest_difference(ours(traces), exact),
            "scipy in float32": largest_difference(peer(traces), exact),
        },
    }


def as_markdown(results: list[dict]) -> str:
    lines = [
        "`python benchmarks/predictability.py`",
        "",
        f"float32 traces in memory, processor time of one thread, median of {REPEATS} in turn with "
        f"scipy {scipy.__version__}, numpy {np.__version__}. Difference: largest, relative to "
        "scipy in float64.",
        "",
        "| timesteps x units | ours | scipy | times as fast | floor | ours / floor | memory beside "
        "the traces | difference, ours | difference, scipy in float32 |",
        "|---" * 9 + "|",
    ]
    for row in results:
        seconds, difference = row["median_seconds"], row["largest_relative_difference"]
        lines.append(
            f"| {row['shape'][0]:,} x {row['shape'][1]:,} | {seconds['poyo_ssl']:.3f} s "
            f"| {seconds['scipy']:.3f} s | {row['speedup']:.1f} | {row['floor_seconds']:.3f} s "
            f"| {row['times_the_floor']:.1f} | {row['peak_bytes_beside_traces'] / 1e6:.0f} MB "
            f"| {difference['poyo_ssl']:.0e} | {difference['scipy in float32']:.0e} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    results = [measure(shape) for shape in SHAPES]
    path = Path(__file__).parent / "results" / "predictability.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    path.with_suffix(".md").write_text(as_markdown(results))
    print(as_markdown(results))


if __name__ == "__main__":
    main()
