"""The clock of a stimulus is believed where units answer to it, and doubted where they do not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from poyo_ssl.clock.activity import BinnedActivity
from poyo_ssl.clock.check import ClockCheck, check_clock
from poyo_ssl.clock.designs import Film, Onsets, Trials
from poyo_ssl.clock.figure import plot_clock
from poyo_ssl.clock.presentations import NotComparableError, find_design
from poyo_ssl.clock.statistics import (
    correlate_showings,
    count_responding,
    paired_p_values,
    variance_explained,
)
from poyo_ssl.recordings.formats.arrays import recording_from_arrays
from poyo_ssl.recordings.recording import Recording

RATE, UNITS = 10.0, 40


def gratings(rng, num=240, on=1.0, off=1.0, start=20.0) -> pd.DataFrame:
    starts = start + (on + off) * np.arange(num)
    order = rng.permutation(np.arange(num) % 4) * 45.0
    return pd.DataFrame({"start": starts, "end": starts + on, "orientation": order})


def film(num_repeats=6, num_parts=120, part=0.25, start=30.0) -> pd.DataFrame:
    shown = np.arange(num_repeats * num_parts)
    starts = start + part * shown
    return pd.DataFrame(
        {
            "start": starts,
            "end": starts + part,
            "movie_frame": shown % num_parts,
            "repeat": shown // num_parts,
        }
    )


def record(table: pd.DataFrame, column: str, rng, *, strength=2.0, delay=0.3) -> Recording:
    """Units with a random response to each condition, ``delay`` s late, in white noise."""
    times = np.arange(int((table["end"].max() + 30) * RATE)) / RATE
    conditions, index = np.unique(table[column], return_inverse=True)
    tuning = strength * rng.normal(size=(len(conditions), UNITS))
    traces = rng.normal(size=(len(times), UNITS))
    for start, end, condition in zip(table["start"], table["end"], index, strict=True):
        traces[(times >= start + delay - 1e-6) & (times < end + delay - 1e-6)] += tuning[condition]
    recording = recording_from_arrays(
        traces.astype(np.float32), recording_id="day1", sampling_rate=RATE
    )
    return replace(recording, stimuli={"shown": table})


def listed(recording: Recording, clock) -> Recording:
    table = recording.stimuli["shown"]
    times = np.sort(clock(table[["start", "end"]].to_numpy()), axis=1)
    return replace(recording, stimuli={"shown": table.assign(start=times[:, 0], end=times[:, 1])})


def check(recording: Recording) -> ClockCheck:
    (found,) = check_clock(recording)
    return found


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def seen(rng) -> Recording:
    return record(gratings(rng), "orientation", rng)


@pytest.fixture
def watched(rng) -> Recording:
    return record(film(), "movie_frame", rng)


def test_units_that_respond_are_counted_at_their_lag_without_a_warning(seen):
    found = check(seen)
    assert found.num_responding == UNITS
    assert found.best_lag == pytest.approx(0.3)
    assert found.warning == ""
    assert found.summary.startswith("40 of 40 units respond, best 0.3 s after the onset")


@pytest.mark.parametrize("shift", [2.0, -2.0, 10.0, -10.0])
def test_a_shifted_clock_is_found_and_its_correction_named(seen, shift):
    found = check(listed(seen, lambda t: t + shift))
    assert found.best_lag == pytest.approx(0.3 - shift, abs=0.15)
    correction = float(found.warning.split("add about ")[1].split(" s")[0])
    assert correction == pytest.approx(-shift, abs=0.15)


@pytest.mark.parametrize("shift", [2.0, -2.0, 10.0, -10.0])
def test_a_film_betrays_a_shift_by_where_it_begins_and_stops(watched, shift):
    assert check(watched).warning == ""
    found = check(listed(watched, lambda t: t + shift))
    assert found.best_lag == pytest.approx(0.3 - shift, abs=0.3)
    assert "Its clock seems to be off" in found.warning


def test_milliseconds_are_told_from_seconds(seen):
    found = check(listed(seen, lambda t: 1000 * t))
    assert found.num_responding is None
    assert "0 of 240 presentations of shown were imaged" in found.warning
    assert "in milliseconds: multiply them by 0.001" in found.warning


def test_a_reversed_clock_is_found(seen):
    last = seen.timestamps[-1]
    found = check(listed(seen, lambda t: last - t))
    assert "running backwards" in found.warning


def test_a_clock_that_runs_too_fast_is_found(seen):
    found = check(listed(seen, lambda t: 1.03 * t))
    assert "running too fast" in found.warning
    scale = float(found.warning.split("at ")[1].split(" x")[0])
    assert scale == pytest.approx(1 / 1.03, abs=1e-3)


def test_a_slow_drift_is_told_by_the_lags_of_both_halves(seen):
    found = check(listed(seen, lambda t: t * 1.004 - 0.5))
    assert "in the first half" in found.warning


def test_a_film_whose_showings_drift_apart_is_told_by_its_speed(watched):
    found = check(listed(watched, lambda t: 1.01 * t))
    assert "times as fast as listed" in found.warning


def test_units_that_see_nothing_are_a_warning_that_says_what_was_tried(rng):
    found = check(record(gratings(rng), "orientation", rng, strength=0.0))
    assert found.num_responding == 0
    assert found.best_lag is None
    assert "None of 40 units responds to shown. No shift up to 15 s" in found.warning


def test_what_was_shown_once_cannot_be_checked(rng):
    found = check(record(film(num_repeats=1), "movie_frame", rng))
    assert (found.warning, found.num_responding) == ("", None)
    assert found.note == "its clock cannot be checked: shown once"


def test_a_film_without_imaging_around_it_is_not_given_a_lag(watched):
    table = watched.stimuli["shown"]
    inside = (watched.timestamps >= table["start"].min()) & (
        watched.timestamps < table["end"].max()
    )
    cut = replace(
        watched, df_over_f=watched.df_over_f[inside], timestamps=watched.timestamps[inside]
    )
    found = check(cut)
    assert found.best_lag is None
    assert found.num_responding == UNITS
    assert found.note == "its lag cannot be told: other lags fit as well"


def test_the_order_of_units_and_their_scale_do_not_matter(seen):
    changed = replace(seen, df_over_f=(3 * seen.df_over_f[:, ::-1] + 1).copy())
    assert check(changed).num_responding == check(seen).num_responding
    assert check(changed).best_lag == check(seen).best_lag


def test_units_that_are_broken_or_constant_do_not_respond(seen):
    traces = seen.df_over_f.copy()
    traces[:, 0], traces[:, 1], traces[50, 2] = np.nan, 4.0, np.inf
    found = check(replace(seen, df_over_f=traces))
    assert found.num_responding == UNITS - 2


def test_the_design_is_read_from_the_table(rng):
    assert isinstance(find_design(gratings(rng)), Trials)
    assert isinstance(find_design(film()), Film)
    unique = gratings(rng).assign(orientation=rng.uniform(size=240))
    assert isinstance(find_design(unique), Onsets)
    assert isinstance(find_design(unique[["start", "end"]]), Onsets)
    with pytest.raises(NotComparableError, match="no pause before onsets"):
        find_design(gratings(rng, off=0.0)[["start", "end"]])
    with pytest.raises(NotComparableError, match="only 5 presentations"):
        find_design(gratings(rng, num=5))


def test_blank_sweeps_are_no_condition(rng):
    table = gratings(rng)
    table.loc[::4, "orientation"] = np.nan
    design = find_design(table)
    assert len(design.starts) == 180
    scenes = table.assign(image=np.arange(240) % 5 - 1).drop(columns="orientation")
    assert len(find_design(scenes.sample(frac=1, random_state=0)).starts) == 192


def test_the_variance_explained_is_that_of_a_one_way_analysis(rng):
    values, condition = rng.normal(size=(60, 3)), rng.integers(0, 4, 60)
    values[:, 0] += condition
    explained, p_values = variance_explained(values, condition)
    for unit in range(3):
        groups = [values[condition == c, unit] for c in range(4)]
        assert p_values[unit] == pytest.approx(stats.f_oneway(*groups).pvalue)
    assert explained[0] > 0.3
    assert abs(explained[1]) < 0.2


def test_the_paired_test_is_that_of_scipy(rng):
    change = rng.normal(0.2, 1, size=(30, 4))
    assert paired_p_values(change) == pytest.approx(stats.ttest_1samp(change, 0).pvalue)


def test_the_error_of_the_correlation_is_that_of_random_circular_shifts(rng):
    smooth = np.stack([np.convolve(rng.normal(size=220), np.ones(20))[19:219] for _ in range(4)])
    correlation, error = correlate_showings(smooth[:, :, None])
    pairs = [np.corrcoef(smooth[i], smooth[j])[0, 1] for i in range(4) for j in range(i)]
    assert correlation[0] == pytest.approx(np.mean(pairs))
    turned = [
        correlate_showings(np.stack([np.roll(s, rng.integers(200)) for s in smooth])[..., None])[0]
        for _ in range(4000)
    ]
    assert np.std(turned) == pytest.approx(error[0], rel=0.05)


def test_slow_noise_makes_few_units_respond_to_a_film(rng):
    noise = rng.normal(size=(3000, 300)).cumsum(axis=0)
    noise = (noise[20:] - noise[:-20]).astype(np.float32)  # 2 s of memory
    recording = recording_from_arrays(noise, recording_id="noise", sampling_rate=RATE)
    p_values = find_design(film()).p_values(BinnedActivity.of(recording), 0.0)
    assert (p_values < 0.05).mean() < 0.09
    assert count_responding(p_values) <= 3


def test_a_picture_has_a_panel_for_each_stimulus(seen, tmp_path):
    checks = [check(seen), check(listed(seen, lambda t: t + 2)), check(listed(seen, lambda t: -t))]
    figure = plot_clock(checks, tmp_path / "clock.png")
    assert (tmp_path / "clock.png").stat().st_size > 0
    assert len(figure.axes) == 3
    assert "WARNING" in figure.axes[1].get_title(loc="left")


def test_a_recording_without_units_or_stimuli_has_nothing_to_check(seen):
    assert check_clock(replace(seen, stimuli={})) == []
    assert check_clock(replace(seen, stimuli={"shown": seen.stimuli["shown"][:0]})) == []
