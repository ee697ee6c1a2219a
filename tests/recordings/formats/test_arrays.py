"""One's own arrays become a recording that says what is wrong with them."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.recordings.formats.arrays import read_npz, recording_from_arrays
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import SourceConfig, StimulusTable
from poyo_ssl.windows.tasks import DIRECTION, MOVIE, can_answer

DEFAULT = SourceConfig()
GRATINGS = pd.DataFrame(
    {"start": [4.0, 1.0], "end": [6.0, 3.0], "orientation": [90.0, 0.0], "contrast": [1, 2]}
)


@pytest.fixture
def traces(rng) -> np.ndarray:
    return rng.normal(size=(100, 5))


def make(df_over_f: np.ndarray, **options) -> Recording:
    if "timestamps" not in options:
        options.setdefault("sampling_rate", 10.0)
    return recording_from_arrays(df_over_f, recording_id="day3", **options)


def test_traces_and_a_rate_are_enough(traces):
    recording = make(traces)
    np.testing.assert_array_equal(recording.df_over_f, traces.astype(np.float32))
    np.testing.assert_allclose(recording.timestamps, np.arange(100) / 10)
    assert recording.unit_ids.tolist() == [f"day3/{i}" for i in range(5)]


def test_names_and_times_are_kept(traces):
    times = np.concatenate([np.arange(50), 100 + np.arange(50)]) / 10
    recording = make(traces, timestamps=times, unit_ids=np.array([3, 1, 4, 15, 9]))
    assert recording.unit_ids.tolist() == ["3", "1", "4", "15", "9"]
    assert len(recording.segments) == 2


@pytest.mark.parametrize("told", [{"timestamps": np.arange(100) / 10}, {"unit_ids": list("abcde")}])
def test_transposed_traces_are_turned_where_it_is_certain(traces, told, caplog):
    with caplog.at_level(logging.WARNING):
        turned = make(traces.T, **told)
    np.testing.assert_array_equal(turned.df_over_f, make(traces, **told).df_over_f)
    assert "transposed" in caplog.text


def test_more_units_than_timesteps_need_a_confirmation(traces):
    with pytest.raises(RecordingError, match=r"5 timesteps and 100 units.* transpose it"):
        make(traces.T)
    assert make(traces.T, timestamps=np.arange(5)).num_units == 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timestamps": np.arange(99)}, "100 timesteps but timestamps has shape"),
        ({"timestamps": np.arange(100)[::-1]}, "strictly increasing"),
        ({"timestamps": np.full(100, np.nan)}, "finite"),
        ({"timestamps": np.array(["1"] * 100)}, "seconds as numbers"),
        ({"timestamps": np.arange(100.0), "sampling_rate": 10.0}, "both are given"),
        ({"sampling_rate": None}, "neither is given"),
        ({"sampling_rate": 0.0}, "must be positive, got 0"),
        ({"sampling_rate": np.nan}, "must be positive, got nan"),
        ({"unit_ids": ["a"] * 5}, "unit ids must be unique"),
        ({"unit_ids": ["a", "b"]}, "5 units but the table of units has 2"),
        ({"templates": {"natural_movie_one": np.zeros((2, 3, 4))}}, "uint8 are needed"),
    ],
)
def test_what_does_not_fit_is_refused(traces, options, message):
    with pytest.raises(RecordingError, match=message):
        make(traces, **options)


@pytest.mark.parametrize("bad", [np.zeros(100), np.zeros((10, 2, 2)), np.array([["a", "b"]] * 9)])
def test_what_are_no_traces_is_refused(bad):
    with pytest.raises(RecordingError, match="num_timesteps, num_units"):
        make(bad)


def test_stimuli_are_checked_ordered_and_cut_to_the_traces(traces, caplog):
    late = pd.concat([GRATINGS, GRATINGS.assign(start=50.0, end=52.0).iloc[:1]])
    with caplog.at_level(logging.WARNING):
        table = make(traces, stimuli={"drifting_gratings": late}).stimulus("drifting_gratings")
    assert list(table) == ["start", "end", "orientation", "contrast"]
    assert table["orientation"].tolist() == [0.0, 90.0]
    assert "1 of 3 presentations" in caplog.text
    backwards = GRATINGS.assign(end=[3.0, 3.0])
    with pytest.raises(RecordingError, match=r"day3': drifting_gratings: row 0 "):
        make(traces, stimuli={"drifting_gratings": backwards})


def test_a_table_without_temporal_frequency_answers_the_direction_task(traces):
    assert can_answer(make(traces, stimuli={"drifting_gratings": GRATINGS}), DIRECTION)


def save(folder: Path, **arrays: np.ndarray | float) -> Path:
    path = folder / "day3.npz"
    np.savez(path, **arrays)
    return path


def test_an_npz_file_is_the_same_recording(tmp_path, traces):
    movie = {
        "start": np.arange(20) / 10,
        "end": np.arange(1, 21) / 10,
        "movie_frame": np.arange(20) % 10,
        "repeat": np.arange(20) // 10,
    }
    pictures = np.arange(120, dtype=np.uint8).reshape(10, 3, 4)
    path = save(
        tmp_path,
        df_over_f=traces,
        timestamps=np.arange(100) / 10,
        unit_ids=np.array(list("abcde")),
        **{f"stimuli/drifting_gratings/{name}": GRATINGS[name].to_numpy() for name in GRATINGS},
        **{f"stimuli/natural_movie_one/{name}": values for name, values in movie.items()},
        **{"templates/natural_movie_one": pictures},
    )
    found = read_npz(path, DEFAULT)
    expected = make(
        traces,
        timestamps=np.arange(100) / 10,
        unit_ids=list("abcde"),
        stimuli={"drifting_gratings": GRATINGS, "natural_movie_one": pd.DataFrame(movie)},
    )
    assert found.recording_id == "day3"
    assert found.source == str(path)
    np.testing.assert_array_equal(found.df_over_f, expected.df_over_f)
    np.testing.assert_array_equal(found.timestamps, expected.timestamps)
    pd.testing.assert_frame_equal(found.units, expected.units)
    assert found.stimuli.keys() == expected.stimuli.keys()
    for name, table in expected.stimuli.items():
        pd.testing.assert_frame_equal(found.stimuli[name], table)
    np.testing.assert_array_equal(found.templates["natural_movie_one"], pictures)
    assert can_answer(found, MOVIE)


def test_a_table_in_a_file_may_hold_text(tmp_path, traces):
    columns = {"start": [4.0, 1.0], "end": [6.0, 3.0], "clip": ["b.avi", "a.avi"], "cue": ["", "x"]}
    arrays = {f"stimuli/clips/{name}": np.array(values) for name, values in columns.items()}
    path = save(tmp_path, df_over_f=traces, sampling_rate=10.0, **arrays)
    table = read_npz(path, DEFAULT).stimulus("clips")
    assert table["clip"].tolist() == ["a.avi", "b.avi"]
    assert table["cue"].tolist() == ["x", None]
    assert table["clip"].dtype == table["cue"].dtype == object
    made = make(traces, stimuli={"clips": pd.DataFrame(columns)}).stimulus("clips")
    pd.testing.assert_frame_equal(made, table)


def test_text_in_the_place_of_an_angle_is_refused(traces):
    words = GRATINGS.assign(orientation=["up", "down"])
    with pytest.raises(RecordingError, match="'orientation' is no number in row 0"):
        make(traces, stimuli={"drifting_gratings": words})


def test_the_two_lines_of_the_documentation_work(tmp_path, monkeypatch, traces):
    monkeypatch.chdir(tmp_path)
    lines = (read_npz.__doc__ or "").split("::\n\n", 1)[1].splitlines()[:2]
    exec("\n".join(line.strip() for line in lines), {"df_over_f": traces, "np": np})
    recording = read_npz("day3.npz", DEFAULT)
    assert recording.sampling_rate == pytest.approx(30.0)
    assert recording.df_over_f.shape == traces.shape


def test_a_table_beside_the_file_takes_the_place_of_one_in_it(tmp_path, traces):
    broken = {"stimuli/drifting_gratings/start": np.array(["no time"])}
    path = save(tmp_path, df_over_f=traces, sampling_rate=10.0, **broken)
    (tmp_path / "g.csv").write_text("start_time,stop_time,orientation\n1,2,45\n")
    source = SourceConfig(stimuli={"drifting_gratings": StimulusTable(table="g.csv")})
    table = read_npz(path, source).stimulus("drifting_gratings")
    assert table["orientation"].tolist() == [45.0]
    with pytest.raises(RecordingError, match="drifting_gratings lacks end"):
        read_npz(path, DEFAULT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"df_over_f": None, "dff": np.zeros((9, 2))}, r"no df_over_f \(found: sampling_rate, dff"),
        ({"sampling_rate": None}, "neither is given"),
        ({"sampling_rate": np.array([1.0, 2.0])}, "one number of Hz"),
        ({"sampling_rate": np.array("30 Hz")}, "one number of Hz"),
        ({"stimuli/x/start": np.zeros(2), "stimuli/x/end": np.ones(3)}, "stimuli/x have shapes"),
        ({"stimuli/x/start": np.zeros((2, 2))}, "stimuli/x have shapes"),
        ({"stimuli/x/end": np.ones(2)}, "lacks start"),
    ],
)
def test_a_file_that_lacks_something_is_refused(tmp_path, traces, changes, message):
    arrays = {"df_over_f": traces, "sampling_rate": 10.0, **changes}
    path = save(tmp_path, **{name: a for name, a in arrays.items() if a is not None})
    with pytest.raises(RecordingError, match=message):
        read_npz(path, DEFAULT)


UNITS = {
    "cre_line": np.array(["Sst", "", "Sst", "Vip", "Vip"]),
    "area": np.array(["VISp"] * 5),
    "imaging_depth_um": np.array([175, 175, 175, 275, 275]),
    "snr": np.linspace(0, 1, 5),
    "layer": np.array(["2/3", "2/3", "4", "4", "5"]),
}


def test_units_and_facts_are_read_from_a_file(tmp_path, traces):
    path = save(
        tmp_path,
        df_over_f=traces,
        sampling_rate=10.0,
        unit_ids=np.arange(5),
        subject_id="m7",
        container_id=511,
        session_type="",
        **{f"units/{name}": values for name, values in UNITS.items()},
    )
    recording = read_npz(path, DEFAULT)
    assert list(recording.units) == ["unit_id", *UNITS]
    assert recording.unit_ids.tolist() == list("01234")
    assert recording.units["cre_line"].isna().tolist() == [False, True, False, False, False]
    assert recording.units["layer"].tolist() == ["2/3", "2/3", "4", "4", "5"]
    np.testing.assert_array_equal(recording.units["snr"], UNITS["snr"])
    facts = (recording.subject_id, recording.container_id, recording.session_type)
    assert facts == ("m7", "511", None)
    options = {"subject_id": "m7", "container_id": "511", "unit_ids": np.arange(5)}
    for units in (UNITS, pd.DataFrame(UNITS)):
        made = make(traces, units=units, **options)
        pd.testing.assert_frame_equal(made.units, recording.units)
        assert made.container_id == "511"


def test_one_value_counts_for_all_units_and_ids_may_be_a_column(traces):
    recording = make(traces.T, units={"unit_id": list("abcde"), "cre_line": "Sst"})
    assert recording.num_timesteps == 100  # five ids leave no doubt
    assert recording.unit_ids.tolist() == list("abcde")
    assert recording.units["cre_line"].tolist() == ["Sst"] * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": {"area": ["VISp"] * 4}}, "5 units but the table of units has 4"),
        ({"units": {"area": ["VISp"] * 4}, "unit_ids": list("abcde")}, r"shapes .*'area': \(4,\)"),
        ({"units": {"place": np.zeros((5, 2))}}, "one value per unit is needed"),
        ({"units": {"imaging_depth_um": ["deep"] * 5}}, "'imaging_depth_um' of units is no number"),
        ({"units": {"unit_id": list("abcde")}, "unit_ids": list("abcde")}, "either unit_ids or"),
    ],
)
def test_units_that_do_not_fit_are_refused(traces, options, message):
    with pytest.raises(RecordingError, match=message):
        make(traces, **options)


def test_time_series_are_read_by_name(tmp_path, traces):
    times = np.arange(4) / 2
    path = save(
        tmp_path,
        df_over_f=traces,
        sampling_rate=10.0,
        **{
            "series/lick/timestamps": times,
            "series/lick/values": np.arange(4),
            "series/wheel/timestamps": times,
            "series/wheel/values": np.arange(8.0).reshape(4, 2),
            "series/gaze/timestamps": times,
            "series/gaze/values": np.arange(8.0).reshape(4, 2),
            "series/gaze/columns": np.array(["x", "y"]),
        },
    )
    series = read_npz(path, DEFAULT).series
    assert {name: list(samples) for name, samples in series.items()} == {
        "lick": ["timestamp", "value"],
        "wheel": ["timestamp", "value_0", "value_1"],
        "gaze": ["timestamp", "x", "y"],
    }
    assert series["gaze"]["y"].tolist() == [1.0, 3.0, 5.0, 7.0]
    made = make(traces, series=series).series
    pd.testing.assert_frame_equal(made["wheel"], series["wheel"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timestamps": np.arange(3)}, "lick has timestamps; it needs timestamps"),
        ({"values": np.arange(3)}, "lick has values; it needs timestamps"),
        ({"timestamps": np.arange(3), "values": np.arange(4)}, r"shape \(3,\) and values of .*4"),
        (
            {"timestamps": np.arange(2), "values": np.ones((2, 2)), "columns": np.array(["x"])},
            "2 columns of values but these names: x",
        ),
        ({"timestamps": np.array([1.0, 0.5]), "values": np.ones(2)}, "row 1 is at 0.5 s after 1 s"),
        ({"timestamps": np.arange(2), "values": np.array(["a", "b"])}, "must hold numbers"),
    ],
)
def test_time_series_of_another_form_are_refused(tmp_path, traces, changes, message):
    arrays = {f"series/lick/{name}": values for name, values in changes.items()}
    path = save(tmp_path, df_over_f=traces, sampling_rate=10.0, **arrays)
    with pytest.raises(RecordingError, match=message):
        read_npz(path, DEFAULT)


def test_several_subjects_in_one_file_are_refused(tmp_path, traces):
    path = save(tmp_path, df_over_f=traces, sampling_rate=10.0, subject_id=np.array(["a", "b"]))
    with pytest.raises(RecordingError, match="one text is needed"):
        read_npz(path, DEFAULT)


def test_arrays_without_a_meaning_are_mentioned(tmp_path, traces, caplog):
    path = save(tmp_path, df_over_f=traces, sampling_rate=10.0, unit_id=np.arange(5))
    with caplog.at_level(logging.WARNING):
        read_npz(path, DEFAULT)
    assert "not read, for lack of a meaning: unit_id" in caplog.text


def test_areas_of_units_may_be_written_without_a_slash(tmp_path, traces, caplog):
    areas = ["V1", "V1", "AL", "AL", "LM"]
    path = save(tmp_path, df_over_f=traces, sampling_rate=10.0, unit_area=np.array(areas))
    with caplog.at_level(logging.WARNING):
        assert read_npz(path, DEFAULT).units["area"].tolist() == areas
    assert not caplog.text


def test_objects_in_a_file_are_refused(tmp_path, traces):
    path = save(tmp_path, df_over_f=traces, sampling_rate=10.0, unit_ids=np.array([None, {}]))
    with pytest.raises(RecordingError, match=r"unit_ids\.npy holds object"):
        read_npz(path, DEFAULT)


def test_an_array_larger_than_its_file_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2**38, 174)}
    )
    with zipfile.ZipFile(tmp_path / "day3.npz", "w") as archive:
        archive.writestr("df_over_f.npy", header.getvalue())
    with pytest.raises(RecordingError, match=r"df_over_f\.npy declares .* and holds 0"):
        read_npz(tmp_path / "day3.npz", DEFAULT)
