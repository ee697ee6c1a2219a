import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from pandas.testing import assert_frame_equal

from poyo_ssl.recordings import preparation
from poyo_ssl.recordings.manifest import read_manifest
from poyo_ssl.recordings.preparation import prepare
from poyo_ssl.recordings.recording import Recording, RecordingError
from poyo_ssl.recordings.sources import SourceConfig, StimulusTable, Suite2pConfig
from poyo_ssl.recordings.storage import open_recording, save_recording
from poyo_ssl.whole_files import partial_file

RATE = 30.0
PICTURES = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


def small_recording(name: str, num_units: int = 3) -> Recording:
    """Two minutes with one stimulus, other values for every name."""
    rng = np.random.default_rng(list(name.encode()))
    return Recording(
        recording_id=name,
        df_over_f=rng.normal(size=(3600, num_units)).astype(np.float32),
        timestamps=np.arange(3600) / RATE,
        units=pd.DataFrame({"unit_id": [f"{name}/{unit}" for unit in range(num_units)]}),
        stimuli={
            "natural_movie_one": pd.DataFrame(
                {"start": [1.0, 2.0], "end": [2.0, 3.0], "movie_frame": [0, 1], "repeat": 0}
            )
        },
        templates={"natural_movie_one": PICTURES},
    )


