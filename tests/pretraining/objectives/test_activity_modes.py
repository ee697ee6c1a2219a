"""Modes are what units do together in training windows, and can be removed for some units alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from poyo_ssl.pretraining.objectives.activity_modes import ActivityModes
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.activity import Activity
from poyo_ssl.windows.task_windows import TaskWindows
from poyo_ssl.windows.training_batches import WindowSource

LOADING = np.array([1.0, 2.0, -1.0, 0.5, 1.5])


def make_source(recording_id: str = "a", num_timesteps: int = 400) -> WindowSource:
    """Five units that share one strong mode; rows 3, 1, 4, 7 and 2 of the embedding."""
    rng = np.random.default_rng(0)
    shared = np.repeat(rng.normal(size=num_timesteps // 10), 10)
    values = 3.0 + 2.0 * shared[:, None] * LOADING + 0.1 * rng.normal(size=(num_timesteps, 5))
    first = np.arange(0, 300)
    return WindowSource(
        activity=Activity(
            recording_id=recording_id,
            values=torch.from_numpy(values.astype(np.float32)),
            unit_ids=list("abcde"),
        ),
        unit_index=torch.tensor([3, 1, 4, 7, 2]),
        windows=TaskWindows(first_timestep=first, num_timesteps=10, target=np.full(len(first), -1)),
        may_start=np.ones(num_timesteps, dtype=bool),
    )


def windows(source: WindowSource, columns: np.ndarray | None = None):
    index = np.arange(0, 300, 10)
    return source.batch(index, np.zeros_like(index), columns)


def test_the_first_mode_is_what_most_variance_lies_along():
    modes = ActivityModes.measure([make_source()], 1)
    found = modes.loadings["a"][[3, 1, 4, 7, 2], 0].numpy()
    assert abs(found @ LOADING) / np.linalg.norm(LOADING) == pytest.approx(1.0, abs=1e-3)
    assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-5)


def test_what_is_removed_is_the_mode_and_nothing_else():
    source = make_source()
    group = windows(source)
    modes = ActivityModes.measure([source], 1)
    left = modes.remove(group)
    mode = modes.loadings["a"][group.unit_index]
    mean = modes.mean["a"][group.unit_index]
    assert ((left - mean) @ mode).abs().max() < 1e-4
    removed = (group.activity - left).flatten(0, 1)
    assert torch.linalg.matrix_rank(removed, atol=1e-2) == 1
    assert float((left - mean).var()) < 0.02 < float((group.activity - mean).var())


def test_where_units_are_left_out_the_mode_of_the_others_is_removed():
    source = make_source()
    columns = np.array([0, 2, 4])
    modes = ActivityModes.measure([source], 1)
    left = modes.remove(windows(source, columns))
    mode = torch.from_numpy(LOADING[columns]).float()
    deviation = left - modes.mean["a"][source.unit_index[columns]]
    assert ((deviation @ mode) / mode.norm()).abs().max() < 0.05
    assert float(deviation.var()) < 0.02


def test_every_recording_has_modes_of_its_own():
    # a cell that is tracked has the same row in both
    one = make_source("a")
    flipped = make_source("b").activity
    other = replace(one, activity=replace(flipped, values=flipped.values[:, [1, 0, 2, 3, 4]]))
    modes = ActivityModes.measure([one, other], 1)
    assert not torch.allclose(modes.loadings["a"].abs(), modes.loadings["b"].abs(), atol=0.1)
    left = modes.remove(windows(other)) - modes.mean["b"][other.unit_index]
    assert float(left.var()) < 0.02


def test_only_training_windows_are_looked_at():
    source = make_source()
    values = source.activity.values.clone()
    values[310:] = 1e4 * torch.randn(90, 5)  # no window reaches so far
    changed = replace(source, activity=replace(source.activity, values=values))
    one = ActivityModes.measure([source], 2)
    two = ActivityModes.measure([changed], 2)
    torch.testing.assert_close(one.loadings["a"], two.loadings["a"])
    torch.testing.assert_close(one.mean["a"], two.mean["a"])


def test_a_recording_without_more_units_than_modes_is_refused():
    with pytest.raises(RecordingError, match=r"remove_modes: 5 .*'a' has 5.*Remove fewer"):
        ActivityModes.measure([make_source()], 5)
