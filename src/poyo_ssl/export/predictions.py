"""Predictions as typed columns: what ``predictions.csv`` writes as text."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from poyo_ssl.evaluation.evaluate import PREDICTIONS

DESCRIPTIONS = {
    "recording": "Id of the recording.",
    "arm": "What decoded: how its decoder was made.",
    "units": "Group of units that was decoded from.",
    "labels": "Share or number of labels that was learned from.",
    "seed": "Seed of the decoder.",
    "fold": "Fold of which the trial was tested.",
    "trial": "Row of the trial in its table of presentations, from 0.",
    "onset": "When the presentation began, in seconds.",
    "truth": "What was shown: class by name, movie frame or value.",
    "answer": "What was decoded, in the same form.",
    "metric": "Main metric of the task.",
    "value": "That metric of this trial alone.",
}
"""Column to what it holds, in the order of columns; ``scores`` and ``task`` are held apart."""
_WHOLE = ("seed", "fold", "trial")
_NUMBERS = ("onset", "value")
_ANSWERS = ("truth", "answer")


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskPredictions:
    """What decoders answered to one task."""

    task: str
    columns: dict[str, np.ndarray]
    """Names of ``DESCRIPTIONS`` to values, (num_predictions,): text of type object, or numbers.
    ``truth`` and ``answer`` are text where the answers are classes, else numbers; a column that is
    empty throughout (``fold`` without folds, ``answer`` that is a picture) is left out."""
    classes: list[str]
    """What may be answered, in the order of the scores; empty where there are no classes."""
    log_probability: np.ndarray
    """Of every class, (num_predictions, num_classes), natural logarithm; NaN where a decoder did
    not know the class."""


def split_by_task(predictions: pd.DataFrame) -> list[TaskPredictions]:
    """Predictions of each task as typed columns, in order of first appearance.

    Args:
        predictions: As ``evaluate(...).predictions``, or ``predictions.csv`` read as text.

    Raises:
        ValueError: If it is no table of predictions, or has no row.
    """
    lacking = [name for name in PREDICTIONS if name not in predictions]
    if lacking or not len(predictions):
        found = ", ".join(map(str, predictions.columns)) if lacking else "no row"
        raise ValueError(
            f"This is no table of predictions: it lacks {', '.join(lacking) or 'every row'} "
            f"(found: {found}). Give evaluate(...).predictions, or the predictions.csv of a run."
        )
    return [_with_types(str(task), rows) for task, rows in predictions.groupby("task", sort=False)]


def only_task(predictions: pd.DataFrame) -> TaskPredictions:
    """The same where they are about one task.

    Raises:
        ValueError: If they are about several.
    """
    found = split_by_task(predictions)
    if len(found) > 1:
        raise ValueError(
            f"These are predictions of several tasks: {', '.join(one.task for one in found)}. "
            "Choose one: table[table['task'] == ...]."
        )
    return found[0]


def _with_types(task: str, rows: pd.DataFrame) -> TaskPredictions:
    scores = [_read_scores(text) for text in rows["scores"]]
    classes = list(dict.fromkeys(name for known in scores for name in known))
    text = {name: rows[name].fillna("").astype(str).to_numpy(dtype=object) for name in DESCRIPTIONS}
    columns = {}
    for name, values in text.items():
        if not any(values):
            continue
        if name in _WHOLE:
            columns[name] = values.astype(np.int64)
        elif name in _NUMBERS or (name in _ANSWERS and not classes):
            columns[name] = pd.to_numeric(pd.Series(values)).to_numpy(np.float64)
        else:
            columns[name] = values
    return TaskPredictions(
        task=task,
        columns=columns,
        classes=classes,
        log_probability=np.array(
            [[known.get(name, np.nan) for name in classes] for known in scores], dtype=np.float64
        ).reshape(len(rows), len(classes)),
    )


def _read_scores(text: object) -> dict[str, float]:
    """Log-probability of every class; empty where the answer is no class."""
    return json.loads(text) if isinstance(text, str) and text.startswith("{") else {}
