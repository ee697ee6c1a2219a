"""Events decay as an exponential, forward in time, alike offline and sample by sample."""

from __future__ import annotations

import numpy as np
import pytest

from poyo_ssl.recordings.events import EventKernel, convolve_events


def test_an_event_decays_and_is_not_seen_before():
    events = np.zeros((20, 2), dtype=np.float32)
    events[5, 0] = events[7, 0] = 1.0
    events[3, 1] = np.nan
    traces = EventKernel(0.3, 10.0).convolve(events)
    time = np.arange(20)
    expected = sum(np.where(time >= at, np.exp(-(time - at) / 3), 0) for at in (5, 7))
    assert np.allclose(traces[:, 0], expected, atol=1e-6)
    assert not traces[:, 1].any()


def test_samples_of_a_stream_decay_as_those_of_a_recording(rng):
    events = rng.poisson(0.1, size=(50, 4)).astype(np.float32)
    kernel = EventKernel(0.3, 30.0)
    pushed = np.stack([kernel.push(sample) for sample in events])
    assert np.allclose(pushed, kernel.convolve(events), atol=1e-6)


def test_events_do_not_outlast_a_gap_in_the_imaging(tiny_recording):
    [_, (first, stop)] = tiny_recording.segments
    traces = convolve_events(tiny_recording, 0.3).df_over_f
    alone = EventKernel(0.3, 10.0).convolve(tiny_recording.df_over_f[first:stop])
    assert np.array_equal(traces[first:stop], alone)


def test_a_decay_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"positive, got 0.0 and 30"):
        EventKernel(0.0, 30.0)
