"""Means, intervals and gains of a small table, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from poyo_ssl.comparison.summary import summarize
from poyo_ssl.metrics.intervals import gain_interval
from poyo_ssl.metrics.scales import scale_of

VALUES = {
    # arm -> recording -> score of each seed
    "ridge": {"a": [0.5], "b": [0.7]},
    "scratch": {"a": [0.40, 0.50, 0.45], "b": [0.60, 0.50, 0.65]},
    "pretrained": {"a": [0.55, 0.60, 0.50], "b": [0.65, 0.70, 0.70]},
}
NUM_TEST = {"a": 20, "b": 60}


def tables(values=VALUES, label_fraction: float = 1.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores, and windows of which the stated fraction is right."""
    scores, windows = [], []
    for arm, recordings in values.items():
        keys = {
            "task": "direction",
            "split": "trial",
            "units": "all",
            "arm": arm,
            "kind": "reference" if arm == "ridge" else "network",
            "labels": f"{label_fraction:.0%}",
            "label_fraction": label_fraction,
        }
        for recording_id, per_seed in recordings.items():
            for seed, value in enumerate(per_seed):
                row = {**keys, "recording_id": recording_id, "seed": seed}
                row |= {"num_test": NUM_TEST[recording_id], "seconds": 2.0 + seed}
                row["pretraining_seconds"] = 10.0 if arm == "pretrained" else 0.0
                scores.append({**row, "metric": "accuracy", "value": value})
                scores.append({**row, "metric": "balanced_accuracy", "value": value / 2})
                count = NUM_TEST[recording_id]
                target = np.random.default_rng(count).permutation(np.arange(count) % 8)
                is_right = np.arange(count) < round(value * count)
                windows.append(
                    pd.DataFrame(
                        {
                            **keys,
                            "recording_id": recording_id,
                            "seed": seed,
                            "metric": "accuracy",
                            "window": np.arange(count),
                            "value": is_right.astype(float),
                            "target": target,
                            "predicted": np.where(is_right, target, (target + 1) % 8),
                        }
                    )
                )
    return pd.DataFrame(scores), pd.concat(windows)


def row_of(summary: pd.DataFrame, arm: str, metric: str = "accuracy") -> pd.Series:
    [row] = [row for _, row in summary[summary["metric"] == metric].iterrows() if row["arm"] == arm]
    return row


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    return summarize(*tables())


def test_there_is_one_row_for_each_arm_and_metric(summary):
    assert len(summary) == 6
    assert not summary.duplicated(["task", "units", "arm", "label_fraction", "metric"]).any()
    assert set(summary["num_recordings"]) == {2}
    assert set(summary["num_test"]) == {80}


def test_recordings_are_averaged_before_seeds(summary):
    row = row_of(summary, "scratch")
    per_seed = [0.5, 0.5, 0.55]
    assert row["mean"] == pytest.approx(np.mean(per_seed))
    assert row["num_seeds"] == 3
    half = scipy.stats.t.ppf(0.975, df=2) * np.std(per_seed, ddof=1) / np.sqrt(3)
    assert row["seed_low"] == pytest.approx(np.mean(per_seed) - half)
    assert row["seed_high"] == pytest.approx(np.mean(per_seed) + half)


def test_a_decoder_that_was_fitted_once_has_no_interval_over_seeds(summary):
    row = row_of(summary, "ridge")
    assert row["mean"] == pytest.approx(0.6)
    assert row["num_seeds"] == 1
    assert np.isnan(row["seed_low"])
    assert np.isnan(row["seed_high"])


def test_gains_of_what_has_no_windows_are_paired_by_seed(summary):
    row = row_of(summary, "pretrained", "balanced_accuracy")
    gain = (np.array([0.60, 0.65, 0.60]) - np.array([0.5, 0.5, 0.55])) / 2
    assert row["gain_over_scratch"] == pytest.approx(gain.mean())
    half = scipy.stats.t.ppf(0.975, df=2) * np.std(gain, ddof=1) / np.sqrt(3)
    assert row["gain_low"] == pytest.approx(gain.mean() - half)
    assert row["gain_high"] == pytest.approx(gain.mean() + half)
    expected = scipy.stats.ttest_rel([0.60, 0.65, 0.60], [0.5, 0.5, 0.55]).pvalue
    assert row["p_value"] == pytest.approx(expected)


def scores_of(arm: str, values=VALUES) -> list[np.ndarray]:
    return [
        np.array([np.arange(n) < round(v * n) for v in values[arm][name]], dtype=float)
        for name, n in NUM_TEST.items()
        if name in values[arm]
    ]


def test_gains_are_paired_by_seed_and_test_window(summary):
    row = row_of(summary, "pretrained")
    expected = gain_interval(scores_of("pretrained"), scores_of("scratch"), scale_of("accuracy"))
    found = row[["gain_over_scratch", "gain_low", "gain_high", "p_value"]]
    assert found.tolist() == pytest.approx(list(expected))
    by_seeds = row_of(summary, "pretrained", "balanced_accuracy")
    assert row["gain_high"] - row["gain_low"] > by_seeds["gain_high"] - by_seeds["gain_low"]


