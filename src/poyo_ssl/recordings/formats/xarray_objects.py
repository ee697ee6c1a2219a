"""An array of xarray, in memory, as a recording; Minian and others keep their traces so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.recordings.formats.arrays import recording_from_arrays
from poyo_ssl.recordings.recording import Recording, RecordingError

_TIMES = ("time", "timestamp", "timestamps", "t")
"""Dimensions whose coordinate is seconds."""
_STEPS = ("timestep", "frame", "sample")
"""Dimensions of samples that are only numbered."""


def recording_from_xarray(
    df_over_f: Any,
    *,
    recording_id: str,
    sampling_rate: float | None = None,
    stimuli: Mapping[str, pd.DataFrame] | None = None,
    subject_id: str | None = None,
) -> Recording:
    """Makes a recording of a ``DataArray`` of xarray with a dimension of time and one of units.

    Args:
        df_over_f: ΔF/F, dimensionless, in either order of dimensions. Time is the dimension
            ``time``, ``timestamp``, ``timestamps`` or ``t`` with seconds as coordinate, or
            ``timestep``, ``frame`` or ``sample`` (Minian's ``C`` is ``unit_id`` x ``frame``) with
            ``sampling_rate``. The coordinate of the other dimension names the units, and
            further coordinates along it are what is known of them.
        recording_id: Text that identifies the session.
        sampling_rate: Imaging rate in Hz, where the array has no seconds; the first sample is at
            0 s.
        stimuli: Stimulus name to table, as in ``Recording.stimuli``.
        subject_id: The mouse.

    Raises:
        RecordingError: If the dimensions are others, or the parts do not fit together.
    """
    if not all(hasattr(df_over_f, name) for name in ("dims", "coords", "name")):
        raise RecordingError(
            f"df_over_f must be a DataArray of xarray, got {type(df_over_f).__name__}. Of a "
            "Dataset, give one of its arrays."
        )
    time, unit = _dimensions(df_over_f)
    has_seconds = time in _TIMES and time in df_over_f.coords
    return recording_from_arrays(
        np.asarray(df_over_f.transpose(time, unit).values),
        recording_id=recording_id,
        sampling_rate=sampling_rate,
        timestamps=_seconds(df_over_f.coords[time]) if has_seconds else None,
        units=_units(df_over_f, unit, recording_id),
        stimuli=stimuli,
        subject_id=subject_id,
    )


def _dimensions(array: Any) -> tuple[str, str]:
    """Names of the dimensions of time and of units."""
    times = [name for name in array.dims if name in (*_TIMES, *_STEPS)]
    if len(array.dims) != 2 or len(times) != 1:
        raise RecordingError(
            f"df_over_f has dimensions {tuple(map(str, array.dims))}; one of time "
            f"({', '.join((*_TIMES, *_STEPS))}) and one of units are needed. Rename them: "
            "array.rename(old='time')."
        )
    [unit] = [name for name in array.dims if name != times[0]]
    return times[0], unit


def _seconds(times: Any) -> np.ndarray:
    """Seconds; dates and durations count from the first sample."""
    values = np.asarray(times.values)
    if values.dtype.kind in "mM":
        return (values - values[0]) / np.timedelta64(1, "s")
    return values


def _units(array: Any, unit: str, recording_id: str) -> dict[str, np.ndarray]:
    """Every coordinate along the units; ids that are mere numbers belong to the recording."""
    known = {
        str(name): np.asarray(coordinate.values)
        for name, coordinate in array.coords.items()
        if coordinate.dims == (unit,)
    }
    ids = known.pop(unit, np.arange(array.sizes[unit]))
    if "unit_id" not in known:
        is_number = ids.dtype.kind in "iu"
        known["unit_id"] = np.array(
            [f"{recording_id}/{number}" for number in ids] if is_number else ids, dtype=str
        )
    return known
