"""What a file does not say about itself, told by its owner: how to read it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from poyo_ssl.kinds_of_arguments import require_numbers
from poyo_ssl.recordings.columns import (
    as_numbers,
    as_numbers_or_text,
    as_table,
    holds_numbers_or_text,
)
from poyo_ssl.recordings.presentations import mark_blank_sweeps, warn_of_long_presentations
from poyo_ssl.recordings.recording import RecordingError

logger = logging.getLogger(__name__)

COUNTED_FROM = {"movie_frame": 0, "repeat": 0, "image": -1}
"""Columns of whole numbers to the smallest; image -1 is a blank sweep."""
OUR_COLUMNS = ("orientation", "temporal_frequency", "spatial_frequency", "phase", *COUNTED_FROM)
"""Columns that ``Recording.stimuli`` documents, besides ``start`` and ``end``."""


@dataclass(frozen=True, kw_only=True)
class StimulusTable:
    """Where the presentations of one stimulus are listed, and under which names."""

    table: str
    """NWB: path of a TimeIntervals table, such as ``intervals/trials``. Arrays (``.npz``): a CSV or
    TSV file, relative to the file's folder. suite2p: one relative to the session's folder, that
    is the one that holds ``suite2p/``, or else the folder with ``F.npy``."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our name of a column to the table's, such as ``orientation: direction_deg``. Columns that
    are not mentioned keep their names."""
    start: str = "start_time"
    """Column with the onsets in seconds."""
    end: str = "stop_time"
    """Column with the ends in seconds; not looked at where ``duration`` is given."""
    duration: float | None = None
    """Seconds that every presentation lasts, where the table has no ends."""
    angles: Literal["degrees", "radians"] = "degrees"
    """Unit of the column that becomes ``orientation``."""

    def __post_init__(self) -> None:
        require_numbers(self)
        if self.duration is not None and not self.duration > 0:
            raise ValueError(f"duration must be a positive number of seconds, got {self.duration}.")

    @property
    def needed_columns(self) -> list[str]:
        """Columns that the table must have."""
        ends = [self.end] if self.duration is None else []
        return [self.start, *ends, *self.columns.values()]

    def read(self, stored: Mapping[str, np.ndarray], where: str) -> pd.DataFrame:
        """The presentations in the form of ``Recording.stimuli``, in order of time.

        Every column is read, so that a task may ask for any: under the name that ``columns``
        gives it, else under its own. Those that ``Recording.stimuli`` documents, such as
        ``orientation``, are numbers; any other may be text, of type object, None where it is
        empty. A column that ``columns`` does not name and that has not one number or text per
        row is left out. A table of movie frames without ``repeat`` gets one: a new repeat begins
        wherever the frame number falls back.

        Args:
            stored: The table's columns; :attr:`needed_columns` must be among them.
            where: File and table, for the error.

        Raises:
            RecordingError: If columns are missing, a value is no number where one is needed, or
                a presentation does not end after it starts or overlaps the one before; the row
                is named.
        """
        missing = [name for name in self.needed_columns if name not in stored]
        if missing:
            raise RecordingError(
                f"{where} lacks {', '.join(missing)} (found: {', '.join(map(str, stored))}). "
                "Rename its columns, or name them in the source's stimuli."
            )
        start = as_numbers(stored[self.start], f"{where}: '{self.start}'").astype(np.float64)
        if self.duration is None:
            end = as_numbers(stored[self.end], f"{where}: '{self.end}'").astype(np.float64)
        else:
            end = start + self.duration
        columns = {"start": start, "end": end}
        for ours, theirs in self._taken_columns(stored, len(start), where).items():
            read = as_numbers if ours in OUR_COLUMNS else as_numbers_or_text
            columns[ours] = read(stored[theirs], f"{where}: '{theirs}'")
        if len({len(column) for column in columns.values()}) > 1:
            lengths = ", ".join(f"{name}: {len(column)}" for name, column in columns.items())
            raise RecordingError(f"{where} has columns of different length ({lengths}).")
        table = as_table(columns)
        if self.angles == "radians" and "orientation" in table:
            # rounding would make two classes of one angle
            table["orientation"] = np.rad2deg(table["orientation"]).round(6)
        table = table.sort_values("start", kind="stable")  # NaN last; rows keep their numbers
        _refuse_impossible_times(table, where)
        table = mark_blank_sweeps(table, where)
        for column in COUNTED_FROM.keys() & set(table):
            table[column] = _as_counts(table[column], COUNTED_FROM[column], f"{where}: '{column}'")
        if "movie_frame" in table and "repeat" not in table:
            table["repeat"] = (table["movie_frame"].diff() < 0).cumsum().astype(np.int64)
        warn_of_long_presentations(table, where)
        return table.reset_index(drop=True)

    def _taken_columns(
        self, stored: Mapping[str, np.ndarray], num_rows: int, where: str
    ) -> dict[str, str]:
        """Our names of the columns that are read, besides start and end, to the table's."""
        ours = {name: name for name in OUR_COLUMNS if name in stored} | self.columns
        known = {"start", "end", self.start, self.end, *ours, *ours.values()}
        others = {name: name for name in stored if name not in known}
        odd = [
            name
            for name in others
            if stored[name].shape != (num_rows,) or not holds_numbers_or_text(stored[name].dtype)
        ]
        if odd:
            logger.info("%s: not one number or text per row, left out: %s.", where, ", ".join(odd))
        return ours | {name: name for name in others if name not in odd}


