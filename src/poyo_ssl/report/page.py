"""The report: one HTML page that shows what a run found, and opens offline."""

from __future__ import annotations

import base64
import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from poyo_ssl.report import definitions
from poyo_ssl.report.clock_section import CAPTION, read_clock_section
from poyo_ssl.report.figures import (
    MAX_CURVE_PANELS,
    MAX_SCATTER_UNITS,
    MAX_TIMELINE_ROWS,
    curve_panels,
    draw_learning_curves,
    draw_predictability,
    draw_timeline,
)
from poyo_ssl.report.films import TaskFilms, build_players, find_films
from poyo_ssl.report.formatting import (
    format_duration,
    format_number,
    is_number,
    metric_title,
    split_title,
    units_title,
)
from poyo_ssl.report.frame_matrices import FRAMES_METRIC, count_frames, draw_frame_matrices
from poyo_ssl.report.headline import compute_headlines
from poyo_ssl.report.neurons_section import read_neurons_section
from poyo_ssl.report.pictures import PictureRow, build_gallery
from poyo_ssl.report.results import RunResults, Task, in_order_of_interest, load_results
from poyo_ssl.report.score_figures import (
    best_of_each_kind,
    draw_confusions,
    draw_label_efficiency,
    draw_scores,
)
from poyo_ssl.report.style import ArmStyle, style_arms
from poyo_ssl.report.tables import (
    Table,
    tabulate_all_scores,
    tabulate_exclusions,
    tabulate_lines,
    tabulate_per_recording,
    tabulate_recordings,
    tabulate_scores,
    tabulate_warnings,
)
from poyo_ssl.whole_files import partial_file, publish

logger = logging.getLogger(__name__)

# A value in a <script> of JSON must not end it, nor open a comment or another one
_JSON_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})

