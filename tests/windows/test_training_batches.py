"""Which windows are drawn is a pure function of the seed and the step, and none leaves its part."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poyo_ssl.windows.activity import Activity
from poyo_ssl.windows.evaluation_batches import EvaluationBatches
from poyo_ssl.windows.task_windows import TaskWindows
from poyo_ssl.windows.training_batches import (
    MixedBatches,
    StepParts,
    TrainingBatches,
    WindowBatch,
    WindowSource,
    draw_units,
    thin,
)

NUM_UNITS = 6


def make_source(name: str = "a", num_windows: int = 10, spacing: int = 20) -> WindowSource:
    """Windows every ``spacing`` samples; a sample's value is its timestep, in all units."""
    num_timesteps = 10 + num_windows * spacing
    values = torch.arange(num_timesteps).float()[:, None].expand(-1, NUM_UNITS)
    windows = TaskWindows(
        first_timestep=5 + spacing * np.arange(num_windows),
        num_timesteps=5,
        target=np.arange(num_windows) + (100 if name == "b" else 0),
    )
    return WindowSource(
        activity=Activity(
            recording_id=name, values=values, unit_ids=[f"{name}{i}" for i in range(NUM_UNITS)]
        ),
        unit_index=torch.arange(1, NUM_UNITS + 1),
        windows=windows,
        may_start=np.ones(num_timesteps, dtype=bool),
    )


def make_batches(*sources: WindowSource, **changes) -> TrainingBatches:
    settings = {"batch_size": 4, "seed": 0, "jitter": 3, "unit_dropout": 0.5}
    return TrainingBatches(list(sources), **(settings | changes))


def same(one: list[WindowBatch], two: list[WindowBatch]) -> bool:
    return len(one) == len(two) and all(
        torch.equal(a.activity, b.activity)
        and torch.equal(a.unit_index, b.unit_index)
        and torch.equal(a.target, b.target)
        for a, b in zip(one, two, strict=True)
    )


def test_step_k_does_not_depend_on_how_one_came_there():
    sources = make_source("a"), make_source("b", 7)
    in_order = list(islice(make_batches(*sources), 12))
    fresh = make_batches(*sources)
    for step in (11, 3, 0, 7):
        assert same(fresh.step(step), in_order[step])
    assert same(next(iter(fresh)), in_order[0])


def test_another_seed_or_step_draws_other_windows():
    batches = make_batches(make_source(num_windows=40))
    assert not same(batches.step(0), batches.step(1))
    assert not same(batches.step(0), make_batches(make_source(num_windows=40), seed=1).step(0))


@pytest.mark.parametrize("batch_size", [1, 4, 17, 40])
def test_every_window_is_drawn_once_in_each_epoch(batch_size):
    batches = make_batches(make_source("a"), make_source("b", 7), batch_size=batch_size)
    num_epochs = 5
    num_steps = -(-17 * num_epochs // batch_size)
    drawn = np.concatenate([batches.draw(step) for step in range(num_steps)])[: 17 * num_epochs]
    epochs = drawn.reshape(num_epochs, 17)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(17), (num_epochs, 1)))
    assert len(np.unique(epochs, axis=0)) == num_epochs


def test_a_step_holds_the_drawn_windows_in_one_dense_group_per_recording():
    batches = make_batches(
        make_source("a"), make_source("b", 7), batch_size=17, jitter=0, unit_dropout=0.0
    )
    groups = batches.step(0)
    assert [group.activity.shape for group in groups] == [(10, 5, 6), (7, 5, 6)]
    assert sorted(groups[0].target.tolist()) == list(range(10))
    assert sorted(groups[1].target.tolist()) == list(range(100, 107))
    for group in groups:
        first = 5 + 20 * (group.target % 100)
        expected = (first[:, None] + torch.arange(5)).float()[..., None].expand(-1, -1, 6)
        assert torch.equal(group.activity, expected)


def test_jitter_moves_windows_both_ways_and_never_further_than_allowed():
    batches = make_batches(make_source(num_windows=200), batch_size=200, jitter=3)
    [group] = batches.step(0)
    shift = group.activity[:, 0, 0] - (5 + 20 * group.target)
    assert set(shift.tolist()) == {-3, -2, -1, 0, 1, 2, 3}


def test_jitter_never_takes_a_window_out_of_its_part():
    source = make_source(num_windows=200)
    source.may_start[:] = False
    for first in source.windows.first_timestep:
        source.may_start[first : first + 2] = True  # only one later start is allowed
    batches = make_batches(source, batch_size=200, jitter=3)
    starts = np.concatenate([batches.step(step)[0].activity[:, 0, 0] for step in range(5)])
    assert source.may_start[starts.astype(int)].all()
    assert len(np.unique(starts)) > 200


