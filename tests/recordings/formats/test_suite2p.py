"""A folder of suite2p becomes a recording: the right cells, the right way round, at the right time.

The alignment of the real plane with its stimulus log is inferred, so its scores are no reference.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from poyo_ssl.evaluation.evaluate import evaluate_recording
from poyo_ssl.finetuning.config import FinetuningConfig
from poyo_ssl.finetuning.setting import Setting
from poyo_ssl.model.encoder import EncoderConfig
from poyo_ssl.recordings.formats.suite2p import read_suite2p
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.sources import (
    FluorescenceConfig,
    SourceConfig,
    StimulusTable,
    Suite2pConfig,
)
from poyo_ssl.windows.divide import divide
from poyo_ssl.windows.population import Population
from poyo_ssl.windows.splits import SplitConfig
from poyo_ssl.windows.task_windows import find_windows
from poyo_ssl.windows.tasks import DIRECTION
from tiny_fits import fit_arm

DATA = Path(__file__).resolve().parents[3] / "../shared/data/suite2p_gratings"
AT_10_HZ = SourceConfig(
    suite2p=Suite2pConfig(sampling_rate=10.0), fluorescence=FluorescenceConfig(baseline_window=5.0)
)


def make_plane(folder: Path, num_rois: int = 6, num_timesteps: int = 200) -> Path:
    """ROIs 1 and 4 are no cells; ROI k shines at 100 (k + 1) with neuropil of half of it."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    level = 100.0 * np.arange(1, num_rois + 1)[:, None]
    activity = rng.exponential(0.5, size=(num_rois, num_timesteps))
    np.save(folder / "F.npy", (level * (1 + activity)).astype(np.float32))
    np.save(folder / "Fneu.npy", np.full((num_rois, num_timesteps), level / 2, np.float32))
    is_cell = np.ones(num_rois)
    is_cell[[1, 4]] = 0
    np.save(folder / "iscell.npy", np.stack([is_cell, is_cell * 0.9], axis=1))
    np.save(folder / "stat.npy", np.array([{"med": [1, 2]}] * num_rois), allow_pickle=True)
    np.save(folder / "ops.npy", {"fs": 10.0, "meanImg": np.zeros((3, 3))}, allow_pickle=True)
    return folder


@pytest.fixture
def plane(tmp_path) -> Path:
    return make_plane(tmp_path / "day3" / "suite2p" / "plane0")


def change(source: SourceConfig, **options) -> SourceConfig:
    return replace(source, suite2p=replace(source.suite2p, **options))


def edit(path: Path, change) -> None:
    np.save(path, change(np.load(path)))


def test_cells_are_read_with_their_rows_as_names(plane):
    recording = read_suite2p(plane, AT_10_HZ)
    assert recording.recording_id == "day3"
    assert recording.unit_ids.tolist() == ["day3/0", "day3/2", "day3/3", "day3/5"]
    assert recording.df_over_f.shape == (200, 4)
    assert recording.df_over_f.dtype == np.float32
    np.testing.assert_allclose(recording.timestamps, np.arange(200) / 10)
    assert recording.source == str(plane)


def test_cells_lie_at_the_medians_of_their_pixels(plane):
    stat = [{"med": [np.float32(10 * roi), 7], "xpix": np.arange(3)} for roi in range(6)]
    np.save(plane / "stat.npy", np.array(stat), allow_pickle=True)
    units = read_suite2p(plane, AT_10_HZ).units
    assert units["y_px"].tolist() == [0, 20, 30, 50]
    assert units["x_px"].tolist() == [7] * 4


def test_a_table_of_rois_that_asks_to_run_something_only_hides_where_cells_lie(plane, caplog):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (plane / "exploded",)

    np.save(plane / "stat.npy", np.array([Bomb()] * 6), allow_pickle=True)
    assert list(read_suite2p(plane, AT_10_HZ).units) == ["unit_id"]
    assert "Nothing was run. So it is not known where the cells lie." in caplog.text
    assert not (plane / "exploded").exists()


def test_df_over_f_is_that_of_the_neuropil_corrected_trace(plane):
    """With a window as long as the recording, F0 in its middle is an order statistic of all."""
    raw = np.load(plane / "F.npy")[3, :199] - 0.7 * 200.0
    for name in ("F.npy", "Fneu.npy"):
        edit(plane / name, lambda traces: traces[:, :199])
    baseline = FluorescenceConfig(baseline_window=1e3, baseline_percentile=50.0)
    source = replace(AT_10_HZ, fluorescence=baseline)
    found = read_suite2p(plane, source).df_over_f[99, 2]
    assert found == pytest.approx((raw[99] - np.median(raw)) / np.median(raw), rel=1e-5)


