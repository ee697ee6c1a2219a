"""A simulated observatory and a run of everything on it, both as small as they can be."""

from __future__ import annotations

from dataclasses import replace

from poyo_ssl.comparison.config import RunConfig
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.pretraining.objectives.masked_activity import MaskedActivityConfig
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.simulation.simulator import SimulatorConfig, simulate_observatory
from poyo_ssl.windows.splits import SplitConfig
from tiny_fits import ENCODER, few_steps

SIMULATOR = SimulatorConfig(
    lines=("Sst", "Cux2"),
    recordings_per_line=1,
    units_per_recording=8,
    sampling_rate=10.0,
    grating_trials_per_condition=1,
    blank_sweeps=2,
    grating_blocks=2,
    movie_frames=240,
    movie_repeats=3,
    movie_height=16,
    movie_width=32,
    include_static_gratings=False,
    spontaneous_duration=20.0,
    gap_duration=5.0,
)

SPLITS = SplitConfig(valid_fraction=0.1, test_fraction=0.2, held_out_blocks=1, guard=0.5)


def tiny_observatory() -> list[Recording]:
    """One recording of predictable cells and one of both kinds: eight cells, three minutes."""
    return simulate_observatory(SIMULATOR)


def tiny_run_config(**options) -> RunConfig:
    training = few_steps(max_steps=3)
    config = RunConfig(
        tasks=("direction",),
        units=("all",),
        num_seeds=2,
        jobs=1,
        splits=SPLITS,
        predictability=PredictabilityConfig(min_timesteps=100),
        encoder=ENCODER,
        pretraining=PretrainingConfig(
            training=training.training, masked_activity=MaskedActivityConfig(num_queries=8)
        ),
        labels=training,
        movie=training,
    )
    return replace(config, **options)
