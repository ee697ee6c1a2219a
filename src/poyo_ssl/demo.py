"""What ``poyo-ssl demo`` does: the whole method on a small simulated observatory, in minutes."""

from __future__ import annotations

from poyo_ssl.experiment import RunConfig
from poyo_ssl.finetuning import FinetuningConfig
from poyo_ssl.pretraining import PretrainingConfig
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.simulator import SimulatorConfig, simulate_observatory
from poyo_ssl.training import TrainingConfig


def simulate_demo(seed: int) -> list[Recording]:
    """One recording of each of four lines: two densely, two sparsely active."""
    config = SimulatorConfig(
        lines=("Sst", "Ntsr1", "Cux2", "Rorb"),
        recordings_per_line=1,
        units_per_recording=70,
        grating_trials_per_condition=4,
        blank_sweeps=8,
        movie_frames=900,
        movie_repeats=5,
        include_static_gratings=False,
        spontaneous_duration=30.0,
        gap_duration=10.0,
        seed=seed,
    )
    return simulate_observatory(config)


def demo_config() -> RunConfig:
    """Few seeds and steps, so that everything is over in minutes."""
    return RunConfig(
        title="poyo-ssl demo: a simulated brain observatory",
        tasks=("direction", "movie_held_out"),
        units=("all",),
        num_seeds=2,
        pretraining=PretrainingConfig(
            training=TrainingConfig(max_steps=200, unit_dropout=0.3, jitter=0.0, patience=None)
        ),
        labels=FinetuningConfig(training=TrainingConfig(max_steps=400)),
        movie=FinetuningConfig(training=TrainingConfig(max_steps=300, jitter=0.0)),
    )
