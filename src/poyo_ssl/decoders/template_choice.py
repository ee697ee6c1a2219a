"""How movie frames are looked up, chosen on training windows alone.

How activity is binned, over how much of the movie templates are averaged, and how sharp the
likelihood is, is chosen by looking up every showing of the movie in templates of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax

from poyo_ssl.decoders.frame_templates import FrameTemplates, Kind, Showings, TemplateOptions
from poyo_ssl.windows.answers import SECONDS_NEAR
from poyo_ssl.windows.tasks import Task

NUMS_OF_BINS = (3, 6)
"""Time bins that are tried."""
WIDTHS = (0.0, 0.12, 0.25, 0.5)
"""Seconds of the movie over which templates are averaged (SD of a gaussian) that are tried."""
SHARPNESSES = np.logspace(-2, 3, 21)
"""Factors from similarity to log-likelihood that are tried."""
MAX_TRIED_WINDOWS = 600
"""Windows of a recording that are looked up to choose, evenly spaced: neighbours differ little."""


class LookedUp(NamedTuple):
    """Left-out windows, looked up in templates of the other showings."""

    error: np.ndarray
    """From the frame shown to the one found, seconds, (num_windows,)."""
    likelihoods: np.ndarray
    """Log-likelihood of the frames shown by sharpness, (num_sharpnesses,)."""


ShowingsIn = Callable[[int], list[Showings]]
"""Number of time bins to the training windows of every recording."""
Merit = Callable[[Sequence[LookedUp]], float]
"""What the best options have most of, of all that was looked up with them."""


@dataclass(frozen=True)
class ShareFound:
    """The share of windows whose movie frame is found: what a task about frames is scored by."""

    near: float
    """Seconds within which a movie frame counts as found."""

    def __call__(self, found: Sequence[LookedUp]) -> float:
        """Between 0 and 1."""
        return float(np.concatenate([abs(one.error) <= self.near for one in found]).mean())


def mean_likelihood(found: Sequence[LookedUp]) -> float:
    """Log-likelihood of the very frame that was shown, a window, at the best sharpness.

    What a picture needs: a natural movie that moves is another picture a few frames on.
    """
    total = sum(one.likelihoods for one in found)
    return float(np.max(total) / sum(len(one.error) for one in found))


def merit_of(task: Task) -> Merit:
    """What is looked for in answers of a task about movie frames or pictures."""
    return mean_likelihood if task.answer.needs_pictures else ShareFound(SECONDS_NEAR)


def fit_templates(
    kind: type[Kind], showings: ShowingsIn, num_frames: int, merit: Merit, max_bins: int
) -> Kind:
    """Templates of some recordings, with the options that tell left-out showings best.

    Args:
        kind: Class of the templates.
        showings: What to learn from.
        num_frames: Movie frames in all.
        merit: What the options are chosen by.
        max_bins: Most time bins that a window can be divided into.
    """
    options = choose_options(kind, showings, num_frames, merit, max_bins)
    return kind.merge([kind.fit(s, num_frames, options) for s in showings(options.num_bins)])


def choose_options(
    kind: type[FrameTemplates], showings: ShowingsIn, num_frames: int, merit: Merit, max_bins: int
) -> TemplateOptions:
    """The options of most merit in left-out windows, chosen one after the other.

    The sharpness is the one that makes the frames shown likeliest. Where nothing can be left out
    they are the defaults. The arguments are those of :func:`fit_templates`.
    """
    nums_of_bins = [num for num in NUMS_OF_BINS if num <= max_bins] or [max_bins]
    options = TemplateOptions(num_bins=nums_of_bins[-1])

    def try_out(**changed: Any) -> tuple[float, TemplateOptions]:
        tried = options._replace(**changed)
        found = [f for s in showings(tried.num_bins) for f in look_up(kind, s, num_frames, tried)]
        if not found:
            return -np.inf, tried
        likeliest = np.argmax(sum(left_out.likelihoods for left_out in found))
        return merit(found), tried._replace(sharpness=float(SHARPNESSES[likeliest]))

    for name, values in (
        ("is_standardised", (False, True)),
        ("num_bins", nums_of_bins),
        ("width", WIDTHS),
    ):
        tried = [try_out(**{name: value}) for value in values]
        most = max(merits for merits, _ in tried)
        if np.isfinite(most):
            options = next(better for merits, better in tried if merits == most)
    return options


def look_up(
    kind: type[FrameTemplates], showings: Showings, num_frames: int, options: TemplateOptions
) -> Iterator[LookedUp]:
    """Looks up every fold of the showings in templates of the others; nothing for one showing."""
    fold, unit = showings.fold, options._replace(sharpness=1.0)
    step = -(-len(fold) // MAX_TRIED_WINDOWS)
    for left_out in range(int(fold.max()) + 1) if fold.any() else ():
        templates = kind.fit(showings.take(np.flatnonzero(fold != left_out)), num_frames, unit)
        asked = showings.take(np.flatnonzero(fold == left_out)[::step])
        scores = templates.scores(asked.features, asked.unit_ids)
        error = (scores.argmax(axis=1) - asked.movie_frame) * showings.frame_period
        is_seen = np.flatnonzero(np.isin(asked.movie_frame, templates.seen))
        shown = asked.movie_frame[is_seen, None]
        likelihoods = [
            np.take_along_axis(log_softmax(sharpness * scores[is_seen], axis=1), shown, 1).sum()
            for sharpness in SHARPNESSES
        ]
        yield LookedUp(error, np.array(likelihoods))
