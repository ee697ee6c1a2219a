"""Loads, partitions, pretrains, adapts and streams again and again in one process: what grows?

    OMP_NUM_THREADS=1 python benchmarks/soak.py --minutes 6
    OMP_NUM_THREADS=1 python benchmarks/soak.py --minutes 60

Two simulated recordings are loaded from their files, their units partitioned, an encoder is
pretrained, brought to one of them, and the decoder streams five hundred samples; all with new seeds
and with checkpoints and TensorBoard files, into a new directory that is removed. After every round
resident memory, open files, threads and temporary files are counted. Slopes are Theil and Sen's
over the second half of the rounds, with their 95 % intervals; the first half is left to caches that
fill once.
Writes benchmarks/results/soak.json, .md and .png.
"""

import argparse
import gc
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
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
NUM_STREAMED = 500
FIGURES = {
    "memory": "resident memory (MiB)",
    "open_files": "open files",
    "threads": "threads",
    "temporary_files": "temporary files",
}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=6.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        # what this process, and nobody else, leaves there can be counted
        tempfile.tempdir = str(Path(directory) / "temporary")
        os.environ["TMPDIR"] = tempfile.tempdir
        Path(tempfile.tempdir).mkdir()
        for recording in ps.simulate_observatory(RECORDED):
            ps.save_recording(recording, Path(directory) / f"{recording.recording_id}.h5")
        files = sorted(Path(directory).glob("*.h5"))
        rounds = soak(files, Path(directory), 60 * options.minutes)
    facts = {
        "command": f"python benchmarks/soak.py --minutes {options.minutes:g}",
        "minutes": round(rounds["seconds"].iloc[-1] / 60, 2),
        "rounds": len(rounds),
        "slopes": {name: slope_of(rounds, name) for name in FIGURES},
        "table": rounds.round(3).to_dict(orient="list"),
    }
    (RESULTS / "soak.json").write_text(json.dumps(facts, indent=1) + "\n")
    (RESULTS / "soak.md").write_text(format_markdown(facts, rounds))
    draw(rounds, RESULTS / "soak.png")
    print(format_markdown(facts, rounds))


def soak(files: list[Path], directory: Path, seconds: float) -> pd.DataFrame:
    """Rounds until the time is over: one row a round, what was counted after it."""
    began, rows = time.perf_counter(), []
    while time.perf_counter() - began < seconds:
        with tempfile.TemporaryDirectory(dir=directory) as of_round:
            do_everything(files, Path(of_round), seed=len(rows))
        rows.append({"seconds": time.perf_counter() - began, **count()})
    return pd.DataFrame(rows)


def do_everything(files: list[Path], directory: Path, seed: int) -> None:
    recordings = ps.load_recordings(files)
    divided = ps.divide(recordings, "direction", SPLITS)
    units = ps.partition_by_predictability(divided, PREDICTABILITY)
    encoder = ps.pretrain(
        units.population(divided, "predictable"),
        ps.PretrainingConfig(training=TRAINING),
        encoder=ENCODER,
        seed=seed,
        checkpoint_directory=directory / "pretraining",
        log_directory=directory / "tensorboard",
    )
    ps.save_encoder(encoder, directory / "encoder")
    decoder, _ = ps.adapt(
        directory / "encoder",
        recordings[:1],
        "direction",
        ps.AdaptationConfig(
            units="all",
            splits=SPLITS,
            predictability=PREDICTABILITY,
            finetuning=ps.FinetuningConfig(training=TRAINING, members=1),
            seed=seed,
        ),
        checkpoint_directory=directory / "adaptation",
    )
    decoder.save(directory / "decoder")
    stream = ps.StreamingDecoder(
        ps.load_decoder(directory / "decoder"), recordings[0].unit_ids.tolist()
    )
    for sample in recordings[0].df_over_f[:NUM_STREAMED]:
        stream.push(sample)


def count() -> dict[str, float]:
    """What this process holds now, after a collection of garbage."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "open_files": len(os.listdir("/proc/self/fd")) - 1,  # one is this listing
        "threads": threading.active_count(),
        "temporary_files": sum(1 for _ in Path(tempfile.gettempdir()).rglob("*")),
    }


def slope_of(rounds: pd.DataFrame, name: str) -> list[float]:
    """Growth an hour over the second half of the rounds, and the ends of its interval."""
    half = rounds.iloc[len(rounds) // 2 :]
    slope, _, low, high = theilslopes(half[name], half["seconds"] / 3600)
    return [float(slope), float(low), float(high)]


def format_markdown(facts: dict, rounds: pd.DataFrame) -> str:
    lines = [
        f"`{facts['command']}`",
        "",
        f"Ran for {facts['minutes']:.1f} minutes: {facts['rounds']} rounds of load, partition, "
        f"pretrain, adapt and stream in one process (torch {torch.__version__}, one thread). "
        "Growth is that of the second half of the rounds [95 % interval].",
        "",
        "| | first round | half way | last round | growth an hour |",
        "|---|---|---|---|---|",
    ]
    half = len(rounds) // 2
    for name, text in FIGURES.items():
        first, middle, last = (rounds[name].iloc[place] for place in (0, half, -1))
        slope, low, high = facts["slopes"][name]
        lines.append(
            f"| {text} | {first:.0f} | {middle:.0f} | {last:.0f} "
            f"| {slope:+.1f} [{low:+.1f}, {high:+.1f}] |"
        )
    return "\n".join(lines) + "\n"


def draw(rounds: pd.DataFrame, path: Path) -> None:
    figure, panels = plt.subplots(2, 2, figsize=(8, 5), sharex=True, layout="constrained")
    for panel, (name, text) in zip(panels.flat, FIGURES.items(), strict=True):
        panel.plot(rounds["seconds"] / 60, rounds[name], marker=".", color="black")
        panel.axvspan(
            rounds["seconds"].iloc[len(rounds) // 2] / 60,
            rounds["seconds"].iloc[-1] / 60,
            color="0.9",
            label="slope",
        )
        panel.set(title=text, ylim=(0, 1.2 * max(1.0, rounds[name].max())))
    for panel in panels[1]:
        panel.set_xlabel("minutes")
    panels[0, 0].legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
