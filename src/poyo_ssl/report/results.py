"""What a run directory holds, read and checked before a page is made of it."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd

from poyo_ssl.file_names import file_name
from poyo_ssl.result_files import DAMAGE

_WRITE_ONE = "Write a run with 'poyo-ssl run' or poyo_ssl.run"
_TEXT_COLUMNS = {
    "recording_id", "unit_id", "cre_line", "area", "excluded", "is_predictable", "task", "split",
    "units", "arm", "kind", "metric", "stage", "fit", "labels", "baseline", "part",
    "recording", "warning",
}  # fmt: skip
_NEEDED_COLUMNS = {
    "scores.csv": {"recording_id", "task", "split", "units", "arm", "kind", "label_fraction",
                   "seed", "metric", "value"},
    "summary.csv": {"task", "split", "units", "arm", "kind", "label_fraction", "metric", "mean",
                    "seed_low", "seed_high", "trial_low", "trial_high", "num_seeds",
                    "num_recordings", "num_test", "gain_over_scratch", "gain_low", "gain_high",
                    "p_value"},
    "units.csv": {"recording_id", "unit_id", "skewness", "kurtosis", "is_predictable", "excluded"},
    "warnings.csv": {"recording", "warning"},
    "curves.csv": {"stage", "task", "units", "arm", "label_fraction", "seed", "step", "metric",
                   "value"},
}  # fmt: skip
_NEW_IN_SUMMARIES = ("chance_p_value", "num_right", "fewest_of_a_class")
SCRATCH = "scratch"
"""The arm that every gain is measured against."""
UNITS_ORDER = ("unpredictable", "predictable", "all")
"""Subsets of units in the order of interest: the method claims to help the first."""


class ReportError(ValueError):
    """A run directory that no report can be made of; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One thing that was decoded, tested in one way."""

    name: str
    split: str
    """``trial``, ``repeat`` or ``held_out_frames``."""
    title: str
    chance: float | None = None
    """Score of guessing, on the scale of the main metric."""


@dataclass(frozen=True, kw_only=True)
class ArmFile:
    """What the name of a saved confusion matrix or movie says: ``<task>__<units>__<arm>``."""

    task: str
    units: str
    arm: str
    split: str | None = None
    """Only where the name has it, as in ``<task>__<split>__<units>__<arm>``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MovieFrames:
    """A few movie frames and what one arm made of the activity that they evoked."""

    movie_frame: np.ndarray
    """Position of each in the movie, shape (num_shown,)."""
    true: np.ndarray
    """Shape (num_shown, height, width), uint8."""
    predicted: np.ndarray
    """Shape (num_shown, height, width), uint8."""
    ssim: np.ndarray
    """Structural similarity of the two, shape (num_shown,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunResults:
    """Everything that one run saved. None, or empty, where the run did not save it."""

    directory: Path
    run: dict[str, Any]
    tasks: list[Task]
    scores: pd.DataFrame
    """One row per recording, task, split, units, arm, label fraction, seed and metric."""
    summary: pd.DataFrame | None
    """One row per task, split, units, arm, label fraction and metric, with intervals."""
    recordings: list[dict[str, Any]] | None
    warnings: pd.DataFrame | None
    """``recording`` and ``warning``."""
    units: pd.DataFrame | None
    predictability: dict[str, Any] | None
    splits: list[dict[str, Any]] | None
    curves: pd.DataFrame | None
    confusions: dict[ArmFile, pd.DataFrame]
    """Counts; rows are the true classes, columns the decoded ones."""
    movies: dict[ArmFile, MovieFrames]

    def main_metric(self, task: Task) -> str:
        """The metric that a task is judged by, which stands first; empty without a score."""
        here = (self.scores["task"] == task.name) & (self.scores["split"] == task.split)
        return next(iter(self.scores.loc[here, "metric"]), "")

    def units_of(self, task: Task) -> list[str]:
        """The subsets of units that a task was decoded from, in order of interest."""
        here = (self.scores["task"] == task.name) & (self.scores["split"] == task.split)
        return in_order_of_interest(self.scores.loc[here, "units"].unique())

    def means(self) -> pd.DataFrame:
        """Mean score of every arm, from the summary or, without one, from the scores.

        Returns:
            ``task``, ``split``, ``units``, ``arm``, ``kind``, ``labels``, ``label_fraction``,
            ``metric`` and ``mean`` (over recordings of the mean over seeds).
        """
        keys = ["task", "split", "units", "arm", "kind", "labels", "label_fraction", "metric"]
        if self.summary is not None:
            return self.summary[[*keys, "mean"]]
        per_recording = self.scores.groupby([*keys, "recording_id"], sort=False)["value"].mean()
        return per_recording.groupby(keys, sort=False).mean().rename("mean").reset_index()


def with_most_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the budget of labels that leaves most of them."""
    if rows.empty:
        return rows
    most = rows["labels"].iloc[int(rows["label_fraction"].argmax())]
    return rows[rows["labels"] == most]


def in_order_of_interest(units: Collection[str]) -> list[str]:
    """Subsets of units, the known ones first."""
    known = [name for name in UNITS_ORDER if name in units]
    return known + sorted(set(units) - set(known))


