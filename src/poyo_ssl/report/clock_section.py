"""The section on responses and clocks: who responds to what, and whether times seem to be off."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from poyo_ssl.report.formatting import format_count, format_number, is_number
from poyo_ssl.report.results import ReportError
from poyo_ssl.report.style import INK, MUTED, finish, plain
from poyo_ssl.report.tables import Row, Table

MAX_CLOCK_LINES = 40
CAPTION = (
    "How well the activity fits a stimulus (relative to the best lag) if it is read some seconds "
    "after the listed times. Visual responses peak within the grey band; a peak elsewhere means "
    "that the clock of a stimulus is off. These statistics describe whole recordings, test part "
    "included: no decoder and no choice in this run has seen them."
)
_WARNING_COLOR, _FINE_COLOR = "#D55E00", "#0072B2"


@dataclass(frozen=True, kw_only=True)
class ClockSection:
    """What the page shows of the checks of a run."""

    table: Table
    figure: go.Figure | None
    num_warnings: int
    num_left_out: int


def read_clock_section(directory: Path) -> ClockSection | None:
    """Reads ``clock.json`` of a run directory; None where there is none.

    Raises:
        ReportError: If it cannot be understood.
    """
    path = directory / "clock.json"
    if not path.is_file():
        return None
    try:
        checks = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReportError(f"{path} is not JSON ({error}). Delete it or run again.") from error
    problem = _find_problem(checks)
    if problem:
        raise ReportError(f"{path} cannot be understood: {problem} Delete it or run again.")
    drawn = [check for check in checks if check.get("lags")]
    return ClockSection(
        table=_tabulate(checks),
        figure=_draw(drawn[:MAX_CLOCK_LINES]) if drawn else None,
        num_warnings=sum(bool(check.get("warning")) for check in checks),
        num_left_out=max(len(drawn) - MAX_CLOCK_LINES, 0),
    )


def _find_problem(checks: Any) -> str:
    if not isinstance(checks, list) or not all(isinstance(check, dict) for check in checks):
        return "it must hold a list of objects."
    for check in checks:
        lags, fit = check.get("lags") or [], check.get("fit") or []
        if not isinstance(lags, list) or not isinstance(fit, list) or len(lags) != len(fit):
            return "'lags' and 'fit' must be lists of equal length."
        if not all(is_number(lag) for lag in lags):
            return "'lags' must be numbers."
        if not all(value is None or is_number(value) for value in fit):
            return "'fit' must be numbers or null."
    return ""


def _tabulate(checks: list[dict[str, Any]]) -> Table:
    """A row for each stimulus of each recording; warnings and notes stand below it."""
    table = Table(
        columns=["Recording", "Stimulus", "Units", "Responding", "Best lag (s)"],
        num_text_columns=2,
    )
    for check in checks:
        best = check.get("best_lag")
        cells = [
            str(check.get("recording_id", "")),
            str(check.get("stimulus", "")).replace("_", " "),
            format_count(check.get("num_units")),
            format_count(check.get("num_responding")),
            format_number(best, 1) if is_number(best) else "–",
        ]
        table.rows.append(Row(cells=cells))
        if check.get("warning"):
            table.rows.append(Row(cells=[f"Warning: {check['warning']}"], role="detail"))
        if check.get("note"):
            note = str(check["note"])
            table.rows.append(Row(cells=[f"{note[:1].upper()}{note[1:]}."], role="detail"))
    return table


def _draw(checks: list[dict[str, Any]]) -> go.Figure:
    figure = go.Figure()
    figure.add_vrect(0, 1, fillcolor=MUTED, opacity=0.15, line={"width": 0})
    figure.add_vline(0, line={"dash": "dash", "width": 1, "color": INK})
    for check in checks:
        best = max((value for value in check["fit"] if value is not None), default=0.0)
        has_warning = bool(check.get("warning"))
        name = plain(f"{check.get('recording_id', '')}, {check.get('stimulus', '')}")
        figure.add_scatter(
            x=check["lags"],
            y=[None if value is None or best <= 0 else value / best for value in check["fit"]],
            mode="lines",
            name=name,
            showlegend=has_warning,  # the others share a colour; hovering names them
            opacity=1.0 if has_warning else 0.55,
            line={
                "color": _WARNING_COLOR if has_warning else _FINE_COLOR,
                "width": 2.2 if has_warning else 1.3,
                "dash": "solid" if has_warning else "dot",
            },
            hovertemplate=f"{name}: %{{y:.2f}} at %{{x}} s<extra></extra>",
        )
    figure.update_xaxes(title_text="seconds after the listed times")
    figure.update_yaxes(title_text="fit, relative to the best", range=[-0.5, 1.08])
    return finish(figure, height=380, legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"})
