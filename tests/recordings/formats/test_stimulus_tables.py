"""Tables of presentations: read as written, refused with the row where they cannot be true."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from poyo_ssl.recordings.formats.stimulus_tables import keep_imaged, read_stimulus_files
from poyo_ssl.recordings.recording import RecordingError
from poyo_ssl.recordings.sources import StimulusTable

GRATINGS = StimulusTable(table="gratings.csv", columns={"orientation": "angle"})
ALWAYS = (0.0, 1e6)


def columns(**values: list) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in values.items()}


def read_text(folder: Path, text: str, table: StimulusTable = GRATINGS, imaged=ALWAYS):
    (folder / table.table).write_text(text)
    return read_stimulus_files(folder, {"drifting_gratings": table}, imaged)["drifting_gratings"]


def test_a_csv_file_becomes_a_table_in_order_of_time(tmp_path):
    found = read_text(tmp_path, "start_time,stop_time,angle\n4,6,90\n1,3,45.5\n")
    expected = pd.DataFrame({"start": [1.0, 4.0], "end": [3.0, 6.0], "orientation": [45.5, 90.0]})
    assert_frame_equal(found, expected)


def test_tabs_a_byte_order_mark_and_spaces_do_not_matter(tmp_path):
    table = StimulusTable(table="a.tsv", columns={"orientation": "angle"})
    found = read_text(tmp_path, "\ufeffstart_time\tstop_time\t angle\n1\t3\t 45\n", table)
    assert found.to_numpy().tolist() == [[1.0, 3.0, 45.0]]


def test_a_duration_takes_the_place_of_ends(tmp_path):
    table = StimulusTable(table="a.csv", start="on", duration=2.0)
    assert read_text(tmp_path, "on\n1\n4\n", table).to_numpy().tolist() == [[1.0, 3.0], [4.0, 6.0]]


def test_columns_with_our_names_need_no_mention(tmp_path):
    table = StimulusTable(table="a.csv")
    text = "start_time,stop_time,orientation,phase,mood\n1,2,45,0.5,good\n"
    columns = ["start", "end", "orientation", "phase", "mood"]
    assert list(read_text(tmp_path, text, table)) == columns


def test_columns_without_a_meaning_of_ours_may_be_text(tmp_path):
    table = StimulusTable(table="a.csv", columns={"clip": "file"})
    text = "start_time,stop_time,file,choice,trial\n3,4,b.avi,,2\n1,2,a.avi,left,1\n"
    found = read_text(tmp_path, text, table)
    assert list(found) == ["start", "end", "clip", "choice", "trial"]
    assert found["clip"].dtype == found["choice"].dtype == object
    assert found["clip"].tolist() == ["a.avi", "b.avi"]
    assert found["choice"].tolist() == ["left", None]
    assert found["trial"].tolist() == [1, 2]


def test_text_of_numbers_is_numbers():
    stored = columns(start_time=[1.0, 3.0], stop_time=[2.0, 4.0], contrast=[b"0.5", b""])
    found = StimulusTable(table="t").read(stored, "t")
    np.testing.assert_array_equal(found["contrast"], [0.5, np.nan])


def test_what_has_not_one_value_per_row_is_left_out_where_nobody_asked_for_it(caplog):
    stored = columns(
        start_time=[1.0, 3.0], stop_time=[2.0, 4.0], tags=["a"], boxes=[[1, 2], [3, 4]]
    )
    with caplog.at_level(logging.INFO):
        assert list(StimulusTable(table="t").read(stored, "t")) == ["start", "end"]
    assert "left out: tags, boxes" in caplog.text


def test_dates_and_lists_are_neither_number_nor_text():
    times = columns(start_time=[1.0], stop_time=[2.0])
    table = StimulusTable(table="t", columns={"when": "when"})
    with pytest.raises(RecordingError, match="'when' holds datetime64"):
        table.read({**times, "when": np.array(["2024-01-01"], dtype="datetime64[s]")}, "t")
    pair = np.empty(1, dtype=object)
    pair[0] = (1, 2)
    with pytest.raises(RecordingError, match=r"neither number nor text in row 0 .*\(1, 2\)"):
        table.read({**times, "when": pair}, "t")


@pytest.mark.parametrize("ending", [",", ", ", ",,"])
def test_rows_that_end_in_a_comma_do_not_shift_the_columns(tmp_path, ending):
    text = f"start_time,stop_time,angle\n1,2,45{ending}\n3,4,90{ending}\n"
    found = read_text(tmp_path, text)
    assert found.to_numpy().tolist() == [[1.0, 2.0, 45.0], [3.0, 4.0, 90.0]]


def test_a_comma_behind_the_header_and_a_nameless_index_name_no_column(tmp_path):
    found = read_text(tmp_path, ",start_time,stop_time,angle,\n0,1,2,45,\n1,3,4,90,\n")
    assert list(found) == ["start", "end", "orientation"]
    assert found["orientation"].tolist() == [45.0, 90.0]


def test_a_value_beyond_the_header_is_refused_with_its_line(tmp_path):
    text = "start_time,stop_time,angle\n1,2,45\n3,4,90,7\n"
    with pytest.raises(RecordingError, match=r"line 3 has 4 values .* 3 columns.*remove '7'"):
        read_text(tmp_path, text)


def test_spaces_around_names_and_values_do_not_matter(tmp_path):
    found = read_text(tmp_path, "start_time ,stop_time\t, angle \n1 ,2 , 45 \n\n 3,4,90\n")
    assert found.to_numpy().tolist() == [[1.0, 2.0, 45.0], [3.0, 4.0, 90.0]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "start_time;stop_time;angle\n1,5;2,5;45\n",
            "separated by semicolons, but .* com",
        ),
        ("a.csv", "start_time\tstop_time\n1\t2\n", "separated by tabs, but a table named .csv"),
        ("a.tsv", "start_time,stop_time\n1,2\n", "separated by commas, but a table named .tsv"),
    ],
)
def test_another_separator_is_named(tmp_path, name, text, message):
    with pytest.raises(RecordingError, match=message):
        read_text(tmp_path, text, StimulusTable(table=name))


def test_a_mention_wins_over_a_column_with_our_name():
    table = StimulusTable(table="t", columns={"orientation": "angle"})
    stored = columns(start_time=[1.0], stop_time=[2.0], orientation=[7.0], angle=[45.0])
    assert table.read(stored, "t")["orientation"].tolist() == [45.0]


@pytest.mark.parametrize("blank", ["", "NaN", "n/a", "None"])
def test_blank_sweeps_are_nan(tmp_path, blank):
    found = read_text(tmp_path, f"start_time,stop_time,angle\n1,2,{blank}\n3,4,90\n")
    assert found["orientation"].isna().tolist() == [True, False]


def test_text_is_refused_with_its_row(tmp_path):
    with pytest.raises(RecordingError, match=r"gratings\.csv.*'angle' is no number in row 1.*left"):
        read_text(tmp_path, "start_time,stop_time,angle\n1,2,90\n3,4,left\n")


def test_text_of_hdf5_files_is_read_as_numbers():
    stored = columns(start_time=["1", "3"], stop_time=[b"2", b"4"], angle=[b"90", b""])
    found = GRATINGS.read(stored, "t")
    np.testing.assert_array_equal(found, [[1.0, 2.0, 90.0], [3.0, 4.0, np.nan]])


@pytest.mark.parametrize(
    ("starts", "ends", "row"),
    [
        ([1.0, np.nan, 5.0], [2.0, 4.0, 6.0], 1),
        ([1.0, 3.0, 5.0], [2.0, 4.0, np.nan], 2),
        ([1.0, 3.0, 5.0], [2.0, 3.0, 6.0], 1),
        ([5.0, 3.0, 1.0], [4.0, 4.0, 2.0], 0),
        ([1.0, 3.0, np.inf], [2.0, 4.0, np.inf], 2),
    ],
)
def test_impossible_times_are_refused_with_the_row_of_the_file(starts, ends, row):
    stored = columns(start_time=starts, stop_time=ends, angle=[0.0, 0.0, 0.0])
    with pytest.raises(RecordingError, match=rf"trials: row {row} .*1 such rows"):
        GRATINGS.read(stored, "trials")


def test_overlapping_presentations_are_refused_with_both_rows():
    stored = columns(start_time=[9.0, 1.0, 1.5], stop_time=[10.0, 3.0, 3.5], angle=[0.0] * 3)
    with pytest.raises(RecordingError, match=r"row 2 .* starts at 1\.5 s, before half of row 1"):
        GRATINGS.read(stored, "trials")


def test_a_duration_in_milliseconds_is_found_out():
    table = StimulusTable(table="t", duration=2000.0)
    with pytest.raises(RecordingError, match="all times in seconds"):
        table.read(columns(start_time=[1.0, 4.0]), "t")


def test_a_slight_overlap_is_jitter():
    stored = columns(start_time=[1.0, 2.99], stop_time=[3.0, 5.0], angle=[0.0, 90.0])
    assert len(GRATINGS.read(stored, "t")) == 2


def test_missing_columns_are_named_beside_those_found(tmp_path):
    with pytest.raises(RecordingError, match=r"lacks stop_time, angle \(found: start_time, end\)"):
        read_text(tmp_path, "start_time,end\n1,2\n")


def test_columns_of_different_length_are_refused():
    stored = columns(start_time=[1.0, 3.0], stop_time=[2.0, 4.0], angle=[1.0])
    with pytest.raises(RecordingError, match="different length"):
        GRATINGS.read(stored, "t")


def test_tables_of_pictures_in_the_place_of_a_column_are_refused():
    stored = columns(start_time=[1.0], stop_time=[2.0], angle=[[1.0, 2.0]])
    with pytest.raises(RecordingError, match="one value per row"):
        GRATINGS.read(stored, "t")


def movie(**values: list) -> pd.DataFrame:
    times = {"start_time": np.arange(4) / 30, "stop_time": np.arange(1, 5) / 30}
    return StimulusTable(table="t").read({**times, **columns(**values)}, "t")


def test_movie_frames_and_repeats_are_whole_numbers():
    found = movie(movie_frame=[0.0, 1.0, 0.0, 1.0], repeat=[0, 0, 1, 1])
    assert found["movie_frame"].dtype == found["repeat"].dtype == np.int64


def test_a_new_repeat_begins_where_the_movie_frame_falls_back():
    assert movie(movie_frame=[0, 1, 0, 1])["repeat"].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("frames", [[0.0, 1.5, 2, 3], [0, -1, 2, 3], [0, np.nan, 2, 3]])
def test_movie_frames_that_count_nothing_are_refused_with_their_row(frames):
    with pytest.raises(RecordingError, match=r"'movie_frame' is .* in row 1"):
        movie(movie_frame=frames)


def test_every_unreadable_file_is_named(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "ragged.csv").write_text("start_time,stop_time\n1,2,3,4\n1,2\n3,4,5,6,7\n")
    names = ["none.csv", "empty.csv", "bytes.csv", "ragged.csv", "table.xlsx", "."]
    tables = {name: StimulusTable(table=name) for name in names}
    with pytest.raises(RecordingError) as error:
        read_stimulus_files(tmp_path, tables, ALWAYS)
    lines = str(error.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == names


def test_presentations_outside_the_traces_are_left_out_with_a_warning(tmp_path, caplog):
    text = "start_time,stop_time,angle\n-5,-3,0\n-1,1,10\n4,6,20\n10,12,30\n10.1,12,40\n"
    text = text.replace("10.1,12,40", "12,13,40")
    with caplog.at_level(logging.WARNING):
        found = read_text(tmp_path, text, imaged=(0.0, 10.0))
    assert found["orientation"].tolist() == [10.0, 20.0, 30.0]
    assert "2 of 5 presentations lie outside the traces (0.0 to 10.0 s)" in caplog.text


def test_a_table_in_imaging_frames_is_asked_whether_it_is_in_seconds(tmp_path, caplog):
    text = "start_time,stop_time,angle\n30,60,0\n300,330,90\n2000,2030,0\n"  # at 30 Hz
    with caplog.at_level(logging.WARNING):
        read_text(tmp_path, text, imaged=(0.0, 70.0))
    assert "2 of 3 presentations lie outside" in caplog.text
    assert "and not in imaging frames?" in caplog.text


def test_a_table_of_another_clock_is_refused(tmp_path):
    text = "start_time,stop_time,angle\n11513,20013,0\n21513,30013,0\n"
    with pytest.raises(RecordingError, match=r"from 0\.0 to 820\.0 s \(it lists from 11513"):
        read_text(tmp_path, text, imaged=(0.0, 820.0))


def test_an_empty_table_is_refused(tmp_path):
    with pytest.raises(RecordingError, match=r"gratings\.csv.* lists no presentation"):
        read_text(tmp_path, "start_time,stop_time,angle\n")


@given(st.lists(st.floats(-50, 150), min_size=1, max_size=20), st.floats(0.1, 30))
def test_whatever_touches_the_traces_is_kept_and_nothing_else(starts, length):
    table = pd.DataFrame({"start": starts, "end": np.array(starts) + length})
    found = keep_imaged(table, (0.0, 100.0), "t")
    touching = sorted(s for s in starts if s <= 100.0 and s + length > 0.0)
    assert found["start"].tolist() == touching
