import gc
import json
import logging
import resource
import shutil
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from torch_brain.data import (
    ArrayDict,
    BrainsetDescription,
    Data,
    DeviceDescription,
    Interval,
    IrregularTimeSeries,
    RegularTimeSeries,
    SessionDescription,
    SubjectDescription,
)
from torch_brain.datasets import Dataset, DatasetIndex

from poyo_ssl.comparison.run import run
from poyo_ssl.recordings import storage
from poyo_ssl.recordings.formats.nwb import read_nwb
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.storage import open_recording, save_recording
from poyo_ssl.recordings.torch_brain_objects import NAMES_OF_DATA, NAMES_OF_TABLES
from tiny_runs import tiny_observatory, tiny_run_config

REAL_SESSION = (
    Path(__file__).resolve().parents[2]
    / "../shared/data/sub-527550471_ses-527745328-StimA_ophys.nwb"
)
RATE = 30.0


def allen_brainset() -> BrainsetDescription:
    return BrainsetDescription(
        id="allen_visual_coding_ophys_2016",
        origin_version="unknown",
        derived_version="1.0.0",
        source="https://observatory.brain-map.org/visualcoding/",
        description="Allen",
    )


def make_recording(
    rng: np.random.Generator, segments: tuple[int, ...] = (40, 30), num_units: int = 3, **changes
) -> Recording:
    """Segments of so many timesteps, 5 s apart, with every stimulus and field."""
    starts = np.cumsum([0, *segments[:-1]]) / RATE + 5.0 * np.arange(len(segments)) + 10.0
    timestamps = np.concatenate(
        [start + np.arange(n) / RATE for start, n in zip(starts, segments, strict=True)]
    )
    onsets = 10.0 + np.arange(6) * 0.2
    gratings = pd.DataFrame(
        {
            "start": onsets,
            "end": onsets + 0.1,
            "orientation": [0.0, 45.0, np.nan, 90.0, 0.0, np.nan],
            "temporal_frequency": [1.0, 2.0, np.nan, 4.0, 8.0, np.nan],
            "spatial_frequency": [0.04, 0.04, np.nan, 0.04, 0.04, np.nan],
        }
    )
    movie = pd.DataFrame(
        {
            "start": onsets,
            "end": onsets + 0.2,
            "movie_frame": [0, 1, 2, 0, 1, 2],
            "repeat": [0, 0, 0, 1, 1, 1],
        }
    )
    scenes = pd.DataFrame({"start": onsets, "end": onsets + 0.1, "image": [3, -1, 0, 1, -1, 2]})
    fields = {
        "recording_id": "527-StimA",
        "df_over_f": rng.normal(size=(len(timestamps), num_units)).astype(np.float32),
        "timestamps": timestamps,
        "units": pd.DataFrame(
            {
                "unit_id": [f"99/{unit}" for unit in range(num_units)],
                "cre_line": "Sst-IRES-Cre",
                "area": "VISp",
                "imaging_depth_um": 275.0,
            }
        ),
        "stimuli": {
            "drifting_gratings": gratings,
            "natural_movie_one": movie,
            "natural_scenes": scenes,
            "spontaneous": pd.DataFrame({"start": [10.2], "end": [11.0]}),
        },
        "templates": {
            "natural_movie_one": rng.integers(0, 256, (3, 4, 5), dtype=np.uint8),
            "natural_scenes": rng.integers(0, 256, (4, 2, 3), dtype=np.uint8),
        },
        "running": pd.DataFrame(
            {"timestamp": timestamps, "speed": rng.normal(size=len(timestamps))}
        ),
        "pupil": pd.DataFrame(
            {"timestamp": onsets, "x": onsets, "y": -onsets, "size": [np.nan, 1, 2, 3, 4, 5]}
        ),
        "series": {
            "lick_rate": pd.DataFrame({"timestamp": onsets, "value": np.arange(6)}),
            "wheel": pd.DataFrame({"timestamp": onsets, "x position": onsets, "value_1": np.nan}),
        },
        "subject_id": "222",
        "container_id": "99",
        "session_type": "three_session_A",
        "source": "a/file.nwb",
    }
    return Recording(**(fields | changes))


