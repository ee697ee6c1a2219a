"""Sample by sample, every decoder answers as it does on the whole recording."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.decoders.streaming import StreamingDecoder
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.activity import LARGEST_Z, Activity
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.population import Population
from tiny_fits import KINDS, TASKS, fit_arm, setting_of, with_units_in_order

KNOWN = [0, 1, 2, 3, 5]
"""Units of the tiny session that the decoders are fitted on."""


@pytest.fixture(scope="module")
def fitted(tiny_recording, split_config):
    """Every kind of decoder, fitted when it is first asked for."""
    divided = divide([tiny_recording], list(TASKS.values()), split_config)
    population = Population(divided, {"tiny": [f"tiny-{i}" for i in KNOWN]})
    decoders = {}

    def decoder(task: str, arm: str) -> FittedDecoder:
        if (task, arm) not in decoders:
            decoders[task, arm] = fit_arm(arm, setting_of(population, TASKS[task]))
        return decoders[task, arm]

    return decoder


def stretch(recording: Recording, length: int) -> Recording:
    """The last so many samples of a session, in its second block of gratings."""
    first = recording.num_timesteps - length
    return replace(
        recording,
        df_over_f=recording.df_over_f[first:],
        timestamps=recording.timestamps[first:],
        stimuli={},
    )


def push_all(stream: StreamingDecoder, df_over_f: np.ndarray) -> list[np.ndarray | None]:
    return [stream.push(sample) for sample in df_over_f]


def offline(decoder: FittedDecoder, recording: Recording) -> np.ndarray:
    """Answers for every window of a recording without a gap."""
    first = np.arange(recording.num_timesteps - decoder.question.num_timesteps + 1)
    return decoder.predict(recording, first)


def assert_streams_as_offline(decoder: FittedDecoder, recording: Recording, **options) -> None:
    stream = StreamingDecoder(decoder, recording.unit_ids, **options)
    answers = push_all(stream, recording.df_over_f)
    num_full = decoder.question.num_timesteps - 1
    assert all(answer is None for answer in answers[:num_full])
    expected = offline(decoder, recording)
    assert np.stack(answers[num_full:]).shape == expected.shape
    np.testing.assert_allclose(np.stack(answers[num_full:]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("task", "arm"), KINDS)
def test_every_kind_of_decoder_answers_as_on_the_whole_recording(fitted, tiny_recording, task, arm):
    decoder = fitted(task, arm)
    # the buffer holds twice what an answer needs: it is moved to the front more than once
    length = 4 * (decoder.context + decoder.question.num_timesteps) + 3
    assert_streams_as_offline(decoder, stretch(tiny_recording, length), recording_id="tiny")


@pytest.mark.parametrize("arm", ["ridge", "scratch"])
def test_units_may_come_in_any_order_with_unknown_ones_among_them(fitted, tiny_recording, arm):
    recording = stretch(tiny_recording, 70)
    loud = recording.df_over_f.copy()
    loud[:, 4] = 1e3  # tiny-4 is not known
    shuffled = with_units_in_order(replace(recording, df_over_f=loud), np.array([5, 4, 0, 3, 2, 1]))
    decoder = fitted("direction", arm)
    assert_streams_as_offline(decoder, shuffled, recording_id="tiny")
    stream = StreamingDecoder(decoder, shuffled.unit_ids, "tiny")
    assert stream.unit_ids == [f"tiny-{i}" for i in (5, 0, 3, 2, 1)]
    answers = push_all(stream, shuffled.df_over_f)
    np.testing.assert_allclose(answers[-1], offline(decoder, recording)[-1], atol=2e-5)


@pytest.mark.parametrize("arm", ["ridge", "scratch"])
def test_some_units_alone_are_decoded_as_offline(fitted, tiny_recording, arm):
    some = with_units_in_order(stretch(tiny_recording, 50), np.array([3, 4]))
    assert_streams_as_offline(fitted("direction", arm), some, recording_id="tiny")


@pytest.mark.parametrize("arm", ["ridge", "scratch"])
def test_samples_that_are_no_numbers_count_as_the_mean_of_their_unit(fitted, tiny_recording, arm):
    decoder = fitted("direction", arm)
    recording = stretch(tiny_recording, 60)
    holes = np.random.default_rng(0).random(recording.df_over_f.shape) < 0.3
    damaged = np.where(holes, np.float32(np.nan), recording.df_over_f)
    damaged[7, 0], damaged[8, 1] = np.inf, -np.inf
    assert_streams_as_offline(decoder, replace(recording, df_over_f=damaged), recording_id="tiny")
    table = decoder.question.scale.tables["tiny"]
    mean, sd = (table[name].reindex(recording.unit_ids).to_numpy() for name in ("mean", "sd"))
    filled = np.where(np.isnan(damaged), mean, damaged)
    filled = np.clip(filled, mean - 2 * LARGEST_Z * sd, mean + 2 * LARGEST_Z * sd)
    stream = StreamingDecoder(decoder, recording.unit_ids, "tiny")
    by_hand = StreamingDecoder(decoder, recording.unit_ids, "tiny")
    assert np.isnan(damaged).any()
    # the mean in single precision is next to the mean, and the square root is steep there
    np.testing.assert_allclose(
        push_all(stream, damaged)[-1], push_all(by_hand, filled)[-1], atol=2e-3
    )


def test_after_a_reset_nothing_of_the_past_is_left(fitted, tiny_recording):
    decoder = fitted("direction", "scratch")
    recording = stretch(tiny_recording, 45)
    stream = StreamingDecoder(decoder, recording.unit_ids, "tiny")
    push_all(stream, np.full((33, 6), 50.0))
    stream.reset()
    fresh = StreamingDecoder(decoder, recording.unit_ids, "tiny")
    for sample in recording.df_over_f:
        again, expected = stream.push(sample), fresh.push(sample)
        assert (again is None) == (expected is None)
        if again is not None:
            assert np.array_equal(again, expected)
    assert again is not None


def test_answers_stay_as_they_were_given(fitted, tiny_recording):
    recording = stretch(tiny_recording, 45)
    for task, arm in KINDS:
        stream = StreamingDecoder(fitted(task, arm), recording.unit_ids, "tiny")
        answers = [a for a in push_all(stream, recording.df_over_f) if a is not None]
        copies = [a.copy() for a in answers]
        push_all(stream, recording.df_over_f[::-1])
        assert all(np.array_equal(a, b) for a, b in zip(answers, copies, strict=True))


def test_a_recording_of_another_day_is_normalised_by_the_average_of_the_days_known(
    fitted, tiny_recording
):
    decoder = fitted("direction", "ridge")
    table = decoder.question.scale.tables["tiny"]
    louder = table.assign(mean=table["mean"] + 1, sd=3 * table["sd"])
    question = replace(
        decoder.question,
        scale=replace(decoder.question.scale, tables={"tiny": table, "louder": louder}),
    )
    decoder = type(decoder)(question, decoder.readout)
    recording = stretch(tiny_recording, 40)
    new_day = replace(recording, recording_id="a new day")
    assert_streams_as_offline(decoder, new_day)
    assert_streams_as_offline(decoder, new_day, recording_id="a new day")
    assert_streams_as_offline(decoder, recording, recording_id="tiny")
    assert_streams_as_offline(
        decoder, replace(recording, recording_id="louder"), recording_id="louder"
    )
    alone = StreamingDecoder(decoder, recording.unit_ids)
    known = StreamingDecoder(decoder, recording.unit_ids, "louder")
    answers = [push_all(stream, recording.df_over_f)[-1] for stream in (alone, known)]
    assert not np.allclose(*answers, atol=1e-2)


def test_the_decoder_is_not_shown_more_than_its_window(fitted, tiny_recording, monkeypatch):
    decoder = fitted("direction", "ridge")
    seen = []
    monkeypatch.setattr(
        decoder, "answer", lambda activity, first: (seen.append((activity, first)), np.zeros(1))[1]
    )
    recording = stretch(tiny_recording, 90)
    push_all(StreamingDecoder(decoder, recording.unit_ids, "tiny"), recording.df_over_f)
    length = decoder.question.num_timesteps
    assert len(seen) == 90 - length + 1
    for activity, first in seen:
        assert isinstance(activity, Activity)
        assert activity.windows(first, length).shape == (1, length, len(KNOWN))
        assert len(activity.values) == length
        assert first.tolist() == [0]


@pytest.mark.parametrize("shape", [(), (5,), (7,), (1, 6), (6, 1)])
def test_anything_but_one_number_per_unit_is_refused_and_not_taken(fitted, tiny_recording, shape):
    recording = stretch(tiny_recording, 30)
    decoder = fitted("direction", "ridge")
    stream = StreamingDecoder(decoder, recording.unit_ids, "tiny")
    push_all(stream, recording.df_over_f[:10])
    with pytest.raises(ValueError, match=r"shape \(6,\).*got \(.*one sample at a time"):
        stream.push(np.zeros(shape))
    answers = push_all(stream, recording.df_over_f[10:])
    np.testing.assert_allclose(answers[-1], offline(decoder, recording)[-1], atol=1e-5)


def test_a_stream_without_a_known_unit_is_refused(fitted):
    with pytest.raises(
        RecordingError, match=r"'ridge' knows none of the 3 units.*it knows 5, such as tiny-0"
    ):
        StreamingDecoder(fitted("direction", "ridge"), ["tiny-4", "mouse-0", "mouse-1"])


@pytest.mark.parametrize(
    ("unit_ids", "found"), [(["tiny-0", "tiny-1", "tiny-0"], "3 names.*2 differ"), ([], "0 names")]
)
def test_units_that_are_named_twice_or_not_at_all_are_refused(fitted, unit_ids, found):
    with pytest.raises(RecordingError, match=rf"every incoming unit once: {found}.*in the order"):
        StreamingDecoder(fitted("direction", "ridge"), unit_ids)


def test_a_stream_of_another_rate_is_refused(fitted, tiny_recording):
    decoder, rate = fitted("direction", "ridge"), tiny_recording.sampling_rate
    with pytest.raises(RecordingError, match=r"'tiny' is sampled at 2\d.\d+ Hz but .* fitted at"):
        StreamingDecoder(decoder, ["tiny-0"], "tiny", sampling_rate=2 * rate)
    StreamingDecoder(decoder, ["tiny-0"], "tiny", sampling_rate=rate)
