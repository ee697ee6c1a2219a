"""Indices of selectivity are those of the papers that define them."""

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.neurons.selectivity import selectivity

DIRECTIONS = np.arange(0, 360, 45.0)


def curves(*units, labels=DIRECTIONS) -> pd.DataFrame:
    return pd.DataFrame(np.stack(units, axis=1), index=labels)


def test_indices_of_a_unit_known_by_hand():
    responses = np.zeros(8)
    responses[[1, 3, 5, 7]] = 4.0, 1.0, 2.0, 0.0  # 45, 135, 225 and 315 degrees
    table = selectivity(curves(responses), 360)
    assert table["preferred"].item() == 45
    assert table["osi"].item() == pytest.approx((4 - 0.5) / (4 + 0.5))
    assert table["dsi"].item() == pytest.approx((4 - 2) / (4 + 2))
    # doubled angles: 90, 270, 90 and 270 degrees
    assert table["global_osi"].item() == pytest.approx(abs(4 + 2 - 1) / 7)
    assert table["global_dsi"].item() == pytest.approx(np.hypot(4 - 2, 1) / 7)
    evenness = (7 / 8) ** 2 / ((16 + 1 + 4) / 8)
    assert table["sparseness"].item() == pytest.approx((1 - evenness) / (1 - 1 / 8))


def test_a_unit_without_preference_is_not_selective_and_one_of_one_label_is_wholly():
    table = selectivity(curves(np.ones(8), np.eye(8)[2]), 360)
    assert np.allclose(table.drop(columns="preferred").iloc[0], 0, atol=1e-12)
    assert np.allclose(table.drop(columns="preferred").iloc[1], 1)


def test_indices_do_not_depend_on_scale_or_on_which_angle_is_zero(rng):
    responses = rng.exponential(size=8)
    table = selectivity(curves(responses, 3 * responses, np.roll(responses, 3)), 360)
    indices = table.drop(columns="preferred")
    np.testing.assert_allclose(indices.iloc[0], indices.iloc[1])
    np.testing.assert_allclose(indices.iloc[0], indices.iloc[2])


def test_orientations_have_no_direction_and_other_labels_no_angle(rng):
    responses = rng.exponential(size=4)
    orientations = selectivity(curves(responses, labels=[0.0, 45, 90, 135]), 180)
    assert {"osi", "global_osi"} <= set(orientations)
    assert not {"dsi", "global_dsi"} & set(orientations)
    frequencies = selectivity(curves(responses, labels=[1.0, 2, 4, 8]))
    assert list(frequencies) == ["preferred", "sparseness"]


def test_an_angle_that_was_not_shown_and_a_silent_unit_are_told_by_nan():
    table = selectivity(curves(np.ones(3), np.full(3, -0.1), labels=[0.0, 90, 200]), 360)
    assert table["preferred"].iloc[0] == 0
    assert np.isnan(table["preferred"].iloc[1])
    assert np.isnan(table["osi"]).all()
    assert np.isnan(table["global_osi"].iloc[1])


def test_indices_stay_between_0_and_1_whatever_the_baseline(rng):
    responses = rng.normal(size=(8, 200)) + np.linspace(-3, 3, 200)
    table = selectivity(pd.DataFrame(responses, index=DIRECTIONS), 360)
    indices = table.drop(columns="preferred").to_numpy(float)
    assert np.nanmin(indices) >= -1e-12
    assert np.nanmax(indices) <= 1 + 1e-12
    centred, raised = selectivity(curves(*np.array([[5, 1, -1, 1] * 2, [9, 5, 3, 5] * 2])), 360).osi
    assert centred == 1
    assert raised == pytest.approx((9 - 3) / (9 + 3))
