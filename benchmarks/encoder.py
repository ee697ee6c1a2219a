"""Compares training steps of our encoders with torch-brain 0.1.2's CalciumPOYOPlus, the peer.

    make peer                                # once: the peer's own environment
    python benchmarks/encoder.py             # everything, about ten minutes on two cores
    python benchmarks/encoder.py --quick     # the two main shapes only

Each run is a process of its own and takes its turn: ours, peer, ours, peer. Same shapes, same
optimiser, training mode with dropout. Writes results/encoder.json.gz (every repetition),
encoder.md (medians) and encoder.*.txt (where the time goes, by torch's profiler). Needs Linux,
which tells the memory of a process.
"""

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from encoder_page import format_page
from floor import Speed, grid_multiply_adds, measure_speed, textbook_multiply_adds
from result_files import RESULTS, save_compressed
from training_step import Setting, setting_parser

ROOT = Path(__file__).resolve().parents[1]
MAIN_DIMS = (64, 128)
ROUNDS = 3
SWEEPS: dict[str, list[dict[str, Any]]] = {
    "units": [{"units": n, "batch": 4, "recordings": 1} for n in (50, 174, 500, 2000, 20000)],
    "timesteps": [{"timesteps": n} for n in (30, 60, 120)],
    "batch": [{"batch": n} for n in (4, 16, 64)],
    "dim": [{"dim": n} for n in (64, 128, 256)],
    "recordings": [{"recordings": n} for n in (1, 4, 16)],
}
"""What is varied, one size at a time; the latents stay as many. Steps of the first sweep have few
windows, or 20,000 units would take minutes."""
LONGEST_STEP = 60.0
"""Seconds; what is expected to take longer is not run."""
MEMORY_FRACTION = 0.8
"""Part of the free memory that a run may be expected to take."""
OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "unable to allocate",
)


@dataclass(frozen=True)
class Contestant:
    """A model and the script that trains it."""

    name: str
    label: str
    command: tuple[str, ...]
    """From the root of the project; ``python`` is the interpreter that runs this."""


OURS = Contestant(
    "published",
    "poyo-ssl CalciumPOYOPlus (same function)",
    ("python", "benchmarks/our_calcium_poyo_plus.py"),
)
DEFAULT = Contestant(
    "default",
    "poyo-ssl Encoder (our default)",
    ("python", "benchmarks/our_calcium_poyo_plus.py", "--model", "Encoder"),
)
PEER = Contestant(
    "peer",
    "torch-brain 0.1.2 CalciumPOYOPlus",
    (".peer/bin/python", "benchmarks/peer_calcium_poyo_plus.py"),
)
FORMULAS = {OURS: grid_multiply_adds, PEER: textbook_multiply_adds}

Runs = dict[tuple[Contestant, Setting], list[dict]]
"""What every contestant printed in every setting, one entry per round."""


def main() -> None:
    parser = setting_parser(__doc__)
    parser.set_defaults(threads=len(os.sched_getaffinity(0)), seconds=4.0)
    parser.add_argument("--quick", action="store_true", help="the two main shapes only")
    options = vars(parser.parse_args())
    is_quick = options.pop("quick")
    base = Setting(**options)
    sweeps = {} if is_quick else SWEEPS
    plans = [(setting, plan(setting, sweeps)) for setting in precisions(base)]
    if not (ROOT / PEER.command[0]).exists():
        parser.error("The peer needs an environment of its own; run 'make peer' first.")
    started = time.perf_counter()
    result: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/encoder.py", *sys.argv[1:]]),
        "hardware": describe_hardware(base),
        "precisions": [compare(setting, sweeps) for setting, sweeps in plans],
    }
    result["minutes"] = round((time.perf_counter() - started) / 60, 1)
    save_compressed("encoder", result)
    page = format_page(result)
    (RESULTS / "encoder.md").write_text(page)
    print(page)


def describe_hardware(base: Setting) -> dict:
    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": base.threads,
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def precisions(base: Setting) -> list[Setting]:
    """Devices and number formats to measure: the given one, and a GPU's where there is one."""
    if base.device != "cpu" or not torch.cuda.is_available():
        return [base]
    return [base, replace(base, device="cuda"), replace(base, device="cuda", bf16=True)]


