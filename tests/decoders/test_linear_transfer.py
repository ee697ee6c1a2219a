"""Ridge that learns from unlabelled activity and from how cells were tuned on another day."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from poyo_ssl.decoders.linear import FEW_LABELS_ALPHA
from poyo_ssl.decoders.linear_transfer import (
    OrientationTuning,
    fit_orientation_tuning,
    fit_semi_supervised_ridge,
    harmonics,
    without_shared_mode,
)
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.principal_modes import PrincipalModes
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import DIRECTION, ORIENTATION

UNITS = [f"u{i}" for i in range(12)]
ANGLES = np.arange(0.0, 360.0, 45.0)
PREFERRED = np.linspace(0.0, 180.0, len(UNITS), endpoint=False)


def tuned_activity(rng, angles: np.ndarray, gain: float = 3.0) -> np.ndarray:
    """Cells tuned to orientation that share one large fluctuation, (num_windows, num_units)."""
    tuning = np.cos(2 * np.deg2rad(angles[:, None] - PREFERRED))
    shared = gain * rng.normal(size=(len(angles), 1))
    return tuning + shared + 0.1 * rng.normal(size=tuning.shape)


def one_of_each(rng) -> tuple[np.ndarray, np.ndarray]:
    return tuned_activity(rng, ANGLES), np.arange(len(ANGLES))


@pytest.fixture
def modes(rng) -> PrincipalModes:
    return PrincipalModes.measure(tuned_activity(rng, rng.uniform(0, 360, 2000)))


# what unlabelled activity tells -----------------------------------------------------------------


def test_the_first_mode_is_what_all_cells_share(modes):
    assert np.allclose(np.abs(modes.loadings[:, 0]), len(UNITS) ** -0.5, atol=0.02)


def test_activity_without_the_mode_is_centred_and_orthogonal_to_it(rng, modes):
    left = without_shared_mode(tuned_activity(rng, rng.uniform(0, 360, 500)), modes)
    assert np.allclose(left @ modes.loadings[:, 0], 0, atol=1e-9)
    assert np.allclose(without_shared_mode(modes.mean[None], modes), 0)


def test_one_unit_alone_is_its_own_mode(rng):
    alone = PrincipalModes.measure(rng.normal(size=(20, 1)))
    assert np.allclose(without_shared_mode(rng.normal(size=(5, 1)), alone), 0)


# ridge ------------------------------------------------------------------------------------------


def test_the_readout_does_not_see_the_shared_fluctuation(rng, modes):
    features, target = one_of_each(rng)
    readout = fit_semi_supervised_ridge(features, target, 8, UNITS, modes)
    louder = features + 5.0 * modes.loadings[:, 0]
    assert np.allclose(readout.scores(louder, UNITS), readout.scores(features, UNITS), atol=1e-4)


def test_without_a_prior_it_is_ridge_on_what_is_left_of_the_activity(rng, modes):
    features, target = one_of_each(rng)
    readout = fit_semi_supervised_ridge(features, target, 8, UNITS, modes)
    left = without_shared_mode(features, modes)
    model = Ridge(alpha=FEW_LABELS_ALPHA, fit_intercept=False).fit(left, np.eye(8) - 1 / 8)
    assert np.allclose(readout.scores(features, UNITS), model.predict(left) + 1 / 8, atol=1e-5)


def test_its_scale_of_the_prior_does_not_matter(rng, modes):
    features, target = one_of_each(rng)
    prior = rng.normal(size=(len(UNITS), 8))
    once, tenfold = (
        fit_semi_supervised_ridge(features, target, 8, UNITS, modes, scale * prior)
        for scale in (1.0, 10.0)
    )
    assert np.allclose(once.weights, tenfold.weights, atol=1e-5)


def test_a_prior_of_zero_is_no_prior(rng, modes):
    features, target = one_of_each(rng)
    none = fit_semi_supervised_ridge(features, target, 8, UNITS, modes)
    zero = fit_semi_supervised_ridge(features, target, 8, UNITS, modes, np.zeros((len(UNITS), 8)))
    assert np.allclose(none.weights, zero.weights)


def test_few_labels_decode_better_when_the_fluctuation_is_known(rng, modes):
    features, target = one_of_each(rng)
    knowing = fit_semi_supervised_ridge(features, target % 4, 4, UNITS, modes)
    model = Ridge(alpha=FEW_LABELS_ALPHA).fit(features, np.eye(4)[target % 4])
    test = np.resize(ANGLES, 400)
    activity, right = tuned_activity(rng, test), np.resize(np.arange(8), 400) % 4
    seen = (knowing.scores(activity, UNITS).argmax(1) == right).mean()
    assert seen > (model.predict(activity).argmax(1) == right).mean() + 0.05


# another day ------------------------------------------------------------------------------------


def test_harmonics_of_an_angle_are_cosines_and_sines_of_twice_and_four_times_it():
    assert np.allclose(harmonics(np.array([45.0])), [[0, 1, -1, 0]], atol=1e-12)
    assert np.allclose(harmonics(np.array([10.0])), harmonics(np.array([190.0])))


def test_opposite_directions_get_equal_weights_from_orientation_tuning(rng):
    tuning = OrientationTuning(unit_ids=UNITS, weights=rng.normal(size=(12, 4)))
    weights = tuning.to_classes(ANGLES, UNITS)
    assert np.allclose(weights[:, :4], weights[:, 4:])


def test_the_right_orientation_scores_best_for_perfect_harmonics():
    tuning = OrientationTuning(unit_ids=UNITS[:4], weights=np.eye(4))
    scores = harmonics(ANGLES) @ tuning.to_classes(ANGLES, UNITS[:4])
    assert np.array_equal(scores[:, :4].argmax(1), np.arange(8) % 4)


def test_cells_that_the_other_day_did_not_show_get_no_weight(rng):
    tuning = OrientationTuning(unit_ids=UNITS[:3], weights=rng.normal(size=(3, 4)))
    weights = tuning.to_classes(ANGLES, [*UNITS[2:6], UNITS[0]])
    assert np.all(weights[1:4] == 0)
    assert np.allclose(weights[[4, 0]], tuning.to_classes(ANGLES, [UNITS[0], UNITS[2]]))


def test_shuffling_keeps_the_weights_and_moves_them_to_other_cells(rng):
    tuning = OrientationTuning(unit_ids=UNITS, weights=rng.normal(size=(12, 4)))
    shuffled = tuning.shuffled(seed=0)
    assert sorted(shuffled.weights[:, 0]) == sorted(tuning.weights[:, 0])
    assert not np.allclose(shuffled.weights, tuning.weights)
    assert np.array_equal(shuffled.weights, tuning.shuffled(seed=0).weights)


def gratings_session(rng, recording_id: str, stimulus: str, frequencies: np.ndarray) -> Recording:
    """Trials of 2 s; only gratings of 0.04 cycles per degree drive the cells."""
    angles = rng.permutation(np.resize(np.arange(0.0, 180.0, 30.0), 120))
    starts = 1.0 + 3.0 * np.arange(120)
    timestamps = np.arange(3620) / 10
    df_over_f = 0.1 * rng.normal(size=(len(timestamps), len(UNITS)))
    frequency = np.resize(frequencies, 120)
    for start, angle, f in zip(starts, angles, frequency, strict=True):
        is_on = (timestamps >= start) & (timestamps < start + 2)
        drive = np.cos(2 * np.deg2rad(angle - PREFERRED)) if f == 0.04 else rng.normal(size=12)
        df_over_f[is_on] += drive
    table = {"start": starts, "end": starts + 2, "orientation": angles}
    return Recording(
        recording_id=recording_id,
        df_over_f=df_over_f.astype(np.float32),
        timestamps=timestamps,
        units=pd.DataFrame({"unit_id": UNITS}),
        stimuli={stimulus: pd.DataFrame({**table, "spatial_frequency": frequency})},
    )


def divided_pair(rng):
    early = gratings_session(rng, "early", "static_gratings", np.array([0.04, 0.32]))
    late = gratings_session(rng, "late", "drifting_gratings", np.array([0.04]))
    earlier = divide([early], [ORIENTATION], SplitConfig())
    later = Population(divide([late], [DIRECTION], SplitConfig()), {"late": UNITS[:9]})
    return earlier, later


def test_tuning_is_learned_from_gratings_like_those_of_the_later_day(rng):
    earlier, later = divided_pair(rng)
    tuning = fit_orientation_tuning(earlier, DIRECTION, later)
    assert tuning.unit_ids == UNITS[:9]
    estimated = np.arctan2(tuning.weights[:, 1], tuning.weights[:, 0]) / 2
    gap = np.abs(np.exp(2j * estimated) - np.exp(2j * np.deg2rad(PREFERRED[:9])))
    assert gap.mean() < 0.5


def test_only_training_trials_of_the_earlier_day_are_learned_from(rng):
    earlier, later = divided_pair(rng)
    before = fit_orientation_tuning(earlier, DIRECTION, later)
    recording = earlier[0].recording
    withheld = ~recording.is_inside(earlier[0].training)
    changed = recording.df_over_f.copy()
    changed[withheld] = 99.0
    spoiled = replace(earlier[0], recording=replace(recording, df_over_f=changed))
    after = fit_orientation_tuning([spoiled], DIRECTION, later)
    assert np.array_equal(before.weights, after.weights)


def test_an_earlier_day_of_other_cells_is_refused(rng):
    earlier, later = divided_pair(rng)
    units = earlier[0].recording.units.assign(unit_id=[f"other-{i}" for i in range(12)])
    stranger = replace(earlier[0], recording=replace(earlier[0].recording, units=units))
    with pytest.raises(RecordingError, match=r"'early'.*9 cells"):
        fit_orientation_tuning([stranger], DIRECTION, later)
