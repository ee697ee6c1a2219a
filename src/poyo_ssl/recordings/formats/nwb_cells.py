"""Which ROIs of an NWB 2 file are cells, as its table of ROIs says."""

from __future__ import annotations

import logging
import re

import h5py
import numpy as np

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.untrusted_files.hdf5 import as_text

logger = logging.getLogger(__name__)

_YES = ("accepted", "iscell", "is_cell", "valid_roi")
"""Columns, in lower case and without spaces, that are 1 for a cell."""
_NO = ("rejected", "notcell", "not_cell")
"""Columns that are 1 for what is none."""
_PERHAPS = re.compile("valid|good|bad|keep|kept|quality|exclude|accept|reject")
"""Parts of names of columns that may say the same in a way that is not known."""
_REMEDY = "Correct the table, or read all ROIs: only_cells of the source's nwb set to false."
_TRUTHS = {"1": 1, "1.0": 1, "true": 1, "yes": 1, "0": 0, "0.0": 0, "false": 0, "no": 0}


def find_cells(segmentation: h5py.Group, rows: np.ndarray) -> np.ndarray:
    """Positions of the traces that belong to cells, increasing.

    A ROI is a cell if a column such as ``Accepted`` or ``iscell`` says so, or, where none is
    accepted, if none such as ``Rejected`` says that it is none. Without such columns, or where
    nobody has sorted the ROIs, all are cells.

    Args:
        segmentation: The table of ROIs.
        rows: Its row of every trace, shape (num_traces,).

    Raises:
        RecordingError: If a column is not of zeros and ones, or no cell is left.
    """
    where = f"'{segmentation.file.filename}': {segmentation.name}"
    columns = {name.lower().strip().replace(" ", "_"): name for name in segmentation}
    said = {
        kind: [_read_flags(segmentation[columns[name]], where) for name in names if name in columns]
        for kind, names in (("yes", _YES), ("no", _NO))
    }
    if not said["yes"] and not said["no"] and (perhaps := list(filter(_PERHAPS.search, columns))):
        logger.warning(
            "%s: whether '%s' says which ROIs are cells is not known; all are read. If it does, "
            "write it as a column 'iscell' of 1 for a cell, else 0.",
            where,
            columns[perhaps[0]],
        )
    is_in_table = rows < min(map(len, said["yes"] + said["no"]), default=0)
    if not is_in_table.all() or not len(rows):
        return np.arange(len(rows))
    accepted = np.logical_and.reduce([flags[rows] for flags in said["yes"]] or [rows < 0])
    rejected = np.logical_or.reduce([flags[rows] for flags in said["no"]] or [rows < 0])
    if not accepted.any() and not rejected.any():
        if said["yes"] and not said["no"] and "iscell" in columns:
            raise RecordingError(f"{where}: none of {len(rows)} ROIs is called a cell. {_REMEDY}")
        if said["yes"] or said["no"]:
            logger.warning("%s: its ROIs were never sorted; all are read as cells.", where)
        return np.arange(len(rows))
    cells = np.flatnonzero(accepted & ~rejected if accepted.any() else ~rejected)
    if not len(cells):
        raise RecordingError(f"{where}: none of {len(rows)} ROIs is called a cell. {_REMEDY}")
    if len(cells) < len(rows):
        logger.warning(
            "%s: %d of %d ROIs are no cells, as the table says; left out. To read all, set "
            "only_cells of the source's nwb to false.",
            where,
            len(rows) - len(cells),
            len(rows),
        )
    return cells


def _read_flags(column: h5py.Dataset, where: str) -> np.ndarray:
    """Whether each row is marked; of two numbers, as suite2p writes them, the first one says so."""
    stored: np.ndarray = column[()] if isinstance(column, h5py.Dataset) else np.empty(0)
    values = stored[:, 0] if stored.ndim == 2 and stored.shape[1] else stored
    if values.ndim == 1 and (values.dtype.kind in "SUO" or h5py.check_enum_dtype(values.dtype)):
        values = np.array([_TRUTHS.get(as_text(value).strip().lower(), 2) for value in values])
    is_flag = values.ndim == 1 and values.dtype.kind in "biuf"
    odd = np.flatnonzero(~np.isin(values, (0, 1))) if is_flag else np.zeros(1, dtype=int)
    if len(odd):
        found = f"{values[odd[0]]} in row {odd[0]}" if is_flag else f"shape {stored.shape}"
        raise RecordingError(
            f"{where}: its column '{column.name.rpartition('/')[2]}' should say 0 or 1 of every "
            f"ROI, but has {found}. {_REMEDY}"
        )
    return values == 1
