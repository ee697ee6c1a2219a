"""Predict, then score: every test window, per recording, then averaged."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from poyo_ssl.decoders.fitted_decoder import FittedDecoder
from poyo_ssl.kinds_of_arguments import as_list
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.windows.answers import Shown
from poyo_ssl.windows.divide import Divided, DividedRecording
from poyo_ssl.windows.pictures import resize_pictures
from poyo_ssl.windows.splits import Splits
from poyo_ssl.windows.task_windows import TaskWindows, find_windows
from poyo_ssl.windows.tasks import Task, can_answer, presentation_period, presentations

PREDICTIONS = (
    "recording", "task", "arm", "units", "labels", "seed", "fold",
    "trial", "onset", "truth", "answer", "scores", "metric", "value",
)  # fmt: skip
"""Columns of ``predictions.csv``: which decoder; the row of the trial in its table of presentations
and when it began (s); what was right, what was decoded, and the scores, as
:class:`poyo_ssl.windows.answers.Written` says; the main metric of this trial alone."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """How one decoder did on one recording."""

    recording_id: str
    target: np.ndarray
    """Right answers: class, movie frame or value, (num_windows,)."""
    predicted: np.ndarray
    """Answers: class, movie frame or value (num_windows,), or pictures (num_windows, 64, 128)."""
    per_window: np.ndarray
    """The task's main metric for every window; its mean is the main metric, (num_windows,)."""
    scores: dict[str, float]
    """Metric name to value over all windows, the main one first."""
    chance: float | None
    """Expected main metric of guessing; None for pictures, where the mean frame serves."""
    is_trained: np.ndarray
    """Whether the decoder was trained on windows of the same class, (num_windows,); True where
    there are no classes."""
    predictions: pd.DataFrame
    """One row a window: ``PREDICTIONS`` lists the columns."""

    @property
    def num_untrained(self) -> int:
        """Windows of classes that no training part showed: no decoder can be right about them."""
        return int(np.sum(~self.is_trained))


@dataclass(frozen=True, eq=False)
class Scores:
    """How one decoder did on several recordings."""

    evaluations: list[Evaluation]

    @property
    def table(self) -> pd.DataFrame:
        """One row a recording: ``recording_id``, every metric, ``chance`` and ``num_test``.

        Where classes were tested that training never showed, ``num_untrained`` counts their
        windows and ``trained`` is the main metric over all others.
        """
        return pd.DataFrame(
            [
                {
                    "recording_id": e.recording_id,
                    **e.scores,
                    "chance": np.nan if e.chance is None else e.chance,
                    "num_test": len(e.target),
                    **self._apart(e),
                }
                for e in self.evaluations
            ]
        )

    def _apart(self, evaluation: Evaluation) -> dict[str, float]:
        if not any(e.num_untrained for e in self.evaluations):
            return {}
        others = evaluation.per_window[evaluation.is_trained]
        return {
            "num_untrained": evaluation.num_untrained,
            "trained": float(others.mean()) if len(others) else np.nan,
        }

    @property
    def predictions(self) -> pd.DataFrame:
        """Every answer, one row a test window: ``PREDICTIONS`` lists the columns."""
        return pd.concat([e.predictions for e in self.evaluations], ignore_index=True)

    def mean(self) -> dict[str, float]:
        """Every metric, averaged over recordings."""
        names = self.evaluations[0].scores
        return {name: float(np.mean([e.scores[name] for e in self.evaluations])) for name in names}

    def __repr__(self) -> str:
        return self.table.to_string(index=False, float_format="{:.3f}".format)


def evaluate(
    decoder: FittedDecoder,
    recordings: DividedRecording | Recording | Iterable[DividedRecording | Recording],
) -> Scores:
    """Scores a fitted decoder on every test window of divided recordings.

    Args:
        decoder: Any fitted decoder.
        recordings: Divided recordings, of which the test part is scored; those that cannot answer
            the decoder's task are left out. A recording that was not divided is scored whole, which
            is honest only if nothing was learned from it.

    Raises:
        RecordingError: If none can answer the task, there is no window to score, or no unit is
            shared.
    """
    recordings = as_list(
        recordings,
        (DividedRecording, Recording),
        "load_recordings(path) reads recordings, divide(recordings, task) divides them.",
    )
    task, evaluations, num_given = decoder.question.task, [], 0
    for one in recordings:
        num_given += 1
        if isinstance(one, Recording):
            if can_answer(one, task):
                evaluations.append(evaluate_recording(decoder, one))
        elif task.name in one.splits and len(one.splits[task.name].test):
            evaluations.append(evaluate_recording(decoder, one.recording, one.splits[task.name]))
    if not evaluations and num_given and task.answer.needs_pictures:
        given = [one if isinstance(one, Recording) else one.recording for one in recordings]
        if not any(task.stimulus in recording.templates for recording in given):
            raise RecordingError(
                f"None of {num_given} recordings holds the pictures of {task.stimulus}, against "
                f"which the task '{task.name}' is scored. Read them with their templates "
                "(with_templates of the source), or give pictures to evaluate_recording."
            )
    if not evaluations:
        raise RecordingError(
            f"None of {num_given} recordings has a test part for the task '{task.name}', which the "
            f"decoder '{decoder.question.arm}' answers. Divide them for that task."
        )
    return Scores(evaluations)


