"""The section on responses and clocks says who responds, when, and what is doubted."""

import json

import pytest

from poyo_ssl.report.clock_section import MAX_CLOCK_LINES, read_clock_section
from poyo_ssl.report.results import ReportError

CHECK = {
    "recording_id": "day1",
    "stimulus": "drifting_gratings",
    "num_units": 40,
    "num_responding": 31,
    "best_lag": 0.3,
    "lags": [-1.0, 0.0, 1.0],
    "fit": [None, 0.2, 0.1],
    "warning": "",
    "note": "",
}


def write(directory, checks):
    (directory / "clock.json").write_text(json.dumps(checks))
    return directory


def test_a_stimulus_is_told_by_its_responding_units_and_lag(tmp_path):
    section = read_clock_section(write(tmp_path, [CHECK]))
    assert section.table.rows[0].cells == ["day1", "drifting gratings", "40", "31", "0.3"]
    assert section.num_warnings == 0
    (line,) = section.figure.data
    assert list(line.y) == [None, 1.0, 0.5]


def test_warnings_and_notes_stand_below_their_stimulus(tmp_path):
    odd = {**CHECK, "warning": "Its clock is off.", "note": "shown once", "lags": [], "fit": []}
    section = read_clock_section(write(tmp_path, [odd]))
    assert [row.cells for row in section.table.rows[1:]] == [
        ["Warning: Its clock is off."],
        ["Shown once."],
    ]
    assert section.num_warnings == 1
    assert section.figure is None


def test_many_stimuli_are_drawn_in_part(tmp_path):
    section = read_clock_section(write(tmp_path, [CHECK] * (MAX_CLOCK_LINES + 3)))
    assert len(section.figure.data) == MAX_CLOCK_LINES
    assert section.num_left_out == 3


def test_no_file_is_no_section(tmp_path):
    assert read_clock_section(tmp_path) is None


@pytest.mark.parametrize(
    ("checks", "problem"),
    [
        ({}, "a list of objects"),
        ([3], "a list of objects"),
        ([{**CHECK, "fit": [1.0]}], "equal length"),
        ([{**CHECK, "lags": ["a", "b", "c"]}], "'lags' must be numbers"),
        ([{**CHECK, "fit": ["a", "b", "c"]}], "'fit' must be numbers"),
    ],
)
def test_a_file_that_is_no_check_is_refused(tmp_path, checks, problem):
    with pytest.raises(ReportError, match=problem):
        read_clock_section(write(tmp_path, checks))


def test_a_file_that_is_not_json_is_refused(tmp_path):
    (tmp_path / "clock.json").write_text("{")
    with pytest.raises(ReportError, match="not JSON"):
        read_clock_section(tmp_path)
