"""A film is the first showing of every movie frame in the test part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.evaluation import film as film_module
from poyo_ssl.evaluation.evaluate import Evaluation
from poyo_ssl.evaluation.film import Film, pictures_at_hand
from poyo_ssl.metrics.pictures import structural_similarity
from poyo_ssl.windows.tasks import DIRECTION, MOVIE, MOVIE_FRAME
from tiny_runs import tiny_observatory


def evaluation_of(target: np.ndarray, predicted: np.ndarray) -> Evaluation:
    onsets = pd.DataFrame({"onset": 0.5 * np.arange(len(target))})
    return Evaluation(
        recording_id="a", target=target, predicted=predicted, per_window=np.ones(len(target)),
        scores={}, chance=None, is_trained=np.ones(len(target), dtype=bool), predictions=onsets,
    )  # fmt: skip


def test_a_film_has_the_first_showing_of_every_frame_in_order(rng, monkeypatch):
    pictures = rng.random((6, 64, 128))
    target = np.array([4, 5, 2, 3, 4, 5, 2])
    decoded = rng.random((7, 64, 128))
    film = Film.of(evaluation_of(target, decoded), MOVIE, pictures)
    np.testing.assert_array_equal(film.movie_frame, [2, 3, 4, 5])
    np.testing.assert_allclose(film.true, 255 * pictures[2:6], atol=0.5)
    np.testing.assert_allclose(film.predicted, 255 * decoded[[2, 3, 0, 1]], atol=0.5)
    expected = structural_similarity(decoded[[2, 3, 0, 1]], pictures[2:6])
    np.testing.assert_allclose(film.ssim, expected)
    assert film.seconds_apart == 0.5

    monkeypatch.setattr(film_module, "MOST_MOMENTS", 2)  # a longer movie is thinned
    thinned = Film.of(evaluation_of(target, decoded), MOVIE, pictures)
    np.testing.assert_array_equal(thinned.movie_frame, [2, 4])
    assert thinned.seconds_apart == 1.0


def test_a_frame_that_is_named_becomes_its_picture(rng, tmp_path):
    pictures = rng.random((6, 64, 128))
    target, named = np.array([0, 1, 2]), np.array([0, 2, 5])
    film = Film.of(evaluation_of(target, named), MOVIE_FRAME, pictures)
    np.testing.assert_allclose(film.predicted, 255 * pictures[named], atol=0.5)
    assert film.ssim[0] == pytest.approx(1)
    film.save(tmp_path / "film.npz")
    again = Film.load(tmp_path / "film.npz")
    np.testing.assert_array_equal(again.predicted, film.predicted)


def test_pictures_are_at_hand_where_all_that_were_shown_are_stored():
    recording = tiny_observatory()[0]
    pictures = pictures_at_hand(recording, MOVIE_FRAME)
    assert pictures is not None
    assert pictures.shape == (240, 64, 128)
    assert pictures_at_hand(recording, DIRECTION) is None
    assert pictures_at_hand(replace(recording, templates={}), MOVIE_FRAME) is None
    few = {name: shown[:100] for name, shown in recording.templates.items()}
    assert pictures_at_hand(replace(recording, templates=few), MOVIE_FRAME) is None
