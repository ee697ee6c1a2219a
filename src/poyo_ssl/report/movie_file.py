"""A decoded movie as a file that anything plays: shown on the left, decoded on the right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from poyo_ssl.evaluation.film import Film
from poyo_ssl.extras import import_extra
from poyo_ssl.report.films import SavedFilm, find_films
from poyo_ssl.report.formatting import format_score
from poyo_ssl.report.results import (
    RunResults,
    Task,
    in_order_of_interest,
    load_results,
    with_most_labels,
)
from poyo_ssl.report.score_figures import rows_of
from poyo_ssl.whole_files import partial_file, publish

_WIDTH = 256
"""Pixels that a picture is wide."""
_MARGIN, _LINE = 12, 26
"""Pixels around pictures, and of a line of text."""
_TEXT_SIZE = 14
_BACKGROUND, _INK = 24, 232
"""Grey of the ground and of the text: pictures look as bright by day as by night."""


def write_movie(
    run_directory: str | Path,
    output: str | Path,
    *,
    task: str | None = None,
    units: str | None = None,
    arm: str | None = None,
    recording: str | None = None,
    seed: int | None = None,
    fps: float | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Writes the movie shown in the test part of a recording beside what was decoded of it.

    Args:
        run_directory: What ``poyo-ssl run ... --output DIR`` wrote.
        output: ``.mp4`` (needs the extra ``poyo-ssl[movie]``) or ``.gif``. It is replaced whole.
        task: Name of a task about a movie; the run's first one if not given.
        units: Subset of units; the first that was decoded from, unpredictable before others.
        arm: The best one if not given, by the main metric of the task.
        recording: Id; the first one if not given.
        seed: The lowest one if not given.
        fps: Pictures a second; those of the real movie if not given, 30 at most.
        on_progress: Called with the pictures written and those in all.

    Returns:
        What was written, in words.

    Raises:
        ValueError: If the run saved no such film, or the output cannot be written as one.
        ImportError: If it is to be ``.mp4`` and imageio-ffmpeg is missing.
    """
    path = Path(output)
    if path.suffix.lower() not in WRITERS:
        raise ValueError(
            f"'{path}' ends in '{path.suffix}', which is no movie that can be written. Let it end "
            f"in {' or '.join(WRITERS)}."
        )
    if fps is not None and not 0.1 <= fps <= 100:
        raise ValueError(f"fps must be 0.1 to 100 pictures a second, got {fps:g}.")
    results = load_results(run_directory)
    chosen = _choose(results, task, units, arm, recording, seed)
    film = Film.load(chosen.path)
    fps = fps or min(30.0, 1 / film.seconds_apart)
    notes = "simulated data" if results.run["is_simulated"] else ""
    with partial_file(path) as partial:
        pictures = _count(_draw(film, chosen.arm, notes), len(film.movie_frame), on_progress)
        WRITERS[path.suffix.lower()](partial, pictures, fps)
        publish(partial, path)
    return (
        f"{chosen.task} of {chosen.recording_id}, {chosen.units} units, decoded by "
        f"{chosen.arm} (seed {chosen.seed}): {len(film.movie_frame)} pictures, "
        f"{fps:.3g} a second, written to {path}."
    )


def _choose(
    results: RunResults,
    task: str | None,
    units: str | None,
    arm: str | None,
    recording: str | None,
    seed: int | None,
) -> SavedFilm:
    """The film that is meant: one of what was asked for, the best or first of all else."""
    films = find_films(results)
    if not films:
        raise ValueError(
            f"'{results.directory}' holds no film. A run saves one where it decodes movie frames "
            "of recordings that hold the pictures: run it with a task such as movie or "
            "movie_frame."
        )
    films = _only(films, "task", task or films[0].task)
    subsets = {film.units for film in films}
    films = _only(films, "units", units or in_order_of_interest(subsets)[0])
    films = _only(films, "arm", arm or _best_arm(results, films))
    films = _only(films, "recording_id", recording or films[0].recording_id)
    return _only(films, "seed", min(film.seed for film in films) if seed is None else seed)[0]


