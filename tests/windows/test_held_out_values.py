"""Values that are held out: never trained on, nor what they evoked, and the same everywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import poyo_ssl as ps
from poyo_ssl.windows.held_out_values import HeldOutValues
from poyo_ssl.windows.intervals import begin_inside
from poyo_ssl.windows.splits import SplitConfig, SplitError
from poyo_ssl.windows.tasks import split_task
from poyo_ssl.windows.trial_splits import split_by_value

law = settings(max_examples=60, deadline=None)


def session(onsets: np.ndarray, duration: float = 2.0, **columns: object) -> ps.Recording:
    times = np.arange(0.0, onsets[-1] + 10.0, 0.1)
    shown = pd.DataFrame({"start": onsets, "end": onsets + duration, **columns})
    return ps.Recording(
        recording_id="one", df_over_f=np.zeros((len(times), 1), dtype=np.float32),
        timestamps=times, units=pd.DataFrame({"unit_id": ["0"]}), stimuli={"gratings": shown},
    )  # fmt: skip


GRATINGS = session(
    3.0 * np.arange(80), frequency=np.tile([1.0, 2, 4, 8, 15], 16), angle=np.repeat([0, 90], 40)
)


@law
@given(
    values=st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan]), min_size=20, max_size=60),
    seed=st.integers(0, 9),
    pause=st.sampled_from([0.0, 0.5, 1.0, 30.0]),
    guard=st.sampled_from([0.0, 0.7, 1.0]),
)
def test_held_out_values_are_never_trained_on_nor_what_they_evoked(values, seed, pause, guard):
    assume(len(set(np.array(values)[np.isfinite(values)])) > 2)
    recording = session((2.0 + pause) * np.arange(len(values)), value=values)
    table = recording.stimulus("gratings")
    config = SplitConfig(held_out_column="value", test_fraction=0.3, seed=seed, guard=guard)
    held_out = HeldOutValues.draw([table], config)
    try:
        splits = split_by_value(recording, "gratings", config, held_out)
    except SplitError as error:
        assume("leave nothing to train on" in str(error))
        return
    onsets, is_out = table["start"].to_numpy(), held_out.roles(table) != "train"
    assert np.array_equal(is_out, begin_inside(onsets, np.vstack([splits.test, splits.valid])))
    for start, end in splits.train:
        assert not np.any(is_out & (onsets >= start) & (onsets < end))
        before = is_out & (onsets < start)
        assert np.all(table["end"][before] + guard <= start + 1e-9)


def test_a_share_of_the_values_is_drawn_by_seed():
    drawn = {
        str(HeldOutValues.draw([GRATINGS.stimulus("gratings")], config))
        for config in (SplitConfig(held_out_column="frequency", seed=seed) for seed in range(20))
    }
    assert drawn == {f"frequency {value}" for value in (1, 2, 4, 8, 15)}


def test_over_all_folds_every_value_tests_once():
    tested = []
    for fold in range(5):
        config = SplitConfig(held_out_column="frequency", folds=5, fold=fold, seed=3)
        held_out = HeldOutValues.draw([GRATINGS.stimulus("gratings")], config)
        tested += np.asarray(held_out.values)[held_out.parts == "test"].tolist()
    assert sorted(tested) == [1, 2, 4, 8, 15]


def test_all_recordings_hold_out_the_same_values():
    other = replace(
        GRATINGS, recording_id="two",
        stimuli={"gratings": GRATINGS.stimulus("gratings").query("frequency != 4")},
    )  # fmt: skip
    for seed in range(5):
        config = SplitConfig(held_out_column="frequency", valid_fraction=0.0, seed=seed)
        divided = ps.divide([GRATINGS, other], "gratings/angle", config)
        shown = [
            {
                part: set(table["frequency"][begin_inside(table["start"], splits.part(part))])
                for part in ("train", "test")
            }
            for d in divided
            for table in [d.recording.stimulus("gratings")]
            for splits in [d.splits["gratings_angle"]]
        ]
        assert not (shown[0]["train"] | shown[1]["train"]) & (shown[0]["test"] | shown[1]["test"])


@pytest.mark.parametrize("column", [["a", "b", "c"] * 8, [500964514, 7, 9] * 8])
def test_values_are_listed_as_text_or_numbers(column):
    recording = session(3.0 * np.arange(24), which=column)
    for value in (column[0], str(column[0])):
        config = SplitConfig(held_out_column="which", held_out_values=(value,), valid_fraction=0.0)
        [divided] = ps.divide([recording], "gratings/which", config)
        splits = divided.splits["gratings_which"]
        onsets = recording.stimulus("gratings")["start"].to_numpy()
        assert begin_inside(onsets, splits.test).tolist() == [True, False, False] * 8


def test_values_that_are_one_answer_to_a_task_are_held_out_together():
    shown = np.tile(np.arange(0.0, 361.0, 90.0), 4)  # 0 and 360 are one direction
    recording = session(3.0 * np.arange(20), orientation=shown, contrast=np.arange(20) % 2)
    config = SplitConfig(
        held_out_column="orientation", held_out_values=(360,), valid_fraction=0.0, guard=0.0
    )
    direction = ps.Task(stimulus="gratings", column="orientation", name="direction", period=360)
    axis = replace(direction, name="axis", period=180)
    contrast = ps.Task(stimulus="gratings", column="contrast", name="contrast")
    for tasks, tested in (
        ([direction], {0, 360}),
        ([contrast], {360}),
        ([contrast, direction], {0, 360}),
        ([direction, axis], {0, 180, 360}),
    ):
        [divided] = ps.divide([recording], tasks, config)
        for splits in divided.splits.values():
            assert set(shown[begin_inside(3.0 * np.arange(20), splits.test)]) == tested
            assert not tested & set(shown[begin_inside(3.0 * np.arange(20), splits.train)])
    alone = split_task(recording, direction, config)
    assert set(shown[begin_inside(3.0 * np.arange(20), alone.test)]) == {0, 360}
    with pytest.raises(SplitError, match=r"periods of 360, 100.*one of these tasks at a time"):
        ps.divide([recording], [direction, replace(axis, period=100)], config)


def test_wrong_columns_and_values_are_refused_with_those_that_are_there():
    with pytest.raises(SplitError, match=r"No stimulus .* 'colour'.*angle, end, freq"):
        ps.divide([GRATINGS], "gratings/angle", SplitConfig(held_out_column="colour"))
    config = SplitConfig(held_out_column="frequency", held_out_values=(3, "x"))
    with pytest.raises(SplitError, match=r"never holds 3, x \(found: 1, 2, 4, 8, 15\)"):
        ps.divide([GRATINGS], "gratings/angle", config)
    with pytest.raises(SplitError, match=r"has 2 values \(0, 90\): too few to test 1"):
        ps.divide(
            [GRATINGS], "gratings/angle", SplitConfig(held_out_column="angle", valid_fraction=0.4)
        )


def test_a_guard_that_eats_all_training_is_refused():
    config = SplitConfig(held_out_column="frequency", held_out_values=(1,), guard=30.0)
    with pytest.raises(SplitError, match=r"frequency 1 and a guard of 30.0 s.*nothing to train"):
        ps.divide([GRATINGS], "gratings/angle", config)


def test_stimuli_without_the_column_are_divided_as_ever(caplog):
    both = replace(
        GRATINGS,
        stimuli={
            **GRATINGS.stimuli,
            "later": GRATINGS.stimulus("gratings").drop(columns="frequency"),
        },
    )
    config = SplitConfig(held_out_column="frequency")
    tasks = ["gratings/angle", "later/angle"]
    [held_out] = ps.divide([both], tasks, config)
    [plain] = ps.divide([both], tasks, SplitConfig())
    assert np.array_equal(held_out.splits["later_angle"].test, plain.splits["later_angle"].test)
    assert len(held_out.splits["gratings_angle"].test) > 3


def test_a_run_scores_held_out_values_and_pretrains_on_no_other_recordings(tmp_path):
    rng = np.random.default_rng(0)
    recording = replace(GRATINGS, df_over_f=rng.normal(size=GRATINGS.df_over_f.shape))
    config = ps.RunConfig(
        tasks=("gratings/angle",), units=("all",), arms=(), num_seeds=1, jobs=1,
        splits=SplitConfig(held_out_column="frequency", held_out_values=(4,), valid_fraction=0.0),
    )  # fmt: skip
    ps.run([recording], tmp_path, config)
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert (scores["num_test"] == 16).all()
    assert (scores["num_untrained"] == 0).all()  # every angle was trained
    untrained = replace(config.splits, held_out_column="angle", held_out_values=(90,))
    ps.run([recording], tmp_path / "angle", replace(config, splits=untrained))
    scores = pd.read_csv(tmp_path / "angle" / "scores.csv")
    assert (scores["num_untrained"] == scores["num_test"]).all()
