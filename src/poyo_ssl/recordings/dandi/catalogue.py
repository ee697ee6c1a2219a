"""The sessions of the Allen Brain Observatory, Visual Coding, as published on DANDI:000728."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import NamedTuple

import pandas as pd

DANDISET = "000728"
VERSION = "0.240827.1809"
"""The published version of the dandiset; a published version never changes."""
CITATION = (
    "Allen Brain Observatory, Visual Coding (DANDI:000728, CC-BY-4.0). Cite de Vries, Lecoq, "
    "Buice et al. (2020), A large-scale standardized physiological survey reveals functional "
    "organization of the mouse visual cortex, Nature Neuroscience 23:138-151, "
    "doi:10.1038/s41593-019-0550-9. The Allen Institute's terms of use allow non-commercial use "
    "with citation: https://alleninstitute.org/terms-of-use"
)
STIMULI = {
    "A": "drifting gratings, natural movies one and three",
    "B": "static gratings, natural scenes, natural movie one",
    "C": "locally sparse noise, natural movies one and two",
    "C2": "locally sparse noise, natural movies one and two",
}
"""What each set of stimuli shows, besides a grey screen."""

_FILE = "data/dandi_000728_assets.tsv"
_FILE_ENDING = "_behavior+image+ophys.nwb"
_BYTES_PER_GB = 1e9
_NEAR_MATCHES = 5


class Asset(NamedTuple):
    """One row of :func:`find_sessions`."""

    session_id: str
    stimulus_set: str
    subject_id: str
    recording_id: str
    """The session's id in its file, such as ``527745328-StimA``."""
    path: str
    """Within the dandiset."""
    num_bytes: int
    sha256: str


def find_sessions(
    stimulus_set: str | Iterable[str] | None = None,
    session_id: str | int | Iterable[str | int] | None = None,
    subject_id: str | int | Iterable[str | int] | None = None,
) -> pd.DataFrame:
    """The processed files of the dandiset that meet every condition; all 1,518 without one.

    Whoever uses the data cites :data:`CITATION`.

    Args:
        stimulus_set: One or several of ``A``, ``B``, ``C`` and ``C2``; see :data:`STIMULI`.
        session_id: One or several imaging sessions, such as ``527745328``.
        subject_id: One or several mice, such as ``527550471``.

    Returns:
        One row per session in order of their ids, with the fields of :class:`Asset`.

    Raises:
        ValueError: If a value is not in the catalogue (every such value is named, with what
            comes near it), or no session meets all conditions.
    """
    assets = _read_catalogue()
    wanted = {
        "stimulus_set": _as_texts(stimulus_set),
        "session_id": _as_texts(session_id),
        "subject_id": _as_texts(subject_id),
    }
    conditions = {name: values for name, values in wanted.items() if values is not None}
    problems = [
        problem
        for name, values in conditions.items()
        for problem in _unknown_values(name, values, assets[name])
    ]
    if problems:
        raise ValueError(" ".join(problems))
    is_wanted = pd.Series(True, index=assets.index)
    for name, values in conditions.items():
        is_wanted &= assets[name].isin(values)
    if not is_wanted.any():
        raise ValueError(_describe_conflict(conditions, assets))
    return assets[is_wanted].reset_index(drop=True)


def as_assets(assets: pd.DataFrame) -> list[Asset]:
    """The rows of :func:`find_sessions` one by one."""
    return [Asset(*row) for row in assets[list(Asset._fields)].itertuples(index=False)]


def describe_assets(assets: pd.DataFrame) -> pd.DataFrame:
    """What a selection of sessions holds and how large it is.

    Args:
        assets: Rows of :func:`find_sessions`.

    Returns:
        One row per stimulus set and one for all: ``stimulus_set``, ``stimuli``, ``sessions``,
        ``mice`` and ``size_gb`` (10^9 bytes).
    """
    parts = [(name, text, assets[assets["stimulus_set"] == name]) for name, text in STIMULI.items()]
    return pd.DataFrame(
        [
            {
                "stimulus_set": name,
                "stimuli": stimuli,
                "sessions": len(rows),
                "mice": rows["subject_id"].nunique(),
                "size_gb": rows["num_bytes"].sum() / _BYTES_PER_GB,
            }
            for name, stimuli, rows in [*parts, ("all", "", assets)]
            if len(rows)
        ]
    )


@cache
def _read_catalogue() -> pd.DataFrame:
    with (
        resources.files("poyo_ssl.recordings.dandi").joinpath(_FILE).open(encoding="utf-8") as file
    ):
        stored = pd.read_csv(file, sep="\t", dtype=str)
    subject = "sub-" + stored["subject_id"]
    recording_id = stored["session_id"] + "-Stim" + stored["stimulus_set"]
    return pd.DataFrame(
        {
            "session_id": stored["session_id"],
            "stimulus_set": stored["stimulus_set"],
            "subject_id": stored["subject_id"],
            "recording_id": recording_id,
            "path": subject + "/" + subject + "_ses-" + recording_id + _FILE_ENDING,
            "num_bytes": stored["bytes"].astype("int64"),
            "sha256": stored["sha256"],
        }
    )


def _as_texts(values: str | int | Iterable[str | int] | None) -> list[str] | None:
    if values is None:
        return None
    return [str(value) for value in ([values] if isinstance(values, str | int) else values)]


def _unknown_values(name: str, values: list[str], known: pd.Series) -> list[str]:
    """A sentence for every value that the catalogue lacks."""
    ids = sorted(known.unique())
    if not values:
        return [f"No {name} was given. Leave it out to take all."]
    if len(ids) <= len(STIMULI):
        return [
            f"There is no {name} '{value}' (found: {', '.join(ids)})."
            for value in values
            if value not in ids
        ]
    return [
        f"There is no {name} '{value}' among {len(ids)} in DANDI:{DANDISET} (nearest: "
        f"{', '.join(difflib.get_close_matches(value, ids, _NEAR_MATCHES, 0)) or 'none'})."
        for value in values
        if value not in set(ids)
    ]


def _describe_conflict(conditions: dict[str, list[str]], assets: pd.DataFrame) -> str:
    asked = " and ".join(f"{name} {', '.join(values)}" for name, values in conditions.items())
    found = [
        f"{name} {value} has " + ", ".join(assets.loc[assets[name] == value, "recording_id"])
        for name, values in conditions.items()
        if name != "stimulus_set"
        for value in values
    ]
    return f"No session has {asked} ({'; '.join(found)}). Drop one of the conditions."
