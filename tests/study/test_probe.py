"""A probe tells latents that know the answer from those that do not, and changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from poyo_ssl.model.checkpoints import network_tensors
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.study.probe import encode_windows, probe_latents
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import DIRECTION, MOVIE, MOVIE_FRAME


def test_latents_that_hold_the_answer_score_well_and_empty_ones_at_chance(
    tiny_population, tiny_encoder
):
    scores = probe_latents(tiny_encoder, tiny_population, DIRECTION)
    assert scores.metric == "accuracy"
    assert scores.encoder > 0.6  # four directions, each preferred by a unit
    with torch.no_grad():
        for name, weight in tiny_encoder.named_parameters():
            if name.startswith("read"):
                weight.zero_()
    empty = probe_latents(tiny_encoder, tiny_population, DIRECTION)
    assert empty.encoder < 0.5
    assert empty.random_initialisation == scores.random_initialisation


def test_the_comparison_is_an_encoder_that_never_learned(tiny_population, tiny_encoder):
    # the fixture was made with seed 0
    scores = probe_latents(tiny_encoder, tiny_population, DIRECTION, seed=0)
    assert scores.random_initialisation == scores.encoder


def test_probing_neither_changes_the_encoder_nor_draws_random_numbers(
    tiny_population, tiny_encoder
):
    before = {name: value.clone() for name, value in network_tensors(tiny_encoder).items()}
    state = torch.get_rng_state()
    tiny_encoder.train()
    probe_latents(tiny_encoder, tiny_population, DIRECTION, part="valid")
    after = network_tensors(tiny_encoder)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), state)
    assert tiny_encoder.training


@pytest.mark.parametrize("part", ["valid", "test"])
def test_only_the_part_that_is_scored_decides_the_score(tiny_divided, tiny_encoder, part):
    recording = tiny_divided.recording
    silent = recording.df_over_f.copy()
    silent[recording.is_inside(getattr(tiny_divided.splits["direction"], part))] = 0.0
    units = {"tiny": list(recording.unit_ids)}
    changed = Population(
        [replace(tiny_divided, recording=replace(recording, df_over_f=silent))], units
    )
    other = "test" if part == "valid" else "valid"
    whole = Population([tiny_divided], units)
    for name, is_equal in ((part, False), (other, True)):
        ours = probe_latents(tiny_encoder, whole, DIRECTION, part=name)
        theirs = probe_latents(tiny_encoder, changed, DIRECTION, part=name)
        assert (ours == theirs) == is_equal


def test_latents_are_those_of_the_encoder_in_order(tiny_population, tiny_encoder):
    sources = tiny_population.labelled_sources(tiny_encoder, DIRECTION, "test", 20)
    features = encode_windows(tiny_encoder, sources, None)
    [source] = sources
    index = np.arange(len(source))
    group = source.batch(index, np.zeros_like(index))
    with torch.no_grad():
        expected = tiny_encoder.eval()(*group.windows).flatten(1).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_modes_can_be_kept_from_the_encoder(tiny_population, tiny_encoder):
    with_modes = probe_latents(tiny_encoder, tiny_population, DIRECTION)
    without = probe_latents(tiny_encoder, tiny_population, DIRECTION, remove_modes=5)
    assert without.encoder < with_modes.encoder  # one direction of activity is left


def test_pictures_are_scored_by_the_variance_of_their_pixels(tiny_population, tiny_encoder):
    scores = probe_latents(tiny_encoder, tiny_population, MOVIE)
    assert scores.metric == "r2"
    assert scores.encoder < 0.5  # no unit of the tiny session responds to the movie


def test_what_cannot_be_probed_is_refused(
    tiny_population, tiny_recording, tiny_encoder, split_config
):
    with pytest.raises(ValueError, match=r"movie_frame asks for movie frames.*Probe movie"):
        probe_latents(tiny_encoder, tiny_population, MOVIE_FRAME)
    units = {"tiny": list(tiny_recording.unit_ids)}
    no_gratings = Population(divide([tiny_recording], [MOVIE], split_config), units)
    with pytest.raises(RecordingError, match="train part has no window of the task 'direction'"):
        probe_latents(tiny_encoder, no_gratings, DIRECTION)
    strangers = replace(
        tiny_recording, units=tiny_recording.units.assign(unit_id=[f"new-{i}" for i in range(6)])
    )
    population = Population(
        divide([strangers], [DIRECTION], split_config), {"tiny": list(strangers.unit_ids)}
    )
    with pytest.raises(RecordingError, match=r"no embedding of 6 of 6 units \('new-0'"):
        probe_latents(tiny_encoder, population, DIRECTION)
