"""Cells imaged in several sessions: one embedding, a scale for every session, no unit borrowed."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.decoders.loading import load_decoder
from poyo_ssl.evaluation.evaluate import evaluate_recording
from poyo_ssl.model.encoder import Encoder
from poyo_ssl.predictability.partition import partition_recordings
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.recordings.loading import load_recording
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import DIRECTION, MOVIE_HELD_OUT, ORIENTATION
from tiny_fits import ENCODER, fit_arm, setting_of, with_units_in_order

DATA = Path(__file__).resolve().parents[1] / "../shared/data"

TASKS = {"direction": DIRECTION, "movie_held_out": MOVIE_HELD_OUT}
CLOSED_FORM = [
    ("direction", "ridge"),
    ("direction", "ridge, time bins"),
    ("movie_held_out", "nearest frame"),
]
KINDS = [*CLOSED_FORM, ("direction", "scratch + teacher")]

MONDAY = ["a", "b", "c", "d"]
TUESDAY = ["c", "d", "e", "f"]
"""``c`` and ``d`` are tracked."""

FIRST = np.array([700, 730, 1000, 2000, 2210])
"""Windows of a day to predict."""


@pytest.fixture(scope="module")
def days(tiny_recording) -> dict[str, Recording]:
    """Two days of four cells each that answer the same gratings with noise of their own.

    On the third day all six cells are there.
    """
    columns = {"monday": "abcd", "tuesday": "cdef", "wednesday": "abcdef"}
    recordings = {}
    for seed, (name, ids) in enumerate(columns.items()):
        noise = np.random.default_rng(seed).normal(size=tiny_recording.df_over_f.shape)
        recording = replace(
            tiny_recording,
            recording_id=name,
            df_over_f=tiny_recording.df_over_f + noise.astype(np.float32),
            units=pd.DataFrame({"unit_id": list("abcdef")}),
        )
        order = np.array(["abcdef".index(unit_id) for unit_id in ids])
        recordings[name] = with_units_in_order(recording, order)
    return recordings


def population_of(recordings: list[Recording], split_config, **unit_ids: list[str]) -> Population:
    """All units of the recordings, or the named ones."""
    divided = divide(recordings, list(TASKS.values()), split_config)
    names = [recording.recording_id for recording in recordings]
    chosen = {r.recording_id: [str(u) for u in r.unit_ids] for r in recordings}
    return Population(divided, {name: unit_ids.get(name, chosen[name]) for name in names})


@pytest.fixture(scope="module")
def fitted(days, split_config):
    """Decoders of the first two days, each fitted when it is first asked for."""
    population = population_of([days["monday"], days["tuesday"]], split_config)
    decoders = {}

    def decoder(task: str, arm: str) -> FittedDecoder:
        if (task, arm) not in decoders:
            decoders[task, arm] = fit_arm(arm, setting_of(population, TASKS[task]))
        return decoders[task, arm]

    return decoder


# the scale of a day --------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "arm"), KINDS)
def test_the_gain_of_one_day_changes_no_answer_on_any(fitted, days, split_config, task, arm):
    decoder = fitted(task, arm)
    # four times the ΔF/F is exact in floating point, so every answer must be the same bit for bit
    louder = replace(days["tuesday"], df_over_f=4 * days["tuesday"].df_over_f)
    population = population_of([days["monday"], louder], split_config)
    again = fit_arm(arm, setting_of(population, TASKS[task]))
    for before, after in ((days["monday"], days["monday"]), (days["tuesday"], louder)):
        assert np.array_equal(decoder.predict(before, FIRST), again.predict(after, FIRST))


@pytest.mark.parametrize(("task", "arm"), CLOSED_FORM)
def test_the_order_of_days_does_not_matter(fitted, days, split_config, task, arm):
    decoder = fitted(task, arm)
    population = population_of([days["tuesday"], days["monday"]], split_config)
    turned = fit_arm(arm, setting_of(population, TASKS[task]))
    for day in days.values():
        expected = decoder.predict(day, FIRST)
        assert np.allclose(turned.predict(day, FIRST), expected, atol=1e-4)


@pytest.mark.parametrize(("task", "arm"), KINDS)
def test_a_saved_decoder_knows_every_day_as_before(fitted, days, tmp_path, task, arm):
    decoder = fitted(task, arm)
    decoder.save(tmp_path)
    loaded = load_decoder(tmp_path)
    for day in days.values():
        assert loaded.question.known_units(day) == decoder.question.known_units(day)
        assert np.array_equal(loaded.predict(day, FIRST), decoder.predict(day, FIRST))


# which cells ---------------------------------------------------------------------------------


def test_a_decoder_uses_in_a_day_only_the_cells_that_it_learned_from_that_day(days, split_config):
    # c is left out on monday, as a cell is that is predictable on that day only
    population = population_of(
        [days["monday"], days["tuesday"]], split_config, monday=["a", "b", "d"]
    )
    decoder = fit_arm("ridge", setting_of(population, DIRECTION))
    assert decoder.question.known_units(days["monday"]) == ["a", "b", "d"]
    assert decoder.question.known_units(days["tuesday"]) == ["c", "d", "e", "f"]
    noisy = days["monday"].df_over_f.copy()
    noisy[:, 2] = 1e3
    changed = replace(days["monday"], df_over_f=noisy)
    expected = decoder.predict(days["monday"], FIRST)
    assert np.array_equal(decoder.predict(changed, FIRST), expected)


def test_a_new_day_is_answered_from_the_cells_of_all_days(fitted, days):
    decoder = fitted("direction", "ridge")
    assert decoder.question.known_units(days["wednesday"]) == list("abcdef")
    # other noise, the same trials
    assert evaluate_recording(decoder, days["wednesday"]).scores["accuracy"] > 0.75


def test_linear_weights_of_tracked_cells_are_the_mean_of_both_days(fitted, days, split_config):
    together = fitted("direction", "ridge").readout
    alone = [
        fit_arm("ridge", setting_of(population_of([days[name]], split_config), DIRECTION)).readout
        for name in ("monday", "tuesday")
    ]
    weights = {
        unit_id: [r.weights[0, r.unit_ids.index(unit_id)] for r in alone if unit_id in r.unit_ids]
        for unit_id in "abcdef"
    }
    assert [len(found) for found in weights.values()] == [1, 1, 2, 2, 1, 1]
    for unit_id, found in weights.items():
        expected = np.mean(found, axis=0)
        assert np.allclose(together.weights[0, together.unit_ids.index(unit_id)], expected)


def test_a_day_of_tracked_cells_alone_is_answered_by_exactly_their_weights(fitted, days):
    decoder = fitted("direction", "ridge")
    readout, day = decoder.readout, with_units_in_order(days["wednesday"], np.array([3, 2]))
    table = decoder.question.scale.table_for("wednesday").loc[["d", "c"]]
    z = (day.df_over_f - table["mean"].to_numpy()) / table["sd"].to_numpy()
    activity = np.sign(z) * np.sqrt(np.abs(np.clip(z, -8, 8)))
    length = decoder.question.num_timesteps
    means = np.stack([activity[first : first + length].mean(axis=0) for first in FIRST])
    columns = [readout.unit_ids.index("d"), readout.unit_ids.index("c")]
    expected = (means - readout.center[0, columns]) @ readout.weights[0, columns]
    found = decoder.predict(day, FIRST)
    assert np.allclose(found, expected + readout.intercepts.mean(axis=0), atol=1e-4)


@pytest.mark.parametrize("arm", ["ridge", "ridge, time bins"])
def test_two_parts_of_a_session_decode_as_well_as_the_whole(tiny_recording, split_config, arm):
    accuracies = []
    for cuts in ([slice(None)], [slice(0, 1550), slice(1550, None)]):
        parts = [_cut(tiny_recording, cut, f"part {i}") for i, cut in enumerate(cuts)]
        divided = divide(parts, [DIRECTION], split_config)
        chosen = {p.recording_id: [str(u) for u in p.unit_ids] for p in parts}
        decoder = fit_arm(arm, setting_of(Population(divided, chosen), DIRECTION))
        evaluations = [
            evaluate_recording(decoder, d.recording, d.splits["direction"]) for d in divided
        ]
        accuracies.append(np.concatenate([e.per_window for e in evaluations]).mean())
    whole, halves = accuracies
    assert whole > 0.9
    assert halves >= whole - 1 / 12  # one trial


def _cut(recording: Recording, timesteps: slice, name: str) -> Recording:
    timestamps = recording.timestamps[timesteps]
    table = recording.stimuli["drifting_gratings"]
    is_inside = (table["start"] >= timestamps[0]) & (table["end"] <= timestamps[-1])
    return replace(
        recording,
        recording_id=name,
        df_over_f=recording.df_over_f[timesteps],
        timestamps=timestamps,
        stimuli={"drifting_gratings": table[is_inside]},
        templates={},
    )


# which cells are missed ----------------------------------------------------------------------


def test_cells_of_other_mice_are_not_missed(days, split_config):
    stranger = replace(days["monday"], recording_id="stranger")
    stranger = replace(stranger, units=pd.DataFrame({"unit_id": ["p", "q", "r", "s"]}))
    population = population_of([days["monday"], days["tuesday"], stranger], split_config)
    question = fit_arm("ridge", setting_of(population, DIRECTION)).question
    # learned from: what was learned there
    assert question.missing_units(days["monday"]) == []
    assert question.missing_units(with_units_in_order(days["monday"], np.array([3, 0]))) == [
        "b",
        "c",
    ]
    # new: what the days that share a cell know
    wednesday = days["wednesday"]
    assert question.missing_units(wednesday) == []
    a_and_f = with_units_in_order(wednesday, np.array([0, 5]))
    assert question.missing_units(a_and_f) == ["b", "c", "d", "e"]
    only_f = with_units_in_order(wednesday, np.array([5]))
    assert question.missing_units(only_f) == ["c", "d", "e"]


# one embedding -------------------------------------------------------------------------------


def embedding_gradient(encoder: Encoder, population: Population, name: str) -> torch.Tensor:
    """How a loss on one window of one recording moves every unit's embedding, (num_rows, D)."""
    encoder.zero_grad()
    length = encoder.window_timesteps(2.0)
    activity = population.activity[name]
    rows = encoder.unit_rows(activity.unit_ids)
    latents = encoder(activity.windows(np.array([700]), length), rows)
    latents.square().sum().backward()
    gradient = encoder.unit_embedding.weight.grad
    assert gradient is not None
    return gradient.clone()


