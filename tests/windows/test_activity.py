"""Normalisation learns from training time alone; windows and bins are plain averages."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from poyo_ssl.recordings.recording import Recording
from poyo_ssl.windows import activity as module
from poyo_ssl.windows.activity import (
    LARGEST_Z,
    Activity,
    UnitScale,
    gather_in_memory,
    gather_on_device,
)

UNITS = ["a", "b", "c"]
TRAINING = np.array([[0.0, 4.0], [6.0, 8.0]])
"""Seconds; of ten samples at 1 Hz all but 4, 5, 8 and 9."""


@pytest.fixture
def recording(rng) -> Recording:
    return Recording(
        recording_id="activity",
        df_over_f=rng.normal(size=(10, 3)).astype(np.float32),
        timestamps=np.arange(10.0),
        units=pd.DataFrame({"unit_id": UNITS}),
    )


def values_of(activity: Activity) -> np.ndarray:
    return activity.values.numpy()  # noqa: PD011 (a tensor, not a table)


def measured(recording: Recording, unit_ids: list[str]) -> pd.DataFrame:
    return UnitScale.measure(recording, TRAINING, unit_ids).tables[recording.recording_id]


def normalise(recording: Recording, unit_ids: list[str] = UNITS) -> np.ndarray:
    return values_of(
        Activity.of(recording, unit_ids, UnitScale.measure(recording, TRAINING, UNITS))
    )


def test_the_scale_is_the_mean_and_deviation_of_training_time(recording):
    table = measured(recording, UNITS)
    traces = recording.df_over_f[[0, 1, 2, 3, 6, 7]].astype(float)
    assert table.index.tolist() == UNITS
    np.testing.assert_allclose(table["mean"], traces.mean(0), rtol=1e-6)
    np.testing.assert_allclose(table["sd"], traces.std(0), rtol=1e-6)


def test_only_the_chosen_units_are_measured(recording):
    everyone = measured(recording, UNITS)
    some = measured(recording, ["c", "a"])
    assert_frame_equal(some, everyone.loc[["a", "c"]])


def test_withheld_samples_have_no_influence_on_training_activity(recording):
    is_training = recording.is_inside(TRAINING)
    garbage = recording.df_over_f.copy()
    garbage[~is_training] = 1e3
    changed = replace(recording, df_over_f=garbage)
    assert_frame_equal(
        measured(recording, UNITS),
        measured(changed, UNITS),
    )
    before, after = normalise(recording), normalise(changed)
    np.testing.assert_array_equal(before[is_training], after[is_training])
    assert np.all(before[~is_training] != after[~is_training])


@pytest.fixture
def louder(recording) -> Recording:
    """Another day of the same session: every trace is three times as large and lies higher."""
    return replace(recording, recording_id="louder", df_over_f=3 * recording.df_over_f + 1)


@pytest.fixture
def two_days(recording, louder) -> UnitScale:
    """Cells ``a`` and ``b`` on the first day, ``b`` and ``c`` on the louder one."""
    return UnitScale.merge(
        [
            UnitScale.measure(recording, TRAINING, ["a", "b"]),
            UnitScale.measure(louder, TRAINING, ["b", "c"]),
        ]
    )


def test_every_recording_keeps_its_own_scale_of_a_tracked_cell(recording, louder, two_days):
    assert_frame_equal(two_days.table_for("activity"), measured(recording, ["a", "b"]))
    assert_frame_equal(two_days.table_for("louder"), measured(louder, ["b", "c"]))


def test_a_tracked_cell_looks_the_same_on_a_louder_day(recording, louder, two_days):
    quiet, loud = (values_of(Activity.of(day, ["b"], two_days)) for day in (recording, louder))
    np.testing.assert_allclose(loud, quiet, atol=1e-5)


def test_a_recorded_day_knows_no_cell_of_another_day(recording, two_days):
    with pytest.raises(KeyError, match="c"):
        Activity.of(recording, ["a", "c"], two_days)


def test_a_new_day_is_normalised_by_the_average_of_the_days_that_know_the_cell(
    recording, louder, two_days
):
    first, second = measured(recording, UNITS), measured(louder, UNITS)
    found = two_days.table_for("a new day")
    assert_frame_equal(found.loc[["a"]], first.loc[["a"]])
    assert_frame_equal(found.loc[["b"]], (first.loc[["b"]] + second.loc[["b"]]) / 2)
    assert_frame_equal(found.loc[["c"]], second.loc[["c"]])


def test_a_new_day_is_normalised_without_a_look_at_it(recording, two_days):
    new = replace(recording, recording_id="a new day")
    later = new.df_over_f.copy()
    later[5:] += 100.0
    before = values_of(Activity.of(new, UNITS, two_days))
    after = values_of(Activity.of(replace(new, df_over_f=later), UNITS, two_days))
    np.testing.assert_array_equal(before[:5], after[:5])


def test_the_order_of_days_does_not_change_any_scale(two_days):
    turned = UnitScale({name: two_days.tables[name] for name in ("louder", "activity")})
    for name in ("activity", "louder", "a new day"):
        assert_frame_equal(turned.table_for(name).loc[["b"]], two_days.table_for(name).loc[["b"]])


def test_activity_is_the_signed_square_root_of_a_clipped_z_score(recording):
    table = pd.DataFrame({"mean": [1.0, 0.0, 0.0], "sd": [0.5, 1.0, 1.0]}, index=pd.Index(UNITS))
    scale = UnitScale({"activity": table})
    traces = np.zeros((10, 3), dtype=np.float32)
    traces[:5, 0] = [1.0, 3.0, -1.0, 50.0, -50.0]
    activity = Activity.of(replace(recording, df_over_f=traces), UNITS, scale)
    expected = [0.0, 2.0, -2.0, LARGEST_Z**0.5, -(LARGEST_Z**0.5)]
    np.testing.assert_allclose(values_of(activity)[:5, 0], expected, rtol=1e-6)
    assert values_of(activity).dtype == np.float32
    assert activity.recording_id == "activity"


def test_units_come_in_the_order_asked_for(recording):
    everyone = normalise(recording)
    np.testing.assert_array_equal(normalise(recording, ["c", "a"]), everyone[:, [2, 0]])


def test_a_unit_that_was_silent_in_training_stays_finite(recording):
    silent = recording.df_over_f.copy()
    silent[:, 1] = 0.25
    values = normalise(replace(recording, df_over_f=silent))
    np.testing.assert_array_equal(values[:, 1], 0)
    # it may wake up later
    silent[9, 1] = 5.0
    assert np.isfinite(normalise(replace(recording, df_over_f=silent))).all()


def test_a_sample_that_is_no_number_counts_as_the_mean_whatever_its_neighbours(rng):
    mean, sd = rng.normal(size=(2, 3)).astype(np.float32)
    traces = rng.normal(size=(4, 3)).astype(np.float32)
    traces[1, 2] = traces[3, 0] = np.nan
    values = module.normalise(traces, mean, np.abs(sd))
    assert values[1, 2] == values[3, 0] == 0
    # a row alone is normalised as in the grid
    np.testing.assert_array_equal(
        values, [module.normalise(row, mean, np.abs(sd)) for row in traces]
    )


def grid(traces: np.ndarray, unit_ids: list[str]) -> Recording:
    return Recording(
        recording_id="grid",
        df_over_f=traces,
        timestamps=np.arange(float(len(traces))),
        units=pd.DataFrame({"unit_id": unit_ids}),
    )


def first_formula(recording: Recording, unit_ids: list[str], scale: UnitScale) -> np.ndarray:
    """All traces at once, in the fewest words."""
    columns = [recording.unit_ids.tolist().index(unit_id) for unit_id in unit_ids]
    table = scale.tables["grid"].loc[unit_ids].to_numpy(dtype=np.float32)
    sd = np.where(table[:, 1] > 0, table[:, 1], 1)
    z = np.clip((recording.df_over_f[:, columns] - table[:, 0]) / sd, -LARGEST_Z, LARGEST_Z)
    z[np.isnan(z)] = 0.0
    return (np.sign(z) * np.sqrt(np.abs(z))).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    num_timesteps=st.integers(2, 50),
    num_units=st.integers(1, 5),
    at_a_time=st.integers(1, 60),
    seed=st.integers(0, 2**32),
    order=st.sampled_from("CF"),
)
def test_block_by_block_is_the_same_as_all_at_once(
    num_timesteps, num_units, at_a_time, seed, order
):
    rng = np.random.default_rng(seed)
    traces = np.asarray(rng.normal(size=(num_timesteps, num_units)), np.float32, order=order)
    names = [f"u{i}" for i in range(num_units)]
    recording = grid(traces, names)
    asked = rng.permutation(names)[: rng.integers(1, num_units + 1)].tolist()
    intervals = np.array([[0.0, 1.0], [num_timesteps / 2, num_timesteps]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "VALUES_AT_A_TIME", at_a_time)
        scale = UnitScale.measure(recording, intervals, names)
        found = values_of(Activity.of(recording, asked, scale))
    training = traces[recording.is_inside(intervals)].astype(np.float64)
    np.testing.assert_allclose(scale.tables["grid"]["mean"], training.mean(0), atol=1e-12)
    np.testing.assert_allclose(scale.tables["grid"]["sd"], training.std(0), atol=1e-12)
    np.testing.assert_array_equal(found, first_formula(recording, asked, scale))


def peak_bytes(function) -> int:
    tracemalloc.start()
    kept = function()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return peak


@pytest.mark.parametrize("num_chosen", [120, 60, 2])
def test_traces_on_disk_come_into_memory_once(tmp_path, rng, monkeypatch, num_chosen):
    monkeypatch.setattr(module, "VALUES_AT_A_TIME", 2**14)
    shape = num_timesteps, num_units = 20_000, 120
    mapped = np.memmap(tmp_path / "traces", np.float32, "w+", shape=shape)
    mapped[:] = rng.random(shape, dtype=np.float32)
    names = [f"u{i}" for i in range(num_units)]
    recording = grid(np.memmap(tmp_path / "traces", np.float32, "r", shape=shape), names)
    everything = np.array([[0.0, num_timesteps]])
    recording.is_inside(everything)
    chosen, scale = names[:num_chosen], UnitScale.measure(recording, everything, names)
    few = 15 * 4 * module.VALUES_AT_A_TIME  # blocks, some of them in float64
    assert few < 0.11 * mapped.nbytes
    assert peak_bytes(lambda: UnitScale.measure(recording, everything, chosen)) < few
    size = 4 * num_timesteps * num_chosen
    peak = peak_bytes(lambda: Activity.of(recording, chosen, scale))
    assert size <= peak < size + few


def test_windows_are_slices(recording):
    activity = Activity.of(recording, UNITS, UnitScale.measure(recording, TRAINING, UNITS))
    windows = activity.windows(np.array([4, 0, 4]), 3)
    assert windows.shape == (3, 3, 3)
    for window, first in zip(windows, [4, 0, 4], strict=True):
        np.testing.assert_array_equal(window, values_of(activity)[first : first + 3])


def test_windows_of_some_units_are_cut_from_windows_of_all(recording):
    activity = Activity.of(recording, UNITS, UnitScale.measure(recording, TRAINING, UNITS))
    first = np.array([7, 0, 4, 4])
    everyone = activity.windows(first, 3)
    for columns in ([0], [2, 0], [0, 1, 2]):
        some = activity.windows(first, 3, np.array(columns))
        assert torch.equal(some, everyone[:, :, columns])
        assert some.is_contiguous()
    assert activity.windows(np.empty(0, dtype=int), 3, np.array([1])).shape == (0, 3, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("columns", [None, np.array([2, 0])])
def test_a_device_gathers_the_windows_that_numpy_gathers(rng, columns, dtype):
    values = torch.from_numpy(rng.normal(size=(20, 3))).to(dtype)
    first = np.array([7, 0, 3])
    in_memory = gather_in_memory(values, first, 5, columns)
    assert in_memory.dtype == dtype
    assert torch.equal(gather_on_device(values, first, 5, columns), in_memory)


def test_activity_on_another_device_stays_there():
    there = torch.device("meta")
    activity = Activity(recording_id="r", values=torch.zeros(20, 3), unit_ids=UNITS)
    windows = activity.to(there, torch.float16).windows(np.array([0, 4]), 5, np.array([1]))
    assert windows.device == there
    assert windows.shape == (2, 5, 1)
    assert windows.dtype == torch.float32


def test_half_precision_is_off_by_a_thousandth_of_a_standard_deviation_at_most(rng):
    values = torch.from_numpy(rng.uniform(-(LARGEST_Z**0.5), LARGEST_Z**0.5, (1000, 3))).float()
    exact = Activity(recording_id="r", values=values, unit_ids=UNITS)
    half = exact.to(torch.device("cpu"), torch.float16)
    first = np.arange(0, 1000, 10)
    assert (half.windows(first, 10) - exact.windows(first, 10)).abs().max() <= 2**-10


def test_a_device_without_room_is_named_with_what_to_do(monkeypatch):
    activity = Activity(recording_id="r", values=torch.zeros(20, 3), unit_ids=UNITS)

    def run_out(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.Tensor, "to", run_out)
    with pytest.raises(ValueError, match=r"'r' .*does not fit on cpu.*activity_on: memory"):
        activity.to(torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("columns", [None, np.array([1])])
def test_a_window_beyond_the_end_is_refused(recording, columns):
    activity = Activity.of(recording, UNITS, UnitScale.measure(recording, TRAINING, UNITS))
    with pytest.raises((IndexError, ValueError)):
        activity.windows(np.array([0, 8]), 3, columns)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), num_timesteps=st.integers(1, 20))
def test_bins_are_plain_means_of_nearly_equal_stretches(data, num_timesteps):
    num_bins = data.draw(st.integers(1, num_timesteps))
    values = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    recording = Recording(
        recording_id="bins",
        df_over_f=values,
        timestamps=np.arange(40.0),
        units=pd.DataFrame({"unit_id": ["a", "b"]}),
    )
    scale = UnitScale.measure(recording, np.array([[0.0, 40.0]]), ["a", "b"])
    activity = Activity.of(recording, ["a", "b"], scale)
    first = np.array([0, 7, 40 - num_timesteps])
    binned = activity.binned(first, num_timesteps, num_bins)
    assert binned.shape == (3, 2 * num_bins)
    edges = [round(num_timesteps * i / num_bins) for i in range(num_bins + 1)]
    widths = np.diff(edges)
    assert widths.max() - widths.min() <= 1
    for row, start in zip(binned, first, strict=True):
        expected = [
            values_of(activity)[start + a : start + b, unit].mean()
            for a, b in pairwise(edges)
            for unit in range(2)
        ]
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_no_windows_have_no_bins(recording):
    activity = Activity.of(recording, UNITS, UnitScale.measure(recording, TRAINING, UNITS))
    none = np.array([], dtype=int)
    assert activity.binned(none, 3, 2).shape == (0, 2 * len(activity.unit_ids))


def test_more_bins_than_samples_are_refused(recording):
    activity = Activity.of(recording, UNITS, UnitScale.measure(recording, TRAINING, UNITS))
    with pytest.raises(ValueError, match=r"4 bins.*3 imaging samples"):
        activity.binned(np.array([0]), 3, 4)
