"""One function on many items, in this process or in several: an item's failure stays its own."""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from logging.handlers import QueueHandler
from typing import Any, Generic, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from poyo_ssl.extras import import_extra

Item = TypeVar("Item")
Value = TypeVar("Value")

EXPECTED = (ValueError, OSError, MemoryError)
"""What bad data or a bad machine can cause; anything else is a mistake in the code."""

_OBJECT_STORE_BYTES = 100 * 2**20  # results are small tables; Ray takes no less than 75 MiB
LONGEST = 3600.0
"""Seconds that a worker process may spend on one item: damaged files have made libhdf5 loop for
ever."""
_GREETING = 10.0  # seconds until a cluster's port must answer
_GLANCE = 5.0  # seconds between looks at how long the running items have taken
_ABOUT_TO_END = 2.0
"""Seconds that items get to end by themselves before they are stopped: Ray's own process, which is
that of the caller, aborts where a task is cancelled at the moment of its end (ray#54738)."""
_RETRIES = 1  # of an item whose process died: the fault may have been its neighbour's
_TOO_LONG = (
    f"Given up after {LONGEST:.0f} s: the file is too large for one worker, or so damaged that "
    "its reader does not come to an end. Look at it with 'poyo-ssl inspect', or make it again."
)
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_task_oom_retries": str(_RETRIES),
}


@dataclass(frozen=True)
class Outcome(Generic[Value]):
    """What became of one item: a value, or the reason why there is none."""

    value: Value | None
    error: str | None
    """None where it worked."""


def map_in_parallel(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    workers: int = 1,
    address: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Outcome[Value]]:
    """Calls a function on every item; what fails on one does not stop the others.

    Args:
        function: Called with one item. With several workers it runs in other processes, so it
            must be importable there and its results should be small.
        items: What to call it on.
        workers: Processes; 0 for one per core. One worker without an address is this process,
            where nothing has to be started, but where a crash ends everything.
        address: A Ray cluster to run on, such as ``auto`` or ``ray://head:10001``.
        on_progress: Called with the items done, in their order, and those in all.

    Returns:
        One outcome per item, in the order of the items. Errors of the families ``EXPECTED`` keep
        their text; the death of a worker process, or its end after ``LONGEST`` seconds, becomes
        one. Other exceptions are raised.

    Raises:
        ValueError: If ``workers`` is negative.
        ConnectionError: If no cluster answers at the address.
    """
    outcomes = []
    with closing(
        iterate_in_parallel(function, items, workers=workers, address=address)
    ) as as_they_come:
        for outcome in as_they_come:
            outcomes.append(outcome)
            if on_progress is not None:
                on_progress(len(outcomes), len(items))
    return outcomes


def iterate_in_parallel(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    workers: int = 1,
    address: str | None = None,
) -> Generator[Outcome[Value], None, None]:
    """The outcomes of :func:`map_in_parallel` one by one, each after those before it.

    Closing the generator (``contextlib.closing``) stops what still runs.
    """
    if workers < 0:
        raise ValueError(f"workers must be 0 (one per core) or more, got {workers}.")
    if not items or (workers == 1 and address is None):
        return (_attempt(function, item) for item in items)
    return _on_ray(function, items, workers, address)


def _attempt(function: Callable[[Item], Value], item: Item) -> Outcome[Value]:
    try:
        return Outcome(function(item), None)
    except EXPECTED as error:
        return Outcome(None, str(error) or type(error).__name__)


def _attempt_and_collect_log(
    function: Callable[[Item], Value], item: Item
) -> tuple[Outcome[Value], list[logging.LogRecord]]:
    """The outcome on one thread, and what was logged."""
    with threadpool_limits(1), collected_log() as records:  # as many processes as cores
        outcome = _attempt(function, item)
    return outcome, records


