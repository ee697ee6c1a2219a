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
        "Pretrained 0.898 [0.867, 0.929]; from scratch 0.842 [0.811, 0.873]; "
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
    assert headline.gain == (
        "Ridge decodes above chance, p < 0.001. There is no pretrained network to compare with "
        "scratch."
    )
    assert "The best network (scratch + teacher, " in headline.against_reference


def test_a_run_of_reference_decoders_alone_has_a_headline(run_directory):
    summary = pd.read_csv(run_directory / "summary.csv")
    summary[summary["kind"] == "reference"].to_csv(run_directory / "summary.csv", index=False)
    headline = compute_headlines(load_results(run_directory))[0]
    assert headline.scores.startswith("Best reference decoder (ridge) 0.914")
    assert headline.against_reference == headline.elsewhere == ""


def test_an_older_summary_shows_the_interval_over_seeds_or_for_one_that_over_trials(run_directory):
    path = run_directory / "summary.csv"
    new = ["low", "high", "chance_p_value", "num_right", "fewest_of_a_class"]
    summary = pd.read_csv(path).drop(columns=new)
    summary.to_csv(path, index=False)
    headline = compute_headlines(load_results(run_directory))[0]
    assert "Pretrained 0.898 [0.886, 0.910]" in headline.scores
    summary["num_seeds"] = 1
    summary.to_csv(run_directory / "summary.csv", index=False)
    headline = compute_headlines(load_results(run_directory))[0]
    assert "Pretrained 0.898 [0.872, 0.924]" in headline.scores


def test_a_gain_without_an_interval_is_said_with_what_to_do(run_directory):
    summary = pd.read_csv(run_directory / "summary.csv")
    summary[["gain_low", "gain_high", "p_value"]] = float("nan")
    summary.to_csv(run_directory / "summary.csv", index=False)
    headline = compute_headlines(load_results(run_directory))[0]
    assert headline.verdict == "not compared"
    assert headline.gain.startswith("+0.056 over scratch, which is too little data to say")
    assert "more seeds" in headline.gain


@pytest.mark.parametrize(
    ("p_value", "sentence"),
    [
        (0.0005, "ridge decodes above chance, p < 0.001."),
        (0.2, "ridge is not surely above chance, p = 0.20."),
    ],
)
def test_where_nothing_learned_the_best_decoder_is_held_against_chance(
    run_directory, p_value, sentence
):
    summary = pd.read_csv(run_directory / "summary.csv")
    summary = summary[summary["kind"] == "reference"].assign(chance_p_value=p_value)
    summary.to_csv(run_directory / "summary.csv", index=False)
    assert compute_headlines(load_results(run_directory))[0].gain == sentence


def test_small_numbers_show_their_counts(run_directory):
    summary = pd.read_csv(run_directory / "summary.csv")
    summary["num_test"] = 16
    summary["num_right"] = 15
    summary.to_csv(run_directory / "summary.csv", index=False)
    headline = compute_headlines(load_results(run_directory))[0]
    assert "(ridge) 0.914 (15/16) [0.888, 0.940]" in headline.scores


@pytest.mark.parametrize(("last", "is_said"), [(0.1, True), (0.9, False)])
def test_networks_that_had_not_stopped_learning_are_said_to(run_directory, last, is_said):
    losses = [(50, 0.8), (100, 0.5), (150, last)]
    curves = pd.DataFrame(
        [
            {
                "stage": "finetune", "task": "direction", "units": "unpredictable", "arm": arm,
                "label_fraction": 1.0, "seed": seed, "step": step, "metric": "valid/loss",
                "value": value,
            }
            for arm in ("scratch", "pretrained")
            for seed in (0, 1)
            for step, value in losses
        ]
    )  # fmt: skip
    curves.to_csv(run_directory / "curves.csv", index=False)
    headline = compute_headlines(load_results(run_directory))[0]
    assert headline.unfinished.startswith("4 of these 4 networks") is is_said
    assert bool(headline.unfinished) is is_said
