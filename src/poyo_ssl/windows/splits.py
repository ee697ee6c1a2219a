"""Which parts of a recording train, validate and test: intervals that are proven disjoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Literal

import numpy as np
import pandas as pd

from poyo_ssl.recordings.presentations import LONGEST_DURATION
from poyo_ssl.recordings.recording import Recording

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")

LONGEST_PAUSE = 20.0
"""Seconds without a trial that end a block; the grey between gratings lasts 1 s, and blank sweeps
are rows of the table."""
AFTER_LAST_TRIAL = 2.0
"""Seconds after a block's last trial that still belong to it: what the trial evoked."""


class SplitError(ValueError):
    """A split that would leak, or that the recording is too short for."""


def _as_intervals(pairs: list[tuple[float, float]]) -> np.ndarray:
    return np.array(sorted(pairs), dtype=np.float64).reshape(-1, 2)


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
        joined = _merge(np.concatenate([self.part(name), self.guard]))
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
    train: tuple[str, ...] = ()
    """Ids of recordings that train as a whole, such as those of the first day."""
    valid: tuple[str, ...] = ()
    """Ids of recordings that validate as a whole."""
    test: tuple[str, ...] = ()
    """Ids of recordings that test as a whole. Recordings named nowhere are divided."""
    folds: int | None = None
    """Cross-validation: contiguous runs into which the trials of every block, the repeats, or each
    stretch of a movie are cut; run ``fold`` tests, in place of ``test_fraction``."""
    fold: int = 0
    """Which run tests, from 0."""

    @property
    def test_share(self) -> float:
        """What tests, of one: ``test_fraction``, or one of the folds."""
        return self.test_fraction if self.folds is None else 1 / self.folds

    def __post_init__(self) -> None:
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
        self._require_separate_names()

    def _require_possible_folds(self) -> None:
        if self.folds is None and self.fold != 0:
            raise ValueError(f"fold = {self.fold} needs folds, the number of folds.")
        if self.folds is None:
            return
        if not (self.folds >= 2 and 0 <= self.fold < self.folds):
            raise ValueError(
                "folds must be at least 2 and fold must lie in 0 ... folds - 1, "
                f"got {self.folds} and {self.fold}."
            )
        if self.test_fraction != SplitConfig.test_fraction:
            raise ValueError(
                f"test_fraction = {self.test_fraction} does nothing where folds = {self.folds}, of "
                "which one tests; must give one of the two only."
            )

    def _require_separate_names(self) -> None:
        for part in PARTS:
            if isinstance(getattr(self, part), str):
                raise ValueError(f"{part} must list recording ids, got '{getattr(self, part)}'.")
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
    parts = {name: _as_intervals([(start, end)] if name == part else []) for name in PARTS}
    if part not in parts:
        raise SplitError(f"Unknown part '{part}'; choose train, valid or test.")
    return Splits(**parts)


def split_by_trial(recording: Recording, stimulus: str, config: SplitConfig) -> Splits:
    """Splits the trials of every block in order: first train, then valid, then test.

    A block is a run of trials without a gap in the imaging and without a pause, in which another
    stimulus may be shown; where imaging was cut to the trials, so that most are alone in their
    segment, it goes on from segment to segment, and parts span the gaps. Contiguous parts, because
    neighbouring trials share slow states of the animal; in every block, because the states differ
    between blocks. A part begins at the onset of its first trial, so time between trials belongs
    to the part before it.

    Returns:
        Intervals that cover the blocks, to ``AFTER_LAST_TRIAL`` seconds after their last trial.

    Raises:
        SplitError: If no block has enough trials for a train and a test part.
    """
    parts: dict[str, list[tuple[float, float]]] = {name: [] for name in (*PARTS, "guard")}
    blocks = _blocks_of_trials(recording, recording.stimulus(stimulus))
    num_trials = sum(len(onsets) for onsets, _, _ in blocks)
    longest = max((len(onsets) for onsets, _, _ in blocks), default=0)
    if config.folds is not None and longest < config.folds:
        raise SplitError(
            f"Recording '{recording.recording_id}' has {num_trials} trials of {stimulus} in "
            f"{len(blocks)} blocks, the longest of {longest}: too few for {config.folds} folds. "
            "Choose fewer folds or another stimulus."
        )
    for onsets, ends, end in blocks:
        roles = _roles(len(onsets), config)
        if config.folds is None and not {"train", "test"} <= set(roles):
            continue
        firsts = np.append(0, np.flatnonzero(roles[1:] != roles[:-1]) + 1)
        starts = onsets[firsts]
        for first, start, stop in zip(firsts, starts, np.append(starts[1:], end), strict=True):
            if roles[first] == "train" and first > 0:
                # what the held-out trial before evoked has to decay
                decayed = min(ends[first - 1], start) + config.guard
                resumes = min(max(start, decayed), stop)
                parts["guard"] += [(start, resumes)] if resumes > start else []
                start = resumes
            if stop > start:
                parts[roles[first]].append((start, stop))
    if not parts["train"]:
        raise SplitError(
            f"Recording '{recording.recording_id}' has {num_trials} trials of {stimulus} in "
            f"{len(blocks)} blocks: too few to train and test on. "
            "Choose another stimulus or larger fractions."
        )
    return Splits(**{name: _as_intervals(pairs) for name, pairs in parts.items()})


