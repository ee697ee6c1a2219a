"""Figures of what came out: scores with intervals, label efficiency, confusion matrices."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from poyo_ssl.metrics.scales import scale_of
from poyo_ssl.report.formatting import (
    FEW_TRIALS,
    NOTHING,
    format_interval,
    format_right,
    format_score,
    is_number,
    metric_title,
    units_title,
)
from poyo_ssl.report.results import (
    ArmFile,
    RunResults,
    Task,
    in_order_of_interest,
    with_most_labels,
)
from poyo_ssl.report.style import FAINT, MUTED, ArmStyle, finish, plain

CHANCE = "chance"
"""The arm of guessing: a dashed line where the run states a chance level, a point otherwise."""
_GROUPS = (("reference", "Reference decoders"), ("network", "Networks"))
_MAX_LABELLED_CLASSES = 12


def rows_of(table: pd.DataFrame, task: Task, metric: str) -> pd.DataFrame:
    """The rows of a table of scores that belong to one task and metric."""
    return table[
        (table["task"] == task.name) & (table["split"] == task.split) & (table["metric"] == metric)
    ]


def _with_chance_as_line(rows: pd.DataFrame, task: Task) -> pd.DataFrame:
    return rows[rows["arm"] != CHANCE] if is_number(task.chance) else rows


def draw_scores(results: RunResults, task: Task, styles: dict[str, ArmStyle]) -> go.Figure:
    """Scores of all arms with the most labels; a panel per subset of units.

    The thin bar is the interval over all there is (trials; seeds and recordings from three on), the
    thick one that over seeds alone, and each faint dot one recording (mean over seeds).
    """
    assert results.summary is not None
    metric = results.main_metric(task)
    rows = _with_chance_as_line(rows_of(results.summary, task, metric), task)
    rows = with_most_labels(rows)
    subsets = in_order_of_interest(rows["units"].unique())
    height_of = _arm_heights(rows)
    drawn = [*_interval_ends(rows), *_recording_means(results, rows, task, metric), task.chance]
    figure = make_subplots(
        cols=len(subsets),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[f"<b>{plain(units_title(units))}</b>" for units in subsets],
    )
    for column, units in enumerate(subsets, start=1):
        for _, row in rows[rows["units"] == units].iterrows():
            height = height_of[(row["kind"], row["arm"])]
            for trace in _point_traces(results, row, height, metric, styles[row["arm"]]):
                figure.add_trace(trace, row=1, col=column)
        if is_number(task.chance):
            figure.add_vline(
                task.chance, row=1, col=column, line={"dash": "dash", "width": 1.2, "color": MUTED}
            )
        figure.update_xaxes(title_text=metric_title(metric), row=1, col=column)
        figure.update_xaxes(range=_padded_range(drawn, metric), row=1, col=column)
    names = [f"<b>{title}</b>" if not arm else plain(arm) for title, arm in _arm_labels(height_of)]
    figure.update_yaxes(
        tickvals=list(height_of.values()),
        ticktext=names,
        range=[max(height_of.values()) + 0.6, -0.6],
        showgrid=False,
        ticklen=0,
    )
    return finish(figure, height=110 + 27 * len(height_of), showlegend=False)


def _padded_range(drawn: Iterable[float | None], metric: str) -> list[float]:
    """An axis from the lowest to the highest of the values and a little further, where possible."""
    finite = [value for value in drawn if is_number(value)]
    low, high = min(finite), max(finite)
    margin = 0.05 * ((high - low) or 1.0)
    scale = scale_of(metric)
    return [scale.clip(low - margin), scale.clip(high + margin)]


def _interval_ends(rows: pd.DataFrame) -> list[float]:
    columns = ["mean", "seed_low", "seed_high", "low", "high"]
    return rows[columns].to_numpy().ravel().tolist()


def _recording_means(
    results: RunResults, rows: pd.DataFrame, task: Task, metric: str
) -> list[float]:
    """Mean over seeds of every recording for the arms, units and labels of the rows."""
    scores = rows_of(results.scores, task, metric)
    for column in ("arm", "units", "labels"):
        scores = scores[scores[column].isin(rows[column])]
    keys = ["units", "arm", "labels", "recording_id"]
    return scores.groupby(keys)["value"].mean().tolist()


def _arm_heights(rows: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Position of every arm from the top; each group has a row of its own above its arms."""
    heights: dict[tuple[str, str], float] = {}
    for kind, _ in _GROUPS:
        arms = rows.loc[rows["kind"] == kind, "arm"].unique()
        if len(arms):
            heights[(kind, "")] = len(heights)
        for arm in arms:
            heights[(kind, str(arm))] = len(heights)
    return heights