_RUN_FACTS = ("created", "command", "seconds", "seeds", "versions", "config", "citation")
_PREDICTABILITY_FACTS = (
    "num_predictable", "num_unpredictable", "num_excluded", "source", "kurtosis_definition",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One plotly figure as the page holds it."""

    json: Markup
    height: int
    has_panels: bool
    """Whether panels stand side by side, which a phone scrolls through rather than squeezes."""
    caption: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """What the page shows of one task's scores."""

    title: str
    tested: str
    figures: list[Figure]
    table: Table | None
    all_scores: Table | None
    per_recording: Table


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """True and decoded movie frames of one task and subset of units."""

    title: str
    rows: list[PictureRow]


def write_report(run_directory: str | Path, output: str | Path | None = None) -> Path:
    """Writes the report of a run: a single HTML page without links to the outside.

    Args:
        run_directory: What ``poyo-ssl run ... --output DIR`` wrote.
        output: The page; ``report.html`` in the run directory if not given. It is replaced
            whole, so an interrupted call leaves no half page.

    Returns:
        Where the page was written.

    Raises:
        ReportError: If the directory holds no run, or a file in it cannot be understood.
    """
    results = load_results(run_directory)
    page = render_page(results)
    path = Path(output) if output is not None else results.directory / "report.html"
    with partial_file(path) as partial:
        partial.write_text(page, "utf-8", errors="backslashreplace", newline="\n")
        publish(partial, path)
    logger.info("Wrote the report %s (%.1f MB).", path, path.stat().st_size / 1e6)
    return path


def render_page(results: RunResults) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("poyo_ssl", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = "".join(
        environment.get_template(f"{name}.html.j2").render() + "\n"
        for name in ("draw_figures", "choose_recording", "play_films")
    )
    plotly_script = get_plotlyjs().replace("\r\n", "\n").replace("</script", "<\\/script")
    styles = style_arms(_arms(results))
    main_metrics = {results.main_metric(task) for task in results.tasks}
    return environment.get_template("report.html.j2").render(
        run={**dict.fromkeys(_RUN_FACTS), **results.run},
        plotly_script=Markup(plotly_script),
        draw_script=Markup(scripts),
        script_hashes=[_content_hash(script) for script in (plotly_script, scripts)],
        definitions=definitions,
        headlines=compute_headlines(results),
        has_summary=results.summary is not None,
        recordings=tabulate_recordings(results.recordings) if results.recordings else None,
        warnings=_warnings(results),
        timeline=_timeline(results),
        clock=_clock(results),
        predictability=_predictability(results),
        neurons=read_neurons_section(results),
        curves=_curves(results, styles),
        has_networks=results.curves is None or not results.curves.empty,
        scores=[_task_scores(results, task, styles) for task in results.tasks],
        confusions=_confusions(results),
        has_labels="accuracy" in main_metrics,
        has_movie=bool({"ssim", FRAMES_METRIC} & main_metrics),
        films=_films(results, styles),
        frame_matrices=_frame_matrices(results),
        galleries=_galleries(results),
        metrics=[
            text
            for metric, text in definitions.METRICS.items()
            if metric in set(results.scores["metric"])
        ],
        config=yaml.safe_dump(results.run.get("config") or {}, sort_keys=False, allow_unicode=True),
        duration=format_duration(results.run.get("seconds")),
        hardware=_hardware(results.run.get("hardware") or {}),
    )


def _content_hash(script: str) -> str:
    """What the page's security policy knows a script by: no other script may run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _arms(results: RunResults) -> list[tuple[str, str]]:
    arms = list(results.scores[["arm", "kind"]].itertuples(index=False, name=None))
    if results.summary is not None:
        arms += results.summary[["arm", "kind"]].itertuples(index=False, name=None)
    if results.curves is not None:
        arms += [(arm, "network") for arm in results.curves["arm"].unique()]
    return arms


def _figure(figure: go.Figure, caption: str, notes: list[str] | None = None) -> Figure:
    text = plotly.io.to_json(figure, engine="json")
    return Figure(
        json=Markup(text.translate(_JSON_ESCAPES)),
        height=figure.layout.height,
        has_panels="xaxis2" in figure.to_plotly_json()["layout"],
        caption=caption,
        notes=notes or [],
    )


def _warnings(results: RunResults) -> Table | None:
    if results.warnings is None or results.warnings.empty:
        return None
    return tabulate_warnings(results.warnings)


def _timeline(results: RunResults) -> Figure | None:
    if not results.splits:
        return None
    notes = []
    if len(results.splits) > MAX_TIMELINE_ROWS:
        notes.append(f"The first {MAX_TIMELINE_ROWS} of {len(results.splits)} rows are drawn.")
    return _figure(
        draw_timeline(results.splits),
        "What each part of a recording was used for, task by task. Pretraining, the choice "
        "of units and all statistics saw neither valid, test nor guard time of any task.",
        notes,
    )


def _clock(results: RunResults) -> dict[str, Any] | None:
    section = read_clock_section(results.directory)
    if section is None:
        return None
    notes = [f"{section.num_left_out} more are not drawn."] if section.num_left_out else []
    figure = None if section.figure is None else _figure(section.figure, CAPTION, notes)
    return {"table": section.table, "figure": figure, "num_warnings": section.num_warnings}


def _predictability(results: RunResults) -> dict[str, Any] | None:
    known = results.predictability
    if known is None or results.units is None or results.units.empty:
        return None
    notes = []
    if (results.units[["skewness", "kurtosis"]] <= 0).any(axis=None):
        notes.append("Values of zero or less lie at the edge of their logarithmic axis.")
    if len(results.units) > MAX_SCATTER_UNITS:
        notes.append(f"A random {MAX_SCATTER_UNITS:,} of {len(results.units):,} units are drawn.")
    return {
        "figure": _figure(
            draw_predictability(results.units, known),
            "Every unit by the shape of its activity; dashed lines are the thresholds.",
            notes,
        ),
        "known": {**dict.fromkeys(_PREDICTABILITY_FACTS), **known},
        "thresholds": [
            f"{key} ≤ {known[key + '_max']:g}"
            for key in ("skewness", "kurtosis")
            if is_number(known.get(key + "_max"))
        ],
        "lines": tabulate_lines(known),
        "exclusions": tabulate_exclusions(results.units),
    }


def _curves(results: RunResults, styles: dict[str, ArmStyle]) -> Figure | None:
    if results.curves is None or results.curves.empty:
        return None
    num_panels = len(curve_panels(results.curves))
    notes = []
    if num_panels > MAX_CURVE_PANELS:
        notes.append(f"The first {MAX_CURVE_PANELS} of {num_panels} panels are drawn.")
    return _figure(
        draw_learning_curves(results, styles),
        "Solid: valid and quantities without a part; dotted: train. Lines are means over seeds "
        "(where some stopped early, over those still training), bands reach from the lowest to "
        "the highest seed. Fine-tuning with the most labels.",
        notes,
    )


def _task_scores(results: RunResults, task: Task, styles: dict[str, ArmStyle]) -> TaskScores:
    figures = []
    table = all_scores = None
    metric = results.main_metric(task)
    summary = results.summary
    is_summarised = (
        summary is not None
        and (
            (summary["task"] == task.name)
            & (summary["split"] == task.split)
            & (summary["metric"] == metric)
        ).any()
    )
    if is_summarised:
        chance = "; the dashed line is chance" if is_number(task.chance) else ""
        figures.append(
            _figure(
                draw_scores(results, task, styles),
                f"{metric_title(metric).capitalize() if metric != 'ssim' else 'SSIM'} with all "
                "labels the run used. Thin bar: 95 %; thick bar: 95 % over seeds alone; "
                f"faint dots: single recordings{chance}.",
            )
        )
        efficiency = draw_label_efficiency(results, task, styles)
        if efficiency is not None:
            figures.append(
                _figure(
                    efficiency,
                    f"With fewer labels. Bars: 95 %{chance}.",
                )
            )
        table = tabulate_scores(results, task)
        all_scores = tabulate_all_scores(results, task)
    return TaskScores(
        title=_task_title(task),
        tested=definitions.SPLITS.get(task.split, ""),
        figures=figures,
        table=table,
        all_scores=all_scores,
        per_recording=tabulate_per_recording(results, task),
    )


def _task_title(task: Task, units: str | None = None) -> str:
    words = [task.title]
    if task.split and split_title(task.split) not in task.title:
        words.append(split_title(task.split))
    if units is not None:
        words.append(units_title(units).lower())
    return ", ".join(words)


def _confusions(results: RunResults) -> list[tuple[str, Figure]]:
    figures = []
    for task in results.tasks:
        subsets = {file.units for file in results.confusions if file.task == task.name}
        for units in in_order_of_interest(subsets):
            chosen = best_of_each_kind(results, task, units, results.confusions)
            if chosen:
                figure = _figure(draw_confusions(results, chosen), "")
                figures.append((_task_title(task, units), figure))
    return figures


def _films(results: RunResults, styles: dict[str, ArmStyle]) -> list[TaskFilms]:
    saved, shown = find_films(results), []
    for task in results.tasks:
        here = [film for film in saved if (film.task, film.split) == (task.name, task.split)]
        for units in in_order_of_interest({film.units for film in here})[:1]:
            here = [film for film in here if film.units == units]
            players = build_players(results, task, here, styles)
            num_left_out = len({film.recording_id for film in here}) - len(players)
            title = _task_title(task, units)
            shown.append(TaskFilms(title=title, players=players, num_left_out=num_left_out))
    return shown


def _frame_matrices(results: RunResults) -> list[tuple[str, Figure]]:
    counts, figures = count_frames(results), []
    for task in results.tasks:
        subsets = {file.units for file in counts if file.task == task.name}
        for units in in_order_of_interest(subsets):
            chosen = best_of_each_kind(results, task, units, counts)
            if chosen:
                drawn = draw_frame_matrices(counts, chosen)
                caption = "The best reference decoder beside the best network, over all tests."
                figures.append((_task_title(task, units), _figure(drawn, caption)))
    return figures


def _galleries(results: RunResults) -> list[Gallery]:
    galleries = []
    for task in results.tasks:
        subsets = {file.units for file in results.movies if file.task == task.name}
        for units in in_order_of_interest(subsets):
            rows = build_gallery(results, task, units)
            if rows:
                galleries.append(Gallery(title=_task_title(task, units), rows=rows))
    return galleries


def _hardware(hardware: dict[str, Any]) -> str:
    words = []
    if hardware.get("cpu"):
        words.append(str(hardware["cpu"]))
    if hardware.get("num_cores"):
        words.append(f"{hardware['num_cores']} cores")
    if hardware.get("memory_gb"):
        words.append(f"{format_number(hardware['memory_gb'], 0)} GB of memory")
    if hardware.get("device"):
        words.append(f"trained on {hardware['device']}")
    return ", ".join(words)
