"""The filter of movie frames goes on with the movie, never looks ahead, and begins after a gap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from poyo_ssl.decoders.frame_decoders import JUMP, FrameFilter, FramePosterior
from poyo_ssl.windows.activity import Activity
from poyo_ssl.windows.tasks import MOVIE
from tiny_fits import fit_arm, setting_of


@pytest.fixture(scope="module")
def movie_filter(tiny_population) -> FrameFilter:
    decoder = fit_arm("frame filter", setting_of(tiny_population, MOVIE))
    assert isinstance(decoder, FrameFilter)
    return decoder


@pytest.fixture(scope="module")
def activity(tiny_population, tiny_recording) -> Activity:
    return tiny_population.activity[tiny_recording.recording_id]


def with_values(activity: Activity, values: torch.Tensor) -> Activity:
    return replace(activity, values=values, segments=None)


def test_a_filter_never_looks_ahead(movie_filter, activity):
    first = np.arange(0, 300, 7)
    before = movie_filter.posterior(activity, first)
    later = activity.values.clone()
    end = 200 + movie_filter.question.num_timesteps
    later[end:] = torch.randn(later[end:].shape, generator=torch.Generator().manual_seed(0))
    after = movie_filter.posterior(with_values(activity, later), first)
    same = first <= 200
    assert np.array_equal(before[same], after[same])
    assert not np.allclose(before[~same], after[~same])


def test_a_filter_multiplies_likelihoods_of_windows_that_follow_each_other(movie_filter, activity):
    length = movie_filter.question.num_timesteps
    likelihood = FramePosterior.posterior(movie_filter, activity, np.array([0, length]))
    num_frames = likelihood.shape[1]
    seen = np.isin(np.arange(num_frames), movie_filter.templates.seen)
    step = round(length * movie_filter.pace)
    went_on = np.zeros(num_frames)
    went_on[step:] = (1 - JUMP) * likelihood[0, :-step]
    prior = went_on + (1 - went_on.sum()) * seen / seen.sum()
    expected = prior * likelihood[1]
    found = movie_filter.posterior(activity, np.array([0, length]))
    assert np.allclose(found[0], likelihood[0], atol=1e-6)
    assert np.allclose(found[1], expected / expected.sum(), atol=1e-5)


def test_a_movie_shorter_than_a_window_may_go_on_anywhere(movie_filter, activity):
    length = movie_filter.question.num_timesteps
    num_frames = movie_filter.templates.responses.shape[-1]
    pace = 1.5 * num_frames / length
    fast = FrameFilter(movie_filter.question, movie_filter.templates, movie_filter.pictures, pace)
    likelihood = FramePosterior.posterior(fast, activity, np.array([length]))
    found = fast.posterior(activity, np.array([length]))  # a look before it is gone through, too
    assert np.allclose(found, likelihood, atol=1e-5)


def test_a_filter_begins_anew_after_a_gap(movie_filter, activity):
    length, first = movie_filter.question.num_timesteps, np.array([95])
    parted = replace(activity, segments=np.array([[0, 90], [90, len(activity.values)]]))
    alone = with_values(activity, activity.values[90:])
    found = movie_filter.posterior(parted, first)
    assert np.allclose(found, movie_filter.posterior(alone, first - 90), atol=1e-6)
    assert 95 - length < 90
    assert not np.allclose(
        found, movie_filter.posterior(with_values(activity, activity.values), first)
    )


def test_a_posterior_picture_is_the_mean_of_all_weighed_by_their_probability(
    tiny_population, tiny_recording
):
    decoder = fit_arm("frame posterior", setting_of(tiny_population, MOVIE))
    assert isinstance(decoder, FramePosterior)
    activity = tiny_population.activity[tiny_recording.recording_id]
    [posterior] = decoder.posterior(activity, np.array([40]))
    [picture] = decoder.answer(activity, np.array([40]))
    expected = (posterior[:, None, None] * decoder.pictures).sum(axis=0)
    assert np.allclose(picture, expected, atol=1e-5)


@pytest.mark.parametrize("arm", ["nearest frame", "frame posterior", "frame filter"])
def test_no_option_is_chosen_with_what_test_windows_show(tiny_population, tiny_recording, arm):
    divided = tiny_population.divided
    splits = divided[0].splits[MOVIE.name]
    table = tiny_recording.stimuli[MOVIE.stimulus].copy()
    is_test = np.any(
        [(table["start"] >= start) & (table["start"] < end) for start, end in splits.test], axis=0
    )
    table.loc[is_test, "movie_frame"] = table.loc[is_test, "movie_frame"].to_numpy()[::-1]
    shown = {**tiny_recording.stimuli, MOVIE.stimulus: table}
    swapped = replace(divided[0], recording=replace(tiny_recording, stimuli=shown))
    units = {tiny_recording.recording_id: list(tiny_recording.unit_ids)}
    other = type(tiny_population)(type(divided)([swapped]), units)
    states = [fit_arm(arm, setting_of(p, MOVIE)).state() for p in (tiny_population, other)]
    assert states[0][0] == states[1][0]
    assert all(
        np.array_equal(states[0][1][name], states[1][1][name], equal_nan=True)
        for name in states[0][1]
    )


def test_a_white_picture_stays_white_however_probabilities_round(movie_filter):
    posterior = np.full((2, 10), np.nextafter(np.float32(0.1), np.float32(1)))
    white = np.ones((10, 4, 8), dtype=np.float32)
    assert np.tensordot(posterior, white, axes=1).max() > 1
    assert (movie_filter.show(posterior, white) == 1).all()
