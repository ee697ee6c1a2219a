"""Two real sessions of the Allen Brain Observatory, where they lie beside the checkout.

Reference scores: ridge on the first 80 % of every block's trials reaches 0.968 from all units and
0.914 from the unpredictable ones (chance 0.125).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.comparison.config import RunConfig
from poyo_ssl.comparison.experiment import Experiment
from poyo_ssl.comparison.plan import plan
from poyo_ssl.comparison.run import run
from poyo_ssl.evaluation.evaluate import evaluate_recording
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.model.encoder import EncoderConfig
from poyo_ssl.recordings.loading import load_recording
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.training.config import TrainingConfig
from poyo_ssl.windows.tasks import DIRECTION, ORIENTATION
from test_configs import parse
from tiny_fits import fit_arm

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "../shared/data"

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="no folder shared/data with real sessions beside the checkout"
)


def session(stimuli: str) -> Recording:
    return load_recording(next(DATA.glob(f"sub-*{stimuli}_ophys.nwb")))


@pytest.fixture(scope="module")
def gratings() -> Recording:
    return session("StimA")


@pytest.fixture(scope="module")
def experiment(gratings) -> Experiment:
    """The plan of configs/real_gratings.yaml."""
    return plan([gratings], Path("unused"), parse(ROOT / "configs/real_gratings.yaml"))


def accuracy(experiment: Experiment, units: str, arm: str, config: FinetuningConfig) -> float:
    setting = Setting(
        population=experiment.population(units),
        task=DIRECTION,
        encoder=EncoderConfig(),
        config=config,
        seed=0,
        labels=1.0,
    )
    [divided] = experiment.divided
    decoder = fit_arm(arm, setting)
    evaluation = evaluate_recording(decoder, divided.recording, divided.splits["direction"])
    assert len(evaluation.target) == 92
    return evaluation.scores["accuracy"]


def test_about_as_many_units_are_predictable_as_were_counted_before(experiment):
    units = experiment.partition.units
    assert len(units) == 254
    assert 106 <= units["is_predictable"].sum() <= 112
    assert (units["excluded"] == "").all()


@pytest.mark.parametrize(
    ("units", "at_least"), [("all", 0.93), ("unpredictable", 0.88), ("predictable", 0.78)]
)
def test_ridge_is_as_strong_as_it_was_measured(experiment, units, at_least):
    assert accuracy(experiment, units, "ridge", FinetuningConfig()) >= at_least


def test_a_network_beats_chance_within_a_few_seconds(experiment):
    config = FinetuningConfig(members=1, training=TrainingConfig(max_steps=120))
    assert accuracy(experiment, "unpredictable", "scratch", config) > 0.5


def test_a_run_of_reference_decoders_makes_its_report_in_seconds(gratings, tmp_path):
    config = replace(
        parse(ROOT / "configs/real_gratings.yaml"), arms=(), label_fractions=(1.0,), jobs=1,
        num_seeds=1,
    )  # fmt: skip
    report = run([gratings], tmp_path, config)
    assert report.stat().st_size > 0
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["is_simulated"] is False
    assert facts["seconds"] < 60
    summary = pd.read_csv(tmp_path / "summary.csv").query("metric == 'accuracy'")
    assert set(summary["arm"]) == {
        "ridge",
        "ridge, time bins",
        "ridge, semi-supervised",
        "logistic",
        "condition posterior",
    }
    assert set(summary["num_test"]) == {92}
    assert (summary["trial_low"] > 0.7).all()
    [recording] = json.loads((tmp_path / "recordings.json").read_text())
    assert recording["cre_lines"] == {"Cux2-CreERT2": 254}
    assert recording["num_segments"] == 5


def windows_of(experiment: Experiment, part: str) -> set[int]:
    """Every timestep of every window of a part."""
    population = experiment.population("all")
    [divided] = experiment.divided
    [task] = experiment.tasks
    length = experiment.config.encoder.window_timesteps(
        task.window_length, population.sampling_rate
    )
    windows = population.divided.windows(divided, task, part, length)
    assert len(windows) > 50
    return set((windows.first_timestep[:, None] + np.arange(length)).ravel().tolist())


def test_training_and_test_windows_of_gratings_share_no_timestep(experiment):
    assert not windows_of(experiment, "train") & windows_of(experiment, "test")


def test_training_and_test_windows_of_static_gratings_share_no_timestep():
    config = RunConfig(
        tasks=("orientation",), splits=parse(ROOT / "configs/real_static_gratings.yaml").splits
    )
    static = plan([session("StimB")], Path("unused"), config)
    assert static.tasks == [ORIENTATION]
    assert not windows_of(static, "train") & windows_of(static, "test")
