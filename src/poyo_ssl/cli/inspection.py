"""What is in a recording, in words and numbers that a person can check at a glance."""

from __future__ import annotations

import numpy as np
import pandas as pd

from poyo_ssl.clock.check import ClockCheck
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.tasks import TASKS, can_answer

_FEW = 6
"""Distinct values that are listed one by one."""


def summarize_recording(recording: Recording) -> dict[str, str]:
    """What the recording is, by name of the fact; what is not known is left out."""
    return {
        "recording": recording.recording_id,
        **_summarize_origin(recording),
        "units": _summarize_units(recording),
        "imaging": _summarize_imaging(recording),
        "ΔF/F": _summarize_activity(recording),
        "running": _summarize_samples(recording, recording.running),
        "pupil": _summarize_samples(recording, recording.pupil),
        "can decode": _summarize_tasks(recording),
    }


def summarize_series(recording: Recording) -> dict[str, str]:
    """Every time series besides running and pupil by name; a line for each column."""
    return {name: _summarize_samples(recording, table) for name, table in recording.series.items()}


def summarize_stimuli(recording: Recording) -> dict[str, str]:
    """Every stimulus by name, in order of its first presentation; a line for each column."""
    by_start = sorted(recording.stimuli.items(), key=lambda item: item[1]["start"].min())
    return {name: _summarize_stimulus(recording, name, table) for name, table in by_start}


def with_clock(stimuli: dict[str, str], checks: list[ClockCheck]) -> dict[str, str]:
    """The stimuli with a line each on the units that respond, and what is wrong with the clock."""
    told = dict(stimuli)
    for check in checks:
        lines = [check.summary] if check.summary else []
        if check.warning:
            lines.append(f"WARNING: {check.warning} --clock_pictures DIR draws it.")
        told[check.stimulus] = "\n".join([told[check.stimulus], *lines])
    return told


def _summarize_stimulus(recording: Recording, name: str, table: pd.DataFrame) -> str:
    columns = table.drop(columns=["start", "end"])
    num_blank = int(_is_blank(name, columns).sum())
    first, last = (table[["start", "end"]].to_numpy() - recording.timestamps[0])[[0, -1], [0, 1]]
    blank = f", {num_blank} blank" if num_blank else ""
    facts = [f"{len(table)} presentations{blank}, {first / 60:.1f} to {last / 60:.1f} min"]
    facts += _summarize_columns(columns)
    if name in recording.templates:
        facts.append(f"pictures {' x '.join(map(str, recording.templates[name].shape))}")
    return "\n".join(facts)


def _summarize_tasks(recording: Recording) -> str:
    able = [name for name, task in TASKS.items() if can_answer(recording, task)]
    known = {TASKS[name].stimulus for name in able}
    askable = [
        f"{name}/{columns[0]}"
        for name, table in {**recording.stimuli, **recording.time_series}.items()
        if name not in known
        and len(columns := table.columns.drop(["start", "end", "timestamp"], errors="ignore"))
    ]
    if able or askable:
        by_column = f"any column, such as {askable[0]}" if askable else ""
        return "\n".join(filter(None, [", ".join(able), by_column]))
    lacking = {
        f"{task.stimulus}/{task.column}"
        for task in TASKS.values()
        if task.stimulus in recording.stimuli
        and task.column not in recording.stimuli[task.stimulus]
    }
    problem = f"it lacks {', '.join(sorted(lacking))}" if lacking else "it has no known stimulus"
    return f"nothing: {problem}.\nA source can name the tables that list stimuli (--source)."


def _summarize_origin(recording: Recording) -> dict[str, str]:
    units = recording.units
    facts = {
        "mouse": recording.subject_id,
        "container": recording.container_id,
        "session type": recording.session_type,
    }
    for name, column in (("Cre line", "cre_line"), ("area", "area"), ("depth", "imaging_depth_um")):
        known: list[object] = units[column].dropna().unique().tolist() if column in units else []
        unit = " µm" if name == "depth" else ""
        facts[name] = ", ".join(f"{_number(value)}{unit}" for value in known)
    return {name: fact for name, fact in facts.items() if fact}


def _summarize_units(recording: Recording) -> str:
    ids = recording.unit_ids
    return f"{len(ids)} ({ids[0]} to {ids[-1]})" if len(ids) else "none"


def _summarize_imaging(recording: Recording) -> str:
    minutes = float(np.diff(recording.segment_intervals, axis=1).sum()) / 60
    num_segments = len(recording.segments)
    gaps = "without a gap" if num_segments == 1 else f"in {num_segments} segments"
    return (
        f"{recording.num_timesteps} timesteps at {recording.sampling_rate:.2f} Hz, "
        f"{minutes:.1f} min {gaps}"
    )


def _summarize_activity(recording: Recording) -> str:
    """Range and faults, measured a few units at a time."""
    low, high, num_constant, num_broken = np.inf, -np.inf, 0, 0
    for first in range(0, recording.num_units, 16):
        traces = np.asarray(recording.df_over_f[:, first : first + 16])
        is_finite = np.isfinite(traces)
        num_broken += int((~is_finite).any(axis=0).sum())
        whole = traces[:, is_finite.all(axis=0)]
        if whole.size:
            low, high = min(low, float(whole.min())), max(high, float(whole.max()))
            num_constant += int((np.ptp(whole, axis=0) == 0).sum())
    parts = [f"{low:.3g} to {high:.3g}"] if np.isfinite(low) else []
    parts += [f"{num_constant} units are constant"] if num_constant else []
    parts += [f"{num_broken} units hold NaN or Inf"] if num_broken else []
    return ", ".join(parts)


def _summarize_samples(recording: Recording, table: pd.DataFrame | None) -> str:
    if table is None:
        return "not recorded"
    if table.empty:
        return "0 samples"
    first, last = (table["timestamp"].iloc[[0, -1]] - recording.timestamps[0]) / 60
    facts = [f"{len(table)} samples, {first:.1f} to {last:.1f} min"]
    return "\n".join(facts + _summarize_columns(table.drop(columns="timestamp")))


def _summarize_columns(columns: pd.DataFrame) -> list[str]:
    return [f"{column} {_list(columns[column])}" for column in columns]


def _is_blank(name: str, columns: pd.DataFrame) -> np.ndarray:
    """Which presentations answer no question: none that has a name, or else none at all."""
    asked = {task.column: task.answer for task in TASKS.values() if task.stimulus == name}
    answers = [asked[column].clean(columns[column]) for column in columns if column in asked]
    if answers:
        return np.all([pd.isna(answer) for answer in answers], axis=0)
    return (columns.isna().all(axis=1) & (columns.shape[1] > 0)).to_numpy()


def _list(values: pd.Series) -> str:
    """The distinct values of a column: all of a few, else their number and range."""
    distinct = sorted(values.dropna().unique())
    if len(distinct) <= _FEW:
        return ", ".join(map(_number, distinct)) or "unknown"
    return f"{len(distinct)} from {_number(distinct[0])} to {_number(distinct[-1])}"


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)
