"""Which parts of a recording train, validate and test: intervals that are proven disjoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Literal

import numpy as np

from poyo_ssl.kinds_of_arguments import require_numbers
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.intervals import as_intervals, cut_out, merge

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")


class SplitError(ValueError):
    """A split that would leak, or that the recording is too short for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Splits:
    """Train, valid and test parts of one recording for one stimulus.

    Each is an array of half-open intervals in seconds, shape (num_intervals, 2). That no two of
    them overlap is checked whenever a ``Splits`` is made, so a leaking split cannot exist.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    guard: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    """Time that belongs to no part: activity evoked by test or valid stimuli lasts into it."""

    def __post_init__(self) -> None:
        owner = ["train"] * len(self.train) + ["valid"] * len(self.valid)
        owner += ["test"] * len(self.test) + ["guard"] * len(self.guard)
        intervals = np.concatenate([self.train, self.valid, self.test, self.guard])
        if not np.all(intervals[:, 1] > intervals[:, 0]):
            raise SplitError("Every interval of a split must end after it starts.")
        order = np.argsort(intervals[:, 0], kind="stable")
        for one, two in pairwise(order):
            if intervals[one, 1] > intervals[two, 0] + 1e-9:
                raise SplitError(
                    f"The {owner[one]} interval {tuple(intervals[one])} s overlaps the "
                    f"{owner[two]} interval {tuple(intervals[two])} s; parts must be disjoint."
                )

    def part(self, name: str) -> np.ndarray:
        """The intervals of ``train``, ``valid`` or ``test``."""
        if name not in ("train", "valid", "test"):
            raise SplitError(f"Unknown part '{name}'; choose train, valid or test.")
        intervals: np.ndarray = getattr(self, name)
        return intervals

    def reach(self, name: str) -> np.ndarray:
        """Where the windows of a part may lie: the part and any guard that touches it, (n, 2).

        A guard belongs to no part, so a valid or test window may look into it for context; a
        training window may not.
        """
        if name == "train":
            return self.train
        joined = merge(np.concatenate([self.part(name), self.guard]))
        touches = [
            np.any((self.part(name)[:, 0] >= start) & (self.part(name)[:, 1] <= end))
            for start, end in joined
        ]
        return joined[np.array(touches, dtype=bool)]

    @property
    def withheld(self) -> np.ndarray:
        """All time that nothing may learn from: valid, test and guard, shape (n, 2)."""
        return np.concatenate([self.valid, self.test, self.guard])


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How much of a stimulus validates and tests."""

    valid_fraction: float = 0.1
    """Fraction of the trials of every block, or of the repeats of a movie, for validation."""
    test_fraction: float = 0.2
    """Fraction of the trials of every block, or of the repeats of a movie, for testing."""
    held_out_blocks: int = 4
    """Held-out-frames split: contiguous parts of the movie in the test part, and as many in the
    valid part where ``valid_fraction`` is positive."""
    guard: float = 1.0
    """Seconds left out on either side of held-out movie frames, and after the held-out trials or
    repeats of a fold. Longer than
    the decay constant of the indicator (GCaMP6f: half-decay 0.14 s after one spike, about 0.4 s,
    a constant of 0.6 s, after a burst; Chen et al. 2013), and no longer: a window of context must
    fit wholly inside a part, so windows add their own length to this distance."""
    train: tuple[str | int, ...] = ()
    """Ids of recordings that train as a whole, such as those of the first day."""
    valid: tuple[str | int, ...] = ()
    """Ids of recordings that validate as a whole."""
    test: tuple[str | int, ...] = ()
    """Ids of recordings that test as a whole. Recordings named nowhere are divided."""
    folds: int | None = None
    """Cross-validation: the number of folds, of which ``fold`` tests, in place of
    ``test_fraction``. Runs of trials, or repeats, are dealt to the folds so that each shows every
    value of every column of the stimulus about equally often; a movie is cut into runs of
    frames."""
    fold: int = 0
    """Which fold tests, from 0."""
    runs_per_fold: int = 2
    """Contiguous runs of trials that every fold gets of every block, and of repeats: more of them
    make the folds more alike, and what is tested lie nearer to what is trained on."""
    held_out_column: str = ""
    """Column of the stimuli of which some values test wherever they are shown, such as
    temporal_frequency: those listed, a fold of them, or else a share of ``test_fraction``; a share
    of ``valid_fraction`` validates. Stimuli without it are divided as ever."""
    held_out_values: tuple[str | int | float, ...] = ()
    """Values of that column that test."""
    seed: int = 0
    """Draws another dealing of runs to folds, or other values to hold out."""

    @property
    def test_share(self) -> float:
        """What tests, of one: ``test_fraction``, or one of the folds."""
        return self.test_fraction if self.folds is None else 1 / self.folds

    def __post_init__(self) -> None:
        require_numbers(self)
        if not (0 <= self.valid_fraction < 1 and 0 < self.test_fraction < 1):
            raise ValueError(
                "valid_fraction must lie in [0, 1) and test_fraction in (0, 1), "
                f"got {self.valid_fraction} and {self.test_fraction}."
            )
        self._require_possible_folds()
        if self.valid_fraction + self.test_share >= 1:
            raise ValueError(
                f"valid_fraction + {'1 / folds' if self.folds else 'test_fraction'} = "
                f"{self.valid_fraction + self.test_share} leaves nothing to train on; lower one of "
                "them."
            )
        if self.held_out_blocks < 1 or self.guard < 0:
            raise ValueError(
                "held_out_blocks must be at least 1 and guard not negative, "
                f"got {self.held_out_blocks} and {self.guard}."
            )
        self._require_use()
        self._require_separate_names()

    def _require_possible_folds(self) -> None:
        if self.folds is None:
            if self.fold != 0:
                raise ValueError(f"fold = {self.fold} needs folds, the number of folds.")
            return
        if not (self.folds >= 2 and 0 <= self.fold < self.folds and self.runs_per_fold >= 1):
            raise ValueError(
                "folds must be at least 2, fold must lie in 0 ... folds - 1 and runs_per_fold at "
                f"least be 1, got {self.folds}, {self.fold} and {self.runs_per_fold}."
            )
        if self.test_fraction != SplitConfig.test_fraction:
            raise ValueError(
                f"test_fraction = {self.test_fraction} does nothing where folds = {self.folds}, of "
                "which one tests; must give one of the two only."
            )

    def _require_use(self) -> None:
        """Refuses options that would do nothing."""
        if self.held_out_values and not self.held_out_column:
            raise ValueError(
                f"held_out_values {self.held_out_values} need held_out_column, which holds them."
            )
        if self.held_out_values and self.folds is not None:
            raise ValueError(
                f"held_out_values {self.held_out_values} test, so folds = {self.folds} cannot; "
                "must give one of the two only."
            )
        if self.seed and self.folds is None and not self.held_out_column:
            raise ValueError(
                f"seed = {self.seed} draws nothing without folds or held_out_column: the last "
                "trials test. Give one of them, or leave seed out."
            )

    def _require_separate_names(self) -> None:
        for part in PARTS:
            if isinstance(getattr(self, part), str):
                raise ValueError(f"{part} must list recording ids, got '{getattr(self, part)}'.")
            object.__setattr__(self, part, tuple(map(str, getattr(self, part))))
        for one, two in combinations(PARTS, 2):
            both = sorted(set(getattr(self, one)) & set(getattr(self, two)))
            if both:
                raise ValueError(
                    f"Named both to {one} and to {two}: {', '.join(both)}. A whole recording can "
                    "be one of them only."
                )


