"""Animals aligned by what their units do to a stimulus that all of them saw."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.alignment.responses import SharedStimulus, measure_responses, require_unscored
from poyo_ssl.alignment.shared_response import SharedSpace, choose_dimensions, segment_matching
from poyo_ssl.comparison.arms import ARMS, arms_for
from poyo_ssl.decoders.aligned import find_shared_stimulus, fit_aligned_decoder, fit_ridge_towards
from poyo_ssl.decoders.linear_transfer import fit_semi_supervised_ridge
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.model.encoder import EncoderConfig
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.principal_modes import PrincipalModes
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import Task
from synthetic_animals import (
    DIMENSIONS,
    NUM_REPEATS,
    NUM_SEGMENTS,
    SHARED,
    TASK,
    animal,
    populate,
)


def responses_of(population, shared=SHARED):
    return [measure_responses(population, d, shared) for d in population.divided]


@pytest.fixture(scope="module")
def animals() -> Population:
    return populate([animal(name) for name in "abcdef"])


# responses ---------------------------------------------------------------------------------------


def test_a_response_is_the_mean_activity_over_all_showings(animals):
    one = responses_of(animals)[0]
    activity = animals.activity["a"].binned(np.arange(720), 1, 1)
    shown = activity[: NUM_REPEATS * NUM_SEGMENTS * 10].reshape(
        NUM_REPEATS, NUM_SEGMENTS * 2, 5, -1
    )
    assert np.allclose(one.activity, shown.mean(axis=(0, 2)), atol=1e-6)
    assert one.bins[:3] == [(0.0, 0), (0.0, 1), (1.0, 0)]
    assert one.reliability.min() > 0.8


def test_smoothing_stays_inside_one_segment(animals):
    smooth = responses_of(animals, replace(SHARED, smoothing=100.0))[0].activity
    plain = responses_of(animals)[0].activity.reshape(NUM_SEGMENTS, 2, -1)
    assert np.allclose(smooth.reshape(plain.shape), plain.mean(axis=1, keepdims=True), atol=1e-4)


def test_movie_frames_shorter_than_a_bin_are_counted_together():
    recording = animal("a")
    onsets = np.arange(0, 60, 0.05)
    frames = pd.DataFrame({"start": onsets, "end": onsets + 0.05, "movie_frame": np.arange(1200)})
    movie = replace(recording, stimuli={**recording.stimuli, "natural_movie_one": frames})
    shared = replace(SHARED, stimulus="natural_movie_one", column="movie_frame")
    population = populate([movie])
    one = responses_of(population, shared)[0]
    assert len(one.bins) == 120
    assert np.allclose(
        one.activity[3], population.activity["a"].binned(np.array([15]), 5, 1)[0], atol=1e-6
    )
    assert np.isnan(one.reliability).all()


def test_nothing_that_is_withheld_from_training_is_looked_at():
    config = SplitConfig(
        held_out_column="segment", held_out_values=(1, 3, 5), valid_fraction=0.0, guard=0.5
    )
    task = Task(stimulus="sequence", column="segment")
    before = populate([animal("a")], task, config)
    withheld = ~before.divided.recordings[0].is_inside(before.divided[0].training)
    traces = before.divided.recordings[0].df_over_f.copy()
    traces[withheld] = 1e3 * np.random.default_rng(0).normal(size=traces[withheld].shape)
    after = populate([replace(animal("a"), df_over_f=traces)], task, config)
    one, other = responses_of(before)[0], responses_of(after)[0]
    assert withheld.sum() > 100
    assert not {1.0, 3.0, 5.0} & {value for value, _ in one.bins}
    assert one.bins == other.bins
    assert np.array_equal(one.activity, other.activity)


def test_aligning_on_what_the_task_tests_is_refused(animals):
    task = Task(stimulus="sequence", column="segment", split="repeat")
    population = populate([animal("a")], task)
    with pytest.raises(RecordingError, match="tests 12 values of sequence/segment"):
        require_unscored(population.divided[0], population.divided.task(task), SHARED)
    require_unscored(animals.divided[0], TASK, SHARED)


def test_a_recording_without_the_column_is_refused(animals):
    with pytest.raises(RecordingError, match="has no column 'frame'"):
        responses_of(animals, replace(SHARED, column="frame"))


# shared space ------------------------------------------------------------------------------------


def test_loadings_of_a_new_animal_bring_its_activity_to_that_of_the_others(animals):
    *known, new = responses_of(animals)
    space = SharedSpace.fit(known, DIMENSIONS)
    loadings = space.place(new)
    assert np.allclose(loadings.weights.T @ loadings.weights, np.eye(DIMENSIONS), atol=1e-9)
    own = loadings.project(new.activity)
    other = space.place(known[0]).project(known[0].activity)
    assert all(np.corrcoef(own[:, i], other[:, i])[0, 1] > 0.9 for i in range(DIMENSIONS))
    shuffled = loadings.shuffled(0).project(new.activity)
    assert abs(np.corrcoef(shuffled.ravel(), other.ravel())[0, 1]) < 0.5


def test_the_same_responses_give_the_same_space_bit_for_bit(animals):
    one, other = (SharedSpace.fit(responses_of(animals), 3) for _ in range(2))
    assert np.array_equal(one.courses, other.courses)


def test_the_order_of_units_changes_nothing_but_the_order_of_loadings(animals):
    first, *others = responses_of(animals)
    order = np.random.default_rng(0).permutation(len(first.unit_ids))
    turned = replace(first, activity=first.activity[:, order])
    space = SharedSpace.fit([first, *others], DIMENSIONS)
    again = SharedSpace.fit([turned, *others], DIMENSIONS)
    assert np.allclose(space.courses, again.courses, atol=1e-6)
    assert np.allclose(space.place(first).weights[order], again.place(turned).weights, atol=1e-6)


def test_a_recording_that_missed_some_bins_is_placed_alike(animals):
    *known, new = responses_of(animals)
    missed = replace(new, bins=new.bins[6:], activity=new.activity[6:])
    space = SharedSpace.fit([*known, missed], DIMENSIONS)
    full, part = space.place(new).weights, space.place(missed).weights
    assert np.corrcoef(full.ravel(), part.ravel())[0, 1] > 0.95


def test_fewer_units_than_dimensions_reach_a_part_of_the_space(animals):
    few = responses_of(populate([animal("g", num_units=3)]))[0]
    weights = SharedSpace.fit(responses_of(animals), 6).place(few).weights
    assert weights.shape == (3, 6)
    assert np.allclose(weights @ weights.T, np.eye(3), atol=1e-9)


def test_the_number_of_dimensions_is_chosen_on_held_out_bins(animals):
    responses = responses_of(animals)
    assert segment_matching(responses, DIMENSIONS) > 0.5 > segment_matching(responses, 1)
    assert choose_dimensions(responses) == DIMENSIONS


def test_too_many_dimensions_are_refused(animals):
    with pytest.raises(RecordingError, match="24 bins of the stimulus allow 1 to 24"):
        SharedSpace.fit(responses_of(animals), 30)


def test_a_saved_space_places_units_as_before(animals):
    responses = responses_of(animals)
    space = SharedSpace.fit(responses, 3)
    settings = json.loads(json.dumps(space.settings()))
    again = SharedSpace.of(settings)
    assert again.bins == space.bins
    assert np.array_equal(again.place(responses[0]).weights, space.place(responses[0]).weights)
    with pytest.raises(ValueError, match="23 bins with time courses of shape"):
        SharedSpace.of({**settings, "bins": settings["bins"][1:]})


# decoders ----------------------------------------------------------------------------------------


def setting_of(population: Population, earlier) -> Setting:
    task = population.divided.task(TASK)
    return Setting(
        population=population, task=task, encoder=EncoderConfig(), config=FinetuningConfig(),
        seed=0, labels=1.0, earlier=earlier,
    )  # fmt: skip


@pytest.fixture(scope="module")
def accuracy(animals) -> dict[str, float]:
    new = populate([animal("n")])
    setting = setting_of(new, animals.divided)
    found = {}
    for arm in ("aligned", "aligned, shuffled", "ridge, aligned", "ridge, aligned, shuffled"):
        decoder = ARMS[arm].fit(setting)
        windows = new.divided.windows(new.divided[0], setting.task, "test", setting.num_timesteps)
        scores = decoder.predict(new.divided.recordings[0], windows.first_timestep)
        found[arm] = float((np.asarray(scores).argmax(1) == windows.target).mean())
    return found


def test_labels_of_other_animals_decode_a_new_one(accuracy):
    assert accuracy["aligned"] > 0.8
    assert accuracy["ridge, aligned"] > 0.8
    assert accuracy["aligned, shuffled"] < 0.7


def test_no_label_and_no_test_sample_of_its_own_changes_the_aligned_weights(animals):
    def weights_of(recording: Recording) -> np.ndarray:
        readout = ARMS["aligned"].fit(setting_of(populate([recording]), animals.divided)).readout
        return readout.weights

    recording = animal("n")
    divided = populate([recording]).divided
    withheld = ~recording.is_inside(divided[0].training)
    traces = recording.df_over_f.copy()
    traces[withheld] += 100
    flashes = recording.stimuli["flashes"]
    relabelled = flashes.assign(picture=flashes["picture"].to_numpy()[::-1])
    changed = replace(
        recording, df_over_f=traces, stimuli={**recording.stimuli, "flashes": relabelled}
    )
    assert withheld.any()
    assert np.array_equal(weights_of(recording), weights_of(changed))


def test_one_label_a_class_gains_from_the_labels_of_others(animals):
    task = animals.divided.task(TASK)
    classes = animals.divided.classes(task)
    decoder = fit_aligned_decoder(animals.divided, task, classes, SHARED)
    new = populate([animal("n", noise=4.0)])
    setting = setting_of(new, animals.divided)
    windows = new.divided.windows(new.divided[0], task, "train", setting.num_timesteps)
    features = setting.features(new.divided[0], windows, 1)
    first = np.unique(windows.target, return_index=True)[1]
    rest = np.setdiff1d(np.arange(len(windows)), first)
    loadings = decoder.place(new, new.divided[0], task)
    modes = PrincipalModes.measure(features)
    own = fit_semi_supervised_ridge(
        features[first], windows.target[first], len(classes), loadings.unit_ids, modes
    )
    both = fit_ridge_towards(
        features[first], windows.target[first], decoder.readout(loadings), modes.mean
    )
    told = [
        (one.scores(features[rest], loadings.unit_ids).argmax(1) == windows.target[rest]).mean()
        for one in (own, both)
    ]
    assert told[1] > told[0]


def test_aligned_arms_are_there_only_with_other_animals_that_saw_the_stimulus(animals):
    task = animals.divided.task(TASK)
    later = populate([animal("n")]).divided
    shared = find_shared_stimulus(task, later, animals.divided)
    assert shared == SharedStimulus(stimulus="sequence", column="segment")
    assert find_shared_stimulus(task, later, animals.divided[:1]) is None
    added = set(arms_for(task, (), has_alignment=True)) - set(arms_for(task, ()))
    assert added == {
        "aligned", "aligned, shuffled", "ridge, aligned", "ridge, aligned, shuffled",
    }  # fmt: skip


def test_one_other_animal_is_too_few(animals):
    task = animals.divided.task(TASK)
    with pytest.raises(RecordingError, match="Only 1 of 1 other recordings"):
        fit_aligned_decoder(animals.divided[:1], task, animals.divided.classes(task), SHARED)
