"""Time against time: which movie frame was decoded when which was shown."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from poyo_ssl.report.results import ArmFile, ReportError, RunResults
from poyo_ssl.report.style import FAINT, finish, plain

FRAMES_METRIC = "within_1s"
"""The main metric of tasks that ask which movie frame was shown."""
_MOST_BINS = 60
_ROWS_AT_ONCE = 200_000
_COLUMNS = ["task", "units", "arm", "truth", "answer"]


def count_frames(results: RunResults) -> dict[ArmFile, pd.DataFrame]:
    """How often each stretch of a movie was decoded when each was shown, over all tests.

    Returns:
        Counts of every task, subset of units and arm; rows are shown, columns decoded, both named
        by the first movie frame of a bin. Empty where the run has no such task, or no predictions.

    Raises:
        ReportError: If ``predictions.csv`` cannot be understood.
    """
    tasks = [task.name for task in results.tasks if results.main_metric(task) == FRAMES_METRIC]
    path = results.directory / "predictions.csv"
    if not tasks or not path.is_file():
        return {}
    try:
        with pd.read_csv(
            path, usecols=_COLUMNS, dtype=str, keep_default_na=False, chunksize=_ROWS_AT_ONCE
        ) as chunks:
            found = pd.concat([_of_tasks(chunk, tasks) for chunk in chunks])
    except ValueError as error:
        raise ReportError(
            f"{path} cannot be understood: {error}. Delete it or run again."
        ) from error
    counts = {}
    for task in tasks:
        rows = found[found["task"] == task]
        last = int(rows[["truth", "answer"]].to_numpy().max()) if len(rows) else 0
        named = rows[["units", "arm"]].drop_duplicates()
        for units, arm in named.itertuples(index=False, name=None):
            here = rows[(rows["units"] == units) & (rows["arm"] == arm)]
            counts[ArmFile(task=task, units=units, arm=arm)] = _bin(here, last)
    return counts


def _of_tasks(chunk: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    rows = chunk[chunk["task"].isin(tasks)]
    return rows.assign(truth=rows["truth"].astype(float), answer=rows["answer"].astype(float))


def _bin(rows: pd.DataFrame, last: int) -> pd.DataFrame:
    width = -(-(last + 1) // _MOST_BINS)
    edges = np.arange(0, last + 1 + width, width)
    counts, _, _ = np.histogram2d(rows["truth"], rows["answer"], bins=(edges, edges))
    return pd.DataFrame(counts, index=edges[:-1], columns=edges[:-1])


def draw_frame_matrices(counts: dict[ArmFile, pd.DataFrame], chosen: list[ArmFile]) -> go.Figure:
    """What was decoded against what was shown, side by side; each row is divided by its sum."""
    figure = make_subplots(
        cols=2,  # a lone matrix keeps the size of a pair
        horizontal_spacing=0.14,
        subplot_titles=[f"<b>{plain(file.arm)}</b>" for file in chosen],
    )
    for column, file in enumerate(chosen, start=1):
        table = counts[file]
        share = table.div(table.sum(axis=1).replace(0, float("nan")), axis=0)
        figure.add_heatmap(
            x=table.columns,
            y=table.index,
            z=share.round(3).to_numpy(),
            zmin=0,
            zmax=1,
            colorscale=[[0, "#ffffff"], [0.1, "#b9d0e4"], [0.5, "#4f86b8"], [1, "#0b3a66"]],
            showscale=column == len(chosen),
            colorbar={
                "thickness": 12,
                "len": 0.9,
                "title": {"text": "share of<br>shown frames", "font": {"size": 12}},
            },
            hovertemplate="shown %{y}, decoded %{x}: %{z:.2f}<extra></extra>",
            row=1,
            col=column,
        )
        figure.update_xaxes(title_text="frame decoded", showgrid=False, row=1, col=column)
        figure.update_yaxes(
            title_text="frame shown", autorange="reversed", showgrid=False, row=1, col=column
        )
    figure.update_layout(plot_bgcolor=FAINT)
    for column in range(len(chosen) + 1, 3):
        figure.update_xaxes(visible=False, row=1, col=column)
        figure.update_yaxes(visible=False, row=1, col=column)
    return finish(figure, height=430)
