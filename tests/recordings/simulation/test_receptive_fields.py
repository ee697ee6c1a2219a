"""Simulated cells prefer what their receptive fields say they prefer."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from poyo_ssl.recordings.simulation.receptive_fields import ReceptiveFields, compute_visual_drive
from poyo_ssl.recordings.simulation.visual_stimuli import (
    DRIFTING_DIRECTIONS,
    REFRESH_RATE,
    Screen,
    render_grating,
)

HEIGHT, WIDTH = 32, 64


def make_receptive_fields(num_units, **changes):
    values = {
        "rightwards": 0.0,
        "upwards": 0.0,
        "size": 10.0,
        "direction": 0.0,
        "spatial_frequency": 0.04,
        "temporal_frequency": 2.0,
        "direction_selectivity": 1.0,
        "linearity": 0.0,
        "phase": 0.0,
        **changes,
    }
    return ReceptiveFields(
        **{name: np.broadcast_to(np.asarray(v, float), num_units) for name, v in values.items()}
    )


def drive_by_grating(fields, temporal_frequency=2.0):
    """Mean drive of every cell (columns) in each of the 8 directions (rows)."""
    screen = Screen.with_movie(np.zeros((1, HEIGHT, WIDTH), dtype=np.uint8))
    starts = 1.0 + 3.0 * np.arange(8)
    table = pd.DataFrame(
        {
            "start": starts,
            "end": starts + 2.0,
            "orientation": DRIFTING_DIRECTIONS,
            "temporal_frequency": temporal_frequency,
            "spatial_frequency": 0.04,
        }
    )
    mixture = screen.mixture({"drifting_gratings": table}, int(26 * REFRESH_RATE))
    drive = compute_visual_drive(fields, screen.pictures, mixture)
    first = (starts * REFRESH_RATE).astype(int)
    return np.stack([drive[a + 30 : a + 120].mean(axis=0) for a in first]), drive, first


@pytest.mark.parametrize("linearity", [0.0, 0.5, 1.0])
def test_the_preferred_direction_is_that_of_the_receptive_field(linearity):
    fields = make_receptive_fields(8, direction=DRIFTING_DIRECTIONS, linearity=linearity)
    response, _, _ = drive_by_grating(fields)
    np.testing.assert_array_equal(response.argmax(axis=0), np.arange(8))


def test_direction_selectivity_weakens_the_opposite_direction_only():
    fields = make_receptive_fields(2, direction_selectivity=[0.0, 1.0])
    response, _, _ = drive_by_grating(fields)
    preferred, opposite, across = response[0], response[4], response[2]
    assert opposite[0] == pytest.approx(preferred[0], rel=0.02)
    assert opposite[1] < 0.7 * preferred[1]
    assert np.all(across < 0.2)


def test_the_best_grating_drives_a_complex_cell_to_one_and_grey_does_not_at_all():
    response, drive, first = drive_by_grating(make_receptive_fields(1))
    assert response.max() == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(drive[: first[0]], 0, atol=1e-5)  # before the first grating


def test_cells_answer_after_the_latency_and_never_before():
    _, drive, first = drive_by_grating(make_receptive_fields(1))
    latency = int(0.04 * REFRESH_RATE)
    np.testing.assert_allclose(drive[first[0] : first[0] + latency], 0, atol=1e-5)
    assert drive[first[0] + 30].item() > 0.8


def test_a_simple_cell_follows_the_phase_and_a_complex_cell_does_not():
    _, drive, first = drive_by_grating(make_receptive_fields(2, linearity=[0.0, 1.0]))
    cycles = drive[first[0] + 30 : first[0] + 120]
    complex_swing, simple_swing = np.ptp(cycles, axis=0)
    assert complex_swing < 0.1
    assert simple_swing > 0.9


def test_slow_and_fast_cells_prefer_slow_and_fast_gratings():
    fields = make_receptive_fields(2, temporal_frequency=[1.0, 8.0])
    slow, fast = (drive_by_grating(fields, rate)[0].max(axis=0) for rate in (1.0, 8.0))
    assert slow[0] > fast[0]
    assert fast[1] > slow[1]


def test_uniform_light_drives_no_cell():
    fields = make_receptive_fields(5, spatial_frequency=[0.02, 0.03, 0.04, 0.06, 0.1], size=5.0)
    light = np.ones((1, HEIGHT, WIDTH), dtype=np.float32)
    mixture = sparse.csr_array(np.ones((60, 1), dtype=np.float32))
    np.testing.assert_allclose(compute_visual_drive(fields, light, mixture), 0, atol=1e-3)


def test_only_light_inside_the_receptive_field_counts():
    fields = make_receptive_fields(2, rightwards=[-40.0, 40.0], size=6.0)
    picture = render_grating(0.0, 0.04, 0.0, HEIGHT, WIDTH)
    picture[:, WIDTH // 2 :] = 0  # the right half is grey
    mixture = sparse.csr_array(np.ones((60, 1), dtype=np.float32))
    left, right = compute_visual_drive(fields, picture[None], mixture)[-1]
    assert left > 0.5
    assert right < 0.01


def test_selecting_cells_does_not_change_their_drive():
    generator = np.random.default_rng(0)
    fields = make_receptive_fields(4, direction=[10, 100, 200, 300], phase=[0, 1, 2, 3])
    pictures = generator.uniform(-1, 1, (3, HEIGHT, WIDTH)).astype(np.float32)
    mixture = sparse.csr_array(np.eye(3, dtype=np.float32)[generator.integers(0, 3, 90)])
    together = compute_visual_drive(fields, pictures, mixture)
    alone = compute_visual_drive(fields.select(slice(1, 3)), pictures, mixture)
    np.testing.assert_allclose(alone, together[:, 1:3], atol=1e-5)
