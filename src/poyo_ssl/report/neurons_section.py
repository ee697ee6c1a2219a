"""The section on single units: their activity, tuning, and part in what decoders answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poyo_ssl.estimators.figures import plot_latents
from poyo_ssl.file_names import NEURONS
from poyo_ssl.neurons.describe import Neurons, TaskNeurons
from poyo_ssl.neurons.figures import (
    has_places,
    new_axes,
    plot_average_response,
    plot_field_of_view,
    plot_importance,
    plot_responses,
    plot_traces,
    plot_tuning,
)
from poyo_ssl.neurons.selectivity import selectivity
from poyo_ssl.neurons.storage import NeuronsError, load_neurons
from poyo_ssl.report.formatting import format_count, format_number
from poyo_ssl.report.inline_svg import page_look, to_svg
from poyo_ssl.report.results import ArmFile, ReportError, RunResults, Task
from poyo_ssl.report.score_figures import best_of_each_kind
from poyo_ssl.report.tables import Row, Table

MAX_DRAWN_TASKS = 2
"""Tasks of a recording that are drawn; more would make the page heavy."""
_GROUPS = ((True, "Predictable"), (False, "Unpredictable"))
_INDICES = {
    "osi": "OSI", "dsi": "DSI", "global_osi": "Global OSI", "global_dsi": "Global DSI",
    "sparseness": "Sparseness",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One small figure."""

    svg: Markup
    caption: str


@dataclass(frozen=True, kw_only=True)
class RecordingNeurons:
    """What the page shows of the units of one recording."""

    recording_id: str
    units: str
    panels: list[Panel]
    """About all tasks."""
    tasks: list[tuple[str, list[Panel]]]
    """Title of a task to its own panels."""


@dataclass(frozen=True, kw_only=True)
class NeuronsSection:
    """What the page shows of single units."""

    recordings: list[RecordingNeurons]
    num_left_out: int
    """Recordings of the run that are not shown."""
    selectivity: Table | None
    importance: list[tuple[str, Table]]
    """Title of a task to which units matter for it."""


def read_neurons_section(results: RunResults) -> NeuronsSection | None:
    """Reads ``neurons.npz`` of a run directory; None where there is none, or none is described.

    Raises:
        ReportError: If it cannot be understood.
    """
    path = results.directory / NEURONS
    if not path.is_file():
        return None
    try:
        described = load_neurons(path)
    except NeuronsError as error:
        raise ReportError(
            f"{path} cannot be understood: {error} Delete it or run again."
        ) from error
    if not described:
        return None
    with page_look():
        recordings = [_draw_recording(neurons, results) for neurons in described]
    num_recordings = results.scores["recording_id"].nunique()
    tables = ((title, _tabulate_importance(described, name)) for name, title in _titles(described))
    return NeuronsSection(
        recordings=recordings,
        num_left_out=max(0, num_recordings - len(described)),
        selectivity=_tabulate_selectivity(described),
        importance=[(title, table) for title, table in tables if table is not None],
    )


def _titles(described: Sequence[Neurons]) -> list[tuple[str, str]]:
    """Name and title of every task that is described, once, in order."""
    return list(dict.fromkeys((t.name, t.title) for neurons in described for t in neurons.tasks))


def _draw_recording(neurons: Neurons, results: RunResults) -> RecordingNeurons:
    num_described = len(neurons.units)
    units = f"{neurons.is_predictable.sum()} predictable and "
    units += f"{(~neurons.is_predictable).sum()} unpredictable units"
    if num_described < neurons.num_units:
        units += f", of {neurons.num_units} recorded ones"
    panels = []
    if len(neurons.traces.times):
        caption = (
            "Units that respond most reliably; stimuli are shaded, numbers give the height of "
            "each trace in ΔF/F."
        )
        panels.append(_panel(plot_traces(neurons), caption))
    if has_places(neurons):
        panels.append(_panel(plot_field_of_view(neurons), "Where the units lie."))
    tasks = [
        (task.title, list(_task_panels(neurons, task, _chosen_arms(results, task))))
        for task in neurons.tasks[:MAX_DRAWN_TASKS]
    ]
    return RecordingNeurons(
        recording_id=neurons.recording_id,
        units=units,
        panels=panels,
        tasks=[(title, drawn) for title, drawn in tasks if drawn],
    )


def _chosen_arms(results: RunResults, described: TaskNeurons) -> list[str]:
    """The best reference decoder and the best network that tell something of units."""
    task = next((task for task in results.tasks if task.name == described.name), None)
    if task is None:
        return []
    told = [*described.importance, *described.latents]
    units = _decoded_units(results, task)
    files = [ArmFile(task=task.name, units=units, arm=arm) for arm in told]
    return [file.arm for file in best_of_each_kind(results, task, units, files)]


