"""One tiny session and one tiny encoder that many tests share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings

from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.divide import DividedRecording, divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import DIRECTION, MOVIE, MOVIE_HELD_OUT

gc.disable()  # until all is imported
torch.set_num_threads(1)
settings.register_profile("any speed", deadline=None)  # no test depends on a machine's speed
settings.load_profile("any speed")

RATE = 10.0
"""Imaging rate of the tiny session in Hz: every onset falls on a sample, as never in real data,
so a border that counts one sample twice is found."""


def pytest_collection_finish() -> None:
    """What was imported stays: looks for garbage leave it out, and take a tenth of the time."""
    gc.freeze()
    gc.enable()


def _movie() -> pd.DataFrame:
    """Six showings of ten seconds, back to back from 0 s: 100 movie frames at 10 Hz."""
    starts = np.arange(600) / 10
    return pd.DataFrame(
        {
            "start": starts,
            "end": starts + 0.1,
            "movie_frame": np.arange(600) % 100,
            "repeat": np.arange(600) // 100,
        }
    )


def _gratings(rng: np.random.Generator) -> pd.DataFrame:
    """Two blocks of 30 trials, two seconds on and one off; every tenth is a blank sweep."""
    starts = np.concatenate([65 + 3.0 * np.arange(30), 215 + 3.0 * np.arange(30)])
    orientation = rng.permutation(np.resize([0.0, 90.0, 180.0, 270.0], 60))
    orientation[::10] = np.nan
    return pd.DataFrame(
        {
            "start": starts,
            "end": starts + 2.0,
            "orientation": orientation,
            "temporal_frequency": np.where(np.isnan(orientation), np.nan, 2.0),
            "spatial_frequency": np.where(np.isnan(orientation), np.nan, 0.04),
        }
    )


@pytest.fixture(scope="module")
def units_undescribed() -> Iterator[None]:
    """Runs leave out what a report shows of single units, which takes longer than a tiny fit.

    For tests of what runs fit and score; others look at units.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("poyo_ssl.comparison.run.write_neurons", lambda *_: None)
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny_recording() -> Recording:
    """Six units at 10 Hz: a movie and gratings (0 to 155 s), a gap, gratings (215 to 305 s).

    Each of the first four units prefers one direction; all share a slow fluctuation.
    """
    rng = np.random.default_rng(1)
    timestamps = np.concatenate([np.arange(1550), 2150 + np.arange(900)]) / RATE
    gratings = _gratings(rng)
    shared = np.convolve(rng.normal(size=len(timestamps) + 19), np.ones(20) / 20**0.5, "valid")
    df_over_f = shared[:, None] + rng.normal(size=(len(timestamps), 6))
    for row in gratings.dropna().itertuples():
        is_on = (timestamps >= row.start) & (timestamps < row.end)
        df_over_f[is_on, int(row.orientation // 90)] += 3.0
    height, width = np.mgrid[:32, :64]
    return Recording(
        recording_id="tiny",
        df_over_f=df_over_f.astype(np.float32),
        timestamps=timestamps,
        units=pd.DataFrame({"unit_id": [f"tiny-{i}" for i in range(6)]}),
        stimuli={"natural_movie_one": _movie(), "drifting_gratings": gratings},
        templates={
            "natural_movie_one": np.stack(
                [128 + 120 * np.sin((width + 2 * k) / 6 + height / 9) for k in range(100)]
            ).astype(np.uint8)
        },
    )


@pytest.fixture(scope="session")
def split_config() -> SplitConfig:
    """Fractions and a guard that suit a movie of ten seconds."""
    return SplitConfig(valid_fraction=0.2, test_fraction=0.2, held_out_blocks=1, guard=0.5)


@pytest.fixture(scope="session")
def tiny_divided(tiny_recording: Recording, split_config: SplitConfig) -> DividedRecording:
    return divide([tiny_recording], [DIRECTION, MOVIE, MOVIE_HELD_OUT], split_config)[0]


@pytest.fixture(scope="session")
def tiny_population(tiny_divided: DividedRecording) -> Population:
    """All six units of the tiny session."""
    return Population([tiny_divided], {"tiny": list(tiny_divided.recording.unit_ids)})


@pytest.fixture(scope="session")
def tiny_config() -> EncoderConfig:
    """Patches of five samples; four latent steps of two latents in a window of two seconds."""
    return EncoderConfig(
        dim=16,
        depth=1,
        num_heads=2,
        dim_head=8,
        latents_per_step=2,
        latent_step=0.5,
        patch_length=0.5,
        dropout=0.0,
    )


@pytest.fixture
def tiny_encoder(tiny_config: EncoderConfig) -> Encoder:
    """A fresh encoder of the six units of the tiny session."""
    torch.manual_seed(0)
    encoder = Encoder(tiny_config, RATE)
    encoder.add_units([f"tiny-{i}" for i in range(6)])
    return encoder