def test_jitter_at_the_ends_of_a_recording_stays_inside():
    source = make_source(num_windows=1)
    source.may_start[-4:] = False  # windows of five samples
    for first in (0, len(source.may_start) - 5):
        index, shift = np.zeros(20, dtype=int), np.arange(-10, 10)
        source.windows.first_timestep[:] = first
        activity = source.batch(index, shift).activity
        assert activity.shape == (20, 5, NUM_UNITS)
        assert torch.equal(activity[:, 4, 0] - activity[:, 0, 0], torch.full((20,), 4.0))


def test_unit_dropout_leaves_out_the_same_units_in_every_window():
    sizes = set()
    for step in range(40):
        [group] = make_batches(make_source(), unit_dropout=0.9).step(step)
        assert group.activity.shape == (4, 5, len(group.unit_index))
        assert group.unit_index.unique().tolist() == group.unit_index.tolist()
        sizes.add(len(group.unit_index))
    assert sizes == {1, 2, 3, 4, 5, 6}


def test_unit_dropout_keeps_the_activity_of_a_unit_with_its_row():
    source = make_source()
    values = torch.randn(len(source.may_start), NUM_UNITS)
    source = replace(
        source,
        activity=replace(source.activity, values=values),
        unit_index=torch.tensor([16, 11, 15, 12, 14, 13]),
    )
    for step in range(10):
        [group] = make_batches(source, jitter=0, unit_dropout=0.8).step(step)
        steps = source.windows.first_timestep[group.target][:, None] + np.arange(5)
        column = [source.unit_index.tolist().index(row) for row in group.unit_index]
        assert torch.equal(group.activity, values[steps][:, :, column])


def test_at_least_one_unit_stays_and_without_dropout_all_do(rng):
    kept = [draw_units(2, rng, 0.999).tolist() for _ in range(300)]
    assert {tuple(columns) for columns in kept} == {(0,), (1,), (0, 1)}
    assert draw_units(2, rng, 0.0).tolist() == [0, 1]
    assert draw_units(1, rng, 0.999).tolist() == [0]


def first_formula(batches: TrainingBatches, step: int) -> list[WindowBatch]:
    """Step ``step`` from its definition: a permutation of every epoch, one draw after another."""
    owner = [o for o, s in enumerate(batches.sources) for _ in s.windows.first_timestep]
    position = [i for s in batches.sources for i in range(len(s))]
    total, size = len(owner), batches.batch_size
    drawn = []
    for place in range(step * size, (step + 1) * size):
        order = np.random.default_rng([batches.seed, 1, place // total]).permutation(total)
        drawn.append(order[place % total])
    rng = np.random.default_rng([batches.seed, 2, step])
    groups = []
    for o, source in enumerate(batches.sources):
        index = np.array([position[d] for d in drawn if owner[d] == o], dtype=int)
        if len(index) == 0:
            continue
        first = source.windows.first_timestep[index]
        shift = rng.integers(-batches.jitter, batches.jitter + 1, len(index))
        shifted = np.clip(first + shift, 0, len(source.may_start) - 1)
        first = np.where(source.may_start[shifted], shifted, first)
        steps = torch.from_numpy(first)[:, None] + torch.arange(source.windows.num_timesteps)
        is_kept = rng.random(len(source.unit_index)) >= rng.uniform(0, batches.unit_dropout)
        is_kept[rng.integers(len(is_kept))] = True
        groups.append(
            WindowBatch(
                activity=source.activity.values[steps][:, :, is_kept],
                unit_index=source.unit_index[torch.from_numpy(is_kept)],
                target=torch.from_numpy(source.windows.target[index]),
            )
        )
    return groups


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    batch_size=st.integers(1, 40),
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=4).filter(any),
    steps=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    jitter=st.integers(0, 8),
    unit_dropout=st.floats(0.0, 0.99),
)
def test_steps_hold_what_their_definition_says_in_whatever_order_they_are_asked_for(
    seed, batch_size, counts, steps, jitter, unit_dropout
):
    sources = [make_source(str(i), n, spacing=7) for i, n in enumerate(counts)]
    for source in sources:
        source.may_start[::3] = False
        source.may_start[-5:] = False
    options = {"seed": seed, "jitter": jitter, "unit_dropout": unit_dropout}
    batches = make_batches(*sources, batch_size=batch_size, **options)
    for step in steps:
        assert same(batches.step(step), first_formula(batches, step))


