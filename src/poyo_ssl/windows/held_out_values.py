"""Values of a column that are held out wherever they are shown: directions, pictures, segments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from poyo_ssl.windows.answers import Answer, Labels
from poyo_ssl.windows.splits import SplitConfig, SplitError


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOutValues:
    """Which values of a column train, validate and test, in every recording alike."""

    column: str
    values: np.ndarray
    """Numbers or text, sorted, (num_values,)."""
    parts: np.ndarray
    """``train``, ``valid`` or ``test``, (num_values,)."""
    labels: Labels
    """Which values count as the same one, such as directions of 0 and 360 degrees."""

    @staticmethod
    def draw(
        tables: Iterable[pd.DataFrame], config: SplitConfig, asked: Iterable[Answer] = ()
    ) -> HeldOutValues:
        """Chooses among the values that occur: those listed, a fold of them, or a share.

        Args:
            tables: Presentations that have the column, of every recording.
            config: Column, and values or share.
            asked: Answers of the tasks that ask about the column itself. What is the same answer
                to one of them is held out together.

        Raises:
            SplitError: If a listed value does not occur, or too few are left to train on.
        """
        column, labels = config.held_out_column, _same_to_all(list(asked), config.held_out_column)
        values = labels.classes([labels.clean(table[column]) for table in tables])
        order = np.random.default_rng(config.seed).permutation(len(values))
        num_valid = round(len(values) * config.valid_fraction)
        if config.held_out_values:
            tested = _find(config.held_out_values, values, column, labels)
            order = np.concatenate([tested, order[~np.isin(order, tested)]])
            num_test = len(tested)
        elif config.folds is None:
            num_test = max(1, round(len(values) * config.test_fraction))
        else:
            first, stop = (len(values) * f // config.folds for f in (config.fold, config.fold + 1))
            order, num_test = np.roll(order, -first), stop - first
        if num_test < 1 or num_test + num_valid >= len(values):
            raise SplitError(
                f"Column '{column}' has {len(values)} values ({_list(values)}): too few to test "
                f"{num_test or 'some'} of them, validate on {num_valid} and train on others. Hold "
                "out fewer of them, or values of another column."
            )
        parts = np.full(len(values), "train", dtype="<U5")
        parts[order[:num_test]] = "test"
        parts[order[num_test : num_test + num_valid]] = "valid"
        return HeldOutValues(column=column, values=values, parts=parts, labels=labels)

    def __str__(self) -> str:
        return f"{self.column} {_list(self.values[self.parts == 'test'])}"

    def roles(self, table: pd.DataFrame) -> np.ndarray:
        """The part of every presentation, (num_rows,); one without a value trains."""
        answers = self.labels.clean(table[self.column])
        is_known, index = self.labels.targets(answers, self.values)
        return np.where(is_known, self.parts[index], "train")


def _same_to_all(asked: list[Answer], column: str) -> Labels:
    """Labels that are the same where they are the same answer to any of several tasks.

    Raises:
        SplitError: If the periods of the tasks are no multiples of the shortest.
    """
    periods = [answer.period for answer in asked if answer.period is not None]
    shortest = min(periods, default=None)
    if any(period % shortest for period in periods if shortest is not None):
        raise SplitError(
            f"Tasks ask about the column '{column}' with periods of "
            f"{', '.join(f'{period:g}' for period in periods)}, so which of its values are the "
            "same depends on the task. Hold its values out for one of these tasks at a time."
        )
    tolerance = max((answer.tolerance for answer in asked), default=Labels.tolerance)
    return Labels(tolerance, shortest)


def _find(
    listed: tuple[str | float, ...], values: np.ndarray, column: str, labels: Labels
) -> np.ndarray:
    """Positions of the listed values among those that occur."""
    asked = pd.Series([str(value) for value in listed], dtype=object)
    if values.dtype.kind != "U":
        asked = pd.to_numeric(asked, errors="coerce")
    is_known, index = labels.targets(labels.clean(asked), values)
    if not is_known.all():
        missing = [str(value) for value, known in zip(listed, is_known, strict=True) if not known]
        raise SplitError(
            f"Column '{column}' never holds {', '.join(missing)} (found: {_list(values)}). Correct "
            "held_out_values of the splits."
        )
    return np.unique(index)


def _list(values: np.ndarray) -> str:
    shown = [value if isinstance(value, str) else f"{value:g}" for value in values[:8].tolist()]
    return ", ".join(shown) + (f" and {len(values) - 8} more" if len(values) > 8 else "")