def plan(base: Setting, sweeps: dict[str, list[dict[str, Any]]]) -> dict[str, list[Setting]]:
    """The settings of every sweep, made before anything runs: impossible ones are refused."""
    return {name: [replace(base, **sizes) for sizes in values] for name, values in sweeps.items()}


def compare(base: Setting, sweeps: dict[str, list[Setting]]) -> dict:
    """Both main shapes in several rounds, then the sweeps in one."""
    speed = measure_speed(base)
    runs: Runs = {}
    for dim in MAIN_DIMS:
        here = replace(base, dim=dim)
        alternate(runs, main_entries(here), ROUNDS)
        check_same_model(runs, here)
    main_rows = [summarise(*entry, runs) | floor_of(*entry, runs, speed) for entry in runs]
    write_profiles(runs, base)
    return {
        "device": base.device,
        "bf16": base.bf16,
        "speed": asdict(speed),
        "main": main_rows,
        "sweeps": {name: sweep(settings, runs) for name, settings in sweeps.items()},
        "runs": [
            {
                "contestant": contestant.name,
                "command": command_of(contestant, setting),
                "rounds": [_without_profile(printed) for printed in rounds],
            }
            for (contestant, setting), rounds in runs.items()
        ],
    }


def main_entries(here: Setting) -> list[tuple[Contestant, Setting]]:
    """Windows from one recording and from several; the peer's cost is the same for both."""
    one = replace(here, recordings=1)
    return [(OURS, one), (PEER, here), (OURS, here), (DEFAULT, one), (DEFAULT, here)]


def alternate(runs: Runs, entries: Iterable[tuple[Contestant, Setting]], rounds: int) -> None:
    """Runs what has not run yet, in turn; the last of several rounds also counts and profiles."""
    waiting = [entry for entry in entries if entry not in runs]
    for number in range(rounds):
        is_inspected = 0 < number == rounds - 1
        for contestant, setting in waiting:
            hopeless = expect(contestant, setting, runs) if number == 0 else None
            printed = hopeless or run(contestant, replace(setting, inspect=is_inspected))
            runs.setdefault((contestant, setting), []).append(printed)
        waiting = [entry for entry in waiting if "not_run" not in runs[entry][-1]]


def expect(contestant: Contestant, setting: Setting, runs: Runs) -> dict | None:
    """Why a run is hopeless, from the cost per token of the largest run so far; else None."""
    done = [
        (other.num_tokens * max(1.0, other.dim / setting.dim), other, rounds[0])
        for (who, other), rounds in runs.items()
        if who is contestant and "not_run" not in rounds[0]
    ]
    if not done:
        return None
    _, other, printed = max(done, key=lambda entry: entry[0])
    growth = setting.num_tokens / other.num_tokens * max(1.0, setting.dim / other.dim)
    seconds = growth * statistics.median(printed["step_seconds"])
    memory = growth * (
        printed["device_megabytes"] or printed["peak_megabytes"] - printed["imports_megabytes"]
    )
    if memory > MEMORY_FRACTION * free_megabytes(setting):
        return {"not_run": f"would need about {memory / 1e3:.0f} GB"}
    if seconds > LONGEST_STEP:
        return {"not_run": f"would take about {seconds:.0f} s a step"}
    return None


def free_megabytes(setting: Setting) -> float:
    if setting.device != "cpu":
        return torch.cuda.mem_get_info(setting.device)[0] / 1e6
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) / 1e3