def test_a_batch_larger_than_all_windows_runs_through_several_epochs():
    batches = make_batches(make_source(num_windows=3), batch_size=10)
    drawn = np.concatenate([batches.draw(step) for step in range(3)])
    assert np.array_equal(np.sort(drawn.reshape(10, 3), axis=1), np.tile(np.arange(3), (10, 1)))


def test_an_epoch_is_put_in_order_once_however_many_steps_it_has(monkeypatch):
    batches = make_batches(make_source(num_windows=50), batch_size=4)
    shuffled = []
    default_rng = np.random.default_rng
    monkeypatch.setattr(
        np.random, "default_rng", lambda seed: (shuffled.append(seed[1:]), default_rng(seed))[1]
    )
    for step in range(25):  # two epochs
        batches.draw(step)
    assert shuffled == [[1, 0], [1, 1]]


def test_answers_of_a_teacher_stay_with_their_windows():
    source = make_source()
    taught = WindowSource(
        activity=source.activity,
        unit_index=source.unit_index,
        windows=source.windows,
        may_start=source.may_start,
        teacher_answer=torch.eye(10),
    )
    [group] = make_batches(taught).step(2)
    assert torch.equal(group.teacher_answer.argmax(1), group.target)


@pytest.mark.parametrize(("spacing", "kept"), [(1, [5, 7, 9, 11, 13]), (5, [5, 10, 15]), (0, [5])])
def test_windows_half_apart_are_thinned_only_where_they_begin_nearer(spacing, kept):
    num_windows = 10 if spacing == 1 else len(kept)
    half_apart = make_source(num_windows=num_windows, spacing=spacing).half_apart()
    assert half_apart.windows.first_timestep.tolist() == kept


def test_taken_windows_keep_their_answers():
    taken = replace(make_source(), teacher_answer=torch.eye(10)).take(np.array([7, 2]))
    assert taken.windows.first_timestep.tolist() == [145, 45]
    assert taken.windows.target.tolist() == [7, 2]
    assert torch.equal(taken.teacher_answer, torch.eye(10)[[7, 2]])


@pytest.mark.parametrize("max_windows", [1, 3, 8, 17, 100])
def test_thinning_out_keeps_evenly_spaced_windows_of_every_recording(max_windows):
    thinned = thin([make_source("a"), make_source("b", 7)], max_windows)
    counts = [len(source) for source in thinned]
    # each recording keeps one window at least
    assert min(counts) >= 1
    assert sum(counts) <= max_windows + len(thinned)
    for source in thinned:
        assert len(np.unique(np.diff(source.windows.target))) <= 1
    if max_windows >= 17:
        assert counts == [10, 7]


def test_streams_are_mixed_step_by_step():
    labelled, unlabelled = make_batches(make_source("a")), make_batches(make_source("b"), seed=5)
    for step, groups in enumerate(islice(MixedBatches([labelled, unlabelled]), 3)):
        assert same(groups, labelled.step(step) + unlabelled.step(step))


def joined(parts: list[list[WindowBatch]]) -> dict[int, tuple]:
    """Every window of a step by its place in it: what is read, from whom, and the answer."""
    return {
        int(place): (window.numpy().tobytes(), group.unit_index.tolist(), int(target))
        for groups in parts
        for group in groups
        for place, window, target in zip(group.position, group.activity, group.target, strict=True)
    }


