"""Figures of the pages of docs/results: scores with intervals, closed forms beside networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from result_files import read_json, read_rows, read_table
from scipy.stats import t

CLOSED, NETWORK, CONTROL = "#0072b2", "#d55e00", "#7f7f7f"
"""Colours of closed forms, networks, and controls or chance."""


def draw_studies(folder: Path) -> None:
    """Draws all of them into a folder."""
    figures = {
        "real_sessions": draw_folds(),
        "within_session": draw_budgets(
            "real_within_session", ("5%", "25%", "100%"), units="unpredictable", chance=1 / 8
        ),
        "across_days": draw_budgets(
            "across_days", ("1 per class", "2 per class", "5 per class"), units="all", chance=1 / 8
        ),
        "other_mice": draw_diets(("simulated_transfer_0", "simulated_transfer_1")),
        "real_movie": draw_movie(),
        "objectives": draw_objectives(),
        "information": draw_information(),
        "movie_pictures": draw_pictures(),
        "forecasting": draw_forecasts(),
        "scaling": draw_scaling(),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=110, facecolor="white")
        plt.close(figure)


def draw_points(
    axes: Axes, names: Sequence[str], rows: pd.DataFrame, *, title: str, line: float | None = None
) -> None:
    """A dot a name with its interval, from top to bottom.

    Args:
        axes: To draw on.
        names: What ``rows`` are indexed by, in order.
        rows: ``mean``, ``low``, ``high`` and ``colour``.
        title: Of the axes.
        line: Where to draw a line of reference.
    """
    for height, name in enumerate(names):
        if name in rows.index:
            row = rows.loc[name]
            axes.plot([row["low"], row["high"]], [height, height], color=row["colour"], linewidth=1)
            axes.plot(row["mean"], height, "o", color=row["colour"], markersize=4)
    if line is not None:
        axes.axvline(line, color="black", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="y", linewidth=0.3)


def panels(number: int, num_names: int) -> tuple[Figure, list[Axes]]:
    """Axes side by side, whose names stand at the first."""
    size = (2.2 * number + 2.2, 0.22 * num_names + 1.0)
    figure, axes = plt.subplots(
        1, number, figsize=size, sharey=True, layout="constrained", squeeze=False
    )
    return figure, list(axes[0])


def intervals(scores: pd.DataFrame, by: str, value: str) -> pd.DataFrame:
    """Mean and 95 % interval (Student's t) of every group; no interval of a single value."""
    rows = scores.groupby(by)[value].agg(["mean", "sem", "count"])
    half = rows["sem"] * t.ppf(0.975, rows["count"] - 1)
    return rows.assign(low=rows["mean"] - half, high=rows["mean"] + half)


def draw_folds() -> Figure:
    """Accuracy on real gratings, mean and interval over folds."""
    chances = {
        "direction": 1 / 8, "temporal_frequency": 1 / 5, "orientation": 1 / 6,
        "spatial_frequency": 1 / 5,
    }  # fmt: skip
    scores = read_table("real_sessions", "scores")
    names = list(scores["arm"].unique())
    figure, all_axes = panels(len(chances), len(names))
    for axes, (task, chance) in zip(all_axes, chances.items(), strict=True):
        rows = intervals(scores[scores["task"] == task], "arm", "accuracy")
        rows["colour"] = [NETWORK if name.startswith("scratch") else CLOSED for name in rows.index]
        draw_points(axes, names, rows, title=task.replace("_", " "), line=chance)
        axes.set_xlabel("accuracy", fontsize=8)
        axes.set_xlim(0, 1.02)
    return figure


def draw_budgets(name: str, budgets: Sequence[str], *, units: str, chance: float) -> Figure:
    """Accuracy of every decoder of a run with some numbers of labels."""
    summary = read_table(name, "summary").query("metric == 'accuracy' and units == @units")
    names = list(summary["arm"].unique())
    figure, all_axes = panels(len(budgets), len(names))
    for axes, budget in zip(all_axes, budgets, strict=True):
        rows = summary[summary["labels"] == budget].set_index("arm")
        rows = rows.rename(columns={"seed_low": "low", "seed_high": "high"})
        rows["colour"] = [CLOSED if kind == "reference" else NETWORK for kind in rows["kind"]]
        draw_points(axes, names, rows, title=f"labels: {budget}", line=chance)
        axes.set_xlabel("accuracy", fontsize=8)
        axes.set_xlim(0, 1.02)
    return figure


def draw_diets(names: Sequence[str]) -> Figure:
    """Gains over scratch of diets in other animals, by task and simulated observatory."""
    cells = {
        ("direction", "10%"): "accuracy", ("direction", "100%"): "accuracy",
        ("movie_held_out", "100%"): "ssim",
    }  # fmt: skip
    figure, all_axes = panels(len(cells), 12)
    for axes, ((task, labels), metric) in zip(all_axes, cells.items(), strict=True):
        rows = pd.concat(gains_of(name, task, labels, metric) for name in names)
        rows["colour"] = [CONTROL if arm.startswith("random") else NETWORK for arm in rows["arm"]]
        order = sorted(rows["arm"])
        title = f"{task.replace('_', ' ')}, {labels} of labels"
        draw_points(axes, order, rows.set_index("arm"), title=title, line=0.0)
        axes.set_xlabel(f"gain in {metric}", fontsize=8)
    return figure


def gains_of(name: str, task: str, labels: str, metric: str) -> pd.DataFrame:
    """Gains over scratch in a run of ``decoding.py``; arms are named with the run's number."""
    summary = read_table(name, "summary").dropna(subset="gain_over_scratch")
    is_asked = summary[["task", "labels", "metric"]].eq([task, labels, metric]).all(axis=1)
    columns = {"gain_over_scratch": "mean", "gain_low": "low", "gain_high": "high"}
    rows = summary[is_asked].rename(columns={**columns, "mean": "score", "low": "lowest"})
    return rows.assign(arm=rows["arm"] + f", observatory {name[-1]}")


def draw_movie() -> Figure:
    """Frames of a real movie found within a second, mean and interval over repeats."""
    scores = read_table("movies", "scores")
    counts = scores.groupby(["windows", "decoder"])["within_1s"].transform("size")
    scores = scores[counts == counts.max()]  # of decoders that were asked about every repeat
    windows = list(scores["windows"].unique())
    names = list(scores["decoder"].unique())
    figure, all_axes = panels(len(windows), len(names))
    for axes, window in zip(all_axes, windows, strict=True):
        rows = intervals(scores[scores["windows"] == window], "decoder", "within_1s")
        rows["colour"] = [NETWORK if "network" in name else CLOSED for name in rows.index]
        draw_points(axes, names, rows, title=window, line=1 / 15)
        axes.set_xlabel("found within 1 s", fontsize=8)
    return figure


def draw_objectives() -> Figure:
    """What a ridge probe reads of direction after every objective."""
    rows = read_table("objectives", "rows").set_index("objective")
    is_none = [name.startswith("none") for name in rows.index]
    rows["colour"] = np.where(is_none, CONTROL, NETWORK)
    figure, (axes,) = panels(1, len(rows))
    title = f"{read_json('objectives')['num_test']} test windows"
    draw_points(axes, list(rows.index), rows, title=title, line=1 / 8)
    axes.set_xlabel("accuracy of a ridge probe", fontsize=8)
    return figure


def draw_information() -> Figure:
    """Information in units of each diet over that in as many unpredictable ones."""
    rows = read_table("information", "information").rename(columns={"ratio": "mean"})
    names = ["unpredictable", "random", "predictable"]
    tasks = list(rows["task"].unique())
    figure, all_axes = panels(len(tasks), 3 * len(names))
    for axes, task in zip(all_axes, tasks, strict=True):
        part = rows[rows["task"] == task]
        labelled = part.assign(
            name=part["diet"] + ", " + part["units"].astype(str) + " units",
            colour=part["diet"].map(
                {"unpredictable": CLOSED, "random": CONTROL, "predictable": NETWORK}
            ),
        ).sort_values("units")
        order = [name for diet in names for name in labelled["name"] if name.startswith(diet)]
        draw_points(axes, order, labelled.set_index("name"), title=task, line=1.0)
        axes.set_xlabel("information, unpredictable = 1", fontsize=8)
    return figure


def draw_pictures() -> Figure:
    """Structural similarity of real pictures, mean and interval over what is left out."""
    rows = read_rows("movie_pictures")
    titles = {"movie": "held-out repeats", "movie_held_out": "held-out frames"}
    names = list(rows["arm"].unique())
    figure, all_axes = panels(len(titles), len(names))
    for axes, (task, title) in zip(all_axes, titles.items(), strict=True):
        part = rows[(rows["task"] == task) & (rows["decay"] == rows["decay"].min())]
        shown = intervals(part, "arm", "ssim")
        shown["colour"] = [
            NETWORK if name.startswith("scratch") else CLOSED for name in shown.index
        ]
        draw_points(axes, names, shown, title=title)
        axes.set_xlabel("structural similarity", fontsize=8)
        axes.set_xlim(0, 1)
    return figure


def draw_forecasts() -> Figure:
    """R² of all units against seconds ahead, a line a forecast."""
    forecasts = {
        "copy": (CONTROL, ":"),
        "AR(1)": (CONTROL, "-"),
        "own past": (CLOSED, ":"),
        "pasts of all": (CLOSED, "-"),
        "network": (NETWORK, ":"),
        "network, pretrained": (NETWORK, "-"),
    }
    steps = read_table("forecasting", "steps")
    sets = list(steps["recordings"].unique())
    figure, all_axes = plt.subplots(
        1, len(sets), figsize=(2.5 * len(sets), 2.9), sharey=True, layout="constrained"
    )
    for axes, name in zip(all_axes, sets, strict=True):
        for forecast, (colour, line) in forecasts.items():
            is_asked = (steps["recordings"] == name) & (steps["forecast"] == forecast)
            rows = steps[is_asked]
            axes.plot(rows["step"] / 10, rows["r2"], line, color=colour, label=forecast)
        axes.axhline(0, color="black", linewidth=0.8, linestyle="--")
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_xlabel("seconds ahead", fontsize=8)
        axes.set_ylim(-0.45, 0.65)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    all_axes[0].set_ylabel("R² of all units", fontsize=8)
    handles, names = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def draw_scaling() -> Figure:
    """Accuracy in new animals against parameters, with no label of theirs and with two a class."""
    chances = {"rdk": 1 / 6, "texture": 1 / 8}
    summary = read_table("scaling", "summary")
    parameters = read_table("scaling", "chosen").set_index("width")["parameters"].to_dict()
    figure, all_axes = plt.subplots(1, 4, figsize=(10, 3.1), sharey=True, layout="constrained")
    shades = {1: "#f5c396", 2: "#eb9a5a", 4: "#d55e00", 8: "#8a3d00"}
    for pair, (sequence, chance) in zip(all_axes.reshape(2, 2), chances.items(), strict=True):
        rows = summary[summary["sequence"] == sequence]
        networks = rows[rows["width"] > 0].assign(parameters=rows["width"].map(parameters))
        of_none, of_two = (networks[networks["labels"] == n] for n in (0, 2))
        for number, part in of_none.groupby("sources"):
            draw_sizes(pair[0], part, f"{number} other animal{'s' * (number > 1)}", shades[number])
        draw_sizes(pair[1], of_two[of_two["what"] == "pretrained"], "8 other animals", shades[8])
        draw_sizes(pair[1], of_two[of_two["what"] == "scratch"], "scratch", "#e69f00")
        for axes, labels in zip(pair, (0, 2), strict=True):
            closed = rows[(rows["width"] == 0) & (rows["labels"] == labels)]
            best = closed[closed["sources"] == closed["sources"].max()]["mean"].item()
            axes.axhline(best, color=CLOSED, linewidth=1.2, label="closed form, 8 other animals")
            axes.axhline(chance, color="black", linewidth=0.8, linestyle="--")
            axes.set_title(f"{sequence}, {labels} own labels a class", fontsize=9, loc="left")
            axes.set_xscale("log")
            axes.set_xlabel("parameters", fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
    all_axes[0].set_ylabel("share right (dashed: chance)", fontsize=8)
    all_axes[0].set_ylim(0.1, 0.5)
    handles = {
        label: handle
        for axes in all_axes[:2]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=6, fontsize=8, frameon=False
    )
    return figure


def draw_sizes(axes: Axes, rows: pd.DataFrame, label: str, colour: str) -> None:
    """A line over sizes with intervals over recordings."""
    rows = rows.sort_values("parameters")
    axes.errorbar(
        rows["parameters"], rows["mean"], rows["interval"], label=label, color=colour,
        marker="o", markersize=4, linewidth=1.5, elinewidth=0.7,
    )  # fmt: skip