def test_all_rois_are_read_where_that_is_asked(plane):
    assert read_suite2p(plane, change(AT_10_HZ, only_cells=False)).num_units == 6


def test_without_neuropil_no_fneu_is_needed(plane):
    (plane / "Fneu.npy").unlink()
    with pytest.raises(RecordingError, match=r"no Fneu\.npy.*neuropil_factor to 0"):
        read_suite2p(plane, AT_10_HZ)
    recording = read_suite2p(plane, change(AT_10_HZ, neuropil_factor=0.0))
    assert recording.df_over_f.min() > -1


@pytest.mark.parametrize("above", ["plane", "suite2p", "session"])
def test_a_plane_is_found_from_the_folders_above_it(plane, above):
    folder = {"plane": plane, "suite2p": plane.parent, "session": plane.parent.parent}[above]
    assert read_suite2p(folder, AT_10_HZ).recording_id == "day3"


def test_a_folder_that_is_no_plane_of_suite2p_names_itself(tmp_path):
    folder = make_plane(tmp_path / "mouse7")
    assert read_suite2p(folder, AT_10_HZ).recording_id == "mouse7"


def test_a_relative_path_has_the_same_name(plane, monkeypatch):
    monkeypatch.chdir(plane)
    assert read_suite2p(".", AT_10_HZ).recording_id == "day3"


def test_several_planes_are_told_apart_and_never_share_a_unit(plane):
    other = make_plane(plane.parent / "plane1")
    with pytest.raises(RecordingError, match=r"several planes .*plane0, plane1"):
        read_suite2p(plane.parent, AT_10_HZ)
    units = [set(read_suite2p(folder, AT_10_HZ).unit_ids) for folder in (plane, other)]
    assert not units[0] & units[1]


def test_of_several_planes_the_combined_one_is_read(plane):
    make_plane(plane.parent / "plane1")
    make_plane(plane.parent / "combined", num_rois=12)
    recording = read_suite2p(plane.parent, AT_10_HZ)
    assert recording.recording_id == "day3"
    assert recording.num_units == 10


def test_a_folder_without_traces_is_refused(tmp_path):
    with pytest.raises(RecordingError, match=r"no suite2p folder.*suite2p/plane0"):
        read_suite2p(tmp_path, AT_10_HZ)


def test_transposed_traces_are_turned_with_a_warning(plane, caplog):
    expected = read_suite2p(plane, AT_10_HZ).df_over_f
    for name in ("F.npy", "Fneu.npy"):
        edit(plane / name, np.transpose)
    with caplog.at_level(logging.WARNING):
        found = read_suite2p(plane, AT_10_HZ).df_over_f
    np.testing.assert_array_equal(found, expected)
    assert "F.npy is timesteps x ROIs; transposed" in caplog.text


def test_the_statistics_of_rois_tell_the_axes_where_iscell_is_missing(plane):
    expected = read_suite2p(plane, change(AT_10_HZ, only_cells=False)).df_over_f
    (plane / "iscell.npy").unlink()
    with pytest.raises(RecordingError, match=r"no iscell\.npy.*only_cells to false"):
        read_suite2p(plane, AT_10_HZ)
    for name in ("F.npy", "Fneu.npy"):
        edit(plane / name, np.transpose)
    found = read_suite2p(plane, change(AT_10_HZ, only_cells=False)).df_over_f
    np.testing.assert_array_equal(found, expected)
    (plane / "stat.npy").unlink()
    with pytest.raises(RecordingError, match=r"neither iscell\.npy nor stat\.npy"):
        read_suite2p(plane, change(AT_10_HZ, only_cells=False))


