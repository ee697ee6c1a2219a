"""One form for the logs of all programs: what happened, from when to when."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.stimulus_logs.bonsai import BONSAI
from poyo_ssl.recordings.stimulus_logs.bpod import BPOD
from poyo_ssl.recordings.stimulus_logs.log_form import LogForm, read_start
from poyo_ssl.recordings.stimulus_logs.psychopy import PSYCHOPY
from poyo_ssl.recordings.stimulus_logs.pycontrol import PYCONTROL, PYCONTROL_TABLE

FORMS: tuple[LogForm, ...] = (BPOD, PYCONTROL, PYCONTROL_TABLE, PSYCHOPY, BONSAI)
"""Every log that is read; where several recognise a file, the first one reads it."""


def read_event_log(path: str | Path) -> pd.DataFrame:
    """Reads what a program logged while it showed stimuli.

    - pyControl, ``.txt`` and ``.tsv``: every state, which ends when the next one begins, and
      every event.
    - PsychoPy, ``.csv``: every component with ``.started``, and the columns of its row without a
      point in their name, such as ``orientation``.
    - Bpod, ``.mat`` (not of MATLAB 7.3): every state that was visited, every event, and what
      ``SessionData`` has for each trial (``TrialTypes`` and such).
    - Bonsai, ``.csv``, and any other with times in a column that is called so, else in the first
      one that holds numbers or ISO 8601: the first other column of text names what happened;
      further ones are kept.

    Args:
        path: The log; what it holds tells which program wrote it.

    Returns:
        One row an event, in order of time: ``name``, ``start`` and ``end`` in seconds of the log's
        own clock (``end`` is NaN where it has none), and the columns that the program adds.

    Raises:
        RecordingError: If it is none of these, or is damaged.
    """
    path = Path(path)
    beginning = read_start(path)
    for form in FORMS:
        if form.recognises(beginning):
            log = form.read(path)
            if not len(log):
                raise RecordingError(f"'{path}' ({form.name}) lists no event.")
            return log.sort_values("start", kind="stable", ignore_index=True)
    raise RecordingError(
        f"'{path}' is no log that is read: {', '.join(form.name for form in FORMS)}. Write its "
        "events as CSV with one line of column names: time in seconds, name, and any others."
    )
