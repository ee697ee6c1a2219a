"""What ``poyo-ssl demo`` does: the whole method on a small simulated observatory, in minutes."""

from __future__ import annotations

from poyo_ssl.comparison.config import RunConfig
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.simulation.simulator import SimulatorConfig, simulate_observatory
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.windows.splits import SplitConfig


def simulate_demo(seed: int) -> list[Recording]:
    """One recording of each of four lines: two densely, two sparsely active."""
    return simulate_observatory(SimulatorConfig.demo(seed=seed))


def demo_config() -> RunConfig:
    """Few seeds, members and steps, so that everything is over in minutes."""
    return RunConfig(
        title="poyo-ssl demo: a simulated brain observatory",
        tasks=("direction", "movie_held_out"),
        units=("all",),
        arms=("scratch", "scratch + teacher", "pretrained"),
        num_seeds=2,
        splits=SplitConfig(held_out_blocks=6),
        pretraining=PretrainingConfig(
            training=TrainingConfig(max_steps=100, unit_dropout=0.3, jitter=0.0)
        ),
        labels=FinetuningConfig(members=2, training=TrainingConfig(max_steps=200)),
        movie=FinetuningConfig(members=1, training=TrainingConfig(max_steps=80, jitter=0.0)),
    )
