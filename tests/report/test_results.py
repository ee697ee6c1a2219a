import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.report.results import ArmFile, ReportError, load_results


def test_a_missing_directory_is_refused_with_the_command_that_writes_one(tmp_path):
    with pytest.raises(ReportError, match=r"found nothing there.*poyo-ssl run"):
        load_results(tmp_path / "absent")


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    path = tmp_path / "run"
    path.touch()
    with pytest.raises(ReportError, match="found a file there"):
        load_results(path)


@pytest.mark.parametrize("name", ["run.json", "scores.csv"])
def test_a_directory_without_an_essential_file_is_refused_with_what_it_holds(run_directory, name):
    (run_directory / name).unlink()
    with pytest.raises(ReportError, match=rf"lacks {name} \(found: .*summary.csv"):
        load_results(run_directory)


def test_an_empty_directory_lacks_both_essential_files(tmp_path):
    with pytest.raises(ReportError, match=r"lacks run.json and scores.csv \(found: nothing\)"):
        load_results(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", "{", "run.json cannot be understood: not JSON"),
        ("run.json", "[]", "must hold an object"),
        ("run.json", "3", "must hold an object"),
        ("run.json", '{"title": "x"}', "no 'is_simulated'. no 'tasks'"),
        ("run.json", '{"title": "x", "is_simulated": "no", "tasks": []}', "true or false"),
        ("run.json", '{"title": "x", "is_simulated": true, "tasks": [1]}', "each have a 'name'"),
        ("splits.json", "[1]", "must hold a list of objects"),
        ("splits.json", '[{"train": [[1, 2, 3]]}]', r"'train' must be a list of \[start, end\]"),
        ("splits.json", '[{"test": "all"}]', r"'test' must be a list of \[start, end\]"),
        ("recordings.json", '[{"areas": "VISp"}]', "'areas' must be a dict, got 'VISp'"),
        ("recordings.json", '[{"stimuli": {"x": 3}}]', "'x' must be a dict, got 3"),
        ("predictability.json", '{"line_means": [1]}', "'line_means' must be a dict, got 1"),
        ("scores.csv", "", "scores.csv cannot be understood: not a table"),
        ("scores.csv", "task,arm\n", r"lacks the columns \['kind'.*found: task, arm"),
        ("curves.csv", "a,b\n1,2\n", "lacks the columns"),
    ],
)
def test_a_malformed_file_is_named_with_what_is_wrong(run_directory, name, content, message):
    (run_directory / name).write_text(content)
    with pytest.raises(ReportError, match=message):
        load_results(run_directory)


def test_scores_without_rows_are_refused(run_directory):
    header = (run_directory / "scores.csv").read_text().splitlines()[0]
    (run_directory / "scores.csv").write_text(header + "\n")
    with pytest.raises(ReportError, match=r"scores.csv has no rows"):
        load_results(run_directory)


def test_text_in_a_column_of_numbers_is_refused(run_directory):
    scores = pd.read_csv(run_directory / "scores.csv").astype({"value": object})
    scores.loc[3, "value"] = "high"
    scores.to_csv(run_directory / "scores.csv", index=False)
    with pytest.raises(ReportError, match=r"column 'value' must be numbers.*high"):
        load_results(run_directory)


def test_a_confusion_matrix_must_be_square(run_directory):
    path = run_directory / "confusion" / "direction__unpredictable__ridge.csv"
    path.write_text(",a,b\na,1,2\n")
    with pytest.raises(ReportError, match=r"must be square, got \(1, 2\)"):
        load_results(run_directory)


def test_a_confusion_matrix_with_a_name_that_says_too_little_is_refused(run_directory):
    (run_directory / "confusion" / "direction.csv").write_text(",a\na,1\n")
    with pytest.raises(ReportError, match="<task>__<units>__<arm>"):
        load_results(run_directory)


def test_movie_frames_that_do_not_match_are_refused(run_directory):
    np.savez(
        run_directory / "movie" / "natural_movie_one__repeat__unpredictable__scratch.npz",
        movie_frame=np.arange(3),
        true=np.zeros((3, 4, 5), np.uint8),
        predicted=np.zeros((3, 4, 6), np.uint8),
        ssim=np.zeros(3),
    )
    with pytest.raises(ReportError, match=r"uint8 \(3, 4, 5\) and uint8 \(3, 4, 6\)"):
        load_results(run_directory)


@pytest.mark.parametrize("content", [b"not a zip archive", b""])
def test_a_movie_file_that_is_no_archive_is_refused(run_directory, content):
    path = run_directory / "movie" / "natural_movie_one__unpredictable__scratch.npz"
    path.write_bytes(content)
    with pytest.raises(ReportError, match="not saved movie frames"):
        load_results(run_directory)


def test_ids_that_look_like_numbers_stay_text(run_directory):
    units = pd.read_csv(run_directory / "units.csv", dtype=str)
    units["unit_id"] = "00517"
    units.to_csv(run_directory / "units.csv", index=False)
    assert set(load_results(run_directory).units["unit_id"]) == {"00517"}


def test_a_flag_in_place_of_a_reason_for_exclusion_is_understood(run_directory):
    units = pd.read_csv(run_directory / "units.csv", dtype=str)
    units["excluded"] = ["True"] + ["False"] * (len(units) - 1)
    units.to_csv(run_directory / "units.csv", index=False)
    reasons = load_results(run_directory).units["excluded"]
    assert reasons.value_counts().to_dict() == {"": len(units) - 1, "reason not stored": 1}


def test_a_task_that_the_run_does_not_list_is_still_reported(run_directory):
    path = Path(run_directory / "run.json")
    run = json.loads(path.read_text())
    run["tasks"] = run["tasks"][1:]
    path.write_text(json.dumps(run))
    tasks = load_results(run_directory).tasks
    assert (tasks[-1].name, tasks[-1].title, tasks[-1].chance) == ("direction", "direction", None)


def test_the_main_metric_follows_the_kind_of_task(run_directory):
    results = load_results(run_directory)
    metrics = {(task.name, task.split): results.main_metric(task) for task in results.tasks}
    assert metrics["direction", "trial"] == "accuracy"
    assert metrics["natural_movie_one", "held_out_frames"] == "ssim"


def test_without_a_summary_means_are_taken_over_seeds_then_recordings(run_directory):
    (run_directory / "summary.csv").unlink()
    results = load_results(run_directory)
    means = results.means().set_index(["task", "units", "arm", "label_fraction", "metric"])["mean"]
    key = ("direction", "all", "pretrained", 0.1, "accuracy")
    scores = results.scores.set_index(["task", "units", "arm", "label_fraction", "metric"])
    by_hand = [group["value"].mean() for _, group in scores.loc[key].groupby("recording_id")]
    assert means[key] == pytest.approx(sum(by_hand) / len(by_hand))


def test_the_name_of_a_file_may_say_the_split(run_directory):
    files = load_results(run_directory).movies
    file = ArmFile(
        task="natural_movie_one", split="repeat", units="unpredictable", arm="nearest frame"
    )
    assert files[file].true.shape == (8, 32, 48)