def assert_same_recording(one: Recording, two: Recording) -> None:
    for name in ("recording_id", "subject_id", "container_id", "session_type", "source"):
        assert getattr(one, name) == getattr(two, name)
    for name in ("df_over_f", "timestamps"):
        assert getattr(one, name).dtype == getattr(two, name).dtype
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert_frame_equal(one.units, two.units)
    assert set(one.stimuli) == set(two.stimuli)
    for name, table in one.stimuli.items():
        assert_frame_equal(table, two.stimuli[name])
    assert set(one.templates) == set(two.templates)
    for name, pictures in one.templates.items():
        assert pictures.dtype == two.templates[name].dtype
        np.testing.assert_array_equal(pictures, two.templates[name])
    assert set(one.series) == set(two.series)
    for name, samples in one.series.items():
        assert_frame_equal(samples, two.series[name])
    for name in ("running", "pupil"):
        if getattr(one, name) is None:
            assert getattr(two, name) is None
        else:
            assert_frame_equal(getattr(one, name), getattr(two, name))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def recording(rng):
    return make_recording(rng)


def test_a_recording_comes_back_exactly_as_it_was_saved(recording, tmp_path):
    path = save_recording(recording, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "527-StimA.h5"
    assert_same_recording(open_recording(path), recording)


def test_a_recording_with_nothing_optional_comes_back_exactly(rng, tmp_path):
    bare = make_recording(
        rng,
        stimuli={},
        templates={},
        running=None,
        pupil=None,
        subject_id=None,
        container_id=None,
        session_type=None,
        source=None,
        units=pd.DataFrame({"unit_id": ["a", "b", "c"], "cre_line": [None, None, None]}),
    )
    assert_same_recording(open_recording(save_recording(bare, tmp_path)), bare)


def test_units_of_several_lines_unknown_lines_and_other_alphabets_come_back(rng, tmp_path):
    units = pd.DataFrame(
        {
            "unit_id": ["Zürich/1", "Zürich/2", "東京/3"],
            "cre_line": ["Sst-IRES-Cre", None, "Cux2-CreERT2"],
            "imaging_depth_um": [175.0, np.nan, 275.5],
            "is_labelled": [True, False, True],
        }
    )
    recording = make_recording(rng, units=units)
    assert_same_recording(open_recording(save_recording(recording, tmp_path)), recording)


TEXT = pd.Series(["left", None, "", "ünder", "a" * 300, "x y"], dtype=object)


def test_columns_of_text_come_back_and_nothing_is_pickled(recording, tmp_path):
    table = recording.stimuli["drifting_gratings"].assign(
        choice=TEXT.where(TEXT != "", None),
        mood=pd.Series(["good", "bad"] * 3),
        never=pd.Series([None] * 6, dtype=object),
    )
    recording = replace(recording, stimuli={"drifting_gratings": table})
    path = save_recording(recording, tmp_path)
    assert_same_recording(open_recording(path), recording)
    with h5py.File(path) as file:
        stored = file["drifting_gratings/choice"]
        assert tuple(h5py.check_string_dtype(stored.dtype)) == ("utf-8", None)
    with Data.load(path) as data:
        assert data.drifting_gratings.mood.tolist() == ["good", "bad"] * 3


@pytest.mark.parametrize("name", ["trial number", "slice", "timestamps", "frame", "class", "id"])
def test_columns_of_any_name_come_back(rng, tmp_path, name):
    movie = make_recording(rng).stimuli["natural_movie_one"].assign(**{name: [9, 8, 7, 6, 5, 4]})
    units = pd.DataFrame({"unit_id": ["a", "b", "c"], name: ["x", "y", "z"]})
    recording = make_recording(rng, stimuli={"natural_movie_one": movie}, units=units, templates={})
    assert_same_recording(open_recording(save_recording(recording, tmp_path)), recording)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_hdf5_cannot_hold_is_refused(rng, tmp_path, text):
    units = pd.DataFrame({"unit_id": ["a", "b", "c"], "note": pd.Series([text] * 3, dtype=object)})
    with pytest.raises(RecordingError, match="column 'note' of units"):
        save_recording(make_recording(rng, units=units), tmp_path)


def test_torch_brain_slices_time_series_of_any_name(recording, tmp_path):
    with Data.load(save_recording(recording, tmp_path)) as data:
        part = data.slice(10.1, 10.5, reset_origin=False)
        np.testing.assert_allclose(part.series.lick_rate.timestamps, [10.2, 10.4])
        assert part.series.lick_rate.value.tolist() == [1, 2]


def test_nan_and_infinity_in_a_trace_come_back(recording, tmp_path):
    recording.df_over_f[3, 1], recording.df_over_f[4, 0] = np.nan, np.inf
    reopened = open_recording(save_recording(recording, tmp_path))
    np.testing.assert_array_equal(reopened.df_over_f, recording.df_over_f)


def test_rows_out_of_order_come_back_in_their_order_and_torch_brain_gets_them_sorted(
    recording, tmp_path
):
    shuffled = (
        recording.stimuli["drifting_gratings"].iloc[[3, 0, 5, 1, 2, 4]].reset_index(drop=True)
    )
    recording = replace(recording, stimuli={"drifting_gratings": shuffled})
    path = save_recording(recording, tmp_path)
    assert_same_recording(open_recording(path), recording)
    with Data.load(path) as data:
        assert data.drifting_gratings.start.tolist() == sorted(shuffled["start"])


@st.composite
def recordings(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = draw(st.lists(st.integers(2, 15), min_size=1, max_size=4))
    gaps = draw(st.lists(st.floats(1.6, 40.0), min_size=len(lengths), max_size=len(lengths)))
    jitter = draw(st.sampled_from([0.0, 1e-4, 0.1]))
    steps = np.ones(sum(lengths))
    steps[np.cumsum(lengths)[:-1]] = gaps[1:]
    steps += jitter * rng.uniform(-1, 1, len(steps))
    num_units = draw(st.integers(1, 4))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    num_rows = draw(st.integers(0, 5))
    starts = np.sort(rng.uniform(0, 5, num_rows))
    table = pd.DataFrame(
        {
            "start": starts,
            "end": starts + 0.5,
            "label": rng.choice(["left", "right"], num_rows),
            "contrast": rng.choice([0.1, np.nan], num_rows),
            "count": rng.integers(0, 9, num_rows),
        }
    )
    return Recording(
        recording_id="random",
        df_over_f=rng.normal(size=(len(steps), num_units)).astype(dtype),
        timestamps=draw(st.floats(-10, 1e4)) + np.cumsum(steps) / draw(st.floats(1.0, 200.0)),
        units=pd.DataFrame({"unit_id": [f"u{unit}" for unit in range(num_units)]}),
        stimuli={"bars": table} if num_rows else {},
    )


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(recording=recordings())
def test_any_recording_comes_back_exactly_whatever_its_gaps(recording, tmp_path):
    path = save_recording(recording, tmp_path)
    reopened = open_recording(path)
    assert_same_recording(reopened, recording)
    np.testing.assert_array_equal(reopened.segments, recording.segments)
    with Data.load(path) as data:
        traces = data.calcium_traces
        assert len(traces.domain) == len(recording.segments)
        np.testing.assert_array_equal(traces.to_irregular().df_over_f, recording.df_over_f)


def test_torch_brain_opens_the_folder_and_slices_the_same_window(recording, tmp_path):
    save_recording(recording, tmp_path)
    dataset = Dataset(tmp_path)
    assert dataset.recording_ids == ["527-StimA"]
    sample = dataset[DatasetIndex("527-StimA", 10.3, 10.9)]
    inside = recording.is_inside(np.array([[10.3, 10.9]]))
    np.testing.assert_array_equal(sample.calcium_traces.df_over_f, recording.df_over_f[inside])
    assert sample.rois.id.astype(str).tolist() == recording.unit_ids.tolist()
    assert sample.natural_movie_one.frame.tolist() == [1, 2, 0, 1]
    assert sample.natural_movie_one.repeat.tolist() == [0, 0, 1, 1]
    assert sample.natural_scenes.frame.tolist() == [1, 2, 0]  # 0: blank
    np.testing.assert_allclose(sample.drifting_gratings.start, [0.1, 0.3, 0.5])
    np.testing.assert_allclose(sample.drifting_gratings.timestamps, [0.15, 0.35, 0.55])
    np.testing.assert_array_equal(sample.drifting_gratings.orientation, [np.nan, 90.0, 0.0])
    assert sample.session.id == "527-StimA"
    assert sample.subject.cre_line == "Sst_IRES_Cre"
    assert len(sample.running.timestamps) == inside.sum()


def test_no_name_is_taken_that_torch_brain_needs():
    def names(*kinds):
        return {name for kind in kinds for name in dir(kind) if not name.startswith("_")}

    assert names(Data) <= NAMES_OF_DATA
    assert names(ArrayDict, Interval, IrregularTimeSeries) <= NAMES_OF_TABLES


def test_torch_brain_knows_the_gaps(recording, tmp_path):
    save_recording(recording, tmp_path)
    intervals = Dataset(tmp_path).get_sampling_intervals()["527-StimA"]
    np.testing.assert_allclose(
        np.stack([intervals.start, intervals.end], axis=1), recording.segment_intervals, atol=1e-9
    )


def test_torch_brain_is_told_where_the_pictures_lie(recording, tmp_path):
    save_recording(recording, tmp_path)
    sample = Dataset(tmp_path)[DatasetIndex("527-StimA", 10.0, 11.0)]
    name = json.loads(sample.poyo_ssl.templates)["natural_scenes"]
    np.testing.assert_array_equal(
        np.load(tmp_path / "templates" / name), recording.templates["natural_scenes"]
    )


def test_a_clock_that_drifts_is_stored_exactly_with_a_warning(rng, tmp_path, caplog):
    timestamps = np.cumsum(np.linspace(1.0, 1.4, 70)) / RATE
    recording = make_recording(rng, timestamps=timestamps)
    with caplog.at_level(logging.WARNING):
        path = save_recording(recording, tmp_path)
    assert "leave torch-brain's regular grid by up to" in caplog.text
    assert_same_recording(open_recording(path), recording)


@pytest.mark.parametrize(
    "recording_id",
    [
        "../../../up",
        "a/b",
        "a\\b",
        ".hidden",
        "a:b",
        "end.",
        "x" * 300,
        "Con",
        "M1/2024-01-05",
        "é",
    ],
)
def test_an_id_that_no_file_can_be_called_is_stored_in_the_directory_and_comes_back(
    rng, tmp_path, recording_id
):
    recording = make_recording(rng, recording_id=recording_id)
    path = save_recording(recording, tmp_path / "folder")
    assert path.parent == tmp_path / "folder"
    assert list(tmp_path.rglob("*.h5")) == [path]
    assert path.name.isascii()
    assert_same_recording(open_recording(path), recording)


@pytest.mark.parametrize("recording_id", ["nul\0", "half\ud800"])
def test_an_id_that_hdf5_cannot_hold_is_refused(rng, tmp_path, recording_id):
    recording = make_recording(rng, recording_id=recording_id)
    with pytest.raises(RecordingError, match="its id must be text"):
        save_recording(recording, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_all_that_cannot_be_stored_is_reported_at_once(rng, tmp_path):
    spans = {"start": [10.0, 10.1], "end": [12.0, 11.0]}
    recording = make_recording(
        rng,
        stimuli={
            "running": pd.DataFrame({"start": [10.0], "end": [11.0]}),
            "nested": pd.DataFrame(spans),
            "columns": pd.DataFrame({"start": [1.0], "end": [2.0], "pair": [(1, 2)], 3: [1]}),
        },
        series={"a b": pd.DataFrame({"timestamp": [1.0], "value": [2.0]})},
        pupil=pd.DataFrame({"timestamp": [2.0, 1.0], "x": 0.0, "y": 0.0, "size": 0.0}),
    )
    with pytest.raises(RecordingError) as caught:
        save_recording(recording, tmp_path)
    for problem in (
        "'running' cannot name a stimulus",
        "'nested' lies inside another one",
        "'3' cannot name a column of columns",
        "'a b' cannot name a series",
        "column 'pair' of columns must hold numbers or text",
        "timestamps of pupil must be finite and sorted",
    ):
        assert problem in str(caught.value)


def test_a_recording_that_is_nearly_all_gap_is_refused(rng, tmp_path):
    timestamps = np.concatenate([np.arange(40) / RATE, 86_400 + np.arange(30) / RATE])
    with pytest.raises(RecordingError, match="gaps are 37029 times as long"):
        save_recording(make_recording(rng, timestamps=timestamps), tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_other(recording, tmp_path, monkeypatch):
    path = save_recording(recording, tmp_path)
    before = path.read_bytes()

    def fail(recording, templates, file):
        file["half"] = np.zeros(1000)
        raise OSError("No space left on device")

    monkeypatch.setattr(storage, "write_torch_brain", fail)
    with pytest.raises(OSError, match="No space left"):
        save_recording(replace(recording, subject_id="other"), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, "templates"]
    assert path.read_bytes() == before


def test_saving_again_replaces_the_file(recording, tmp_path):
    save_recording(recording, tmp_path)
    changed = replace(recording, subject_id="other")
    assert open_recording(save_recording(changed, tmp_path)).subject_id == "other"


def test_a_file_of_brainsets_is_read(rng, tmp_path):
    path, df_over_f = _write_like_brainsets(tmp_path, rng)
    recording = open_recording(path)
    np.testing.assert_array_equal(recording.df_over_f, df_over_f)
    np.testing.assert_allclose(recording.timestamps, 8.0 + np.arange(90) / RATE)
    assert recording.recording_id == "501794235"
    assert recording.container_id == "511510753"
    assert recording.subject_id is None
    assert recording.unit_ids.tolist() == ["11", "12"]
    assert recording.units["cre_line"].tolist() == ["Ntsr1-Cre_GN220"] * 2
    assert recording.units["area"].tolist() == ["VISp"] * 2
    assert recording.units["imaging_depth_um"].tolist() == [350.0] * 2
    assert recording.source == str(path)
    assert set(recording.stimuli) == {"drifting_gratings", "natural_scenes", "spontaneous"}
    assert set(recording.stimulus("drifting_gratings")) == {
        "start", "end", "orientation", "temporal_frequency",
    }  # fmt: skip
    assert recording.stimulus("natural_scenes")["image"].tolist() == [-1, 4]
    assert recording.stimulus("spontaneous").to_numpy().tolist() == [[8.5, 9.0]]
    assert recording.running["speed"].tolist() == [0.0, 1.0, 2.0]
    assert recording.pupil["y"].tolist() == [1.0, 3.0, 5.0]


def test_a_brainsets_file_can_be_saved_as_ours(rng, tmp_path):
    path, _ = _write_like_brainsets(tmp_path, rng)
    recording = open_recording(path)
    assert_same_recording(open_recording(save_recording(recording, tmp_path / "ours")), recording)


def _write_like_brainsets(folder: Path, rng: np.random.Generator) -> tuple[Path, np.ndarray]:
    """What torch-brain's pipeline for the Allen data writes, reduced."""
    df_over_f = rng.normal(size=(90, 2)).astype(np.float32)
    traces = RegularTimeSeries(df_over_f=df_over_f, sampling_rate=RATE, domain_start=8.0)
    gratings = Interval(
        start=np.array([8.2, 9.2]),
        end=np.array([8.7, 9.7]),
        temporal_frequency=np.array([1.0, 15.0]),
        orientation=np.array([45.0, 90.0]),
    )
    gratings.timestamps = np.array([8.45, 9.45])
    gratings.register_timekey("timestamps")
    gratings.orientation_id = np.array([1, 2])
    times = np.array([8.0, 8.5, 9.0])
    data = Data(
        brainset=allen_brainset(),
        subject=SubjectDescription(id="511510753", cre_line="Ntsr1_Cre_GN220"),
        session=SessionDescription(id="501794235"),
        device=DeviceDescription(id="501794235", imaging_depth=350, target_area="VISp"),
        calcium_traces=traces,
        rois=ArrayDict(id=np.array([11, 12]).astype(str), imaging_plane_xy=np.zeros((2, 2))),
        drifting_gratings=gratings,
        natural_scenes=Interval(
            start=np.array([10.0, 10.2]), end=np.array([10.2, 10.4]), frame=np.array([0, 5])
        ),
        running=IrregularTimeSeries(
            timestamps=times, running_speed=np.arange(3, dtype=np.float32).reshape(-1, 1)
        ),
        pupil=IrregularTimeSeries(
            timestamps=times,
            location=np.arange(6, dtype=np.float32).reshape(3, 2),
            size=np.ones(3, dtype=np.float32),
        ),
        domain=traces.domain,
        spontaneous_domain=Interval(8.5, 9.0),
        drifting_gratings_domain=Interval(8.2, 9.7),
        train_domain=Interval(8.0, 9.0),
    )
    path = folder / "501794235.h5"
    data.save(path)
    return path, df_over_f


def test_gaps_of_a_file_without_exact_times_come_from_its_domain(recording, tmp_path):
    path = save_recording(recording, tmp_path)
    with h5py.File(path, "r+") as file:
        del file["calcium_traces/recorded_at"], file["poyo_ssl"]
    reopened = open_recording(path)
    np.testing.assert_array_equal(reopened.df_over_f, recording.df_over_f)
    np.testing.assert_allclose(reopened.timestamps, recording.timestamps, atol=1e-9)
    assert reopened.subject_id == "222"


def test_a_torch_brain_file_without_calcium_traces_is_refused_with_its_fields(tmp_path):
    spikes = IrregularTimeSeries(timestamps=np.arange(3.0), unit_index=np.zeros(3, dtype=int))
    Data(spikes=spikes, domain=spikes.domain).save(tmp_path / "spikes.h5")
    with pytest.raises(RecordingError, match=r"no calcium_traces .*found at its root: .*spikes"):
        open_recording(tmp_path / "spikes.h5")


def test_a_file_of_a_later_version_asks_for_an_upgrade(recording, tmp_path):
    path = save_recording(recording, tmp_path)
    with h5py.File(path, "r+") as file:
        file["poyo_ssl"].attrs["format"] = 99
    with pytest.raises(RecordingError, match=r"has format 99.*Upgrade poyo-ssl"):
        open_recording(path)


def test_a_file_that_takes_data_from_another_is_refused(recording, tmp_path):
    path = save_recording(recording, tmp_path)
    shutil.copy(path, tmp_path / "other.h5")
    with h5py.File(path, "r+") as file:
        del file["calcium_traces/df_over_f"]
        file["calcium_traces/df_over_f"] = h5py.ExternalLink("other.h5", "/rois/id")
    with pytest.raises(RecordingError, match="takes data from other files"):
        open_recording(path)


def test_a_damaged_file_is_reported_with_its_name(recording, tmp_path):
    path = save_recording(recording, tmp_path)
    with h5py.File(path, "r+") as file:
        del file["rois/id"]
    with pytest.raises(RecordingError, match=r"527-StimA\.h5.*it lacks 'id'"):
        open_recording(path)


def test_pictures_are_stored_once_for_all_recordings_of_a_folder(recording, tmp_path):
    for recording_id in ("one", "two"):
        save_recording(replace(recording, recording_id=recording_id), tmp_path)
    assert len(list((tmp_path / "templates").iterdir())) == len(recording.templates) == 2
    one, two = (open_recording(tmp_path / f"{name}.h5") for name in ("one", "two"))
    for name, pictures in recording.templates.items():
        assert one.templates[name] is two.templates[name]
        np.testing.assert_array_equal(one.templates[name], pictures)


def test_other_pictures_of_the_same_stimulus_are_kept_apart(recording, tmp_path):
    inverted = {name: 255 - pictures for name, pictures in recording.templates.items()}
    other = replace(recording, recording_id="other", templates=inverted)
    for each in (recording, other):
        save_recording(each, tmp_path)
    for each in (recording, other):
        assert_same_recording(open_recording(tmp_path / f"{each.recording_id}.h5"), each)


@pytest.mark.parametrize(
    "pictures",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4)[:, ::-1],
        np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4)),
        np.zeros((1, 1, 1), dtype=">u2"),
    ],
)
def test_pictures_come_back_whatever_their_order_in_memory(rng, tmp_path, pictures):
    recording = make_recording(rng, templates={"natural_scenes": pictures})
    reopened = open_recording(save_recording(recording, tmp_path)).templates["natural_scenes"]
    assert reopened.dtype == pictures.dtype
    np.testing.assert_array_equal(reopened, pictures)


