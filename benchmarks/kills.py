"""Kills training at random moments and asks whether anything is lost.

    OMP_NUM_THREADS=1 python benchmarks/kills.py --kills 220

A label decoder with dropout, averaged weights, jitter, unit dropout and validation is fitted on
invented windows, with a checkpoint after every step. Its process is killed (SIGKILL) at random
moments and started again until the fit is done; then the next fit begins. After every kill the
newest checkpoint must load and be no older than any seen before. Every finished fit is compared
with one that nobody disturbed. Then one of two processes of a fit is killed, a few times.
Writes benchmarks/results/kills.json and .md. Takes about five minutes on one core.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.modules import LabelDecoding
from poyo_ssl.model.checkpoints import CheckpointError
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.model.readouts import LabelDecoder
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.training.engine import fit
from poyo_ssl.training.resuming import read_checkpoint, step_of
from poyo_ssl.windows.activity import Activity
from poyo_ssl.windows.evaluation_batches import EvaluationBatches
from poyo_ssl.windows.task_windows import TaskWindows
from poyo_ssl.windows.training_batches import TrainingBatches, WindowSource

SAMPLING_RATE, NUM_TIMESTEPS, NUM_CLASSES, NUM_UNITS = 10.0, 20, 4, 12
TRAINING = TrainingConfig(
    max_steps=60, batch_size=16, checkpoint_every=1, valid_every=10, patience=None, ema_decay=0.9
)
LATEST_KILL = 1.5
"""Seconds after its start; an undisturbed fit takes a little longer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=220)
    parser.add_argument("--rank_kills", type=int, default=10)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as directory:
        reference = Path(directory) / "reference"
        began = time.perf_counter()
        assert wait_for(start(reference)) == 0
        seconds = time.perf_counter() - began
        result = {
            "command": f"python benchmarks/kills.py --kills {options.kills}",
            "seconds_undisturbed": seconds,
            "one_process": kill_processes(Path(directory), reference, options.kills, rng),
            "one_of_two_ranks": kill_ranks(Path(directory), options.rank_kills, rng),
        }
    results = Path(__file__).parent / "results"
    (results / "kills.json").write_text(json.dumps(result, indent=1) + "\n")
    (results / "kills.md").write_text(format_markdown(result))
    print(format_markdown(result))


def make_source(name: str, seed: int) -> WindowSource:
    """Windows in which a unit of the class's own is active."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, NUM_CLASSES, 80)
    values = rng.normal(size=(80, NUM_TIMESTEPS, NUM_UNITS)).astype(np.float32)
    values[np.arange(80), :, target] += 1.0
    first = NUM_TIMESTEPS * np.arange(80)
    return WindowSource(
        activity=Activity(
            recording_id=name,
            values=torch.from_numpy(values.reshape(-1, NUM_UNITS)),
            unit_ids=[f"{name}-{i}" for i in range(NUM_UNITS)],
        ),
        unit_index=torch.arange(1, NUM_UNITS + 1),
        windows=TaskWindows(first_timestep=first, num_timesteps=NUM_TIMESTEPS, target=target),
        may_start=np.arange(80 * NUM_TIMESTEPS) <= first[-1],
    )


def train(directory: Path) -> None:
    """Fits the decoder, or resumes its fit."""
    torch.manual_seed(0)
    config = EncoderConfig(
        dim=32,
        depth=1,
        num_heads=2,
        dim_head=16,
        latents_per_step=2,
        latent_step=0.5,
        patch_length=0.5,
        dropout=0.2,
    )
    encoder = Encoder(config, SAMPLING_RATE)
    encoder.add_units([f"a-{i}" for i in range(NUM_UNITS)])
    network = LabelDecoder(encoder, num_classes=NUM_CLASSES, query_time=1.0)
    batches = TrainingBatches(
        [make_source("a", 0)],
        batch_size=TRAINING.batch_size,
        seed=0,
        jitter=2,
        unit_dropout=TRAINING.unit_dropout,
    )
    valid = EvaluationBatches([make_source("a", 1)], batch_size=32)
    module = LabelDecoding(network, FinetuningConfig(training=TRAINING))
    fit(module, batches, valid, seed=0, checkpoint_directory=directory)


def start(directory: Path, environment: dict[str, str] | None = None) -> int:
    """Trains in a process of its own, which has all imports already; returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.environ.update(environment or {})
        train(directory)
        status = 0
    finally:
        os._exit(status)


