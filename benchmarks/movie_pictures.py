"""What a mouse was shown, as pictures: real frames of natural movie one, told from 242 cells.

    python benchmarks/movie_pictures.py SWDB FRAMES
    python benchmarks/movie_pictures.py --simulated

SWDB is a recording of an Allen population that saw natural movie one seven times (events at 30 Hz),
FRAMES holds the pixels of 300 of its 900 frames (``frames``, ``frame_index``). Asked about are:

- held-out repeats: every showing is left out in turn, so every frame was seen in training;
- held-out frames: the movie is told in five parts, each by decoders that never saw it.

Look-ups choose their options on training repeats, by how likely they make the very frame shown.
Scored are 64 x 128 pixels: structural similarity, correlation of pixels, PSNR. Rows go to
``--output`` as they come, and the same command goes on where it stopped. Writes
benchmarks/results/movie_pictures.json and .md, and docs/figures/movie_pictures.webp, one repeat
beside what the filter sees in it. Takes 10 minutes on two cores.

With ``--simulated`` the same is asked of three simulated mice of a Cux2 and of an Sst line, 174
units each, that see a movie of 900 frames ten times: the last two showings test, as in the paper's
setting. Writes benchmarks/results/simulated_pictures.json and .md in ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from movies import setting_of
from over_recordings import save_tables, to_markdown
from PIL import Image
from scipy.stats import t

import poyo_ssl as ps
from poyo_ssl.comparison.arms import ARMS
from poyo_ssl.windows.task_windows import find_windows

STIMULUS = "natural_movie_one"
NUM_REPEATS, NUM_PARTS = 7, 5
DECAYS = (0.1, 0.3)
"""Seconds in which events decay."""
SHOWN_DECAY = 0.1
"""That of the figure."""
LINES = ("Cux2", "Sst")
SEEDS = range(3)
ARMS_ASKED = {
    "movie": ("mean frame", "ridge to pixels", "nearest frame", "frame posterior", "frame filter"),
    "movie_held_out": ("mean frame", "ridge to pixels"),
}
SHOWN = "frame filter"
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "movie_pictures.webp"
METRICS = ("ssim", "correlation", "psnr")


@dataclass(frozen=True)
class Fit:
    """One decoder of one part that is left out."""

    data: Path
    frames: Path
    task: str
    decay: float
    fold: int
    arm: str

    @property
    def facts(self) -> dict:
        """What tells it from others."""
        return {"task": self.task, "decay": self.decay, "fold": self.fold, "arm": self.arm}

    def divided(self) -> ps.Divided:
        """The recording that it is fitted on."""
        return ps.divide([load(self.data, self.frames, self.decay)], self.task, splits_of(self))


@dataclass(frozen=True)
class SimulatedFit:
    """One decoder of one simulated mouse."""

    task: str
    line: str
    seed: int
    arm: str

    @property
    def facts(self) -> dict:
        """What tells it from others."""
        return {"task": self.task, "line": self.line, "seed": self.seed, "arm": self.arm}

    def divided(self) -> ps.Divided:
        """The recording that it is fitted on."""
        config = ps.SimulatorConfig(
            lines=(self.line,), recordings_per_line=1, units_per_recording=174, seed=self.seed,
            grating_trials_per_condition=1, blank_sweeps=0, grating_blocks=1,
            include_static_gratings=False, movie_frames=900, movie_repeats=10,
        )  # fmt: skip
        splits = ps.SplitConfig(valid_fraction=0.0, test_fraction=0.2)
        return ps.divide(ps.simulate_observatory(config), self.task, splits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("frames", type=Path, nargs="?")
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("runs/movie_pictures"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.simulated:
        tell_simulated(options)
        return
    table = fit_all(plan(options.data, options.frames), options)
    summary = summarise(table, ["task", "decay", "arm"], METRICS)
    page = [
        "# Pictures of a real movie",
        "`python benchmarks/movie_pictures.py SWDB FRAMES`: 242 cells, 300 frames of natural movie "
        "one with their pixels, 1-s windows. Intervals: 95 % (t) over the seven repeats, or the "
        "five parts of the movie, that are left out in turn. `decay`: seconds in which events "
        "decay.",
        to_markdown(summary),
    ]
    save_tables("movie_pictures", {"rows": table, "summary": summary}, page)
    print(page[-1])
    play(options.data, options.frames)


def tell_simulated(options: argparse.Namespace) -> None:
    """The same of simulated mice."""
    fits = [
        SimulatedFit(task, line, seed, arm)
        for seed in SEEDS
        for line in LINES
        for task, arms in (
            ("movie", ARMS_ASKED["movie"]), ("movie_frame", ("nearest frame", "frame filter")),
        )
        for arm in arms
    ]  # fmt: skip
    table = fit_all(fits, options)
    pictures, frames = (table[table["task"] == task] for task in ("movie", "movie_frame"))
    by_picture = summarise(pictures, ["line", "arm"], METRICS)
    by_frame = summarise(frames, ["line", "arm"], ("within_1s", "within_200ms"))
    page = [
        "# Pictures of a simulated movie, held-out repeats",
        f"`python benchmarks/movie_pictures.py --simulated`: {len(SEEDS)} simulated mice a line, "
        "174 units, 900 frames shown ten times at 30 Hz, the last two showings test. Intervals: "
        "95 % (t) over mice.",
        to_markdown(by_picture),
        "## Which frame",
        to_markdown(by_frame),
    ]
    tables = {"pictures": by_picture, "frames": by_frame}
    save_tables("simulated_pictures", {"rows": table, **tables}, page)
    print("\n\n".join(page))


def plan(data: Path, frames: Path) -> list[Fit]:
    """Every decoder of every part."""
    folds = {"movie": NUM_REPEATS, "movie_held_out": NUM_PARTS}
    return [
        Fit(data, frames, task, decay, fold, arm)
        for task, arms in ARMS_ASKED.items()
        for decay in DECAYS
        for fold in range(folds[task])
        for arm in arms
    ]


def fit_all(fits: list[Fit] | list[SimulatedFit], options: argparse.Namespace) -> pd.DataFrame:
    """A row a decoder; those that are done are read back."""
    rows = joblib.Parallel(n_jobs=options.jobs, batch_size=1)(
        joblib.delayed(kept)(options.output, fit) for fit in fits
    )
    return pd.DataFrame(rows)


def kept(folder: Path, fit: Fit | SimulatedFit) -> dict:
    """The row of a file, which is written where it is not there."""
    name = "-".join(str(fact).replace(" ", "_") for fact in fit.facts.values())
    path = folder / f"{name}.json"
    if not path.is_file():
        torch.set_num_threads(1)
        decoder, divided = fit_one(fit)
        row = {**fit.facts, **ps.evaluate(decoder, list(divided)).mean()}
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(json.dumps(row))
        os.replace(unfinished, path)
        print(row, flush=True)
    return json.loads(path.read_text())


def fit_one(fit: Fit | SimulatedFit) -> tuple[ps.FittedDecoder, ps.Divided]:
    """A decoder, and the recording that it is fitted on, divided."""
    divided = fit.divided()
    decoder = ARMS[fit.arm].fit(setting_of(divided, fit.task, 0))
    return decoder, divided


def splits_of(fit: Fit) -> ps.SplitConfig:
    """Every repeat, or every part of either scene, tests once."""
    if fit.task == "movie":
        return ps.SplitConfig(folds=NUM_REPEATS, fold=fit.fold, runs_per_fold=1, valid_fraction=0)
    return ps.SplitConfig(folds=NUM_PARTS, fold=fit.fold, held_out_blocks=1, valid_fraction=0)


def load(data: Path, frames: Path, decay: float) -> ps.Recording:
    """The recording with the showings of the frames whose pixels are known, numbered from 0."""
    [recording] = ps.load_recordings(data, ps.SourceConfig(event_decay=decay))
    with np.load(frames) as known:
        number = {int(frame): i for i, frame in enumerate(known["frame_index"])}
        pictures = known["frames"]
    table = recording.stimulus(STIMULUS)
    shown = table[table["movie_frame"].isin(list(number))]
    shown = shown.assign(movie_frame=shown["movie_frame"].map(number)).reset_index(drop=True)
    return replace(recording, stimuli={STIMULUS: shown}, templates={STIMULUS: pictures})


def summarise(rows: pd.DataFrame, by: list[str], metrics: tuple[str, ...]) -> pd.DataFrame:
    """Means over what is left out, or mice, with intervals of the first metric."""
    grouped = rows.groupby(by, sort=False)
    table = grouped[list(metrics)].mean()
    spread = grouped[metrics[0]].agg(["sem", "count"])
    table.insert(1, "interval", spread["sem"] * t.ppf(0.975, spread["count"] - 1))
    return table.reset_index()


def play(data: Path, frames: Path) -> None:
    """Draws one repeat, true frames left and decoded ones right, at half the pace."""
    fit = Fit(data, frames, "movie", SHOWN_DECAY, 0, SHOWN)
    decoder, divided = fit_one(fit)
    [one] = divided
    splits, question = one.splits[fit.task], decoder.question
    windows = find_windows(
        one.recording, question.task, splits.test, question.classes, question.num_timesteps,
        reach=splits.reach("test"),
    )  # fmt: skip
    decoded = decoder.predict(one.recording, windows.first_timestep)
    true = divided.pictures(question.task).numpy()[windows.target]
    gap = np.ones((len(true), true.shape[1], 4))
    grey = np.round(255 * np.concatenate([true, gap, decoded], axis=2)).astype(np.uint8)
    first, *others = (Image.fromarray(picture) for picture in grey[::2])
    first.save(
        FIGURE, save_all=True, append_images=others, duration=133, loop=0, quality=60, method=6
    )


if __name__ == "__main__":
    main()