def _arm_labels(heights: dict[tuple[str, str], float]) -> list[tuple[str, str]]:
    titles = dict(_GROUPS)
    return [(titles[kind], arm) for kind, arm in heights]


def _point_traces(
    results: RunResults, row: pd.Series, height: float, metric: str, style: ArmStyle
) -> list[go.Scatter]:
    scores = results.scores
    here = scores[
        (scores["task"] == row["task"])
        & (scores["split"] == row["split"])
        & (scores["units"] == row["units"])
        & (scores["arm"] == row["arm"])
        & (scores["metric"] == metric)
        & (scores["labels"] == row["labels"])
    ]
    per_recording = here.groupby("recording_id")["value"].mean()
    traces = []
    if len(per_recording) > 1:
        traces.append(
            go.Scatter(
                x=per_recording.to_numpy(),
                y=[height] * len(per_recording),
                mode="markers",
                cliponaxis=False,
                marker={"color": style.color, "symbol": style.symbol, "size": 6, "opacity": 0.35},
                text=[f"{plain(name)}: {value:.3f}" for name, value in per_recording.items()],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    text = _describe_score(row, metric)
    for low, high, thickness, cap in (
        (row["low"], row["high"], 1.2, 4),
        (row["seed_low"], row["seed_high"], 4.5, 0),
    ):
        traces.append(
            go.Scatter(
                x=[row["mean"]],
                y=[height],
                error_x=_error_bar(row["mean"], low, high, style.color, thickness, cap),
                mode="markers",
                cliponaxis=False,  # a score of 1 lies on the edge of what is possible
                marker={"color": style.color, "symbol": style.symbol, "size": 8,
                        "line": {"color": "white", "width": 1}},
                text=[text],
                hovertemplate="%{text}<extra></extra>",
            )
        )  # fmt: skip
    return traces


def _describe_score(row: pd.Series, metric: str) -> str:
    lines = [
        f"{plain(row['arm'])}: {format_score(row['mean'], metric)}",
        f"95 % {format_interval(row['low'], row['high'], metric)}",
        f"over seeds alone {format_interval(row['seed_low'], row['seed_high'], metric)}",
        f"over trials alone {format_interval(row['trial_low'], row['trial_high'], metric)}",
    ]
    right = format_right(row["num_right"], row["num_test"])
    if right != NOTHING:
        lines.append(f"{right} right")
    return "<br>".join(lines)


def _error_bar(
    mean: float, low: float, high: float, color: str, thickness: float, cap: int
) -> dict[str, object] | None:
    if not (is_number(low) and is_number(high)):
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - mean],
        "arrayminus": [mean - low],
        "color": color,
        "thickness": thickness,
        "width": cap,
    }


def draw_label_efficiency(
    results: RunResults, task: Task, styles: dict[str, ArmStyle]
) -> go.Figure | None:
    """Score against the labels used, a panel per subset of units; None for one number of them."""
    assert results.summary is not None
    metric = results.main_metric(task)
    rows = _with_chance_as_line(rows_of(results.summary, task, metric), task)
    budgets = rows.drop_duplicates("label_fraction").sort_values("label_fraction")
    if len(budgets) < 2:
        return None
    subsets = in_order_of_interest(rows["units"].unique())
    figure = make_subplots(
        cols=len(subsets),
        shared_yaxes="all",
        horizontal_spacing=0.03,
        subplot_titles=[f"<b>{plain(units_title(units))}</b>" for units in subsets],
    )
    in_legend: set[str] = set()
    for column, units in enumerate(subsets, start=1):
        for arm, curve in rows[rows["units"] == units].groupby("arm", sort=False):
            figure.add_trace(
                _efficiency_trace(curve, str(arm), metric, styles[str(arm)], arm not in in_legend),
                row=1,
                col=column,
            )
            in_legend.add(str(arm))
        if is_number(task.chance):
            figure.add_hline(
                task.chance, row=1, col=column, line={"dash": "dash", "width": 1.2, "color": MUTED}
            )
        figure.update_xaxes(
            type="log",
            tickvals=budgets["label_fraction"],
            ticktext=budgets["labels"],
            title_text="labels used",
            row=1,
            col=column,
        )
    figure.update_yaxes(title_text=metric_title(metric), row=1, col=1)
    figure.update_yaxes(range=_padded_range([*_interval_ends(rows), task.chance], metric))
    return finish(
        figure,
        height=400,
        legend={"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0},
    )


def _efficiency_trace(
    curve: pd.DataFrame, arm: str, metric: str, style: ArmStyle, is_in_legend: bool
) -> go.Scatter:
    curve = curve.sort_values("label_fraction")
    return go.Scatter(
        x=curve["label_fraction"],
        y=curve["mean"],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": (curve["high"] - curve["mean"]).fillna(0),
            "arrayminus": (curve["mean"] - curve["low"]).fillna(0),
            "thickness": 1.2,
            "width": 3,
        },
        mode="lines+markers",
        cliponaxis=False,
        name=plain(arm),
        legendgroup=arm,
        showlegend=is_in_legend,
        line={"color": style.color, "dash": style.dash, "width": 2},
        marker={"color": style.color, "symbol": style.symbol, "size": 7},
        text=[_describe_score(row, metric) for _, row in curve.iterrows()],
        hovertemplate="%{text}<extra></extra>",
    )


