"""Recordings and predictions as objects of pynapple; needs the extra ``poyo-ssl[pynapple]``."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.export.predictions import only_task
from poyo_ssl.extras import import_extra
from poyo_ssl.kinds_of_arguments import require_kind
from poyo_ssl.recordings.recording import Recording, RecordingError

logger = logging.getLogger(__name__)

_APART = 1e-6
"""Seconds between intervals that would touch; pynapple rounds to nanoseconds."""
_DECODER = ("recording", "arm", "units", "labels", "seed", "fold")


def to_pynapple(given: Recording | pd.DataFrame) -> Any:
    """A recording, or predictions of one decoder, as objects of pynapple.

    A recording becomes a dict: ``df_over_f``, a ``TsdFrame`` whose columns are unit ids, whose
    metadata is what is known of the units and whose ``time_support`` is the stretches that were
    imaged; every stimulus, an ``IntervalSet`` with its columns as metadata; every other time
    series, a ``TsdFrame``. Presentations that last until the next one, or longer, end a microsecond
    before it, as an ``IntervalSet`` needs; where they really overlap, a warning says so.

    Predictions become a ``TsdFrame`` at the onsets of the trials: log-probability of every class
    where the answers are classes, else ``truth`` and ``answer``.

    Args:
        given: A recording, or ``evaluate(...).predictions`` of one decoder and recording.

    Raises:
        ImportError: If pynapple is missing.
        RecordingError: If two presentations of a stimulus start at once.
        TypeError: If something else is given, such as a list of recordings.
        ValueError: If the predictions are of several tasks, decoders or recordings.
    """
    pynapple = import_extra("pynapple", "pynapple", "An object of pynapple")
    require_kind(
        given,
        (Recording, pd.DataFrame),
        "Give one recording, or the predictions of evaluate(...).",
    )
    if isinstance(given, Recording):
        return _recording(pynapple, given)
    return _predictions(pynapple, given)


def _recording(nap: Any, recording: Recording) -> dict[str, Any]:
    imaged = nap.IntervalSet(
        start=recording.timestamps[recording.segments[:, 0]],
        end=recording.timestamps[recording.segments[:, 1] - 1],
    )
    found = {
        "df_over_f": nap.TsdFrame(
            t=recording.timestamps,
            d=recording.df_over_f,
            columns=recording.unit_ids,
            time_support=imaged,
            metadata=_metadata(recording.units, "unit_id").set_axis(recording.unit_ids),
        )
    }
    for name, table in recording.stimuli.items():
        found[name] = _intervals(nap, name, table)
    for name, table in recording.time_series.items():
        values = table.drop(columns="timestamp")
        found[name] = nap.TsdFrame(
            t=table["timestamp"].to_numpy(), d=values.to_numpy(float), columns=list(values)
        )
    return found


def _intervals(nap: Any, name: str, table: pd.DataFrame) -> Any:
    """Presentations in order; those of an ``IntervalSet`` never touch."""
    table = table.sort_values("start", kind="stable")
    start, end = table["start"].to_numpy(), table["end"].to_numpy(copy=True)
    latest = start[1:] - _APART
    together = np.flatnonzero(latest <= start[:-1])
    if len(together):
        raise RecordingError(
            f"'{name}' cannot become an IntervalSet: presentations {together[0]} and "
            f"{together[0] + 1} (the first is 0) both start at {start[together[0]]} s "
            f"({len(together)} such pairs). Leave one of each out, or make two tables of it."
        )
    is_cut = end[:-1] - latest > 2 * _APART
    if is_cut.any():
        logger.warning(
            "%d of %d presentations of '%s' overlap the next one. In an IntervalSet they end "
            "before it, up to %.3g s early.",
            is_cut.sum(), len(table), name, (end[:-1] - latest).max(),
        )  # fmt: skip
    end[:-1] = np.minimum(end[:-1], latest)
    return nap.IntervalSet(start=start, end=end, metadata=_metadata(table, "start", "end"))


def _metadata(table: pd.DataFrame, *others: str) -> pd.DataFrame:
    return table.drop(columns=list(others)).reset_index(drop=True)


def _predictions(nap: Any, table: pd.DataFrame) -> Any:
    several = [name for name in _DECODER if len(table[name].unique()) > 1]
    if several:
        found = "; ".join(
            f"{name}: {', '.join(map(str, table[name].unique()[:5]))}" for name in several
        )
        raise ValueError(
            f"These are predictions of several decoders or recordings ({found}). Choose one: "
            f"table[table['{several[0]}'] == ...]."
        )
    predictions = only_task(table)
    columns = predictions.columns
    answers = {name: columns[name] for name in ("truth", "answer") if name in columns}
    if predictions.classes:
        names, values = predictions.classes, predictions.log_probability
    else:
        names, values = list(answers), np.stack(list(answers.values()), axis=1)
    order = np.argsort(columns["onset"], kind="stable")
    return nap.TsdFrame(t=columns["onset"][order], d=values[order], columns=names)
