"""Damages every kind of file that is read, for as long as one likes, and asks what comes of it.

    OMP_NUM_THREADS=1 python benchmarks/fuzz.py --minutes 60

Recordings of every format, tables, manifests, checkpoints, decoders, run directories and configs
are damaged at random, byte by byte, value by value and array by array, and each is read in a
process of its own. It must be read, or refused by an error of ours that says why: no other error,
no crash, no endless loop. Whatever ends otherwise is printed as a line for ``FOUND`` in
tests/recordings/test_fuzz.py.
Writes benchmarks/results/fuzz.json. Takes as many minutes as one says, on one core.
"""

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # what is damaged there for seconds is damaged here
from fuzzing import TARGETS, Edit, damage, make_all, outcome_of  # noqa: E402

RESULTS = ROOT / "benchmarks/results/fuzz.json"
MOST_EDITS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    began = time.perf_counter()
    counts = {name: Counter() for name in options.targets}
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as directory:
        whole = make_all(options.targets, lambda: Path(tempfile.mkdtemp(dir=directory)))
        while time.perf_counter() - began < 60 * options.minutes:
            for name, folder in whole.items():
                edits = [
                    Edit(*map(int, rng.integers(0, 2**20, 4)))
                    for _ in range(rng.integers(1, MOST_EDITS + 1))
                ]
                outcome = fuzz_once(name, folder, edits, Path(directory) / "damaged")
                counts[name][outcome if outcome in ("read", "refused") else "wrong"] += 1
                if outcome not in ("read", "refused") and outcome not in found:
                    found[outcome] = name
                    print(f'("{name}", {edits}),  # {outcome}', flush=True)
    write(options, counts, found, time.perf_counter() - began)


def fuzz_once(name: str, whole: Path, edits: list[Edit], folder: Path) -> str:
    """What comes of reading a damaged copy."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    damage(folder, edits, TARGETS[name].suffixes)
    return outcome_of(TARGETS[name], folder)


def write(
    options: argparse.Namespace, counts: dict[str, Counter], found: dict[str, str], seconds: float
) -> None:
    result = {
        "command": f"python benchmarks/fuzz.py --minutes {options.minutes:g} --seed {options.seed}",
        "python": platform.python_version(),
        "seconds": round(seconds, 1),
        "files": sum(map(Counter.total, counts.values())),
        "outcomes": {name: dict(counter) for name, counter in counts.items()},
        "wrong": found,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["outcomes"], indent=2))


if __name__ == "__main__":
    main()