def evaluate_recording(
    decoder: FittedDecoder,
    recording: Recording,
    splits: Splits | None = None,
    *,
    pictures: np.ndarray | None = None,
) -> Evaluation:
    """Scores a fitted decoder on every test window of a recording, or on every window it has.

    Args:
        decoder: Any fitted decoder.
        recording: A recording that shares units with it.
        splits: Parts of the recording for the decoder's task, whose test part is scored; None
            scores the whole recording, which is honest only if nothing was learned from it.
        pictures: Image tasks: what was shown, in [0, 1], (num_pictures, 64, 128); None takes the
            recording's own.

    Raises:
        RecordingError: If there is no window to score, or no unit is shared.
    """
    question = decoder.question
    task = question.task
    everywhere = recording.segment_intervals
    windows = find_windows(
        recording,
        task,
        everywhere if splits is None else splits.test,
        question.classes,
        question.num_timesteps,
        reach=everywhere if splits is None else splits.reach("test"),
    )
    unlearned = _describe_unlearned(decoder, recording)
    if len(windows) == 0:
        table = presentations(recording, task)
        raise RecordingError(
            f"Recording '{recording.recording_id}' has no window of {task.stimulus} to score: "
            f"{0 if table is None else len(table)} presentations, none of which has a known answer "
            f"and a full window of activity inside the part to be scored. {unlearned}"
        )
    if unlearned:
        logger.warning("%s Such windows are not scored.", unlearned)
    if pictures is None and task.answer.needs_pictures and task.stimulus in recording.templates:
        pictures = resize_pictures(recording.templates[task.stimulus]).numpy()
    answers = decoder.predict(recording, windows.first_timestep)
    frame_period = presentation_period(recording, task)
    scored = task.answer.score(answers, windows.target, Shown(frame_period, pictures))
    return Evaluation(
        recording_id=recording.recording_id,
        target=windows.target,
        predicted=scored.predicted,
        per_window=scored.per_window,
        scores=scored.scores,
        chance=task.answer.chance(question.classes, frame_period),
        is_trained=~np.isin(windows.target, question.untrained),
        predictions=_tabulate(decoder, recording, windows, answers, scored.per_window),
    )


def _describe_unlearned(decoder: FittedDecoder, recording: Recording) -> str:
    """Which labels of a recording are none of a decoder's classes; empty where all are."""
    task, classes = decoder.question.task, decoder.question.classes
    table = presentations(recording, task)
    if table is None or task.column not in table or not task.answer.has_budget:
        return ""
    shown = task.answer.clean(table[task.column])
    is_known, _ = task.answer.targets(shown, classes)
    unknown = [str(value) for value in np.unique(shown[~is_known & pd.notna(shown)])]
    if not unknown:
        return ""
    return (
        f"Recording '{recording.recording_id}' shows {', '.join(unknown[:10])} as {task.column} of "
        f"{task.stimulus}, which the decoder '{decoder.question.arm}' never learned (it knows "
        f"{', '.join(map(str, classes[:20]))})."
    )


def _tabulate(
    decoder: FittedDecoder,
    recording: Recording,
    windows: TaskWindows,
    answers: np.ndarray,
    per_window: np.ndarray,
) -> pd.DataFrame:
    """One row a window, as ``PREDICTIONS`` says."""
    question = decoder.question
    table = presentations(recording, question.task)
    assert table is not None
    assert windows.trial is not None
    written = question.task.answer.written(answers, windows.target, question.classes)
    columns = {
        "recording": recording.recording_id,
        "task": question.task.name,
        "arm": question.arm,
        **asdict(decoder.origin),
        "trial": windows.trial,
        "onset": table["start"].to_numpy()[windows.trial],
        **written._asdict(),
        "metric": question.task.answer.metric,
        "value": per_window,
    }
    return pd.DataFrame(columns, columns=list(PREDICTIONS))


def chance_level(task: Task, recording: Recording, classes: np.ndarray) -> float | None:
    """Expected main metric of guessing; None for images, where the mean frame serves."""
    return task.answer.chance(classes, presentation_period(recording, task))


def describe_evaluation(
    decoder: FittedDecoder, recording: Recording, splits: Splits | None, evaluation: Evaluation
) -> dict[str, Any]:
    """One row of scores of a decoder on a recording, JSON-ready: what every command saves."""
    question = decoder.question
    known = question.known_units(recording)
    return {
        "recording_id": evaluation.recording_id,
        "task": question.task.name,
        "split": question.task.split,
        "arm": question.arm,
        **asdict(decoder.origin),
        "part": "whole recording" if splits is None else "test",
        "scores": evaluation.scores,
        "chance": evaluation.chance,
        "num_test": len(evaluation.target),
        "num_untrained": evaluation.num_untrained,
        "num_known_units": len(known),
        "missing_units": question.missing_units(recording),
        "unknown_units": sorted(set(recording.unit_ids.tolist()) - set(known)),
    }


def score_test_parts(
    decoder: FittedDecoder, divided: Divided
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Scores a decoder on every recording that has a test part.

    Returns:
        One row of scores a recording, as :func:`describe_evaluation` gives it, and every answer,
        one row a test window (``PREDICTIONS`` lists the columns).
    """
    task = decoder.question.task
    rows, tables = [], [pd.DataFrame(columns=list(PREDICTIONS))]
    for one in divided.answering(task):
        splits = one.splits[task.name]
        if len(splits.test):
            evaluation = evaluate_recording(decoder, one.recording, splits)
            rows.append(describe_evaluation(decoder, one.recording, splits, evaluation))
            tables.append(evaluation.predictions)
    return rows, pd.concat(tables[1:] or tables, ignore_index=True)