def test_many_writers_of_the_same_pictures_leave_one_complete_file(recording, tmp_path):
    def save(number: int) -> Path:
        return save_recording(replace(recording, recording_id=f"r{number}"), tmp_path)

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(save, range(16)))
    assert len(list((tmp_path / "templates").iterdir())) == 2
    for path in paths:
        assert set(open_recording(path).templates) == set(recording.templates)


def test_a_recording_without_its_pictures_opens_and_says_what_to_copy(recording, tmp_path, caplog):
    path = save_recording(recording, tmp_path / "first")
    alone = Path(shutil.copy(path, tmp_path))
    with caplog.at_level(logging.WARNING):
        reopened = open_recording(alone)
    assert_same_recording(reopened, replace(recording, templates={}))
    for file in (tmp_path / "first" / "templates").iterdir():
        assert f"Copy 'templates/{file.name}' from the folder" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: content[:8] + b"\xff" * 40 + content[48:],
    ],
)
def test_damaged_pictures_are_left_out_with_a_warning(recording, tmp_path, caplog, damage):
    path = save_recording(recording, tmp_path)
    [pictures] = (tmp_path / "templates").glob("natural_movie_one-*")
    pictures.write_bytes(damage(pictures.read_bytes()))
    with caplog.at_level(logging.WARNING):
        reopened = open_recording(path)
    assert set(reopened.templates) == {"natural_scenes"}
    assert "is damaged" in caplog.text