def wait_for(child: int, seconds: float = 300.0) -> int | None:
    """Its exit status, negative where a signal ended it; None if it still runs by then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    wait_for(child)


def kill_processes(
    directory: Path, reference: Path, num_kills: int, rng: np.random.Generator
) -> dict:
    """Kills until there were enough kills, and lets the last fit end."""
    counts = dict.fromkeys(
        ("kills", "during_a_write", "corrupt", "lost_steps", "fits", "orphans", "failed"), 0
    )
    difference = 0.0
    while counts["kills"] < num_kills:
        folder = Path(tempfile.mkdtemp(dir=directory))
        newest = 0
        while True:
            child = start(folder)
            status = wait_for(child, rng.uniform(0.0, LATEST_KILL))
            if status is not None:
                counts["failed"] += status != 0
                break
            kill(child)
            counts["kills"] += 1
            counts["during_a_write"] += any(folder.glob(".*.partial"))
            step, is_whole = newest_step(folder)
            counts["corrupt"] += not is_whole
            counts["lost_steps"] += max(0, newest - step)
            newest = max(newest, step)
            if (folder / "fitted.ckpt").exists():
                break
        counts["fits"] += 1
        counts["orphans"] += len(list(folder.glob(".*"))) + len(list(folder.glob("*.damaged")))
        difference = max(difference, compare(reference, folder))
        shutil.rmtree(folder)
    return counts | {"max_abs_difference": difference}


def newest_step(folder: Path) -> tuple[int, bool]:
    """Step of the newest checkpoint, and whether it loads."""
    paths = sorted(folder.glob("step-*.ckpt"))
    if not paths:
        return 0, True
    try:
        return step_of(paths[-1]), read_checkpoint(paths[-1])["global_step"] == step_of(paths[-1])
    except CheckpointError:
        return step_of(paths[-1]), False


def compare(reference: Path, folder: Path) -> float:
    """Largest difference of any weight and any point of any curve."""
    one, two = (read_checkpoint(path / "fitted.ckpt") for path in (reference, folder))
    assert one["best_step"] == two["best_step"]
    assert [row[:2] for row in one["curves"]] == [row[:2] for row in two["curves"]]
    curves = [abs(a[2] - b[2]) for a, b in zip(one["curves"], two["curves"], strict=True)]
    weights = [
        float((one["weights"][name] - two["weights"][name]).abs().max()) for name in one["weights"]
    ]
    return max(curves + weights)


def kill_ranks(directory: Path, num_kills: int, rng: np.random.Generator) -> dict:
    """Kills one of two processes of a fit and starts both again, from the last checkpoint."""
    reference = directory / "two ranks"
    assert [wait_for(child) for child in start_ranks(reference)] == [0, 0]
    until_error, until_checkpoint, difference = [], [], 0.0
    for _ in range(num_kills):
        folder = Path(tempfile.mkdtemp(dir=directory))
        first_step, last_step = 5, TRAINING.max_steps - 10
        ranks = start_ranks(folder)
        reach(folder, int(rng.integers(first_step, last_step)))
        victim = int(rng.integers(2))
        kill(ranks[victim])
        before = newest_name(folder)
        began = time.monotonic()
        assert wait_for(ranks[1 - victim]) == 1
        until_error.append(time.monotonic() - began)
        began = time.monotonic()
        ranks = start_ranks(folder)
        reach(folder, before + 1)
        until_checkpoint.append(time.monotonic() - began)
        assert [wait_for(child) for child in ranks] == [0, 0]
        difference = max(difference, compare(reference, folder))
    return {
        "kills": num_kills,
        "seconds_until_error": [min(until_error), max(until_error)],
        "seconds_until_next_checkpoint": [min(until_checkpoint), max(until_checkpoint)],
        "max_abs_difference": difference,
    }


def start_ranks(folder: Path) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port
    }  # fmt: skip
    return [start(folder, shared | {"RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")]


def newest_name(folder: Path) -> int:
    return max((step_of(path) for path in folder.glob("step-*.ckpt")), default=0)


def reach(folder: Path, step: int) -> None:
    """Waits for the checkpoint of a step or a later one."""
    end = time.monotonic() + 120
    while newest_name(folder) < step:
        assert time.monotonic() < end
        time.sleep(0.005)


def format_markdown(result: dict) -> str:
    one, two = result["one_process"], result["one_of_two_ranks"]
    rows = {
        "kills": one["kills"],
        "of them while a checkpoint was being written": one["during_a_write"],
        "newest checkpoint does not load": one["corrupt"],
        "steps lost that had a checkpoint": one["lost_steps"],
        "fits finished": one["fits"],
        "fits that ended with an error": one["failed"],
        "files left over": one["orphans"],
        "largest difference from the undisturbed fit (weights and curves)": one[
            "max_abs_difference"
        ],
        "kills of one of two ranks": two["kills"],
        "seconds until the other ended with an error": _range(two["seconds_until_error"]),
        "seconds from the new start to the next checkpoint": _range(
            two["seconds_until_next_checkpoint"]
        ),
        "largest difference from two undisturbed ranks": two["max_abs_difference"],
    }
    lines = [
        f"`{result['command']}`",
        "",
        f"A fit of {TRAINING.max_steps} steps with a checkpoint after each; undisturbed it takes "
        f"{result['seconds_undisturbed']:.1f} s.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _range(values: list[float]) -> str:
    return f"{values[0]:.2f} to {values[1]:.2f}"


if __name__ == "__main__":
    main()
