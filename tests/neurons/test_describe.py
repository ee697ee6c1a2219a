"""Units are described by training time alone, and files keep all of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from poyo_ssl.decoders.reference_decoders import LabelReadout
from poyo_ssl.neurons.describe import Neurons, describe_neurons
from poyo_ssl.neurons.figures import (
    plot_average_response,
    plot_field_of_view,
    plot_importance,
    plot_responses,
    plot_traces,
    plot_tuning,
)
from poyo_ssl.neurons.responses import measure_responses
from poyo_ssl.neurons.storage import NeuronsError, load_neurons, save_neurons
from poyo_ssl.predictability.partition import partition_by_predictability
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.windows.divide import Divided, DividedRecording
from poyo_ssl.windows.tasks import DIRECTION, MOVIE_HELD_OUT
from tiny_fits import fit_arm, setting_of

ALL = np.arange(6)


def describe(divided: DividedRecording, decoders=()) -> Neurons:
    together = Divided([divided])
    partition = partition_by_predictability(together, PredictabilityConfig(min_timesteps=100))
    return describe_neurons(together, partition, decoders)[0]


@pytest.fixture(scope="module")
def decoders(tiny_population):
    return [
        fit_arm(arm, setting_of(tiny_population, task))
        for task, arm in ((DIRECTION, "ridge"), (DIRECTION, "scratch"), (MOVIE_HELD_OUT, "scratch"))
    ]


@pytest.fixture(scope="module")
def neurons(tiny_divided, decoders) -> Neurons:
    return describe(tiny_divided, decoders)


def test_responses_and_tuning_find_what_each_unit_prefers(neurons):
    task = neurons.task("direction")
    assert task.tuning.curves.iloc[:, :4].idxmax().tolist() == [0, 90, 180, 270]
    responses = task.responses
    assert responses.is_preferred
    during = (responses.times > 0.2) & (responses.times < 1.8)
    response = responses.average[during].mean(axis=0) - responses.average[~during].mean(axis=0)
    assert (response[:4] > 2 * np.abs(response[4:]).max()).all()
    assert set(neurons.by_reliability(task)[:4]) == {0, 1, 2, 3}
    assert ((responses.peak[:4] > 0) & (responses.peak[:4] < 2.2)).all()


def test_nothing_of_validation_or_test_time_is_looked_at(tiny_divided, neurons):
    recording = tiny_divided.recording
    is_learned = recording.is_inside(
        np.concatenate([tiny_divided.training, *(s.train for s in tiny_divided.splits.values())])
    )
    changed = np.where(is_learned[:, None], recording.df_over_f, 1e3).astype(np.float32)
    again = describe(replace(tiny_divided, recording=replace(recording, df_over_f=changed)))
    np.testing.assert_array_equal(again.traces.df_over_f, neurons.traces.df_over_f)
    for task in again.tasks:
        known = neurons.task(task.name)
        np.testing.assert_array_equal(task.responses.average, known.responses.average)
        np.testing.assert_array_equal(task.responses.peak, known.responses.peak)
        if task.tuning is not None:
            pd.testing.assert_frame_equal(task.tuning.curves, known.tuning.curves)


def test_frames_that_are_held_out_of_a_movie_leave_a_gap(neurons, tiny_divided):
    responses = neurons.task("movie_held_out").responses
    assert responses.duration == pytest.approx(10)
    times = tiny_divided.recording.timestamps
    is_learned = tiny_divided.recording.is_inside(tiny_divided.splits["movie_held_out"].train)
    since = (times[is_learned & (times < 60)] + 0.05) % 10
    width = np.diff(responses.times).mean()
    is_learned_bin = np.isin(np.arange(len(responses.times)), (since / width).astype(int))
    np.testing.assert_array_equal(~np.isnan(responses.average).any(axis=1), is_learned_bin)
    assert not is_learned_bin.all()


def test_a_flash_shorter_than_a_bin_has_a_preferred_label_too(tiny_recording):
    shown = tiny_recording.stimuli["drifting_gratings"]
    flashed = {"drifting_gratings": shown.assign(end=shown["start"] + 0.06)}  # samples last 0.1 s
    found = measure_responses(
        replace(tiny_recording, stimuli=flashed),
        DIRECTION,
        tiny_recording.segment_intervals,
        np.array([0.0, 90, 180, 270]),
        ALL,
    )
    assert found.is_preferred
    during = (found.times > 0) & (found.times < 0.4)
    assert found.average[during, :4].mean() > 0.5


def test_no_line_is_drawn_where_nothing_was_imaged(neurons):
    traces = neurons.traces
    is_imaged = (traces.times < 5) | (traces.times > 8)
    gap = replace(traces, times=traces.times[is_imaged], df_over_f=traces.df_over_f[is_imaged])
    times, values = plot_traces(replace(neurons, traces=gap)).lines[0].get_data()
    missing = np.flatnonzero(np.isnan(times))
    assert len(missing) == 1
    assert np.isnan(values[missing]).all()
    assert times[missing[0] - 1] < 5 < 8 < times[missing[0] + 1]


def test_the_half_that_is_drawn_does_not_choose_what_is_drawn(tiny_recording, rng):
    """Noise that is sorted by its own peaks looks like responses; this one must not."""
    noise = rng.normal(size=(tiny_recording.num_timesteps, 200)).astype(np.float32)
    units = pd.DataFrame({"unit_id": [str(unit) for unit in range(200)]})
    recording = replace(tiny_recording, df_over_f=noise, units=units)
    classes = np.array([0.0, 90, 180, 270])
    everything = recording.segment_intervals
    found = measure_responses(recording, DIRECTION, everything, classes, np.arange(200))
    during = (found.times > 0) & (found.times < 2)
    assert abs(found.average[during].mean()) < 0.03
    assert abs(np.nanmean(found.reliability)) < 0.1


def test_weights_and_gradients_name_the_units_that_a_decoder_uses(
    neurons, decoders, tiny_population
):
    importance = neurons.task("direction").importance
    assert list(importance) == ["ridge", "scratch"]
    for values in importance.values():
        assert values.mean() == pytest.approx(1)
    assert importance["ridge"][:4].min() > importance["ridge"][4:].max()
    assert neurons.task("movie_held_out").importance["scratch"].min() > 0
    activity = tiny_population.activity["tiny"]
    without = torch.where(torch.arange(6) == 2, 0, activity.values)
    silent = decoders[1].unit_importance(replace(activity, values=without), np.arange(5))
    assert np.flatnonzero(silent == 0).tolist() == [2]


def test_a_readout_of_one_unit_is_told_by_its_weights(decoders, tiny_population):
    ridge = decoders[0]
    weights = np.zeros_like(ridge.readout.weights)
    weights[:, 3] = [[1.0, -1.0, 2.0, -2.0]]
    planted = LabelReadout(ridge.question, replace(ridge.readout, weights=weights))
    activity = tiny_population.activity["tiny"]
    assert planted.unit_importance(activity, np.arange(3)).tolist() == [0, 0, 0, 6, 0, 0]


def test_latents_have_a_point_for_every_window(neurons):
    latents = neurons.task("direction").latents
    assert list(latents) == ["scratch"]
    assert latents["scratch"].points.shape == (len(latents["scratch"].labels), 2)
    assert set(latents["scratch"].labels) == {0, 90, 180, 270}


def test_a_file_keeps_everything(neurons, tmp_path):
    path = tmp_path / "neurons.npz"
    save_neurons([neurons], path)
    (kept,) = load_neurons(path)
    assert kept.recording_id == "tiny"
    pd.testing.assert_frame_equal(kept.units, neurons.units, check_dtype=False)
    np.testing.assert_allclose(kept.traces.df_over_f, neurons.traces.df_over_f, rtol=1e-6)
    for task, known in zip(kept.tasks, neurons.tasks, strict=True):
        assert task.title == known.title
        np.testing.assert_allclose(task.responses.average, known.responses.average, rtol=1e-5)
        assert list(task.importance) == list(known.importance)
        assert list(task.latents) == list(known.latents)
    assert path.stat().st_size < 100_000


def test_a_damaged_file_is_named_as_such(neurons, tmp_path):
    path = tmp_path / "neurons.npz"
    save_neurons([neurons], path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NeuronsError, match="no description of units"):
        load_neurons(path)
    np.savez(path, header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(NeuronsError):
        load_neurons(path)


def test_figures_are_drawn_of_what_there_is_and_say_what_is_not(neurons):
    assert len(plot_traces(neurons).lines) == 4
    (image,) = plot_responses(neurons, "direction").images
    assert image.get_array().shape[0] == 6
    assert len(plot_average_response(neurons, "movie_held_out").lines) <= 2
    assert plot_tuning(neurons, "direction").axes
    assert plot_importance(neurons, "direction", arms=["ridge"]).get_ylim()[0] == 0
    placed = replace(neurons, units=neurons.units.assign(x_px=ALL, y_px=ALL))
    assert plot_field_of_view(placed).collections
    for wrong, message in (
        (lambda: plot_field_of_view(neurons), "x_px and y_px"),
        (lambda: plot_tuning(neurons, "movie_held_out"), "no tuning curves"),
        (lambda: plot_responses(neurons, "speed"), "not described for the task 'speed'"),
        (lambda: plot_importance(neurons, "movie_held_out", arms=["ridge"]), "but: scratch"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
