"""Functions given to workers are local ones: Ray sends those by value, with no import."""

import logging
import os
import re
import signal
import socket
import time

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from poyo_ssl import parallel
from poyo_ssl.parallel import Outcome, iterate_in_parallel, map_in_parallel
from poyo_ssl.recordings.recording import RecordingError


@pytest.fixture(scope="module")
def two_workers():
    """Ray of the caller's own, which the functions under test must leave alone."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
    yield {"workers": 2}
    ray.shutdown()


@given(items=st.lists(st.integers(-5, 5)))
def test_every_item_has_its_outcome_in_the_order_of_the_items(items):
    def invert(item: int) -> float:
        if item == 0:
            raise RecordingError("Nothing can be divided by 0. Leave it out.")
        return 1 / item

    progress: list[tuple[int, int]] = []
    outcomes = map_in_parallel(invert, items, on_progress=lambda *done: progress.append(done))
    assert outcomes == [
        Outcome(1 / item, None)
        if item
        else Outcome(None, "Nothing can be divided by 0. Leave it out.")
        for item in items
    ]
    assert progress == [(done + 1, len(items)) for done in range(len(items))]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad"), "bad"),
        (OSError(28, "No space left on device", "a.h5"), "No space left on device: 'a.h5'"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_errors_of_data_and_machine_become_text(error, text):
    def fail(_: int) -> None:
        raise error

    [outcome] = map_in_parallel(fail, [0])
    assert outcome.value is None
    assert text in str(outcome.error)


def test_mistakes_in_the_code_are_raised():
    with pytest.raises(KeyError):
        map_in_parallel({1: 2}.__getitem__, [1, 2])


def test_a_negative_number_of_workers_is_refused():
    with pytest.raises(ValueError, match=r"0 \(one per core\) or more, got -1"):
        map_in_parallel(abs, [1], workers=-1)


def test_an_address_without_a_cluster_says_how_to_start_one(monkeypatch):
    def refuse(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ConnectionError, match=r"at 'auto'.*ray start --head"):
        map_in_parallel(abs, [1], address="auto")


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "[::1]:{}"])
def test_a_port_that_nobody_listens_at_is_refused_without_waiting_for_ray(monkeypatch, form):
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray would wait for minutes"))
    with socket.socket() as bound:  # reserves a port, and does not listen
        bound.bind(("127.0.0.1", 0))
        address = form.format(bound.getsockname()[1])
        with pytest.raises(
            ConnectionError, match=re.escape(f"No Ray cluster answers at '{address}'")
        ):
            map_in_parallel(abs, [1], address=address)


def test_without_items_nothing_is_started(monkeypatch):
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    assert map_in_parallel(abs, [], workers=4) == []


def test_outcomes_come_one_by_one_in_one_process():
    seen = []
    outcomes = iterate_in_parallel(lambda item: seen.append(item), [1, 2, 3])
    next(outcomes)
    outcomes.close()
    assert seen == [1]


def test_workers_give_the_same_outcomes_in_the_same_order(two_workers):
    def late_then_early(item: int) -> tuple[int, int]:
        time.sleep(0.2 if item == 0 else 0)
        if item == 3:
            raise RecordingError("Recording 3 is broken.")
        return item, os.getpid()

    outcomes = map_in_parallel(late_then_early, range(6), **two_workers)
    assert [outcome.error for outcome in outcomes] == [None] * 3 + ["Recording 3 is broken."] + [
        None
    ] * 2
    assert [outcome.value[0] for outcome in outcomes if outcome.value] == [0, 1, 2, 4, 5]
    assert os.getpid() not in [outcome.value[1] for outcome in outcomes if outcome.value]
    assert ray.is_initialized()


def test_no_more_items_run_at_once_than_there_are_workers(two_workers, tmp_path):
    def count_running(item: int) -> int:
        mark = tmp_path / str(item)
        mark.touch()
        time.sleep(0.05)
        running = len(list(tmp_path.iterdir()))
        mark.unlink()
        return running

    outcomes = map_in_parallel(count_running, range(12), workers=1, address="auto")
    assert [outcome.value for outcome in outcomes] == [1] * 12
    outcomes = map_in_parallel(count_running, range(12), **two_workers)
    assert max(outcome.value or 0 for outcome in outcomes) <= 2


def test_a_mistake_in_a_worker_is_raised_here(two_workers):
    def look_up(_: int) -> None:
        raise KeyError("no such column")

    with pytest.raises(KeyError, match="no such column"):
        map_in_parallel(look_up, range(4), **two_workers)


def test_a_worker_uses_one_thread_whatever_the_environment_says(two_workers):
    def count_threads(_: int) -> set[int]:
        import numpy  # noqa: F401  brings OpenBLAS
        import threadpoolctl
        import torch

        return {
            torch.get_num_threads(),
            *(pool["num_threads"] for pool in threadpoolctl.threadpool_info()),
        }

    outcomes = map_in_parallel(count_threads, range(2), **two_workers)
    assert [outcome.value for outcome in outcomes] == [{1}, {1}]


def test_warnings_of_a_worker_are_logged_here(two_workers, caplog):
    def warn(item: int) -> None:
        logging.getLogger("poyo_ssl.some.module").warning("Recording %d drifts.", item)

    with caplog.at_level(logging.WARNING):
        map_in_parallel(warn, range(2), **two_workers)
    assert sorted(record.getMessage() for record in caplog.records) == [
        "Recording 0 drifts.",
        "Recording 1 drifts.",
    ]
    assert {record.name for record in caplog.records} == {"poyo_ssl.some.module"}


def test_a_worker_that_dies_costs_its_own_item_only(two_workers):
    def die(item: int) -> int:
        if item == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        return item

    outcomes = map_in_parallel(die, range(4), **two_workers)
    assert [outcome.value for outcome in outcomes] == [0, None, 2, 3]
    assert "worker process died" in str(outcomes[1].error)


def test_an_item_without_an_end_is_given_up_and_the_others_go_on(two_workers, monkeypatch):
    # long enough for two workers to start on a busy machine
    monkeypatch.setattr(parallel, "LONGEST", 12.0)
    monkeypatch.setattr(parallel, "_GLANCE", 0.2)

    def sleep(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    endless, short = map_in_parallel(sleep, [600.0, 0.1], **two_workers)
    assert endless.value is None
    assert "Given up after" in endless.error
    assert short.value == 0.1


def test_an_interrupt_stops_what_runs_in_the_workers(two_workers, tmp_path):
    def run_for_long(_: int) -> None:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(600)

    def interrupt(*_: object) -> None:
        if any(tmp_path.iterdir()):
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        with pytest.raises(KeyboardInterrupt):
            map_in_parallel(run_for_long, range(4), workers=1, address="auto")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    deadline = time.monotonic() + 30
    while any(_is_running(int(mark.name)) for mark in tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
