from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest

from poyo_ssl.recordings.dandi.resumable_http import (
    DownloadError,
    Interruption,
    Patience,
    parse_retry_after,
)


def recorded_waits(answers: list[float | None], retries: int) -> list[float]:
    """Seconds between attempts that fail with what the server asks to wait, then succeed."""
    waits: list[float] = []
    stop: Any = SimpleNamespace(wait=waits.append, is_set=lambda: False)

    def attempt() -> str:
        if answers:
            raise Interruption("no answer", answers.pop(0))
        return "done"

    assert Patience(stop=stop, retries=retries).persist(attempt, progress=lambda: 0) == "done"
    return waits


def test_waits_double_unless_the_server_asks_for_one_and_never_exceed_a_minute():
    assert recorded_waits([None, None, None, 7.0, 86400.0], retries=5) == [0.5, 1, 2, 7, 60]


def test_one_failure_more_than_the_retries_is_final():
    assert recorded_waits([None, None], retries=2) == [0.5, 1]
    with pytest.raises(DownloadError, match=r"Gave up after 3 failures in a row; .*no answer"):
        recorded_waits([None, None, None], retries=2)


def test_a_server_says_how_long_to_wait_in_seconds_or_by_a_date():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert parse_retry_after("7") == 7
    assert 50 < parse_retry_after(soon) <= 100
    assert parse_retry_after(past) == 0
    assert parse_retry_after(None) is None
    assert parse_retry_after("a while") is None
