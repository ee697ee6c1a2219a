from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.predictability.figure import PREDICTABLE_COLOR, UNPREDICTABLE_COLOR
from poyo_ssl.report.figures import (
    MAX_TIMELINE_ROWS,
    curve_panels,
    draw_learning_curves,
    draw_predictability,
    draw_timeline,
)
from poyo_ssl.report.results import load_results
from poyo_ssl.report.score_figures import (
    best_of_each_kind,
    draw_confusions,
    draw_label_efficiency,
    draw_scores,
)
from poyo_ssl.report.style import style_arms


@pytest.fixture(scope="module")
def results(saved_run):
    return load_results(saved_run)


@pytest.fixture(scope="module")
def styles(results):
    return style_arms(results.scores[["arm", "kind"]].itertuples(index=False, name=None))


def test_an_arm_keeps_its_colour_whichever_others_there_are():
    few = style_arms([("pretrained", "network"), ("scratch", "network")])
    many = style_arms([("ridge", "reference"), ("scratch", "network"), ("pretrained", "network")])
    assert few["pretrained"] == many["pretrained"]
    assert few["scratch"] == many["scratch"]


def test_all_arms_of_a_run_look_different(styles):
    assert len({(style.color, style.symbol) for style in styles.values()}) == len(styles)


def test_the_timeline_starts_at_the_first_segment_and_is_in_minutes():
    splits = [
        {"recording_id": "a", "task": "t", "segments": [[60.0, 180.0]], "train": [[60.0, 120.0]],
         "valid": [], "test": [[120.0, 180.0]]}
    ]  # fmt: skip
    bars = {bar.name: bar for bar in draw_timeline(splits).data}
    assert set(bars) == {"recorded", "train", "test"}
    assert (bars["test"].base[0], bars["test"].x[0]) == (1.0, 1.0)
    assert bars["recorded"].base[0] == 0.0


def test_a_long_list_of_recordings_is_cut_to_what_fits():
    entry = {"recording_id": "a", "task": "t", "segments": [[0, 1]], "train": [[0, 1]]}
    figure = draw_timeline([entry] * (MAX_TIMELINE_ROWS + 5))
    assert len(figure.layout.yaxis.ticktext) == MAX_TIMELINE_ROWS


def test_every_unit_with_known_statistics_is_drawn_once(results):
    figure = draw_predictability(results.units, results.predictability)
    num_drawn = sum(len(trace.x) for trace in figure.data)
    assert num_drawn == (results.units["excluded"] == "").sum() == 236


def test_a_negative_skewness_is_drawn_at_the_edge_of_the_logarithmic_axis(results):
    units = results.units.assign(
        skewness=np.r_[[1.0, 1.0, -0.5], np.full(len(results.units) - 3, 2.0)]
    )
    figure = draw_predictability(units, results.predictability)
    x = np.concatenate([trace.x for trace in figure.data])
    assert np.all(x > 0)
    assert 10 ** figure.layout.xaxis.range[0] < x.min() < 2.0


def test_units_without_any_known_statistic_still_make_a_figure(results):
    units = results.units.assign(skewness=np.nan, kurtosis=np.nan)
    figure = draw_predictability(units, {})
    assert sum(len(trace.x) for trace in figure.data) == 0


def test_learning_curves_put_train_and_valid_of_a_loss_into_one_panel(results, styles):
    panels = curve_panels(results.curves)
    assert panels[0] == ("pretrain", "", "", "loss")
    assert len(panels) == 6
    figure = draw_learning_curves(results, styles)
    first_panel = [trace for trace in figure.data if trace.xaxis == "x" and trace.name]
    assert {trace.line.dash for trace in first_panel} == {"dot", "solid"}
    assert [trace.name for trace in figure.data if trace.showlegend] == ["pretrained", "scratch"]


def test_encoders_of_different_diets_share_panels_and_a_legend_that_has_room(run_directory):
    arms = [f"a rather long name of a diet, number {i}" for i in range(12)]
    curves = pd.DataFrame(
        {"stage": "pretrain", "fit": "f", "task": "", "units": [f"diet {i}" for i in range(12)],
         "arm": arms, "label_fraction": np.nan, "seed": 0, "step": 1, "metric": "train/loss",
         "value": 1.0}
    )  # fmt: skip
    curves.to_csv(run_directory / "curves.csv", index=False)
    results = load_results(run_directory)
    assert curve_panels(results.curves) == [("pretrain", "", "", "loss")]
    styles = style_arms([(arm, "network") for arm in arms])
    figure = draw_learning_curves(results, styles)
    assert [trace.name for trace in figure.data if trace.showlegend] == arms
    curves.iloc[:1].to_csv(run_directory / "curves.csv", index=False)
    small = draw_learning_curves(load_results(run_directory), styles)
    assert figure.layout.margin.t >= small.layout.margin.t + 80
    assert figure.layout.height - figure.layout.margin.t == (
        small.layout.height - small.layout.margin.t
    )


def test_the_line_of_a_learning_curve_is_the_mean_over_seeds(results, styles):
    curves = results.curves
    of_panel = curves[(curves["stage"] == "pretrain") & (curves["metric"] == "valid/loss")]
    expected = of_panel.groupby("step")["value"].mean()
    figure = draw_learning_curves(results, styles)
    line = next(trace for trace in figure.data if trace.name and trace.line.dash == "solid")
    np.testing.assert_allclose(line.y, expected)


