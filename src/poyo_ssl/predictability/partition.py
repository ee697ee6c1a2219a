"""Recordings whose units are divided into predictable and unpredictable ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.kinds_of_arguments import as_list
from poyo_ssl.predictability.thresholds import PredictabilityConfig, Thresholds, find_thresholds
from poyo_ssl.predictability.unit_statistics import TOO_SHORT, measure_units
from poyo_ssl.predictability.verdicts import (
    count_reasons,
    partition_units,
    report_tracked_cells,
    require_predictable,
)
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.divide import MADE_BY, Divided, DividedRecording
from poyo_ssl.windows.population import Population

logger = logging.getLogger(__name__)

_DEFAULT = PredictabilityConfig()


@dataclass(frozen=True, kw_only=True, eq=False)
class Partition:
    """Which units of which recordings are predictable.

    The verdict is on what a unit did in a recording, not on the cell: one that is tracked across
    sessions can be predictable on one day and not on another. Pretraining then sees the cell on
    the first day, and fine-tuning on the other day begins with the embedding that it got there.
    No test time leaks by this, as the days share no time and both stages keep to training time;
    but the two stages share cells, and the log (level INFO) says how many. ``sessions_apart`` in
    :class:`poyo_ssl.recordings.sources.SourceConfig` keeps the stages disjoint.
    """

    units: pd.DataFrame
    """One row per unit of every recording, in column order; ``units.to_csv`` writes all of it.
    Columns: ``recording_id``, ``unit_id``, ``cre_line``, ``area``, ``imaging_depth_um``,
    ``num_timesteps`` (measured ones), ``skewness``, ``kurtosis``, ``is_predictable`` and
    ``excluded`` (why a unit has no statistics; empty where it has)."""
    thresholds: Thresholds
    config: PredictabilityConfig

    def is_predictable(self, recording: Recording) -> np.ndarray:
        """Which units of a recording are predictable, shape (num_units,)."""
        return self._rows(recording)["is_predictable"].to_numpy(dtype=bool)

    def is_excluded(self, recording: Recording) -> np.ndarray:
        """Which units of a recording could not be measured, shape (num_units,)."""
        return (self._rows(recording)["excluded"] != "").to_numpy(dtype=bool)

    def is_unpredictable(self, recording: Recording) -> np.ndarray:
        """Which units are neither predictable nor excluded, shape (num_units,)."""
        return ~self.is_predictable(recording) & ~self.is_excluded(recording)

    def is_decodable(self, recording: Recording) -> np.ndarray:
        """Which units have activity to decode, judged or not, shape (num_units,)."""
        excluded = self._rows(recording)["excluded"]
        return ((excluded == "") | excluded.str.startswith(TOO_SHORT)).to_numpy(dtype=bool)

    def select(self, recording: Recording, group: str) -> np.ndarray:
        """The units of a group: ``predictable``, ``unpredictable`` or ``all``.

        Excluded units are in none, save that ``all`` has those of too short a recording.

        Returns:
            Booleans of shape (num_units,).
        """
        return find_group(group)(self, recording)

    def choose(self, divided: Divided, group: str) -> dict[str, list[str]]:
        """Recording id to the ids of its units of a group, in column order.

        In a recording that validates or tests as a whole nobody is judged: its units are those
        that were chosen in another one.
        """
        chosen = {
            d.recording.recording_id: list(d.recording.unit_ids[self.select(d.recording, group)])
            for d in divided
            if not d.is_held_out
        }
        known = {unit_id for ids in chosen.values() for unit_id in ids}
        for d in divided:
            if d.is_held_out:
                unit_ids = d.recording.unit_ids.tolist()
                chosen[d.recording.recording_id] = [u for u in unit_ids if u in known]
        return chosen

    def population(self, divided: Divided, group: str) -> Population:
        """The units of a group, of divided recordings, ready to learn from.

        Args:
            divided: Recordings that were partitioned.
            group: ``predictable``, ``unpredictable`` or ``all``.

        Raises:
            RecordingError: If nobody is in the group.
        """
        chosen = self.choose(divided, group)
        if not any(chosen.values()):
            raise RecordingError(
                f"No unit of {len(chosen)} recordings is of the group '{group}': there are "
                f"{str(self)[1:-1]}. Take all units (units: all), or set other thresholds "
                "(skewness_max, kurtosis_max)."
            )
        return Population(divided, chosen)

    def __repr__(self) -> str:
        counts = summarize_partition(self)
        return (
            f"<{counts['num_predictable']} predictable and {counts['num_unpredictable']} "
            f"unpredictable units, {counts['num_excluded']} excluded ({self.thresholds})>"
        )

    def _rows(self, recording: Recording) -> pd.DataFrame:
        rows = self.units[self.units["recording_id"] == recording.recording_id]
        rows = rows.set_index("unit_id")
        unknown = [unit for unit in recording.unit_ids if unit not in rows.index]
        if unknown:
            raise ValueError(
                f"The partition lacks {len(unknown)} of the {recording.num_units} units of "
                f"recording '{recording.recording_id}', such as {', '.join(unknown[:3])}; it "
                f"covers {self.units['recording_id'].nunique()} recordings. "
                "Partition again with this recording."
            )
        return rows.loc[recording.unit_ids]


GROUPS: dict[str, Callable[[Partition, Recording], np.ndarray]] = {
    "unpredictable": Partition.is_unpredictable,
    "predictable": Partition.is_predictable,
    "all": Partition.is_decodable,
}
"""Name of a group of units to who of a recording belongs to it, booleans (num_units,)."""


def find_group(name: str) -> Callable[[Partition, Recording], np.ndarray]:
    """Who belongs to a group of units.

    Raises:
        ValueError: If there is no such group.
    """
    if name not in GROUPS:
        raise ValueError(f"Unknown group of units '{name}'. Choose from: {', '.join(GROUPS)}.")
    return GROUPS[name]


def partition_by_predictability(
    divided: Iterable[DividedRecording],
    config: PredictabilityConfig = _DEFAULT,
    *,
    may_be_empty: bool = False,
) -> Partition:
    """Divides the units of recordings into predictable and unpredictable ones.

    Only time is looked at that neither validates nor tests what the recordings were divided for.

    Args:
        divided: Recordings and their parts; see :func:`poyo_ssl.windows.divide.divide`.
        config: Which units count as predictable.
        may_be_empty: Whether nobody needs to be predictable, where nothing is pretrained.

    Raises:
        ValueError: If recordings share an id, or no unit is predictable.
    """
    divided = as_list(divided, DividedRecording, MADE_BY)
    return partition_recordings(
        [d.recording for d in divided],
        {d.recording.recording_id: d.training for d in divided},
        config,
        may_be_empty=may_be_empty,
    )


def partition_recordings(
    recordings: Sequence[Recording],
    intervals_by_recording: Mapping[str, np.ndarray],
    config: PredictabilityConfig,
    *,
    may_be_empty: bool = False,
) -> Partition:
    """The same for given recordings and intervals.

    Args:
        recordings: What was recorded.
        intervals_by_recording: Recording id to its training intervals in seconds, shape
            (num_intervals, 2), as :func:`poyo_ssl.windows.splits.training_intervals` gives
            them; nothing else is looked at.
        config: Which units count as predictable.
        may_be_empty: Whether nobody needs to be predictable.

    Raises:
        ValueError: If recordings share an id or lack intervals, or no unit is predictable.
    """
    recording_ids = [recording.recording_id for recording in recordings]
    twice = sorted({name for name in recording_ids if recording_ids.count(name) > 1})
    missing = sorted(set(recording_ids) - set(intervals_by_recording))
    problems = []
    if not recording_ids:
        problems.append("There are no recordings to partition; load at least one.")
    if twice:
        problems.append(f"Recordings must have ids of their own; shared: {', '.join(twice)}.")
    if missing:
        problems.append(
            f"{len(missing)} of {len(recording_ids)} recordings have no training intervals: "
            f"{', '.join(missing[:5])}. Add them to intervals_by_recording."
        )
    if problems:
        raise ValueError(" ".join(problems))
    units = pd.concat(
        [
            measure_units(recording, intervals_by_recording[recording.recording_id], config)
            for recording in recordings
        ],
        ignore_index=True,
    )
    partition = partition_measured(units, config)
    if not may_be_empty:
        require_predictable(partition.units, partition.thresholds, config, len(recordings))
    return partition


def partition_measured(units: pd.DataFrame, config: PredictabilityConfig) -> Partition:
    """Divides units that :func:`measure_units` measured; perhaps nobody is predictable.

    Raises:
        ValueError: If knees are asked for and there are none, or lines are judged but a unit has
            none.
    """
    thresholds = find_thresholds(units, config)
    units = partition_units(units, thresholds, config)
    logger.info(
        "%d of %d units are predictable (%s), %d excluded",
        units["is_predictable"].sum(),
        len(units),
        thresholds,
        (units["excluded"] != "").sum(),
    )
    report_tracked_cells(units)
    return Partition(units=units, thresholds=thresholds, config=config)


def summarize_partition(partition: Partition) -> dict[str, Any]:
    """The partition in numbers, ready for JSON."""
    units, thresholds, config = partition.units, partition.thresholds, partition.config
    is_excluded = units["excluded"] != ""
    return {
        "skewness_max": thresholds.skewness_max,
        "kurtosis_max": thresholds.kurtosis_max,
        "threshold_source": thresholds.source,
        "by": config.by,
        "kurtosis_definition": "excess (normal: 0)"
        if config.is_excess_kurtosis
        else "Pearson (normal: 3)",
        "num_recordings": int(units["recording_id"].nunique()),
        "num_units": len(units),
        "num_predictable": int(units["is_predictable"].sum()),
        "num_unpredictable": int((~units["is_predictable"] & ~is_excluded).sum()),
        "num_excluded": int(is_excluded.sum()),
        "excluded_reasons": count_reasons(units),
        "line_means": thresholds.line_means.to_dict(orient="records"),
        "knee_lines": dict(thresholds.knee_lines),
        "knee_bootstrap": asdict(thresholds.knee_bootstrap) if thresholds.knee_bootstrap else None,
    }
