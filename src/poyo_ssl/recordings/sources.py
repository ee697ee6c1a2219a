"""What a file does not say about itself, told by its owner: how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from poyo_ssl.recordings.recording import RecordingError


@dataclass(frozen=True, kw_only=True)
class StimulusTable:
    """Where the presentations of one stimulus are listed, and under which names."""

    table: str
    """NWB: path of a TimeIntervals table, such as ``intervals/trials``. Other sources: a CSV or
    TSV file, relative to the folder that the recording lies in."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our name of a column to the table's, such as ``orientation: direction_deg``."""
    start: str = "start_time"
    """Column with the onsets in seconds."""
    end: str = "stop_time"
    """Column with the ends in seconds; not looked at where ``duration`` is given."""
    duration: float | None = None
    """Seconds that every presentation lasts, where the table has no ends."""

    def __post_init__(self) -> None:
        if self.duration is not None and not self.duration > 0:
            raise ValueError(f"duration must be a positive number of seconds, got {self.duration}.")

    @property
    def needed_columns(self) -> list[str]:
        """Columns that the table must have."""
        ends = [self.end] if self.duration is None else []
        return [self.start, *ends, *self.columns.values()]

    def read(self, stored: Mapping[str, np.ndarray], where: str) -> pd.DataFrame:
        """The presentations in the form of ``Recording.stimuli``, in order of time.

        Args:
            stored: The table's columns; all of :attr:`needed_columns` are read.
            where: File and table, for the error.

        Raises:
            RecordingError: If columns are missing or the times are no numbers.
        """
        missing = [name for name in self.needed_columns if name not in stored]
        if missing:
            raise RecordingError(
                f"{where} lacks {', '.join(missing)} (found: {', '.join(map(str, stored))}). "
                "Name its columns in the source's stimuli."
            )
        try:
            start = np.asarray(stored[self.start], dtype=np.float64)
            end = (
                np.asarray(stored[self.end], dtype=np.float64)
                if self.duration is None
                else start + self.duration
            )
        except (TypeError, ValueError) as error:
            raise RecordingError(
                f"{where}: the times in '{self.start}' are no numbers ({error}). Give seconds."
            ) from error
        values = {ours: np.asarray(stored[theirs]) for ours, theirs in self.columns.items()}
        table = pd.DataFrame({"start": start, "end": end, **values})
        return table.sort_values("start", kind="stable", ignore_index=True)


@dataclass(frozen=True, kw_only=True)
class Suite2pConfig:
    """How fluorescence of suite2p becomes ΔF/F."""

    sampling_rate: float | None = None
    """Imaging rate in Hz; None takes it from the folder's own settings (``ops.npy``)."""
    neuropil_factor: float = 0.7
    """Part of the surrounding neuropil's fluorescence that is subtracted."""
    baseline_percentile: float = 8.0
    """Percentile of the fluorescence in a sliding window that counts as baseline F0."""
    baseline_window: float = 60.0
    """Length of that window in seconds."""
    only_cells: bool = True
    """Whether ROIs that ``iscell.npy`` calls no cells are left out."""

    def __post_init__(self) -> None:
        problems = []
        if self.sampling_rate is not None and not self.sampling_rate > 0:
            problems.append(f"sampling_rate must be positive, got {self.sampling_rate}.")
        if not 0 <= self.neuropil_factor <= 1:
            problems.append(f"neuropil_factor must lie in [0, 1], got {self.neuropil_factor}.")
        if not 0 <= self.baseline_percentile < 100:
            problems.append(
                f"baseline_percentile must lie in [0, 100), got {self.baseline_percentile}."
            )
        if not self.baseline_window > 0:
            problems.append(f"baseline_window must be positive, got {self.baseline_window}.")
        if problems:
            raise ValueError(" ".join(problems))


@dataclass(frozen=True, kw_only=True)
class NwbConfig:
    """Which traces of an NWB file are read."""

    series: str | None = None
    """Path of a RoiResponseSeries, or its last parts, such as ``DfOverF/plane_2``; needed only
    where the file holds several, since a recording is one imaging plane."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """How to read recordings whose layout does not say everything."""

    stimuli: dict[str, StimulusTable] = field(default_factory=dict)
    """Name of a stimulus, as in ``Recording.stimuli``, to the table that lists it. Takes the
    place of a table of that name that the file's layout already tells."""
    suite2p: Suite2pConfig = field(default_factory=Suite2pConfig)
    """For suite2p folders."""
    nwb: NwbConfig = field(default_factory=NwbConfig)
    """For NWB files."""
    sessions_apart: bool = False
    """Whether a cell that is tracked across sessions counts as another unit in each of them."""
