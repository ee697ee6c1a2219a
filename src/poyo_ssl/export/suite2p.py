"""Who is predictable, for suite2p: an array with a place for every row of ``F.npy``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from poyo_ssl.export.units import units_of
from poyo_ssl.recordings.formats.suite2p import count_rois, find_plane
from poyo_ssl.recordings.recording import Recording, RecordingError, require_recording
from poyo_ssl.recordings.untrusted_files.numpy_files import read_dtype
from poyo_ssl.whole_files import partial_file, publish


def write_predictable(recording: Recording, path: str | Path, units: pd.DataFrame) -> Path:
    """Writes which ROIs of a suite2p folder are predictable, to lie beside its ``F.npy``.

    Args:
        recording: As it was read from the folder; its units end in their row of ``F.npy``.
        path: ``.npy`` file of booleans, (number of rows of ``F.npy``,); False for ROIs that are
            no cells, too. Replaced whole.
        units: ``partition.units`` or the ``units.csv`` of a run.

    Returns:
        ``path``.

    Raises:
        RecordingError: If the recording is not of suite2p, its units are not in the table, or the
            file exists and holds something else, such as ``F.npy``.
    """
    require_recording(recording)
    path = Path(path)
    if path.is_file() and read_dtype(path) != np.dtype(bool):
        raise RecordingError(
            f"'{path}' exists and holds something other than who is predictable. Write elsewhere, "
            "such as to 'predictable.npy' beside it."
        )
    rows = units_of(recording, units)
    is_predictable = np.zeros(count_rois(find_plane(Path(recording.source or ""))), dtype=bool)
    rois = [unit_id.rpartition("/")[2] for unit_id in recording.unit_ids]
    if not all(roi.isdecimal() and int(roi) < len(is_predictable) for roi in rois):
        raise RecordingError(
            f"Recording '{recording.recording_id}' has units such as '{recording.unit_ids[0]}', "
            "which do not end in a row of F.npy. Give units the ids that the suite2p folder gives."
        )
    is_predictable[np.array(rois, dtype=int)] = rows["predictable"]
    with partial_file(path) as partial:
        with partial.open("xb") as handle:
            np.save(handle, is_predictable)
        publish(partial, path)
    return path
