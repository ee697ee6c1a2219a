"""The figures of docs/choose.md, drawn from ``results/``: ``python benchmarks/draw_choices.py``."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
FIGURES = HERE.parent / "docs" / "figures"
QUESTIONS = {
    "direction": ("direction of\ndrifting gratings", 1 / 8),
    "temporal_frequency": ("their temporal\nfrequency", 1 / 5),
    "orientation": ("orientation of\nstatic gratings", 1 / 6),
    "spatial_frequency": ("their spatial\nfrequency", 1 / 5),
}
NETWORKS = {
    "scratch": ("networks", "#e69f00"),
    "scratch + chosen teacher": ("networks + chosen teacher", "#d55e00"),
}


def draw_real_gratings() -> None:
    """Accuracy of networks beside closed forms on real gratings, in folds that both answered."""
    saved = json.loads((HERE / "results" / "real_sessions.json").read_text())["scores"]
    scores = pd.DataFrame(saved).pivot_table(
        index=["task", "fold"], columns="arm", values="accuracy"
    )
    scores = scores.dropna(subset=list(NETWORKS)).groupby(level="task").mean()
    closed = scores.drop(columns=list(NETWORKS))
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for i, (task, (_, chance)) in enumerate(QUESTIONS.items()):
        axes.plot(
            [i - 0.35] * closed.shape[1],
            closed.loc[task],
            "s",
            color="#0072b2",
            alpha=0.6,
            markersize=5,
        )
        for shift, (arm, (_, colour)) in zip((-0.05, 0.25), NETWORKS.items(), strict=True):
            axes.bar(i + shift, scores.loc[task, arm], width=0.27, color=colour)
        axes.plot(
            [i - 0.45, i + 0.42], [chance, chance], color="black", linestyle="--", linewidth=0.8
        )
    axes.set_xticks(range(len(QUESTIONS)), [label for label, _ in QUESTIONS.values()], fontsize=9)
    axes.set_ylabel("accuracy (dashed: chance)", fontsize=9)
    axes.set_ylim(0, 1)
    handles = [plt.Line2D([], [], marker="s", color="#0072b2", linestyle="", label="closed forms")]
    handles += [
        plt.Rectangle((0, 0), 1, 1, color=colour, label=label)
        for label, colour in NETWORKS.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    _finish(figure, axes, "real_gratings")


FEW_LABELS = {
    "ridge": ("ridge", "#7f7f7f", "s", "-"),
    "ridge, semi-supervised": ("ridge, unlabelled activity", "#56b4e9", "s", "-"),
    "ridge, transferred": ("ridge, earlier day", "#0072b2", "s", "-"),
    "ridge, transferred, shuffled": ("ridge, earlier day of other cells", "#0072b2", "x", ":"),
    "scratch": ("network", "#e69f00", "o", "-"),
    "scratch + transferred teacher": ("network taught by ridge, earlier day", "#d55e00", "o", "-"),
}


def draw_few_labels() -> None:
    """Accuracy with few labels of a day, with and without an earlier day of the same cells."""
    saved = json.loads((HERE / "results" / "across_days.json").read_text())["summary"]
    summary = pd.DataFrame(saved).query("metric == 'accuracy'")
    summary["number"] = (
        summary["labels"].str.extract(r"(\d+) per class", expand=False).astype(float)
    )
    summary = summary.dropna(subset="number").sort_values("number")
    at = {number: i for i, number in enumerate(summary["number"].unique())}
    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for shift, (arm, (label, colour, marker, line)) in enumerate(FEW_LABELS.items()):
        rows = summary[summary["arm"] == arm]
        axes.errorbar(
            [at[number] + 0.04 * (shift - 2.5) for number in rows["number"]], rows["mean"],
            [rows["mean"] - rows["seed_low"], rows["seed_high"] - rows["mean"]], label=label,
            color=colour, marker=marker, linestyle=line, markersize=4, linewidth=1.5,
            elinewidth=0.7,
        )  # fmt: skip
    axes.axhline(1 / 8, color="black", linewidth=0.8, linestyle="--")
    axes.set_xticks(list(at.values()), [f"{number:.0f}" for number in at])
    axes.set_xlabel("labels a direction", fontsize=9)
    axes.set_ylabel("accuracy (dashed: chance)", fontsize=9)
    axes.set_ylim(0, 1)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    _finish(figure, axes, "few_labels")


def _finish(figure: Figure, axes: Axes, name: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / f"{name}.png", dpi=110, facecolor="white")
    plt.close(figure)


if __name__ == "__main__":
    draw_real_gratings()
    draw_few_labels()
