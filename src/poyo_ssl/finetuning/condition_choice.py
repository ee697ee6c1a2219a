"""Which properties of what was shown make a condition, chosen on training labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import pandas as pd

from poyo_ssl.decoders.condition_posterior import ConditionReadout, ConditionResponses
from poyo_ssl.decoders.linear import LinearReadout
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.finetuning.teacher_choice import likeliest, smallest_class
from poyo_ssl.windows.divide import DividedRecording
from poyo_ssl.windows.task_windows import TaskWindows
from poyo_ssl.windows.tasks import presentations

MAX_FOLDS = 3
"""Folds of the cross-validation on labelled windows; fewer where a class has fewer windows."""
BINS = (1, 3, 5)
"""Numbers of time bins of a window that are tried."""
SHRINKAGES = (0.1, 0.3, 0.6)
"""Shrinkages of the within-class covariance that are tried, from 0 (none) to 1 (the identity)."""
ADDITIVITIES = (0.0, 0.3, 0.6)
"""Shares of the additive means (no interaction of properties) that are tried, from 0 to 1, where
conditions have more than one property."""
MOST_VALUES = 20
"""A column with more values than this is no property of a condition."""
MOST_OTHERS = 2
"""Most properties that a condition has beside the one that is asked about."""
FEWEST_WINDOWS = 2
"""Training windows that conditions need on average, or their columns are not combined."""


class ConditionOptions(NamedTuple):
    """What cross-validation chooses; the defaults, where labels are too few for two folds."""

    others: tuple[str, ...] = ()
    """Columns beside the one that is asked about."""
    num_bins: int = 1
    shrinkage: float = 0.6
    """See :meth:`ConditionResponses.readout`."""
    additivity: float = 0.0
    """See :meth:`ConditionResponses.readout`."""


@dataclass(frozen=True)
class Conditions:
    """Every combination of properties that training windows of a setting show."""

    others: tuple[str, ...]
    """Columns beside the one that is asked about."""
    known: pd.MultiIndex
    """Class, and values of the others, of every condition; sorted."""
    num_classes: int

    @classmethod
    def of(cls, setting: Setting, others: tuple[str, ...]) -> Conditions:
        """Finds the conditions that training windows of any recording show."""
        shown = [
            _shown(setting, divided, setting.training_windows(divided), others)
            for divided in setting.population.divided.learning(setting.task)
        ]
        known = pd.MultiIndex.from_frame(pd.concat(shown).drop_duplicates()).sort_values()
        return cls(others, known, len(setting.population.divided.classes(setting.task)))

    def responses(self, setting: Setting, num_bins: int) -> list[ConditionResponses]:
        """What the conditions evoke in the training windows of each recording."""
        return [
            self._responses(setting, divided, num_bins)
            for divided in setting.population.divided.learning(setting.task)
        ]

    def readout(
        self, responses: Sequence[ConditionResponses], options: ConditionOptions
    ) -> ConditionReadout:
        """One decoder of all recordings, merged from one fitted on each."""
        of_each = [one.readout(options.shrinkage, options.additivity) for one in responses]
        return ConditionReadout(
            conditions=LinearReadout.merge(of_each),
            class_of=self.known.get_level_values(0).to_numpy(dtype=np.int64, copy=True),
            num_classes=self.num_classes,
        )

    def _responses(
        self, setting: Setting, divided: DividedRecording, num_bins: int
    ) -> ConditionResponses:
        windows = setting.training_windows(divided)
        shown = _shown(setting, divided, windows, self.others)
        return ConditionResponses(
            features=setting.features(divided, windows, num_bins),
            condition=self.known.get_indexer(pd.MultiIndex.from_frame(shown)),
            properties=np.stack([np.asarray(codes) for codes in self.known.codes], axis=1),
            unit_ids=setting.unit_ids(divided),
        )


def condition_posterior(setting: Setting) -> ConditionReadout:
    """Fits a condition posterior with the options that cross-validation on training labels chooses.

    Those under which labels of the left-out folds are likeliest are fitted on all labels.
    """
    num_folds = min(MAX_FOLDS, smallest_class(setting))
    chosen = ConditionOptions()
    if num_folds >= 2:
        likelihoods = _try_out(setting, num_folds)
        chosen = max(likelihoods, key=lambda options: likelihoods[options])
    conditions = Conditions.of(setting, chosen.others)
    return conditions.readout(conditions.responses(setting, chosen.num_bins), chosen)


def _try_out(setting: Setting, num_folds: int) -> dict[ConditionOptions, float]:
    """Mean log-likelihood of left-out labels for all options, each at its best sharpness."""
    scores: dict[ConditionOptions, list[np.ndarray]] = {}
    targets = []
    learning = setting.population.divided.learning(setting.task)
    possible = list(possible_others(setting))
    for without in setting.leaving_out(num_folds):
        left = [without.left_out_windows(divided) for divided in learning]
        targets += [windows.target for windows in left]
        conditions_of = {others: Conditions.of(without, others) for others in possible}
        for others, num_bins in product(possible, _possible_bins(setting)):
            conditions = conditions_of[others]
            responses = conditions.responses(without, num_bins)
            features = [
                without.features(*pair, num_bins) for pair in zip(learning, left, strict=True)
            ]
            for shrinkage, additivity in product(SHRINKAGES, ADDITIVITIES if others else (0.0,)):
                options = ConditionOptions(others, num_bins, shrinkage, additivity)
                readout = conditions.readout(responses, options)
                scores.setdefault(options, []).extend(
                    readout.scores(x, setting.unit_ids(divided))
                    for x, divided in zip(features, learning, strict=True)
                )
    target = np.concatenate(targets)
    return {
        options: float(likeliest(np.concatenate(of_options), target)[0].mean())
        for options, of_options in scores.items()
    }


def _possible_bins(setting: Setting) -> list[int]:
    return [num_bins for num_bins in BINS if num_bins <= setting.num_timesteps]


def possible_others(setting: Setting) -> Iterator[tuple[str, ...]]:
    """Sets of columns that may define conditions together with the one that is asked about.

    Every recording has such columns, with few values each, and shows their combinations often.
    """
    yield ()
    shown = []
    for divided in setting.population.divided.learning(setting.task):
        windows = setting.training_windows(divided)
        table = presentations(divided.recording, setting.task)
        if table is None or windows.trial is None:
            return
        shown.append(table.iloc[windows.trial].assign(**{setting.task.column: windows.target}))
    columns = [
        name
        for name in shown[0].columns
        if name not in ("start", "end", setting.task.column)
        and all(
            name in table and 2 <= _text(table[name]).nunique() <= MOST_VALUES for table in shown
        )
    ]
    for number in range(1, MOST_OTHERS + 1):
        for others in combinations(columns, number):
            if all(_are_properties(table, [setting.task.column, *others]) for table in shown):
                yield others


def _are_properties(shown: pd.DataFrame, columns: list[str]) -> bool:
    """Whether each further column tells conditions apart, with windows enough on average."""
    number = _num_conditions(shown, columns)
    without_one = [[name for name in columns if name != other] for other in columns[1:]]
    return len(shown) >= FEWEST_WINDOWS * number and all(
        number > _num_conditions(shown, fewer) for fewer in without_one
    )


def _num_conditions(shown: pd.DataFrame, columns: list[str]) -> int:
    return len(shown[columns].astype(str).drop_duplicates())


def _shown(
    setting: Setting, divided: DividedRecording, windows: TaskWindows, others: tuple[str, ...]
) -> pd.DataFrame:
    """Class and values of other columns of every window, as text."""
    classes = pd.DataFrame({"class": windows.target})
    if not others:
        return classes
    table = presentations(divided.recording, setting.task)
    assert table is not None
    assert windows.trial is not None
    values = table.iloc[windows.trial][list(others)].reset_index(drop=True)
    return pd.concat([classes, values.apply(_text)], axis=1)


def _text(values: pd.Series) -> pd.Series:
    """Values as text, so that numbers and words can be compared alike."""
    return values.astype(str)
