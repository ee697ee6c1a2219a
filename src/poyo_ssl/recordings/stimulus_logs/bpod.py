"""Sessions of Bpod: the variable ``SessionData`` of a MATLAB file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.io import loadmat

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.stimulus_logs.log_form import LogForm

_SESSION = "SessionData"


def read_bpod(path: Path) -> pd.DataFrame:
    """States and events of every trial, on the clock of the session.

    A state that was not visited has no row, one that was visited twice has two.
    """
    session = _load(path)
    try:
        trials = session["RawEvents"]["Trial"]
        trials = [trials] if isinstance(trials, dict) else list(trials)
        started = np.atleast_1d(np.asarray(session["TrialStartTimestamp"], dtype=np.float64))
        rows = [
            {"name": name, "start": start + zero, "end": end + zero, "trial": number}
            for number, (trial, zero) in enumerate(zip(trials, started, strict=True))
            for name, start, end in _happened(trial)
        ]
    except (LookupError, TypeError, ValueError) as error:
        raise RecordingError(
            f"'{path}' is not a session of Bpod as it should be: {error}. It needs "
            f"{_SESSION}.RawEvents.Trial and one {_SESSION}.TrialStartTimestamp a trial."
        ) from error
    log = pd.DataFrame(rows, columns=["name", "start", "end", "trial"])
    for name, values in _of_trials(session, len(trials)):
        log[name] = values[log["trial"].to_numpy(dtype=int)]
    return log


def _load(path: Path) -> dict[str, Any]:
    try:
        found = loadmat(path, simplify_cells=True, variable_names=[_SESSION])
    except NotImplementedError as error:
        raise RecordingError(
            f"'{path}' is of MATLAB 7.3. Save it again in MATLAB: save(name, '{_SESSION}', '-v7')."
        ) from error
    except Exception as error:  # damaged files make scipy raise nearly anything
        raise RecordingError(
            f"'{path}' cannot be read: {error}. It is damaged; copy it again."
        ) from error
    if not isinstance(found.get(_SESSION), dict):
        raise RecordingError(
            f"'{path}' has no variable {_SESSION}, in which Bpod saves a session. Give that file."
        )
    session: dict[str, Any] = found[_SESSION]
    return session


def _happened(trial: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Name, start and end of every state and event, seconds since the trial began."""
    for name, times in trial.get("States", {}).items():
        for start, end in np.asarray(times, dtype=np.float64).reshape(-1, 2):
            if not np.isnan(start):
                yield name, start, end
    for name, times in trial.get("Events", {}).items():
        for start in np.asarray(times, dtype=np.float64).ravel():
            yield name, start, np.nan


def _of_trials(session: dict[str, Any], num_trials: int) -> Iterator[tuple[str, np.ndarray]]:
    """What the session has for each trial, such as ``TrialTypes``."""
    for name, values in session.items():
        if name == "TrialStartTimestamp" or not isinstance(values, np.ndarray | int | float):
            continue
        array = np.atleast_1d(values)
        if array.shape == (num_trials,) and array.dtype.kind in "biufU":
            yield name, array


BPOD = LogForm(
    name="Bpod .mat",
    recognises=lambda beginning: beginning.startswith(b"MATLAB "),
    read=read_bpod,
)
