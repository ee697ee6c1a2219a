"""Questions without an answer, which were refused in the wrong words or scored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import poyo_ssl as ps
from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.evaluation.evaluate import evaluate, evaluate_recording
from poyo_ssl.recordings.formats.arrays import recording_from_arrays
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.tasks import MOVIE
from tiny_fits import few_steps, fit_arm, setting_of
from tiny_runs import tiny_run_config

UNITS = [f"cell-{unit}" for unit in range(4)]


def day(*shown: float | str | None, name: str = "day1") -> Recording:
    """Forty trials of two seconds that show these orientations in turn."""
    start = 3.0 * np.arange(40)
    values = pd.Series(list(shown))
    table = pd.DataFrame(
        {"start": start, "end": start + 2, "orientation": np.resize(values.to_numpy(), 40)}
    )
    return recording_from_arrays(
        np.random.default_rng(0).normal(size=(1300, 4)),
        recording_id=name, sampling_rate=10.0, unit_ids=UNITS,
        stimuli={"drifting_gratings": table},
    )  # fmt: skip


def fit(*days: Recording, arm: str = "ridge") -> FittedDecoder:
    divided = divide(days, "direction")
    population = Population(divided, {d.recording.recording_id: UNITS for d in divided})
    return fit_arm(arm, setting_of(population, divided.task("direction")))


@pytest.mark.parametrize("arm", ["ridge", "logistic", "scratch"])
def test_one_direction_only_is_nothing_to_tell_apart(arm):
    with pytest.raises(RecordingError, match=r"All answers .* are 45\.0, .*nothing to tell apart"):
        fit(day(45.0, np.nan), arm=arm)


def test_a_run_on_one_direction_only_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="nothing to tell apart"):
        ps.run([day(45.0)], tmp_path / "out", tiny_run_config())
    assert not list((tmp_path / "out").rglob("*.*"))


@pytest.mark.parametrize("arm", ["ridge", "scratch"])
def test_answers_that_are_all_empty_are_called_so(arm):
    with pytest.raises(RecordingError, match=r"All 40 answers .* are empty"):
        fit(day(np.nan), arm=arm)


def test_unknown_classes_on_the_evaluated_day_are_named():
    decoder = fit(day(0.0, 90.0, 180.0))
    with pytest.raises(RecordingError, match=r"shows 45\.0, 135\.0 as orientation .*never learned"):
        evaluate(decoder, [day(45.0, 135.0, name="day2")])


def test_unknown_classes_among_known_ones_are_named_and_not_scored(caplog):
    decoder = fit(day(0.0, 90.0, 180.0))
    [evaluation] = evaluate(decoder, [day(0.0, 45.0, 90.0, np.nan, name="day2")]).evaluations
    assert len(evaluation.target) == 20
    assert "shows 45.0 as orientation of drifting_gratings" in caplog.text
    assert "knows 0.0, 90.0, 180.0" in caplog.text


def test_known_classes_are_not_warned_of(caplog):
    decoder = fit(day(0.0, 90.0, 180.0))
    evaluate(decoder, [day(0.0, 90.0000004, 360.0, np.nan, name="day2")])
    assert "never learned" not in caplog.text


@pytest.mark.parametrize("shown", [(0.0, 1.5708), (0.0, 0.785, 1.571, 2.356)])
def test_radians_in_one_session_and_degrees_in_another_are_refused(shown):
    with pytest.raises(ValueError, match="radians"):
        fit(day(0.0, 45.0, 90.0, 135.0), day(*shown, name="day2"))


def test_sessions_of_different_angles_in_degrees_are_no_mixture():
    days = day(0.0, 45.0, 90.0), day(0.0, 2.5, 5.0, name="day2"), day(0.0, 1.0, name="day3")
    assert len(divide(days, "direction").classes(divide(days, "direction").task("direction"))) == 6


def test_a_movie_decoder_scored_without_pictures_says_what_to_give(tiny_divided, tiny_population):
    decoder = fit_arm("nearest frame", setting_of(tiny_population, MOVIE))
    blind = replace(tiny_divided.recording, templates={})
    with pytest.raises(RecordingError, match="None of 1 recordings holds the pictures"):
        evaluate(decoder, [blind])
    with pytest.raises(ValueError, match="give pictures"):
        evaluate_recording(decoder, blind)


def test_no_encoder_is_a_fresh_one(tiny_population):
    few = ps.PretrainingConfig(training=few_steps(max_steps=1).training)
    fresh = ps.pretrain(tiny_population, few, encoder=None)
    assert fresh.config == ps.EncoderConfig()
    assert ps.finetune(tiny_population, "direction", None, few_steps(1)).question.arm == "scratch"


@pytest.mark.parametrize("encoder", [None, "runs/encoder", 3])
def test_what_is_no_encoder_is_called_so(tiny_population, tiny_recording, encoder):
    with pytest.raises(TypeError, match="encoder must be"):
        ps.identify_units(encoder, tiny_population, ps.PretrainingConfig())
    if encoder is not None:
        for fit_from in (ps.finetune, lambda p, _, e: ps.pretrain(p, encoder=e)):
            with pytest.raises(TypeError, match="encoder must be"):
                fit_from(tiny_population, "direction", encoder)
    if not isinstance(encoder, str):
        with pytest.raises(TypeError, match="encoder must be"):
            ps.adapt(encoder, [tiny_recording], "direction")
