"""Prepares, screens, pretrains, adapts and streams again and again: what grows?

    OMP_NUM_THREADS=1 python benchmarks/soak.py --minutes 6
    OMP_NUM_THREADS=1 python benchmarks/soak.py --minutes 60

Two simulated recordings are prepared from their files and screened, an encoder is pretrained on
their predictable units, brought to one of them, and the decoder streams five hundred samples; all
with new seeds and with checkpoints and TensorBoard files, into a new directory that is removed.
Half of the time that is done in one process; in the other half two workers of one Ray prepare and
screen, and a whole run of two seeds pretrains and fits with two jobs. After every round resident
memory, open files, threads, processes and temporary files are counted, of this process and of all
that it started and that still live; memory of what does our work and of Ray's own services apart.
Slopes are Theil and Sen's over the second half of the rounds, with their 95 % intervals; the first
half is left to warm up: modules that are imported when they are first needed, caches that fill
once, and an allocator that finds its size.
Writes benchmarks/results/soak.json, .md and .png.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import psutil
import ray
import torch
from scipy.stats import theilslopes

import poyo_ssl as ps

RECORDED = ps.SimulatorConfig(
    lines=("Sst", "Cux2"),
    recordings_per_line=1,
    units_per_recording=16,
    sampling_rate=10.0,
    grating_trials_per_condition=2,
    blank_sweeps=2,
    grating_blocks=2,
    movie_frames=240,
    movie_repeats=3,
    movie_height=16,
    movie_width=32,
    include_static_gratings=False,
    spontaneous_duration=20.0,
    gap_duration=5.0,
)
SPLITS = ps.SplitConfig(valid_fraction=0.1, test_fraction=0.2, held_out_blocks=1, guard=0.5)
PREDICTABILITY = ps.PredictabilityConfig(min_timesteps=100)
ENCODER = ps.EncoderConfig(dim=32, depth=1, num_heads=2, dim_head=16, latents_per_step=2)
TRAINING = ps.TrainingConfig(max_steps=20, batch_size=8, valid_every=10, checkpoint_every=10)
PRETRAINING = ps.PretrainingConfig(training=TRAINING)
FINETUNING = ps.FinetuningConfig(training=TRAINING, members=1)
NUM_STREAMED = 500
FIGURES = {
    "memory": "resident memory of our work (MiB)",
    "services": "resident memory of Ray's services (MiB)",
    "open_files": "open files",
    "threads": "threads",
    "processes": "processes",
    "temporary_files": "temporary files",
}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=6.0)
    options = parser.parse_args()
    rounds = {}
    with tempfile.TemporaryDirectory() as directory:
        # what these processes, and nobody else, leave there can be counted
        tempfile.tempdir = str(Path(directory) / "t")
        os.environ.update(TMPDIR=tempfile.tempdir, RAY_TMPDIR=tempfile.tempdir)
        Path(tempfile.tempdir).mkdir()
        for recording in ps.simulate_observatory(RECORDED):
            ps.save_recording(recording, Path(directory) / "recordings")
        for name, do_everything in WAYS.items():
            print(name, flush=True)
            rounds[name] = soak(do_everything, Path(directory), 60 * options.minutes / len(WAYS))
    facts = {
        "command": f"python benchmarks/soak.py --minutes {options.minutes:g}",
        "ways": {
            name: {
                "minutes": round(table["seconds"].iloc[-1] / 60, 2),
                "rounds": len(table),
                "slopes": {figure: slope_of(table, figure) for figure in FIGURES},
                "table": table.round(3).to_dict(orient="list"),
            }
            for name, table in rounds.items()
        },
    }
    (RESULTS / "soak.json").write_text(json.dumps(facts, indent=1) + "\n")
    (RESULTS / "soak.md").write_text(format_markdown(facts, rounds))
    draw(rounds, RESULTS / "soak.png")
    print(format_markdown(facts, rounds))


def soak(
    do_everything: Callable[[list[Path], Path, int], None], directory: Path, seconds: float
) -> pd.DataFrame:
    """Rounds until the time is over: one row a round, what was counted after it."""
    files = sorted((directory / "recordings").glob("*.h5"))
    began, rows = time.perf_counter(), []
    while time.perf_counter() - began < seconds:
        with tempfile.TemporaryDirectory(dir=directory) as of_round:
            do_everything(files, Path(of_round), len(rows))
        rows.append({"seconds": time.perf_counter() - began, **count()})
    return pd.DataFrame(rows)


def in_one_process(files: list[Path], directory: Path, seed: int) -> None:
    prepared, units = prepare_and_screen(files, directory, workers=1)
    recordings = ps.load_recordings(prepared)
    divided = ps.divide(recordings, "direction", SPLITS)
    encoder = ps.pretrain(
        units.population(divided, "predictable"),
        PRETRAINING,
        encoder=ENCODER,
        seed=seed,
        checkpoint_directory=directory / "pretraining",
        log_directory=directory / "tensorboard",
    )
    ps.save_encoder(encoder, directory / "encoder")
    adapt_and_stream(directory / "encoder", recordings[0], directory, seed)


def start_ray() -> None:
    """Once, as on a cluster, so that its workers live as long as this process."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
    )


