"""From events to the table of presentations of a stimulus."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from poyo_ssl.recordings.columns import as_numbers_or_text
from poyo_ssl.recordings.recording import RecordingError

logger = logging.getLogger(__name__)

LATEST_ONSET = 1.0
"""Seconds after the start of a presentation in which an event may say that it was really there."""
_OURS = ("name", "start", "end")


def find_presentations(
    log: pd.DataFrame,
    stimulus: str,
    *,
    columns: Sequence[str] | None = None,
    duration: float | None = None,
    onset: str | None = None,
    zero: float | str = 0.0,
) -> pd.DataFrame:
    r"""The presentations of a stimulus among the events of a log.

    Args:
        log: As :func:`read_event_log` gives it.
        stimulus: Regular expression that the whole name of its events matches; what its named
            groups match become columns: ``degrees_(?P<orientation>\d+)``.
        columns: Columns of the log to keep; None keeps all that are not empty.
        duration: Seconds that each lasts, where the log has no ends or other ones.
        onset: Name of an event that says when the stimulus was really there, such as that of a
            photodiode: the first one within ``LATEST_ONSET`` of each start, and before the next
            start, takes its place. Where there is none, the start is delayed as that of the others
            is, with a warning.
        zero: Time of the first imaging frame on the log's clock: seconds, or the name of an event,
            whose first one counts.

    Returns:
        One row a presentation in order of time: ``start`` and ``end`` in seconds since ``zero``,
        then the columns. It is a table of ``Recording.stimuli``; written as CSV, one that a
        source's ``stimuli`` names.

    Raises:
        RecordingError: If no event matches, a group or one of ``columns`` has a name that it
            cannot have, ends are missing or not after starts, or ``onset`` or ``zero`` never
            happened.
    """
    lacking = [name for name in ("name", "start", "end") if name not in log]
    if lacking:
        raise RecordingError(
            f"This is no log of events: it lacks {', '.join(lacking)} (found: "
            f"{', '.join(map(str, log))}). Give what read_event_log returns."
        )
    pattern = _compile(stimulus)
    _require_columns(log, columns)
    matches = [pattern.fullmatch(name) for name in log["name"].astype(str)]
    is_shown = np.array([match is not None for match in matches], dtype=bool)
    if not is_shown.any():
        raise RecordingError(
            f"No event is called '{stimulus}' (found: {_names(log)}). It must match the whole name."
        )
    shown = log[is_shown].reset_index(drop=True)
    groups = pd.DataFrame([match.groupdict() for match in matches if match is not None])
    first = _time_of(log, zero)
    start = shown["start"].to_numpy(np.float64)
    if onset is not None:
        start = _onsets(log, shown, onset)
    end = shown["end"].to_numpy(np.float64) if duration is None else start + duration
    if np.isnan(end).any():
        raise RecordingError(
            f"{int(np.isnan(end).sum())} of {len(end)} events '{stimulus}' have no end in the log. "
            "Give the duration of a presentation in seconds."
        )
    if not (end > start).all():
        raise RecordingError(
            f"{int((end <= start).sum())} of {len(end)} events '{stimulus}' would end before they "
            "begin. Give the duration of a presentation in seconds, larger than 0."
        )
    kept = shown[list(columns)] if columns is not None else shown.drop(columns=list(_OURS))
    kept = kept.drop(columns=[name for name in groups if name in kept])
    table = {"start": start - first, "end": end - first}
    for name, values in [*groups.items(), *kept.items()]:
        read = as_numbers_or_text(values.to_numpy(), f"Column '{name}' of '{stimulus}'")
        if columns is not None or not pd.isna(read).all():
            table[str(name)] = read
    return pd.DataFrame(table).sort_values("start", kind="stable", ignore_index=True)


def _compile(stimulus: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(stimulus)
    except re.error as error:
        raise RecordingError(f"'{stimulus}' is no regular expression: {error}.") from error
    if taken := [group for group in pattern.groupindex if group in _OURS]:
        raise RecordingError(
            f"A group of '{stimulus}' is called '{taken[0]}', as a column is that every table has. "
            "Give it another name."
        )
    return pattern


def _require_columns(log: pd.DataFrame, columns: Sequence[str] | None) -> None:
    known = [str(name) for name in log if name not in _OURS]
    if lacking := [name for name in columns or () if name not in known]:
        raise RecordingError(
            f"The log has no column {', '.join(lacking)} beside its names and times (found: "
            f"{', '.join(known) or 'none'}). Leave it out, or take it from the names of events "
            "with a named group."
        )


def _names(log: pd.DataFrame) -> str:
    counts = log["name"].value_counts()
    listed = ", ".join(f"{name} ({count})" for name, count in counts.head(12).items())
    return listed + (" and more" if len(counts) > 12 else "")


def _time_of(log: pd.DataFrame, zero: float | str) -> float:
    if not isinstance(zero, str):
        return float(zero)
    times = log.loc[log["name"] == zero, "start"]
    if times.empty:
        raise RecordingError(f"No event '{zero}' in the log (found: {_names(log)}).")
    return float(times.min())


def _onsets(log: pd.DataFrame, shown: pd.DataFrame, onset: str) -> np.ndarray:
    """Start of each presentation as the first event of that name says, (num_presentations,)."""
    times = np.sort(log.loc[log["name"] == onset, "start"].to_numpy(np.float64))
    start = shown["start"].to_numpy(np.float64)
    delay = np.append(times, np.nan)[np.searchsorted(times, start)] - start
    starts = np.unique(start)
    next_start = np.append(starts, np.inf)[np.searchsorted(starts, start, side="right")]
    is_seen = (delay <= LATEST_ONSET) & (start + delay < next_start)
    if not is_seen.any():
        raise RecordingError(
            f"No presentation is followed by an event '{onset}' within {LATEST_ONSET:g} s (found: "
            f"{_names(log)})."
        )
    usual = float(np.median(delay[is_seen]))
    if not is_seen.all():
        without = shown["name"][~is_seen].value_counts()
        logger.warning(
            "%d of %d presentations have no event '%s' within %g s (%s): was it shown? They are "
            "taken to begin %.3f s after their start, as the others do.",
            int((~is_seen).sum()),
            len(start),
            onset,
            LATEST_ONSET,
            ", ".join(f"{name}: {count}" for name, count in without.items()),
            usual,
        )
    return start + np.where(is_seen, delay, usual)
