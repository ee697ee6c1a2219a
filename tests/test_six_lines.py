"""The whole method in six lines, as the README has it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import poyo_ssl as ps
from shared_data import DATA, ROOT, needs_shared_data


def six_lines() -> str:
    """The six lines of the README, as they stand there."""
    [block] = re.findall(
        r"```python\nimport poyo_ssl as ps\n\n(recordings = .*?)```",
        (ROOT / "README.md").read_text(),
        re.S,
    )
    return block


@pytest.fixture
def quick(monkeypatch):
    """Fits of a few steps: how the lines read is tested here, not how well they score."""
    few = ps.TrainingConfig(max_steps=10, valid_every=10, max_valid_windows=32)
    pretraining, finetuning = (
        ps.PretrainingConfig(training=few),
        ps.FinetuningConfig(members=1, training=few),
    )
    pretrain, finetune = ps.pretrain, ps.finetune
    monkeypatch.setattr(ps, "pretrain", lambda *given: pretrain(*given, pretraining))
    monkeypatch.setattr(ps, "finetune", lambda *given: finetune(*given, finetuning))


def run_lines(path: Path) -> dict:
    names = {"ps": ps}
    exec(six_lines().replace("session.nwb", path.as_posix()), names)
    return names


def require_results(names: dict) -> None:
    table = names["scores"].table
    assert table["chance"].tolist() == [0.125] * len(table)
    assert table["accuracy"].between(0, 1).all()
    assert "accuracy" in repr(names["scores"])
    assert names["encoder"].fit.seconds > 0
    assert set(names["decoder"].fit.curves) == {"step", "metric", "value"}
    for name in ("recordings", "divided", "units", "encoder", "decoder"):
        assert len(repr(names[name])) < 400


def test_the_six_lines_run_on_a_simulated_session(quick, tmp_path):
    config = ps.SimulatorConfig(
        lines=("Cux2",), recordings_per_line=1, units_per_recording=30,
        grating_trials_per_condition=2, blank_sweeps=0, grating_blocks=1, movie_frames=30,
        movie_repeats=3, include_static_gratings=False, spontaneous_duration=5.0, gap_duration=5.0,
    )  # fmt: skip
    [recording] = ps.simulate_observatory(config)
    regular = np.random.default_rng(0).normal(size=(recording.num_timesteps, 10)).astype(np.float32)
    traces = np.concatenate([recording.df_over_f[:, :20], regular], axis=1)
    ps.save_recording(replace(recording, df_over_f=traces), tmp_path / "session.h5")
    require_results(run_lines(tmp_path / "session.h5"))


@needs_shared_data
def test_the_six_lines_run_on_a_real_session(quick):
    require_results(run_lines(next(DATA.glob("sub-*StimA_ophys.nwb"))))