def _roles(number: int, config: SplitConfig) -> np.ndarray:
    """Which part each of a number of trials or repeats in a row belongs to, shape (number,).

    Without folds the last ones test and those before validate. With folds, run ``fold`` tests;
    those before it validate, or those after it where too few come before.
    """
    roles = np.full(number, "train", dtype="<U5")
    num_valid = round(number * config.valid_fraction)
    if config.folds is None:
        first, stop = max(0, number - round(number * config.test_fraction)), number
    else:
        first, stop = (number * fold // config.folds for fold in (config.fold, config.fold + 1))
    if first == stop:
        return roles
    roles[first:stop] = "test"
    if config.folds is None or first >= min(num_valid, number - stop):
        roles[max(0, first - num_valid) : first] = "valid"
    else:
        roles[stop : stop + num_valid] = "valid"
    return roles


def _blocks_of_trials(
    recording: Recording, table: pd.DataFrame
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Onsets and ends of the trials of every block, and the end of the block, seconds."""
    table = table.sort_values("start")
    onsets, ends = table["start"].to_numpy(), table["end"].to_numpy()
    # the last end of a block may have been taken from the next one
    likely = np.minimum(ends, onsets + LONGEST_DURATION * np.median(ends - onsets))
    runs, longest_pause = _runs_of_trials(recording, onsets, ends)
    blocks = []
    for inside in runs:
        pauses = np.flatnonzero(onsets[inside][1:] - likely[inside][:-1] > longest_pause) + 1
        for trials in np.split(inside, pauses):
            last = onsets[trials[-1]]
            later = np.append(onsets[onsets > last], np.inf)[0]
            imaged = recording.segment_intervals
            stop = imaged[(imaged[:, 0] <= last) & (last < imaged[:, 1]), 1][0]
            end = min(stop, later, ends[trials].max() + AFTER_LAST_TRIAL)
            blocks.append((onsets[trials], ends[trials], float(end)))
    return blocks


def _runs_of_trials(
    recording: Recording, onsets: np.ndarray, ends: np.ndarray
) -> tuple[list[np.ndarray], float]:
    """Positions of the imaged trials, segment by segment, and the pause (s) that ends a block.

    Where most trials are alone in their segment, the microscope was cut to the trials: its gaps
    say nothing of the experiment, and all segments are one run. Pauses that are all longer than
    the longest are then nominal, given when such pieces were put in a row, and only one twice as
    long as usual ends a block.
    """
    runs = [
        np.flatnonzero((onsets >= start) & (onsets < stop))
        for start, stop in recording.segment_intervals
    ]
    runs = [trials for trials in runs if len(trials)]
    num_alone = sum(len(trials) == 1 for trials in runs)
    if num_alone < 2 or 2 * num_alone <= sum(len(trials) for trials in runs):
        return runs, LONGEST_PAUSE
    imaged = np.concatenate(runs)
    usual = float(np.median(onsets[imaged][1:] - ends[imaged][:-1]))
    return [imaged], LONGEST_PAUSE if usual <= LONGEST_PAUSE else 2 * usual


def split_by_repeat(recording: Recording, movie: str, config: SplitConfig) -> Splits:
    """Splits the showings of a movie: the last repeats test, those before validate.

    Every movie frame of a test repeat was also shown in training, so a look-up table of frames
    can score high here: read it beside :func:`split_by_movie_frame`.

    Raises:
        SplitError: If there are fewer than three repeats.
    """
    table = recording.stimulus(movie)
    if "repeat" not in table:
        raise SplitError(
            f"Table {movie} of recording '{recording.recording_id}' has no column 'repeat' "
            f"(found: {', '.join(map(str, table.columns))}); split it by trial instead."
        )
    repeats = table.groupby("repeat").agg(start=("start", "min"), end=("end", "max"))
    num_repeats = len(repeats)
    num_test = max(1, round(num_repeats * config.test_fraction))
    num_valid = round(num_repeats * config.valid_fraction)
    if config.folds is not None and num_repeats < config.folds:
        raise SplitError(
            f"Recording '{recording.recording_id}' shows {movie} {num_repeats} times: too few for "
            f"{config.folds} folds. Choose fewer folds."
        )
    if config.folds is None and num_repeats - num_test - num_valid < 1:
        raise SplitError(
            f"Recording '{recording.recording_id}' shows {movie} {num_repeats} times: too few to "
            f"hold out {num_valid} repeats for validation and {num_test} for testing. Name whole "
            "recordings to train and to test instead, in train and test of the splits."
        )
    repeats = repeats.sort_values("start")
    # onsets jitter: the last movie frame of a repeat may end after the next repeat has begun
    repeats["end"] = np.fmin(repeats["end"], repeats["start"].shift(-1))
    bounds = list(repeats.itertuples(index=False, name=None))
    if config.folds is not None:
        return _fold_of_repeats(bounds, config)
    first_valid, first_test = num_repeats - num_test - num_valid, num_repeats - num_test
    return Splits(
        train=_as_intervals(bounds[:first_valid]),
        valid=_as_intervals(bounds[first_valid:first_test]),
        test=_as_intervals(bounds[first_test:]),
    )


def _fold_of_repeats(bounds: list[tuple[float, float]], config: SplitConfig) -> Splits:
    """One fold of the repeats in order of time; a guard follows what was held out."""
    roles = _roles(len(bounds), config)
    train, valid, test = (
        _as_intervals([pair for pair, role in zip(bounds, roles, strict=True) if role == part])
        for part in PARTS
    )
    resumes = np.flatnonzero((roles[1:] == "train") & (roles[:-1] != "train"))
    guard = _as_intervals([(bounds[i][1], bounds[i][1] + config.guard) for i in resumes])
    guard = guard[guard[:, 1] > guard[:, 0]]
    train = _clip_overlaps(train, guard)
    if not len(train):
        raise SplitError(
            f"Fold {config.fold} of {len(bounds)} repeats leaves nothing to train on; lower "
            "valid_fraction or guard."
        )
    return Splits(train=train, valid=valid, test=test, guard=guard)


def split_by_movie_frame(recording: Recording, movie: str, config: SplitConfig) -> Splits:
    """Holds out contiguous parts of the movie in every repeat, with a guard on either side.

    No training interval of any repeat shows a held-out movie frame, nor lies within ``guard``
    seconds of one, so activity evoked by a held-out frame has decayed before training resumes.
    Repeats that follow each other without a pause are guarded across their border too: the first
    movie frames of a repeat come right after the last ones of the repeat before.

    Raises:
        SplitError: If the guards leave nothing to train on, or the movie has too few frames for
            a test part.
    """
    return split_by_stimulus_part(recording, movie, config)


def split_by_stimulus_part(
    recording: Recording, stimulus: str, config: SplitConfig, *, column: str = "movie_frame"
) -> Splits:
    """Holds out contiguous parts of a stimulus in every repeat; see :func:`split_by_movie_frame`.

    Args:
        recording: One session.
        stimulus: Name of the stimulus table.
        config: How much is held out.
        column: Column that numbers the parts of the stimulus from 0, such as ``segment``.

    Raises:
        SplitError: If the column is missing or holds no such numbers, nothing is left to train
            on, or there are too few parts to test.
    """
    table = recording.stimulus(stimulus).sort_values("start")
    frames = _numbered_parts(recording, stimulus, table, column)
    noun = column.replace("_", " ") + "s"
    num_frames = int(frames.max()) + 1
    is_test, is_valid = held_out_movie_frames(num_frames, config)
    role = np.where(is_test[frames], "test", np.where(is_valid[frames], "valid", "train"))
    runs = _runs(role, table["start"].to_numpy(), table["end"].to_numpy())
    shown, valid, test = (
        _as_intervals([(start, end) for name, start, end in runs if name == part])
        for part in ("train", "valid", "test")
    )
    held_out = np.concatenate([valid, test])
    near_held_out = _merge(held_out + np.array([-config.guard, config.guard]))
    train = _clip_overlaps(shown, near_held_out)
    if not len(test):
        raise SplitError(
            f"A test_fraction of {config.test_fraction} in {config.held_out_blocks} held-out parts "
            f"of {stimulus} ({num_frames} {noun}) holds out not a single {noun[:-1]}; raise "
            "test_fraction or lower held_out_blocks."
        )
    if not len(train):
        raise SplitError(
            f"With {config.held_out_blocks} held-out parts and {config.guard} s of guard nothing "
            f"of {stimulus} ({num_frames} {noun}) is left to train on; lower one of them."
        )
    return Splits(
        train=train, valid=valid, test=test, guard=_clip_overlaps(near_held_out, held_out)
    )


def _numbered_parts(
    recording: Recording, stimulus: str, table: pd.DataFrame, column: str
) -> np.ndarray:
    """The column as whole numbers from 0, shape (num_presentations,)."""
    where = f"Table {stimulus} of recording '{recording.recording_id}'"
    if column not in table:
        raise SplitError(
            f"{where} has no column '{column}' (found: {', '.join(map(str, table.columns))})."
        )
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
    wrong = ~((values >= 0) & (values == np.floor(values)))
    if wrong.any():
        raise SplitError(
            f"{where} must number its parts 0, 1, 2 ... in column '{column}', but "
            f"{wrong.sum()} rows do not, such as {table[column].to_numpy()[wrong][0]!r}."
        )
    return values.astype(int)


def held_out_movie_frames(num_frames: int, config: SplitConfig) -> tuple[np.ndarray, np.ndarray]:
    """Which movie frames are held out for test and for validation.

    The movie is cut into ``held_out_blocks`` equal stretches; the test block lies in the middle
    of each and the valid block just before it, so that the two share their guards. With folds,
    the test block moves through its stretch: over all folds every frame tests once.

    Returns:
        Two boolean arrays of shape (num_frames,): is test, is valid.
    """
    is_test = np.zeros(num_frames, dtype=bool)
    is_valid = np.zeros(num_frames, dtype=bool)
    if config.folds is not None:
        edges = num_frames * np.arange(config.held_out_blocks + 1) // config.held_out_blocks
        if np.diff(edges).min() < config.folds:
            raise SplitError(
                f"{num_frames} movie frames in {config.held_out_blocks} stretches are too few for "
                f"{config.folds} folds; lower folds or held_out_blocks."
            )
        roles = np.concatenate([_roles(int(n), config) for n in np.diff(edges)])
        return roles == "test", roles == "valid"
    stretch = num_frames / config.held_out_blocks
    for block in range(config.held_out_blocks):
        middle = (block + 0.5) * stretch
        half = 0.5 * config.test_fraction * stretch
        first = round(middle - half)
        is_test[first : round(middle + half)] = True
        is_valid[max(0, first - round(config.valid_fraction * stretch)) : first] = True
    return is_test, is_valid & ~is_test


def training_intervals(recording: Recording, splits: list[Splits]) -> np.ndarray:
    """All time of a recording that no split withholds: what unlabelled learning may see.

    Statistics, normalisation and pretraining use this and nothing else. Time outside every
    stimulus (spontaneous activity) is included; segments stay apart.

    Returns:
        Intervals in seconds, shape (num_intervals, 2).
    """
    withheld = [part.withheld for part in splits]
    blocked = np.concatenate([*withheld, np.empty((0, 2))])
    return _clip_overlaps(recording.segment_intervals, blocked)


def trials_inside(
    starts: np.ndarray, ends: np.ndarray, intervals: np.ndarray, tolerance: float = 1e-6
) -> np.ndarray:
    """Which of the spans [start, end] (s) lie wholly inside one of the intervals.

    Returns:
        Booleans of the shape of ``starts``.
    """
    inside = np.zeros(len(starts), dtype=bool)
    for start, end in intervals:
        inside |= (starts >= start - tolerance) & (ends <= end + tolerance)
    return inside


def _runs(role: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[tuple[str, float, float]]:
    """Runs of equal role in time order as (role, start, end); a pause ends a run.

    A pause is longer than one presentation; anything shorter is jitter, and the earlier
    presentation is taken to last until the next one.
    """
    is_pause = starts[1:] - ends[:-1] > np.median(ends - starts)
    edges = np.flatnonzero((role[1:] != role[:-1]) | is_pause) + 1
    ends = np.append(np.where(is_pause, ends[:-1], starts[1:]), ends[-1])
    firsts, stops = np.append(0, edges), np.append(edges, len(role))
    return [
        (str(role[first]), float(starts[first]), float(ends[stop - 1]))
        for first, stop in zip(firsts, stops, strict=True)
    ]


def _merge(intervals: np.ndarray) -> np.ndarray:
    """The same time as intervals that neither overlap nor touch."""
    merged: list[tuple[float, float]] = []
    for start, end in _as_intervals([tuple(pair) for pair in intervals]):
        if merged and start <= merged[-1][1] + 1e-9:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return _as_intervals(merged)


def _clip_overlaps(intervals: np.ndarray, blocked: np.ndarray) -> np.ndarray:
    """What is left of the intervals after the blocked ones are cut out."""
    left = [tuple(pair) for pair in intervals]
    for start, end in blocked:
        cut = []
        for a, b in left:
            cut += [(a, min(b, start)), (max(a, end), b)] if a < end and b > start else [(a, b)]
        left = [(a, b) for a, b in cut if b > a]
    return _as_intervals(left)
