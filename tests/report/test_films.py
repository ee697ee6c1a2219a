"""Decoded movies that people see: on the page, and as files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from film_runs import NUM_MOMENTS, RECORDINGS, draw_film, write_film_run
from poyo_ssl.cli import main
from poyo_ssl.evaluation.film import Film, film_file
from poyo_ssl.file_names import fit_folder
from poyo_ssl.report.films import build_players, find_films
from poyo_ssl.report.frame_matrices import count_frames
from poyo_ssl.report.movie_file import write_movie
from poyo_ssl.report.page import write_report
from poyo_ssl.report.results import ArmFile, ReportError, load_results
from poyo_ssl.report.style import style_arms


@pytest.fixture(scope="module")
def film_run(tmp_path_factory) -> Path:
    return write_film_run(tmp_path_factory.mktemp("films"))


@pytest.fixture
def changed_run(film_run, tmp_path) -> Path:
    return shutil.copytree(film_run, tmp_path / "run")


def path_of(run: Path, arm: str, recording_id: str = RECORDINGS[0]) -> Path:
    return run / fit_folder("movie_frame", "all", arm, "100%", 0) / film_file(recording_id)


# the page ------------------------------------------------------------------------------------


def test_a_player_has_the_best_of_each_kind_and_its_best_and_worst_moments(film_run):
    results = load_results(film_run)
    styles = style_arms([("nearest frame", "reference"), ("scratch", "network")])
    players = build_players(results, results.tasks[0], find_films(results), styles)
    assert [player.recording_id for player in players] == list(RECORDINGS)
    player = players[0]
    assert [screen.title for screen in player.screens] == ["Shown", "nearest frame", "scratch"]
    assert player.judged == "nearest frame"
    assert [moment.at for moment in player.best] == [0, 1, 2]
    assert [moment.at for moment in player.worst] == [11, 10, 9]
    facts = json.loads(player.facts)
    assert facts["movieFrames"] == draw_film(0).movie_frame.tolist()
    assert len(facts["ssim"]) == 2


def test_the_page_plays_every_recording_and_names_it_harmlessly(film_run, tmp_path):
    text = write_report(film_run, tmp_path / "report.html").read_text()
    assert text.count('<div class="film"') == len(RECORDINGS)
    assert text.count("<canvas") == 3 * len(RECORDINGS)
    assert "mouse &lt;b&gt;" in text
    assert "mouse <b>" not in text
    assert "time against time" in text
    assert "prefers-reduced-motion" in text
    assert "so they are not shown" not in text.split('id="movie"')[1]


def test_time_against_time_counts_what_was_decoded_when_what_was_shown(film_run):
    counts = count_frames(load_results(film_run))
    right, late = (counts[ArmFile(task="movie_frame", units="all", arm=arm)]
                   for arm in ("nearest frame", "scratch"))  # fmt: skip
    frames = draw_film(0).movie_frame
    expected = np.zeros((34, 34))
    expected[frames, frames] = len(RECORDINGS)
    np.testing.assert_array_equal(right.to_numpy(), expected)
    np.testing.assert_array_equal(late.to_numpy(), np.roll(expected, 1, axis=1))


def test_predictions_that_are_no_frames_are_refused(changed_run):
    path = changed_run / "predictions.csv"
    path.write_text(path.read_text().replace(",10,", ",ten,"))
    with pytest.raises(ReportError, match=r"predictions.csv cannot be understood"):
        write_report(changed_run)


def test_films_of_different_movie_frames_are_refused(changed_run):
    film = draw_film(0.5)
    film.every(2).save(path_of(changed_run, "scratch"))
    with pytest.raises(ReportError, match="different movie frames"):
        write_report(changed_run)


# files ---------------------------------------------------------------------------------------


def test_a_gif_shows_every_moment_of_the_best_arm_in_its_time(film_run, tmp_path):
    done: list[tuple[int, int]] = []
    said = write_movie(
        film_run, tmp_path / "decoded.gif", on_progress=lambda *counts: done.append(counts)
    )
    assert done == [(number, NUM_MOMENTS) for number in range(NUM_MOMENTS + 1)]
    assert "decoded by nearest frame (seed 0): 12 pictures, 10 a second" in said
    with Image.open(tmp_path / "decoded.gif") as movie:
        assert movie.n_frames == NUM_MOMENTS
        assert movie.info["duration"] == 100
        movie.seek(3)
        picture = np.asarray(movie.convert("L"))[60]
    bar = np.arange(256) // 16 == 3
    for left in (12, 280):  # shown, decoded
        shown = picture[left : left + 256]
        assert shown[bar].min() > shown[~bar].max() + 100


def test_an_mp4_can_be_read_back(film_run, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="needs the extra movie")
    path = tmp_path / "decoded.mp4"
    words = ["movie", film_run, "--output", path, "--arm", "scratch", "--fps", "5",
             "--recording", RECORDINGS[1]]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    num_pictures, seconds = ffmpeg.count_frames_and_secs(path)
    assert (num_pictures, seconds) == (NUM_MOMENTS, pytest.approx(NUM_MOMENTS / 5, abs=0.05))
    assert [found.name for found in tmp_path.iterdir()] == ["decoded.mp4"]


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("decoded.avi", {}, r"ends in '.avi'.*\.mp4 or \.gif"),
        ("decoded.gif", {"fps": 0.0}, "fps must be 0.1 to 100"),
        ("decoded.gif", {"arm": "ridge"}, r"No film of arm 'ridge'.*found: nearest frame, mean"),
        ("decoded.gif", {"recording": "C"}, r"recording 'C'.*mouse A.*Give --recording"),
        ("decoded.gif", {"seed": 3}, r"No film of seed '3'.*found: 0"),
    ],
)
def test_what_cannot_be_written_is_said(film_run, tmp_path, output, options, message):
    with pytest.raises(ValueError, match=message):
        write_movie(film_run, tmp_path / output, **options)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(film_run, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r'pip install "poyo-ssl\[movie\]".*\.gif'):
        write_movie(film_run, tmp_path / "decoded.mp4")
    assert not list(tmp_path.iterdir())


def test_a_run_without_films_says_which_have_them(changed_run, tmp_path):
    shutil.rmtree(changed_run / "decoders")
    with pytest.raises(ValueError, match="holds no film"):
        write_movie(changed_run, tmp_path / "decoded.gif")


@pytest.mark.parametrize("damage", ["no archive", "too few", "no frames"])
def test_a_damaged_film_is_refused(tmp_path, damage):
    path = tmp_path / "film.npz"
    film = draw_film(0.5)
    if damage == "no archive":
        path.write_text("film")
    else:
        fewer = film.ssim[:3] if damage == "too few" else film.ssim
        true = film.true if damage == "too few" else film.true.astype(float)
        Film(**{**vars(film), "ssim": fewer, "true": true}).save(path)
    with pytest.raises(ValueError, match="is no film"):
        Film.load(path)
