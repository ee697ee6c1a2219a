"""torch-brain's data objects as groups of HDF5, as torch-brain 0.2.1 writes and reads them.

Attributes ``object``, ``timekeys`` and ``_unicode_keys`` tell it what a group is, which columns are
times, and which were text: that is stored as ASCII of a fixed length, which alone comes back as
text there.
"""

from __future__ import annotations

from collections.abc import Mapping

import h5py
import numpy as np

VERSION = "0.2.1"
"""The version of torch-brain whose form this is."""
NAMES_OF_DATA = frozenset((
    "absolute_start", "close", "delete_nested_attribute", "domain", "end", "file", "from_hdf5",
    "get_nested_attribute", "has_nested_attribute", "keys", "load", "materialize", "save",
    "select_by_interval", "set_nested_attribute", "set_test_domain", "set_train_domain",
    "set_valid_domain", "slice", "start", "to_dict", "to_hdf5",
))  # fmt: skip
"""Names that torch-brain's ``Data`` has itself, so that no attribute of one can have them."""
NAMES_OF_TABLES = frozenset((
    "arange", "coalesce", "difference", "dilate", "domain", "from_dataframe", "from_hdf5",
    "from_list", "is_disjoint", "is_sorted", "keys", "linspace", "materialize", "register_timekey",
    "select_by_interval", "select_by_mask", "slice", "sort", "split", "subdivide", "timekeys",
    "to_hdf5",
))  # fmt: skip
"""The same of ``ArrayDict``, ``Interval`` and ``IrregularTimeSeries``: names of no column."""
_GAPS = {"f": np.nan, "i": -1, "u": 0, "b": False}
"""Kind of numbers to what stands in gaps of a regular time series."""
_GRID = 1.0  # seconds between the times that index an irregular time series


def write_data(
    group: h5py.Group, domain: np.ndarray | None = None, **attributes: str | float | None
) -> None:
    """Makes a ``Data`` of a group.

    Args:
        group: Takes whatever other objects belong to it.
        domain: Intervals that it is defined in, (n, 2), seconds; None for one without times.
        attributes: Numbers and text; None is left out.
    """
    known = {name: value for name, value in attributes.items() if value is not None}
    group.attrs.update({"object": "Data", "absolute_start": 0.0, **known})
    if domain is not None:
        write_domain(group, domain)


def write_domain(group: h5py.Group, domain: np.ndarray) -> None:
    """Adds the intervals that an object is defined in, (n, 2), seconds."""
    start, end = np.asarray(domain, dtype=np.float64).T
    write_interval(group.create_group("domain"), {"start": start, "end": end})


def write_array_dict(group: h5py.Group, columns: Mapping[str, np.ndarray]) -> None:
    """Makes an ``ArrayDict`` of a group; every column has one row per thing."""
    group.attrs["object"] = "ArrayDict"
    _write_columns(group, columns)


def write_interval(
    group: h5py.Group, columns: Mapping[str, np.ndarray], timekeys: tuple[str, ...] = ()
) -> None:
    """Makes an ``Interval`` of a group: rows with a start and an end.

    Args:
        group: Empty.
        columns: ``start``, ``end`` and any others.
        timekeys: Columns besides those two that hold times.
    """
    group.attrs["object"] = "Interval"
    _write_columns(group, columns)
    _write_timekeys(group, ("start", "end", *timekeys))


def write_irregular(group: h5py.Group, columns: Mapping[str, np.ndarray]) -> None:
    """Makes an ``IrregularTimeSeries`` of a group.

    Args:
        group: Empty.
        columns: ``timestamps``, seconds, sorted, and any others.
    """
    group.attrs["object"] = "IrregularTimeSeries"
    _write_columns(group, columns)
    _write_timekeys(group, ("timestamps",))
    first, last = span = columns["timestamps"][[0, -1]]
    grid = np.arange(first, last + _GRID, _GRID, dtype=np.float64)
    group["timestamp_indices_1s"] = np.searchsorted(columns["timestamps"], grid)
    write_domain(group, span[None])


def write_regular(
    group: h5py.Group,
    columns: Mapping[str, np.ndarray],
    *,
    index: np.ndarray,
    start: float,
    sampling_rate: float,
) -> np.ndarray:
    """Makes a ``RegularTimeSeries`` of a group, whose gaps are filled and left out of its domain.

    Args:
        group: Empty.
        columns: One row per sample.
        index: Place of every sample on the regular grid, (num_samples,), increasing from 0.
        start: Time of the first, seconds.
        sampling_rate: Of the grid, Hz.

    Returns:
        Its domain, (n, 2), seconds.
    """
    for name, values in columns.items():
        if index[-1] >= len(index):
            filled = np.full_like(
                values, _GAPS[values.dtype.kind], shape=(index[-1] + 1, *values.shape[1:])
            )
            filled[index] = values
            values = filled
        group[name] = values
    group.attrs.update({"object": "RegularTimeSeries", "sampling_rate": sampling_rate})
    is_gap = np.diff(index) > 1
    first, last = index[np.append(True, is_gap)], index[np.append(is_gap, True)]
    domain = start + np.stack([first, last + 1], axis=1) / sampling_rate
    write_domain(group, domain)
    return domain


def _write_columns(group: h5py.Group, columns: Mapping[str, np.ndarray]) -> None:
    text = [name for name, values in columns.items() if values.dtype.kind == "U"]
    for name, values in columns.items():
        group[name] = values.astype("S") if name in text else values
    group.attrs["_unicode_keys"] = np.array(text, dtype="S")


def _write_timekeys(group: h5py.Group, names: tuple[str, ...]) -> None:
    group.attrs["timekeys"] = np.array(names, dtype="S")