def load_results(run_directory: str | Path) -> RunResults:
    """Reads what a run saved.

    Only ``run.json`` and ``scores.csv`` must be there.

    Raises:
        ReportError: If one of the two is missing, or any file cannot be understood.
    """
    directory = Path(run_directory)
    if not directory.is_dir():
        found = "a file" if directory.exists() else "nothing"
        raise ReportError(f"Run directory '{directory}': found {found} there. {_WRITE_ONE}.")
    missing = [name for name in ("run.json", "scores.csv") if not (directory / name).is_file()]
    if missing:
        inside = ", ".join(sorted(path.name for path in directory.iterdir())[:12]) or "nothing"
        raise ReportError(
            f"'{directory}' is not a run directory: it lacks {' and '.join(missing)} "
            f"(found: {inside}). {_WRITE_ONE}, or name the folder of a finished run."
        )
    run = _read_run(directory / "run.json")
    scores = _read_table(directory / "scores.csv")
    if scores is None or scores.empty:
        raise ReportError(f"{directory / 'scores.csv'} has no rows. {_WRITE_ONE} to completion.")
    known = _arm_files(scores)
    return RunResults(
        directory=directory,
        run=run,
        tasks=_tasks(run, scores),
        scores=scores,
        summary=_read_table(directory / "summary.csv"),
        recordings=_read_recordings(directory / "recordings.json"),
        warnings=_read_table(directory / "warnings.csv"),
        units=_read_units(directory / "units.csv"),
        predictability=_read_predictability(directory / "predictability.json"),
        splits=_read_splits(directory / "splits.json"),
        curves=_read_table(directory / "curves.csv"),
        confusions={
            _arm_file(path, known): _read_confusion(path)
            for path in sorted((directory / "confusion").glob("*.csv"))
        },
        movies={
            _arm_file(path, known): _read_movie(path)
            for path in sorted((directory / "movie").glob("*.npz"))
        },
    )


def _malformed(path: Path, what: object) -> ReportError:
    return ReportError(f"{path} cannot be understood: {what} Delete it or run again.")


def _read_json(path: Path, expected: type) -> Any:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _malformed(path, f"not JSON ({error}).") from error
    is_expected = isinstance(value, expected)
    if is_expected and expected is list:
        is_expected = all(isinstance(row, dict) for row in value)
    if not is_expected:
        wanted = "an object" if expected is dict else "a list of objects"
        raise _malformed(path, f"it must hold {wanted}.")
    return value


def _read_run(path: Path) -> dict[str, Any]:
    run: dict[str, Any] = _read_json(path, dict)
    problems = [f"no '{key}'." for key in ("title", "is_simulated", "tasks") if key not in run]
    if not problems and not isinstance(run["is_simulated"], bool):
        problems.append(f"'is_simulated' must be true or false, got {run['is_simulated']!r}.")
    if not problems and not (
        isinstance(run["tasks"], list)
        and all(isinstance(task, dict) and "name" in task for task in run["tasks"])
    ):
        problems.append("'tasks' must be a list of objects that each have a 'name'.")
    if problems:
        raise _malformed(path, " ".join(problems))
    return run


def _check_fields(path: Path, row: dict[str, Any], expected: dict[str, type]) -> None:
    for key, kind in expected.items():
        if row.get(key) is not None and not isinstance(row[key], kind):
            raise _malformed(path, f"'{key}' must be a {kind.__name__}, got {row[key]!r}.")


def _read_recordings(path: Path) -> list[dict[str, Any]] | None:
    recordings: list[dict[str, Any]] | None = _read_json(path, list)
    for recording in recordings or []:
        _check_fields(
            path, recording, {"cre_lines": dict, "areas": dict, "stimuli": dict, "notes": list}
        )
        for name, stimulus in (recording.get("stimuli") or {}).items():
            if not isinstance(stimulus, dict):
                raise _malformed(path, f"'{name}' must be a dict, got {stimulus!r}.")
    return recordings


def _read_predictability(path: Path) -> dict[str, Any] | None:
    predictability: dict[str, Any] | None = _read_json(path, dict)
    if predictability is not None:
        _check_fields(path, predictability, {"line_means": list})
        for line in predictability.get("line_means") or []:
            _check_fields(path, {"line_means": line}, {"line_means": dict})
    return predictability


def _read_splits(path: Path) -> list[dict[str, Any]] | None:
    splits: list[dict[str, Any]] | None = _read_json(path, list)
    for entry in splits or []:
        for part in ("segments", "train", "valid", "test", "guard"):
            try:
                intervals = np.array(entry.get(part) or np.empty((0, 2)), dtype=float)
            except (TypeError, ValueError):
                intervals = np.empty(0)
            if intervals.ndim != 2 or intervals.shape[1] != 2:
                raise _malformed(
                    path, f"'{part}' must be a list of [start, end] in s, got {entry[part]!r}."
                )
    return splits