def test_every_day_moves_the_embeddings_of_its_own_cells_and_no_other(days, split_config):
    population = population_of([days["monday"], days["tuesday"]], split_config)
    torch.manual_seed(0)
    encoder = Encoder(ENCODER, population.sampling_rate)
    encoder.add_units(population.unit_ids)
    assert population.unit_ids == list("abcdef")
    for name in ("monday", "tuesday"):
        gradient = embedding_gradient(encoder, population, name)
        moved = {u for u in "abcdef" if gradient[encoder.unit_rows([u])].abs().sum() > 0}
        assert moved == {str(unit_id) for unit_id in days[name].unit_ids}


# sessions apart ------------------------------------------------------------------------------


def test_sessions_apart_share_no_unit_and_nothing_else_changes(days, split_config):
    apart = {name: day.with_own_units() for name, day in days.items()}
    assert apart["monday"].unit_ids.tolist() == [f"monday/{unit_id}" for unit_id in MONDAY]
    assert days["monday"].unit_ids.tolist() == MONDAY
    assert apart["monday"].df_over_f is days["monday"].df_over_f
    every = [unit_id for day in apart.values() for unit_id in day.unit_ids]
    assert len(set(every)) == len(every) == 14
    # the decoder of a day is then that of the day alone
    together = population_of([apart["monday"], apart["tuesday"]], split_config)
    alone = population_of([days["tuesday"]], split_config)
    two, one = (fit_arm("ridge", setting_of(p, DIRECTION)) for p in (together, alone))
    columns = [two.readout.unit_ids.index(f"tuesday/{unit_id}") for unit_id in TUESDAY]
    assert np.array_equal(two.readout.weights[:, columns], one.readout.weights)


