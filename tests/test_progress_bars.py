"""Bars on a terminal, lines in a file."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from poyo_ssl import progress_bars
from poyo_ssl.progress_bars import byte_progress, item_progress


@pytest.fixture
def written(monkeypatch, request):
    """What goes to a console that is, or is no, terminal."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=request.param, width=100)
    monkeypatch.setattr(progress_bars, "messages", console)
    return text


@pytest.mark.parametrize("written", [False], indirect=True)
def test_a_file_gets_a_line_now_and_then_and_one_in_the_end(written, monkeypatch):
    clock = iter([0.0, 59.0, 61.0, 70.0, 200.0])
    monkeypatch.setattr(progress_bars.time, "monotonic", lambda: next(clock))
    with item_progress("day [1]") as report:
        for done in range(5):
            report(done, 4)
    on_the_way, last = written.getvalue().splitlines()
    assert on_the_way.startswith("day [1] 2/4, 0:00:")
    assert on_the_way.endswith(" left")
    assert last.startswith("day [1] 4/4, 0:00:")
    assert "left" not in last


@pytest.mark.parametrize("written", [False], indirect=True)
def test_what_was_not_finished_says_so(written):
    with byte_progress() as report:
        report("copying a.nwb", 10_000_000, 30_000_000)
    assert written.getvalue().startswith("copying a.nwb 10.0/30.0 MB, ")
    assert written.getvalue().endswith(" left\n")


@pytest.mark.parametrize("written", [True], indirect=True)
def test_a_terminal_gets_a_bar_with_total_and_time_left(written):
    with item_progress("recordings") as report:
        report(0, 2)
        report(2, 2)
    assert "━" in written.getvalue()
    assert "2/2" in written.getvalue()
    assert "left" in written.getvalue()


@pytest.mark.parametrize("written", [True, False], indirect=True)
def test_nothing_is_shown_where_nothing_is_reported(written):
    with item_progress("recordings"):
        pass
    assert written.getvalue() == ""
