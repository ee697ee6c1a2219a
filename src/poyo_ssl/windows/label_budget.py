"""How many labels may be learned from, and which."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedKFold

from poyo_ssl.kinds_of_arguments import require_numbers


@dataclass(frozen=True, kw_only=True)
class LabelBudget:
    """How many labelled training windows of every class a decoder may learn from.

    Either a part of them, or the same number in every class and recording.
    """

    fraction: float = 1.0
    """Part of the windows of every class, at least one each."""
    per_class: int | None = None
    """So many windows of every class in every recording; None: the fraction counts."""

    def __post_init__(self) -> None:
        require_numbers(self)
        if not 0 < self.fraction <= 1:
            raise ValueError(f"The label fraction must lie in (0, 1], got {self.fraction}.")
        if self.per_class is not None and (self.per_class < 1 or self.fraction < 1):
            raise ValueError(
                "Labels per class must be at least 1 and not go with a fraction, got "
                f"{self.per_class} and {self.fraction}."
            )

    @classmethod
    def of(cls, labels: LabelBudget | float) -> LabelBudget:
        """The budget itself, or that of a fraction."""
        return labels if isinstance(labels, LabelBudget) else cls(fraction=labels)

    @classmethod
    def from_text(cls, text: str) -> LabelBudget:
        """The budget that a text such as ``10%`` or ``5 per class`` says."""
        if found := re.fullmatch(r"(\d+) per class", text):
            return cls(per_class=int(found[1]))
        return cls(fraction=float(text.removesuffix("%")) / 100)

    @property
    def text(self) -> str:
        """``10%`` or ``5 per class``: its name in tables."""
        return (
            f"{100 * self.fraction:g}%" if self.per_class is None else f"{self.per_class} per class"
        )

    @property
    def is_everything(self) -> bool:
        """Whether all labels may be used."""
        return self.per_class is None and self.fraction == 1


class LeftOut(NamedTuple):
    """A part of the labelled training windows that is not learned from, to choose something by.

    Parts hold all classes alike, and of each class windows that follow one another.
    """

    fold: int
    num_folds: int
    within: LeftOut | None = None
    """What is left out before: parts are of the windows that it keeps."""

    def left(self, target: np.ndarray) -> np.ndarray:
        """Sorted positions of what is left out, of windows in order of time, by their classes."""
        among = self._among(target)
        folds = StratifiedKFold(self.num_folds).split(among, target[among])
        index: np.ndarray = among[[held_out for _, held_out in folds][self.fold]]
        return index

    def kept(self, target: np.ndarray) -> np.ndarray:
        """Sorted positions of all others, without what is left out before."""
        return np.setdiff1d(self._among(target), self.left(target))

    def _among(self, target: np.ndarray) -> np.ndarray:
        return np.arange(len(target)) if self.within is None else self.within.kept(target)


def most_labels(budgets: Iterable[LabelBudget]) -> LabelBudget:
    """The largest fraction or, where there is none, the largest number per class."""
    return max(
        budgets,
        key=lambda labels: (labels.per_class is None, labels.fraction, labels.per_class or 0),
    )


def take_labels(target: np.ndarray, labels: LabelBudget | float, seed: int) -> np.ndarray:
    """Draws the labelled windows of one recording that a budget allows.

    The draw depends on the seed alone, so every arm of a comparison sees the same labels; those
    of a smaller budget are among those of a larger one.

    Args:
        target: Class of every labelled window, shape (num_windows,).
        labels: The budget, or the fraction of the windows of every class.
        seed: Seed of the draw.

    Returns:
        Sorted positions into ``target``.

    Raises:
        ValueError: If a class has fewer windows than the budget asks for.
    """
    labels = LabelBudget.of(labels)
    if labels.is_everything:
        return np.arange(len(target))
    rng = np.random.default_rng([seed, 0x1ABE1])
    kept = []
    for label in np.unique(target):
        positions = rng.permutation(np.flatnonzero(target == label))
        number = labels.per_class or max(1, round(labels.fraction * len(positions)))
        if number > len(positions):
            raise ValueError(
                f"{labels.text} labels were asked for, but class {label} has "
                f"{len(positions)} training windows. Ask for fewer labels."
            )
        kept.append(positions[:number])
    return np.sort(np.concatenate(kept))