@pytest.mark.parametrize(
    "name", ["../secret.npy", "/etc/passwd", "a" * 8 + "/../../x-" + "0" * 32 + ".npy", "", "x.npy"]
)
def test_a_name_that_leads_out_of_the_folder_of_pictures_is_refused(recording, tmp_path, name):
    path = save_recording(recording, tmp_path)
    with h5py.File(path, "r+") as file:
        file["poyo_ssl"].attrs["templates"] = json.dumps({"natural_movie_one": name})
    with pytest.raises(RecordingError, match="no name that poyo-ssl gives"):
        open_recording(path)


@pytest.mark.parametrize("attribute", ["templates", "columns"])
@pytest.mark.parametrize("value", ["{", "3", "[1]", '{"natural_movie_one": 3}'])
def test_metadata_of_another_shape_are_a_damaged_file(recording, tmp_path, attribute, value):
    path = save_recording(recording, tmp_path)
    with h5py.File(path, "r+") as file:
        file["poyo_ssl"].attrs[attribute] = value
    with pytest.raises(RecordingError, match=r"527-StimA\.h5"):
        open_recording(path)


def test_pictures_that_hold_objects_are_not_unpickled(recording, tmp_path, caplog):
    path = save_recording(recording, tmp_path)
    [pictures] = (tmp_path / "templates").glob("natural_movie_one-*")
    np.save(pictures, np.array([{"any": "object"}]), allow_pickle=True)
    with caplog.at_level(logging.WARNING):
        assert "natural_movie_one" not in open_recording(path).templates


