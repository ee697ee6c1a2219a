"""Tables of predictions and units, as runs write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

import poyo_ssl as ps

CLASSES = ("0", "45", "a/b")


def predictions_of(recording_id: str, task: str = "direction") -> pd.DataFrame:
    """Two arms on three trials, as ``predictions.csv`` has them."""
    log_probability = np.log([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    scores = [json.dumps(dict(zip(CLASSES, row, strict=True))) for row in log_probability]
    rows = pd.DataFrame(
        {
            "recording": recording_id, "task": task, "arm": "ridge", "units": "all",
            "labels": "100%", "seed": "0", "fold": "", "trial": ["4", "7", "9"],
            "onset": ["11.0", "14.0", "17.0"], "truth": ["0", "45", "0"],
            "answer": ["0", "45", "a/b"], "scores": scores, "metric": "accuracy",
            "value": ["1.0", "1.0", "0.0"],
        }
    )  # fmt: skip
    return pd.concat([rows, rows.assign(arm="scratch")], ignore_index=True)


def units_of(recording: ps.Recording) -> pd.DataFrame:
    """Every other unit is predictable; the last one was not measured."""
    numbers = np.arange(recording.num_units, dtype=float)
    numbers[-1] = np.nan
    return pd.DataFrame(
        {
            "recording_id": recording.recording_id,
            "unit_id": recording.unit_ids,
            "skewness": numbers,
            "kurtosis": 3 + numbers,
            "is_predictable": np.arange(recording.num_units) % 2 == 0,
        }
    )


def write_run(folder: Path, recording: ps.Recording) -> Path:
    """The tables of a run of one recording."""
    folder.mkdir()
    digests = {recording.recording_id: recording.fingerprint()}
    (folder / "experiment.json").write_text(json.dumps({"recordings": digests}))
    (folder / "splits.json").write_text("[]")
    predictions_of(recording.recording_id).to_csv(folder / "predictions.csv", index=False)
    units_of(recording).to_csv(folder / "units.csv", index=False)
    return folder
