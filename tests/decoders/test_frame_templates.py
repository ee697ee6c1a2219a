"""Look-ups of movie frames find what was planted, and choose how without looking at a test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from poyo_ssl.decoders.frame_templates import (
    FrameTemplates,
    GaussianTemplates,
    Showings,
    TemplateOptions,
    average_by_frame,
)
from poyo_ssl.decoders.template_choice import (
    Merit,
    ShareFound,
    choose_options,
    mean_likelihood,
)

UNITS = ["a", "b", "c", "d"]
PLAIN = TemplateOptions(num_bins=3, width=0.0)
KINDS = pytest.mark.parametrize("kind", [FrameTemplates, GaussianTemplates])


@pytest.fixture
def planted(rng) -> Showings:
    """Eight movie frames with responses of their own, each seen five times, with little noise."""
    responses = rng.normal(size=(8, 12))
    movie_frame = np.resize(np.arange(8), 40)
    features = responses[movie_frame] + 0.1 * rng.normal(size=(40, 12))
    return Showings(
        features=features.astype(np.float32),
        movie_frame=movie_frame,
        unit_ids=UNITS,
        frame_period=1.0,
    )


def look_up(templates: FrameTemplates, showings: Showings) -> np.ndarray:
    return templates.scores(showings.features, showings.unit_ids).argmax(axis=1)


def test_templates_hold_the_mean_response_to_every_frame(planted):
    templates = FrameTemplates.fit(planted, 8, PLAIN)
    assert templates.responses.shape == (3, 4, 8)
    expected = planted.features[planted.movie_frame == 5].mean(axis=0).reshape(3, 4)
    assert np.allclose(templates.responses[:, :, 5], expected, atol=1e-6)


@KINDS
@pytest.mark.parametrize("is_standardised", [False, True])
def test_a_look_up_finds_the_planted_frames(planted, kind, is_standardised):
    options = PLAIN._replace(is_standardised=is_standardised)
    templates = kind.fit(planted.take(np.arange(24)), 8, options)
    rest = planted.take(np.arange(24, 40))
    assert look_up(templates, rest).tolist() == rest.movie_frame.tolist()


def test_correlation_ignores_a_gain_and_an_offset_of_all_units_together(planted):
    templates = FrameTemplates.fit(planted, 8, PLAIN)
    changed = replace(planted, features=3 * planted.features + 1)
    assert np.array_equal(look_up(templates, changed), planted.movie_frame)


def test_gaussian_scores_are_log_densities_up_to_a_constant_of_the_window(planted):
    templates = GaussianTemplates.fit(planted, 8, PLAIN._replace(sharpness=1.0))
    scores = templates.scores(planted.features[:5], UNITS)
    precision = np.kron(np.eye(3), np.linalg.inv(templates.noise))
    apart = planted.features[:5, None] - templates.responses.reshape(12, 8).T
    densities = -0.5 * np.einsum("wfi,ij,wfj->wf", apart, precision, apart)
    assert np.allclose(np.diff(scores, axis=1), np.diff(densities, axis=1), rtol=1e-3, atol=1e-2)


@KINDS
def test_a_look_up_works_from_some_of_its_units_in_any_order(planted, kind):
    templates = kind.fit(planted, 8, PLAIN)
    some = planted.features.reshape(-1, 3, 4)[:, :, [3, 0, 1]].reshape(40, -1)
    asked = replace(planted, features=some, unit_ids=["d", "a", "b"])
    assert np.mean(look_up(templates, asked) == planted.movie_frame) > 0.95


@KINDS
def test_a_frame_that_training_did_not_show_is_never_the_answer(planted, kind):
    shown = planted.take(np.flatnonzero(~np.isin(planted.movie_frame, [2, 7])))
    templates = kind.fit(shown, 9, PLAIN._replace(width=1.5))
    assert not {2, 7, 8} & set(look_up(templates, planted))
    posterior = templates.probabilities(planted.features, UNITS)
    assert np.allclose(posterior.sum(axis=1), 1, atol=1e-5)
    assert not posterior[:, [2, 7, 8]].any()


@KINDS
def test_merged_templates_answer_for_the_units_of_each(planted, rng, kind):
    other = replace(
        planted,
        features=rng.normal(size=(40, 12)).astype(np.float32)[planted.movie_frame],
        unit_ids=["d", "e", "f", "g"],
    )
    one, two = (kind.fit(showings, 8, PLAIN) for showings in (planted, other))
    merged = kind.merge([one, two])
    assert merged.unit_ids == ["a", "b", "c", "d", "e", "f", "g"]
    shared = (one.responses[:, 3] + two.responses[:, 0]) / 2
    assert np.allclose(merged.responses[:, 3], shared)
    alone = planted.features.reshape(-1, 3, 4)[:, :, :3].reshape(40, -1)
    expected = one.scores(alone, UNITS[:3])
    assert np.allclose(merged.scores(alone, UNITS[:3]), expected, rtol=1e-4, atol=1e-3)


def test_a_unit_of_two_recordings_knows_the_frames_that_either_showed(planted):
    parts = [planted.take(np.flatnonzero(planted.movie_frame != left_out)) for left_out in (3, 6)]
    merged = FrameTemplates.merge([FrameTemplates.fit(part, 8, PLAIN) for part in parts])
    assert np.array_equal(look_up(merged, planted), planted.movie_frame)


def test_a_template_is_the_gaussian_mean_of_the_frames_about_it(rng):
    activity, frame = rng.normal(size=(9, 2)), np.array([0, 1, 2, 3, 5, 0, 1, 2, 3])
    mean = average_by_frame(activity, frame, 7, 1.2)
    weight = np.exp(-0.5 * ((frame - 2) / 1.2) ** 2)
    assert np.allclose(mean[2], weight @ activity / weight.sum(), atol=1e-6)
    assert np.isnan(mean[[4, 6]]).all()


def test_options_are_those_that_find_left_out_showings(rng):
    frame = np.tile(np.arange(60), 4)
    slow = np.stack([np.sin(frame / 9), np.cos(frame / 9), np.sin(frame / 23)], axis=1)
    bins = {num: np.tile(slow, num) + rng.normal(size=(240, 3 * num)) for num in (3, 6)}

    def showings(num_bins: int) -> list[Showings]:
        return [
            Showings(
                features=bins[num_bins], movie_frame=frame, unit_ids=UNITS[:3], frame_period=0.1
            )
        ]

    chosen = choose_options(FrameTemplates, showings, 60, ShareFound(0.3), max_bins=10)
    assert chosen.num_bins == 6  # twice as many looks at the same
    assert chosen.width > 0  # neighbours evoke the same
    assert choose_options(FrameTemplates, showings, 60, ShareFound(0.3), max_bins=4).num_bins == 3


def test_pictures_need_the_very_frame_and_frames_the_neighbourhood(rng):
    frame = np.tile(np.arange(120), 6)
    shared = np.sin(frame[:, None] / 9 + np.arange(12))
    own = rng.normal(size=(120, 12))[frame]
    once = Showings(
        features=shared + 0.5 * own + rng.normal(size=shared.shape),
        movie_frame=frame,
        unit_ids=[str(unit) for unit in range(12)],
        frame_period=0.1,
    )

    def width_for(merit: Merit) -> float:
        options = choose_options(FrameTemplates, lambda _: [once], 120, merit, max_bins=1)
        return options.width

    assert width_for(ShareFound(1.0)) > width_for(mean_likelihood) == 0.0


@pytest.mark.parametrize("merit", [ShareFound(1.0), mean_likelihood])
def test_one_showing_leaves_the_options_as_they_are(planted, merit):
    once = planted.take(np.arange(8))
    options = choose_options(FrameTemplates, lambda _: [once], 8, merit, max_bins=3)
    assert options == TemplateOptions(num_bins=3)


def test_activity_that_repeats_exactly_has_a_posterior(planted):
    first = planted.take(np.arange(8))
    same = replace(
        planted, features=np.tile(first.features, (5, 1)), movie_frame=np.tile(np.arange(8), 5)
    )
    templates = GaussianTemplates.fit(same, 8, PLAIN)
    assert np.array_equal(look_up(templates, same), same.movie_frame)
