"""Names in files stay names: no command writes outside its output, or over another's file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nwb_files import add_traces, new_session, write
from poyo_ssl.comparison.config import PretrainingArm
from poyo_ssl.comparison.run import run
from poyo_ssl.comparison.run_directory import read_predictions
from poyo_ssl.evaluation.saved_runs import evaluate_run
from poyo_ssl.model.checkpoints import load_encoder
from poyo_ssl.predictability.thresholds import PredictabilityConfig
from poyo_ssl.recordings.loading import load_recordings
from poyo_ssl.recordings.preparation import prepare
from poyo_ssl.recordings.recording import Recording
from poyo_ssl.recordings.sources import SourceConfig
from poyo_ssl.report.page import write_report
from poyo_ssl.stages import (
    AdaptStage,
    FinetuneStage,
    PredictabilityStage,
    adapt_decoder,
    finetune_decoder,
    measure_predictability,
)
from poyo_ssl.windows.tasks import Task
from tiny_fits import ENCODER, few_steps
from tiny_runs import SPLITS, tiny_observatory, tiny_run_config

HOSTILE = ("../../../escape", "M1/2024-01-05", "x" * 300)
MARKUP = "</script><img src=x onerror=alert(1)>"
PREDICTABILITY = PredictabilityConfig(min_timesteps=100)
NAMES = st.one_of(
    st.sampled_from(
        [*HOSTILE, "..", "a\\b", "con", "M1", "m1", "é", "e\u0301", "a\r\nb", '"', ","]
    ),
    st.text(min_size=1, max_size=10),
    st.text("./\\-_ aA", min_size=1, max_size=6),
).filter(lambda name: "\0" not in name)


@pytest.fixture(scope="module")
def sessions() -> list[Recording]:
    return tiny_observatory()


@pytest.fixture
def room(tmp_path, monkeypatch) -> Path:
    """A folder to work in, four deep, so that what climbs out of it is found."""
    folder = tmp_path / "a" / "b" / "c" / "work"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def named(recording: Recording, name: str) -> Recording:
    """The recording with everything called by one name that a file may call so."""
    unit_ids = [f"{name}{place}" for place in range(recording.num_units)]
    return replace(
        recording,
        recording_id=name,
        subject_id=name,
        container_id=name,
        session_type=name,
        units=recording.units.assign(unit_id=unit_ids, area=name, cre_line=f"${name}_{{$"),
    )


def outside(folder: Path, room: Path) -> set[Path]:
    """Files near the room that do not lie in the folder."""
    top = room.parents[3]
    return {item for item in top.rglob("*") if item.is_file() and folder not in item.parents}


def write_session(path: Path, recording: Recording, session_id: str) -> Path:
    """A recording as NWB, with its gratings."""
    session = new_session(session_id)
    times = recording.timestamps
    add_traces(
        session,
        recording.df_over_f,
        rate=recording.sampling_rate,
        global_roi_ids=np.arange(recording.num_units) + 1,
    )
    write(session, path)
    gratings = recording.stimulus("drifting_gratings").dropna()
    with h5py.File(path, "r+") as file:
        table = file.create_group("stimulus/presentation/drifting_gratings")
        table.attrs["neurodata_type"] = "TimeIntervals"
        columns = {
            "start_time": gratings["start"] - times[0] + 5.0,
            "stop_time": gratings["end"] - times[0] + 5.0,
            "orientation_in_degrees": gratings["orientation"],
            "temporal_frequency_in_hz": gratings["temporal_frequency"],
            "spatial_frequency_in_cycles_per_degree": gratings["spatial_frequency"],
            "is_blank_sweep": np.zeros(len(gratings), dtype=bool),
        }
        table.attrs["colnames"] = list(columns)
        for name, values in columns.items():
            table[name] = np.asarray(values)
    return path


@pytest.mark.parametrize("session_id", HOSTILE)
def test_an_nwb_session_of_any_id_comes_to_a_report_inside_the_output(sessions, room, session_id):
    file = write_session(room / "session.nwb", sessions[0], session_id)
    before, output = outside(room / "out", room), room / "out"
    [recording] = load_recordings(file)
    assert recording.recording_id == session_id
    run([recording], output, tiny_run_config(arms=(), num_seeds=1))
    prepare([file], room / "out" / "prepared", source=SourceConfig())
    assert outside(output, room) == before
    assert set(pd.read_csv(output / "scores.csv")["recording_id"]) == {session_id}
    assert session_id in (output / "report.html").read_text()
    [prepared] = load_recordings(output / "prepared")
    assert prepared.recording_id == session_id


def test_every_command_stays_in_its_output_whatever_names_say(sessions, room):
    names = [*HOSTILE, MARKUP]
    recordings = [named(sessions[place % 2], name) for place, name in enumerate(names)]
    recordings = [replace(r, df_over_f=r.df_over_f + place) for place, r in enumerate(recordings)]
    output = room / "out"
    config = tiny_run_config(
        arms=("A b", "a B"),
        pretrainings={"A b": PretrainingArm(), "a B": PretrainingArm(units="all")},
        own_tasks={"Own": Task(name="Own", stimulus="drifting_gratings", column="orientation")},
        num_seeds=1,
    )
    run(recordings, output / "run", config)
    files = prepare_all(recordings, output / "data")
    encoder = output / "run" / "pretrained" / "%41 b" / "seed-0"
    options = FinetuneStage(
        units="all", predictability=PREDICTABILITY, splits=SPLITS, encoder=ENCODER,
        finetuning=few_steps(2),
    )  # fmt: skip
    finetune_decoder(files, output / "decoder", options, encoder)
    adapting = AdaptStage(predictability=PREDICTABILITY, splits=SPLITS, finetuning=few_steps(2))
    adapt_decoder(files, output / "adapted", adapting, encoder)
    for saved in ("run", "decoder", "adapted"):
        rows = evaluate_run(output / saved, files, output / f"{saved}.json")
        assert {row["recording_id"] for row in rows} == set(names)
        found = read_predictions(output / f"{saved}.predictions.csv", ["recording", "task"])
        assert set(found["recording"]) == set(names)
    stage = PredictabilityStage(predictability=PREDICTABILITY, splits=SPLITS)
    measure_predictability(
        files, output / "units.csv", stage,
        figure=output / "units.png", sensitivity_figure=output / "sensitivity.png",
    )  # fmt: skip
    write_report(output / "run", output / "report.html")

    assert not outside(output, room)
    assert load_encoder(encoder) is not None
    arms = {path.parent.name for path in (output / "run/decoders/%4fwn/all").glob("*/labels-100")}
    assert {"%41 b", "a %42", "ridge"} <= arms
    page = (output / "report.html").read_text()
    assert MARKUP not in page
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in page


def test_a_checkpoint_that_was_changed_cannot_choose_where_scores_go(sessions, room):
    run(sessions[:1], room / "run", tiny_run_config(arms=(), num_seeds=1))
    files = prepare_all(sessions[:1], room / "data")
    for path in (room / "run").glob("decoders/**/config.json"):
        saved = json.loads(path.read_text())
        saved["arm"] = "../../../arm"
        saved["origin"] |= {"units": "/units", "labels": "../labels"}
        path.write_text(json.dumps(saved))
    before = outside(room / "out", room)
    rows = evaluate_run(room / "run", files, room / "out" / "scores.json")
    assert {(row["arm"], row["units"]) for row in rows} == {("../../../arm", "/units")}
    assert outside(room / "out", room) == before
    assert {path.name for path in (room / "out").iterdir()} == {
        "scores.json", "scores.predictions.csv"
    }  # fmt: skip


def prepare_all(recordings: list[Recording], folder: Path) -> list[Path]:
    from poyo_ssl.recordings.storage import save_recording

    return [save_recording(recording, folder) for recording in recordings]


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(NAMES, min_size=2, max_size=3, unique_by=str.casefold))
def test_recordings_of_any_names_are_prepared_and_measured_each_by_itself(sessions, room, names):
    shutil.rmtree(room)
    room.mkdir()
    raw = [
        prepare_all([named(sessions[0], name)], room / "raw" / str(place))[0]
        for place, name in enumerate(names)
    ]
    before = outside(room / "out", room)
    manifest = prepare(raw, room / "out", source=SourceConfig())
    assert manifest["status"].tolist() == ["ok"] * len(names)
    assert {r.recording_id for r in load_recordings(room / "out")} == set(names)
    stage = PredictabilityStage(predictability=PREDICTABILITY, splits=SPLITS)
    units = measure_predictability([room / "out"], room / "out" / "units.csv", stage).units
    assert set(units["recording_id"]) == set(names)
    assert outside(room / "out", room) == before


@pytest.mark.filterwarnings("ignore:Glyph")  # of scripts that matplotlib's font lacks
@settings(
    max_examples=3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(NAMES, min_size=2, max_size=2, unique=True))
@example(["a\r\nb", "half\ud800"])
@example(["M1", "m1"])
def test_recordings_of_any_names_come_to_scores_predictions_and_a_report(sessions, room, names):
    shutil.rmtree(room)
    recordings = [named(s, name) for s, name in zip(sessions, names, strict=True)]
    run(recordings, room / "out", tiny_run_config(arms=(), num_seeds=1))
    assert not outside(room / "out", room)
    written = {name.encode(errors="backslashreplace").decode() for name in names}
    found = read_predictions(room / "out" / "predictions.csv", ["recording"])
    assert set(found["recording"]) == written
    scores = pd.read_csv(room / "out" / "scores.csv", keep_default_na=False, dtype=str)
    assert set(scores["recording_id"]) == written


# what a file, a config or a manifest may claim ------------------------------------------------


@pytest.mark.parametrize("name", ["..", "../x.h5", "x"])
def test_a_manifest_cannot_name_a_file_elsewhere(sessions, room, name):
    files = prepare_all([sessions[0]], room / "raw")
    prepare(files, room / "out", source=SourceConfig())
    path = room / "out" / "manifest.csv"
    path.write_text(path.read_text().replace("sim0-Sst-0.h5,8", f"{name},8"))
    with pytest.raises(ValueError, match="lies elsewhere"):
        prepare(files, room / "out", source=SourceConfig())


# own outputs ---------------------------------------------------------------------------------


def test_a_run_into_the_folder_of_its_recordings_reads_the_same_recordings_again(sessions, room):
    data = room / "data"
    prepare_all(sessions, data)
    config = tiny_run_config(tasks=("direction", "movie_held_out"), arms=(), num_seeds=1)
    tables = []
    for _ in range(2):
        for output in (data / "run", data):  # inside the folder, and the folder itself
            run(load_recordings(data), output, config)
        tables.append((data / "run" / "summary.csv").read_text())
    assert list((data / "run" / "movie").glob("*.npz"))
    assert tables[0] == tables[1]
    assert {r.recording_id for r in load_recordings(data)} == {"sim0-Sst-0", "sim0-Cux2-0"}


def test_a_folder_of_ones_own_that_is_called_like_ours_is_read(sessions, room):
    files = prepare_all(sessions[:1], room / "data" / "decoders" / "movie")
    assert load_recordings(room / "data")[0].source == str(load_recordings(files)[0].source)


def test_the_record_of_a_run_keeps_names_as_they_are(sessions, room):
    run([named(sessions[0], MARKUP)], room / "out", tiny_run_config(arms=(), num_seeds=1))
    assert MARKUP in json.loads((room / "out" / "experiment.json").read_text())["recordings"]
