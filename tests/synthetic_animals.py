"""Animals whose units mix the same few time courses, so that one space holds all of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from poyo_ssl.alignment.responses import SharedStimulus
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.tasks import Task

RATE = 10.0
NUM_SEGMENTS, NUM_REPEATS, NUM_CLASSES, NUM_TRIALS = 12, 6, 4, 10
DIMENSIONS = 4
TASK = Task(stimulus="flashes", column="picture", window_length=1.0)
SHARED = SharedStimulus(stimulus="sequence", column="segment", bin_width=0.5, smoothing=0.0)


def animal(name: str, num_units: int = 30, noise: float = 0.5) -> Recording:
    """Units that mix the same four time courses, each animal with its own loadings."""
    world = np.random.default_rng(0)
    courses = world.normal(size=(NUM_SEGMENTS, 2, DIMENSIONS)).repeat(5, axis=1)
    pictures = world.normal(size=(NUM_CLASSES, DIMENSIONS))
    rng = np.random.default_rng([ord(c) for c in name])
    shown = np.concatenate([np.arange(NUM_SEGMENTS)] * NUM_REPEATS)
    asked = np.concatenate([rng.permutation(NUM_CLASSES) for _ in range(NUM_TRIALS)])
    latent = np.concatenate([courses[shown].reshape(-1, DIMENSIONS), pictures[asked].repeat(10, 0)])
    traces = latent @ rng.normal(size=(DIMENSIONS, num_units))
    traces += noise * rng.normal(size=traces.shape)
    onsets = np.arange(len(shown) + len(asked), dtype=float)
    table = pd.DataFrame({"start": onsets, "end": onsets + 1})
    sequence = table[: len(shown)].assign(
        segment=shown.astype(float), repeat=np.arange(len(shown)) // NUM_SEGMENTS
    )
    flashes = table[len(shown) :].assign(picture=asked.astype(float)).reset_index(drop=True)
    units = pd.DataFrame({"unit_id": [f"{name}/{i}" for i in range(num_units)]})
    return Recording(
        recording_id=name,
        df_over_f=traces.astype(np.float32),
        timestamps=np.arange(len(traces)) / RATE,
        units=units.assign(cre_line=None, area=None, imaging_depth_um=None),
        stimuli={"sequence": sequence, "flashes": flashes},
    )


def populate(recordings, task=TASK, config=None) -> Population:
    divided = divide(recordings, task, config or SplitConfig())
    return Population(divided, {r.recording_id: list(r.unit_ids) for r in recordings})