def with_workers(files: list[Path], directory: Path, seed: int) -> None:
    if not ray.is_initialized():
        start_ray()
    prepared, _ = prepare_and_screen(files, directory, workers=2)
    recordings = ps.load_recordings(prepared)
    config = ps.RunConfig(
        tasks=("direction",),
        units=("all",),
        arms=("scratch", "pretrained"),
        num_seeds=2,
        jobs=2,
        splits=SPLITS,
        predictability=PREDICTABILITY,
        encoder=ENCODER,
        pretraining=PRETRAINING,
        labels=FINETUNING,
    )
    ps.run(recordings, directory / "run", config)
    encoder = next(directory.glob("run/pretrained/*/seed-0"))
    adapt_and_stream(encoder, recordings[0], directory, seed)


WAYS = {"one process": in_one_process, "two workers": with_workers}


def prepare_and_screen(
    files: list[Path], directory: Path, workers: int
) -> tuple[list[Path], ps.Partition]:
    source, prepared = ps.SourceConfig(), directory / "prepared"
    ps.prepare(files, prepared, source=source, jobs=workers)
    stored = sorted(prepared.glob("*.h5"))
    screening = ps.screen(
        stored, splits=SPLITS, predictability=PREDICTABILITY, source=source, jobs=workers
    )
    return stored, screening.partition


def adapt_and_stream(encoder: Path, recording: ps.Recording, directory: Path, seed: int) -> None:
    config = ps.AdaptationConfig(
        units="all",
        splits=SPLITS,
        predictability=PREDICTABILITY,
        finetuning=FINETUNING,
        seed=seed,
    )
    decoder, _ = ps.adapt(
        encoder,
        [recording],
        "direction",
        config,
        checkpoint_directory=directory / "adaptation",
    )
    decoder.save(directory / "decoder")
    stream = ps.StreamingDecoder(
        ps.load_decoder(directory / "decoder"),
        recording.unit_ids.tolist(),
        sampling_rate=recording.sampling_rate,
    )
    for sample in recording.df_over_f[:NUM_STREAMED]:
        stream.push(sample)


def count() -> dict[str, float]:
    """What this process and those that it started hold now, after a collection of garbage."""
    gc.collect()
    mine = psutil.Process()
    every = [mine, *mine.children(recursive=True)]
    work = [one for one in every if one == mine or is_worker(one)]
    services = [one for one in every if one not in work]
    return {
        "memory": sum(one.memory_info().rss for one in work) / 2**20,
        "services": sum(one.memory_info().rss for one in services) / 2**20,
        "open_files": sum(one.num_fds() for one in every),
        "threads": sum(one.num_threads() for one in every),
        "processes": len(every),
        "temporary_files": sum(1 for _ in Path(tempfile.gettempdir()).rglob("*")),
    }


def is_worker(process: psutil.Process) -> bool:
    """Whether it runs our functions, for Ray or for joblib."""
    words = " ".join(process.cmdline())
    return words.startswith("ray::") or "popen_loky" in words


def slope_of(rounds: pd.DataFrame, name: str) -> list[float]:
    """Growth an hour over the second half of the rounds, and the ends of its interval."""
    half = rounds.iloc[len(rounds) // 2 :]
    slope, _, low, high = theilslopes(half[name], half["seconds"] / 3600)
    return [float(slope), float(low), float(high)]


def format_markdown(facts: dict, rounds: dict[str, pd.DataFrame]) -> str:
    lines = [
        f"`{facts['command']}`",
        "",
        "Rounds of prepare, screen, pretrain, adapt and stream in one process, and with two "
        f"workers (Ray for files, joblib for fits; torch {torch.__version__}, one thread each). "
        "Counted are the process and all that it started and that still live. Growth is that of "
        "the second half of the rounds [95 % interval].",
        "",
        "| | | first round | half way | last round | growth an hour |",
        "|---|---|---|---|---|---|",
    ]
    for way, table in rounds.items():
        of_way = facts["ways"][way]
        title = f"{way}, {of_way['minutes']:.0f} minutes, {len(table)} rounds"
        for name, text in FIGURES.items():
            first, middle, last = (table[name].iloc[place] for place in (0, len(table) // 2, -1))
            slope, low, high = of_way["slopes"][name]
            lines.append(
                f"| {title} | {text} | {first:.0f} | {middle:.0f} | {last:.0f} "
                f"| {slope:+.1f} [{low:+.1f}, {high:+.1f}] |"
            )
            title = ""
    return "\n".join(lines) + "\n"


def draw(rounds: dict[str, pd.DataFrame], path: Path) -> None:
    figure, panels = plt.subplots(
        len(FIGURES), len(rounds), figsize=(9, 11), sharex="col", layout="constrained"
    )
    for column, (way, table) in zip(panels.T, rounds.items(), strict=True):
        minutes = table["seconds"] / 60
        for panel, (name, text) in zip(column, FIGURES.items(), strict=True):
            panel.plot(minutes, table[name], marker=".", color="black")
            panel.axvspan(minutes.iloc[len(table) // 2], minutes.iloc[-1], color="0.9")
            panel.set_title(text, fontsize="medium")
            panel.set_ylim(0, 1.2 * max(1.0, table[name].max()))
        column[0].set_title(f"{way}\n{FIGURES['memory']}", fontsize="medium")
        column[-1].set_xlabel("minutes (grey: slope)")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
