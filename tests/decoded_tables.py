"""Tables of predictions, as runs write them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

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
