"""Logs of pyControl, PsychoPy, Bpod and Bonsai as tables of presentations."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

import poyo_ssl as ps
from event_logs import BONSAI, BONSAI_SECONDS, PSYCHOPY, PYCONTROL, PYCONTROL_TABLE, write_bpod
from poyo_ssl.cli import main
from poyo_ssl.estimators.trials import trials
from poyo_ssl.recordings.sources import StimulusTable, Suite2pConfig
from shared_data import DATA, needs_shared_data

PATTERN = r"degrees_(?P<orientation>\d+)"
SHOWN = {"start": [1.0, 3.0], "end": [2.0, 4.0], "orientation": [0, 90]}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def as_lists(table) -> dict[str, list]:
    return {name: np.round(table[name], 6).tolist() for name in SHOWN}


@pytest.mark.parametrize(("name", "text"), [("log.txt", PYCONTROL), ("log.tsv", PYCONTROL_TABLE)])
def test_states_of_pycontrol_end_where_the_next_begins(name, text, tmp_path):
    log = ps.read_event_log(write(tmp_path / name, text))
    assert as_lists(ps.find_presentations(log, PATTERN)) == SHOWN
    seen = ps.find_presentations(log, PATTERN, onset="photodiode", zero="pause")
    np.testing.assert_allclose(seen["start"], [0.58, 2.6])
    np.testing.assert_allclose(seen["end"], [1.5, 3.5])


def test_components_of_psychopy_carry_the_columns_of_their_row(tmp_path):
    log = ps.read_event_log(write(tmp_path / "log.csv", PSYCHOPY))
    table = ps.find_presentations(log, "grating", zero="trigger")
    assert table["start"].tolist() == [0.5, 2.5]
    assert table["orientation"].tolist() == [0, 90]
    assert table["clip"].tolist() == ["a", "b"]
    assert list(ps.find_presentations(log, "grating", columns=["clip"])) == ["start", "end", "clip"]


def test_states_of_bpod_count_from_the_start_of_the_session(tmp_path):
    log = ps.read_event_log(write_bpod(tmp_path / "log.mat"))
    assert "Punish" not in set(log["name"])  # never visited
    table = ps.find_presentations(log, "Stimulus")
    assert as_lists(table.rename(columns={"TrialTypes": "orientation"})) == SHOWN
    one = ps.read_event_log(write_bpod(tmp_path / "one.mat", one_trial=True))
    assert ps.find_presentations(one, "Stimulus")["TrialTypes"].tolist() == [0]


def test_tables_of_bonsai_have_times_of_two_kinds(tmp_path):
    log = ps.read_event_log(write(tmp_path / "a.csv", BONSAI))
    table = ps.find_presentations(log, PATTERN, duration=1.0)
    np.testing.assert_allclose(table["start"], [0.5, 2.5])  # the first row is at 0 s
    assert table["column_2"].tolist() == ["a", "b"]
    with pytest.raises(ps.RecordingError, match=r"2 of 2 events .* have no end"):
        ps.find_presentations(log, PATTERN)
    log = ps.read_event_log(write(tmp_path / "b.csv", BONSAI_SECONDS))
    assert as_lists(ps.find_presentations(log, PATTERN)) == SHOWN
    numbered = "trial,onset_s,kind,reaction_time\n0,1.0,go,0.2\n1,3.0,go,0.3\n"
    log = ps.read_event_log(write(tmp_path / "c.csv", numbered))
    assert log["start"].tolist() == [1.0, 3.0]  # not the numbers of the trials


def test_a_photodiode_answers_for_the_presentation_before_it_alone():
    """Flashes twice a second: what the second one evoked is no late answer to the first."""
    log = pd.DataFrame(
        {
            "name": ["flash", "flash", "photodiode", "flash", "photodiode"],
            "start": [1.0, 1.5, 1.58, 2.0, 2.08],
            "end": [1.25, 1.75, np.nan, 2.25, np.nan],
        }
    )
    seen = ps.find_presentations(log, "flash", onset="photodiode")
    np.testing.assert_allclose(seen["start"], [1.08, 1.58, 2.08])


def test_what_would_make_a_wrong_table_is_refused(tmp_path, capsys):
    path = write(tmp_path / "log.txt", PYCONTROL)
    log = ps.read_event_log(path)
    with pytest.raises(ps.RecordingError, match="called 'start', as a column"):
        ps.find_presentations(log, r"degrees_(?P<start>\d+)")
    with pytest.raises(ps.RecordingError, match=r"no column angle .* \(found: none\)"):
        ps.find_presentations(log, PATTERN, columns=["angle"])
    with pytest.raises(ps.RecordingError, match="would end before they begin"):
        ps.find_presentations(log, PATTERN, duration=-1.0)
    assert main(["events", str(path), "--stimulus", PATTERN, "--output", str(path)]) == 1
    assert path.read_text() == PYCONTROL
    assert main(["events", str(path), "--stimulus", PATTERN]) == 1
    assert "--stimulus is given without --output" in capsys.readouterr().err


def test_what_is_not_there_is_said_with_what_is(tmp_path):
    with pytest.raises(ps.RecordingError, match=r"no log of events: it lacks end"):
        ps.find_presentations(pd.DataFrame({"name": ["a"], "start": [0.0]}), "a")
    log = ps.read_event_log(write(tmp_path / "log.txt", PYCONTROL))
    with pytest.raises(ps.RecordingError, match=r"'grating' \(found: pause \(3\)"):
        ps.find_presentations(log, "grating")
    with pytest.raises(ps.RecordingError, match="No event 'trigger'"):
        ps.find_presentations(log, PATTERN, zero="trigger")
    with pytest.raises(ps.RecordingError, match="within 1 s"):
        ps.find_presentations(log, PATTERN, onset="degrees")
    with pytest.raises(ps.RecordingError, match="no regular expression"):
        ps.find_presentations(log, "(")
    for name, content, match in [
        ("a.txt", PYCONTROL + "D 5000 9\n", "events 9, which"),
        ("a.txt", PYCONTROL.replace('"pause"', "pause"), "cannot be read"),
        ("a.csv", "a,b\nc,d\n", "no column of times"),
        ("a.csv", "x", "is no log that is read"),
        ("a.mat", "MATLAB 5.0 MAT-file, damaged", "is damaged"),
    ]:
        with pytest.raises(ps.RecordingError, match=match):
            ps.read_event_log(write(tmp_path / name, content))
    savemat(tmp_path / "b.mat", {"x": 1})
    with pytest.raises(ps.RecordingError, match="no variable SessionData"):
        ps.read_event_log(tmp_path / "b.mat")
    with pytest.raises(ps.RecordingError, match="cannot be opened"):
        ps.read_event_log(tmp_path / "absent.txt")


@needs_shared_data
def test_direction_is_decoded_from_a_real_log_and_a_real_plane(tmp_path, caplog, capsys):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import GroupKFold, cross_val_score

    for path in (DATA / "suite2p_gratings").iterdir():
        (tmp_path / path.name).symlink_to(path)
    [log] = tmp_path.glob("989-*.txt")
    with caplog.at_level(logging.WARNING):
        words = ["--stimulus", PATTERN, "--onset", "photodetector"]
        assert main(["events", str(log), *words, "--output", str(tmp_path / "gratings.csv")]) == 0
    assert "(degrees_225: 10): was it shown?" in caplog.text  # as the real photodiode says
    assert "80 presentations" in capsys.readouterr().out
    gratings = StimulusTable(table="gratings.csv", start="start", end="end")
    source = ps.SourceConfig(
        suite2p=Suite2pConfig(sampling_rate=30.0), stimuli={"drifting_gratings": gratings}
    )
    [recording] = ps.load_recordings(tmp_path, source)
    X, y, groups = trials(recording, "direction")
    decoder = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    scores = cross_val_score(decoder, X.mean(axis=1), y, cv=GroupKFold(5), groups=groups)
    assert scores.mean() > 0.3  # 0.44; chance 0.125