def test_pictures_need_a_plain_name(rng, tmp_path):
    recording = make_recording(rng, templates={"../movie": np.zeros((1, 2, 2), np.uint8)})
    with pytest.raises(RecordingError, match="cannot name the pictures of a stimulus"):
        save_recording(recording, tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_file_of_format_1_has_its_pictures_inside(recording, tmp_path):
    path = save_recording(recording, tmp_path)
    shutil.rmtree(tmp_path / "templates")
    with h5py.File(path, "r+") as file:
        file["poyo_ssl"].attrs["format"] = 1
        del file["poyo_ssl"].attrs["templates"]
        for name, pictures in recording.templates.items():
            file[f"templates/{name}/pictures"] = pictures
    assert_same_recording(open_recording(path), recording)


@pytest.fixture
def large_recording(rng):
    """24 MB of traces without a gap and 12 MB of pictures."""
    return make_recording(
        rng,
        segments=(60_000,),
        num_units=100,
        templates={"natural_movie_one": rng.integers(0, 256, (40, 500, 600), dtype=np.uint8)},
    )


def test_opening_takes_no_memory_for_traces_and_pictures(large_recording, tmp_path):
    path = save_recording(large_recording, tmp_path)
    open_recording(path)  # so that what is imported on the way is not counted
    tracemalloc.start()
    recording = open_recording(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < large_recording.df_over_f.nbytes / 6
    assert_same_recording(recording, large_recording)


def test_mapped_values_cannot_be_changed(rng, tmp_path):
    recording = open_recording(save_recording(make_recording(rng, segments=(40,)), tmp_path))
    assert type(recording.df_over_f) is np.ndarray
    for values in (recording.df_over_f, recording.templates["natural_scenes"]):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 0


def test_an_open_recording_stays_as_it_was_when_its_file_is_replaced(rng, tmp_path):
    first = make_recording(rng, segments=(4000,))
    reopened = open_recording(save_recording(first, tmp_path))
    second = make_recording(rng, segments=(3000,))
    assert_same_recording(open_recording(save_recording(second, tmp_path)), second)
    assert_same_recording(reopened, first)


def test_too_many_open_recordings_say_so(rng, tmp_path):
    path = save_recording(make_recording(rng, segments=(40,)), tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        with pytest.raises(RecordingError, match=r"no more files open.*ulimit -n"):
            kept.extend(open_recording(path) for _ in range(101))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "storage", [{"chunks": (10, 2)}, {"compression": "gzip"}, {"dtype": ">f4"}, {"dtype": "<f2"}]
)
def test_traces_stored_otherwise_have_the_same_values(rng, tmp_path, storage):
    recording = make_recording(rng, segments=(40,))
    recording = replace(recording, df_over_f=np.round(recording.df_over_f))
    path = save_recording(recording, tmp_path)
    with h5py.File(path, "r+") as file:
        attributes = dict(file["calcium_traces/df_over_f"].attrs)
        del file["calcium_traces/df_over_f"]
        stored = file["calcium_traces"].create_dataset(
            "df_over_f", data=recording.df_over_f, **storage
        )
        stored.attrs.update(attributes)
    np.testing.assert_array_equal(open_recording(path).df_over_f, recording.df_over_f)


def test_traces_behind_a_user_block_have_the_same_values(rng, tmp_path):
    recording = make_recording(rng, segments=(40,))
    path = save_recording(recording, tmp_path)
    shifted = tmp_path / "shifted.h5"
    with h5py.File(path) as source, h5py.File(shifted, "w", userblock_size=512) as file:
        file.attrs.update(source.attrs)
        for name in source:
            source.copy(name, file)
    np.testing.assert_array_equal(open_recording(shifted).df_over_f, recording.df_over_f)


def test_the_whole_method_runs_on_mapped_recordings_of_brainsets(tmp_path):
    recordings = [
        open_recording(_store_like_brainsets(recording, number, tmp_path / "data"))
        for number, recording in enumerate(tiny_observatory())
    ]
    assert not any(recording.df_over_f.flags.writeable for recording in recordings)
    page = run(recordings, tmp_path / "run", tiny_run_config(num_seeds=1))
    scores = pd.read_csv(tmp_path / "run" / "scores.csv", dtype={"recording_id": str})
    assert page.is_file()
    assert set(scores["recording_id"]) == {"0", "1"}


def _store_like_brainsets(recording: Recording, number: int, folder: Path) -> Path:
    """The first gratings of a recording, as brainsets writes a session."""
    first, stop = recording.segments[np.argmax(np.diff(recording.segments)[:, 0])]
    times = recording.timestamps[first:stop]
    gratings = recording.stimulus("drifting_gratings").dropna()
    gratings = gratings[(gratings["start"] >= times[0]) & (gratings["end"] < times[-1])]
    traces = RegularTimeSeries(
        df_over_f=recording.df_over_f[first:stop],
        sampling_rate=recording.sampling_rate,
        domain_start=times[0],
    )
    data = Data(
        brainset=allen_brainset(),
        subject=SubjectDescription(id="511510753", cre_line="Sst_IRES_Cre"),
        session=SessionDescription(id=str(number)),
        device=DeviceDescription(id=str(number), imaging_depth=350, target_area="VISp"),
        calcium_traces=traces,
        rois=ArrayDict(id=np.array([f"{number}{unit}" for unit in range(recording.num_units)])),
        drifting_gratings=Interval(
            **{name: gratings[name].to_numpy() for name in gratings},
        ),
        domain=traces.domain,
    )
    folder.mkdir(exist_ok=True)
    data.save(folder / f"{number}.h5")
    return folder / f"{number}.h5"


@pytest.mark.skipif(
    not REAL_SESSION.is_file(), reason="the real Allen session is not in ../shared/data"
)
def test_a_real_session_comes_back_exactly(tmp_path):
    recording = read_nwb(REAL_SESSION)
    assert_same_recording(open_recording(save_recording(recording, tmp_path)), recording)


def test_a_file_of_pictures_is_closed_with_the_last_recording_that_shows_them(tmp_path):
    save_recording(tiny_observatory()[0], tmp_path)
    recording = open_recording(next(tmp_path.glob("*.h5")))
    assert any(tmp_path in path.parents for path, *_ in storage._OPEN_PICTURES)
    del recording
    gc.collect()
    assert not any(tmp_path in path.parents for path, *_ in storage._OPEN_PICTURES)