@pytest.fixture
def raw(tmp_path):
    """A folder of three recordings; ``b.h5`` is the second."""
    for name in "abc":
        save_recording(small_recording(name), tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def loads(monkeypatch):
    """Names of the files that are read, in order."""
    names: list[str] = []
    load = preparation.load_recording

    def load_and_note(path: Path, source: SourceConfig) -> Recording:
        names.append(path.name)
        return load(path, source)

    monkeypatch.setattr(preparation, "load_recording", load_and_note)
    return names


def test_every_source_becomes_a_recording_that_the_manifest_describes(raw, tmp_path):
    progress: list[tuple[int, int]] = []
    out = tmp_path / "deep" / "out"
    table = prepare(
        raw, out, source=SourceConfig(), on_progress=lambda *done: progress.append(done)
    )
    assert_frame_equal(table, read_manifest(out))
    assert table["source"].tolist() == [f"../../raw/{name}.h5" for name in "abc"]
    assert table["status"].tolist() == ["ok"] * 3
    assert table["message"].isna().all()
    assert table["size"].tolist() == [(raw / f"{name}.h5").stat().st_size for name in "abc"]
    assert table["num_units"].tolist() == [3] * 3
    assert table["num_timesteps"].tolist() == [3600] * 3
    assert table["sampling_rate"].tolist() == [RATE] * 3
    assert table["minutes"].tolist() == [2.0] * 3
    assert table["stimuli"].tolist() == ["natural_movie_one"] * 3
    assert progress == [(0, 3), (1, 3), (2, 3), (3, 3)]
    for row in table.itertuples():
        stored = open_recording(out / row.file)
        assert stored.recording_id == row.recording_id
        np.testing.assert_array_equal(stored.df_over_f, small_recording(row.recording_id).df_over_f)
    assert len(list((out / "templates").iterdir())) == 1


def test_what_is_prepared_is_not_read_again(raw, tmp_path, loads):
    first = prepare(raw, tmp_path / "out", source=SourceConfig())
    progress: list[tuple[int, int]] = []
    second = prepare(
        raw,
        tmp_path / "out",
        source=SourceConfig(),
        on_progress=lambda *done: progress.append(done),
    )
    assert loads == ["a.h5", "b.h5", "c.h5"]
    assert progress == [(3, 3)]
    assert_frame_equal(first, second)


def test_new_changed_and_lost_recordings_are_prepared(raw, tmp_path, loads):
    out = tmp_path / "out"
    prepare(raw, out, source=SourceConfig())
    loads.clear()
    save_recording(small_recording("d"), raw)
    save_recording(small_recording("b", num_units=5), raw)
    (out / "c.h5").unlink()
    table = prepare(raw, out, source=SourceConfig())
    assert loads == ["b.h5", "c.h5", "d.h5"]
    assert table["num_units"].tolist() == [3, 5, 3, 3]
    assert open_recording(out / "b.h5").num_units == 5


def test_a_source_whose_time_alone_has_changed_is_prepared_again(raw, tmp_path, loads):
    prepare(raw, tmp_path / "out", source=SourceConfig())
    os.utime(raw / "b.h5", ns=(1, 1))
    prepare(raw, tmp_path / "out", source=SourceConfig())
    assert loads[3:] == ["b.h5"]


def test_other_options_and_changed_tables_prepare_all_again(raw, tmp_path, loads):
    (raw / "trials.csv").write_text("start_time,stop_time\n1,2\n")
    config = SourceConfig(stimuli={"bars": StimulusTable(table="trials.csv")})
    for source in (SourceConfig(), config, config):
        prepare(raw, tmp_path / "out", source=source)
    assert len(loads) == 6
    (raw / "trials.csv").write_text("start_time,stop_time\n1,2.5\n")
    prepare(raw, tmp_path / "out", source=config)
    assert len(loads) == 9


def test_a_changed_table_beside_a_suite2p_session_prepares_it_again(tmp_path, loads):
    session, out = tmp_path / "day1", tmp_path / "out"
    plane = session / "suite2p" / "plane0"
    plane.mkdir(parents=True)
    traces = np.random.default_rng(0).uniform(50, 100, size=(3, 600)).astype(np.float32)
    np.save(plane / "F.npy", traces)
    np.save(plane / "Fneu.npy", traces / 4)
    np.save(plane / "iscell.npy", np.ones((3, 2)))
    config = SourceConfig(
        stimuli={"bars": StimulusTable(table="log.csv")}, suite2p=Suite2pConfig(sampling_rate=10.0)
    )
    (session / "log.csv").write_text("start_time,stop_time\n1,2\n")
    prepare(session, out, source=config)
    prepare(session, out, source=config)
    assert loads == ["plane0"]
    (session / "log.csv").write_text("start_time,stop_time\n1,2\n3,4\n")
    prepare(session, out, source=config)
    assert loads == ["plane0"] * 2
    assert open_recording(out / "day1.h5").stimuli["bars"]["start"].tolist() == [1.0, 3.0]


def test_what_failed_before_is_no_failure_of_other_sources(raw, tmp_path):
    broken, out = tmp_path / "page.nwb", tmp_path / "out"
    broken.write_text("<html>")
    assert prepare(broken, out, source=SourceConfig())["status"].tolist() == ["failed"]
    assert prepare(raw, out, source=SourceConfig())["status"].tolist() == ["ok"] * 3
    assert sorted(read_manifest(out)["status"]) == ["failed", "ok", "ok", "ok"]


def test_a_broken_source_is_recorded_and_tried_again(raw, tmp_path, loads, caplog):
    whole = (raw / "b.h5").read_bytes()
    (raw / "b.h5").write_bytes(whole[:2000])
    with caplog.at_level(logging.WARNING):
        table = prepare(raw, tmp_path / "out", source=SourceConfig())
    assert table["status"].tolist() == ["ok", "failed", "ok"]
    assert "b.h5" in table["message"][1]
    assert table["message"][1] in caplog.text
    assert not (tmp_path / "out" / "b.h5").exists()
    (raw / "b.h5").write_bytes(whole)
    table = prepare(raw, tmp_path / "out", source=SourceConfig())
    assert table["status"].tolist() == ["ok"] * 3
    assert loads == ["a.h5", "b.h5", "c.h5", "b.h5"]


def test_a_source_that_breaks_later_keeps_its_old_recording_to_itself(raw, tmp_path):
    out = tmp_path / "out"
    prepare(raw, out, source=SourceConfig())
    (raw / "b.h5").write_bytes(b"")
    table = prepare(raw, out, source=SourceConfig())
    assert table["status"].tolist() == ["ok", "failed", "ok"]
    assert open_recording(out / "b.h5").num_units == 3
    shutil.move(
        save_recording(replace(small_recording("b"), subject_id="x"), tmp_path / "x"), raw / "z.h5"
    )
    table = prepare(raw, out, source=SourceConfig())
    assert "as '../raw/b.h5' does" in table["message"][3]


def test_the_second_source_of_a_recording_id_is_refused_by_name(raw, tmp_path):
    shutil.copy(raw / "b.h5", raw / "copy of b.h5")
    for _ in range(2):
        table = prepare(raw, tmp_path / "out", source=SourceConfig())
        assert table["status"].tolist() == ["ok", "ok", "ok", "failed"]
        message = table["message"][3]
        assert "'../raw/copy of b.h5' holds recording 'b', as '../raw/b.h5' does" in message
    assert not list((tmp_path / "out").glob(".*.partial"))


def test_ids_that_differ_in_case_alone_are_refused(raw, tmp_path):
    save_recording(small_recording("B"), raw / "other")
    table = prepare(raw, tmp_path / "out", source=SourceConfig())
    assert table["status"].tolist() == ["ok", "ok", "ok", "failed"]


def test_a_file_of_unknown_origin_is_not_overwritten(raw, tmp_path):
    path = save_recording(replace(small_recording("b"), subject_id="mine"), tmp_path / "out")
    before = path.read_bytes()
    table = prepare(raw, tmp_path / "out", source=SourceConfig())
    assert table["status"].tolist() == ["ok", "failed", "ok"]
    assert "Move it away" in table["message"][1]
    assert path.read_bytes() == before


def test_a_recording_that_gets_another_id_leaves_no_old_file(raw, tmp_path):
    prepare(raw, tmp_path / "out", source=SourceConfig())
    shutil.move(save_recording(small_recording("new"), tmp_path / "x"), raw / "b.h5")
    table = prepare(raw, tmp_path / "out", source=SourceConfig())
    assert table["recording_id"].tolist() == ["a", "new", "c"]
    assert sorted(file.name for file in (tmp_path / "out").glob("*.h5")) == [
        "a.h5",
        "c.h5",
        "new.h5",
    ]


def test_recordings_prepared_inside_their_sources_folder_are_no_sources(raw, loads):
    for _ in range(2):
        table = prepare(raw, raw / "prepared", source=SourceConfig())
        assert table["status"].tolist() == ["ok"] * 3
    assert len(loads) == 3
    with pytest.raises(RecordingError, match="where prepared ones go"):
        prepare(raw / "prepared", raw / "prepared", source=SourceConfig())


def test_two_preparations_of_one_folder_do_not_mix(raw, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        FileLock(tmp_path / "out" / ".prepare.lock"),
        pytest.raises(RecordingError, match="Another process prepares"),
    ):
        prepare(raw, tmp_path / "out", source=SourceConfig())


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("source,what\n1,2", "its columns are source, what"),
        ("", "No columns"),
        (None, "lies elsewhere"),
    ],
)
def test_a_damaged_manifest_is_refused(raw, tmp_path, line, problem):
    prepare(raw, tmp_path / "out", source=SourceConfig())
    path = tmp_path / "out" / "manifest.csv"
    path.write_text(path.read_text().replace(",b.h5", ",../raw/b.h5") if line is None else line)
    with pytest.raises(RecordingError, match=problem):
        prepare(raw, tmp_path / "out", source=SourceConfig())
    assert (raw / "b.h5").is_file()