def _only(films: list[SavedFilm], field: str, wanted: str | int) -> list[SavedFilm]:
    found = [film for film in films if getattr(film, field) == wanted]
    if not found:
        there = dict.fromkeys(str(getattr(film, field)) for film in films)
        name = field.removesuffix("_id")
        raise ValueError(
            f"No film of {name} '{wanted}' among those that match what else is asked for (found: "
            f"{', '.join(list(there)[:20])}). Give --{name} one of these."
        )
    return found


def _best_arm(results: RunResults, films: list[SavedFilm]) -> str:
    first = films[0]
    task = Task(name=first.task, split=first.split, title="")
    means = rows_of(results.means(), task, results.main_metric(task))
    means = with_most_labels(means[means["units"] == first.units])
    means = means[means["arm"].isin([film.arm for film in films])]
    return str(means["arm"].iloc[int(means["mean"].argmax())]) if len(means) else first.arm


def _draw(film: Film, arm: str, notes: str) -> Iterator[Image.Image]:
    """Every moment: both pictures, who made them, and below them which frame it is."""
    height = round(_WIDTH * film.true.shape[1] / film.true.shape[2] / 2) * 2
    top = _MARGIN + _LINE
    left, right = _MARGIN, 2 * _MARGIN + _WIDTH
    ground = Image.new("L", (right + _WIDTH + _MARGIN, top + height + _LINE + _MARGIN), _BACKGROUND)
    font = ImageFont.truetype(findfont("DejaVu Sans"), _TEXT_SIZE)
    draw = ImageDraw.Draw(ground)
    for x, text in ((left, "shown"), (right, f"decoded: {arm}")):
        draw.text((x, _MARGIN), _fit_in(text, font), fill=_INK, font=font)
    draw.text((right, top + height + 6), notes, fill=_INK, font=font)
    for at, frame in enumerate(film.movie_frame.tolist()):
        picture = ground.copy()
        for x, source in ((left, film.true), (right, film.predicted)):
            scaled = Image.fromarray(source[at]).resize((_WIDTH, height), Image.Resampling.NEAREST)
            picture.paste(scaled, (x, top))
        text = f"frame {frame}, SSIM {format_score(float(film.ssim[at]), 'ssim')}"
        ImageDraw.Draw(picture).text((left, top + height + 6), text, fill=_INK, font=font)
        yield picture


def _count(
    pictures: Iterator[Image.Image], total: int, on_progress: Callable[[int, int], None]
) -> Iterator[Image.Image]:
    """The same pictures; each is reported once the next one is asked for."""
    for done, picture in enumerate(pictures):
        on_progress(done, total)
        yield picture
    on_progress(total, total)


def _fit_in(text: str, font: ImageFont.FreeTypeFont) -> str:
    """A text of one line, shortened to the width of a picture."""
    text = " ".join(text.split())
    if font.getlength(text) <= _WIDTH:
        return text
    while font.getlength(f"{text}…") > _WIDTH:
        text = text[:-1]
    return f"{text}…"


def _write_gif(path: Path, pictures: Iterator[Image.Image], fps: float) -> None:
    """An animation that starts again; its time is counted in hundredths of a second."""
    duration = max(20, 10 * round(100 / fps))  # players slow down what is shorter
    with path.open("xb") as handle:
        next(pictures).save(
            handle, format="GIF", save_all=True, append_images=pictures, duration=duration, loop=0
        )


def _write_mp4(path: Path, pictures: Iterator[Image.Image], fps: float) -> None:
    """H.264 with colours that every player knows."""
    instead = "Or let the output end in .gif, which needs nothing more."
    ffmpeg = import_extra("imageio_ffmpeg", "movie", "Writing .mp4", instead)
    first = next(pictures)
    writer = ffmpeg.write_frames(
        path, first.size, pix_fmt_in="gray", fps=fps, codec="libx264", quality=8,
        macro_block_size=2, output_params=["-f", "mp4", "-movflags", "+faststart"],
    )  # fmt: skip
    writer.send(None)
    for picture in chain([first], pictures):
        writer.send(np.asarray(picture))
    writer.close()


WRITERS: dict[str, Callable[[Path, Iterator[Image.Image], float], None]] = {
    ".mp4": _write_mp4,
    ".gif": _write_gif,
}
"""Ending of a file to what writes it."""
