"""Time, memory and open files of preparing and screening many full-size recordings.

    python benchmarks/preparation.py --recordings 100 --directory /tmp/preparation

Recordings are synthetic: as large as a session of the Allen Brain Observatory (114,000 timesteps
x 174 units in float32, 79 MB; 628 gratings, ten repeats of a movie of 900 pictures, 166 MB), with
noise and transients for activity, since only sizes matter here. They are written, then prepared
and screened with each number of workers; the directory needs 160 MB of disk per recording and is
emptied in the end. Sources are in our own HDF5 form, so no time goes into decompression.

Writes benchmarks/results/preparation.json and .md. Figures are of all processes together:

- seconds per recording, from the first one done to the last (Ray's start is given apart);
- private memory (RssAnon: what a machine must have free) at its highest and its slope over
  recordings; and all resident memory, which also counts shared pages of libraries and of the
  files just read, which the system takes back when it needs them;
- open files at their most.
"""

import argparse
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.signal

from poyo_ssl.predictability.screening import screen
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.recordings.preparation import prepare
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.recordings.storage import save_recording
from poyo_ssl.windows.splits import SplitConfig

NUM_TIMESTEPS, NUM_UNITS, RATE = 114_000, 174, 30.0
PICTURES = (900, 304, 608)
WORKERS = (1, 2)
SCALES = {"all type A": 433, "all sessions": 1518}
FEWEST_FOR_SLOPE = 10  # counts of recordings done at which memory was looked at
SAMPLING_PERIOD = 0.2  # seconds between two looks at the processes
RESULTS = Path(__file__).parent / "results" / "preparation.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=4)
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args()
    raw, prepared = options.directory / "raw", options.directory / "prepared"
    if options.directory.exists():
        parser.error(f"'{options.directory}' is there already; name a new directory.")
    try:
        write_seconds = write_recordings(raw, options.recordings)
        rows = []
        for workers in WORKERS:
            shutil.rmtree(prepared, ignore_errors=True)
            rows.append(measure("prepare", workers, options.recordings, prepare_all(raw, prepared)))
            rows.append(measure("screen", workers, options.recordings, screen_all(prepared)))
        sizes = {
            "recording": round(sum(f.stat().st_size for f in prepared.glob("*.h5")) / 1e6),
            "pictures": round(sum(f.stat().st_size for f in prepared.glob("*/*.npy")) / 1e6),
        }
    finally:
        shutil.rmtree(options.directory, ignore_errors=True)
    result = {
        "command": f"python benchmarks/preparation.py --recordings {options.recordings}",
        "data": "synthetic",
        "recordings": options.recordings,
        "cores": os.cpu_count(),
        "seconds_to_write_one": write_seconds,
        "megabytes_prepared": sizes,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    page = format_markdown(result)
    RESULTS.with_suffix(".md").write_text(page)
    print(page)


def write_recordings(directory: Path, number: int) -> float:
    """Writes the sources and returns the seconds that each took."""
    pictures = np.random.default_rng(0).integers(0, 256, PICTURES, dtype=np.uint8)
    started = time.perf_counter()
    for seed in range(number):
        save_recording(full_size_recording(seed, pictures), directory)
    return round((time.perf_counter() - started) / number, 2)


def full_size_recording(seed: int, pictures: np.ndarray) -> Recording:
    """Noise and decaying transients, with the stimuli of a session of type A but movie three."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.01, 0.2, NUM_UNITS) / RATE
    df_over_f = rng.random((NUM_TIMESTEPS, NUM_UNITS), dtype=np.float32)
    events = (df_over_f < rates).astype(np.float32)
    df_over_f -= 0.5
    df_over_f += scipy.signal.lfilter([1.0], np.float32([1.0, -0.97]), events, axis=0)
    return Recording(
        recording_id=f"synthetic-{seed:04d}",
        df_over_f=df_over_f,
        timestamps=np.arange(NUM_TIMESTEPS) / RATE,
        units=pd.DataFrame(
            {
                "unit_id": [f"{seed}/{unit}" for unit in range(NUM_UNITS)],
                "cre_line": f"Line-{seed % 13}",
            }
        ),
        stimuli={"drifting_gratings": gratings(rng), "natural_movie_one": movie()},
        templates={"natural_movie_one": pictures},
    )


def gratings(rng: np.random.Generator) -> pd.DataFrame:
    conditions = np.tile(np.arange(40), 15)
    rng.shuffle(conditions)
    start = 10.0 + 3.0 * np.arange(len(conditions))
    return pd.DataFrame(
        {
            "start": start,
            "end": start + 2.0,
            "orientation": 45.0 * (conditions % 8),
            "temporal_frequency": 2.0 ** (conditions // 8 % 5),
            "spatial_frequency": 0.04,
        }
    )


def movie() -> pd.DataFrame:
    shown = np.arange(10 * PICTURES[0])
    start = 2500.0 + shown / 30.0
    return pd.DataFrame(
        {
            "start": start,
            "end": start + 1 / 30.0,
            "movie_frame": shown % PICTURES[0],
            "repeat": shown // PICTURES[0],
        }
    )


Stage = Callable[[int, Callable[[int, int], None]], object]


def prepare_all(raw: Path, prepared: Path) -> Stage:
    return lambda workers, on_progress: prepare(
        raw, prepared, source=SourceConfig(), jobs=workers, on_progress=on_progress
    )


def screen_all(prepared: Path) -> Stage:
    return lambda workers, on_progress: screen(
        prepared,
        splits=SplitConfig(),
        predictability=PredictabilityConfig(),
        source=SourceConfig(),
        jobs=workers,
        on_progress=on_progress,
    )


def measure(name: str, workers: int, number: int, stage: Stage) -> dict:
    """Runs a stage while another thread looks at the processes."""
    samples: list[dict[str, float]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            samples.append({"done": len(times), **look_at_processes()})
            ended.wait(SAMPLING_PERIOD)

    times: list[float] = []

    def report(done: int, total: int) -> None:
        if done:  # the first report of a resumable stage is of what was there
            times.append(time.perf_counter() - started)

    watcher = threading.Thread(target=look)
    started = time.perf_counter()
    watcher.start()
    try:
        stage(workers, report)
    finally:
        ended.set()
        watcher.join()
    if len(times) != number:
        raise RuntimeError(f"{name} finished {len(times)} of {number} recordings.")
    table = pd.DataFrame(samples)
    per_recording = (times[-1] - times[0]) / (number - 1)
    return {
        "stage": name,
        "workers": workers,
        "seconds_per_recording": round(per_recording, 3),
        "seconds_to_first": round(times[0], 2),
        "private_megabytes": round(table["private"].max()),
        "private_megabytes_slope": slope(table),
        "resident_megabytes": round(table["resident"].max()),
        "open_files": int(table["files"].max()),
        "minutes_expected": {
            str(scale): round((times[0] + per_recording * (scale - 1)) / 60, 1)
            for scale in SCALES.values()
        },
    }


def slope(table: pd.DataFrame) -> float | None:
    """Private megabytes gained per recording: a line through the peak at each count done."""
    peaks = table[table["done"] > 0].groupby("done")["private"].max()
    peaks = peaks[peaks.index < peaks.index.max()]  # in the end workers stop
    if len(peaks) < FEWEST_FOR_SLOPE:
        return None
    return round(float(np.polyfit(peaks.index, peaks, 1)[0]), 2)


def look_at_processes() -> dict[str, float]:
    """Memory in megabytes and open files of this process and all that it started."""
    total = {"private": 0.0, "resident": 0.0, "files": 0.0}
    for process in descendants(os.getpid()):
        try:
            status = (process / "status").read_text()
            total["files"] += len(list((process / "fd").iterdir()))
        except OSError:  # it has ended meanwhile
            continue
        for name, field in (("private", "RssAnon"), ("resident", "VmRSS")):
            found = re.search(rf"{field}:\s+(\d+) kB", status)
            total[name] += int(found[1]) / 1000 if found else 0.0
    return total


def descendants(pid: int) -> list[Path]:
    parents: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(process.name))
    found = [pid]
    for known in found:  # grows while it is walked
        found.extend(parents.get(known, []))
    return [Path("/proc") / str(known) for known in found]


def format_markdown(result: dict) -> str:
    scales = " | ".join(f"{scale:,} ({name})" for name, scale in SCALES.items())
    sizes = result["megabytes_prepared"]
    lines = [
        f"`{result['command']}`",
        "",
        f"{result['recordings']} synthetic recordings of {NUM_TIMESTEPS:,} timesteps x {NUM_UNITS} "
        f"units and a movie, on {result['cores']} cores. Prepared they take {sizes['recording']:,} "
        f"MB, and their pictures, stored once, {sizes['pictures']:,} MB. Times for "
        f"{' and '.join(f'{scale:,}' for scale in SCALES.values())} are extrapolated: time to the "
        "first, and the seconds per recording for each of the others.",
        "",
        "| stage | workers | s per recording | s to the first | private MB, peak "
        "| gained per recording | resident MB, peak | open files, peak | minutes for "
        + scales.replace(" | ", " | minutes for ")
        + " |",
        "|---" * 10 + "|",
    ]
    for row in result["rows"]:
        gained = row["private_megabytes_slope"]
        cells = [
            row["stage"],
            row["workers"],
            f"{row['seconds_per_recording']:.2f}",
            f"{row['seconds_to_first']:.1f}",
            f"{row['private_megabytes']:,}",
            "too few recordings" if gained is None else f"{gained:+.1f}",
            f"{row['resident_megabytes']:,}",
            row["open_files"],
            *row["minutes_expected"].values(),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
