"""Runs whose arm begins with an encoder that was pretrained elsewhere."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from poyo_ssl.comparison.config import PretrainingArm, RunConfig
from poyo_ssl.comparison.fits import pretrain_encoder
from poyo_ssl.comparison.merge import merge
from poyo_ssl.comparison.plan import claim, plan
from poyo_ssl.comparison.run import prepare_run, run
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.model.checkpoints import load_encoder
from poyo_ssl.model.encoder import Encoder, EncoderConfig
from poyo_ssl.model.provenance import Provenance
from poyo_ssl.pretraining.config import PretrainingConfig
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.result_files import ResultsError
from poyo_ssl.training.config import TrainingConfig
from synthetic_animals import TASK, animal

SMALL = EncoderConfig(
    dim=16, depth=0, num_heads=2, dim_head=8, latents_per_step=2, latent_step=1.0, patch_length=0.5
)
CONFIG = RunConfig(
    tasks=(),
    own_tasks={"pictures": TASK},
    units=("all",),
    arms=(),
    num_seeds=1,
    jobs=1,
    labels=FinetuningConfig(
        members=1, training=TrainingConfig(max_steps=3, batch_size=8, jitter=0.0)
    ),
)


@pytest.fixture
def source(tmp_path) -> str:
    """A saved encoder of another animal, at the rate of the synthetic ones."""
    other = animal("a")
    encoder = Encoder(SMALL, other.sampling_rate)
    encoder.add_units(list(other.unit_ids))
    encoder.provenance = Provenance.of([other], None)
    encoder.save_pretrained(tmp_path / "encoder")
    return str(tmp_path / "encoder")


def test_an_arm_begins_with_a_given_encoder_beside_fresh_ones_of_its_size(source, tmp_path):
    config = replace(CONFIG, arms=("scratch",)).beginning_with(source)
    run([animal("z")], tmp_path / "run", config)
    scores = pd.read_csv(tmp_path / "run" / "scores.csv")
    assert {"scratch", "pretrained"} <= set(scores["arm"])
    [pretraining] = pd.read_csv(tmp_path / "run" / "pretrainings.csv").itertuples()
    assert (pretraining.units, pretraining.num_recordings) == (source, 1)
    kept = load_encoder(tmp_path / "run" / "pretrained" / "pretrained" / "seed-0")
    given = load_encoder(source)
    assert (kept.value_map.weight == given.value_map.weight).all()
    assert kept.config == given.config == config.encoder
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["encoder"]["dim"] == 16
    merge([tmp_path / "run"], tmp_path / "merged")
    retrain(source)
    with pytest.raises(ValueError, match=r"has changed since the run in '.*merged'"):
        claim(plan([animal("z")], tmp_path / "merged", config))
    assert (tmp_path / "merged" / "given" / "pretrained" / "weights.safetensors").is_file()


def test_encoders_of_another_size_or_that_are_not_there_are_refused(source, tmp_path):
    config = CONFIG.beginning_with(source)
    larger = replace(config, encoder=replace(SMALL, dim=32))
    with pytest.raises(RecordingError, match=r"another size .*Set, under encoder, dim: 16"):
        plan([animal("z")], tmp_path, larger)
    gone = replace(
        config, pretrainings={"pretrained": PretrainingArm(encoder="gone/nowhere at all")}
    )
    with pytest.raises(RecordingError, match="Arm 'pretrained': There is no directory 'gone/now"):
        plan([animal("z")], tmp_path, gone)
    with pytest.raises(ValueError, match="pretrained already"):
        PretrainingArm(encoder=source, pretraining=PretrainingConfig())
    with pytest.raises(ValueError, match="either encoder or units and lines and recordings, which"):
        PretrainingArm(encoder=source, units="all", lines=("Sst",), recordings="both")
    known = replace(
        CONFIG, pretrainings={"pretrained": PretrainingArm(units="all", teacher="ridge")}
    )
    assert known.beginning_with(source).pretrainings["pretrained"].teacher == "ridge"


def test_an_encoder_that_has_learned_from_what_is_decoded_is_warned_of(source, tmp_path, caplog):
    plan([animal("a")], tmp_path, CONFIG.beginning_with(source))
    assert "has learned from a, which is decoded here" in caplog.text


def retrain(source: str) -> None:
    encoder = load_encoder(source)
    encoder.value_map.weight.data += 1
    encoder.save_pretrained(source)


def test_an_encoder_that_has_changed_since_the_run_began_is_refused(source, tmp_path):
    config = CONFIG.beginning_with(source)
    claim(plan([animal("z")], tmp_path / "run", config))
    with_more_seeds = plan([animal("z")], tmp_path / "run", replace(config, num_seeds=3))
    claim(with_more_seeds)
    retrain(source)
    changed = plan([animal("z")], tmp_path / "run", replace(config, num_seeds=3))
    with pytest.raises(ValueError, match=r"'pretrained': the encoder .* has changed since") as told:
        claim(changed)
    kept = tmp_path / "run" / "given" / "pretrained"
    assert f"Put back the earlier one, of which '{kept}' is a copy, or choose" in str(told.value)
    shutil.copytree(kept, source, dirs_exist_ok=True)
    (tmp_path / "encoder" / "SHA256SUMS").unlink()
    claim(plan([animal("z")], tmp_path / "run", config))


def test_workers_read_the_copy_that_the_run_keeps_of_a_given_encoder(source, tmp_path):
    experiment = plan([animal("z")], tmp_path / "run", CONFIG.beginning_with(source))
    claim(experiment)
    given = load_encoder(source)
    retrain(source)
    pretrain_encoder(pickle.loads(pickle.dumps(experiment)), "pretrained", 0)
    kept = load_encoder(experiment.pretrained_directory("pretrained", 0))
    assert (kept.value_map.weight == given.value_map.weight).all()
    assert kept.provenance == given.provenance


def test_runs_that_began_with_different_encoders_are_not_merged(source, tmp_path):
    config = CONFIG.beginning_with(source)
    prepare_run([animal("z")], tmp_path / "one", config)
    retrain(source)
    prepare_run([animal("z")], tmp_path / "two", config)
    with pytest.raises(ResultsError, match="differ in the encoder of 'pretrained'"):
        merge([tmp_path / "one", tmp_path / "two"], tmp_path / "both")