def _refuse_impossible_times(table: pd.DataFrame, where: str) -> None:
    """Checks the presentations, sorted by start; their index is the row in the file."""
    start, end = table["start"].to_numpy(), table["end"].to_numpy()
    bad = np.flatnonzero(~(np.isfinite(start) & np.isfinite(end) & (end > start)))
    if len(bad):
        raise RecordingError(
            f"{where}: row {table.index[bad[0]]} (the first row is 0) starts at {start[bad[0]]} s "
            f"and ends at {end[bad[0]]} s ({len(bad)} such rows). A presentation must end after "
            "it starts: correct or remove such rows."
        )
    # onsets jitter by a few ms, and a duration may be rounded up
    overlapping = np.flatnonzero(start[1:] < (start[:-1] + end[:-1]) / 2)
    if len(overlapping):
        first = overlapping[0]
        raise RecordingError(
            f"{where}: row {table.index[first + 1]} (the first row is 0) starts at "
            f"{start[first + 1]} s, before half of row {table.index[first]} is over (it lasts from "
            f"{start[first]} to {end[first]} s; {len(overlapping)} such rows). Are all times in "
            "seconds, and does the table list one stimulus only?"
        )


def _as_counts(column: pd.Series, smallest: int, what: str) -> np.ndarray:
    """Whole numbers, none below the smallest."""
    values = column.to_numpy()
    bad = np.flatnonzero(~((values == np.rint(values)) & (values >= smallest)))
    if len(bad):
        raise RecordingError(
            f"{what} is {values[bad[0]]} in row {column.index[bad[0]]} (the first row is 0; "
            f"{len(bad)} such rows). It counts in whole numbers from {smallest}."
        )
    return values.astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class FluorescenceConfig:
    """How raw fluorescence becomes ΔF/F, of suite2p and of NWB files without ΔF/F."""

    baseline_percentile: float = 8.0
    """Percentile of the fluorescence in a sliding window that counts as baseline F0."""
    baseline_window: float = 60.0
    """Length of that window in seconds."""

    def __post_init__(self) -> None:
        require_numbers(self)
        problems = []
        if not 0 <= self.baseline_percentile < 100:
            problems.append(
                f"baseline_percentile must lie in [0, 100), got {self.baseline_percentile}."
            )
        if not self.baseline_window > 0:
            problems.append(f"baseline_window must be positive, got {self.baseline_window}.")
        if problems:
            raise ValueError(" ".join(problems))


@dataclass(frozen=True, kw_only=True)
class Suite2pConfig:
    """What of a suite2p folder is read."""

    sampling_rate: float | None = None
    """Imaging rate of the plane in Hz; None takes it from the folder's own settings (``fs`` in
    ``ops.npy`` or ``settings.npy``), which are not opened otherwise."""
    neuropil_factor: float = 0.7
    """Part of the surrounding neuropil's fluorescence that is subtracted."""
    only_cells: bool = True
    """Whether ROIs that ``iscell.npy`` calls no cells are left out."""

    def __post_init__(self) -> None:
        require_numbers(self)
        problems = []
        if self.sampling_rate is not None and not self.sampling_rate > 0:
            problems.append(f"sampling_rate must be positive, got {self.sampling_rate}.")
        if not 0 <= self.neuropil_factor <= 1:
            problems.append(f"neuropil_factor must lie in [0, 1], got {self.neuropil_factor}.")
        if problems:
            raise ValueError(" ".join(problems))


@dataclass(frozen=True, kw_only=True)
class NwbConfig:
    """What of an NWB file is read."""

    series: str | None = None
    """Path of a RoiResponseSeries, or its last parts, such as ``DfOverF/plane_2``; needed only
    where the file holds several, since a recording is one imaging plane."""
    activity: Literal["df_over_f", "fluorescence"] | None = None
    """What the traces are, where their names do not tell: ΔF/F is taken as it is, fluorescence is
    turned into it. None: what the names and units of the series say."""
    only_cells: bool = True
    """Whether ROIs that the table of ROIs calls no cells are left out: by its columns ``Accepted``
    and ``Rejected``, ``iscell``, ``is_cell`` or ``valid_roi``."""
    with_templates: bool = True
    """Whether the pictures of movies and scenes are read. They are most of what travels when a
    file is read over a network; without them no picture can be reconstructed."""

    def __post_init__(self) -> None:
        if self.activity not in (None, "df_over_f", "fluorescence"):
            raise ValueError(f"activity must be df_over_f or fluorescence, got '{self.activity}'.")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """How to read recordings whose layout does not say everything."""

    stimuli: dict[str, StimulusTable] = field(default_factory=dict)
    """Name of a stimulus, as in ``Recording.stimuli``, to the table that lists it. Takes the
    place of a table of that name that the file's layout already tells."""
    fluorescence: FluorescenceConfig = field(default_factory=FluorescenceConfig)
    """For raw fluorescence: suite2p folders, and NWB files without ΔF/F."""
    suite2p: Suite2pConfig = field(default_factory=Suite2pConfig)
    """For suite2p folders."""
    nwb: NwbConfig = field(default_factory=NwbConfig)
    """For NWB files."""
    sessions_apart: bool = False
    """Whether a cell that is tracked across sessions counts as another unit in each of them."""
    event_decay: float = 0.0
    """Activity is events, such as inferred spikes: each decays to 1/e in so many seconds, 0.3 for
    example; 0 leaves activity as it is."""

    def __post_init__(self) -> None:
        require_numbers(self)
        if not self.event_decay >= 0:
            raise ValueError(f"event_decay must be seconds, 0 or more; got {self.event_decay}.")
