"""Descriptions of units as one small file: arrays and a header of JSON, nothing executable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.neurons.describe import Latents, Neurons, TaskNeurons, Traces, Tuning
from poyo_ssl.neurons.responses import Responses
from poyo_ssl.recordings.untrusted_files.numpy_files import open_npz
from poyo_ssl.whole_files import write_arrays

_HEADER = "header"


class NeuronsError(ValueError):
    """A file of described units that cannot be understood."""


def save_neurons(described: Sequence[Neurons], path: Path) -> None:
    """Writes descriptions; numbers in single precision, which no figure shows."""
    arrays: dict[str, np.ndarray] = {}
    header = [_pack(neurons, f"{place}", arrays) for place, neurons in enumerate(described)]
    small = {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in arrays.items()}
    write_arrays(path, {_HEADER: np.array(json.dumps(header)), **small})


def load_neurons(path: Path) -> list[Neurons]:
    """Inverse of :func:`save_neurons`.

    Raises:
        NeuronsError: If the file is damaged, or of another kind.
    """
    try:
        with open_npz(path) as saved:
            arrays = {name: saved[name] for name in saved.files}
        header = json.loads(str(arrays[_HEADER]))
        return [_unpack(entry, f"{place}", arrays) for place, entry in enumerate(header)]
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise NeuronsError(f"no description of units ({type(error).__name__}: {error}).") from error


def _pack(neurons: Neurons, key: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The header of one recording; its arrays go to ``arrays``, their names begin with the key."""
    for name in ("times", "df_over_f", "units", "shown"):
        arrays[f"{key}/traces/{name}"] = getattr(neurons.traces, name)
    return {
        "recording_id": neurons.recording_id,
        "units": neurons.units.to_dict(orient="list"),
        "num_units": neurons.num_units,
        "tasks": [
            _pack_task(task, f"{key}/{place}", arrays) for place, task in enumerate(neurons.tasks)
        ],
    }


def _pack_task(task: TaskNeurons, key: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    header: dict[str, Any] = {"name": task.name, "title": task.title}
    if task.responses is not None:
        for name in ("times", "average", "peak", "reliability"):
            arrays[f"{key}/responses/{name}"] = getattr(task.responses, name)
        header["responses"] = {
            "duration": task.responses.duration,
            "num_presentations": task.responses.num_presentations,
            "is_preferred": task.responses.is_preferred,
        }
    if task.tuning is not None:
        arrays[f"{key}/tuning/labels"] = task.tuning.curves.index.to_numpy()
        arrays[f"{key}/tuning/curves"] = task.tuning.curves.to_numpy()
        arrays[f"{key}/tuning/sem"] = task.tuning.sem.to_numpy()
        header["tuning"] = {"period": task.tuning.period}
    for kind in ("importance", "latents"):
        header[kind] = list(getattr(task, kind))
    for place, values in enumerate(task.importance.values()):
        arrays[f"{key}/importance/{place}"] = values
    for place, latents in enumerate(task.latents.values()):
        arrays[f"{key}/latents/{place}/points"] = latents.points
        arrays[f"{key}/latents/{place}/labels"] = latents.labels
    return header


def _unpack(header: dict[str, Any], key: str, arrays: dict[str, np.ndarray]) -> Neurons:
    units = pd.DataFrame(header["units"])
    for name in units.columns.intersection(["imaging_depth_um", "x_px", "y_px"]):
        units[name] = units[name].astype(float)
    units["is_predictable"] = units["is_predictable"].astype(bool)
    traces = Traces(
        **{n: arrays[f"{key}/traces/{n}"] for n in ("times", "df_over_f", "units", "shown")}
    )
    if not (
        {"unit_id", "is_predictable"} <= set(units)
        and traces.df_over_f.shape == (len(traces.times), len(traces.units))
        and (not len(traces.units) or 0 <= traces.units.min() <= traces.units.max() < len(units))
        and traces.shown.shape == (len(traces.shown), 2)
    ):
        raise ValueError("its traces do not fit its units")
    return Neurons(
        recording_id=str(header["recording_id"]),
        units=units,
        num_units=int(header["num_units"]),
        traces=traces,
        tasks=[
            _unpack_task(entry, f"{key}/{place}", arrays, units["unit_id"])
            for place, entry in enumerate(header["tasks"])
        ],
    )


def _unpack_task(
    header: dict[str, Any], key: str, arrays: dict[str, np.ndarray], unit_ids: pd.Series
) -> TaskNeurons:
    responses = tuning = None
    if "responses" in header:
        measured = {
            name: arrays[f"{key}/responses/{name}"]
            for name in ("times", "average", "peak", "reliability")
        }
        responses = Responses(
            duration=float(header["responses"]["duration"]),
            num_presentations=int(header["responses"]["num_presentations"]),
            is_preferred=bool(header["responses"]["is_preferred"]),
            **measured,
        )
        _require(responses.average, len(responses.times), len(unit_ids))
        _require(responses.peak, len(unit_ids))
        _require(responses.reliability, len(unit_ids))
    if "tuning" in header:
        labels = pd.Index(arrays[f"{key}/tuning/labels"], name="label")
        curves, sem = (arrays[f"{key}/tuning/{name}"] for name in ("curves", "sem"))
        tuning = Tuning(
            curves=pd.DataFrame(curves, index=labels, columns=unit_ids.tolist()),
            sem=pd.DataFrame(sem, index=labels, columns=unit_ids.tolist()),
            period=header["tuning"]["period"],
        )
    importance = {
        str(arm): arrays[f"{key}/importance/{place}"]
        for place, arm in enumerate(header["importance"])
    }
    for values in importance.values():
        _require(values, len(unit_ids))
    latents = {}
    for place, arm in enumerate(header["latents"]):
        points, labels = (arrays[f"{key}/latents/{place}/{n}"] for n in ("points", "labels"))
        _require(points, len(labels), 2)
        latents[str(arm)] = Latents(points=points, labels=labels)
    return TaskNeurons(
        name=str(header["name"]),
        title=str(header["title"]),
        responses=responses,
        tuning=tuning,
        importance=importance,
        latents=latents,
    )


def _require(array: np.ndarray, *shape: int) -> None:
    if array.shape != shape:
        raise ValueError(f"an array has shape {array.shape} where {shape} is needed")
