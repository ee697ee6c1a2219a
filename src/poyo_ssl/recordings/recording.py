"""One imaging session: a grid of ΔF/F, the cells it was recorded from, and what was shown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from poyo_ssl.kinds_of_arguments import as_list, require_kind
from poyo_ssl.recordings.imaging_times import GAP, problem_of_times
from poyo_ssl.recordings.presentations import problem_of_angles

RATE_TOLERANCE = 0.02
"""Imaging rates that differ by this part are still one rate: clocks drift and samples jitter."""


class RecordingError(ValueError):
    """A recording that cannot be used; the message says what was found and what to do."""


def is_one_rate(*rates: float) -> bool:
    """Whether imaging rates (Hz) differ by ``RATE_TOLERANCE`` at most."""
    return max(rates) <= (1 + RATE_TOLERANCE) * min(rates)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Recording:
    """One two-photon imaging session.

    Every unit is sampled at every timestep, so the activity is a grid and stays one all the way
    to the model. Imaging may pause: a gap between two timesteps splits the recording into
    ``segments``, and no window may cross one.
    """

    recording_id: str
    """Text that identifies the session, such as ``527745328-StimA``."""
    df_over_f: np.ndarray
    """ΔF/F, shape (num_timesteps, num_units), float32, dimensionless."""
    timestamps: np.ndarray
    """Time of every imaging sample, shape (num_timesteps,), seconds, increasing."""
    units: pd.DataFrame
    """One row per unit in column order: ``unit_id`` and, where known (None otherwise),
    ``cre_line``, ``area`` and ``imaging_depth_um``; some have the centre of the ROI in the field of
    view, ``x_px`` and ``y_px``."""
    stimuli: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Stimulus name to table: one row per presentation with ``start`` and ``end`` in seconds.

    - ``drifting_gratings``: ``orientation`` (degrees), ``temporal_frequency`` (Hz),
      ``spatial_frequency`` (cycles per degree); NaN in a blank sweep
    - ``static_gratings``: ``orientation``, ``spatial_frequency``, ``phase``; NaN in a blank sweep
    - ``natural_movie_*``: ``movie_frame`` (0-based), ``repeat`` (0-based)
    - ``natural_scenes``: ``image`` (0-based; -1 in a blank sweep)
    - ``locally_sparse_noise*``: ``image`` (0-based)
    """
    templates: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Stimulus name to the grey pictures shown, shape (num_pictures, height, width), uint8."""
    running: pd.DataFrame | None = None
    """``timestamp`` (s) and ``speed`` (cm/s), where recorded."""
    pupil: pd.DataFrame | None = None
    """``timestamp`` (s), ``x``, ``y`` and ``size`` in the source's units, where recorded."""
    series: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Name of any other time series to its samples: ``timestamp`` (s, increasing) and columns of
    numbers, ``value`` where there is one, else ``value_0``, ``value_1``, ... or names of one's
    own; NaN where missing."""
    subject_id: str | None = None
    """The mouse."""
    container_id: str | None = None
    """The set of sessions that imaged the same field of view, where known."""
    session_type: str | None = None
    """What the source calls the session's stimulus set, such as ``three_session_A``."""
    source: str | None = None
    """The file or the simulation that the recording came from."""
    warnings: tuple[str, ...] = ()
    """What was warned of when it was read, each once."""

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            origin = f" from '{self.source}'" if self.source else ""
            raise RecordingError(f"Recording '{self.recording_id}'{origin}: " + " ".join(problems))

    def __repr__(self) -> str:
        minutes = float(np.diff(self.segment_intervals, axis=1).sum()) / 60
        return (
            f"<recording {self.recording_id!r}: {self.num_units} units, {minutes:.1f} min at "
            f"{self.sampling_rate:.4g} Hz; {', '.join(self.stimuli) or 'no stimulus'}>"
        )

    def _problems(self) -> Iterator[str]:
        if self.df_over_f.ndim != 2:
            yield (
                "df_over_f must have shape (num_timesteps, num_units), "
                f"got {self.df_over_f.shape}. For one trace, use df_over_f[:, None]."
            )
            return
        if not self.recording_id:
            yield "it has no recording_id. Give it a name."
        yield from self._problems_of_times()
        yield from self._problems_of_units()
        for name, table in self.stimuli.items():
            yield from _problems_of_presentations(name, table)
        for name, samples in self.series.items():
            yield from _problems_of_series(name, samples)

    def _problems_of_times(self) -> Iterator[str]:
        if self.timestamps.shape != (self.num_timesteps,):
            yield _explain_number_of_times(self.df_over_f.shape, self.timestamps.shape)
            return
        if self.num_timesteps < 2:
            yield f"it has {self.num_timesteps} timesteps; at least two are needed."
            return
        problem = problem_of_times(self.timestamps)
        if problem is not None:
            yield problem

    def _problems_of_units(self) -> Iterator[str]:
        if "unit_id" not in self.units or len(self.units) != self.num_units:
            yield (
                f"df_over_f has {self.num_units} units but the table of units has "
                f"{len(self.units)} rows and columns {list(self.units.columns)}; one row per unit "
                "with a unit_id is needed."
            )
        elif (self.units["unit_id"] == "").any():
            row = int(np.flatnonzero(self.units["unit_id"] == "")[0])
            yield f"unit {row} (the first is 0) has no unit_id. Name every unit, or none."
        elif self.units["unit_id"].duplicated().any():
            twice = self.units.loc[self.units["unit_id"].duplicated(), "unit_id"].unique()
            yield (
                f"unit ids must be unique; twice or more: {', '.join(map(str, twice[:5]))}. If "
                "these are different cells, number them anew; if not, keep one trace of each."
            )

    @property
    def num_timesteps(self) -> int:
        """Imaging samples."""
        return self.df_over_f.shape[0]

    @property
    def num_units(self) -> int:
        """Recorded cells."""
        return self.df_over_f.shape[1]

    @property
    def unit_ids(self) -> np.ndarray:
        """Text name of every unit in column order, shape (num_units,)."""
        return self.units["unit_id"].to_numpy(dtype=str)

    @cached_property
    def sampling_rate(self) -> float:
        """Imaging rate in Hz: the inverse of the median interval between samples."""
        return float(1.0 / np.median(np.diff(self.timestamps)))

    @cached_property
    def segments(self) -> np.ndarray:
        """Runs of timesteps without a gap, shape (num_segments, 2): first timestep, one past last.

        A gap is an interval of more than one and a half sampling periods.
        """
        gaps = np.flatnonzero(np.diff(self.timestamps) > GAP / self.sampling_rate) + 1
        edges = np.concatenate([[0], gaps, [self.num_timesteps]])
        return np.stack([edges[:-1], edges[1:]], axis=1)

    @cached_property
    def segment_intervals(self) -> np.ndarray:
        """The segments in seconds, shape (num_segments, 2): each sample lasts one period."""
        first, stop = self.segments.T
        return np.stack(
            [self.timestamps[first], self.timestamps[stop - 1] + 1.0 / self.sampling_rate], axis=1
        )

    @property
    def time_series(self) -> dict[str, pd.DataFrame]:
        """Every time series by name: ``timestamp`` in seconds and columns of values."""
        named = {"running": self.running, "pupil": self.pupil, **self.series}
        return {name: table for name, table in named.items() if table is not None}

    def stimulus(self, name: str) -> pd.DataFrame:
        """The table of one stimulus.

        Raises:
            RecordingError: If the stimulus was not shown in this recording.
        """
        if name not in self.stimuli:
            found = ", ".join(sorted(self.stimuli)) or "no stimulus at all"
            raise RecordingError(
                f"Recording '{self.recording_id}' has no {name} (found: {found}). "
                "Choose another recording or stimulus."
            )
        return self.stimuli[name]

    def timestep_at(self, times: np.ndarray) -> np.ndarray:
        """The first timestep at or after each time (s); half a period of tolerance for jitter."""
        return np.searchsorted(self.timestamps, np.asarray(times) - 0.5 / self.sampling_rate)

    def is_inside(self, intervals: np.ndarray) -> np.ndarray:
        """Which timesteps lie in any of the intervals.

        Args:
            intervals: Start and end in seconds, shape (num_intervals, 2), half-open.

        Returns:
            Booleans of shape (num_timesteps,).
        """
        inside = np.zeros(self.num_timesteps, dtype=bool)
        for start, end in intervals:
            first, stop = np.searchsorted(self.timestamps, [start, end])
            inside[first:stop] = True
        return inside

    def fingerprint(self) -> str:
        """A digest of traces and timestamps: equal for the same recording, whatever its file."""
        digest = hashlib.sha256(np.ascontiguousarray(self.timestamps).data)
        digest.update(np.ascontiguousarray(self.df_over_f).data)
        return digest.hexdigest()

    def with_own_units(self) -> Recording:
        """The same session with units of its own, as if none of its cells were tracked.

        Unit ids become ``<recording_id>/<unit_id>``. What learned from several sessions then has
        an embedding, and linear weights, for every cell in every session: the control for what
        tracking cells is worth, and the remedy where their identity across sessions is in doubt.
        A decoder fitted on such units knows none of another session.
        """
        unit_ids = [f"{self.recording_id}/{unit_id}" for unit_id in self.unit_ids]
        return replace(self, units=self.units.assign(unit_id=unit_ids))


