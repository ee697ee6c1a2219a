"""Figures of single units, for the report and for one's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poyo_ssl.neurons.describe import Neurons, TaskNeurons
from poyo_ssl.neurons.responses import Responses
from poyo_ssl.predictability.figure import PREDICTABLE_COLOR, UNPREDICTABLE_COLOR

INK, MUTED, FAINT = "#1d2530", "#5c6672", "#e6e8eb"
"""Text, text beside it and lines behind the data; a report has others in the dark."""
SHADE = "#d8dce1"
"""When a stimulus was shown."""
_GROUPS = ((True, "predictable", PREDICTABLE_COLOR), (False, "unpredictable", UNPREDICTABLE_COLOR))
_SIZE = (4.75, 3.4)
_FONT = 9.5
_LARGEST = 2.0
"""Standard deviations at which the colour of a heat map is full."""
_COLOR_STEPS = 17
"""Colours of a heat map; more would make its picture heavy and could not be told apart."""
_LONGEST_STEP = 1.5
"""Steps of the median length from one sample to the next above which a trace has a gap."""
_NUM_TUNED = 2
"""Units of each group whose tuning is drawn."""


def plot_traces(neurons: Neurons, *, axes: Axes | None = None) -> Axes:
    """Draws a minute of the units that respond most reliably, with the time of stimuli shaded.

    Args:
        neurons: The units of a recording.
        axes: Where to draw; None: a new figure, ``axes.figure``.
    """
    axes = new_axes() if axes is None else axes
    traces = neurons.traces
    if len(traces.shown):
        axes.broken_barh(
            [(start, end - start) for start, end in traces.shown],
            (0, 1),
            transform=axes.get_xaxis_transform(),
            color=SHADE,
            linewidth=0,
            zorder=0,
        )
    is_predictable = neurons.is_predictable[traces.units]
    low = np.fmin.reduce(traces.df_over_f, axis=0, initial=np.inf)
    height = np.fmax.reduce(traces.df_over_f, axis=0, initial=-np.inf) - low
    scaled = (traces.df_over_f - low) / np.where(height > 0, height, 1)
    times, scaled = _with_gaps(traces.times, scaled)
    for row, is_it in enumerate(is_predictable):
        label, color = next((n, c) for group, n, c in _GROUPS if group == is_it)
        is_first = row == 0 or is_predictable[row - 1] != is_it
        axes.plot(
            times,
            scaled[:, row] - 1.15 * row,
            color=color,
            linewidth=1.0,
            label=label if is_first else None,
        )
        axes.annotate(
            f"{height[row]:.2g}",
            (1.0, 0.5 - 1.15 * row),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            verticalalignment="center",
            color=MUTED,
            fontsize=_FONT - 1.5,
        )
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, traces.times[-1] if len(traces.times) else 1)
    axes.set_xlabel("seconds")
    axes.set_ylabel("ΔF/F, each to its own scale (right)")
    _legend(axes)
    return axes


def _with_gaps(times: np.ndarray, traces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """NaN where nothing was imaged for a while, so that no line is drawn across it.

    Args:
        times: Seconds, (num_samples,).
        traces: (num_samples, num_units).
    """
    steps = np.diff(times)
    usual = np.median(steps) if len(steps) else np.inf
    gaps = np.flatnonzero(steps > _LONGEST_STEP * usual) + 1
    return np.insert(times, gaps, np.nan), np.insert(traces, gaps, np.nan, axis=0)


def plot_responses(neurons: Neurons, task: str, *, axes: Axes | None = None) -> Axes:
    """Draws the average activity of every unit around a stimulus, a row for each.

    Predictable units stand above, and within a group those that peak first. The order comes from
    every other presentation and is none of what is drawn.

    Args:
        neurons: The units of a recording.
        task: Name of a task that asks about a stimulus.
        axes: Where to draw; None: a new figure, ``axes.figure``.

    Raises:
        ValueError: If the task is not described, or asks about no stimulus.
    """
    responses = _responses(neurons, task)
    axes = new_axes() if axes is None else axes
    is_predictable = neurons.is_predictable
    order = np.lexsort((responses.peak, ~is_predictable))
    half = (responses.times[1] - responses.times[0]) / 2
    first, last = responses.times[0] - half, responses.times[-1] + half
    image = axes.imshow(
        responses.average[:, order].T,
        cmap=mpl.colormaps["RdBu_r"].resampled(_COLOR_STEPS),
        vmin=-_LARGEST,
        vmax=_LARGEST,
        aspect="auto",
        interpolation="none",
        extent=(first, last, len(order), 0),
    )
    image.cmap.set_bad(SHADE)
    _mark_stimulus(axes, responses)
    place = 0
    for is_it, label, color in _GROUPS:
        count = int((is_predictable == is_it).sum())
        if count:
            side: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "clip_on": False}
            axes.plot([-0.015] * 2, [place, place + count], color=color, linewidth=4, **side)
            axes.text(
                -0.035,
                place + count / 2,
                f"{label} ({count})",
                color=color,
                rotation=90,
                horizontalalignment="right",
                verticalalignment="center",
                **side,
            )
        place += count
    axes.set_yticks([])
    axes.set_xlabel("seconds from the onset")
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, ticks=[-2, 0, 2])
    bar.set_label("standard deviations", fontsize=_FONT, color=INK)
    bar.ax.tick_params(labelsize=_FONT - 1, color=MUTED, labelcolor=INK)
    bar.outline.set_visible(False)
    return axes


def plot_average_response(neurons: Neurons, task: str, *, axes: Axes | None = None) -> Axes:
    """Draws the average activity of each group of units around a stimulus, with standard errors.

    Args:
        neurons: The units of a recording.
        task: Name of a task that asks about a stimulus.
        axes: Where to draw; None: a new figure, ``axes.figure``.

    Raises:
        ValueError: If the task is not described, or asks about no stimulus.
    """
    responses = _responses(neurons, task)
    axes = new_axes() if axes is None else axes
    if responses.times[-1] > responses.duration:  # else all of it is the stimulus
        axes.axvspan(0, responses.duration, color=SHADE, linewidth=0, zorder=0)
    for label, color, members in _groups(neurons):
        average = responses.average[:, members]
        mean = average.mean(axis=1)
        error = average.std(axis=1) / np.sqrt(max(len(members) - 1, 1))
        axes.fill_between(
            responses.times, mean - error, mean + error, color=color, alpha=0.25, linewidth=0
        )
        axes.plot(responses.times, mean, color=color, label=f"{label} ({len(members)})")
    axes.set_xlim(responses.times[0], responses.times[-1])
    axes.set_xlabel("seconds from the onset")
    axes.set_ylabel("standard deviations")
    _legend(axes)
    return axes


def plot_tuning(neurons: Neurons, task: str) -> Figure:
    """Draws tuning curves of the two units of each group that respond most reliably.

    Mean and standard error over the training windows.

    Args:
        neurons: The units of a recording.
        task: Name of a task whose answers are numbered labels.

    Returns:
        The figure, drawn without any window or global state.

    Raises:
        ValueError: If the task is not described, or has no tuning curves.
    """
    described = neurons.task(task)
    tuning = described.tuning
    if tuning is None:
        raise ValueError(
            f"The task '{task}' has no tuning curves: its answers are no numbered labels, or too "
            "many. Choose one that asks for labels, such as direction."
        )
    ranked, labels = neurons.by_reliability(described), tuning.curves.index.to_numpy()
    groups = list(_groups(neurons))
    figure = Figure(figsize=_SIZE, layout="constrained", dpi=150)
    panels = figure.subplots(len(groups), _NUM_TUNED, sharex=True, squeeze=False)
    for row, (name, color, members) in zip(panels, groups, strict=True):
        chosen = ranked[np.isin(ranked, members)][:_NUM_TUNED]
        for axes, unit in zip(row, chosen, strict=False):
            axes.errorbar(
                labels, tuning.curves.iloc[:, unit], tuning.sem.iloc[:, unit],
                color=color, marker="o", markersize=3.5, linewidth=1.4,
            )  # fmt: skip
            _prepare(axes)
            axes.set_xticks(labels if len(labels) <= 6 else labels[:: -(-len(labels) // 4)])
        for axes in row[len(chosen) :]:
            axes.set_visible(False)
        row[0].set_ylabel(f"{name}\nΔF/F", color=color, fontsize=_FONT)
    figure.supxlabel("degrees" if tuning.period else "label", fontsize=_FONT, color=INK)
    return figure


def plot_importance(
    neurons: Neurons,
    task: str,
    *,
    arms: Sequence[str] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Draws how much every unit counts for each decoder; the line is the median of a group.

    Args:
        neurons: The units of a recording.
        task: Name of a task that decoders answered.
        arms: Decoders to draw, of those that tell; None: all.
        axes: Where to draw; None: a new figure, ``axes.figure``.

    Raises:
        ValueError: If the task is not described, or no decoder tells which units it uses.
    """
    told = neurons.task(task).importance
    importance = {arm: told[arm] for arm in (told if arms is None else arms) if arm in told}
    if not importance or len(importance) < len(arms or ()):
        raise ValueError(
            f"{'No decoder' if arms is None else ', '.join(arms) or 'None'} tells which units it "
            f"uses for the task '{task}' (but: {', '.join(told) or 'none'}). Give describe_neurons "
            "decoders of it: networks, or ridge or logistic regression."
        )
    axes = new_axes() if axes is None else axes
    jitter = np.random.default_rng(0).uniform(-0.13, 0.13, len(neurons.units))
    groups = list(_groups(neurons))
    sides = (-0.2, 0.2) if len(groups) > 1 else (0.0,)
    for place, values in enumerate(importance.values()):
        for side, (label, color, members) in zip(sides, groups, strict=True):
            shown = members[np.isfinite(values[members])]
            axes.plot(
                place + side + jitter[shown],
                values[shown],
                linestyle="none",
                marker="o",
                markersize=3,
                markeredgewidth=0,
                color=color,
                alpha=0.55,
                label=label if place == 0 else None,
                zorder=1,
            )
            if len(shown):
                median = float(np.median(values[shown]))
                axes.plot([place + side - 0.17, place + side + 0.17], [median] * 2, color=INK)
    axes.axhline(1, color=MUTED, linewidth=0.8, linestyle="--", zorder=0)
    axes.set_xticks(range(len(importance)), [plain(arm) for arm in importance])
    axes.set_xlim(-0.5, len(importance) - 0.5)
    axes.set_yscale("function", functions=(_signed_root, _signed_square))  # few units count much
    axes.set_ylim(bottom=0)
    axes.set_ylabel("importance (1: average unit)")
    _legend(axes)
    return axes


