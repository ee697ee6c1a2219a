"""What a run leaves that decoded movies, as little of it as films need."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from poyo_ssl.evaluation.film import Film, film_file
from poyo_ssl.file_names import fit_folder

ARMS = {"nearest frame": "reference", "mean frame": "reference", "scratch": "network"}
RECORDINGS = ("mouse A", "mouse <b>")
NUM_MOMENTS = 12


def draw_film(blur: float) -> Film:
    """A bar that moves to the right, decoded worse from moment to moment."""
    at = np.arange(NUM_MOMENTS)
    true = np.where(np.arange(32) // 2 == at[:, None], 220, 30)[:, None].repeat(16, axis=1)
    share = blur * at[:, None, None] / NUM_MOMENTS
    return Film(
        movie_frame=10 + 2 * at,
        true=true.astype(np.uint8),
        predicted=((1 - share) * true + share * 90).astype(np.uint8),
        ssim=1 - blur * at / NUM_MOMENTS,
        seconds_apart=0.1,
    )


def write_film_run(directory: Path) -> Path:
    """A run of which frame was shown: three arms, two recordings, one seed, and its films."""
    rows, answers = [], []
    for arm, kind in ARMS.items():
        film = draw_film({"nearest frame": 0.2, "mean frame": 0.9}.get(arm, 0.5))
        for recording_id in RECORDINGS:
            fit = directory / fit_folder("movie_frame", "all", arm, "100%", 0)
            film.save(fit / film_file(recording_id))
            score = float(film.ssim.mean())
            rows.append((recording_id, "movie_frame", "repeat", "all", arm, kind, 1.0, "100%", 0,
                         "within_1s", score))  # fmt: skip
            answers.append(
                pd.DataFrame({"recording": recording_id, "task": "movie_frame", "arm": arm,
                              "units": "all", "truth": film.movie_frame,
                              "answer": film.movie_frame + (arm == "scratch")})
            )  # fmt: skip
    columns = ["recording_id", "task", "split", "units", "arm", "kind", "label_fraction", "labels",
               "seed", "metric", "value"]  # fmt: skip
    pd.DataFrame(rows, columns=columns).to_csv(directory / "scores.csv", index=False)
    pd.concat(answers).to_csv(directory / "predictions.csv", index=False)
    task = {"name": "movie_frame", "title": "Movie", "split": "repeat", "kind": "frames"}
    run = {"title": "Films", "is_simulated": True, "tasks": [task]}
    (directory / "run.json").write_text(json.dumps(run))
    return directory