def run(contestant: Contestant, setting: Setting) -> dict:
    """What a contestant prints; running out of memory is a result, any other failure is not."""
    command = command_of(contestant, setting)
    print(command, file=sys.stderr, flush=True)
    python, *rest = shlex.split(command)
    interpreter = sys.executable if python == "python" else python
    done = subprocess.run([interpreter, *rest], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode == -9 or any(sign in done.stderr.lower() for sign in OUT_OF_MEMORY):
        return {"not_run": "ran out of memory"}
    raise RuntimeError(f"'{command}' failed:\n{done.stderr[-2000:]}")


def command_of(contestant: Contestant, setting: Setting) -> str:
    return shlex.join([*contestant.command, *setting.arguments()])


def check_same_model(runs: Runs, here: Setting) -> None:
    """The peer and ours must have the same number of weights, or they are not the same model."""
    counts = {who.name: runs[who, here][0]["parameters"] for who in (OURS, PEER)}
    if len(set(counts.values())) > 1:
        raise RuntimeError(f"The models differ in size: {counts}.")


FIGURES = (
    "forward_seconds",
    "backward_seconds",
    "step_seconds",
    "pipeline_seconds",
    "windows_per_second",
    "imports_megabytes",
    "peak_megabytes",
    "device_megabytes",
)


def summarise(contestant: Contestant, setting: Setting, runs: Runs) -> dict:
    """Medians over rounds of the medians over repetitions, and ratios to the peer per round."""
    rounds = runs[contestant, setting]
    row = {"contestant": contestant.name, "label": contestant.label, **asdict(setting)}
    if reason := rounds[-1].get("not_run"):
        return row | {"not_run": reason}
    row |= {name: statistics.median(_medians(rounds, name)) for name in FIGURES if rounds[0][name]}
    row["beyond_imports_megabytes"] = row["peak_megabytes"] - row["imports_megabytes"]
    peer = rounds_of_peer(setting, runs)
    if "not_run" not in peer[-1]:
        row["step_speedups"] = _ratios(peer, rounds, "step_seconds")
        row["windows_per_second_gains"] = _ratios(rounds, peer, "windows_per_second")
    return row


def rounds_of_peer(setting: Setting, runs: Runs) -> list[dict]:
    """Of the same setting or, since recordings are all one to it, with another number of them."""
    if (PEER, setting) in runs:
        return runs[PEER, setting]
    wanted = {**asdict(setting), "recordings": None}
    return next(
        rounds
        for (who, other), rounds in runs.items()
        if who is PEER and {**asdict(other), "recordings": None} == wanted
    )


def _medians(rounds: list[dict], name: str) -> list[float]:
    values = [printed[name] for printed in rounds]
    return [statistics.median(value) if isinstance(value, list) else value for value in values]


def _ratios(above: list[dict], below: list[dict], name: str) -> list[float]:
    pairs = zip(_medians(above, name), _medians(below, name), strict=False)
    return [one / two for one, two in pairs]


def floor_of(contestant: Contestant, setting: Setting, runs: Runs, speed: Speed) -> dict:
    """Seconds that arithmetic and memory need at least; without a formula, of what was counted."""
    printed = runs[contestant, setting][-1]
    if "not_run" in printed:
        return {}
    counted, formula = printed["multiply_adds_counted"], FORMULAS.get(contestant)
    multiply_adds = formula(setting) if formula else counted
    arithmetic = multiply_adds / speed.multiply_adds_per_second
    memory = printed["bytes_moved"] / speed.bytes_per_second
    step = statistics.median(_medians(runs[contestant, setting], "step_seconds"))
    return {
        "multiply_adds": multiply_adds,
        "multiply_adds_counted": counted,
        "arithmetic_seconds": arithmetic,
        "bytes_moved": printed["bytes_moved"],
        "memory_seconds": memory,
        "step_over_floor": step / max(arithmetic, memory),
    }


def write_profiles(runs: Runs, base: Setting) -> None:
    """Where the time goes in the first main shape: before (the peer) and after (ours)."""
    for (contestant, setting), rounds in runs.items():
        if setting == replace(base, dim=MAIN_DIMS[0]) and "profile" in rounds[-1]:
            device = base.device + ("_bf16" if base.bf16 else "")
            command = command_of(contestant, replace(setting, inspect=True))
            path = RESULTS / f"encoder.{contestant.name}.{device}.txt"
            path.write_text(f"{command}\n\n{rounds[-1]['profile']}")


def sweep(settings: list[Setting], runs: Runs) -> list[dict]:
    """One size varied, by all contestants, once; what has run already is not run again."""
    rows = []
    for setting in settings:
        alternate(runs, [(OURS, setting), (PEER, setting), (DEFAULT, setting)], rounds=1)
        rows += [summarise(who, setting, runs) for who in (OURS, DEFAULT, PEER)]
    return rows


def _without_profile(printed: dict) -> dict:
    return {name: value for name, value in printed.items() if name != "profile"}


if __name__ == "__main__":
    main()
