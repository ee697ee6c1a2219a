"""Figures of the documents, drawn from ``results/``: ``python benchmarks/draw_figures.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from result_files import read_table
from study_figures import draw_studies

HERE = Path(__file__).parent
FIGURES = HERE.parent / "docs" / "figures"
SEQUENCES = {
    "rdk": ("moving dots, 13 recordings", 1 / 6),
    "texture": ("textures, 12 recordings", 1 / 8),
}
DECODERS = {
    "ridge": ("ridge, own labels", "#7f7f7f", "s", "-"),
    "ridge, aligned": ("ridge, and labels of others", "#0072b2", "s", "-"),
    "scratch": ("network, own labels", "#e69f00", "o", "-"),
    "pretrained": ("network, and labels of others", "#d55e00", "o", "-"),
    "pretrained, shuffled": ("the same, cells shuffled", "#d55e00", "x", ":"),
}
"""Name in the results to label, colour, marker and line."""
WITHOUT_LABELS = {"aligned": "ridge, aligned", "network of others": "pretrained"}
"""What knows no own label, to the decoder that it is the beginning of."""


def draw_labels(axes: Axes, summary: pd.DataFrame) -> None:
    """Accuracy against own labels a class."""
    summary = summary.replace({"what": WITHOUT_LABELS})
    positions = {labels: i for i, labels in enumerate(sorted(summary["labels"].unique()))}
    for shift, (name, (label, colour, marker, line)) in enumerate(DECODERS.items()):
        rows = summary[summary["what"] == name].sort_values("labels")
        at = [positions[labels] + 0.05 * (shift - 2) for labels in rows["labels"]]
        axes.errorbar(
            at, rows["mean"], rows["interval"], label=label, color=colour, marker=marker,
            linestyle=line, markersize=4, linewidth=1.5, elinewidth=0.7, capsize=0,
        )  # fmt: skip
    axes.set_xticks(list(positions.values()), [str(labels) for labels in positions])
    axes.set_xlabel("own labels a class", fontsize=9)


def draw_sources(axes: Axes, summary: pd.DataFrame) -> None:
    """Accuracy without a label against the number of other animals."""
    is_part = summary["what"].str.endswith(" sources") & (summary["delay"] == 0)
    rows = summary[is_part].assign(number=lambda r: r["what"].str.split().str[0].astype(int))
    rows = rows.sort_values("number")
    axes.errorbar(
        rows["number"], rows["mean"], rows["interval"], color="#0072b2", marker="s",
        markersize=4, linewidth=1.5, elinewidth=0.7,
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(rows["number"], rows["number"])
    axes.set_xlabel("other animals", fontsize=9)


def draw_new_animal() -> None:
    """Gain in a new animal against own labels, and against the number of others."""
    network = read_table("yu_network", "summary")
    closed = read_table("yu_alignment", "summary")
    figure, all_axes = plt.subplots(
        1, 4, figsize=(10, 3.3), width_ratios=(2, 1, 2, 1), sharey=True, layout="constrained"
    )
    for i, (sequence, (title, chance)) in enumerate(SEQUENCES.items()):
        labels, sources = all_axes[2 * i], all_axes[2 * i + 1]
        draw_labels(labels, network[network["sequence"] == sequence])
        draw_sources(sources, closed[closed["sequence"] == sequence])
        labels.set_title(title, fontsize=10, loc="left")
        for axes in (labels, sources):
            axes.axhline(chance, color="black", linewidth=0.8, linestyle="--")
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
    all_axes[0].set_ylabel("share right (dashed: chance)")
    handles, names = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / "new_animal.png", dpi=110, facecolor="white")
    plt.close(figure)


if __name__ == "__main__":
    draw_new_animal()
    draw_studies(FIGURES)