def test_as_many_rois_as_timesteps_are_ambiguous(tmp_path):
    folder = make_plane(tmp_path / "square", num_rois=50, num_timesteps=50)
    with pytest.raises(RecordingError, match="cannot be told"):
        read_suite2p(folder, AT_10_HZ)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("F.npy", lambda a: a[:5], r"6 ROIs in iscell.*F\.npy has shape \(5, 200\)"),
        ("Fneu.npy", lambda a: a[:, :-1], r"200 timesteps in F\.npy, 199 in Fneu\.npy"),
        ("iscell.npy", lambda a: a[:5], r"5 ROIs in iscell\.npy, 6 in stat\.npy"),
        ("iscell.npy", lambda a: a * 0, "none of 6 ROIs is called a cell"),
        ("iscell.npy", lambda a: a[None], r"iscell\.npy' has shape \(1, 6, 2\)"),
        ("iscell.npy", lambda a: a.astype(str), "type <U"),
        ("F.npy", lambda a: a[0], r"F\.npy' has shape \(200,\)"),
        ("F.npy", lambda a: a.astype(str), "type <U"),
        ("F.npy", lambda a: a.astype(complex), r"F\.npy.*complex"),
        ("F.npy", lambda a: a * np.nan, "none of 4 ROIs holds light"),
    ],
)
def test_files_that_do_not_fit_are_refused(plane, name, damage, message):
    edit(plane / name, damage)
    with pytest.raises(RecordingError, match=message):
        read_suite2p(plane, AT_10_HZ)


def test_a_baseline_window_of_hardly_any_sample_is_refused(plane):
    source = replace(AT_10_HZ, fluorescence=FluorescenceConfig(baseline_window=0.1))
    with pytest.raises(RecordingError, match=r"plane0': .* Raise baseline_window"):
        read_suite2p(plane, source)


def test_iscell_may_be_a_single_column(plane):
    edit(plane / "iscell.npy", lambda table: table[:, 0].astype(bool))
    assert read_suite2p(plane, AT_10_HZ).num_units == 4


def test_rois_without_light_are_left_out_with_a_count(plane, caplog):
    def darken(traces):
        traces[[0, 1]], traces[3] = 0.0, np.nan
        return traces

    for name in ("F.npy", "Fneu.npy"):
        edit(plane / name, darken)
    with caplog.at_level(logging.WARNING):
        recording = read_suite2p(plane, AT_10_HZ)
    assert recording.unit_ids.tolist() == ["day3/2", "day3/5"]
    assert "2 of 4 ROIs are left out" in caplog.text
    assert caplog.text.strip().endswith("0, 3.")


def test_missing_samples_stay_missing(plane):
    def lose(traces):
        traces[2, 50:53] = np.nan
        return traces

    edit(plane / "F.npy", lose)
    is_missing = np.isnan(read_suite2p(plane, AT_10_HZ).df_over_f)
    assert np.argwhere(is_missing).tolist() == [[50, 1], [51, 1], [52, 1]]


FROM_FOLDER = change(AT_10_HZ, sampling_rate=None)


def test_the_sampling_rate_is_that_of_ops(plane):
    assert read_suite2p(plane, FROM_FOLDER).sampling_rate == pytest.approx(10.0)


def test_the_sampling_rate_is_that_of_settings_where_there_are_no_ops(plane):
    (plane / "ops.npy").unlink()
    np.save(plane / "db.npy", {"nplanes": 1}, allow_pickle=True)
    np.save(plane / "settings.npy", {"fs": np.float32(20), "tau": 1.0}, allow_pickle=True)
    assert read_suite2p(plane, FROM_FOLDER).sampling_rate == pytest.approx(20.0)


@pytest.mark.parametrize("fs", [None, 0, -30.0, np.inf, np.nan, "30"])
def test_an_unknown_sampling_rate_names_the_option(plane, fs):
    np.save(plane / "ops.npy", {"fs": fs}, allow_pickle=True)
    with pytest.raises(
        RecordingError, match=r"'fs' in ops\.npy.*suite2p\.sampling_rate of the source"
    ):
        read_suite2p(plane, FROM_FOLDER)


def test_no_settings_at_all_name_the_option(plane):
    (plane / "ops.npy").unlink()
    with pytest.raises(
        RecordingError, match=r"none of ops\.npy.*suite2p\.sampling_rate of the source"
    ):
        read_suite2p(plane, FROM_FOLDER)


def test_a_given_sampling_rate_leaves_settings_unopened(plane):
    (plane / "ops.npy").write_bytes(b"damaged")
    (plane / "stat.npy").unlink()
    assert read_suite2p(plane, AT_10_HZ).num_units == 4
    with pytest.raises(RecordingError, match=r"ops\.npy' is not read"):
        read_suite2p(plane, FROM_FOLDER)