def plot_field_of_view(
    neurons: Neurons, importance: np.ndarray | None = None, *, axes: Axes | None = None
) -> Axes:
    """Draws where the units lie in the field of view.

    Args:
        neurons: The units of a recording, with ``x_px`` and ``y_px``.
        importance: Areas of the dots relative to the average, (num_units,); None: all are equal.
        axes: Where to draw; None: a new figure, ``axes.figure``.

    Raises:
        ValueError: If it is not known where they lie.
    """
    if not has_places(neurons):
        raise ValueError(
            f"It is not known where the units of '{neurons.recording_id}' lie. Give their table "
            "of units the columns x_px and y_px."
        )
    axes = new_axes() if axes is None else axes
    for label, color, members in _groups(neurons):
        places = neurons.units.iloc[members]
        axes.scatter(
            places["x_px"],
            places["y_px"],
            s=16
            if importance is None
            else 3 + 13 * np.clip(np.nan_to_num(importance[members]), 0, 6),
            color=color,
            alpha=0.7,
            linewidths=0,
            label=label,
        )
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_xlabel("x (pixels)")
    axes.set_ylabel("y (pixels)")
    _legend(axes)
    return axes


def has_places(neurons: Neurons) -> bool:
    """Whether it is known where units lie in the field of view."""
    columns = [name for name in ("x_px", "y_px") if name in neurons.units]
    return len(columns) == 2 and bool(neurons.units[columns].notna().all(axis=1).any())


