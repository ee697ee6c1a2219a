import pandas as pd
import pytest

from poyo_ssl.report.headline import compute_headlines, verdict_of
from poyo_ssl.report.results import load_results


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.05, "helped"),
        (-0.05, -0.01, "hurt"),
        (-0.01, 0.05, "no sure difference"),
        (0.0, 0.05, "no sure difference"),
        (float("nan"), 0.05, "not compared"),
    ],
)
def test_only_an_interval_on_one_side_of_zero_is_a_verdict(low, high, verdict):
    assert verdict_of(low, high) == verdict


def test_every_task_says_whether_pretraining_helped(run_directory):
    headlines = compute_headlines(load_results(run_directory))
    assert [headline.verdict for headline in headlines] == [
        "helped",
        "no sure difference",
        "helped",
        "hurt",
    ]


def test_a_headline_gives_the_gain_the_arms_and_the_best_reference_decoder(run_directory):
    headline = compute_headlines(load_results(run_directory))[0]
    assert headline.title == (
        "Drifting gratings, direction: accuracy on held-out trials, unpredictable units"
    )
    assert headline.gain == "Pretraining helped: +0.056 [+0.035, +0.077] over scratch, p = 0.004."
    assert headline.scores == (
        "Pretrained 0.898 [0.886, 0.910]; from scratch 0.842 [0.830, 0.854]; "
        "best reference decoder (ridge) 0.914 [0.888, 0.940]; chance 0.125."
    )
    assert "0.016 below the best reference decoder (ridge)" in headline.against_reference
    assert "Over all 4 comparisons" in headline.elsewhere


def test_a_hurtful_pretraining_is_called_so(run_directory):
    headline = compute_headlines(load_results(run_directory))[3]
    assert "held-out movie frames" in headline.title
    assert headline.gain.startswith("Pretraining hurt: −0.033 [−0.047, −0.019] over scratch")


def test_a_run_without_a_pretrained_arm_says_so(run_directory):
    summary = pd.read_csv(run_directory / "summary.csv")
    summary[summary["arm"] != "pretrained"].to_csv(run_directory / "summary.csv", index=False)
    headline = compute_headlines(load_results(run_directory))[0]
    assert headline.verdict == "not compared"
    assert headline.gain == "There is no pretrained network to compare with scratch."
    assert "The best network (scratch + teacher, " in headline.against_reference


def test_a_run_of_reference_decoders_alone_has_a_headline(run_directory):
    summary = pd.read_csv(run_directory / "summary.csv")
    summary[summary["kind"] == "reference"].to_csv(run_directory / "summary.csv", index=False)
    headline = compute_headlines(load_results(run_directory))[0]
    assert headline.scores.startswith("Best reference decoder (ridge) 0.914")
    assert headline.against_reference == headline.elsewhere == ""


def test_a_single_seed_shows_the_interval_over_trials(run_directory):
    summary = pd.read_csv(run_directory / "summary.csv")
    summary["num_seeds"] = 1
    summary.to_csv(run_directory / "summary.csv", index=False)
    headline = compute_headlines(load_results(run_directory))[0]
    assert "Pretrained 0.898 [0.872, 0.924]" in headline.scores
