"""Cells that were imaged in several sessions and have one unit id in all of them."""

from __future__ import annotations

from dataclasses import replace

from poyo_ssl.recordings.recording import Recording


def with_own_units(recording: Recording) -> Recording:
    """The same session with units of its own, as if none of its cells were tracked.

    Unit ids become ``<recording_id>/<unit_id>``. What learned from several sessions then has an
    embedding, and linear weights, for every cell in every session: the control for what tracking
    cells is worth, and the remedy where their identity across sessions is in doubt. A decoder
    fitted on such units knows none of another session.
    """
    unit_ids = [f"{recording.recording_id}/{unit_id}" for unit_id in recording.unit_ids]
    return replace(recording, units=recording.units.assign(unit_id=unit_ids))