def plain(text: object) -> str:
    """Short text; matplotlib takes what stands between dollars for mathematics."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in str(text))
    return (shown if len(shown) <= 24 else f"{shown[:23]}…").replace("$", r"\$")


def new_axes() -> Axes:
    """The axes of a new figure in the size and look of the others."""
    figure = Figure(figsize=_SIZE, layout="constrained", dpi=150)
    axes = figure.add_subplot()
    _prepare(axes)
    return axes


def _prepare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(labelsize=_FONT - 1, color=MUTED, labelcolor=INK)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_fontsize(_FONT)
        text.set_color(INK)


def _legend(axes: Axes) -> None:
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2,
            fontsize=_FONT - 0.5, labelcolor=INK, handlelength=1.2, columnspacing=1.2,
        )  # fmt: skip


def _responses(neurons: Neurons, task: str) -> Responses:
    described: TaskNeurons = neurons.task(task)
    if described.responses is None:
        raise ValueError(
            f"The task '{task}' asks about no stimulus, or none in training time. Choose a task "
            "of a stimulus."
        )
    return described.responses


def _signed_root(values: np.ndarray) -> np.ndarray:
    roots: np.ndarray = np.sign(values) * np.sqrt(np.abs(values))
    return roots


def _signed_square(values: np.ndarray) -> np.ndarray:
    squares: np.ndarray = np.sign(values) * np.square(values)
    return squares


def _mark_stimulus(axes: Axes, responses: Responses) -> None:
    for time in (0.0, responses.duration):
        if responses.times[0] < time < responses.times[-1]:
            axes.axvline(time, color="black", linewidth=0.9, linestyle=(0, (3, 2)))


def _groups(neurons: Neurons) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, colour and rows of each group that has units."""
    for is_it, label, color in _GROUPS:
        members = np.flatnonzero(neurons.is_predictable == is_it)
        if len(members):
            yield label, color, members
