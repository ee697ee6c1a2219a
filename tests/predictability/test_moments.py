"""Moments in one pass: exact, whatever the scale, the cut into chunks and the storage."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction
from functools import reduce
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import poyo_ssl.predictability.moments
from poyo_ssl.predictability.moments import Moments, compute_moments

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
SESSIONS = [
    "sub-527550471_ses-527745328-StimA_ophys.nwb",
    "sub-527550471_ses-527676626-StimB_ophys.nwb",
]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def exact_statistics(trace: np.ndarray) -> tuple[float, float]:
    """Skewness and Pearson's kurtosis in rational numbers: no rounding but the last."""
    values = [Fraction(float(value)) for value in trace]
    mean = sum(values) / len(values)
    m2, m3, m4 = (sum((value - mean) ** k for value in values) / len(values) for k in (2, 3, 4))
    return math.sqrt(m3**2 / m2**3) * (1 if m3 > 0 else -1), float(m4 / m2**2)


def assert_exact(moments: Moments, traces: np.ndarray) -> None:
    for unit, trace in enumerate(traces.T):
        skewness, kurtosis = exact_statistics(trace)
        assert moments.skewness[unit] == pytest.approx(skewness, rel=1e-7, abs=1e-9)
        assert moments.kurtosis[unit] == pytest.approx(kurtosis, rel=1e-7)


def everywhere(traces: np.ndarray) -> np.ndarray:
    return np.ones(len(traces), dtype=bool)


# exactness -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (1023, 3), (1024, 257), (2500, 300)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, ">f4"])
def test_statistics_equal_scipys_in_double_precision(rng, shape, dtype):
    traces = (100.0 * rng.exponential(size=shape)).astype(dtype)
    exact = traces.astype(np.float64)
    moments = Moments.of(traces)
    assert moments.count == shape[0]
    assert np.array_equal(moments.minimum, exact.min(axis=0))
    assert np.array_equal(moments.maximum, exact.max(axis=0))
    assert np.allclose(moments.mean, exact.mean(axis=0), rtol=1e-12)
    if shape[0] > 1:
        skewness = scipy.stats.skew(exact, axis=0)
        kurtosis = scipy.stats.kurtosis(exact, axis=0, fisher=False)
        assert np.allclose(moments.skewness, skewness, rtol=1e-9, atol=1e-12)
        assert np.allclose(moments.kurtosis, kurtosis, rtol=1e-9)


NOISE = np.random.default_rng(1).exponential(size=(1300, 2))
TRANSIENT = np.zeros((1300, 2))
TRANSIENT[1100] = 1.0


@pytest.mark.parametrize(
    "traces",
    {
        "offset of 1e6, deviation of 1e-4": 1e6 + 1e-4 * NOISE,
        "offset of 1e6 in single precision": (1e6 + NOISE).astype(np.float32),
        "offset of -1e15, a few rounding steps": -1e15 + np.round(NOISE),
        "tiny": 1e-30 * NOISE,
        "tiny in single precision": (1e-30 * NOISE).astype(np.float32),
        "denormal": 1e-321 * NOISE,
        "denormal in single precision": (1e-43 * NOISE).astype(np.float32),
        "huge": 1e306 * NOISE,
        "huge in single precision": (1e37 * NOISE).astype(np.float32),
        "the largest of both signs": np.finfo(np.float64).max * np.sign(NOISE - 1.0),
        "one transient in silence": TRANSIENT,
        "one giant transient in noise": 1e8 * TRANSIENT + NOISE,
        "one giant dip in the last block": NOISE - 1e8 * TRANSIENT[::-1],
        "one step up": 3.0 + np.cumsum(TRANSIENT, axis=0),
        "one rounding step in half precision": (1 + 2e-3 * TRANSIENT).astype(np.float16),
        "scales that differ by unit": NOISE * [1e-200, 1e200],
        "scales that differ by block": NOISE
        * np.repeat([1e-200, 1.0, 1e200], [1024, 200, 76])[:, None],
    }.items(),
    ids=lambda pair: pair[0].replace(" ", "-"),
)
def test_statistics_of_awkward_traces_equal_rational_arithmetic(traces):
    _, traces = traces
    assert_exact(Moments.of(traces), traces)
    halves = [Moments.of(traces[:700]), Moments.of(traces[700:])]
    assert_exact(reduce(Moments.merge, halves), traces)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=12),
    st.randoms(use_true_random=False),
)
def test_any_numbers_merged_in_any_order_equal_rational_arithmetic(values, random):
    traces = np.array(values)[:, None]
    assume(traces.min() < traces.max())
    num_cuts = random.randrange(len(values))
    cuts = sorted(random.sample(range(1, len(values)), num_cuts))
    parts = [Moments.of(part) for part in np.split(traces, cuts)]
    random.shuffle(parts)
    while len(parts) > 1:  # a tree of any form
        one, two = parts.pop(), parts.pop()
        parts.insert(random.randrange(len(parts) + 1), one.merge(two))
    assert parts[0].count == len(values)
    assert_exact(parts[0], traces)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), bytes_at_a_time=st.integers(1, 100_000))
