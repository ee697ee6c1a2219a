"""The picture of a clock: how well the activity fits at every lag, a panel for each stimulus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poyo_ssl.clock.check import MAX_RESPONSE_LAG, ClockCheck
from poyo_ssl.whole_files import write_figure

_GOOD, _BAD, _INK = "#0072B2", "#D55E00", "#333333"


def plot_clock(checks: Sequence[ClockCheck], path: Path | str | None = None) -> Figure:
    """Draws the fit at every lag of each stimulus whose lag can be told.

    Args:
        checks: Of one recording.
        path: Where to save the figure; its ending chooses the format. Not saved by default.

    Returns:
        The figure, drawn without any window or global state.
    """
    num = max(len(checks), 1)
    figure = Figure(figsize=(7.5, 0.6 + 2.0 * num), layout="constrained", dpi=150)
    panels = figure.subplots(num, 1, squeeze=False, sharex=True)[:, 0]
    for axes, check in zip(panels, checks, strict=False):
        _draw_check(axes, check)
    panels[-1].set_xlabel("seconds after the listed times at which the activity is read")
    if checks:
        figure.suptitle(f"Clock of recording {checks[0].recording_id}", x=0.01, ha="left")
    if path is not None:
        write_figure(Path(path), figure)
    return figure


def _draw_check(axes: Axes, check: ClockCheck) -> None:
    colour = _BAD if check.warning else _GOOD
    state = "WARNING: " if check.warning else ""
    axes.set_title(
        f"{check.stimulus}: {state}{check.summary or 'nothing was imaged at its times'}",
        loc="left",
        fontsize="small",
        color=colour if check.warning else _INK,
    )
    axes.axvspan(0, MAX_RESPONSE_LAG, color="#888888", alpha=0.18, linewidth=0)
    axes.spines[["top", "right"]].set_visible(False)
    if check.profile is None or check.best_lag is None:
        axes.set_yticks([])
        text = "nothing to compare lags by"
        axes.text(0.5, 0.5, text, ha="center", transform=axes.transAxes, color=_INK)
        return
    axes.plot(check.profile.lags, check.profile.fit, color=colour, linewidth=1.2)
    best = float(np.nanmax(check.profile.fit))
    axes.plot([check.best_lag], [best], "o", color=colour, markersize=5)
    axes.set_ylabel(check.fit_name.replace(" (", "\n("), fontsize="x-small")
