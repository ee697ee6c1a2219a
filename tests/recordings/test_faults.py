"""What must survive broken and hostile files; each test asserts its figure."""

import logging
import os
import signal
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nwb_files
from nwb_files import NUM_TIMESTEPS, NUM_UNITS, imaging_times, traces
from poyo_ssl.predictability.thresholds import PredictabilityConfig, find_thresholds
from poyo_ssl.predictability.unit_statistics import compute_predictability
from poyo_ssl.recordings.formats.nwb import read_nwb
from poyo_ssl.recordings.formats.nwb1 import read_nwb1
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.storage import open_recording, save_recording
from poyo_ssl.windows.task_windows import find_any_windows

REAL_SESSION = (
    Path(__file__).resolve().parents[2]
    / "../shared/data/sub-527550471_ses-527745328-StimA_ophys.nwb"
)
DF_OVER_F = "processing/ophys/DfOverF/DfOverF"
needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="damaged files are read in forked processes, as POSIX has them"
)


def outcomes_of_reading(read, damaged: list[bytes], path: Path) -> Counter:
    """Reads every content in a child process and counts what came of it.

    A content that kills its child is a ``crash``, and a new child goes on with the next one.
    """
    expected, outcomes = read(path), Counter()
    done = 0
    while done < len(damaged):
        lines = _read_in_child(read, damaged[done:], path, expected)
        outcomes.update(lines)
        done += len(lines)
        if done < len(damaged):
            outcomes["crash"] += 1
            done += 1
    return outcomes


def _read_in_child(read, damaged: list[bytes], path: Path, expected) -> list[str]:
    """The outcomes up to the one that killed the child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        logging.disable()
        victim = path.with_name(f"damaged{path.suffix}")
        for content in damaged:
            signal.alarm(10)  # an endless loop counts as a crash
            victim.write_bytes(content)
            os.write(writing, f"{_outcome(read, victim, expected)}\n".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().splitlines()
    os.waitpid(child, 0)
    return lines


def _outcome(read, path: Path, expected) -> str:
    try:
        recording = read(path)
    except RecordingError as error:
        names_it = path.name in str(error) or expected.recording_id in str(error)
        return "typed error" if names_it else f"nameless error: {error}"
    except BaseException as error:  # what no reader may raise
        return f"bug: {type(error).__name__}: {error}"
    try:
        nwb_files.assert_same_recording(recording, expected)
    except AssertionError:
        return "different data"
    return "equal data"


def flip_bits(content: bytes, number: int, seed: int) -> list[bytes]:
    """Copies with one bit flipped each, anywhere."""
    rng = np.random.default_rng(seed)
    copies = []
    for place, bit in zip(
        rng.integers(0, len(content), number), rng.integers(0, 8, number), strict=True
    ):
        copy = bytearray(content)
        copy[place] ^= 1 << bit
        copies.append(bytes(copy))
    return copies


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One session in every form, with its reader."""
    folder = tmp_path_factory.mktemp("faults")
    new = nwb_files.write_simple(folder / "new.nwb")
    old = nwb_files.write_nwb1(folder / "old.nwb", traces())
    return {
        "NWB 2": (new, read_nwb),
        "NWB 1": (old, read_nwb1),
        "stored": (save_recording(read_nwb(new), folder / "stored"), open_recording),
    }


@needs_fork
@pytest.mark.parametrize("form", ["NWB 2", "NWB 1", "stored"])
def test_a_truncated_file_is_always_a_typed_error(files, form):
    path, read = files[form]
    content = path.read_bytes()
    offsets = np.linspace(0, len(content) - 1, 20).astype(int)
    outcomes = outcomes_of_reading(read, [content[:offset] for offset in offsets], path)
    assert outcomes == {"typed error": 20}


@needs_fork
@pytest.mark.parametrize("form", ["NWB 2", "NWB 1", "stored"])
def test_a_flipped_bit_never_ends_in_an_untyped_error(files, form):
    """Flips in numbers go unnoticed: these files have no checksums; downloads are verified."""
    path, read = files[form]
    outcomes = outcomes_of_reading(read, flip_bits(path.read_bytes(), 200, seed=0), path)
    allowed = ("typed error", "equal data", "different data", "crash")
    assert outcomes.total() == 200
    assert not [outcome for outcome in outcomes if outcome not in allowed], outcomes
    assert outcomes["crash"] == 0, outcomes