_MADE_BY = "load_recordings(path) reads a list of them, recording_from_arrays makes one."


def require_recording(given: Recording) -> None:
    """Checks that one recording is given.

    Raises:
        TypeError: If it is something else, such as a list of recordings.
    """
    require_kind(given, Recording, _MADE_BY)


def as_recordings(given: Recording | Iterable[Recording]) -> list[Recording]:
    """Recordings as a list; one alone is taken, too.

    Raises:
        TypeError: If they are something else, such as paths.
    """
    return as_list(given, Recording, _MADE_BY)


def _explain_number_of_times(traces: tuple[int, ...], times: tuple[int, ...]) -> str:
    """What to do about traces (num_timesteps, num_units) that have not as many timestamps."""
    found = f"df_over_f has {traces[0]} timesteps but timestamps has shape {times}."
    if times == (traces[1],):
        return f"{found} If ΔF/F is units x timesteps, transpose it."
    if len(times) != 1:
        return f"{found} One time in seconds per timestep is needed, shape ({traces[0]},)."
    more = times[0] - traces[0]
    return (
        f"{found} There are {abs(more)} {'too many' if more > 0 else 'too few'}: find out which "
        "samples they belong to (frames lost at the end, or a trigger before the first one), "
        f"and give {traces[0]} times."
    )