def _tasks(run: dict[str, Any], scores: pd.DataFrame) -> list[Task]:
    """The tasks that have scores: as the run lists them, then any that it does not list."""
    scored = list(scores[["task", "split"]].drop_duplicates().itertuples(index=False, name=None))
    listed = {
        (str(task["name"]), str(task.get("split", ""))): Task(
            name=str(task["name"]),
            split=str(task.get("split", "")),
            title=str(task.get("title", task["name"])),
            chance=task.get("chance"),
        )
        for task in run["tasks"]
    }
    tasks = [task for key, task in listed.items() if key in scored]
    return tasks + [
        Task(name=name, split=split, title=name.replace("_", " "))
        for name, split in scored
        if (name, split) not in listed
    ]


def _read_table(path: Path) -> pd.DataFrame | None:
    """A CSV file with text columns as text ("" where empty) and all others as numbers."""
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise _malformed(path, f"not a table ({error}).") from error
    lacking = _NEEDED_COLUMNS[path.name] - set(table.columns)
    if lacking:
        raise _malformed(
            path, f"it lacks the columns {sorted(lacking)} (found: {', '.join(table.columns)})."
        )
    for column in table.columns:
        if column in _TEXT_COLUMNS:
            continue
        try:
            table[column] = pd.to_numeric(table[column].replace({"": None, "nan": None}))
        except ValueError as error:
            raise _malformed(path, f"column '{column}' must be numbers ({error}).") from error
    if "seed" in table and table["seed"].isna().any():
        raise _malformed(path, "column 'seed' must be numbers, and some are missing.")
    if path.name == "summary.csv":
        table = _with_what_older_summaries_lack(table)
    if "label_fraction" in table:
        table["label_fraction"] = table["label_fraction"].astype(float).fillna(1.0)
        if "labels" not in table:  # written before budgets had names
            table["labels"] = [f"{100 * fraction:g}%" for fraction in table["label_fraction"]]
    return table


def _with_what_older_summaries_lack(summary: pd.DataFrame) -> pd.DataFrame:
    """Summaries once had an interval over seeds and one over trials, and no test against chance."""
    if "low" not in summary:
        is_over_seeds = summary["seed_low"].notna() & (summary["num_seeds"] > 1)
        summary = summary.assign(
            low=summary["seed_low"].where(is_over_seeds, summary["trial_low"]),
            high=summary["seed_high"].where(is_over_seeds, summary["trial_high"]),
        )
    absent = [column for column in _NEW_IN_SUMMARIES if column not in summary]
    return summary.assign(**dict.fromkeys(absent, np.nan))


def _read_units(path: Path) -> pd.DataFrame | None:
    """The table of units; ``excluded`` becomes the reason, "" for a unit that was kept."""
    units = _read_table(path)
    if units is None:
        return None
    reason = units["excluded"]
    reason = reason.mask(reason.str.lower().isin(["false", "nan", "none", "0"]), "")
    reason = reason.mask(reason.str.lower().isin(["true", "1"]), "reason not stored")
    return units.assign(excluded=reason)


def _arm_files(scores: pd.DataFrame) -> dict[str, ArmFile]:
    """What files of everything that has scores are called, even where names were too long."""
    keys = scores[["task", "units", "arm"]].drop_duplicates().itertuples(index=False, name=None)
    return {file_name(*key): ArmFile(task=key[0], units=key[1], arm=key[2]) for key in keys}


def _arm_file(path: Path, known: dict[str, ArmFile]) -> ArmFile:
    if path.stem in known:
        return known[path.stem]
    match [unquote(name) for name in path.stem.split("__")]:
        case [task, units, arm]:
            return ArmFile(task=task, units=units, arm=arm)
        case [task, split, units, arm]:
            return ArmFile(task=task, split=split, units=units, arm=arm)
    raise _malformed(path, "its name must be <task>__<units>__<arm>.")


def _read_confusion(path: Path) -> pd.DataFrame:
    try:
        counts = pd.read_csv(path, index_col=0)
        counts = counts.rename(index=str).astype(float)
    except ValueError as error:
        raise _malformed(path, f"not a table of counts ({error}).") from error
    if counts.shape[0] != counts.shape[1] or counts.empty:
        raise _malformed(path, f"a confusion matrix must be square, got {counts.shape}.")
    return counts


def _read_movie(path: Path) -> MovieFrames:
    try:
        with np.load(path, allow_pickle=False) as saved:
            movie = MovieFrames(
                movie_frame=saved["movie_frame"],
                true=saved["true"],
                predicted=saved["predicted"],
                ssim=saved["ssim"],
            )
    except (*DAMAGE, OSError) as error:
        raise _malformed(path, f"not saved movie frames ({error}).") from error
    num_shown = len(movie.movie_frame)
    is_consistent = (
        movie.true.ndim == 3
        and movie.true.shape == movie.predicted.shape
        and movie.true.dtype == movie.predicted.dtype == np.uint8
        and movie.true.shape[0] == num_shown == len(movie.ssim)
    )
    if not is_consistent:
        raise _malformed(
            path,
            "true and predicted must be uint8 of shape (num_shown, height, width), got "
            f"{movie.true.dtype} {movie.true.shape} and {movie.predicted.dtype} "
            f"{movie.predicted.shape} for {num_shown} movie frames.",
        )
    return movie
