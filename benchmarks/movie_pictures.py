"""What a mouse was shown, as pictures: real frames of natural movie one, told from 242 cells.

    python benchmarks/movie_pictures.py SWDB FRAMES

SWDB is a recording of an Allen population that saw natural movie one seven times (events at 30 Hz),
FRAMES holds the pixels of 300 of its 900 frames (``frames``, ``frame_index``). Asked about are:

- held-out repeats: every showing is left out in turn, so every frame was seen in training;
- held-out frames: the movie is told in five parts, each by decoders that never saw it.

Look-ups choose their options on training repeats, by how likely they make the very frame shown.
Scored are 64 x 128 pixels: structural similarity, correlation of pixels, PSNR. Rows go to
``--output`` as they come, and the same command goes on where it stopped. Writes
benchmarks/results/movie_pictures.json and .md, and docs/figures/movie_pictures.webp, the last
repeat beside what the filter sees in it. Takes 25 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
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
LEARNED = 0.1
"""The decay for networks."""
ARMS_ASKED = {
    "movie": ("mean frame", "ridge to pixels", "nearest frame", "frame posterior", "frame filter"),
    "movie_held_out": ("mean frame", "ridge to pixels"),
}
NETWORK = "scratch + teacher"
"""A UNet that corrects the pictures of ridge."""
SHOWN = "frame filter"
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "movie_pictures.webp"
METRICS = ("ssim", "correlation", "psnr")


@dataclass(frozen=True)
class Fit:
    """One decoder of one part that is left out."""

    task: str
    decay: float
    fold: int
    arm: str

    @property
    def file(self) -> str:
        return f"{self.task}-{self.decay}-{self.fold}-{self.arm.replace(' ', '_')}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("frames", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/movie_pictures"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = joblib.Parallel(n_jobs=options.jobs, batch_size=1)(
        joblib.delayed(kept)(options.output / fit.file, fit, options.data, options.frames)
        for fit in plan()
    )
    table = pd.DataFrame(rows)
    summary = summarise(table)
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


def plan() -> Iterator[Fit]:
    """The quick ones first."""
    folds = {"movie": NUM_REPEATS, "movie_held_out": NUM_PARTS}
    for task, arms in ARMS_ASKED.items():
        for decay in DECAYS:
            for fold in range(folds[task]):
                yield from (Fit(task, decay, fold, arm) for arm in arms)
    for task in ARMS_ASKED:
        yield from (Fit(task, LEARNED, fold, NETWORK) for fold in range(folds[task]))


def kept(path: Path, fit: Fit, data: Path, frames: Path) -> dict:
    """The row of a file, which is written where it is not there."""
    if not path.is_file():
        torch.set_num_threads(1)
        decoder, divided = fit_one(fit, data, frames)
        scores = ps.evaluate(decoder, list(divided)).mean()
        row = {**vars(fit), **{name: float(scores[name]) for name in METRICS}}
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(json.dumps(row))
        os.replace(unfinished, path)
        print(row, flush=True)
    return json.loads(path.read_text())


def fit_one(fit: Fit, data: Path, frames: Path) -> tuple[ps.FittedDecoder, ps.Divided]:
    """A decoder, and the recording that it is fitted on, divided."""
    divided = ps.divide([load(data, frames, fit.decay)], fit.task, splits_of(fit))
    decoder, _ = ARMS[fit.arm].fit(setting_of(divided, fit.task, fit.fold))
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


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over what is left out, with intervals of the structural similarity."""
    grouped = rows.groupby(["task", "decay", "arm"], sort=False)
    table = grouped[list(METRICS)].mean()
    spread = grouped["ssim"].agg(["sem", "count"])
    table.insert(1, "interval", spread["sem"] * t.ppf(0.975, spread["count"] - 1))
    return table.reset_index()


def play(data: Path, frames: Path) -> None:
    """Draws the last repeat, true frames left and decoded ones right, at half the pace."""
    fit = Fit("movie", LEARNED, NUM_REPEATS - 1, SHOWN)
    decoder, divided = fit_one(fit, data, frames)
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
