"""How many units change side when the thresholds are moved a little, and which ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from poyo_ssl.predictability.partition import Partition
from poyo_ssl.predictability.thresholds import Thresholds
from poyo_ssl.predictability.verdicts import partition_units

CHANGES = (-0.2, -0.1, 0.1, 0.2)
"""Relative changes of a threshold."""
MOVED = {
    "skewness": ("skewness_max",),
    "kurtosis": ("kurtosis_max",),
    "both": ("skewness_max", "kurtosis_max"),
}
"""Name of a variation to the thresholds that it moves."""
ALL_UNITS = "all units"
UNKNOWN_LINE = "unknown line"

_LISTED = [
    "moved",
    "change",
    "recording_id",
    "unit_id",
    "cre_line",
    "skewness",
    "kurtosis",
    "becomes_predictable",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sensitivity:
    """What becomes of a partition when its thresholds are moved."""

    counts: pd.DataFrame
    """One row per variation and Cre line, and one for :data:`ALL_UNITS`: ``moved`` (skewness,
    kurtosis or both), ``change`` (relative), ``cre_line``, ``num_units`` (those with statistics),
    ``num_predictable`` (after the change), ``num_gained`` (units that become predictable) and
    ``num_lost`` (units that no longer are)."""
    changed_units: pd.DataFrame
    """One row per variation and unit that changes side: ``moved``, ``change``, ``recording_id``,
    ``unit_id``, ``cre_line``, ``skewness``, ``kurtosis`` and ``becomes_predictable``."""

    @property
    def share_changed(self) -> pd.Series:
        """Part of all units that change side, by ``moved`` and ``change``."""
        rows = self.counts[self.counts["cre_line"] == ALL_UNITS].set_index(["moved", "change"])
        return (rows["num_gained"] + rows["num_lost"]) / rows["num_units"]


def vary_thresholds(partition: Partition, changes: Sequence[float] = CHANGES) -> Sensitivity:
    """Divides the units again with each threshold alone, and then both, raised and lowered.

    Units, or whole Cre lines, are judged again as the partition judged them; knees are not looked
    for again, which :func:`poyo_ssl.predictability.knees.bootstrap_knees` does.

    Args:
        partition: Measured units and their thresholds.
        changes: Relative changes: 0.1 raises a threshold by a tenth of its size.

    Raises:
        ValueError: If a change is not finite, or there is none.
    """
    if not len(changes) or not np.all(np.isfinite(changes)):
        raise ValueError(
            f"changes must be one or more finite numbers such as {CHANGES}, got {tuple(changes)}."
        )
    counts, changed = [], []
    for moved in MOVED:
        for change in changes:
            units = _judge_again(partition, _move(partition.thresholds, moved, change))
            units = units.assign(moved=moved, change=change)
            counts.append(_count_sides(units))
            changed.append(units[units["is_gained"] | units["is_lost"]])
    changed_units = pd.concat(changed, ignore_index=True)
    return Sensitivity(
        counts=pd.concat(counts, ignore_index=True),
        changed_units=changed_units.rename(columns={"is_gained": "becomes_predictable"})[_LISTED],
    )


def _move(thresholds: Thresholds, moved: str, change: float) -> Thresholds:
    """The thresholds with one or both moved; a positive change raises them, whatever their sign."""
    values = {name: getattr(thresholds, name) for name in MOVED[moved]}
    return replace(
        thresholds, **{name: value + change * abs(value) for name, value in values.items()}
    )


def _judge_again(partition: Partition, thresholds: Thresholds) -> pd.DataFrame:
    """Units with statistics, their new ``is_predictable``, and who was gained or lost."""
    before = partition.units["is_predictable"]
    units = partition_units(partition.units, thresholds, partition.config)
    after = units["is_predictable"]
    return units.assign(is_gained=after & ~before, is_lost=before & ~after)[units["excluded"] == ""]


def _count_sides(units: pd.DataFrame) -> pd.DataFrame:
    """Units, predictable, gained and lost ones of every Cre line, and of all, in one variation."""
    by_line = units.assign(cre_line=units["cre_line"].fillna(UNKNOWN_LINE))
    everything = units.assign(cre_line=ALL_UNITS)
    tables = [
        table.groupby(["moved", "change", "cre_line"], observed=True, as_index=False).agg(
            num_units=("unit_id", "size"),
            num_predictable=("is_predictable", "sum"),
            num_gained=("is_gained", "sum"),
            num_lost=("is_lost", "sum"),
        )
        for table in (by_line, everything)
    ]
    return pd.concat(tables, ignore_index=True)
