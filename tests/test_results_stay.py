"""Losses and scores of fixed seeds stay what they were, however the code is rearranged.

``known_results.json`` holds those of reference decoders and of networks of one member, on the real
drifting-gratings session and on a simulated movie. A change that is meant to move them writes it
anew, ``python tests/test_results_stay.py``, and says why.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest

import poyo_ssl as ps
from shared_data import DATA, needs_shared_data

pytestmark = pytest.mark.usefixtures("units_undescribed")
KNOWN = Path(__file__).parent / "known_results.json"
BEFORE = json.loads(KNOWN.read_text())
COMPARED = ("recording_id", "num_labelled", "num_train", "num_test", "scores")
FEW_STEPS = ps.FinetuningConfig(
    training=ps.TrainingConfig(max_steps=40, valid_every=20, jitter=0.2),
    teacher=ps.TeacherConfig(unlabelled_fraction=0.5),
    members=1,
)
MOVIE = ps.FinetuningConfig(
    members=1,
    training=ps.TrainingConfig(
        max_steps=20, valid_every=10, jitter=0.0, batch_size=8, max_valid_windows=32
    ),
)
PRETRAINING = ps.PretrainingConfig(
    training=ps.TrainingConfig(
        max_steps=30, unit_dropout=0.3, jitter=0.0, valid_every=15, max_valid_windows=64
    )
)


def config(*tasks: str, units: str, splits: ps.SplitConfig) -> ps.RunConfig:
    return ps.RunConfig(
        tasks=tasks, units=(units,), num_seeds=1, jobs=1, splits=splits, labels=FEW_STEPS,
        arms=("scratch", "scratch + teacher", "pretrained"), movie=MOVIE, pretraining=PRETRAINING,
    )  # fmt: skip


def place_before(path: Path) -> str:
    """What that commit called the folder of a fit."""
    return path.as_posix().replace(", ", "-").replace(" + ", "+").replace(" ", "-")


def results(directory: Path) -> dict[str, dict]:
    """Everything that a run fitted: scores of every decoder, points of every learning curve."""
    found = {}
    for path in sorted(directory.glob("decoders/**/scores.json")):
        rows = json.loads(path.read_text())
        scores = [{name: row[name] for name in COMPARED} for row in rows]
        found[place_before(path.parent.relative_to(directory))] = {"scores": scores}
    for path in sorted(directory.glob("**/seed-*/curves.csv")):
        name = place_before(path.parent.relative_to(directory))
        found.setdefault(name, {})["curves"] = pd.read_csv(path).to_numpy().tolist()
    return found


def require_same(found: dict[str, dict], before: dict[str, dict]) -> None:
    assert found.keys() == before.keys()
    for name, fit in before.items():
        for row, known in zip(found[name].get("scores", []), fit.get("scores", []), strict=True):
            assert row.pop("scores") == pytest.approx(known.pop("scores"), abs=1e-6), name
            assert row == known, name
        points, known = found[name]["curves"], fit["curves"]
        assert [point[:2] for point in points] == [point[:2] for point in known], name
        values, known = ([point[2] for point in curve] for curve in (points, known))
        np.testing.assert_allclose(values, known, rtol=1e-5, atol=1e-6, err_msg=name)


def real_direction(directory: Path) -> dict[str, dict]:
    recordings = ps.load_recordings(next(DATA.glob("sub-*StimA_ophys.nwb")))
    ps.run(
        recordings, directory, config("direction", units="unpredictable", splits=ps.SplitConfig())
    )
    return results(directory)


def simulated_movie(directory: Path) -> dict[str, dict]:
    recordings = ps.simulate_observatory(
        ps.SimulatorConfig(
            lines=("Sst",), recordings_per_line=1, units_per_recording=24,
            grating_trials_per_condition=2, blank_sweeps=2, grating_blocks=1, movie_frames=300,
            movie_repeats=4, include_static_gratings=False, spontaneous_duration=10.0,
            gap_duration=5.0,
        )
    )  # fmt: skip
    splits = ps.SplitConfig(held_out_blocks=2)
    ps.run(
        recordings, directory, config("movie_held_out", "movie_frame", units="all", splits=splits)
    )
    return results(directory)


@needs_shared_data
def test_direction_on_the_real_session_is_what_it_was(tmp_path):
    require_same(real_direction(tmp_path), BEFORE["real direction"])


def test_a_simulated_movie_is_what_it_was(tmp_path):
    require_same(simulated_movie(tmp_path), BEFORE["simulated movie"])


if __name__ == "__main__":
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        found = {
            "real direction": real_direction(Path(one)),
            "simulated movie": simulated_movie(Path(two)),
        }
    KNOWN.write_text(json.dumps(found))
