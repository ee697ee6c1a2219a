"""Times the pipeline of training windows: ours, from 1 to 100 recordings, and the published one.

    python benchmarks/windows.py

Writes benchmarks/results/windows.json and .md:

- a step of 16 windows of 30 samples x 174 units from 4 recordings, as one process draws it, beside
  the pipeline of CalciumPOYOPlus (torch-brain 0.1.2), which slices an HDF5 file, makes tokens and
  collates; the two in turn, where ``make peer`` has made its environment. Ours also moves windows
  by up to 0.2 s and leaves out units at a rate of up to one half; the peer's does neither;
- the same beside one training step of our default encoder on such windows;
- steps from more recordings, and among more windows;
- normalising a full-size recording that is mapped from disk, and the memory it takes.

Activity is noise, since only sizes matter here. Each recording has the length given; where there
are more windows than samples, windows start at the same sample several times.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is loaded

import json
import statistics
import subprocess
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from training_step import RECORDING_WINDOWS

from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.modules import LabelDecoding
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.model.readouts import LabelDecoder
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.activity import Activity, UnitScale
from poyo_ssl.windows.task_windows import TaskWindows
from poyo_ssl.windows.training_batches import TrainingBatches, WindowSource

RATE, NUM_UNITS, WINDOW, BATCH = 30.0, 174, 30, 16
JITTER, UNIT_DROPOUT = 6, 0.5  # samples; the largest rate
NUM_CLASSES = 8
NUM_TURNS, NUM_STEPS = 3, 2000
SCALES = [(1, 10**3), (10, 10**4), (10, 10**6), (100, 10**4), (100, 10**6)]
LONG_RECORDING, FULL_RECORDING = 3600, 114_000  # samples
TARGET = 100  # times as many windows per second as the peer
ROOT = Path(__file__).parents[1]
PEER = ROOT / ".peer" / "bin" / "python"
PEER_OPTIONS = ["--dim=16", "--depth=1", "--threads=1", "--steps=20", "--seconds=10"]
RESULTS = Path(__file__).parent / "results" / "windows.json"


def draw_source(number: int, num_windows: int, num_timesteps: int) -> WindowSource:
    rng = np.random.default_rng(number)
    may_start = np.arange(num_timesteps) <= num_timesteps - WINDOW
    return WindowSource(
        activity=Activity(
            recording_id=f"recording-{number}",
            values=torch.from_numpy(
                rng.standard_normal((num_timesteps, NUM_UNITS), dtype=np.float32)
            ),
            unit_ids=[f"recording-{number}/{unit}" for unit in range(NUM_UNITS)],
        ),
        unit_index=number * NUM_UNITS + torch.arange(1, NUM_UNITS + 1),
        windows=TaskWindows(
            first_timestep=np.resize(np.flatnonzero(may_start), num_windows),
            num_timesteps=WINDOW,
            target=rng.integers(NUM_CLASSES, size=num_windows),
        ),
        may_start=may_start,
    )


def make_batches(num_recordings: int, num_windows: int, num_timesteps: int) -> TrainingBatches:
    return TrainingBatches(
        [
            draw_source(number, num_windows // num_recordings, num_timesteps)
            for number in range(num_recordings)
        ],
        batch_size=BATCH,
        seed=0,
        jitter=JITTER,
        unit_dropout=UNIT_DROPOUT,
    )


def step_seconds(batches: TrainingBatches, num_steps: int = NUM_STEPS) -> float:
    """Median time of a step; putting an epoch in order, once in many steps, is not in it."""
    times = []
    for step in range(num_steps):
        started = time.perf_counter()
        batches.step(step)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def epoch_seconds(batches: TrainingBatches) -> float:
    """Time of putting the windows of an epoch in order: part of the first step of every epoch."""
    epochs = [len(batches.owner) * epoch // BATCH + 1 for epoch in (5, 6, 7)]
    times = []
    for step in epochs:
        started = time.perf_counter()
        batches.draw(step)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def peer_seconds() -> float | None:
    """Median time of a batch of the published pipeline; None without its environment."""
    if not PEER.exists():
        return None
    script = Path(__file__).parent / "peer_calcium_poyo_plus.py"
    command = [str(PEER), str(script), *PEER_OPTIONS]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return statistics.median(json.loads(found.stdout.splitlines()[-1])["pipeline_seconds"])


def compare() -> dict[str, object]:
    batches = make_batches(4, 4 * (RECORDING_WINDOWS - 1) * WINDOW, RECORDING_WINDOWS * WINDOW)
    turns = [(step_seconds(batches), peer_seconds()) for _ in range(NUM_TURNS)]
    ours = statistics.median(turn[0] for turn in turns)
    peer = [turn[1] for turn in turns if turn[1] is not None]
    result: dict[str, object] = {
        "pipeline_seconds": ours,
        "windows_per_second": BATCH / ours,
        "training_step_seconds": training_seconds(batches),
    }
    if peer:
        result["peer_pipeline_seconds"] = statistics.median(peer)
        result["times_as_fast"] = statistics.median(peer) / ours
    return result


def training_seconds(batches: TrainingBatches) -> float:
    """Median time of forward, backward and AdamW of our default label decoder, one thread."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(), RATE)
    encoder.add_units([unit for source in batches.sources for unit in source.activity.unit_ids])
    network = LabelDecoder(encoder, num_classes=NUM_CLASSES, query_time=0.5)
    module = LabelDecoding(network, FinetuningConfig())
    optimizer = torch.optim.AdamW(network.parameters())
    times = []
    for step in range(31):
        batch = batches.step(step)
        started = time.perf_counter()
        optimizer.zero_grad()
        module.losses(batch)["loss"].backward()
        optimizer.step()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def scale(num_recordings: int, num_windows: int) -> dict[str, float]:
    batches = make_batches(num_recordings, num_windows, LONG_RECORDING)
    seconds = step_seconds(batches, NUM_STEPS // 2)
    return {
        "num_recordings": num_recordings,
        "num_windows": num_windows,
        "step_seconds": seconds,
        "windows_per_second": BATCH / seconds,
        "new_epoch_seconds": epoch_seconds(batches),
    }


def normalise_full_size() -> dict[str, float]:
    """Traces on disk to activity in memory: how long, and how much memory beside the result."""
    with tempfile.TemporaryDirectory() as directory:
        shape, path = (FULL_RECORDING, NUM_UNITS), Path(directory) / "traces"
        np.random.default_rng(0).standard_normal(shape, dtype=np.float32).tofile(path)
        recording = Recording(
            recording_id="full size",
            df_over_f=np.memmap(path, np.float32, "r", shape=shape),
            timestamps=np.arange(FULL_RECORDING) / RATE,
            units=pd.DataFrame({"unit_id": [f"unit-{unit}" for unit in range(NUM_UNITS)]}),
        )
        unit_ids, everything = recording.unit_ids.tolist(), recording.segment_intervals
        started = time.perf_counter()
        scale = UnitScale.measure(recording, everything, unit_ids)
        measured = time.perf_counter()
        Activity.of(recording, unit_ids, scale)
        normalised = time.perf_counter()
        tracemalloc.start()
        Activity.of(recording, unit_ids, UnitScale.measure(recording, everything, unit_ids))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return {
        "measure_seconds": measured - started,
        "normalise_seconds": normalised - measured,
        "activity_bytes": float(4 * np.prod(shape)),
        "peak_bytes": float(peak),
    }


def as_markdown(results: dict) -> str:
    one, full = results["one_step"], results["full_size"]
    peer = "the peer was not measured: run `make peer` first"
    if "times_as_fast" in one:
        peer = (
            f"the peer takes {1e3 * one['peer_pipeline_seconds']:.1f} ms, "
            f"{one['times_as_fast']:.0f} times as long (goal: {TARGET})"
        )
    share = one["pipeline_seconds"] / (one["pipeline_seconds"] + one["training_step_seconds"])
    lines = [
        "`python benchmarks/windows.py`",
        "",
        f"One process and thread, medians by the clock, numpy {np.__version__}, torch "
        f"{torch.__version__}.",
        "",
        f"A step of {BATCH} windows of {WINDOW} samples x {NUM_UNITS} units from 4 recordings: "
        f"{1e6 * one['pipeline_seconds']:.0f} µs, {one['windows_per_second']:,.0f} windows/s; "
        f"{peer}. Training our default encoder on it takes "
        f"{1e3 * one['training_step_seconds']:.0f} ms, so drawing is {share:.1%} of a step.",
        "",
        "| recordings | windows | µs per step | windows/s | a new epoch, ms |",
        "|---" * 5 + "|",
    ]
    lines += [
        f"| {row['num_recordings']} | {row['num_windows']:,} | {1e6 * row['step_seconds']:.0f} "
        f"| {row['windows_per_second']:,.0f} | {1e3 * row['new_epoch_seconds']:.2f} |"
        for row in results["scaling"]
    ]
    lines += [
        "",
        f"A recording of {FULL_RECORDING:,} samples x {NUM_UNITS} units on disk: "
        f"{full['measure_seconds']:.2f} s to measure its scale, {full['normalise_seconds']:.2f} s "
        f"to normalise it; at most {full['peak_bytes'] / 1e6:.0f} MB in memory, of which the "
        f"result is {full['activity_bytes'] / 1e6:.0f} MB.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    results = {
        "one_step": compare(),
        "scaling": [scale(*setting) for setting in SCALES],
        "full_size": normalise_full_size(),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(as_markdown(results))
    print(as_markdown(results))


if __name__ == "__main__":
    main()
