"""Values of a column that are held out wherever they are shown: directions, pictures, segments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from poyo_ssl.windows.answers import Labels
from poyo_ssl.windows.splits import SplitConfig, SplitError

_VALUES = Labels()


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOutValues:
    """Which values of a column train, validate and test, in every recording alike."""

    column: str
    values: np.ndarray
    """Numbers or text, sorted, (num_values,)."""
    parts: np.ndarray
    """``train``, ``valid`` or ``test``, (num_values,)."""

    @staticmethod
    def draw(tables: Iterable[pd.DataFrame], config: SplitConfig) -> HeldOutValues:
        """Chooses among the values that occur: those listed, a fold of them, or a share.

        Args:
            tables: Presentations that have the column, of every recording.
            config: Column, and values or share.

        Raises:
            SplitError: If a listed value does not occur, or too few are left to train on.
        """
        column = config.held_out_column
        answers = [_VALUES.clean(table[column]) for table in tables]
        values = _VALUES.classes(answers)
        order = np.random.default_rng(config.seed).permutation(len(values))
        num_valid = round(len(values) * config.valid_fraction)
        if config.held_out_values:
            tested = _find(config.held_out_values, values, column)
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
        return HeldOutValues(column=column, values=values, parts=parts)

    def __str__(self) -> str:
        return f"{self.column} {_list(self.values[self.parts == 'test'])}"

    def roles(self, table: pd.DataFrame) -> np.ndarray:
        """The part of every presentation, (num_rows,); one without a value trains."""
        answers = _VALUES.clean(table[self.column])
        is_known, index = _VALUES.targets(answers, self.values)
        return np.where(is_known, self.parts[index], "train")


def _find(listed: tuple[str | float, ...], values: np.ndarray, column: str) -> np.ndarray:
    """Positions of the listed values among those that occur."""
    asked = pd.Series([str(value) for value in listed], dtype=object)
    if values.dtype.kind != "U":
        asked = pd.to_numeric(asked, errors="coerce")
    is_known, index = _VALUES.targets(_VALUES.clean(asked), values)
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