def _problems_of_presentations(name: str, table: pd.DataFrame) -> Iterator[str]:
    missing = {"start", "end"} - set(table.columns)
    if missing:
        yield (
            f"stimulus table '{name}' lacks {sorted(missing)} (found: "
            f"{', '.join(map(str, table.columns)) or 'nothing'}); both are needed, in seconds."
        )
        return
    start, end = table["start"].to_numpy(), table["end"].to_numpy()
    backwards = np.flatnonzero(~(end > start))
    if len(backwards):
        row = backwards[0]
        yield (
            f"row {row} of '{name}' does not end after it starts: it lasts from {start[row]} to "
            f"{end[row]} s ({len(backwards)} such rows). Correct or remove such rows."
        )
    problem = problem_of_angles(table)
    if problem is not None:
        yield f"stimulus table '{name}': {problem}"


def _problems_of_series(name: str, samples: pd.DataFrame) -> Iterator[str]:
    values = [column for column in samples if column != "timestamp"]
    if "timestamp" not in samples or not values or samples.empty:
        yield (
            f"series '{name}' has {len(samples)} samples and columns {list(samples.columns)}; "
            "timestamp (seconds), at least one column of values and one sample are needed."
        )
        return
    texts = [str(column) for column in samples if samples[column].dtype.kind not in "biuf"]
    if texts:
        yield f"series '{name}' must hold numbers, but {', '.join(texts)} does not."
        return
    times = samples["timestamp"].to_numpy()
    bad = np.flatnonzero(~np.isfinite(times) | (np.diff(times, prepend=-np.inf) <= 0))
    if len(bad):
        before = f" after {times[bad[0] - 1]:.6g} s" if bad[0] else ""
        yield (
            f"the timestamps of series '{name}' must be finite and strictly increasing, but row "
            f"{bad[0]} is at {times[bad[0]]:.6g} s{before} ({len(bad)} such rows). Correct or "
            "remove such rows."
        )