names = st.text(alphabet="ab/0", min_size=1, max_size=4)


@given(unit_ids=st.lists(names, min_size=1, max_size=6, unique=True))
def test_own_units_stay_as_many_as_they_were_whatever_their_names(unit_ids):
    recording = Recording(
        recording_id="a",
        df_over_f=np.zeros((2, len(unit_ids)), dtype=np.float32),
        timestamps=np.arange(2.0),
        units=pd.DataFrame({"unit_id": unit_ids, "area": "VISp"}),
    )
    own = recording.with_own_units()  # a recording refuses ids that collide
    assert [unit_id.removeprefix("a/") for unit_id in own.unit_ids] == unit_ids
    assert (own.units["area"] == "VISp").all()


# who is predictable --------------------------------------------------------------------------


def test_cells_that_change_sides_between_days_are_counted_in_the_log(days, caplog):
    bursts = days["tuesday"].df_over_f.copy()
    bursts[::500, [0, 2]] += 60.0  # c and e
    recordings = [days["monday"], replace(days["tuesday"], df_over_f=bursts)]
    intervals = {r.recording_id: r.segment_intervals for r in recordings}
    with caplog.at_level(logging.INFO, "poyo_ssl.predictability"):
        partition = partition_recordings(recordings, intervals, PredictabilityConfig())
    assert partition.is_predictable(recordings[0]).tolist() == [True, True, True, True]
    assert partition.is_predictable(recordings[1]).tolist() == [False, True, False, True]
    assert "2 cells were measured in several recordings; 1 of them are predictable" in caplog.text