def test_a_long_learning_curve_is_thinned_without_moving_its_mean(run_directory, styles):
    steps = np.arange(10_000)
    curves = pd.DataFrame(
        {"stage": "pretrain", "fit": "f", "task": "", "units": "all", "arm": "pretrained",
         "label_fraction": np.nan, "seed": 0, "step": steps, "metric": "train/loss",
         "value": steps / 10_000}
    )  # fmt: skip
    curves.to_csv(run_directory / "curves.csv", index=False)
    figure = draw_learning_curves(load_results(run_directory), styles)
    (line,) = figure.data
    assert len(line.x) <= 151
    np.testing.assert_allclose(line.y, np.asarray(line.x) / 10_000, atol=0.005)


def test_the_figure_of_scores_shows_the_means_and_their_intervals(results, styles):
    figure = draw_scores(results, results.tasks[0], styles)
    points = [trace for trace in figure.data if trace.error_x.array is not None]
    of_pretrained = [trace for trace in points if "pretrained: 0.898" in trace.text[0]]
    half_widths = sorted(float(trace.error_x.array[0]) for trace in of_pretrained)
    np.testing.assert_allclose(half_widths, [0.012, 0.031])
    assert {shape.x0 for shape in figure.layout.shapes} == {0.125}


def test_chance_and_all_points_lie_inside_the_axis(results, styles):
    figure = draw_scores(results, results.tasks[0], styles)
    low, high = figure.layout.xaxis.range
    drawn = np.concatenate([np.asarray(trace.x, dtype=float) for trace in figure.data])
    assert low < 0.125
    assert np.all((drawn > low) & (drawn < high))


def test_label_efficiency_is_drawn_only_for_several_fractions(results, styles):
    figure = draw_label_efficiency(results, results.tasks[0], styles)
    assert list(figure.layout.xaxis.tickvals) == [0.1, 1.0]
    assert draw_label_efficiency(results, results.tasks[2], styles) is None


def test_the_best_network_stands_beside_the_best_reference_decoder(results):
    chosen = best_of_each_kind(results, results.tasks[0], "unpredictable", results.confusions)
    assert [file.arm for file in chosen] == ["ridge", "pretrained"]


def test_rows_of_a_confusion_matrix_sum_to_one_and_an_absent_class_is_blank(results):
    task = results.tasks[0]
    chosen = best_of_each_kind(results, task, "unpredictable", results.confusions)
    counts = results.confusions[chosen[0]].copy()
    counts.iloc[0] = 0
    results = replace(results, confusions={**results.confusions, chosen[0]: counts})
    shares = np.array(draw_confusions(results, chosen).data[0].z)
    assert np.all(np.isnan(shares[0]))
    np.testing.assert_allclose(shares[1:].sum(axis=1), 1)


def test_axes_end_where_scores_do(run_directory, styles):
    path = run_directory / "summary.csv"
    summary = pd.read_csv(path)
    summary[["mean", "high", "seed_high"]] = 1.0
    summary[["low", "seed_low", "trial_low"]] = 0.0
    summary.to_csv(path, index=False)
    scores = pd.read_csv(run_directory / "scores.csv")
    scores.assign(value=0.5).to_csv(run_directory / "scores.csv", index=False)
    results = load_results(run_directory)
    task = results.tasks[0]
    assert list(draw_scores(results, task, styles).layout.xaxis.range) == [0.0, 1.0]
    efficiency = draw_label_efficiency(results, task, styles)
    assert list(efficiency.layout.yaxis.range) == [0.0, 1.0]
    assert all(trace.cliponaxis is False for trace in efficiency.data)


def test_a_short_band_of_a_learning_curve_has_no_dots(run_directory, styles):
    curves = pd.DataFrame(
        {"stage": "pretrain", "fit": "f", "task": "", "units": "all", "arm": "pretrained",
         "label_fraction": np.nan, "seed": [0, 0, 1, 1], "step": [1, 2, 1, 2],
         "metric": "train/loss", "value": [1.0, 0.5, 0.9, 0.6]}
    )  # fmt: skip
    curves.to_csv(run_directory / "curves.csv", index=False)
    band, line = draw_learning_curves(load_results(run_directory), styles).data
    assert (band.fill, band.mode, line.mode) == ("toself", "lines", "lines")


def test_few_trials_of_a_class_are_counted_in_its_confusion_matrix(results):
    task = results.tasks[0]
    chosen = best_of_each_kind(results, task, "unpredictable", results.confusions)
    counts = pd.DataFrame([[1.0, 1.0], [0.0, 16.0]], index=["0", "45"], columns=["0", "45"])
    few = replace(results, confusions={**results.confusions, chosen[0]: counts})
    matrix = draw_confusions(few, chosen).data[0]
    assert matrix.texttemplate == "%{text}"
    assert np.array(matrix.text).tolist() == [["1/2", "1/2"], ["0/16", "16/16"]]
    many = replace(results, confusions={**results.confusions, chosen[0]: 100 * counts})
    assert draw_confusions(many, chosen).data[0].texttemplate == "%{z:.2f}"


def test_units_have_the_same_colours_in_the_report_and_in_the_saved_figure(results):
    drawn = draw_predictability(results.units, results.predictability).data
    colors = {trace.name.split(" ")[0]: trace.marker.color for trace in drawn}
    assert colors == {"predictable": PREDICTABLE_COLOR, "unpredictable": UNPREDICTABLE_COLOR}
