"""Skewness and kurtosis of every unit: who is predictable and who is not."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.predictability.moments import Moments, compute_moments
from poyo_ssl.predictability.thresholds import PredictabilityConfig, Thresholds, find_thresholds
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.divide import Divided, DividedRecording
from poyo_ssl.windows.population import Population

logger = logging.getLogger(__name__)

_DEFAULT = PredictabilityConfig()

NORMAL_KURTOSIS = 3.0
"""Pearson's kurtosis of a normal distribution; excess kurtosis is what lies above it."""

_MIN_ROUNDING_STEPS = 4
"""A trace whose whole range is fewer rounding steps than this shows rounding, not activity."""


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

    def select(self, recording: Recording, group: str) -> np.ndarray:
        """The units of a group: ``predictable``, ``unpredictable`` or ``all``.

        Excluded units are in none.

        Returns:
            Booleans of shape (num_units,).
        """
        groups = {
            "predictable": self.is_predictable,
            "unpredictable": self.is_unpredictable,
            "all": lambda recording: ~self.is_excluded(recording),
        }
        if group not in groups:
            raise ValueError(f"Unknown group of units '{group}'. Choose from: {', '.join(groups)}.")
        return groups[group](recording)

    def choose(self, divided: Divided, group: str) -> dict[str, list[str]]:
        """Recording id to the ids of its units of a group, in column order.

        In a recording that validates or tests as a whole nobody is judged: its units are those
        that were chosen in another one.
        """
        is_judged = {d.recording.recording_id: d.whole not in ("valid", "test") for d in divided}
        chosen = {
            r.recording_id: list(r.unit_ids[self.select(r, group)])
            for r in divided.recordings
            if is_judged[r.recording_id]
        }
        known = {unit_id for ids in chosen.values() for unit_id in ids}
        for r in divided.recordings:
            if not is_judged[r.recording_id]:
                chosen[r.recording_id] = [u for u in r.unit_ids.tolist() if u in known]
        return chosen

    def population(self, divided: Divided, group: str) -> Population:
        """The units of a group, of divided recordings, ready to learn from.

        Args:
            divided: Recordings that were partitioned.
            group: ``predictable``, ``unpredictable`` or ``all``.
        """
        return Population(divided, self.choose(divided, group))

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


def compute_predictability(
    df_over_f: np.ndarray, is_inside: np.ndarray | None = None
) -> pd.DataFrame:
    """Measures how regular the activity of each unit is.

    Rare, large calcium transients raise the skewness and kurtosis of a trace; a unit low in both
    is called predictable. Traces are read once and some 30 MB at a time, so they may be larger than
    memory. Statistics are computed in double precision, whatever the traces are stored in.

    Args:
        df_over_f: ΔF/F traces, shape (num_timesteps, num_units), dimensionless: an array, a
            memory map or an ``h5py.Dataset``.
        is_inside: The timesteps to use, booleans of shape (num_timesteps,); all by default.

    Returns:
        One row per unit, in column order: ``skewness``, ``kurtosis`` (Pearson's: a normal
        distribution scores 3) and ``excluded``, the reason why both are NaN, otherwise empty.

    Raises:
        ValueError: If ``df_over_f`` is not two-dimensional or has no units, or ``is_inside`` does
            not fit it.

    References:
        Bae et al., arXiv:2510.18516: low skewness and kurtosis stand for regular activity.
    """
    if df_over_f.ndim != 2:
        raise ValueError(
            "df_over_f must have shape (num_timesteps, num_units), "
            f"got {df_over_f.shape}. For one trace, use df_over_f[:, None]."
        )
    num_timesteps, num_units = df_over_f.shape
    if num_units == 0:
        raise ValueError(f"df_over_f of shape {df_over_f.shape} has no unit to measure.")
    if is_inside is None:
        is_inside = np.ones(num_timesteps, dtype=bool)
    if is_inside.shape != (num_timesteps,) or is_inside.dtype != bool:
        raise ValueError(
            f"is_inside must hold one boolean for each of {num_timesteps} timesteps, "
            f"got {is_inside.dtype} of shape {is_inside.shape}."
        )
    if not is_inside.any():
        nothing = np.full(num_units, np.nan)
        return pd.DataFrame({"skewness": nothing, "kurtosis": nothing, "excluded": "no timesteps"})
    return _describe_units(compute_moments(df_over_f, is_inside), df_over_f.dtype)


def _describe_units(moments: Moments, stored_as: np.dtype) -> pd.DataFrame:
    """Skewness, kurtosis and reason for exclusion of each unit."""
    with np.errstate(invalid="ignore", over="ignore"):
        span = moments.maximum - moments.minimum
        largest = np.maximum(np.abs(moments.minimum), np.abs(moments.maximum))
        rounding_step = np.spacing(largest.astype(stored_as)) if stored_as.kind == "f" else 0.0
        is_rounding = span < _MIN_ROUNDING_STEPS * rounding_step
    kind = np.select(
        [moments.num_non_finite > 0, span == 0, is_rounding],
        ["non-finite values", "constant", "only rounding"],
        default="",
    )
    excluded = [
        f"{reason} ({count})" if count else str(reason)
        for reason, count in zip(kind, moments.num_non_finite, strict=True)
    ]
    skewness, kurtosis = (
        np.where(kind == "", statistic, np.nan)
        for statistic in (moments.skewness, moments.kurtosis)
    )
    return pd.DataFrame({"skewness": skewness, "kurtosis": kurtosis, "excluded": excluded})


