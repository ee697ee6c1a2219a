"""What a partition says of the units of one recording, in the recording's order."""

from __future__ import annotations

import numpy as np
import pandas as pd

from poyo_ssl.recordings.recording import Recording, RecordingError


def rows_of(recording: Recording, table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows of a table that are about a recording.

    Args:
        recording: One session.
        table: About any number of sessions.
        column: Its column of recording ids.

    Raises:
        RecordingError: If there is none.
    """
    rows = table[table[column] == recording.recording_id]
    if not len(rows):
        found = ", ".join(map(str, table[column].unique()[:5])) or "none"
        raise RecordingError(
            f"Nothing is known of recording '{recording.recording_id}' (recordings in the table: "
            f"{found}). Give the session that was decoded, and the source that it was read with."
        )
    return rows


def units_of(recording: Recording, units: pd.DataFrame) -> pd.DataFrame:
    """Predictability of every unit of a recording.

    Args:
        recording: One session.
        units: ``partition.units`` or the ``units.csv`` of a run.

    Returns:
        One row a unit, in the recording's order: ``skewness``, ``kurtosis`` (NaN where they were
        not measured) and ``predictable``.

    Raises:
        RecordingError: If none of the recording's units is in the table.
    """
    rows = rows_of(recording, units, "recording_id").set_index("unit_id")
    rows = rows[~rows.index.duplicated()].reindex(recording.unit_ids)
    is_known = rows["is_predictable"].notna()
    if not is_known.any():
        raise RecordingError(
            f"The table of units knows none of the {recording.num_units} units of recording "
            f"'{recording.recording_id}', such as {recording.unit_ids[0]}. Give the session that "
            "was decoded, and the source that it was read with."
        )
    return pd.DataFrame(
        {
            "skewness": rows["skewness"].to_numpy(np.float64),
            "kurtosis": rows["kurtosis"].to_numpy(np.float64),
            "predictable": rows["is_predictable"].isin([True]).to_numpy(),
        },
        index=recording.units.index,
    )