def test_statistics_do_not_depend_on_how_much_is_read_at_a_time(seed, bytes_at_a_time):
    rng = np.random.default_rng(seed)
    traces = rng.standard_t(3, size=(rng.integers(2, 2500), 5)).astype(np.float32)
    is_inside = rng.random(len(traces)) < rng.uniform(0.1, 1.0)
    is_inside[:2] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(poyo_ssl.predictability.moments, "_BYTES_AT_A_TIME", bytes_at_a_time)
        moments = compute_moments(traces, is_inside)
    expected = traces[is_inside].astype(np.float64)
    assert moments.count == is_inside.sum()
    assert np.allclose(moments.skewness, scipy.stats.skew(expected, axis=0), rtol=1e-8, atol=1e-10)
    kurtosis = scipy.stats.kurtosis(expected, axis=0, fisher=False)
    assert np.allclose(moments.kurtosis, kurtosis, rtol=1e-9)


@pytest.mark.parametrize("session", SESSIONS)
def test_statistics_of_allen_sessions_equal_scipys_in_double_precision(session):
    if not (DATA / session).exists():
        pytest.skip("the real Allen sessions are not here")
    with h5py.File(DATA / session) as file:
        dataset = file["processing/ophys/DfOverF/DfOverF/data"]
        moments = compute_moments(dataset, np.ones(len(dataset), dtype=bool))
        exact = dataset[:].astype(np.float64)
    assert np.allclose(moments.skewness, scipy.stats.skew(exact, axis=0), rtol=1e-9)
    kurtosis = scipy.stats.kurtosis(exact, axis=0, fisher=False)
    assert np.allclose(moments.kurtosis, kurtosis, rtol=1e-9)


# units without statistics ----------------------------------------------------------------------


def test_non_finite_values_are_counted_in_every_part_and_disturb_no_other_unit(rng):
    traces = rng.normal(size=(1300, 5))
    expected = Moments.of(traces)
    traces[[3, 600, 1299], 1] = np.nan
    traces[900, 2] = np.inf
    traces[[0, 1], 3] = [-np.inf, np.inf]
    moments = Moments.of(traces[:650]).merge(Moments.of(traces[650:]))
    assert moments.num_non_finite.tolist() == [0, 3, 1, 2, 0]
    for unit in (0, 4):
        assert moments.skewness[unit] == pytest.approx(expected.skewness[unit])
        assert moments.kurtosis[unit] == pytest.approx(expected.kurtosis[unit])


def test_constant_units_have_extremes_and_a_mean_but_neither_skewness_nor_kurtosis():
    moments = Moments.of(np.full((700, 2), [7.0, -1e300]))
    assert np.array_equal(moments.minimum, moments.maximum)
    assert np.array_equal(moments.mean, [7.0, -1e300])
    assert np.isnan(moments.skewness).all()
    assert np.isnan(moments.kurtosis).all()


@pytest.mark.parametrize("shape", [(0, 3), (5,), (2, 2, 2)])
def test_a_chunk_that_is_empty_or_no_grid_is_refused(shape):
    with pytest.raises(ValueError, match="num_timesteps, num_units"):
        Moments.of(np.zeros(shape))


# storage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [None, (64, 12), (700, 1), (7, 5), (700, 12)])
def test_statistics_of_an_hdf5_dataset_are_those_of_its_array(rng, tmp_path, monkeypatch, chunks):
    monkeypatch.setattr(poyo_ssl.predictability.moments, "_BYTES_AT_A_TIME", 4000)
    traces = rng.exponential(size=(700, 12)).astype(np.float32)
    is_inside = rng.random(700) < 0.8
    with h5py.File(tmp_path / "traces.h5", "w") as file:
        dataset = file.create_dataset("traces", data=traces, chunks=chunks)
        moments = compute_moments(dataset, is_inside)
    expected = Moments.of(traces[is_inside])
    assert moments.count == expected.count
    assert np.array_equal(moments.maximum, expected.maximum)
    assert np.allclose(moments.kurtosis, expected.kurtosis, rtol=1e-12)


class Spy:
    """An array that remembers how often each of its timesteps was read."""

    def __init__(self, traces: np.ndarray) -> None:
        self.traces, self.shape, self.dtype = traces, traces.shape, traces.dtype
        self.num_reads = np.zeros(len(traces), dtype=int)

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        self.num_reads[index[0]] += 1
        return self.traces[index]


def test_every_timestep_is_read_once_and_stretches_without_a_wanted_one_never(rng, monkeypatch):
    monkeypatch.setattr(poyo_ssl.predictability.moments, "_BYTES_AT_A_TIME", 100 * 6 * 8)
    spy = Spy(rng.normal(size=(1000, 6)))
    is_inside = everywhere(spy.traces)
    is_inside[250:750] = False
    compute_moments(spy, is_inside)
    assert np.array_equal(np.flatnonzero(spy.num_reads == 0), np.arange(300, 700))
    assert spy.num_reads.max() == 1


def test_twenty_thousand_units_on_disk_are_measured_in_bounded_memory(rng, tmp_path):
    shape = (1200, 20_000)
    traces = np.memmap(tmp_path / "traces.dat", np.float32, "w+", shape=shape)
    for first in range(0, len(traces), 200):
        traces[first : first + 200] = rng.random((200, 20_000), dtype=np.float32)
    is_inside = everywhere(traces)
    is_inside[::7] = False
    tracemalloc.start()
    moments = compute_moments(traces, is_inside)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * poyo_ssl.predictability.moments._BYTES_AT_A_TIME < traces.nbytes
    some = traces[is_inside][:, ::997].astype(np.float64)
    kurtosis = scipy.stats.kurtosis(some, axis=0, fisher=False)
    assert np.allclose(moments.kurtosis[::997], kurtosis, rtol=1e-9)