@contextmanager
def collected_log() -> Iterator[list[logging.LogRecord]]:
    """What is logged in a worker; complete at the end. Who asked logs it: :func:`log_again`."""
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    collected: list[logging.LogRecord] = []
    handler, root = QueueHandler(records), logging.getLogger()
    root.addHandler(handler)
    try:
        yield collected
    finally:
        root.removeHandler(handler)
        collected += [records.get() for _ in range(records.qsize())]


def log_again(records: list[logging.LogRecord]) -> None:
    """Logs in this process what a worker logged."""
    for record in records:
        logging.getLogger(record.name).handle(record)


def _on_ray(
    function: Callable[[Item], Value], items: Sequence[Item], workers: int, address: str | None
) -> Generator[Outcome[Value], None, None]:
    """Runs at most ``workers`` items at a time; what has no turn yet costs nothing."""
    with ray_at(workers, address) as ray:
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_attempt_and_collect_log)
        at_once = workers or int(ray.cluster_resources().get("CPU", 1))
        function_reference = ray.put(function)
        waiting = iter(enumerate(items))
        running: dict[Any, int] = {}
        deadlines: dict[Any, float] = {}
        finished: dict[int, Outcome[Value]] = {}
        try:
            for turn in range(len(items)):
                while turn not in finished:
                    while len(running) < at_once and (following := next(waiting, None)):
                        index, item = following
                        reference = task.remote(function_reference, item)
                        running[reference] = index
                        deadlines[reference] = time.monotonic() + LONGEST
                    for reference in ray.wait(list(running), timeout=_GLANCE)[0]:
                        finished[running.pop(reference)] = _fetch(ray, reference)
                    for reference in [r for r in running if deadlines[r] < time.monotonic()]:
                        ray.cancel(reference, force=True)
                        finished[running.pop(reference)] = Outcome(None, _TOO_LONG)
                yield finished.pop(turn)
        finally:
            _stop(ray, list(running))


def _stop(ray: Any, running: list[Any]) -> None:
    """Ends the tasks that do not end by themselves."""
    if not running:
        return
    endless = running
    try:
        _, endless = ray.wait(running, num_returns=len(running), timeout=_ABOUT_TO_END)
    finally:  # a second interrupt stops them, too
        for reference in endless:
            ray.cancel(reference, force=True)


def _fetch(ray: Any, reference: Any) -> Outcome[Any]:
    try:
        outcome, records = ray.get(reference)
    except (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
    ) as error:
        return Outcome(
            None,
            f"Its worker process died ({type(error).__name__}): memory ran out, or a damaged file "
            "crashed a library. Use fewer workers, or make the file again.",
        )
    log_again(records)
    return outcome


def _require_listener(address: str) -> None:
    """Checks that anyone listens at a host and port: Ray would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_GREETING).close()


def _restore_handler(on_sigterm: Any) -> None:
    """Takes a caller's handler of SIGTERM back from Ray, whose own exits with status 15."""
    if callable(on_sigterm) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)


@contextmanager
def ray_at(workers: int, address: str | None) -> Iterator[Any]:
    """Ray, started here (and then stopped here) unless it is running already.

    Args:
        workers: Tasks at a time of a Ray that is started for this process; 0 for one per core.
        address: A cluster to connect to instead.

    Raises:
        ConnectionError: If no cluster answers at the address.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # only now: it reads the settings above, and takes a second
    ray = import_extra(
        "ray",
        "ray",
        "A cluster, or more than one worker,",
        "Or work in one process: one worker, and no address of a cluster.",
    )
    is_ours = not ray.is_initialized()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if is_ours:
        quietly: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address is None:
                ray.init(
                    num_cpus=workers or os.cpu_count(),
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    **quietly,
                )
            else:
                _require_listener(address)
                ray.init(address=address, **quietly)
            _restore_handler(on_sigterm)
        except OSError as error:
            raise ConnectionError(
                f"No Ray cluster answers at '{address}' ({error}). Start one with "
                "'ray start --head', or leave the address out to run on this machine."
            ) from error
    try:
        yield ray
    finally:
        if is_ours:
            ray.shutdown()
