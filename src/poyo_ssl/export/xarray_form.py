"""Recordings and predictions as datasets of xarray; needs the extra ``poyo-ssl[xarray]``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.export.predictions import DESCRIPTIONS, only_task
from poyo_ssl.extras import import_extra
from poyo_ssl.kinds_of_arguments import require_kind
from poyo_ssl.recordings.recording import Recording


def to_xarray(given: Recording | pd.DataFrame) -> Any:
    """A recording, or predictions about one task, as an ``xarray.Dataset``.

    A recording becomes ``df_over_f`` (``time`` in seconds, ``unit``) with what is known of the
    units as coordinates; ``<stimulus>_<column>`` along a dimension named after each stimulus, and
    ``<series>_<column>`` along ``<series>_time``. ``recording_from_xarray`` reads ``df_over_f``
    again. Predictions become their columns along ``prediction``, and ``log_probability``
    (``prediction``, ``class``) where the answers are classes.

    Args:
        given: A recording, or ``evaluate(...).predictions`` of one task.

    Raises:
        ImportError: If xarray is missing.
        TypeError: If something else is given, such as a list of recordings.
        ValueError: If the predictions are about several tasks.
    """
    xarray = import_extra("xarray", "xarray", "A dataset of xarray")
    require_kind(
        given,
        (Recording, pd.DataFrame),
        "Give one recording, or the predictions of evaluate(...).",
    )
    if isinstance(given, Recording):
        return xarray.Dataset(*_recording(given))
    return xarray.Dataset(*_predictions(given))


def _recording(recording: Recording) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Variables, coordinates and attributes."""
    variables: dict[str, Any] = {
        "df_over_f": (("time", "unit"), recording.df_over_f, {"long_name": "ΔF/F", "units": "1"})
    }
    coordinates: dict[str, Any] = {
        "time": ("time", recording.timestamps, {"units": "s"}),
        "unit": ("unit", recording.unit_ids),
    }
    for name in recording.units.columns.drop("unit_id"):
        coordinates[str(name)] = ("unit", _values(recording.units[name]))
    for name, table in recording.stimuli.items():
        variables |= {f"{name}_{column}": (name, _values(table[column])) for column in table}
    for name, table in recording.time_series.items():
        coordinates[f"{name}_time"] = (f"{name}_time", table["timestamp"].to_numpy())
        for column in table.columns.drop("timestamp"):
            variables[f"{name}_{column}"] = (f"{name}_time", _values(table[column]))
    facts = {
        name: getattr(recording, name)
        for name in ("recording_id", "subject_id", "container_id", "session_type")
    }
    return variables, coordinates, {name: fact for name, fact in facts.items() if fact}


def _predictions(table: pd.DataFrame) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Variables, coordinates and attributes."""
    predictions = only_task(table)
    variables: dict[str, Any] = {
        name: ("prediction", values, {"long_name": DESCRIPTIONS[name]})
        for name, values in predictions.columns.items()
    }
    coordinates: dict[str, Any] = {}
    if predictions.classes:
        variables["log_probability"] = (("prediction", "class"), predictions.log_probability)
        coordinates["class"] = ("class", np.array(predictions.classes))
    return variables, coordinates, {"task": predictions.task}


def _values(column: pd.Series) -> np.ndarray:
    """Numbers, or text that is empty where it is missing."""
    if column.dtype.kind in "biuf":
        return column.to_numpy()
    return np.array(["" if pd.isna(value) else str(value) for value in column], dtype=object)
