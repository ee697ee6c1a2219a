"""Validation on several streams sees every window once, and each batch weighs them alike."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from poyo_ssl.windows.evaluation_batches import MixedValidation
from poyo_ssl.windows.training_batches import WindowBatch
from tiny_training import NUM_TIMESTEPS, make_source


def labelled(num_windows: int, num_timesteps: int = NUM_TIMESTEPS):
    source = make_source(0).take(np.arange(num_windows))
    return replace(source, windows=replace(source.windows, num_timesteps=num_timesteps))


def unlabelled(num_windows: int):
    source = make_source(1).take(np.arange(num_windows))
    return replace(source, windows=replace(source.windows, target=np.full(num_windows, -1)))


def windows(batch: list[WindowBatch]) -> list[tuple[bool, float]]:
    """Whether each window is labelled, and its first value, which no other shares."""
    return [
        (bool(label >= 0), float(first))
        for group in batch
        for label, first in zip(group.target, group.activity[:, 0, 1], strict=True)
    ]


def test_every_window_is_seen_once_and_each_batch_holds_its_share_of_every_stream():
    streams = [
        [unlabelled(20), unlabelled(20).take(np.arange(16))],
        [labelled(12, NUM_TIMESTEPS - 2)],
    ]
    batches = list(MixedValidation(streams, batch_size=12))
    assert len(batches) == 4
    assert {group.activity.shape[1] for group in batches[0]} == {NUM_TIMESTEPS, NUM_TIMESTEPS - 2}
    for batch in batches:
        assert Counter(is_labelled for is_labelled, _ in windows(batch)) == {False: 9, True: 3}
    seen = Counter(window for batch in batches for window in windows(batch))
    assert sum(seen.values()) == 48
    assert sorted(seen.values()) == [1] * 16 + [2] * 16  # the two sources overlap


def test_a_stream_of_few_windows_makes_few_batches():
    streams = [[unlabelled(40)], [labelled(2)]]
    batches = list(MixedValidation(streams, batch_size=8))
    assert [len(windows(batch)) for batch in batches] == [21, 21]


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_processes_share_the_batches(num_ranks):
    streams = [[unlabelled(24)], [labelled(12)]]
    whole = MixedValidation(streams, batch_size=12)
    parts = [list(whole.divided(rank, num_ranks)) for rank in range(num_ranks)]
    seen = sorted(window for part in parts for batch in part for window in windows(batch))
    assert seen == sorted(window for batch in whole for window in windows(batch))


def test_with_fewer_batches_than_processes_each_takes_all():
    whole = MixedValidation([[unlabelled(4)], [labelled(4)]], batch_size=8)
    for rank in range(2):
        [batch] = whole.divided(rank, 2)
        assert len(windows(batch)) == 8