@pytest.mark.parametrize("num_parts", [2, 3, 6])
@pytest.mark.parametrize("is_mixed", [False, True])
def test_the_parts_of_a_step_together_are_the_undivided_step(num_parts, is_mixed):
    batches = make_batches(make_source("a"), make_source("b", 7), batch_size=6)
    if is_mixed:
        batches = MixedBatches([batches, make_batches(make_source("b"), batch_size=6, seed=5)])
    num_windows = 12 if is_mixed else 6
    for step in range(8):
        parts = [batches.step(step, part, num_parts) for part in range(num_parts)]
        sizes = [sum(len(group.target) for group in groups) for groups in parts]
        assert sizes == [num_windows // num_parts] * num_parts
        whole = joined([batches.step(step)])
        assert sorted(whole) == list(range(num_windows))
        assert joined(parts) == whole


def test_a_process_goes_through_its_parts_of_every_step_from_any_step_on():
    batches = make_batches(make_source("a"), make_source("b", 7), batch_size=8)
    mine = StepParts(batches, parts=range(2, 4), num_parts=4, first_step=5)
    for groups, (step, part) in zip(mine, [(5, 2), (5, 3), (6, 2), (6, 3)], strict=False):
        assert same(groups, batches.step(step, part, 4))


def test_a_step_that_has_no_equal_parts_is_refused():
    with pytest.raises(ValueError, match=r"4 windows a step cannot be divided into 3 equal parts"):
        make_batches(make_source()).step(0, 0, 3)


def with_activity(source: WindowSource, factor: float) -> WindowSource:
    """The same windows, had the last sample been another."""
    values = source.activity.values.clone()
    values[-1, -1] *= factor
    return replace(source, activity=replace(source.activity, values=values))


def taught(source: WindowSource, certainty: float, noise: float = 0.0) -> WindowSource:
    """The same windows with answers of a teacher, as sure as asked."""
    rng = np.random.default_rng(0)
    answer = certainty * rng.random((len(source), 3)) + noise * rng.normal(size=(len(source), 3))
    return replace(source, teacher_answer=torch.from_numpy(answer).float())


def test_batches_are_told_apart_by_their_windows_and_settings():
    one = make_batches(make_source("a"), make_source("b", 7))
    assert one.describe() == make_batches(make_source("a"), make_source("b", 7)).describe()
    others = [
        make_batches(make_source("a"), make_source("b", 8)),
        make_batches(make_source("a"), make_source("c", 7)),
        make_batches(make_source("a", spacing=21), make_source("b", 7)),
        make_batches(make_source("a"), make_source("b", 7), seed=1),
        make_batches(make_source("a"), make_source("b", 7), jitter=2),
        make_batches(with_activity(make_source("a"), 1.01), make_source("b", 7)),
        make_batches(taught(make_source("a"), 1.0), make_source("b", 7)),
    ]
    assert all(one.describe() != other.describe() for other in others)
    assert MixedBatches([one, one]).describe() != MixedBatches([one, others[0]]).describe()


def test_teachers_are_told_apart_by_what_they_answer_but_not_by_rounding():
    one = make_batches(taught(make_source("a"), 1.0)).describe()
    assert make_batches(taught(make_source("a"), 1.0, noise=1e-7)).describe() == one
    for other in (taught(make_source("a"), 0.9), taught(make_source("a"), 1.0, noise=0.05)):
        assert make_batches(other).describe() != one
    swapped = taught(make_source("a"), 1.0)
    assert swapped.teacher_answer is not None
    swapped = replace(swapped, teacher_answer=swapped.teacher_answer.flip(1))
    assert make_batches(swapped).describe() != one


def test_streams_of_one_recording_share_what_is_moved_elsewhere():
    source = make_source("a")
    labelled, unlabelled = make_batches(source), make_batches(source.take(np.arange(3)))
    mixed = MixedBatches([labelled, unlabelled])

    def halve(activity):
        return activity.to(torch.device("cpu"), torch.float16)

    moved = mixed.to(cache(halve))
    first, second = (stream.sources[0].activity for stream in moved.streams)
    assert first is second
    assert first.values.dtype == torch.float16
    assert moved.describe() == mixed.describe()
    for moved_group, group in zip(moved.step(3), mixed.step(3), strict=True):
        assert torch.equal(moved_group.target, group.target)
        torch.testing.assert_close(moved_group.activity, group.activity, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("num_ranks", [2, 3, 5])
def test_processes_share_the_batches_of_an_evaluation(num_ranks):
    batches = EvaluationBatches([make_source("a"), make_source("b", 7)], batch_size=4)
    shares = [list(batches.divided(rank, num_ranks)) for rank in range(num_ranks)]
    targets = [groups[0].target.tolist() for share in shares for groups in share]
    assert sorted(targets) == sorted(groups[0].target.tolist() for groups in batches)


def test_every_process_evaluates_all_where_there_are_fewer_batches_than_processes():
    batches = EvaluationBatches([make_source()], batch_size=8)
    for rank in range(3):
        share = list(batches.divided(rank, 3))
        assert all(same(one, two) for one, two in zip(share, batches, strict=True))


def test_evaluation_gives_every_window_once_in_order_with_all_units():
    batches = EvaluationBatches([make_source("a"), make_source("b", 7)], batch_size=4)
    first, second = list(batches), list(batches)
    assert [len(groups) for groups in first] == [1] * 5
    assert [len(group.target) for [group] in first] == [4, 4, 2, 4, 3]
    target = torch.cat([group.target for [group] in first])
    assert target.tolist() == [*range(10), *range(100, 107)]
    starts = torch.cat([group.activity[:, 0, 0] for [group] in first])
    assert torch.equal(starts, 5.0 + 20 * (target % 100))
    assert all(group.unit_index.tolist() == [1, 2, 3, 4, 5, 6] for [group] in first)
    assert all(same(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("sources", [[], [make_source(num_windows=0)]], ids=["none", "empty"])
def test_training_on_no_window_is_refused(sources):
    with pytest.raises(ValueError, match=r"no training window.*shorter window"):
        make_batches(*sources)
