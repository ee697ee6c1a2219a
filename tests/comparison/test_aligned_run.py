"""Runs whose networks learn from other animals through what all of them saw."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from poyo_ssl.alignment.placement import AlignmentConfig, Placement
from poyo_ssl.alignment.responses import SharedStimulus
from poyo_ssl.comparison.config import PretrainingArm, RunConfig
from poyo_ssl.comparison.plan import plan
from poyo_ssl.comparison.run import run
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.model.checkpoints import load_encoder
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.training.config import TrainingConfig
from synthetic_animals import TASK, animal, populate

QUICK = TrainingConfig(max_steps=3, batch_size=8, jitter=0.0)
CONFIG = RunConfig(
    tasks=(),
    own_tasks={"pictures": TASK},
    units=("all",),
    arms=("placed", "scratch + aligned teacher"),
    pretrainings={
        "placed": PretrainingArm(
            units="all",
            pretraining=PretrainingConfig(
                alignment=AlignmentConfig(num_dimensions=4), window_length=1.0, training=QUICK
            ),
            labels=FinetuningConfig(members=2, transfer="probe", training=QUICK),
        )
    },
    labels_per_class=(1,),
    label_fractions=(),
    num_seeds=1,
    jobs=1,
    predictability=PredictabilityConfig(min_timesteps=100),
    encoder=EncoderConfig(
        dim=16, depth=0, num_heads=2, dim_head=8, latents_per_step=2, latent_step=1.0,
        patch_length=0.5, tokens="projected",
    ),
    labels=FinetuningConfig(members=2, training=QUICK),
)  # fmt: skip


def test_networks_learn_from_other_animals(tmp_path):
    others = [animal(name) for name in "abc"]
    run([animal("z")], tmp_path / "run", CONFIG, pretraining_recordings=others)
    scores = pd.read_csv(tmp_path / "run" / "scores.csv").set_index("arm")["value"]
    assert {"placed", "scratch + aligned teacher", "aligned", "ridge, aligned"} <= {*scores.index}
    encoder = load_encoder(tmp_path / "run" / "pretrained" / "placed" / "seed-0")
    assert encoder.placement is not None
    assert encoder.placement.shared.stimulus == "sequence"  # flashes are asked about


def without(stimulus: str, recording: Recording) -> Recording:
    left = {name: table for name, table in recording.stimuli.items() if name != stimulus}
    return replace(recording, stimuli=left)


def test_animals_that_saw_nothing_in_common_are_refused_before_anything_is_fitted(tmp_path):
    others = [animal(name) for name in "abc"]
    stranger = without("sequence", animal("z"))
    with pytest.raises(RecordingError) as refused:
        plan([stranger], tmp_path, CONFIG, others)
    assert "Arm 'placed': No stimulus with a column movie_frame or segment" in str(refused.value)
    assert "fewer than two of 3 recordings to pretrain on" in str(refused.value)
    assert "scratch + aligned teacher" in str(refused.value)


def aligned_by(stimulus: str) -> RunConfig:
    """The arm ``placed``, its units placed by what is named."""
    arm = CONFIG.pretrainings["placed"]
    assert arm.pretraining is not None
    assert arm.pretraining.alignment is not None
    alignment = replace(arm.pretraining.alignment, stimulus=stimulus)
    placed = replace(arm, pretraining=replace(arm.pretraining, alignment=alignment))
    return replace(CONFIG, arms=("placed",), pretrainings={"placed": placed})


def test_aligning_on_what_is_tested_is_refused_before_anything_is_trained(tmp_path):
    others = [animal(name) for name in "abc"]
    with pytest.raises(RecordingError, match=r"Arm 'placed': .* aligning would use the answers"):
        plan([animal("z")], tmp_path, aligned_by("flashes/picture"), others)


def test_decoded_recordings_without_the_stimulus_that_is_named_are_refused(tmp_path):
    others = [animal(name) for name in "abc"]
    stranger = without("sequence", animal("z"))
    with pytest.raises(RecordingError, match="Arm 'placed': Recording 'z' has no sequence"):
        plan([stranger], tmp_path, aligned_by("sequence/segment"), others)


def test_a_given_encoder_that_places_units_by_what_is_tested_is_refused(tmp_path):
    others = populate([animal(name) for name in "abc"])
    encoder = Encoder(CONFIG.encoder, others.sampling_rate)
    shared = SharedStimulus(stimulus="flashes", column="picture")
    encoder.placement = Placement.fit(others, shared, num_dimensions=2)
    encoder.save_pretrained(tmp_path / "encoder")
    config = replace(CONFIG, arms=(), pretrainings={}).beginning_with(str(tmp_path / "encoder"))
    with pytest.raises(RecordingError, match=r"Arm 'pretrained': .* would use the answers"):
        plan([animal("z")], tmp_path, config)