def named_part(recording: Recording, config: SplitConfig) -> Part | None:
    """The part that a recording is named to be as a whole; None where it is to be divided."""
    for part in PARTS:
        if recording.recording_id in getattr(config, part):
            return part
    return None


def require_known_names(recordings: Iterable[Recording], config: SplitConfig) -> None:
    """Refuses names of recordings that are not there.

    Raises:
        SplitError: If ``train``, ``valid`` or ``test`` name an unknown recording; lists them all.
    """
    found = sorted({recording.recording_id for recording in recordings})
    unknown = [
        f"'{name}' ({part})"
        for part in PARTS
        for name in getattr(config, part)
        if name not in found
    ]
    if unknown:
        raise SplitError(
            f"No recording is called {', '.join(unknown)} (found: {', '.join(found) or 'none'}). "
            "Correct the names in train, valid and test of the splits."
        )


def whole_recording_as(recording: Recording, stimulus: str, part: Part) -> Splits:
    """One part that covers the recording and every showing of the stimulus; the others are empty.

    For stimuli shown once in each of several sessions: one session trains, another tests.
    """
    table = recording.stimulus(stimulus)
    imaged = recording.segment_intervals
    start, end = min(imaged[0, 0], table["start"].min()), max(imaged[-1, 1], table["end"].max())
    parts = {name: as_intervals([(start, end)] if name == part else []) for name in PARTS}
    if part not in parts:
        raise SplitError(f"Unknown part '{part}'; choose train, valid or test.")
    return Splits(**parts)


def training_intervals(recording: Recording, splits: list[Splits]) -> np.ndarray:
    """All time of a recording that no split withholds: what unlabelled learning may see.

    Statistics, normalisation and pretraining use this and nothing else. Time outside every
    stimulus (spontaneous activity) is included; segments stay apart.

    Returns:
        Intervals in seconds, shape (num_intervals, 2).
    """
    withheld = [part.withheld for part in splits]
    blocked = np.concatenate([*withheld, np.empty((0, 2))])
    return cut_out(recording.segment_intervals, blocked)