def test_recordings_without_common_cells_say_nothing_of_tracked_ones(days, caplog):
    recordings = [day.with_own_units() for day in days.values()]
    intervals = {r.recording_id: r.segment_intervals for r in recordings}
    with caplog.at_level(logging.INFO, "poyo_ssl.predictability"):
        partition_recordings(recordings, intervals, PredictabilityConfig())
    assert "measured in several recordings" not in caplog.text


# two real sessions ---------------------------------------------------------------------------


@pytest.mark.skipif(
    not DATA.is_dir(), reason="no folder shared/data with real sessions beside the checkout"
)
def test_two_real_sessions_share_132_cells_and_their_embeddings(split_config):
    files = [next(DATA.glob(f"sub-*{stimuli}_ophys.nwb")) for stimuli in ("StimA", "StimB")]
    recordings = [load_recording(file) for file in files]
    one, two = (set(recording.unit_ids.tolist()) for recording in recordings)
    shared = one & two
    assert (len(one), len(two), len(shared)) == (254, 269, 132)
    divided = divide(recordings, [DIRECTION, ORIENTATION], split_config)
    population = Population(divided, {r.recording_id: list(r.unit_ids) for r in recordings})
    encoder = Encoder(ENCODER, population.sampling_rate)
    encoder.add_units(population.unit_ids)
    assert len(encoder.unit_embedding.vocab) - 1 == 254 + 269 - 132  # one row is for no unit
    gradients = {
        r.recording_id: embedding_gradient(encoder, population, r.recording_id) for r in recordings
    }
    for recording, gradient in zip(recordings, gradients.values(), strict=True):
        is_moved = gradient.abs().sum(dim=1) > 0
        assert int(is_moved.sum()) == recording.num_units
        assert is_moved[encoder.unit_rows(sorted(shared))].all()
    for recording in recordings:
        table = population.scale.table_for(recording.recording_id)
        assert set(table.index) == set(recording.unit_ids.tolist())
