"""Films of a run: which were saved, and the players that show them on the page."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from poyo_ssl.evaluation.film import Film, film_file
from poyo_ssl.file_names import fit_folder
from poyo_ssl.report.formatting import format_score
from poyo_ssl.report.pictures import encode_png
from poyo_ssl.report.results import ArmFile, ReportError, RunResults, Task
from poyo_ssl.report.score_figures import best_of_each_kind
from poyo_ssl.report.style import ArmStyle

MOST_PLAYERS = 6
"""Recordings of a task that the page plays; each is up to 2 MB."""
NUM_MOMENTS_APART = 3
"""Best moments, and worst ones, that stand below a film."""
_MOST_PLAYED = 150
"""Moments of a film that the page plays."""
_SHEET_COLUMNS = 10
_JPEG_QUALITY = 75


@dataclass(frozen=True, kw_only=True)
class SavedFilm:
    """Where a run keeps the film of one decoder and recording."""

    task: str
    split: str
    units: str
    arm: str
    recording_id: str
    seed: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class Screen:
    """One of the pictures that move side by side: the truth, or what one arm made of it."""

    title: str
    note: str
    color: str
    sheet: str
    """All moments beside and below each other, a JPEG as a data URI."""
    curve: str
    """SSIM over time as points of an SVG; empty for the truth."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One moment as it stands below the film."""

    at: int
    """Its place in the film."""
    caption: str
    true: str
    """PNG as a data URI."""
    predicted: str
    """The same of what the best arm decoded."""


@dataclass(frozen=True, kw_only=True)
class Player:
    """A film of one recording with its controls."""

    recording_id: str
    screens: list[Screen]
    num_moments: int
    width: int
    height: int
    facts: str
    """JSON for the script: movie frames, SSIM of every arm, columns of a sheet, seconds apart."""
    judged: str
    """The arm that best and worst moments are of."""
    best: list[Moment]
    worst: list[Moment]


@dataclass(frozen=True, kw_only=True)
class TaskFilms:
    """The films of one task, from the subset of units of most interest."""

    title: str
    players: list[Player]
    num_left_out: int
    """Recordings that have a film, too."""


def find_films(results: RunResults) -> list[SavedFilm]:
    """The films that a run saved, in the order of its scores."""
    known = results.scores[["task", "split", "units", "arm", "labels", "seed", "recording_id"]]
    films = []
    for task, split, units, arm, labels, seed, recording_id in (
        known.drop_duplicates().astype({"seed": int}).itertuples(index=False, name=None)
    ):
        fit = results.directory / fit_folder(task, units, arm, labels, seed)
        films.append(
            SavedFilm(
                task=task,
                split=split,
                units=units,
                arm=arm,
                recording_id=recording_id,
                seed=seed,
                path=fit / film_file(recording_id),
            )
        )
    return [film for film in films if film.path.is_file()]


def build_players(
    results: RunResults, task: Task, films: list[SavedFilm], styles: dict[str, ArmStyle]
) -> list[Player]:
    """Players of the best reference decoder and the best network, one a recording.

    Args:
        results: The run.
        task: What was decoded.
        films: Those of the task and one subset of units; the first seed of each arm is shown.
        styles: How each arm is drawn.
    """
    units = films[0].units
    saved = {ArmFile(task=task.name, units=units, arm=film.arm) for film in films}
    arms = [file.arm for file in best_of_each_kind(results, task, units, saved)]
    players = []
    for recording_id in list(dict.fromkeys(film.recording_id for film in films))[:MOST_PLAYERS]:
        first = {
            film.arm: film
            for film in sorted(films, key=lambda film: film.seed, reverse=True)
            if film.recording_id == recording_id
        }
        shown = {arm: Film.load(first[arm].path) for arm in arms if arm in first}
        if shown:
            players.append(_build_player(recording_id, shown, styles))
    return players


def _build_player(recording_id: str, films: dict[str, Film], styles: dict[str, ArmStyle]) -> Player:
    _require_one_movie(recording_id, films)
    step = -(-len(next(iter(films.values())).movie_frame) // _MOST_PLAYED)
    films = {arm: film.every(step) for arm, film in films.items()}
    judged, film = max(films.items(), key=lambda item: item[1].ssim.mean())
    highest = max(float(one.ssim.max()) for one in films.values())
    lowest = min(float(one.ssim.min()) for one in films.values())
    screens = [
        Screen(title="Shown", note="", color="currentcolor", sheet=_encode(film.true), curve="")
    ]
    for arm, one in films.items():
        screens.append(
            Screen(
                title=arm,
                note=f"mean SSIM {format_score(float(one.ssim.mean()), 'ssim')}",
                color=styles[arm].color,
                sheet=_encode(one.predicted),
                curve=_curve(one.ssim, lowest, highest),
            )
        )
    facts = {
        "movieFrames": film.movie_frame.tolist(),
        "ssim": [np.round(one.ssim, 3).tolist() for one in films.values()],
        "columns": _SHEET_COLUMNS,
        "secondsApart": round(film.seconds_apart, 4),
    }
    order = np.argsort(-film.ssim, kind="stable")
    num_moments, height, width = film.true.shape
    return Player(
        recording_id=recording_id,
        screens=screens,
        num_moments=num_moments,
        width=width,
        height=height,
        facts=json.dumps(facts),
        judged=judged,
        best=_moments(film, order),
        worst=_moments(film, order[::-1]),
    )


def _require_one_movie(recording_id: str, films: dict[str, Film]) -> None:
    first, *others = [film.movie_frame for film in films.values()]
    if not all(np.array_equal(first, other) for other in others):
        raise ReportError(
            f"The films of '{recording_id}' by {' and '.join(films)} show different movie frames. "
            "Run again into a new directory."
        )


def _encode(pictures: np.ndarray) -> str:
    """Pictures (num_moments, height, width) in rows of a sheet, as a JPEG data URI."""
    num_moments, height, width = pictures.shape
    num_rows = -(-num_moments // _SHEET_COLUMNS)
    sheet = np.zeros((num_rows * _SHEET_COLUMNS, height, width), dtype=np.uint8)
    sheet[:num_moments] = pictures
    sheet = sheet.reshape(num_rows, _SHEET_COLUMNS, height, width).swapaxes(1, 2)
    buffer = io.BytesIO()
    image = Image.fromarray(sheet.reshape(num_rows * height, _SHEET_COLUMNS * width))
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _curve(ssim: np.ndarray, lowest: float, highest: float) -> str:
    """Points of a line in a box of 100 x 100."""
    x = np.linspace(0, 100, len(ssim))
    y = 95 - 90 * (ssim - lowest) / max(highest - lowest, 1e-9)
    return " ".join(f"{left:.1f},{top:.0f}" for left, top in zip(x, y, strict=True))


def _moments(film: Film, order: np.ndarray) -> list[Moment]:
    """The first ones of an order that are well apart, in that order."""
    apart = max(1, len(order) // 10)
    chosen: list[int] = []
    for at in order.tolist():
        if len(chosen) < NUM_MOMENTS_APART and all(abs(at - other) >= apart for other in chosen):
            chosen.append(at)
    return [
        Moment(
            at=at,
            caption=f"frame {film.movie_frame[at]}: {format_score(float(film.ssim[at]), 'ssim')}",
            true=encode_png(film.true[at]),
            predicted=encode_png(film.predicted[at]),
        )
        for at in chosen
    ]