def test_stimuli_lie_beside_the_folder_of_suite2p(plane):
    table = StimulusTable(table="stimuli/gratings.csv", columns={"orientation": "angle"})
    (plane.parent.parent / "stimuli").mkdir()
    file = plane.parent.parent / "stimuli" / "gratings.csv"
    file.write_text("start_time,stop_time,angle\n1,3,45\n")
    source = replace(AT_10_HZ, stimuli={"drifting_gratings": table})
    for folder in (plane, plane.parent, plane.parent.parent):
        stimuli = read_suite2p(folder, source).stimuli
        assert stimuli["drifting_gratings"].to_numpy().tolist() == [[1.0, 3.0, 45.0]]


is_real = pytest.mark.skipif(
    not DATA.is_dir(), reason="no folder shared/data with a real suite2p plane beside the checkout"
)
REAL = SourceConfig(
    stimuli={"drifting_gratings": StimulusTable(table="gratings.csv")},
    suite2p=Suite2pConfig(sampling_rate=30.0),
)


def read_log(path: Path) -> pd.DataFrame:
    """The gratings of a pyControl log: a state lasts until the next state."""
    lines = path.read_text().splitlines()
    states = json.loads(next(line for line in lines if line.startswith("S "))[2:])
    name_of = {number: name for name, number in states.items()}
    entered = [line.split()[1:] for line in lines if line.startswith("D ")]
    entered = [(int(ms) / 1000, name_of[int(k)]) for ms, k in entered if int(k) in name_of]
    log = pd.DataFrame(entered, columns=["start_time", "state"])
    log["stop_time"] = log["start_time"].shift(-1)
    log = log[log["state"].str.startswith("degrees_")]
    return log.assign(orientation=log["state"].str.removeprefix("degrees_").astype(float))


@pytest.fixture
def real_session(tmp_path) -> Path:
    """The real plane in the folders of suite2p, its log as a table beside them."""
    session = tmp_path / "mouse989"
    (session / "suite2p").mkdir(parents=True)
    (session / "suite2p" / "plane0").symlink_to(DATA.resolve(), target_is_directory=True)
    read_log(next(DATA.glob("*.txt"))).to_csv(session / "gratings.csv", index=False)
    return session


@is_real
def test_the_real_plane_is_read_as_numpy_reads_it():
    recording = read_suite2p(DATA, replace(REAL, stimuli={}))
    rois = np.flatnonzero(np.load(DATA / "iscell.npy")[:, 0])
    assert recording.unit_ids.tolist() == [f"suite2p_gratings/{roi}" for roi in rois]
    assert recording.df_over_f.shape == (24_600, 20)
    raw = np.load(DATA / "F.npy")[rois] - 0.7 * np.load(DATA / "Fneu.npy")[rois]
    window = 1801  # 60 s, odd
    for timestep in (900, 12_345, 23_000):  # far from the ends
        for unit in (0, 7, 19):
            around = np.sort(raw[unit, timestep - window // 2 : timestep + window // 2 + 1])
            baseline = around[int(window * 0.08)]
            expected = raw[unit, timestep] / baseline - 1
            assert recording.df_over_f[timestep, unit] == pytest.approx(expected, abs=1e-4)
    median, peak = np.median(recording.df_over_f, axis=0), recording.df_over_f.max(axis=0)
    assert np.all((median > 0.05) & (median < 0.5))
    assert np.all((peak > 0.5) & (peak < 20))


@is_real
def test_the_real_gratings_are_found_and_decoded(real_session):
    recording = read_suite2p(real_session, REAL)
    assert recording.recording_id == "mouse989"
    gratings = recording.stimulus("drifting_gratings")
    assert gratings["orientation"].value_counts().to_dict() == {45.0 * k: 10 for k in range(8)}
    windows = find_windows(
        recording, DIRECTION, recording.segment_intervals, np.arange(0, 360, 45.0), 60
    )
    assert len(windows) == 80
    expected = np.round((gratings["start"] + DIRECTION.window_offset) * 30)
    np.testing.assert_array_equal(windows.first_timestep, expected)

    [divided] = divide([recording], [DIRECTION], SplitConfig())
    setting = Setting(
        population=Population([divided], {"mouse989": list(recording.unit_ids)}),
        task=DIRECTION,
        encoder=EncoderConfig(),
        config=FinetuningConfig(),
        seed=0,
        labels=1.0,
    )
    evaluation = evaluate_recording(
        fit_arm("ridge", setting), recording, divided.splits["direction"]
    )
    assert 8 <= len(evaluation.target) <= 24
    assert evaluation.scores["accuracy"] > 0.25  # chance 0.125; 0.5 was measured
