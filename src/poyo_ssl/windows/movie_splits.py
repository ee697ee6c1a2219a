"""Movies divided into train, valid and test parts: by repeat, or by movie frame."""

from __future__ import annotations

import numpy as np
import pandas as pd

from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows.folds import roles_beside, roles_of_fold
from poyo_ssl.windows.intervals import as_intervals, cut_out, merge
from poyo_ssl.windows.splits import PARTS, SplitConfig, SplitError, Splits


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
        train=as_intervals(bounds[:first_valid]),
        valid=as_intervals(bounds[first_valid:first_test]),
        test=as_intervals(bounds[first_test:]),
    )


def _fold_of_repeats(bounds: list[tuple[float, float]], config: SplitConfig) -> Splits:
    """One fold of the repeats in order of time; a guard follows what was held out."""
    [roles] = roles_of_fold([np.ones((len(bounds), 1), dtype=int)], config)
    train, valid, test = (
        as_intervals([pair for pair, role in zip(bounds, roles, strict=True) if role == part])
        for part in PARTS
    )
    resumes = np.flatnonzero((roles[1:] == "train") & (roles[:-1] != "train"))
    guard = as_intervals([(bounds[i][1], bounds[i][1] + config.guard) for i in resumes])
    guard = cut_out(merge(guard[guard[:, 1] > guard[:, 0]]), np.concatenate([valid, test]))
    train = cut_out(train, guard)
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
        SplitError: If the table numbers no movie frames, the guards leave nothing to train on, or
            the movie has too few frames for a test part.
    """
    table = recording.stimulus(movie).sort_values("start")
    frames = _movie_frames(recording, movie, table)
    num_frames = int(frames.max()) + 1
    is_test, is_valid = held_out_movie_frames(num_frames, config)
    role = np.where(is_test[frames], "test", np.where(is_valid[frames], "valid", "train"))
    runs = _runs(role, table["start"].to_numpy(), table["end"].to_numpy())
    shown, valid, test = (
        as_intervals([(start, end) for name, start, end in runs if name == part])
        for part in ("train", "valid", "test")
    )
    held_out = np.concatenate([valid, test])
    near_held_out = merge(held_out + np.array([-config.guard, config.guard]))
    train = cut_out(shown, near_held_out)
    if not len(test):
        raise SplitError(
            f"A test_fraction of {config.test_fraction} in {config.held_out_blocks} held-out parts "
            f"of {movie} ({num_frames} movie frames) holds out not a single movie frame; raise "
            "test_fraction or lower held_out_blocks."
        )
    if not len(train):
        raise SplitError(
            f"With {config.held_out_blocks} held-out parts and {config.guard} s of guard nothing "
            f"of {movie} ({num_frames} movie frames) is left to train on; lower one of them."
        )
    return Splits(train=train, valid=valid, test=test, guard=cut_out(near_held_out, held_out))


def _movie_frames(recording: Recording, movie: str, table: pd.DataFrame) -> np.ndarray:
    """The movie frame of every presentation, a whole number from 0, (num_presentations,)."""
    where = f"Table {movie} of recording '{recording.recording_id}'"
    if "movie_frame" not in table:
        raise SplitError(
            f"{where} has no column 'movie_frame' (found: {', '.join(map(str, table.columns))}). "
            "Split it by trial or by repeat, or hold out values of a column with held_out_column."
        )
    values = pd.to_numeric(table["movie_frame"], errors="coerce").to_numpy(dtype=float)
    wrong = ~((values >= 0) & (values == np.floor(values)))
    if wrong.any():
        raise SplitError(
            f"{where} must number its movie frames 0, 1, 2 ... in column 'movie_frame', but "
            f"{wrong.sum()} rows do not, such as {table['movie_frame'].to_numpy()[wrong][0]!r}."
        )
    return values.astype(int)


def held_out_movie_frames(num_frames: int, config: SplitConfig) -> tuple[np.ndarray, np.ndarray]:
    """Which movie frames are held out for test and for validation.

    The movie is cut into ``held_out_blocks`` equal stretches; the test block lies in the middle
    of each and the valid block just before it, so that the two share their guards. With folds,
    every stretch is cut into as many runs, in an order of its own: over all folds every frame
    tests once.

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
        rng = np.random.default_rng(config.seed)
        runs = [int(rng.permutation(config.folds)[config.fold]) for _ in np.diff(edges)]
        roles = np.concatenate(
            [
                roles_beside(
                    number,
                    number * run // config.folds,
                    number * (run + 1) // config.folds,
                    round(number * config.valid_fraction),
                )
                for number, run in zip(np.diff(edges).tolist(), runs, strict=True)
            ]
        )
        return roles == "test", roles == "valid"
    stretch = num_frames / config.held_out_blocks
    for block in range(config.held_out_blocks):
        middle = (block + 0.5) * stretch
        half = 0.5 * config.test_fraction * stretch
        first = round(middle - half)
        is_test[first : round(middle + half)] = True
        is_valid[max(0, first - round(config.valid_fraction * stretch)) : first] = True
    return is_test, is_valid & ~is_test


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
