"""A fitted decoder survives the disk bit for bit and knows its units by identity."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from poyo_ssl.decoders.loading import load_decoder
from poyo_ssl.decoders.network import NetworkDecoder, teacher_scores
from poyo_ssl.model.checkpoints import CheckpointError, save_encoder
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.activity import Activity
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.population import Population
from tiny_fits import KINDS, TASKS, fit_arm, setting_of, with_units_in_order

FIRST = np.array([700, 730, 1000, 2000, 2210])
"""Windows of the tiny session to predict."""


@pytest.fixture(scope="module")
def fitted(tiny_recording, split_config):
    """Every kind of decoder, fitted on five of the six units when it is first asked for."""
    divided = divide([tiny_recording], list(TASKS.values()), split_config)
    population = Population(divided, {"tiny": [f"tiny-{i}" for i in (0, 1, 2, 3, 5)]})
    decoders = {}

    def decoder(task: str, arm: str):
        if (task, arm) not in decoders:
            decoders[task, arm] = fit_arm(arm, setting_of(population, TASKS[task]))
        return decoders[task, arm]

    return decoder


@pytest.mark.parametrize(("task", "arm"), KINDS)
def test_a_saved_decoder_predicts_the_same_bit_for_bit(fitted, tiny_recording, tmp_path, task, arm):
    decoder = fitted(task, arm)
    expected = decoder.predict(tiny_recording, FIRST)
    decoder.save(tmp_path)
    loaded = load_decoder(tmp_path)
    assert type(loaded) is type(decoder)
    assert loaded.question.arm == arm
    assert loaded.question.task == decoder.question.task
    assert np.array_equal(loaded.question.classes, decoder.question.classes)
    assert loaded.question.num_timesteps == decoder.question.num_timesteps
    found = loaded.predict(tiny_recording, FIRST)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(("task", "arm"), KINDS)
def test_answers_have_the_shape_that_their_task_asks_for(fitted, tiny_recording, task, arm):
    answers = fitted(task, arm).predict(tiny_recording, FIRST)
    none = fitted(task, arm).predict(tiny_recording, FIRST[:0])
    assert none.shape == (0, *answers.shape[1:])
    assert none.dtype == answers.dtype
    if TASKS[task].kind == "labels":
        assert answers.shape == (len(FIRST), 4)
    elif TASKS[task].kind == "frames":
        assert answers.shape == (len(FIRST),)
        assert answers.dtype.kind == "i"
    else:
        assert answers.shape == (len(FIRST), 64, 128)
        assert answers.min() >= 0
        assert answers.max() <= 1


@pytest.mark.parametrize(("task", "arm"), KINDS)
def test_the_order_of_units_in_the_recording_does_not_matter(fitted, tiny_recording, task, arm):
    decoder = fitted(task, arm)
    shuffled = with_units_in_order(tiny_recording, np.array([5, 2, 0, 4, 3, 1]))
    expected = decoder.predict(tiny_recording, FIRST)
    assert np.allclose(decoder.predict(shuffled, FIRST), expected, atol=2e-5)


@pytest.mark.parametrize(("task", "arm"), KINDS)
def test_units_that_the_decoder_does_not_know_change_nothing(fitted, tiny_recording, task, arm):
    decoder = fitted(task, arm)
    # tiny-4 was not among the units it was fitted on
    known = with_units_in_order(tiny_recording, np.array([0, 1, 2, 3, 5]))
    noisy = tiny_recording.df_over_f.copy()
    noisy[:, 4] = 1e3
    strangers = replace(tiny_recording, df_over_f=noisy)
    assert np.array_equal(decoder.predict(strangers, FIRST), decoder.predict(known, FIRST))


@pytest.mark.parametrize(("task", "arm"), KINDS)
def test_a_recording_that_lacks_units_is_answered_from_the_others(
    fitted, tiny_recording, task, arm
):
    decoder = fitted(task, arm)
    some = with_units_in_order(tiny_recording, np.array([3, 0]))
    assert decoder.question.known_units(some) == ["tiny-3", "tiny-0"]
    answers = decoder.predict(some, FIRST)
    assert answers.shape == decoder.predict(tiny_recording, FIRST).shape
    assert np.all(np.isfinite(answers))


def test_activity_is_normalised_by_the_training_part_of_the_fitted_recording(
    fitted, tiny_recording
):
    decoder = fitted("direction", "ridge")
    answers = decoder.predict(tiny_recording, FIRST)
    louder = replace(tiny_recording, df_over_f=tiny_recording.df_over_f + 1.0)
    assert not np.allclose(decoder.predict(louder, FIRST), answers, atol=1e-2)


def test_a_linear_teacher_and_its_network_are_added_in_units_of_their_spread(
    fitted, tiny_recording
):
    together = fitted("direction", "scratch + teacher")
    assert isinstance(together, NetworkDecoder)
    alone = type(together)(together.question, together.networks)
    [taught_spread, network_spread] = together.spread
    unit_ids = together.question.known_units(tiny_recording)
    activity = Activity.of(tiny_recording, unit_ids, together.question.scale)
    taught = teacher_scores(together.teacher, activity, FIRST, together.question.num_timesteps)
    network = alone.predict(tiny_recording, FIRST)
    expected = taught / taught_spread + 0.5 * network / network_spread
    assert np.allclose(together.predict(tiny_recording, FIRST), expected, atol=1e-5)
    assert np.allclose(network.mean(axis=1), 0, atol=1e-5)


def test_windows_are_predicted_the_same_alone_and_together(fitted, tiny_recording):
    decoder = fitted("direction", "scratch")
    many = np.arange(300)  # more than one batch
    together = decoder.predict(tiny_recording, many)
    alone = np.concatenate([decoder.predict(tiny_recording, many[[i]]) for i in (0, 150, 299)])
    assert np.allclose(together[[0, 150, 299]], alone, atol=1e-5)


def test_a_recording_of_other_cells_is_refused(fitted, tiny_recording):
    strangers = replace(
        tiny_recording, units=pd.DataFrame({"unit_id": [f"stranger-{i}" for i in range(6)]})
    )
    with pytest.raises(
        RecordingError, match=r"'ridge' knows none of the 6 units.*tiny-0.*stranger-0.*same cells"
    ):
        fitted("direction", "ridge").predict(strangers, FIRST)


def test_a_recording_at_another_rate_is_refused(fitted, tiny_recording):
    faster = replace(tiny_recording, timestamps=tiny_recording.timestamps / 2)
    with pytest.raises(RecordingError, match=r"20\.00 Hz.*fitted at 10\.00 Hz.*Resample"):
        fitted("direction", "ridge").predict(faster, FIRST)


def test_a_rate_that_drifts_by_a_percent_is_not_refused(fitted, tiny_recording):
    drifting = replace(tiny_recording, timestamps=tiny_recording.timestamps * 1.01)
    assert len(fitted("direction", "ridge").predict(drifting, FIRST)) == len(FIRST)


def test_an_encoder_is_not_taken_for_a_decoder(tiny_encoder, tmp_path):
    save_encoder(tiny_encoder, tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no fitted decoder but 'encoder'.*finetune"):
        load_decoder(tmp_path)


def test_an_empty_folder_is_no_decoder(tmp_path):
    with pytest.raises(CheckpointError, match="found: nothing"):
        load_decoder(tmp_path)


def test_a_decoder_whose_weights_were_changed_is_refused(fitted, tmp_path):
    fitted("direction", "scratch").save(tmp_path)
    tensors = load_file(tmp_path / "weights.safetensors")
    tensors["network.0.readout.weight"] = torch.zeros(3, 3)
    save_file(tensors, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"readout\.weight"):
        load_decoder(tmp_path)


def test_a_decoder_without_its_settings_is_refused_by_name(fitted, tmp_path):
    fitted("direction", "ridge").save(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["scale_units"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=f"{tmp_path}.*scale_units.*fit the decoder again"):
        load_decoder(tmp_path)


def test_a_decoder_whose_units_do_not_match_their_scale_is_refused(fitted, tmp_path):
    fitted("direction", "ridge").save(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["scale_units"]["tiny"].pop()
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=f"{tmp_path}.*fit the decoder again"):
        load_decoder(tmp_path)
