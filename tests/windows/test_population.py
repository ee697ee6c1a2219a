"""A population learns its scale, and offers windows, from the right parts alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.windows.divide import DividedRecording, divide
from poyo_ssl.windows.pictures import resize_pictures
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import SplitConfig, Splits
from poyo_ssl.windows.tasks import DIRECTION, MOVIE, MOVIE_HELD_OUT, ORIENTATION

ALL_TASKS = [DIRECTION, MOVIE, MOVIE_HELD_OUT]


def samples_of(recording, intervals) -> set[int]:
    return set(np.flatnonzero(recording.is_inside(intervals)).tolist())


def sampled_by(sources, num_timesteps: int) -> set[int]:
    """Every timestep that some window of the sources, moved as far as allowed, could hold."""
    steps: set[int] = set()
    for source in sources:
        starts = np.union1d(source.windows.first_timestep, np.flatnonzero(source.may_start))
        steps |= set((starts[:, None] + np.arange(num_timesteps)).ravel().tolist())
    return steps


@pytest.fixture(scope="module")
def renamed(tiny_recording):
    """The same session under another name, with cells of its own save one."""
    ids = ["tiny-0", *(f"other-{i}" for i in range(1, 6))]
    return replace(tiny_recording, recording_id="other", units=pd.DataFrame({"unit_id": ids}))


@pytest.mark.parametrize("part", ["train", "valid"])
def test_unlabelled_windows_avoid_the_withheld_parts_of_every_task(
    tiny_population, tiny_divided, tiny_encoder, part
):
    sources = tiny_population.unlabelled_sources(tiny_encoder, 10, part=part)
    used = sampled_by(sources, 10)
    assert len(used) > 50
    assert all(np.all(source.windows.target == -1) for source in sources)
    for name, splits in tiny_divided.splits.items():
        assert not used & samples_of(tiny_divided.recording, splits.test), name
        if part == "train":
            assert not used & samples_of(tiny_divided.recording, splits.withheld), name


def test_unlabelled_training_and_validation_share_no_sample(tiny_population, tiny_encoder):
    train, valid = (
        sampled_by(tiny_population.unlabelled_sources(tiny_encoder, 10, part=part), 10)
        for part in ("train", "valid")
    )
    assert not train & valid


def test_unlabelled_windows_can_be_thinned_out(tiny_population, tiny_encoder):
    [every] = tiny_population.unlabelled_sources(tiny_encoder, 10)
    [tenth] = tiny_population.unlabelled_sources(tiny_encoder, 10, stride=10)
    assert tenth.windows.first_timestep.tolist() == every.windows.first_timestep[::10].tolist()


@pytest.mark.parametrize("task", ALL_TASKS, ids=lambda task: task.name)
def test_labelled_training_windows_never_touch_valid_or_test(
    tiny_population, tiny_divided, tiny_encoder, task
):
    recording, splits = tiny_divided.recording, tiny_divided.splits[task.name]
    num_timesteps = tiny_encoder.window_timesteps(task.window_length)
    used = {
        part: sampled_by(
            tiny_population.labelled_sources(tiny_encoder, task, part, num_timesteps),
            num_timesteps,
        )
        for part in ("train", "valid", "test")
    }
    assert all(used.values())
    assert not used["train"] & samples_of(recording, splits.withheld)
    assert not used["train"] & used["valid"]
    assert not used["train"] & used["test"]
    assert not used["valid"] & used["test"]


def test_the_answers_of_labelled_windows_are_those_of_the_table(tiny_population, tiny_encoder):
    [source] = tiny_population.labelled_sources(tiny_encoder, DIRECTION, "test", 20)
    recording = tiny_population.divided[0].recording
    table = recording.stimuli["drifting_gratings"].set_index("start")["orientation"]
    classes = tiny_population.divided.classes(DIRECTION)
    for first, target in zip(source.windows.first_timestep, source.windows.target, strict=True):
        onset = recording.timestamps[first] - DIRECTION.window_offset
        nearest = table.index[np.abs(table.index - onset).argmin()]
        assert nearest == pytest.approx(onset, abs=0.05)
        assert table[nearest] == classes[target]


def test_the_scale_comes_from_training_time_alone(tiny_divided, tiny_population):
    recording = tiny_divided.recording
    is_training = recording.is_inside(tiny_divided.training)
    assert 0.2 < is_training.mean() < 0.8
    traces = recording.df_over_f[is_training].astype(float)
    table = tiny_population.scale.table_for("tiny")
    np.testing.assert_allclose(table["mean"], traces.mean(0), rtol=1e-5)
    np.testing.assert_allclose(table["sd"], traces.std(0), rtol=1e-5)
    garbage = recording.df_over_f.copy()
    garbage[~is_training] = -7.0
    changed = Population(
        [replace(tiny_divided, recording=replace(recording, df_over_f=garbage))],
        {"tiny": list(recording.unit_ids)},
    )
    everywhere, steps = np.array([0]), recording.num_timesteps
    before = tiny_population.activity["tiny"].windows(everywhere, steps)[0, is_training]
    after = changed.activity["tiny"].windows(everywhere, steps)[0, is_training]
    assert torch.equal(before, after)


def test_chosen_units_come_in_the_order_given(tiny_divided, tiny_population):
    chosen = Population([tiny_divided], {"tiny": ["tiny-4", "tiny-1"]})
    assert chosen.unit_ids == ["tiny-4", "tiny-1"]
    first = np.array([100])
    assert torch.equal(
        chosen.activity["tiny"].windows(first, 10),
        tiny_population.activity["tiny"].windows(first, 10)[..., [4, 1]],
    )


def test_sources_point_at_the_embeddings_of_their_units(tiny_divided, tiny_encoder):
    chosen = Population([tiny_divided], {"tiny": ["tiny-4", "tiny-1"]})
    [source] = chosen.unlabelled_sources(tiny_encoder, 10)
    assert source.unit_index.tolist() == [5, 2]
    assert tiny_encoder.unit_rows(["tiny-4", "tiny-1"]).tolist() == [5, 2]


def test_a_cell_seen_in_two_recordings_is_one_unit(tiny_recording, renamed, split_config):
    divided = divide([tiny_recording, renamed], [DIRECTION], split_config)
    population = Population(divided, {"tiny": ["tiny-0", "tiny-1"], "other": ["other-3", "tiny-0"]})
    assert population.unit_ids == ["tiny-0", "tiny-1", "other-3"]
    assert population.scale.table_for("tiny").index.tolist() == ["tiny-0", "tiny-1"]
    assert set(population.scale.table_for("other").index) == {"tiny-0", "other-3"}


def test_every_recording_is_normalised_as_if_it_were_alone(tiny_recording, renamed, split_config):
    louder = replace(renamed, df_over_f=5 * renamed.df_over_f - 2)
    units = {"tiny": ["tiny-0", "tiny-1"], "other": ["other-3", "tiny-0"]}
    divided = divide([tiny_recording, louder], [DIRECTION], split_config)
    together = Population(divided, units)
    for part in divided:
        name = part.recording.recording_id
        alone = Population([part], {name: units[name]})
        assert torch.equal(
            together.activity[name].windows(np.array([0]), 900),
            alone.activity[name].windows(np.array([0]), 900),
        )


def test_recordings_without_a_chosen_unit_are_left_out(tiny_recording, renamed, split_config):
    divided = divide([tiny_recording, renamed], [DIRECTION], split_config)
    population = Population(divided, {"tiny": [], "other": ["other-1"]})
    assert [d.recording.recording_id for d in population.divided] == ["other"]
    with pytest.raises(RecordingError, match="No unit is chosen in any of 2 recordings"):
        Population(divided, {"tiny": []})


def test_different_sampling_rates_are_refused(tiny_recording, renamed, split_config):
    slow = replace(renamed, timestamps=1.1 * renamed.timestamps)
    divided = divide([tiny_recording, slow], [DIRECTION], split_config)
    with pytest.raises(RecordingError, match=r"sampled at 9\.09 to 10\.00 Hz"):
        Population(divided, {"tiny": ["tiny-0"], "other": ["other-1"]})
    # half a percent is jitter
    slow = replace(renamed, timestamps=1.005 * renamed.timestamps)
    divided = divide([tiny_recording, slow], [DIRECTION], split_config)
    Population(divided, {"tiny": ["tiny-0"], "other": ["other-1"]})


def test_pictures_become_grey_levels_of_one_size(tiny_population):
    pictures = tiny_population.divided.pictures(MOVIE)
    assert pictures.shape == (100, 64, 128)
    assert pictures.dtype == torch.float32
    assert 0 <= float(pictures.min()) < 0.1
    assert 0.9 < float(pictures.max()) <= 1


def test_resizing_keeps_the_scene():
    scene = np.zeros((1, 128, 256), dtype=np.uint8)
    scene[:, :64, :] = 255  # upper half white
    pictures = resize_pictures(scene)
    assert pictures.shape == (1, 64, 128)
    assert float(pictures[0, :30].min()) == pytest.approx(1.0)
    assert float(pictures[0, 34:].max()) == pytest.approx(0.0)
    exact = np.arange(64 * 128, dtype=np.uint8).reshape(1, 64, 128)
    assert torch.equal(resize_pictures(exact), torch.from_numpy(exact) / 255.0)


def test_different_pictures_under_one_name_are_refused(tiny_recording, renamed, split_config):
    other_movie = tiny_recording.templates["natural_movie_one"].copy()
    other_movie[50, 3, 3] += 1
    units = {"tiny": ["tiny-0"], "other": ["other-1"]}
    same = Population(divide([tiny_recording, renamed], [MOVIE], split_config), units)
    assert same.divided.pictures(MOVIE).shape == (100, 64, 128)
    renamed = replace(renamed, templates={"natural_movie_one": other_movie})
    different = Population(divide([tiny_recording, renamed], [MOVIE], split_config), units)
    with pytest.raises(RecordingError, match="different pictures as natural_movie_one"):
        different.divided.pictures(MOVIE)


def test_recordings_that_cannot_answer_a_task_have_no_split_for_it(
    tiny_recording, renamed, split_config
):
    silent = replace(renamed, templates={})
    divided = divide([tiny_recording, silent], ALL_TASKS, split_config)
    assert list(divided[0].splits) == ["direction", "movie", "movie_held_out"]
    assert list(divided[1].splits) == ["direction"]
    population = Population(divided, {"tiny": ["tiny-0"], "other": ["other-1"]})
    assert [d.recording.recording_id for d in population.divided.answering(MOVIE)] == ["tiny"]


def test_a_task_that_no_recording_can_answer_is_refused(tiny_recording, split_config):
    with pytest.raises(RecordingError, match=r"'orientation'.*static_gratings.*drifting_gratings"):
        divide([tiny_recording], [ORIENTATION], split_config)
    without = replace(tiny_recording, templates={})
    with pytest.raises(RecordingError, match=r"'movie'.*and its pictures"):
        divide([without], [MOVIE], split_config)


def test_validation_of_one_task_that_tests_another_is_not_used(tiny_recording):
    def part(*pairs) -> np.ndarray:
        return np.array(pairs, dtype=float).reshape(-1, 2)

    divided = DividedRecording(
        tiny_recording,
        {
            "one": Splits(train=part((0, 20)), valid=part((20, 30), (50, 60)), test=part((30, 40))),
            "two": Splits(train=part((0, 10)), valid=part((10, 15)), test=part((55, 70))),
        },
    )
    assert divided.validation.tolist() == [[20, 30], [10, 15]]
    assert not samples_of(tiny_recording, divided.training) & samples_of(
        tiny_recording, part((10, 15), (20, 40), (50, 70))
    )


def test_recordings_whose_tasks_leave_nothing_to_train_on_are_refused(tiny_recording, renamed):
    def part(*pairs) -> np.ndarray:
        return np.array(pairs, dtype=float).reshape(-1, 2)

    # imaged 0-155 and 215-305 s; each task trains on what the other withholds
    one = Splits(train=part((0, 155)), valid=part((215, 260)), test=part((260, 310)))
    two = Splits(train=part((215, 310)), valid=part(), test=part((1, 154)), guard=part((0, 1)))
    rest = replace(two, guard=part((0, 1), (154, 155)))
    asks_nothing = Splits(train=part(), valid=part(), test=part())
    full = {"one": one, "two": rest, "none": asks_nothing}
    divided = [DividedRecording(tiny_recording, full), DividedRecording(renamed, full)]
    units = {"tiny": ["tiny-0"], "other": ["other-1"]}
    with pytest.raises(RecordingError, match="Nothing is left to train on") as caught:
        Population(divided, units)
    assert "'tiny' (one 37%, two 63%)" in str(caught.value)
    assert "'other' (one 37%, two 63%)" in str(caught.value)
    assert "lower valid_fraction" in str(caught.value)
    # a second is enough, and a recording without a chosen unit does not count
    some = DividedRecording(tiny_recording, {"one": one, "two": two})
    Population([some, divided[1]], {"tiny": ["tiny-0"]})


def test_the_test_part_is_never_offered_without_labels(tiny_population, tiny_encoder):
    with pytest.raises(KeyError, match="test"):
        tiny_population.unlabelled_sources(tiny_encoder, 10, part="test")


def test_without_a_validation_part_there_is_no_validation_source(tiny_recording, tiny_encoder):
    config = SplitConfig(valid_fraction=0.0, test_fraction=0.2)
    population = Population(
        divide([tiny_recording], [DIRECTION], config), {"tiny": list(tiny_recording.unit_ids)}
    )
    assert population.unlabelled_sources(tiny_encoder, 10, part="valid") == []
    assert population.labelled_sources(tiny_encoder, DIRECTION, "valid", 20) == []