def test_leftovers_of_dead_writers_go_and_those_of_living_ones_stay(raw, tmp_path):
    out = tmp_path / "out"
    ended = subprocess.Popen(["true"])
    ended.wait()
    with partial_file(out / "x.h5") as living:
        living.touch()
    mine = f"-{os.getpid()}-"
    dead = living.with_name(living.name.replace(mine, f"-{ended.pid}-"))
    fresh = dead.with_name(dead.name.replace(".h5.", ".h5.elsewhere"))
    old = dead.with_name(dead.name.replace(".h5.", ".h5.long_ago"))
    unknown = out / ".x.partial"
    for file in (dead, fresh, old, unknown):
        file.touch()
    os.utime(old, (1, 1))
    prepare(raw, out, source=SourceConfig())
    left = {file.name for file in out.glob(".*.partial")}
    assert left == {living.name, fresh.name, unknown.name}


def test_kills_at_ever_later_moments_change_nothing_of_the_result(raw, tmp_path):
    for name in ("d", "e"):
        save_recording(small_recording(name), raw)
    shutil.copy(raw / "b.h5", raw / "copy of b.h5")
    (raw / "broken.h5").write_bytes(b"nothing")
    undisturbed = prepare(raw, tmp_path / "undisturbed", source=SourceConfig())
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AGAIN_AND_AGAIN, raw, tmp_path / "killed"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["kills"] > 20
    assert figures["broken files seen"] == 0
    assert figures["read again though prepared"] == 0
    killed = read_manifest(tmp_path / "killed")
    assert_frame_equal(killed.drop(columns="seconds"), undisturbed.drop(columns="seconds"))
    assert _contents(tmp_path / "killed") == _contents(tmp_path / "undisturbed")


def _contents(folder: Path) -> dict[str, bytes]:
    """Every file but the manifest, which holds seconds."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != "manifest.csv"
    }


KILLED_AGAIN_AND_AGAIN = """
import json, os, signal, sys
from pathlib import Path
from poyo_ssl.recordings import preparation
from poyo_ssl.recordings.manifest import read_manifest
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.recordings.storage import open_recording

raw, out = map(Path, sys.argv[1:])
log = out.with_name("log")
load = preparation.load_recording


def load_and_note(path, source):
    with log.open("a") as file:
        file.write(path.name + "\\n")
    return load(path, source)


def prepare_until(moment):
    def count(event, _):
        nonlocal moment
        if event in ("open", "os.rename", "os.remove", "os.mkdir"):
            moment -= 1
            if moment == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    preparation.load_recording = load_and_note
    preparation.prepare(raw, out, source=SourceConfig())
    os._exit(0)


kills = broken = again = 0
while True:
    log.write_text("")
    table = read_manifest(out)
    prepared = table[table["status"] == "ok"]
    ready = {
        Path(source).name
        for source, name in zip(prepared["source"], prepared["file"])
        if (out / name).is_file()
    }
    child = os.fork()
    if child == 0:
        prepare_until(1 + 2 * kills)
    _, status = os.waitpid(child, 0)
    again += len(set(log.read_text().split("\\n")) & ready)
    for path in out.glob("*.h5"):
        try:
            open_recording(path)
        except RecordingError:
            broken += 1
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    kills += 1
print(json.dumps({
    "kills": kills, "broken files seen": broken, "read again though prepared": again
}))
"""


def test_workers_prepare_the_same_as_one_process(raw, tmp_path):
    shutil.copy(raw / "c.h5", raw / "a copy of c.h5")
    (raw / "broken.h5").write_bytes(b"nothing")
    alone = prepare(raw, tmp_path / "alone", source=SourceConfig())
    together = prepare(raw, tmp_path / "together", source=SourceConfig(), jobs=2)
    assert_frame_equal(together.drop(columns="seconds"), alone.drop(columns="seconds"))
    assert _contents(tmp_path / "together") == _contents(tmp_path / "alone")
