"""A movie as it was shown beside what was decoded of it, moment by moment."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from poyo_ssl.evaluation.evaluate import Evaluation
from poyo_ssl.file_names import file_name
from poyo_ssl.metrics.pictures import structural_similarity
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.result_files import DAMAGE, ResultsError
from poyo_ssl.whole_files import write_arrays
from poyo_ssl.windows.pictures import resize_pictures
from poyo_ssl.windows.tasks import Task

MOST_MOMENTS = 300
"""Of a longer movie every second, third, ... movie frame is kept."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Film:
    """Pictures shown and decoded in the test part of one recording, in the order of the movie."""

    movie_frame: np.ndarray
    """Position of each in the movie, (num_moments,)."""
    true: np.ndarray
    """Grey, (num_moments, height, width), uint8."""
    predicted: np.ndarray
    """The same of what was decoded: the picture, or that of the movie frame decoded."""
    ssim: np.ndarray
    """Structural similarity of the two, (num_moments,)."""
    seconds_apart: float
    """From one moment to the next where none is missing between them."""

    @staticmethod
    def of(evaluation: Evaluation, task: Task, pictures: np.ndarray) -> Film:
        """The first showing of every movie frame in the test part.

        Args:
            evaluation: How a decoder did on a recording.
            task: Which movie frame, or which picture.
            pictures: What may be shown, in [0, 1], (num_pictures, 64, 128).
        """
        movie_frame, first = np.unique(evaluation.target.astype(int), return_index=True)
        step = -(-len(first) // MOST_MOMENTS)
        movie_frame, first = movie_frame[::step], first[::step]
        true = pictures[movie_frame]
        predicted = task.answer.as_pictures(evaluation.predicted[first], pictures)
        onsets = np.sort(evaluation.predictions["onset"].to_numpy())
        assert predicted is not None, "pictures_at_hand has none for such a task"
        period = float(np.median(np.diff(onsets))) if len(onsets) > 1 else 1.0
        return Film(
            movie_frame=movie_frame,
            true=as_bytes(true),
            predicted=as_bytes(predicted),
            ssim=structural_similarity(predicted, true),
            seconds_apart=step * period,
        )

    def every(self, step: int) -> Film:
        """Every ``step``-th moment."""
        return Film(
            movie_frame=self.movie_frame[::step],
            true=self.true[::step],
            predicted=self.predicted[::step],
            ssim=self.ssim[::step],
            seconds_apart=step * self.seconds_apart,
        )

    def save(self, path: Path) -> None:
        """Writes it as ``.npz``."""
        write_arrays(path, {name: np.asarray(value) for name, value in asdict(self).items()})

    @staticmethod
    def load(path: Path) -> Film:
        """Reads what :meth:`save` wrote.

        Raises:
            ResultsError: If the file is none of them.
        """
        try:
            with np.load(path, allow_pickle=False) as saved:
                arrays = {field.name: saved[field.name] for field in fields(Film)}
                seconds_apart = float(arrays.pop("seconds_apart"))
        except (*DAMAGE, OSError) as error:
            raise ResultsError(f"{path} is no film ({error}). Delete it or run again.") from error
        film = Film(**arrays, seconds_apart=seconds_apart)
        num_moments = len(np.atleast_1d(film.movie_frame))
        is_film = (
            film.true.ndim == 3
            and film.true.shape == film.predicted.shape
            and film.true.dtype == film.predicted.dtype == np.uint8
            and film.movie_frame.shape == film.ssim.shape == (num_moments,)
            and 0 < num_moments == len(film.true)
            and film.movie_frame.dtype.kind == "i"
            and 0 < seconds_apart < np.inf
        )
        if not is_film:
            raise ResultsError(
                f"{path} is no film: true and predicted must be uint8 of shape (num_moments, "
                f"height, width), got {film.true.dtype} {film.true.shape} and "
                f"{film.predicted.dtype} {film.predicted.shape} for {num_moments} movie frames, "
                f"{seconds_apart:g} s apart. Delete it or run again."
            )
        return film


def film_file(recording_id: str) -> str:
    """Path of the film of a recording below what a fit left."""
    return f"film/{file_name(recording_id)}.npz"


def pictures_at_hand(recording: Recording, task: Task) -> np.ndarray | None:
    """What a task about movie frames may show, in [0, 1], (num_pictures, 64, 128).

    None where the task asks for something else, or the recording lacks a picture that it showed.
    """
    if not task.answer.is_about_frames or task.stimulus not in recording.templates:
        return None
    templates = recording.templates[task.stimulus]
    if len(templates) <= recording.stimuli[task.stimulus][task.column].max():
        return None
    return resize_pictures(templates).numpy()


def as_bytes(pictures: np.ndarray) -> np.ndarray:
    """Pictures in [0, 1] as uint8."""
    return np.round(255 * np.clip(pictures, 0, 1)).astype(np.uint8)
