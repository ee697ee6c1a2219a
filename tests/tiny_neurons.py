"""Invented descriptions of units, as a run keeps them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from poyo_ssl.neurons.describe import Latents, Neurons, TaskNeurons, Traces, Tuning
from poyo_ssl.neurons.responses import Responses


def described_neurons(
    recording_id: str,
    rng: np.random.Generator,
    arms: tuple[str, ...] = ("ridge", "pretrained"),
    *,
    num_units: int = 12,
    cre_line: str = "Cux2-CreERT2",
) -> Neurons:
    """Units of one recording that prefer one of eight directions each, every third predictable."""
    unit_ids = [f"{recording_id}/{unit}" for unit in range(num_units)]
    units = pd.DataFrame({"unit_id": unit_ids, "is_predictable": np.arange(num_units) % 3 == 0})
    units = units.assign(cre_line=cre_line, x_px=rng.uniform(0, 512, num_units), y_px=5.0)
    times, labels = np.linspace(-1, 3, 20), np.arange(0, 360, 45.0)
    responses = Responses(
        times=times,
        duration=2.0,
        average=rng.normal(size=(20, num_units)),
        peak=rng.choice(times, num_units),
        reliability=rng.uniform(size=num_units),
        num_presentations=80,
        is_preferred=True,
    )
    index = pd.Index(labels, name="label")
    curves = pd.DataFrame(np.eye(8)[:, np.arange(num_units) % 8], index=index, columns=unit_ids)
    task = TaskNeurons(
        name="direction",
        title=f"Direction of {recording_id}",
        responses=responses,
        tuning=Tuning(curves=curves, sem=0.1 * curves, period=360.0),
        importance={arm: rng.exponential(size=num_units) for arm in arms},
        latents={arms[-1]: Latents(points=rng.normal(size=(40, 2)), labels=np.resize(labels, 40))},
    )
    traces = Traces(
        times=np.linspace(0, 60, 100),
        df_over_f=rng.exponential(size=(100, 4)),
        units=np.array([0, 3, 1, 2]),
        shown=np.array([[1.0, 3.0], [4.0, 6.0]]),
    )
    return Neurons(
        recording_id=recording_id, units=units, num_units=num_units, traces=traces, tasks=[task]
    )
