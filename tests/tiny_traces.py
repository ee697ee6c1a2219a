"""Traces of regular and of bursty units, and a recording of nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd

from poyo_ssl.recordings.recording import Recording


def make_recording(
    df_over_f: np.ndarray, recording_id: str = "mouse-1", cre_line: str | None = None
) -> Recording:
    """A recording at 10 Hz that starts at 0 s."""
    num_timesteps, num_units = df_over_f.shape
    units = pd.DataFrame({"unit_id": [f"{recording_id}/{index}" for index in range(num_units)]})
    units["cre_line"] = cre_line
    return Recording(
        recording_id=recording_id,
        df_over_f=df_over_f.astype(np.float32),
        timestamps=np.arange(num_timesteps) / 10.0,
        units=units,
    )


def draw_traces(
    rng: np.random.Generator, num_regular: int, num_bursty: int, num_timesteps: int = 2000
) -> np.ndarray:
    """Noise, and after those units noise with one transient in a hundred timesteps."""
    noise = rng.normal(size=(num_timesteps, num_regular + num_bursty))
    is_burst = rng.random((num_timesteps, num_bursty)) < 0.01
    noise[:, num_regular:] += is_burst * 30.0
    return noise
