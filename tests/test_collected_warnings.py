"""What is warned of about a recording is said once, and kept to the report."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import pandas as pd

from poyo_ssl.collected_warnings import collect_warnings
from poyo_ssl.comparison.run import run
from poyo_ssl.recordings.loading import load_recordings
from poyo_ssl.recordings.storage import open_recording, save_recording
from tiny_runs import tiny_observatory, tiny_run_config

READER = logging.getLogger("poyo_ssl.recordings.formats.arrays")


def test_a_warning_is_said_once_while_it_is_collected(caplog):
    with collect_warnings("poyo_ssl.recordings") as said:
        for number in (1, 2, 1):
            READER.warning("column %d is empty", number)
    assert list(said) == ["column 1 is empty", "column 2 is empty"]
    assert caplog.messages == list(said)
    READER.warning("column %d is empty", 1)  # of the next recording
    assert len(caplog.messages) == 3


def test_neither_other_packages_nor_other_threads_are_collected(caplog):
    with collect_warnings("poyo_ssl.recordings") as said:
        logging.getLogger("poyo_ssl.recordings_of_others").warning("other")
        READER.info("read")
        thread = threading.Thread(target=READER.warning, args=("beside",))
        thread.start()
        thread.join()
    assert not said
    assert {"other", "beside"} <= set(caplog.messages)


def test_warnings_of_a_reader_stay_with_the_recording_to_the_report(tmp_path):
    recording = tiny_observatory()[0]
    first = save_recording(
        replace(recording, warnings=("the pictures of 'x' are missing",)), tmp_path / "stored"
    )
    assert open_recording(first).warnings == ("the pictures of 'x' are missing",)
    second = save_recording(
        replace(recording, df_over_f=recording.df_over_f + 1), tmp_path / "stored" / "again"
    )
    recordings = load_recordings([first, second])  # of one id, of which there is a warning
    run(recordings, tmp_path / "run", tiny_run_config(arms=(), num_seeds=1))
    table = pd.read_csv(tmp_path / "run" / "warnings.csv")
    assert list(table.columns) == ["recording", "warning"]
    assert len(table) == len(table.drop_duplicates()) == 3
    assert set(table["recording"]) == {r.recording_id for r in recordings}
    assert table["warning"].str.contains("as another file does").sum() == 2
    page = (tmp_path / "run" / "report.html").read_text()
    assert "3 warnings about recordings" in page
    assert "the pictures of &#39;x&#39; are missing" in page


def test_raw_fluorescence_is_warned_of_in_the_report(tmp_path):
    recording = tiny_observatory()[0]
    light = save_recording(replace(recording, df_over_f=400 + 10 * recording.df_over_f), tmp_path)
    run(load_recordings(light), tmp_path / "run", tiny_run_config(arms=(), num_seeds=1))
    [said] = pd.read_csv(tmp_path / "run" / "warnings.csv")["warning"]
    assert "look like raw fluorescence" in said
    assert "look like raw fluorescence" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_without_warnings_says_nothing_of_them(tmp_path):
    run(tiny_observatory()[:1], tmp_path, tiny_run_config(arms=(), num_seeds=1))
    assert pd.read_csv(tmp_path / "warnings.csv").empty
    assert "about recordings</summary>" not in (tmp_path / "report.html").read_text()
