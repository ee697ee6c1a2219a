"""Figures of what went in: the parts of each recording, predictability, learning curves."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from poyo_ssl.predictability.figure import PREDICTABLE_COLOR, UNPREDICTABLE_COLOR
from poyo_ssl.report.formatting import format_number, is_number, units_title
from poyo_ssl.report.results import RunResults, with_most_labels
from poyo_ssl.report.style import (
    INK,
    PART_COLORS,
    ArmStyle,
    finish,
    plain,
    transparent,
)

MAX_TIMELINE_ROWS = 30
MAX_SCATTER_UNITS = 5000
MAX_CURVE_PANELS = 24
_MAX_CURVE_POINTS = 150
_CURVE_COLUMNS = 3
_PANEL_TITLE_WIDTH = 30
_PANEL_HEIGHT, _PANEL_GAP, _TITLE_LINE = 160, 54, 17
"""Pixels of a panel, between two panels and of every further line of their titles."""
_LEGEND_WIDTH, _LEGEND_ROW = 850, 22
"""Pixels that a legend is wide, and a row of it high."""
_LEGEND_LINE, _LEGEND_CHARACTER = 45, 7
"""Pixels of an entry: its line, and a character of its name."""


def draw_timeline(splits: list[dict[str, Any]]) -> go.Figure:
    """When each recording was imaged and which time trains, validates and tests.

    One row per recording and task, at most ``MAX_TIMELINE_ROWS``; minutes since the first
    segment began.
    """
    shown = splits[:MAX_TIMELINE_ROWS]
    bars: dict[str, list[tuple[int, float, float]]] = {part: [] for part in PART_COLORS}
    labels = []
    for row, entry in enumerate(shown):
        segments = entry.get("segments") or []
        origin = min((start for start, _ in segments), default=0.0)
        bars["recorded"] += [(row, start - origin, end - origin) for start, end in segments]
        for part in ("train", "valid", "test", "guard"):
            bars[part] += [
                (row, start - origin, end - origin) for start, end in entry.get(part) or []
            ]
        task = plain(str(entry.get("task", "")).replace("_", " "))
        labels.append(f"{plain(entry.get('recording_id', ''))}<br><i>{task}</i>")
    figure = go.Figure()
    for part, color in PART_COLORS.items():
        if not bars[part]:
            continue
        rows, starts, ends = (np.array(column) for column in zip(*bars[part], strict=True))
        figure.add_bar(
            orientation="h",
            name={"guard": "guard (unused)"}.get(part, part),
            y=rows,
            base=starts / 60,
            x=(ends - starts) / 60,
            customdata=ends / 60,
            width=0.82 if part == "recorded" else 0.5,
            marker={"color": color, "line": {"width": 0}},
            hovertemplate=f"{part}: %{{base:.2f}} to %{{customdata:.2f}} min<extra></extra>",
        )
    figure.update_yaxes(
        tickvals=list(range(len(shown))),
        ticktext=labels,
        range=[len(shown) - 0.4, -0.6],
        showgrid=False,
    )
    figure.update_xaxes(title_text="minutes since imaging began")
    return finish(
        figure,
        height=120 + 40 * len(shown),
        barmode="overlay",
        legend={
            "orientation": "h",
            "y": 1.0,
            "yanchor": "bottom",
            "x": 0,
            "traceorder": "normal",
            "entrywidth": 7 * max(len(bar.name) for bar in figure.data),  # two in a phone's row
        },
    )


def draw_predictability(units: pd.DataFrame, predictability: dict[str, Any]) -> go.Figure:
    """Kurtosis against skewness of every unit, with the thresholds.

    A non-positive value has no place on a logarithmic axis and is drawn at its lower edge; at
    most ``MAX_SCATTER_UNITS`` units are drawn, a fixed random choice of them.
    """
    known = units[
        np.isfinite(units["skewness"]) & np.isfinite(units["kurtosis"]) & (units["excluded"] == "")
    ]
    if len(known) > MAX_SCATTER_UNITS:
        known = known.sample(MAX_SCATTER_UNITS, random_state=0)
    figure = go.Figure()
    lowest = {
        column: _draw_threshold(figure, column, known[column], predictability.get(f"{column}_max"))
        for column in ("skewness", "kurtosis")
    }
    is_predictable = known["is_predictable"].str.lower().isin(["true", "1"])
    for name, color, symbol, group in (
        ("predictable", PREDICTABLE_COLOR, "circle", known[is_predictable]),
        ("unpredictable", UNPREDICTABLE_COLOR, "diamond-open", known[~is_predictable]),
    ):
        figure.add_scatter(
            x=group["skewness"].clip(lower=lowest["skewness"]),
            y=group["kurtosis"].clip(lower=lowest["kurtosis"]),
            mode="markers",
            name=f"{name} ({len(group)})",
            marker={"color": color, "symbol": symbol, "size": 6, "opacity": 0.7},
            text=[_describe_unit(unit) for unit in group.to_dict("records")],
            hovertemplate="%{text}<extra></extra>",
        )
    definition = plain(predictability.get("kurtosis_definition", "definition not stored"))
    figure.update_xaxes(title_text="skewness of ΔF/F")
    figure.update_yaxes(title_text=f"kurtosis of ΔF/F<br>({definition})")
    return finish(figure, height=460, legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"})


def _draw_threshold(
    figure: go.Figure, column: str, values: pd.Series, threshold: float | None
) -> float:
    """Fits a logarithmic axis to positive values and draws the threshold on it.

    Returns:
        The lowest position on the axis that a marker may take.
    """
    is_x = column == "skewness"
    drawn = values[values > 0].tolist()
    if is_number(threshold) and threshold > 0:
        drawn.append(threshold)
        add_line = figure.add_vline if is_x else figure.add_hline
        add_line(threshold, line={"dash": "dash", "width": 1.2, "color": INK})
        # plotly places lines on a logarithmic axis by value, but text by its logarithm
        at = float(np.log10(threshold))
        where = {"x": at, "xshift": -4} if is_x else {"y": at, "yshift": 9}
        edge = {"yref": "paper", "y": 1} if is_x else {"xref": "paper", "x": 0}
        anchor = "right" if is_x else "left"
        text = f"{column} ≤ {threshold:g}"
        figure.add_annotation(**where, **edge, xanchor=anchor, text=text, showarrow=False)
    low, high = 0.8 * min(drawn, default=1.0), 1.25 * max(drawn, default=10.0)
    update_axis = figure.update_xaxes if is_x else figure.update_yaxes
    update_axis(
        type="log", range=np.log10([0.9 * low, high]).tolist(), tickvals=_log_ticks(low, high)
    )
    return low


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every decade between two positive numbers."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in (1, 2, 5)]
    return [tick for tick in ticks if low <= tick <= high]


def _describe_unit(unit: dict[str, Any]) -> str:
    lines = [f"unit {unit['unit_id']}, {unit['recording_id']}"]
    lines += [str(unit[key]) for key in ("cre_line", "area") if unit.get(key)]
    lines.append(
        f"skewness {format_number(unit['skewness'], 2)}, "
        f"kurtosis {format_number(unit['kurtosis'], 2)}"
    )
    return "<br>".join(plain(line) for line in lines)


def curve_panels(curves: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """The panels of the learning curves: (stage, task, units, quantity), pretraining first.

    ``train/loss`` and ``valid/loss`` are one quantity and share a panel. So do encoders, whatever
    units they were pretrained on.
    """
    curves = _over_diets(curves)
    quantity = _quantity(curves)
    found = pd.DataFrame(
        {
            "stage": curves["stage"],
            "task": curves["task"],
            "units": curves["units"],
            "quantity": quantity,
        }
    ).drop_duplicates()
    found = found.assign(is_pretraining=found["stage"] == "pretrain")
    found = found.sort_values(
        ["is_pretraining", "stage", "task", "units"],
        ascending=[False, True, True, False],
        kind="stable",
    )
    return list(found[["stage", "task", "units", "quantity"]].itertuples(index=False, name=None))


def draw_learning_curves(results: RunResults, styles: dict[str, ArmStyle]) -> go.Figure:
    """Losses and scores during training, a panel per task and quantity.

    Mean over seeds with a band from the lowest to the highest; valid solid, train dotted; the
    most labels that a task was trained with. At most ``MAX_CURVE_PANELS`` panels.
    """
    assert results.curves is not None
    curves = _over_diets(results.curves)
    titles = {task.name: task.title for task in results.tasks}
    panels = curve_panels(curves)[:MAX_CURVE_PANELS]
    num_columns = min(_CURVE_COLUMNS, len(panels))
    num_rows = -(-len(panels) // num_columns)
    panel_titles = [_panel_title(panel, titles) for panel in panels]
    gap = _PANEL_GAP + _TITLE_LINE * max(title.count("<br>") for title in panel_titles)
    plots = _PANEL_HEIGHT * num_rows + gap * (num_rows - 1)
    figure = make_subplots(
        rows=num_rows,
        cols=num_columns,
        subplot_titles=panel_titles,
        horizontal_spacing=0.075,
        vertical_spacing=gap / plots,
    )
    in_legend: set[str] = set()
    curves = curves.sort_values(
        "metric", key=lambda metric: metric.str.startswith("train/"), kind="stable"
    )
    quantity = _quantity(curves)
    for at, (stage, task, units, panel_quantity) in enumerate(panels):
        row, column = at // num_columns + 1, at % num_columns + 1
        here = curves[
            (curves["stage"] == stage)
            & (curves["task"] == task)
            & (curves["units"] == units)
            & (quantity == panel_quantity)
        ]
        here = with_most_labels(here)
        for (arm, metric), curve in here.groupby(["arm", "metric"], sort=False):
            for trace in _curve_traces(curve, str(arm), str(metric), styles[str(arm)]):
                if trace.showlegend is None:
                    trace.showlegend = arm not in in_legend
                    in_legend.add(str(arm))
                figure.add_trace(trace, row=row, col=column)
        if at + num_columns >= len(panels):
            figure.update_xaxes(title_text="training step", row=row, col=column)
    legend_height = _LEGEND_ROW * _count_legend_rows(in_legend)
    return finish(
        figure,
        height=plots + gap + legend_height + _PANEL_GAP,
        margin={"t": gap + legend_height},
        legend={"orientation": "h", "yref": "container", "y": 1.0, "yanchor": "top", "x": 0},
    )


def _over_diets(curves: pd.DataFrame) -> pd.DataFrame:
    """The curves without the units that encoders were pretrained on: arms tell diets apart."""
    is_pretraining = curves["stage"] == "pretrain"
    return curves.assign(units=curves["units"].mask(is_pretraining, ""))


def _count_legend_rows(arms: Collection[str]) -> int:
    """Rows of a horizontal legend, by the width of its entries."""
    pixels = sum(_LEGEND_LINE + _LEGEND_CHARACTER * len(arm) for arm in arms)
    return -(-pixels // _LEGEND_WIDTH)


def _quantity(curves: pd.DataFrame) -> pd.Series:
    """What a metric measures, whichever part it was measured on: ``valid/loss`` is ``loss``."""
    return curves["metric"].str.replace(r"^(train|valid)/", "", regex=True)


def _panel_title(panel: tuple[str, str, str, str], titles: dict[str, str]) -> str:
    stage, task, units, quantity = panel
    title = titles.get(task, task.replace("_", " "))
    where = "Pretraining" if stage == "pretrain" else title
    subset = f"{units_title(units).lower()}, " if units else ""
    lines = [f"<b>{plain(line)}</b>" for line in textwrap.wrap(where, _PANEL_TITLE_WIDTH)]
    return "<br>".join([*lines, plain(subset + quantity.replace("_", " "))])


def _curve_traces(curve: pd.DataFrame, arm: str, metric: str, style: ArmStyle) -> list[go.Scatter]:
    """The band over seeds, where there are several, and the line of the mean."""
    is_train = metric.startswith("train/")
    steps = curve["step"]
    if steps.nunique() > _MAX_CURVE_POINTS:
        width = (steps.max() - steps.min()) / _MAX_CURVE_POINTS
        steps = ((steps - steps.min()) // width + 0.5) * width + steps.min()
    curve = curve.assign(step=steps, seed=curve["seed"].fillna(0))
    per_seed = curve.pivot_table(index="step", columns="seed", values="value")
    x = per_seed.index.to_numpy(dtype=float)
    traces = []
    if per_seed.shape[1] > 1:
        low, high = per_seed.min(axis=1).to_numpy(), per_seed.max(axis=1).to_numpy()
        traces.append(
            go.Scatter(
                x=np.concatenate([x, x[::-1]]),
                y=np.concatenate([high, low[::-1]]),
                mode="lines",  # else plotly marks the corners of a short band
                fill="toself",
                fillcolor=transparent(style.color, 0.10 if is_train else 0.18),
                line={"width": 0},
                hoverinfo="skip",
                legendgroup=arm,
                showlegend=False,
            )
        )
    traces.append(
        go.Scatter(
            x=x,
            y=per_seed.mean(axis=1).to_numpy(),
            mode="lines" if len(x) > 1 else "markers",
            name=plain(arm),
            legendgroup=arm,
            line={"color": style.color, "width": 1.4 if is_train else 2.2,
                  "dash": "dot" if is_train else "solid"},
            hovertemplate=f"{plain(arm)}, {plain(metric)}: %{{y:.4g}} at %{{x}}<extra></extra>",
        )
    )  # fmt: skip
    return traces