def test_text_that_ends_in_the_wrong_place_is_refused_before_hdf5_loops_over_it(files):
    path, read = files["stored"]
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 16 + 9] ^= 8  # the first text is 2,048 bytes longer than it is
    damaged = path.with_name("longer.h5")
    damaged.write_bytes(content)
    with pytest.raises(RecordingError, match=r"longer.h5' is damaged: the text at byte \d+"):
        read(damaged)


def odd_traces(seed: int) -> np.ndarray:
    """Units of every kind: quiet, bursting, NaN, infinite, constant, huge and tiny."""
    rng = np.random.default_rng(seed)
    units = rng.normal(size=(NUM_TIMESTEPS, 8))
    units[:, 1] = rng.exponential(size=NUM_TIMESTEPS) ** 4
    units[rng.integers(NUM_TIMESTEPS), 2] = np.nan
    units[rng.integers(NUM_TIMESTEPS), 3] = -np.inf
    units[:, 4] = 0.25
    units[:, 5] *= 1e20
    units[:, 6] *= 1e-20
    return units.astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_decisions_about_odd_units_are_those_of_a_float64_oracle(tmp_path, seed):
    expected = odd_traces(seed)
    session = nwb_files.new_session()
    nwb_files.add_traces(session, expected, global_roi_ids=np.arange(8))
    recording = read_nwb(nwb_files.write(session, tmp_path / "odd.nwb"))
    units = compute_predictability(recording.df_over_f)
    exact = expected.astype(np.float64)
    is_measurable = np.isfinite(exact).all(axis=0) & (np.ptp(exact, axis=0) > 0)
    assert (units["excluded"] == "").tolist() == is_measurable.tolist()
    skewness = scipy.stats.skew(exact[:, is_measurable])
    kurtosis = scipy.stats.kurtosis(exact[:, is_measurable], fisher=False)
    measured = units[is_measurable]
    np.testing.assert_allclose(measured["skewness"], skewness, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(measured["kurtosis"], kurtosis, rtol=1e-6)
    thresholds = find_thresholds(
        pd.concat([recording.units, units], axis=1), PredictabilityConfig()
    )
    decisions = (skewness <= 3.51) & (kurtosis <= 22.62)
    assert thresholds.are_met(measured).tolist() == decisions.tolist()
    assert not decisions.all()


def test_one_unit_and_no_trial_make_a_recording(tmp_path):
    path = _write_traces(tmp_path / "one.nwb", traces()[:, :1])
    with h5py.File(path, "r+") as file:
        table = file["stimulus/presentation/drifting_gratings"]
        for name, column in list(table.items()):
            del table[name]
            table[name] = column[:0]
    recording = read_nwb(path)
    assert recording.df_over_f.shape == (NUM_TIMESTEPS, 1)
    assert "drifting_gratings" not in recording.stimuli


@pytest.mark.parametrize(("timesteps", "problem"), [(0, "is empty"), (1, "it has 1 timesteps")])
def test_a_recording_of_nothing_is_refused(tmp_path, timesteps, problem):
    path = _write_traces(tmp_path / "empty.nwb", traces())
    with h5py.File(path, "r+") as file:
        for name, values in [("data", traces()), ("timestamps", imaging_times())]:
            del file[f"{DF_OVER_F}/{name}"]
            file[f"{DF_OVER_F}/{name}"] = values[:timesteps]
    with pytest.raises(RecordingError, match=problem):
        read_nwb(path)


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """A file whose ids of cells a test changes in place."""
    return nwb_files.write_simple(tmp_path_factory.mktemp("cells") / "cells.nwb")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A file whose presentations a test changes in place."""
    return nwb_files.write_simple(tmp_path_factory.mktemp("shown") / "shown.nwb")


@settings(max_examples=15, deadline=None)
@given(ids=st.lists(st.integers(0, 5), min_size=NUM_UNITS, max_size=NUM_UNITS))
def test_cells_are_told_apart_or_refused(cells, ids):
    with h5py.File(cells, "r+") as file:
        file["processing/ophys/ImageSegmentation/PlaneSegmentation/global_roi_id"][...] = ids
    if len(set(ids)) == NUM_UNITS:
        assert read_nwb(cells).unit_ids.tolist() == [f"99/{number}" for number in ids]
    else:
        with pytest.raises(RecordingError, match="unit ids must be unique") as caught:
            read_nwb(cells)
        for number in set(ids):
            assert (f"99/{number}" in str(caught.value)) == (ids.count(number) > 1)


def test_roi_ids_of_two_sessions_do_not_meet(tmp_path):
    one, two = (
        read_nwb(nwb_files.write_simple(tmp_path / name, session_id=None, container_id=None))
        for name in ("one.nwb", "two.nwb")
    )
    assert not set(one.unit_ids) & set(two.unit_ids)


times = st.floats(0, 40, allow_nan=False) | st.just(np.nan)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(starts=st.tuples(times, times, times), ends=st.tuples(times, times, times))
def test_presentations_anywhere_are_kept_left_out_or_refused_by_row(shown, starts, ends):
    with h5py.File(shown, "r+") as file:
        table = file["stimulus/presentation/drifting_gratings"]
        table["start_time"][...], table["stop_time"][...] = starts, ends
    backward = [row for row in range(3) if ends[row] <= starts[row]]
    if backward:
        with pytest.raises(RecordingError, match=f"drifting_gratings: row {backward[0]} starts"):
            read_nwb(shown)
        return
    first, last = imaging_times()[[0, -1]]
    kept = sorted(s for s, e in zip(starts, ends, strict=True) if s <= last and e > first)
    stimuli = read_nwb(shown).stimuli
    found = stimuli["drifting_gratings"]["start"].tolist() if stimuli else []
    assert found == kept


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("processing/behavior", "no running speed"),
        ("processing/behavior/EyeTracking", "no eye tracking"),
        ("processing/behavior/PupilTracking", "no pupil size"),
        ("intervals", None),
        ("general/subject/genotype", "no Cre line"),
        ("stimulus/templates", "no template of natural_movie_one"),
        ("general/optophysiology", "no imaging plane"),
    ],
)
def test_a_session_goes_on_without_what_is_missing_and_says_so(tmp_path, caplog, group, message):
    session = nwb_files.new_session()
    nwb_files.add_traces(session, traces())
    nwb_files.add_behavior(session)
    session.add_epoch(start_time=10.0, stop_time=12.0)
    path = nwb_files.write(session, tmp_path / "session.nwb")
    pictures = np.zeros((2, 3, 4), dtype=np.uint8)
    nwb_files.add_movie(path, np.array([0, 1]), np.array([11.0, 11.1]), pictures)
    with h5py.File(path, "r+") as file:
        del file[group]
    with caplog.at_level(logging.INFO):
        recording = read_nwb(path)
    np.testing.assert_array_equal(recording.df_over_f, traces())
    assert len(recording.stimulus("natural_movie_one")) == 2
    assert message is None or message in caplog.text


@pytest.mark.parametrize("name", ["BehavioralTimeSeries/running_speed", "PupilTracking/pupil_size"])
def test_behaviour_without_as_many_times_as_samples_is_refused(tmp_path, name):
    session = nwb_files.new_session()
    nwb_files.add_traces(session, traces())
    nwb_files.add_behavior(session)
    path = nwb_files.write(session, tmp_path / "session.nwb")
    with h5py.File(path, "r+") as file:
        del file[f"processing/behavior/{name}/data"]
        file[f"processing/behavior/{name}/data"] = np.zeros(4)
    with pytest.raises(RecordingError, match=f"{name} has 4 samples but 5 timestamps"):
        read_nwb(path)


@pytest.mark.skipif(not REAL_SESSION.is_file(), reason="the real session is not in ../shared/data")
def test_no_window_of_a_real_session_crosses_a_gap():
    recording = read_nwb(REAL_SESSION)
    everything = np.array([[recording.timestamps[0], recording.timestamps[-1] + 1]])
    num_timesteps = 30
    first = find_any_windows(recording, everything, num_timesteps)
    lasted = recording.timestamps[first + num_timesteps - 1] - recording.timestamps[first]
    assert np.count_nonzero(lasted > num_timesteps / recording.sampling_rate) == 0
    # and none is missing: every segment has all windows that fit
    assert len(first) == sum(stop - start - num_timesteps + 1 for start, stop in recording.segments)


def _write_traces(path: Path, df_over_f: np.ndarray) -> Path:
    session = nwb_files.new_session()
    ids = np.arange(df_over_f.shape[1])
    nwb_files.add_traces(session, df_over_f, global_roi_ids=ids)
    nwb_files.add_gratings(session)
    return nwb_files.write(session, path)