def _decoded_units(results: RunResults, task: Task) -> str:
    known = results.units_of(task)
    return "all" if "all" in known else known[0]


def _task_panels(neurons: Neurons, task: TaskNeurons, arms: list[str]) -> Iterator[Panel]:
    if task.responses is not None:
        responses, count = task.responses, format_count(task.responses.num_presentations)
        if responses.is_preferred:
            caption = (
                f"Response of every unit to the label that it prefers ({count} presentations of "
                "all labels). Label and order, early peaks above, come from every other "
                "presentation; those between are drawn. Grey: not imaged, or no training time."
            )
        else:
            caption = (
                f"Average of every unit around the stimulus ({count} presentations). The order, "
                "early peaks above, comes from every other presentation; those between are drawn. "
                "Grey: not imaged, or no training time."
            )
        yield _panel(plot_responses(neurons, task.name), caption)
        caption = "The same, mean ± s.e.m. over units."
        yield _panel(plot_average_response(neurons, task.name), caption)
    if task.tuning is not None:
        caption = "Tuning of the units that respond most reliably: mean ± s.e.m. over windows."
        yield _panel(plot_tuning(neurons, task.name), caption)
    importance = {arm: task.importance[arm] for arm in arms if arm in task.importance}
    if importance:
        caption = (
            "How much each unit counts: absolute weights of linear decoders, gradient × input of "
            "networks. Lines are medians."
        )
        yield _panel(plot_importance(neurons, task.name, arms=list(importance)), caption)
    for arm in arms:
        if arm in task.latents:
            axes, latents = new_axes(), task.latents[arm]
            plot_latents(latents.points, latents.labels, axes=axes)
            caption = f"Latents of the encoder of '{arm}' in training windows, by what was shown."
            yield _panel(axes, caption)


def _panel(drawn: Axes | Figure, caption: str) -> Panel:
    figure = drawn if isinstance(drawn, Figure) else drawn.figure
    assert isinstance(figure, Figure)
    return Panel(svg=to_svg(figure, caption), caption=caption)


def _tabulate_selectivity(described: Sequence[Neurons]) -> Table | None:
    """Medians over the units of every group, task by task; without indices that nobody has."""
    groups: list[tuple[list[str], pd.Series]] = []
    for name, title in _titles(described):
        found = [
            selectivity(task.tuning.curves, task.tuning.period).assign(group=neurons.is_predictable)
            for neurons in described
            for task in neurons.tasks
            if task.name == name and task.tuning is not None
        ]
        if not found:
            continue
        table = pd.concat(found)
        for is_it, label in _GROUPS:
            group = table[table["group"] == is_it]
            if len(group):
                medians = group.reindex(columns=list(_INDICES)).astype(float).median()
                groups.append(([title, label, format_count(len(group))], medians))
    if not groups:
        return None
    known = [index for index in _INDICES if any(np.isfinite(m[index]) for _, m in groups)]
    return Table(
        columns=["Task", "Units", "Number", *(_INDICES[index] for index in known)],
        rows=[
            Row(cells=[*cells, *(_in_two_digits(medians[index]) for index in known)])
            for cells, medians in groups
        ],
        num_text_columns=2,
    )


def _tabulate_importance(described: Sequence[Neurons], name: str) -> Table | None:
    """Mean importance by predictability and, where there are several, Cre line and depth."""
    parts = [
        neurons.units.assign(**{f"importance {arm}": v for arm, v in task.importance.items()})
        for neurons in described
        for task in neurons.tasks
        if task.name == name
    ]
    arms = list(
        dict.fromkeys(a for n in described for t in n.tasks if t.name == name for a in t.importance)
    )
    if not arms:
        return None
    units = pd.concat(parts)
    rows = []
    for is_it, label in _GROUPS:
        rows += _importance_row(label, units[units["is_predictable"] == is_it], arms)
    for column, text in (("cre_line", "{}"), ("imaging_depth_um", "{:g} µm deep")):
        found = sorted(units[column].dropna().unique()) if column in units else []
        if len(found) > 1:
            for value in found:
                rows += _importance_row(text.format(value), units[units[column] == value], arms)
    return Table(columns=["Units", "Number", *arms], rows=rows)


def _importance_row(label: str, units: pd.DataFrame, arms: Sequence[str]) -> list[Row]:
    if units.empty:
        return []
    means = [_in_two_digits(units[f"importance {arm}"].mean()) for arm in arms]
    return [Row(cells=[label, format_count(len(units)), *means])]


def _in_two_digits(value: float) -> str:
    return format_number(value, 2) if np.isfinite(value) else "–"
