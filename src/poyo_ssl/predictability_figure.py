"""The figure of a partition: every unit by its skewness and kurtosis, and the Cre lines' means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter

from poyo_ssl.predictability import Partition

_STYLES = {"predictable": ("#0072B2", "o"), "unpredictable": ("#D55E00", "^")}
"""Group to colour and marker: two Okabe-Ito colours that all colour-blind readers tell apart."""
_INK = "#333333"
_LINEAR_BELOW = 1.0
"""Where a logarithmic axis turns linear to pass through zero: skewness can be negative."""


def plot_predictability(partition: Partition, path: Path | str | None = None) -> Figure:
    """Draws the units with the thresholds and, where there are several, the Cre lines' means.

    Args:
        partition: What to draw; excluded units have no statistics and are only counted.
        path: Where to save the figure; its ending chooses the format. Not saved by default.

    Returns:
        The figure, drawn without any window or global state.
    """
    has_lines = len(partition.thresholds.line_means) > 1
    figure = Figure(figsize=(10.5, 5.2) if has_lines else (6.2, 5.6), layout="constrained", dpi=150)
    if has_lines:
        grid = figure.add_gridspec(1, 2, width_ratios=[1.25, 1.0], wspace=0.03)
        _draw_units(figure.add_subfigure(grid[0]), partition)
        _draw_line_means(figure.add_subfigure(grid[1]), partition)
    else:
        _draw_units(figure, partition)
    if path is not None:
        figure.savefig(path)
    return figure


def _draw_units(figure: Figure | SubFigure, partition: Partition) -> None:
    """Kurtosis against skewness of every unit, with the counts along both sides."""
    grid = figure.add_gridspec(2, 2, width_ratios=[4.5, 1], height_ratios=[1, 4.5])
    scatter = figure.add_subplot(grid[1, 0])
    above = figure.add_subplot(grid[0, 0], sharex=scatter)
    beside = figure.add_subplot(grid[1, 1], sharey=scatter)
    thresholds, units = partition.thresholds, partition.units
    measured = units[units["excluded"] == ""]
    groups = {
        "predictable": measured[measured["is_predictable"]],
        "unpredictable": measured[~measured["is_predictable"]],
    }
    _scale(scatter.set_xscale, scatter.xaxis, measured["skewness"])
    _scale(scatter.set_yscale, scatter.yaxis, measured["kurtosis"])
    for name, group in groups.items():
        colour, marker = _STYLES[name]
        scatter.scatter(
            group["skewness"],
            group["kurtosis"],
            s=float(np.clip(4000 / max(len(measured), 1), 6, 22)),
            c=colour,
            marker=marker,
            alpha=0.65,
            linewidths=0,
            label=f"{name} ({len(group):,})",
            rasterized=len(measured) > 5000,
        )
    _draw_thresholds(scatter, partition)
    if len(thresholds.line_means) > 1:
        _annotate_line_means(scatter, thresholds.line_means)
    definition = "excess; normal: 0" if partition.config.is_excess_kurtosis else "normal: 3"
    scatter.set(xlabel="skewness of ΔF/F", ylabel=f"kurtosis of ΔF/F ({definition})")
    scatter.legend(loc="upper left", frameon=False, handletextpad=0.2, borderaxespad=0.2)

    _draw_counts(above, groups, "skewness", scatter.xaxis)
    _draw_counts(beside, groups, "kurtosis", scatter.yaxis)
    above.set_ylabel("units")
    beside.set_xlabel("units")
    num_recordings, num_excluded = units["recording_id"].nunique(), len(units) - len(measured)
    above.set_title(
        f"{len(units):,} units of {num_recordings:,} recording{'s'[: num_recordings != 1]}"
        + (f", {num_excluded:,} excluded" if num_excluded else ""),
        loc="left",
        fontsize="medium",
    )
    for axes in (scatter, above, beside):
        _tidy(axes)


def _draw_thresholds(axes: Axes, partition: Partition) -> None:
    """Two dashed lines, and their values at the far ends."""
    skewness_max = partition.thresholds.skewness_max
    kurtosis_max = partition.thresholds.kurtosis_max
    axes.axvline(skewness_max, color=_INK, linestyle="--", linewidth=1)
    axes.axhline(kurtosis_max, color=_INK, linestyle="--", linewidth=1)
    axes.annotate(
        f"{skewness_max:.4g}",
        (skewness_max, 0.0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(3, 4),
        textcoords="offset points",
        fontsize="small",
        color=_INK,
    )
    axes.annotate(
        f"{kurtosis_max:.4g}",
        (1.0, kurtosis_max),
        xycoords=axes.get_yaxis_transform(),
        xytext=(-3, 4),
        textcoords="offset points",
        ha="right",
        fontsize="small",
        color=_INK,
    )


def _annotate_line_means(axes: Axes, line_means: pd.DataFrame) -> None:
    axes.scatter(
        line_means["skewness"],
        line_means["kurtosis"],
        marker="D",
        s=30,
        facecolors="white",
        edgecolors=_INK,
        zorder=3,
        label="mean of a Cre line",
    )
    # neighbours along the diagonal carry their names on opposite sides
    for index, line in enumerate(line_means.itertuples()):
        is_right = index % 2 == 0
        axes.annotate(
            str(line.cre_line).split("-")[0],
            (line.skewness, line.kurtosis),
            xytext=(6, -4) if is_right else (-6, 2),
            textcoords="offset points",
            ha="left" if is_right else "right",
            va="top" if is_right else "bottom",
            fontsize="small",
            color=_INK,
            zorder=4,
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
        )


def _draw_counts(axes: Axes, groups: dict[str, pd.DataFrame], statistic: str, along: Axis) -> None:
    """Counts of both groups, stacked, in bins of equal width on the drawn axis."""
    values = [group[statistic].to_numpy() for group in groups.values()]
    scale = along.get_transform()
    spread = scale.transform(np.concatenate(values))
    edges = scale.inverted().transform(np.histogram_bin_edges(spread, bins=35))
    is_horizontal = statistic == "kurtosis"
    axes.hist(
        values,
        bins=list(edges),
        stacked=True,
        color=[_STYLES[name][0] for name in groups],
        orientation="horizontal" if is_horizontal else "vertical",
    )
    axes.tick_params(labelleft=not is_horizontal, labelbottom=is_horizontal)


def _draw_line_means(figure: SubFigure, partition: Partition) -> None:
    """The sorted means of the Cre lines with the threshold, on the linear axis knees are found on.

    A line within both thresholds is coloured as predictable.
    """
    thresholds = partition.thresholds
    upper, lower = figure.subplots(2, 1)
    for axes, statistic, maximum in (
        (upper, "skewness", thresholds.skewness_max),
        (lower, "kurtosis", thresholds.kurtosis_max),
    ):
        ordered = thresholds.line_means.sort_values(statistic, ignore_index=True)
        is_kept = thresholds.are_met(ordered)
        colours = [_STYLES["predictable" if kept else "unpredictable"][0] for kept in is_kept]
        places = np.arange(len(ordered))
        axes.plot(ordered[statistic], places, color="#BBBBBB", linewidth=1, zorder=1)
        axes.scatter(ordered[statistic], places, c=colours, marker="D", s=32, zorder=2)
        axes.axvline(maximum, color=_INK, linestyle="--", linewidth=1, zorder=1)
        axes.annotate(
            f"{thresholds.source} {maximum:.4g}",
            (maximum, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize="small",
            color=_INK,
        )
        labels = [f"{line.cre_line} ({line.num_units:,})" for line in ordered.itertuples()]
        axes.set_yticks(places, labels, fontsize="small")
        axes.set_xlabel(f"mean {statistic} of the line's units")
        axes.grid(axis="y", color="#EEEEEE", linewidth=0.8)
        axes.set_axisbelow(True)
        _tidy(axes)


def _scale(set_scale: Callable[..., None], axis: Axis, values: pd.Series) -> None:
    """A logarithmic axis in plain numbers, linear around zero only where values need it."""
    if values.min() > 0:
        set_scale("log")
    else:
        set_scale("symlog", linthresh=_LINEAR_BELOW)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
