"""Recordings and predictions as objects of pynapple; needs the extra ``poyo-ssl[pynapple]``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.export.predictions import only_task
from poyo_ssl.kinds_of_arguments import require_kind
from poyo_ssl.recordings.recording import Recording

_DECODER = ("recording", "arm", "units", "labels", "seed", "fold")


def to_pynapple(given: Recording | pd.DataFrame) -> Any:
    """A recording, or predictions of one decoder, as objects of pynapple.

    A recording becomes a dict: ``df_over_f``, a ``TsdFrame`` whose columns are unit ids, whose
    metadata is what is known of the units and whose ``time_support`` is the stretches that were
    imaged; every stimulus, an ``IntervalSet`` with its columns as metadata; every other time
    series, a ``TsdFrame``. Presentations that follow each other without a pause end a microsecond
    before the next one, as an ``IntervalSet`` needs.

    Predictions become a ``TsdFrame`` at the onsets of the trials: log-probability of every class
    where the answers are classes, else ``truth`` and ``answer``.

    Args:
        given: A recording, or ``evaluate(...).predictions`` of one decoder and recording.

    Raises:
        ImportError: If pynapple is missing.
        ValueError: If the predictions are of several tasks, decoders or recordings.
    """
    try:
        import pynapple
    except ImportError as error:
        raise ImportError(
            "Objects of pynapple need pynapple: pip install 'poyo-ssl[pynapple]'."
        ) from error
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
        found[name] = _intervals(nap, table)
    for name, table in recording.time_series.items():
        values = table.drop(columns="timestamp")
        found[name] = nap.TsdFrame(
            t=table["timestamp"].to_numpy(), d=values.to_numpy(float), columns=list(values)
        )
    return found


def _intervals(nap: Any, table: pd.DataFrame) -> Any:
    start, end = table["start"].to_numpy(), table["end"].to_numpy(copy=True)
    end[:-1] = np.minimum(end[:-1], start[1:] - 1e-6)
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
