"""Movie frames beside their reconstructions, as pictures inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from matplotlib.image import imsave

from poyo_ssl.report.formatting import format_score
from poyo_ssl.report.results import (
    ArmFile,
    MovieFrames,
    ReportError,
    RunResults,
    Task,
    with_most_labels,
)
from poyo_ssl.report.score_figures import rows_of


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One movie frame as the page shows it."""

    source: str
    """PNG as a data URI."""
    alternative: str
    """What it shows, in words."""
    caption: str


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """One row of the gallery: the truth or what one arm made of it."""

    title: str
    note: str
    kind: str
    """``true``, ``reference`` or ``network``."""
    pictures: list[Picture]


def encode_png(picture: np.ndarray) -> str:
    """A grey picture, shape (height, width), uint8, as a PNG data URI."""
    buffer = io.BytesIO()
    imsave(buffer, np.repeat(picture[..., None], 3, axis=2), format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def build_gallery(results: RunResults, task: Task, units: str) -> list[PictureRow]:
    """True movie frames, then every arm's reconstructions: reference decoders, then networks.

    Columns are the movie frames that all arms saved. Empty if no arm saved any.

    Raises:
        ReportError: If the arms saved no movie frame in common.
    """
    files = [
        file
        for file in results.movies
        if (file.task, file.units) == (task.name, units) and file.split in (None, task.split)
    ]
    if not files:
        return []
    common = set.intersection(*(set(results.movies[file].movie_frame.tolist()) for file in files))
    if not common:
        raise ReportError(
            f"The {len(files)} files of {task.name} in '{results.directory / 'movie'}' have no "
            "movie frame in common. Save the same movie frames for every arm."
        )
    shown = np.array(sorted(common))
    kind_of = dict(results.scores[["arm", "kind"]].itertuples(index=False, name=None))
    order = {arm: at for at, arm in enumerate(kind_of)}
    files.sort(
        key=lambda file: (kind_of.get(file.arm) != "reference", order.get(file.arm, len(order)))
    )
    rows = [_true_row(results.movies[files[0]], shown)]
    for file in files:
        kind = kind_of.get(file.arm, "network")
        rows.append(
            _arm_row(file, kind, results.movies[file], shown, _mean_note(results, task, file))
        )
    return rows


def _positions(movie: MovieFrames, shown: np.ndarray) -> list[int]:
    where = {frame: at for at, frame in enumerate(movie.movie_frame.tolist())}
    return [where[frame] for frame in shown.tolist()]


def _true_row(movie: MovieFrames, shown: np.ndarray) -> PictureRow:
    pictures = [
        Picture(
            source=encode_png(movie.true[at]),
            alternative=f"Movie frame {frame} as shown",
            caption=f"frame {frame}",
        )
        for frame, at in zip(shown, _positions(movie, shown), strict=True)
    ]
    return PictureRow(title="Shown", note="", kind="true", pictures=pictures)


def _arm_row(
    file: ArmFile, kind: str, movie: MovieFrames, shown: np.ndarray, note: str
) -> PictureRow:
    pictures = [
        Picture(
            source=encode_png(movie.predicted[at]),
            alternative=f"Movie frame {frame} decoded by {file.arm}",
            caption=format_score(float(movie.ssim[at]), "ssim"),
        )
        for frame, at in zip(shown, _positions(movie, shown), strict=True)
    ]
    return PictureRow(title=file.arm, note=note, kind=kind, pictures=pictures)


def _mean_note(results: RunResults, task: Task, file: ArmFile) -> str:
    """The arm's SSIM over the whole test part, to set the few frames in proportion."""
    rows = rows_of(results.means(), task, "ssim")
    rows = rows[(rows["units"] == file.units) & (rows["arm"] == file.arm)]
    if rows.empty:
        return ""
    score = with_most_labels(rows)["mean"].iloc[0]
    return f"whole test part: SSIM {format_score(float(score), 'ssim')}"
