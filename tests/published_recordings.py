"""Recordings of the units that the small published checkpoint in ``tests/data`` knows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from poyo_ssl.recordings.recording import Recording

UNITS = [str(700 + unit) for unit in range(5)]


def recording_of(
    df_over_f: np.ndarray, session: str, units: list[str] = UNITS, *, rate: float
) -> Recording:
    """A recording as brainsets prepares it, with a grating every three seconds."""
    starts = 1.0 + 3.0 * np.arange(int(len(df_over_f) / rate / 3) - 1)
    gratings = {
        "start": starts,
        "end": starts + 2.0,
        "orientation": 45.0 * (np.arange(len(starts)) % 8),
        "temporal_frequency": np.array([1.0, 2.0, 4.0, 8.0, 15.0])[np.arange(len(starts)) % 5],
    }
    return Recording(
        recording_id=session,
        df_over_f=df_over_f.astype(np.float32),
        timestamps=np.arange(len(df_over_f)) / rate,
        units=pd.DataFrame({"unit_id": units}),
        stimuli={"drifting_gratings": pd.DataFrame(gratings)},
    )