def measure_units(
    recording: Recording, intervals: np.ndarray, config: PredictabilityConfig
) -> pd.DataFrame:
    """Measures every unit of a recording on its training time alone.

    Args:
        recording: The recording.
        intervals: Training intervals in seconds, shape (num_intervals, 2), half-open.
        config: Which kurtosis to measure, and what is too short.

    Returns:
        One row per unit in column order: the columns of :attr:`Partition.units` except
        ``is_predictable``.
    """
    is_inside = recording.is_inside(intervals)
    num_timesteps = int(is_inside.sum())
    statistics = compute_predictability(recording.df_over_f, is_inside)
    if num_timesteps < config.min_timesteps:
        statistics["excluded"] = f"too short ({num_timesteps} timesteps)"
        statistics[["skewness", "kurtosis"]] = np.nan
    if config.is_excess_kurtosis:
        statistics["kurtosis"] -= NORMAL_KURTOSIS
    labels = recording.units.reindex(columns=["cre_line", "area", "imaging_depth_um"])
    labels = labels.astype({"cre_line": object, "area": object, "imaging_depth_um": float})
    units = pd.concat([labels.reset_index(drop=True), statistics], axis=1)
    units.insert(0, "recording_id", recording.recording_id)
    units.insert(1, "unit_id", recording.unit_ids)
    units.insert(5, "num_timesteps", num_timesteps)
    return units


def partition_units(
    units: pd.DataFrame, thresholds: Thresholds, config: PredictabilityConfig
) -> pd.DataFrame:
    """Adds ``is_predictable``, judged unit by unit or line by line; False when excluded.

    Raises:
        ValueError: If lines are judged but a unit has none.
    """
    if config.by == "unit":
        is_predictable = thresholds.are_met(units)
    else:
        without_line = units[units["cre_line"].isna()]
        if len(without_line):
            raise ValueError(
                f"{len(without_line)} of {len(units)} units have no cre_line (first: unit "
                f"'{without_line['unit_id'].iloc[0]}' of recording "
                f"'{without_line['recording_id'].iloc[0]}'), so they cannot be judged by line. "
                "Set by='unit', or fill cre_line in the recording's table of units."
            )
        line_means = thresholds.line_means
        kept = line_means.loc[thresholds.are_met(line_means), "cre_line"]
        is_predictable = units["cre_line"].isin(kept).to_numpy()
    is_predictable = is_predictable & (units["excluded"] == "").to_numpy()
    partitioned = units.drop(columns="is_predictable", errors="ignore")
    partitioned.insert(partitioned.shape[1] - 1, "is_predictable", is_predictable)
    return partitioned


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
    divided = list(divided)
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
    """The same of recordings and intervals of one's own.

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
        _check_some_are_predictable(partition.units, partition.thresholds, config, len(recordings))
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
    _report_tracked_cells(units)
    return Partition(units=units, thresholds=thresholds, config=config)


def _report_tracked_cells(units: pd.DataFrame) -> None:
    """Says how many cells measured in several recordings change sides between them."""
    verdicts = units[units["excluded"] == ""].groupby("unit_id")["is_predictable"]
    is_tracked = verdicts.size() > 1
    if is_tracked.any():
        logger.info(
            "%d cells were measured in several recordings; %d of them are predictable in some "
            "and unpredictable in others",
            is_tracked.sum(),
            verdicts.mean().between(0, 1, inclusive="neither").sum(),
        )


def _check_some_are_predictable(
    units: pd.DataFrame,
    thresholds: Thresholds,
    config: PredictabilityConfig,
    num_recordings: int,
) -> None:
    if units["is_predictable"].any():
        return
    nobody = f"No unit of {num_recordings} recordings is predictable ({thresholds}); "
    measured = units[units["excluded"] == ""]
    if measured.empty:
        counts = _count_reasons(units)
        raise ValueError(
            f"{nobody}all {len(units)} units were excluded: "
            f"{', '.join(f'{count} {reason}' for reason, count in counts.items())}. "
            "Check the traces, or lower min_timesteps."
        )
    if config.by == "line":
        means = ", ".join(
            f"{line} {skewness:.1f} and {kurtosis:.1f}"
            for line, skewness, kurtosis in thresholds.line_means[
                ["cre_line", "skewness", "kurtosis"]
            ].itertuples(index=False)
        )
        raise ValueError(
            f"{nobody}units are judged by the mean skewness and kurtosis of their Cre line "
            f"({means or 'no line is known'}). Set by: unit to judge each by itself, or raise "
            "skewness_max and kurtosis_max."
        )
    raise ValueError(
        f"{nobody}the lowest skewness is {measured['skewness'].min():.1f}, the lowest kurtosis "
        f"{measured['kurtosis'].min():.1f}. Raise skewness_max or kurtosis_max, or check that the "
        "traces are ΔF/F."
    )


def _count_reasons(units: pd.DataFrame) -> dict[str, int]:
    """Kind of reason, without the detail in brackets, to the number of units excluded for it."""
    reasons = units.loc[units["excluded"] != "", "excluded"].str.replace(r" \(.*", "", regex=True)
    return {str(reason): int(count) for reason, count in reasons.value_counts().items()}


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
        "excluded_reasons": _count_reasons(units),
        "line_means": thresholds.line_means.to_dict(orient="records"),
        "knee_lines": dict(thresholds.knee_lines),
        "knee_bootstrap": asdict(thresholds.knee_bootstrap) if thresholds.knee_bootstrap else None,
    }