def test_two_seeds_have_an_interval_of_trials_within_what_is_possible():
    two = {arm: {name: v[:2] for name, v in each.items()} for arm, each in VALUES.items()}
    summary = summarize(*tables(two))
    row = row_of(summary, "pretrained")
    assert np.isnan([row["seed_low"], row["seed_high"]]).all()
    assert 0.4 < row["low"] < row["mean"] < row["high"] < 0.8
    assert row["gain_low"] < row["gain_over_scratch"] < row["gain_high"]
    assert np.isfinite(row["p_value"])


def test_all_right_has_a_width_and_counts():
    row = row_of(summarize(*tables({"ridge": {"a": [1.0]}})), "ridge")
    assert row["low"] == pytest.approx(0.839, abs=1e-3)  # Wilson's of 20 of 20
    assert (row["high"], row["num_right"], row["num_test"]) == (1.0, 20, 20)
    assert row["fewest_of_a_class"] == 2  # twenty trials of eight classes
    assert row["chance_p_value"] == pytest.approx(0.0005, abs=0.001)


def test_pictures_are_not_held_against_chance():
    scores, windows = tables({"scratch": {"a": [0.4]}})
    of_pictures = windows.assign(metric="ssim", target=np.nan, predicted=np.nan)
    row = row_of(summarize(scores.assign(metric="ssim"), of_pictures), "scratch", "ssim")
    assert np.isnan([row["chance_p_value"], row["num_right"], row["fewest_of_a_class"]]).all()
    assert np.isfinite(row["low"])


def test_a_summary_of_twenty_arms_tests_each_against_chance():
    many = {f"arm {i}": {"a": [0.1 + 0.04 * i] * 2} for i in range(20)}
    summary = summarize(*tables(many))
    main = summary[summary["metric"] == "accuracy"]
    p_values = main["chance_p_value"].to_numpy()
    assert p_values[0] > 0.3
    assert np.all(p_values[-3:] < 0.01)


@pytest.mark.parametrize("arm", ["ridge", "scratch"])
def test_neither_scratch_nor_reference_decoders_have_a_gain(summary, arm):
    row = row_of(summary, arm)
    assert row[["gain_over_scratch", "gain_low", "gain_high", "p_value"]].isna().all()


def test_gains_compare_only_seeds_that_both_have():
    fewer = {"scratch": {"a": [0.40, 0.50]}, "pretrained": {"a": [0.55, 0.60, 0.99]}}
    row = row_of(summarize(*tables(fewer)), "pretrained")
    assert row["gain_over_scratch"] == pytest.approx((0.15 + 0.10) / 2)
    assert row["num_seeds"] == 3


def test_gains_over_a_baseline_are_those_of_every_other_arm():
    summary = summarize(*tables(), baseline="pretrained")
    row = row_of(summary, "scratch")
    assert row["baseline"] == "pretrained"
    assert row["gain_over_baseline"] == pytest.approx(
        -row_of(summary, "pretrained").gain_over_scratch
    )
    assert row["baseline_p_value"] == pytest.approx(row_of(summary, "pretrained")["p_value"])
    assert np.isfinite(row_of(summary, "ridge")["gain_over_baseline"])
    assert np.isnan(row_of(summary, "pretrained")["gain_over_baseline"])


def test_a_baseline_that_was_fitted_once_counts_for_every_seed():
    row = row_of(summarize(*tables(), baseline="ridge"), "pretrained")
    gain = np.array([0.60, 0.65, 0.60]) - 0.6
    assert row["gain_over_baseline"] == pytest.approx(gain.mean())
    once = [np.repeat(scores, 3, axis=0) for scores in scores_of("ridge")]
    expected = gain_interval(scores_of("pretrained"), once, scale_of("accuracy"))
    assert row["baseline_p_value"] == pytest.approx(expected.p_value)
    row = row_of(summarize(*tables(), baseline="ridge"), "pretrained", "balanced_accuracy")
    expected = scipy.stats.ttest_1samp(gain / 2, 0.0).pvalue
    assert row["baseline_p_value"] == pytest.approx(expected)


def test_seconds_are_means_over_seeds_and_tell_pretraining_from_fitting(summary):
    row = row_of(summary, "pretrained")
    assert row["seconds"] == 3.0
    assert row["pretraining_seconds"] == 10.0
    assert row_of(summary, "scratch")["pretraining_seconds"] == 0.0


def test_gains_compare_only_equal_label_fractions():
    few, few_windows = tables({"scratch": {"a": [0.2, 0.3]}}, label_fraction=0.1)
    every, every_windows = tables({"pretrained": {"a": [0.5, 0.7]}})
    summary = summarize(pd.concat([few, every]), pd.concat([few_windows, every_windows]))
    assert np.isnan(row_of(summary, "pretrained")["gain_over_scratch"])


def test_the_interval_over_trials_is_of_the_main_metric_alone(summary):
    for arm in VALUES:
        row = row_of(summary, arm)
        over_seeds = [scores.mean(axis=0) for scores in scores_of(arm)]
        mean = np.mean([values.mean() for values in over_seeds])
        # Wilson's interval lies near the normal one
        half = 1.96 * np.sqrt(sum(values.var() / len(values) for values in over_seeds)) / 2
        assert row["trial_low"] == pytest.approx(mean - half, abs=0.02)
        assert row["trial_high"] == pytest.approx(mean + half, abs=0.02)
        assert np.isnan(row_of(summary, arm, "balanced_accuracy")["trial_low"])


def test_a_summary_is_the_same_each_time():
    pd.testing.assert_frame_equal(summarize(*tables()), summarize(*tables()))
