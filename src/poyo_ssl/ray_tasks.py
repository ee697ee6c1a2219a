"""Long calls as tasks of a Ray cluster, whose workers and machines may come and go."""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from poyo_ssl.ending import ToldToEnd, on_signals
from poyo_ssl.output_directory import OutputError
from poyo_ssl.parallel import EXPECTED, collected_log, log_again, ray_at
from poyo_ssl.worker_processes import Call, Caller

logger = logging.getLogger(__name__)

_MOST_DEATHS = 10
"""Workers that may die of one call before it is given up: preempted machines do, and so does memory
that runs out every time."""
_GLANCE = 1.0
"""Seconds between looks at whether a task has come to its end."""
_TO_SAVE = 20.0
"""Seconds that tasks get to save what they do when they are told to end."""


@contextmanager
def on_ray(address: str, marker: Path) -> Iterator[Caller]:
    """Connects to a Ray cluster; gives what makes calls as its tasks.

    A task has one core. Where its worker or machine dies, the call is made again elsewhere;
    machines that join while calls wait take their share. What waits or runs when the caller's
    generator is closed is told to end. Calls must be importable by all machines.

    Args:
        address: Of the cluster, such as ``auto`` or ``ray://head:10001``.
        marker: A file on storage that all machines must see; an absolute path.

    Raises:
        ConnectionError: If no cluster answers at the address, or it is gone.
        OutputError: By calls, if a machine does not see the marker.
        ChildProcessError: By calls, if one has cost too many workers.
        ToldToEnd: By calls, if a signal tells this process to end.
    """
    with ray_at(0, address) as ray:
        try:
            yield partial(_make, ray, marker)
        except (ray.exceptions.RaySystemError, ray.exceptions.LocalRayletDiedError) as error:
            raise ConnectionError(
                f"The Ray cluster at '{address}' is gone ({error}). What was finished is kept: "
                "start it again with 'ray start --head', and run the same command to resume."
            ) from error


def _make(
    ray: Any, marker: Path, calls: Sequence[Call], at_once: int
) -> Generator[None, None, None]:
    """Makes calls, so many at a time or, where that is 0, as the cluster can."""
    if not calls:
        return
    lost = (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
    )
    task = ray.remote(num_cpus=1, max_retries=0)(_call)
    all_calls = ray.put(list(calls))  # once: calls of a run share its recordings
    waiting, deaths = list(reversed(range(len(calls)))), Counter[int]()
    running: dict[Any, int] = {}
    try:
        with _signals_kept() as end_if_told:
            while waiting or running:
                while waiting and len(running) < (at_once or len(calls)):
                    place = waiting.pop()
                    running[task.remote(all_calls, place, marker)] = place
                finished = ray.wait(list(running), timeout=_GLANCE)[0]
                end_if_told()
                for reference in finished:
                    place = running.pop(reference)
                    try:
                        error, records = ray.get(reference)
                    except lost as death:
                        deaths[place] += 1
                        _say_lost(death, deaths[place])
                        waiting.append(place)
                        continue
                    log_again(records)
                    if error is not None:
                        raise error
                    yield
    finally:
        _end(ray, list(running))


@contextmanager
def _signals_kept() -> Iterator[Callable[[], None]]:
    """Keeps signals that tell this process to end; gives what obeys them.

    Raised while Ray waits, :class:`ToldToEnd` would come out of it as another exit status.
    """
    kept: list[tuple[int, Any]] = []

    def end_if_told() -> None:
        for number, before in kept:
            if callable(before):
                before(number, None)
            raise ToldToEnd(number)

    with on_signals(lambda number, before: kept.append((number, before))):
        yield end_if_told


def _call(
    calls: Sequence[Call], place: int, marker: Path
) -> tuple[Exception | None, list[logging.LogRecord]]:
    """Makes a call on a machine of the cluster; gives what went wrong, and what was logged."""
    if not marker.is_file():
        return OutputError(
            f"Machine '{socket.gethostname()}' of the Ray cluster does not see '{marker.parent}'. "
            "Choose an output directory on storage that all machines see under the same path."
        ), []
    with threadpool_limits(1), collected_log() as records:
        error = None
        try:
            calls[place]()
        except EXPECTED as expected:
            error = expected
    return error, records


def _say_lost(death: Exception, num_deaths: int) -> None:
    """Warns of a lost worker, and gives up where it was one too many."""
    name = type(death).__name__
    if num_deaths > _MOST_DEATHS:
        raise ChildProcessError(
            f"The workers of a fit died {num_deaths} times, the last one by {name}: memory may "
            "have run out. What was finished is kept. Let every machine of the cluster do fewer "
            "tasks at a time, and run the same command to resume."
        ) from death
    logger.warning("A worker of the Ray cluster was lost (%s); its fit is begun again.", name)


def _end(ray: Any, left: list[Any]) -> None:
    """Tells tasks to end, and stops those that do not."""
    for force in (False, True):
        for reference in left:
            ray.cancel(reference, force=force)
        latest = time.monotonic() + _TO_SAVE
        while left and time.monotonic() < latest:
            left = ray.wait(left, num_returns=len(left), timeout=_GLANCE)[1]