def best_of_each_kind(
    results: RunResults, task: Task, units: str, files: Iterable[ArmFile]
) -> list[ArmFile]:
    """The files of the best reference decoder and of the best network, in this order.

    Best by the main metric with the most labels, among the arms that saved a file.
    """
    means = rows_of(results.means(), task, results.main_metric(task))
    means = means[means["units"] == units]
    means = with_most_labels(means)
    saved = {
        file.arm: file
        for file in files
        if (file.task, file.units) == (task.name, units) and file.split in (None, task.split)
    }
    best = []
    for kind, _ in _GROUPS:
        arms = means[(means["kind"] == kind) & means["arm"].isin(list(saved))]
        if len(arms):
            best.append(saved[str(arms["arm"].iloc[int(arms["mean"].argmax())])])
    return best


def draw_confusions(results: RunResults, chosen: list[ArmFile]) -> go.Figure:
    """Row-normalised confusion matrices side by side, with counts where a row has few."""
    figure = make_subplots(
        cols=2,  # a lone matrix keeps the size of a pair
        horizontal_spacing=0.14,
        subplot_titles=[f"<b>{plain(file.arm)}</b>" for file in chosen],
    )
    for column, file in enumerate(chosen, start=1):
        counts = results.confusions[file]
        share = counts.div(counts.sum(axis=1).replace(0, float("nan")), axis=0)
        classes = [plain(name) for name in counts.columns]
        is_labelled = len(classes) <= _MAX_LABELLED_CLASSES
        totals = counts.sum(axis=1)
        cell = "%{text}" if totals.max() < FEW_TRIALS else "%{z:.2f}"
        figure.add_heatmap(
            z=share.to_numpy(),
            text=_counts_of_totals(counts),
            zmin=0,
            zmax=1,
            colorscale=[[0, "#ffffff"], [0.5, "#7fa8cc"], [1, "#0b3a66"]],
            texttemplate=cell if is_labelled else None,
            textfont={"size": 11},
            xgap=1 if is_labelled else 0,
            ygap=1 if is_labelled else 0,
            showscale=column == len(chosen),
            colorbar={
                "thickness": 12,
                "len": 0.9,
                "title": {"text": "share of<br>true class", "font": {"size": 12}},
            },
            hovertemplate="true %{y}, decoded %{x}: %{z:.2f} (%{text} trials)<extra></extra>",
            row=1,
            col=column,
        )
        ticks: dict[str, object] = (
            {"tickvals": list(range(len(classes))), "ticktext": classes}
            if is_labelled
            else {"showticklabels": False}
        )
        figure.update_xaxes(title_text="decoded", showgrid=False, row=1, col=column, **ticks)
        figure.update_yaxes(
            title_text="true", autorange="reversed", showgrid=False, row=1, col=column, **ticks
        )
    figure.update_layout(plot_bgcolor=FAINT)
    for column in range(len(chosen) + 1, 3):
        figure.update_xaxes(visible=False, row=1, col=column)
        figure.update_yaxes(visible=False, row=1, col=column)
    return finish(figure, height=430)


def _counts_of_totals(counts: pd.DataFrame) -> list[list[str]]:
    """``15/16`` in every cell of a confusion matrix."""
    return [
        [f"{count:.0f}/{row.sum():.0f}" for count in row] for row in counts.to_numpy(dtype=float)
    ]
