"""Up to which skewness and kurtosis a unit is predictable: published numbers, or knees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from poyo_ssl.predictability.knees import STATISTICS, KneeBootstrap, bootstrap_knees, locate_knee

_MIN_LINES_FOR_KNEE = 4
"""A knee needs a flat part, a steep part and a point between them; 3 lines cannot show one."""


@dataclass(frozen=True, kw_only=True)
class PredictabilityConfig:
    """Which units count as predictable."""

    skewness_max: float = 3.51
    """Largest skewness of a predictable unit, or Cre line (Bae et al., arXiv:2510.18516)."""
    kurtosis_max: float = 22.62
    """Largest kurtosis of a predictable unit, or Cre line (Bae et al., arXiv:2510.18516)."""
    is_excess_kurtosis: bool = False
    """Whether kurtosis is measured, and ``kurtosis_max`` meant, as excess kurtosis (normal: 0).
    The paper does not say which its 22.62 is. Pearson's (normal: 3) is the stricter reading:
    it calls nobody predictable whom the other would not."""
    threshold_source: Literal["published", "knee"] = "published"
    """``published`` takes the two numbers above; ``knee`` finds them in the means of the Cre lines
    at hand (Satopaa et al. 2011), as the paper did on 13 lines."""
    by: Literal["unit", "line"] = "unit"
    """Whether each unit is judged by itself, or all units of a Cre line by the line's mean."""
    min_timesteps: int = 900
    """Units with fewer training timesteps are excluded: rare transients are missed in a short
    trace, so every unit looks predictable. In 900 timesteps (30 s at 30 Hz) of an Allen session
    six of seven unpredictable units already do; ten minutes or more are wanted."""

    def __post_init__(self) -> None:
        problems = []
        if not (np.isfinite(self.skewness_max) and self.skewness_max > 0):
            problems.append(f"skewness_max must be positive, got {self.skewness_max}.")
        if not (np.isfinite(self.kurtosis_max) and self.kurtosis_max > 0):
            problems.append(f"kurtosis_max must be positive, got {self.kurtosis_max}.")
        if self.threshold_source not in ("published", "knee"):
            problems.append(
                f"threshold_source must be 'published' or 'knee', got '{self.threshold_source}'."
            )
        if self.by not in ("unit", "line"):
            problems.append(f"by must be 'unit' or 'line', got '{self.by}'.")
        if self.min_timesteps < 2:
            problems.append(f"min_timesteps must be at least 2, got {self.min_timesteps}.")
        if problems:
            raise ValueError(" ".join(problems))


@dataclass(frozen=True, kw_only=True, eq=False)
class Thresholds:
    """The largest statistics of a predictable unit or line, and where they come from."""

    skewness_max: float
    kurtosis_max: float
    source: Literal["published", "knee"]
    line_means: pd.DataFrame
    """``cre_line``, ``skewness``, ``kurtosis`` and ``num_units`` of every known line, by
    increasing kurtosis; means over the units that are not excluded."""
    knee_lines: Mapping[str, str] = field(default_factory=dict)
    """Statistic to the Cre line whose mean is the knee; empty where thresholds were given."""
    knee_bootstrap: KneeBootstrap | None = None
    """How sure the knees are; None where thresholds were given."""

    def are_met(self, statistics: pd.DataFrame) -> np.ndarray:
        """Which rows have both ``skewness`` and ``kurtosis`` within the thresholds."""
        is_met = (statistics["skewness"] <= self.skewness_max) & (
            statistics["kurtosis"] <= self.kurtosis_max
        )
        return is_met.to_numpy(dtype=bool)

    def __str__(self) -> str:
        return f"skewness <= {self.skewness_max:.4g}, kurtosis <= {self.kurtosis_max:.4g}"


def find_thresholds(units: pd.DataFrame, config: PredictabilityConfig) -> Thresholds:
    """The configured thresholds, or the knees in the sorted means of the Cre lines.

    Args:
        units: Measured units of all recordings, as :func:`measure_units` returns them.
        config: Where the thresholds come from.

    Raises:
        ValueError: If knees are asked for but there are too few lines, or their means rise
            without a knee.

    References:
        Satopaa et al. 2011 (kneedle), as used by Bae et al., arXiv:2510.18516.
    """
    measured = units[units["excluded"] == ""]
    line_means = (
        measured.groupby("cre_line", observed=True)
        .agg(
            skewness=("skewness", "mean"),
            kurtosis=("kurtosis", "mean"),
            num_units=("unit_id", "size"),
        )
        .sort_values("kurtosis")
        .reset_index()
    )
    if config.threshold_source == "published":
        return Thresholds(
            skewness_max=config.skewness_max,
            kurtosis_max=config.kurtosis_max,
            source="published",
            line_means=line_means,
        )
    if len(line_means) < _MIN_LINES_FOR_KNEE:
        found = ", ".join(line_means["cre_line"].astype(str)) or "none"
        raise ValueError(
            f"Knee detection needs the means of at least {_MIN_LINES_FOR_KNEE} Cre lines, found "
            f"{len(line_means)} ({found}). Set threshold_source='published', and by='unit' to "
            "judge each unit by itself."
        )
    knees = {name: _find_knee(line_means, name) for name in STATISTICS}
    return Thresholds(
        skewness_max=float(knees["skewness"]["skewness"]),
        kurtosis_max=float(knees["kurtosis"]["kurtosis"]),
        source="knee",
        line_means=line_means,
        knee_lines={name: str(line["cre_line"]) for name, line in knees.items()},
        knee_bootstrap=bootstrap_knees(units),
    )


def _find_knee(line_means: pd.DataFrame, statistic: str) -> pd.Series:
    """The last line before the sorted means of a statistic turn steeply upwards."""
    ordered = line_means.sort_values(statistic, ignore_index=True)
    means = ordered[statistic].to_numpy()
    knee = locate_knee(means)
    if knee is None:
        raise ValueError(
            f"The mean {statistic} of the {len(means)} Cre lines rises without a knee "
            f"({', '.join(f'{mean:.3g}' for mean in means)}). Set threshold_source='published'."
        )
    return ordered.iloc[knee]
