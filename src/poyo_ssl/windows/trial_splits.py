"""Trials divided into train, valid and test parts, block by block."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from poyo_ssl.recordings.presentations import LONGEST_DURATION
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.folds import roles_in_order, roles_of_fold, strata_of
from poyo_ssl.windows.held_out_values import HeldOutValues
from poyo_ssl.windows.intervals import as_intervals
from poyo_ssl.windows.splits import PARTS, SplitConfig, SplitError, Splits

LONGEST_PAUSE = 20.0
"""Seconds without a trial that end a block; the grey between gratings lasts 1 s, and blank sweeps
are rows of the table."""
AFTER_LAST_TRIAL = 2.0
"""Seconds after a block's last trial that still belong to it: what the trial evoked."""


class Block(NamedTuple):
    """Trials in a row, without a pause."""

    rows: np.ndarray
    """Positions of the trials in the table by onset, (num_trials,)."""
    onsets: np.ndarray
    """Seconds, (num_trials,)."""
    ends: np.ndarray
    """Seconds, (num_trials,)."""
    end: float
    """Where what the last trial evoked ends, seconds."""


def split_by_trial(recording: Recording, stimulus: str, config: SplitConfig) -> Splits:
    """Splits the trials of every block in order: first train, then valid, then test.

    A block is a run of trials without a gap in the imaging and without a pause, in which another
    stimulus may be shown; where imaging was cut to the trials, so that most are alone in their
    segment, it goes on from segment to segment, and parts span the gaps. Contiguous parts, because
    neighbouring trials share slow states of the animal; in every block, because the states differ
    between blocks. A part begins at the onset of its first trial, so time between trials belongs
    to the part before it.

    With folds, each fold tests runs of trials of every block, dealt so that all folds show every
    value of every column about equally often; see :func:`poyo_ssl.windows.folds.roles_of_fold`.

    Returns:
        Intervals that cover the blocks, to ``AFTER_LAST_TRIAL`` seconds after their last trial.

    Raises:
        SplitError: If no block has enough trials for a train and a test part.
    """
    table = recording.stimulus(stimulus).sort_values("start")
    blocks = _blocks_of_trials(recording, table)
    if config.folds is None:
        roles = [roles_in_order(len(block.rows), config) for block in blocks]
        split = [i for i, parts in enumerate(roles) if {"train", "test"} <= set(parts)]
        divided = [blocks[i] for i in split], [roles[i] for i in split]
    else:
        longest = max((len(block.rows) for block in blocks), default=0)
        if longest < config.folds:
            raise SplitError(
                f"{_describe(recording, stimulus, blocks)}, the longest of {longest}: too few for "
                f"{config.folds} folds. Choose fewer folds or another stimulus."
            )
        strata = strata_of(table)
        divided = blocks, roles_of_fold([strata[block.rows] for block in blocks], config)
    splits = _parts_of_blocks(*divided, config.guard)
    if not len(splits.train):
        raise SplitError(
            f"{_describe(recording, stimulus, blocks)}: too few to train and test on. "
            "Choose another stimulus or larger fractions."
        )
    return splits


def split_by_value(
    recording: Recording, stimulus: str, config: SplitConfig, held_out: HeldOutValues
) -> Splits:
    """Holds out every trial that shows certain values of a column, wherever it lies.

    As between the parts of :func:`split_by_trial`, training resumes ``guard`` seconds after the
    end of a held-out trial; training trials that begin before are lost.

    Raises:
        SplitError: If nothing is left to train on.
    """
    table = recording.stimulus(stimulus).sort_values("start")
    blocks, roles = _blocks_of_trials(recording, table), held_out.roles(table)
    splits = _parts_of_blocks(blocks, [roles[block.rows] for block in blocks], config.guard)
    if not len(splits.train):
        raise SplitError(
            f"{_describe(recording, stimulus, blocks)}, of which those with {held_out} and a "
            f"guard of {config.guard} s after each leave nothing to train on. Hold out fewer "
            "values or lower guard."
        )
    return splits


def _describe(recording: Recording, stimulus: str, blocks: list[Block]) -> str:
    num_trials = sum(len(block.rows) for block in blocks)
    return (
        f"Recording '{recording.recording_id}' has {num_trials} trials of {stimulus} in "
        f"{len(blocks)} blocks"
    )


def _parts_of_blocks(blocks: list[Block], roles: list[np.ndarray], guard: float) -> Splits:
    """Intervals of trials whose parts are known, (num_trials,) for each block."""
    parts: dict[str, list[tuple[float, float]]] = {name: [] for name in (*PARTS, "guard")}
    for block, role in zip(blocks, roles, strict=True):
        firsts = np.append(0, np.flatnonzero(role[1:] != role[:-1]) + 1)
        starts = block.onsets[firsts]
        for first, start, stop in zip(
            firsts, starts, np.append(starts[1:], block.end), strict=True
        ):
            if role[first] == "train" and first > 0:
                # what the held-out trial before evoked has to decay
                decayed = min(block.ends[first - 1], start) + guard
                resumes = min(max(start, decayed), stop)
                parts["guard"] += [(start, resumes)] if resumes > start else []
                start = resumes
            if stop > start:
                parts[role[first]].append((start, stop))
    return Splits(**{name: as_intervals(pairs) for name, pairs in parts.items()})


def _blocks_of_trials(recording: Recording, table: pd.DataFrame) -> list[Block]:
    """The blocks of a table that is sorted by onset."""
    onsets, ends = table["start"].to_numpy(), table["end"].to_numpy()
    # the last end of a block may have been taken from the next one
    likely = np.minimum(ends, onsets + LONGEST_DURATION * np.median(ends - onsets))
    runs, longest_pause = _runs_of_trials(recording, onsets, ends)
    blocks = []
    for inside in runs:
        pauses = np.flatnonzero(onsets[inside][1:] - likely[inside][:-1] > longest_pause) + 1
        for rows in np.split(inside, pauses):
            last = onsets[rows[-1]]
            later = np.append(onsets[onsets > last], np.inf)[0]
            imaged = recording.segment_intervals
            stop = imaged[(imaged[:, 0] <= last) & (last < imaged[:, 1]), 1][0]
            end = min(stop, later, ends[rows].max() + AFTER_LAST_TRIAL)
            blocks.append(Block(rows, onsets[rows], ends[rows], float(end)))
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
