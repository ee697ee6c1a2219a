"""Which units an encoder is pretrained on, so that diets can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd

from poyo_ssl.predictability.partition import Partition
from poyo_ssl.recordings.recording import Recording, RecordingError

INHIBITORY_LINES = ("Sst", "Vip", "Pvalb")
"""Cre lines of interneurons among the 13 of Bae et al., arXiv:2510.18516."""

Diet = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]
"""From the included units of all recordings (rows of ``Partition.units``) to those learned from."""


def take_predictable(units: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Units that pass both thresholds."""
    return units[units["is_predictable"].astype(bool)]


def take_unpredictable(units: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Units that fail a threshold: the reverse of the published recipe."""
    return units[~units["is_predictable"].astype(bool)]


def take_all(units: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Every included unit."""
    return units


def take_random(units: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """A random sample, in every recording as many units as are predictable there."""
    counts = units.groupby("recording_id", sort=False)["is_predictable"].sum()
    parts = [
        _draw(rows, int(counts[name]), rng)
        for name, rows in units.groupby("recording_id", sort=False)
    ]
    return pd.concat(parts)


def take_random_across(units: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """A random sample over all recordings, in all as many units as are predictable."""
    return _draw(units, len(take_predictable(units, rng)), rng)


def take_mixed(units: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Half predictable and half unpredictable units, in all as many as are predictable."""
    predictable, unpredictable = take_predictable(units, rng), take_unpredictable(units, rng)
    num_predictable = len(predictable) // 2
    num_unpredictable = len(predictable) - num_predictable
    if num_unpredictable > len(unpredictable):
        raise RecordingError(
            f"The diet 'mixed' needs {num_unpredictable} unpredictable units beside "
            f"{num_predictable} predictable ones; found {len(unpredictable)}. Pretrain on more "
            "recordings, or choose another diet."
        )
    return pd.concat(
        [_draw(predictable, num_predictable, rng), _draw(unpredictable, num_unpredictable, rng)]
    )


def take_inhibitory(units: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Units of interneuron lines, predictable or not."""
    return units[is_of_lines(units, INHIBITORY_LINES)]


DIETS: Mapping[str, Diet] = MappingProxyType(
    {
        "predictable": take_predictable,
        "unpredictable": take_unpredictable,
        "all": take_all,
        "random": take_random,
        "random across": take_random_across,
        "mixed": take_mixed,
        "inhibitory": take_inhibitory,
    }
)
"""Name of a diet to what it takes."""


def find_diet(name: str) -> Diet:
    """The diet of that name.

    Raises:
        ValueError: If there is none; the message lists those there are.
    """
    if name not in DIETS:
        raise ValueError(f"Unknown diet '{name}'. Choose from: {', '.join(DIETS)}.")
    return DIETS[name]


def is_of_lines(units: pd.DataFrame, lines: tuple[str, ...]) -> pd.Series:
    """Which units are of a Cre line, by its full name or the part before the first dash."""
    known = units["cre_line"].astype("string")
    return known.isin(lines) | known.str.split("-").str[0].isin(lines)


def choose_units(
    diet: str,
    partition: Partition,
    recordings: list[Recording],
    *,
    seed: int,
    lines: tuple[str, ...] = (),
) -> dict[str, list[str]]:
    """The units of some recordings that a diet takes.

    Args:
        diet: A name of :data:`DIETS`.
        partition: Who is predictable and who is excluded; excluded units are in no diet.
        recordings: Those to take units from.
        seed: Seed of the random draws, for the diets that have any.
        lines: Cre lines to take units from, such as ``Sst`` or ``Sst-IRES-Cre``; none: all.

    Returns:
        Recording id to unit ids in column order; recordings without any are left out.

    Raises:
        RecordingError: If the diet is empty or cannot be filled.
        ValueError: If there is no such diet.
    """
    take = find_diet(diet)
    names = [recording.recording_id for recording in recordings]
    units = partition.units
    units = units[units["recording_id"].isin(names) & (units["excluded"] == "")]
    if lines:
        units = units[is_of_lines(units, lines)]
    taken = units
    if not units.empty:
        taken = take(units, np.random.default_rng([seed, 0xD1E7])).sort_index()
    if taken.empty:
        raise RecordingError(_describe_empty(diet, partition, names, lines))
    groups = taken.groupby("recording_id", sort=False)["unit_id"]
    return {str(name): [str(unit) for unit in ids] for name, ids in groups}


def _draw(units: pd.DataFrame, number: int, rng: np.random.Generator) -> pd.DataFrame:
    return units.iloc[rng.permutation(len(units))[:number]]


def _describe_empty(
    diet: str, partition: Partition, names: list[str], lines: tuple[str, ...]
) -> str:
    units = partition.units[partition.units["recording_id"].isin(names)]
    included = units[units["excluded"] == ""]
    found = sorted(included["cre_line"].dropna().astype(str).unique())
    wanted = f" of the lines {', '.join(lines)}" if lines else ""
    return (
        f"The diet '{diet}'{wanted} takes no unit of {len(names)} recordings to pretrain on: "
        f"{int(included['is_predictable'].sum())} of {len(included)} included units are "
        f"predictable (Cre lines: {', '.join(found) or 'none known'}). Choose another diet, or "
        "pretrain on other recordings."
    )
