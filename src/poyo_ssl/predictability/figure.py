"""Figures of a partition: units, means of Cre lines, and what moved thresholds would change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter

from poyo_ssl.predictability.knees import KneeBootstrap
from poyo_ssl.predictability.partition import Partition
from poyo_ssl.predictability.sensitivity import ALL_UNITS, MOVED, Sensitivity
from poyo_ssl.whole_files import write_figure

PREDICTABLE_COLOR, UNPREDICTABLE_COLOR = "#009E73", "#AA4499"
"""Two colours that all colour-blind readers tell apart, in every figure of units; the report gives
blue and orange to networks."""
_STYLES = {"predictable": (PREDICTABLE_COLOR, "o"), "unpredictable": (UNPREDICTABLE_COLOR, "D")}
"""Group to colour and marker."""
_INK = "#333333"
_BAND: dict[str, Any] = {"color": "#888888", "alpha": 0.18, "linewidth": 0, "zorder": 0}
"""Style of a threshold's bootstrap interval."""
_SIDES = LinearSegmentedColormap.from_list(
    "sides", [_STYLES["unpredictable"][0], "#FFFFFF", _STYLES["predictable"][0]]
)
"""Units that become unpredictable, none, units that become predictable."""
_FULL_COLOUR = 20.0
"""Percent of units that change side at which a colour is full: the largest change of a threshold
that is tried by default, so that what changes in proportion to the threshold stands out."""
_WHITE_NUMBERS_ABOVE = 12.0
"""Percent, where dark numbers can no longer be read."""
_LONGEST_NAME = 40
"""Letters of a Cre line that are shown."""
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
        write_figure(Path(path), figure)
    return figure


def plot_sensitivity(sensitivity: Sensitivity, path: Path | str | None = None) -> Figure:
    """Draws the part of every Cre line's units that change side when the thresholds are moved.

    Args:
        sensitivity: Moved thresholds and what they change.
        path: Where to save the figure; its ending chooses the format. Not saved by default.

    Returns:
        The figure, drawn without any window or global state.
    """
    counts = sensitivity.counts
    net = 100 * (counts["num_gained"] - counts["num_lost"]) / counts["num_units"]
    largest = net.abs().groupby(counts["cre_line"]).max().drop(ALL_UNITS)
    lines = [ALL_UNITS]
    if len(largest) > 1:  # a single line is all units
        lines += largest.sort_values(ascending=False, kind="stable").index.tolist()
    num_units = counts.drop_duplicates("cre_line").set_index("cre_line")["num_units"]

    figure = Figure(figsize=(9.0, 1.9 + 0.33 * len(lines)), layout="constrained", dpi=150)
    panels = figure.subplots(1, len(MOVED), sharey=True)
    for axes, moved in zip(panels, MOVED, strict=True):
        rows = counts.assign(net=net)[counts["moved"] == moved]
        table = rows.pivot_table(index="cre_line", columns="change", values="net").loc[lines]
        image = _draw_changes(axes, table.to_numpy())
        axes.set_xticks(range(table.shape[1]), [f"{change:+.0%}" for change in table.columns])
        axes.set_title("both thresholds" if moved == "both" else f"{moved} threshold")
    panels[0].set_yticks(
        range(len(lines)),
        [f"{_plain(line)} ({num_units[line]:,})" for line in lines],
        fontsize="small",
    )
    figure.colorbar(
        image,
        ax=panels,
        orientation="horizontal",
        extend="both",
        fraction=0.3 / figure.get_figheight(),
        aspect=60,
        label="% of the line's units that become unpredictable (purple) or predictable (green)",
    )
    figure.suptitle(_describe_largest_changes(sensitivity), x=0.01, ha="left", fontsize="medium")
    if path is not None:
        write_figure(Path(path), figure)
    return figure


def _plain(text: object) -> str:
    """Short text; matplotlib takes what stands between dollars for mathematics."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in str(text))
    if len(shown) > _LONGEST_NAME:
        shown = f"{shown[: _LONGEST_NAME - 1]}…"
    return shown.replace("$", r"\$")


def _draw_changes(axes: Axes, percent: np.ndarray) -> AxesImage:
    """A heat map with numbers: one row for every Cre line, one column for every change."""
    image = axes.imshow(percent, cmap=_SIDES, vmin=-_FULL_COLOUR, vmax=_FULL_COLOUR, aspect="auto")
    for (row, column), value in np.ndenumerate(percent):
        axes.text(
            column,
            row,
            f"{abs(value):.1f}" if value else "0",
            ha="center",
            va="center",
            fontsize="small",
            color="white" if abs(value) > _WHITE_NUMBERS_ABOVE else _INK,
        )
    axes.axhline(0.5, color=_INK, linewidth=1)  # between all units and the lines
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image


def _describe_largest_changes(sensitivity: Sensitivity) -> str:
    """How many units change side at most, for every size of change."""
    shares = sensitivity.share_changed
    sizes = shares.groupby(shares.index.get_level_values("change").map(abs)).max()
    described = [f"±{size:.0%}: at most {share:.1%}" for size, share in sizes.items()]
    return f"Units that change side when thresholds move by {', '.join(described)}"


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
    """Two dashed lines, their values at the far ends, and bands where they are unsure."""
    skewness_max = partition.thresholds.skewness_max
    kurtosis_max = partition.thresholds.kurtosis_max
    bootstrap = partition.thresholds.knee_bootstrap
    if bootstrap is not None and "skewness" in bootstrap.intervals:
        axes.axvspan(*bootstrap.intervals["skewness"], **_BAND)
    if bootstrap is not None and "kurtosis" in bootstrap.intervals:
        axes.axhspan(*bootstrap.intervals["kurtosis"], **_BAND)
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
            _plain(str(line.cre_line).split("-")[0]),
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
        bootstrap = thresholds.knee_bootstrap
        if bootstrap is not None and statistic in bootstrap.intervals:
            _draw_interval(axes, bootstrap, statistic)
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
        labels = [f"{_plain(line.cre_line)} ({line.num_units:,})" for line in ordered.itertuples()]
        axes.set_yticks(places, labels, fontsize="small")
        axes.set_xlabel(f"mean {statistic} of the line's units")
        axes.grid(axis="y", color="#EEEEEE", linewidth=0.8)
        axes.set_axisbelow(True)
        _tidy(axes)


def _draw_interval(axes: Axes, bootstrap: KneeBootstrap, statistic: str) -> None:
    """A band, and in words how sure the knee is."""
    low, high = bootstrap.intervals[statistic]
    label = f"95 % of resamples:\n{low:.4g} to {high:.4g}"
    if bootstrap.share_without_knee[statistic]:
        label += f"\nwithout a knee: {bootstrap.share_without_knee[statistic]:.1%}"
    axes.axvspan(low, high, label=label, **_BAND)
    axes.legend(loc="lower right", frameon=False, fontsize="small")


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
