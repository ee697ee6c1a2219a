"""What was shown, and what the numbers that describe it can mean."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

logger = logging.getLogger(__name__)

LONGEST_DURATION = 3.0
"""Times the usual duration that a presentation can last where blocks of trials are found."""
PARAMETERS = ("orientation", "temporal_frequency", "spatial_frequency", "phase")
"""Columns that have no value in a blank sweep."""
BLANK_FLAGS = ("is_blank_sweep", "blank_sweep", "is_blank", "blank")
"""Columns that are 1 in a blank sweep."""
_LARGEST_ANGLE = 720.0
_STEP_OF_ANGLES = 2.5  # degrees; experiments show multiples of it
_ROUNDING = 0.3  # degrees; of radians with two decimals
_FEWEST_ANGLES = 3


def mark_blank_sweeps(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """The presentations with NaN as parameters, and -1 as image, of blank sweeps.

    Blank sweeps are those that a column such as ``is_blank_sweep`` says are, those of contrast 0,
    those whose image has no number, and those of orientation -1 among angles that are not
    negative and multiples of five degrees. Of flags and contrasts that are text nothing is known,
    and a warning says so.
    """
    table = table.copy()
    for name in (*BLANK_FLAGS, "contrast"):
        if name in table and not _is_numeric(table, name) and table[name].notna().any():
            logger.warning(
                "%s: '%s' holds text, such as '%s', so it does not tell which presentations are "
                "blank sweeps. Write numbers (%s), or another name if it means something else.",
                where, name, table[name].dropna().iloc[0],
                "0 in a blank sweep" if name == "contrast" else "1 in a blank sweep, else 0",
            )  # fmt: skip
    reasons = {
        name: table[name].to_numpy() == 1 for name in BLANK_FLAGS if _is_numeric(table, name)
    }
    if _is_numeric(table, "contrast") and (table["contrast"] != 0).any():
        reasons["contrast 0"] = table["contrast"].to_numpy() == 0
    if _is_numeric(table, "orientation"):
        angles = table["orientation"].to_numpy()
        others = angles[np.isfinite(angles) & (angles != -1)]
        if len(others) and (others >= 0).all() and (np.mod(others, 5) == 0).all():
            reasons["orientation -1"] = angles == -1
    is_blank = np.zeros(len(table), dtype=bool)
    for reason, said in reasons.items():
        if said.any():
            logger.info("%s: %d of %d are blank sweeps: %s.", where, said.sum(), len(said), reason)
        is_blank |= said
    for name in PARAMETERS:
        if _is_numeric(table, name) and is_blank.any():
            table[name] = table[name].astype(np.float64).mask(is_blank)
    if _is_numeric(table, "image"):
        table["image"] = table["image"].mask(is_blank | table["image"].isna(), -1)
    return table


def warn_of_long_presentations(table: pd.DataFrame, what: str) -> None:
    """Warns of a few presentations that last far longer than the others.

    The last one of a block does so where its end was taken from the next block.
    """
    durations = (table["end"] - table["start"]).to_numpy()
    usual = float(np.median(durations)) if len(durations) else 0.0
    long = np.flatnonzero(durations > LONGEST_DURATION * usual)
    if 0 < len(long) <= max(1, 0.1 * len(durations)):
        rows = ", ".join(f"{table.index[row]} ({durations[row]:.4g} s)" for row in long[:5])
        logger.warning(
            "%s: %d of %d presentations last more than %g times as long as usual (%.4g s): rows "
            "%s, the first row is 0. Where blocks of trials begin and end, they count as if they "
            "lasted %g times as long. Correct their ends if they are wrong.",
            what, len(long), len(durations), LONGEST_DURATION, usual, rows, LONGEST_DURATION,
        )  # fmt: skip


def problem_of_angles(table: pd.DataFrame) -> str | None:
    """What is wrong where orientations are no angles in degrees; None if nothing is.

    Args:
        table: Presentations in order of time, with ``start`` in seconds.
    """
    if not _is_numeric(table, "orientation"):
        return None
    angles = table["orientation"].to_numpy(dtype=np.float64)
    absurd = np.flatnonzero(np.isinf(angles) | (np.abs(angles) > _LARGEST_ANGLE))
    if len(absurd):
        return _describe_angle(table, int(absurd[0])) + (
            f"{len(absurd)} such rows), which is no angle in degrees. Correct it, or leave it "
            "empty in a blank sweep."
        )
    if _are_radians(angles):
        return _describe_angle(table, int(np.nanargmax(np.abs(angles)))) + (
            "the largest), as if angles were in radians. Give degrees: np.rad2deg, or angles: "
            "radians in the source's stimuli."
        )
    return None


def _describe_angle(table: pd.DataFrame, row: int) -> str:
    return (
        f"row {row} has orientation {table['orientation'].iloc[row]:.6g} "
        f"(at {table['start'].iloc[row]:.6g} s; "
    )


def _are_radians(angles: np.ndarray) -> bool:
    """Whether angles are fractions of pi that no one would show as degrees."""
    shown = np.unique(np.abs(angles[np.isfinite(angles) & (angles != 0)]))
    if (
        len(shown) < _FEWEST_ANGLES
        or shown[-1] > 2 * np.pi + 0.01
        or (np.mod(shown, 0.5) == 0).all()
    ):
        return False
    degrees = np.rad2deg(shown)
    nearest = _STEP_OF_ANGLES * np.rint(degrees / _STEP_OF_ANGLES)
    return bool(np.all(np.abs(degrees - nearest) < _ROUNDING))


def _is_numeric(table: pd.DataFrame, name: str) -> bool:
    return name in table and pd.api.types.is_numeric_dtype(table[name])
