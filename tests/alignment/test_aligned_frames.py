"""A movie is told in an animal that others lend their showings to, by where its units lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import poyo_ssl as ps
from poyo_ssl.comparison.arms import ARMS
from poyo_ssl.decoders.loading import load_decoder
from poyo_ssl.decoders.placed_templates import PlacedTemplates
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.tasks import find_task
from synthetic_animals import DIMENSIONS, RATE, animal

NUM_FRAMES = 60
TASK = find_task("natural_movie_one/movie_frame,kind=frames,split=repeat,window_length=0.5")
TOLD = tuple(range(1, NUM_FRAMES))
"""Movie frames whose showings to the new animal are kept for the test."""


def spectator(name: str, num_units: int = 40) -> Recording:
    """Saw the sequence that all saw, and then a movie of a second an image, three times."""
    recording = animal(name, num_units, noise=0.3)
    world = np.random.default_rng(7)
    course = world.normal(size=(NUM_FRAMES // 5, DIMENSIONS)).repeat(5, axis=0)
    known = recording.df_over_f[: len(recording.stimuli["sequence"]) * 10]
    courses = np.random.default_rng(0).normal(size=(12, 2, DIMENSIONS)).repeat(5, axis=1)
    shown = recording.stimuli["sequence"]["segment"].to_numpy(dtype=int)
    loadings = np.linalg.lstsq(courses[shown].reshape(-1, DIMENSIONS), known, rcond=None)[0]
    rng = np.random.default_rng([1, *map(ord, name)])
    movie = np.concatenate([course] * 3) @ loadings
    movie += 0.3 * rng.normal(size=movie.shape)
    first = len(recording.timestamps)
    traces = np.concatenate([recording.df_over_f, movie]).astype(np.float32)
    onsets = (first + np.arange(len(movie))) / RATE
    frames = pd.DataFrame(
        {
            "start": onsets,
            "end": onsets + 1 / RATE,
            "movie_frame": np.arange(len(movie)) % NUM_FRAMES,
            "repeat": np.arange(len(movie)) // NUM_FRAMES,
        }
    )
    return replace(
        recording,
        df_over_f=traces,
        timestamps=np.arange(len(traces)) / RATE,
        stimuli={"sequence": recording.stimuli["sequence"], "natural_movie_one": frames},
    )


@pytest.fixture(scope="module")
def setting() -> Setting:
    others = [spectator(name) for name in "abcd"]
    everything = ps.SplitConfig(train=tuple(r.recording_id for r in others))
    new = spectator("n")
    held_out = ps.SplitConfig(
        held_out_column="movie_frame", held_out_values=TOLD, valid_fraction=0.0, guard=0.0
    )
    divided = ps.divide([new], TASK, held_out)
    return Setting(
        population=ps.Population(divided, {"n": list(new.unit_ids)}),
        task=divided.task(TASK),
        encoder=ps.EncoderConfig(),
        config=ps.FinetuningConfig(),
        seed=0,
        labels=1.0,
        earlier=ps.divide(others, TASK, everything),
    )


def images_found(decoder, setting) -> float:
    """Share of windows whose movie frame is found within half a second."""
    [divided] = setting.population.divided
    windows = setting.population.divided.windows(
        divided, setting.task, "test", setting.num_timesteps
    )
    found = decoder.predict(divided.recording, windows.first_timestep)
    return float(np.mean(abs(found - windows.target) < 5))


def test_a_movie_is_told_without_a_showing_of_its_own(setting):
    decoder = ARMS["aligned frame"].fit(setting)
    control = ARMS["aligned frame, shuffled"].fit(setting)
    assert images_found(decoder, setting) > 0.6
    assert images_found(control, setting) < 0.4


def test_it_is_saved_and_loaded(setting, tmp_path):
    decoder = ARMS["aligned frame"].fit(setting)
    decoder.save(tmp_path)
    [divided] = setting.population.divided
    first = np.arange(800, 880)
    answers = [d.predict(divided.recording, first) for d in (decoder, load_decoder(tmp_path))]
    assert decoder.predict(divided.recording, first[:0]).shape == (0,)
    np.testing.assert_array_equal(*answers)


def test_nothing_that_is_tested_is_learned_from(setting):
    [divided] = setting.population.divided
    recording = divided.recording
    traces = recording.df_over_f.copy()
    traces[~recording.is_inside(divided.training)] += 100
    changed = ps.divide(
        [replace(recording, df_over_f=traces)],
        TASK,
        ps.SplitConfig(
            held_out_column="movie_frame", held_out_values=TOLD, valid_fraction=0.0, guard=0.0
        ),
    )
    population = ps.Population(changed, {"n": list(recording.unit_ids)})
    one, other = (
        ARMS["aligned frame"].fit(s).templates
        for s in (setting, replace(setting, population=population))
    )
    assert np.array_equal(one.loadings, other.loadings)


def test_a_unit_of_two_recordings_has_the_mean_place(setting):
    templates = ARMS["aligned frame"].fit(setting).templates
    moved = replace(templates, loadings=templates.loadings + 2.0, rest=templates.rest + 4.0)
    merged = PlacedTemplates.merge([templates, moved])
    assert merged.placed_ids == templates.placed_ids
    np.testing.assert_allclose(merged.loadings, templates.loadings + 1.0, rtol=1e-5)
    np.testing.assert_allclose(merged.rest, templates.rest + 2.0, rtol=1e-5)
