"""Objects of pynapple, in memory, as a recording."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.recordings.formats.arrays import recording_from_arrays
from poyo_ssl.recordings.recording import Recording, RecordingError


def recording_from_pynapple(
    df_over_f: Any,
    *,
    recording_id: str,
    stimuli: Mapping[str, Any] | None = None,
    series: Mapping[str, Any] | None = None,
    subject_id: str | None = None,
) -> Recording:
    """Makes a recording of objects of pynapple, whose times are seconds.

    Args:
        df_over_f: ΔF/F as a ``TsdFrame``, dimensionless. Its columns name the units, unless they
            are 0, 1, 2 and so on; its metadata is what is known of them.
        recording_id: Text that identifies the session.
        stimuli: Stimulus name to an ``IntervalSet``, one interval per presentation, with columns
            such as ``orientation`` as metadata. Give a ``DataFrame`` with ``start`` and ``end``
            where presentations touch each other: an ``IntervalSet`` keeps no such ones apart.
        series: Name of another time series to a ``Tsd`` or ``TsdFrame``, such as running speed.
        subject_id: The mouse.

    Raises:
        RecordingError: If an object is of another kind, or they do not fit together.
    """
    _require(df_over_f, ("t", "values", "columns"), "df_over_f", "TsdFrame")
    units = pd.DataFrame(getattr(df_over_f, "metadata", {})).reset_index(drop=True)
    if "unit_id" not in units and not _is_numbered(df_over_f.columns):
        units["unit_id"] = [str(name) for name in df_over_f.columns]
    return recording_from_arrays(
        np.asarray(df_over_f.values),
        recording_id=recording_id,
        timestamps=np.asarray(df_over_f.t),
        units=units if len(units.columns) else None,
        stimuli={name: _presentations(name, shown) for name, shown in (stimuli or {}).items()},
        series={name: _samples(name, one) for name, one in (series or {}).items()},
        subject_id=subject_id,
    )


def _is_numbered(columns: Any) -> bool:
    return list(columns) == list(range(len(columns)))


def _presentations(name: str, shown: Any) -> pd.DataFrame:
    if isinstance(shown, pd.DataFrame):
        return shown
    _require(shown, ("start", "end", "as_dataframe"), f"stimuli['{name}']", "IntervalSet")
    return pd.DataFrame(shown.as_dataframe()).reset_index(drop=True)


def _samples(name: str, one: Any) -> pd.DataFrame:
    _require(one, ("t", "values"), f"series['{name}']", "Tsd or TsdFrame")
    values = np.asarray(one.values)
    if values.ndim == 1:
        return pd.DataFrame({"timestamp": one.t, "value": values})
    named = {str(column): values[:, place] for place, column in enumerate(one.columns)}
    return pd.DataFrame({"timestamp": one.t, **named})


def _require(given: Any, attributes: tuple[str, ...], what: str, kind: str) -> None:
    if not all(hasattr(given, name) for name in attributes):
        raise RecordingError(f"{what} must be a {kind} of pynapple, got {type(given).__name__}.")
