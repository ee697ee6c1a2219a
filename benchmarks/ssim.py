"""Times SSIM with gradient: by matrix products (ours) and by convolution (torchmetrics).

    python benchmarks/ssim.py

Writes benchmarks/results/ssim.json: median seconds of forward and backward, one thread, the two
in turn in the same process.
"""

import json
import statistics
import time
from pathlib import Path

import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from poyo_ssl.metrics.similarity import structural_similarity_of

NUM_PICTURES, HEIGHT, WIDTH, REPEATS = 32, 64, 128, 7


def ours(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    return structural_similarity_of(one, two).mean()


def peer(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    return structural_similarity_index_measure(one[:, None], two[:, None], data_range=1.0)


def seconds(score, one: torch.Tensor, two: torch.Tensor) -> float:
    start = time.perf_counter()
    score(one, two).backward()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    one = torch.rand(NUM_PICTURES, HEIGHT, WIDTH, requires_grad=True)
    two = torch.rand(NUM_PICTURES, HEIGHT, WIDTH)
    times = {"poyo_ssl": [], "torchmetrics": []}
    for _ in range(REPEATS + 1):
        times["poyo_ssl"].append(seconds(ours, one, two))
        times["torchmetrics"].append(seconds(peer, one, two))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    # two blurs of five pictures: rows then columns, forward; about three times that with backward
    floor = 3 * 2 * 5 * NUM_PICTURES * HEIGHT * WIDTH * (HEIGHT + WIDTH)
    result = {
        "pictures": [NUM_PICTURES, HEIGHT, WIDTH],
        "median_seconds": medians,
        "speedup": medians["torchmetrics"] / medians["poyo_ssl"],
        "operations": floor,
        "gflop_per_second": floor / medians["poyo_ssl"] / 1e9,
    }
    path = Path(__file__).parent / "results" / "ssim.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
