"""Who is predictable, in a table of measured units: verdicts, and what there is to say of them."""

from __future__ import annotations

import logging

import pandas as pd

from poyo_ssl.predictability.thresholds import PredictabilityConfig, Thresholds

logger = logging.getLogger(__name__)


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


def report_tracked_cells(units: pd.DataFrame) -> None:
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


def require_predictable(
    units: pd.DataFrame,
    thresholds: Thresholds,
    config: PredictabilityConfig,
    num_recordings: int,
) -> None:
    """Refuses a partition in which nobody is predictable; the message says how far off they are.

    Raises:
        ValueError: If no unit is predictable.
    """
    if units["is_predictable"].any():
        return
    nobody = f"No unit of {num_recordings} recordings is predictable ({thresholds}); "
    measured = units[units["excluded"] == ""]
    if measured.empty:
        counts = count_reasons(units)
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


def count_reasons(units: pd.DataFrame) -> dict[str, int]:
    """Kind of reason, without the detail in brackets, to the number of units excluded for it."""
    reasons = units.loc[units["excluded"] != "", "excluded"].str.replace(r" \(.*", "", regex=True)
    return {str(reason): int(count) for reason, count in reasons.value_counts().items()}
