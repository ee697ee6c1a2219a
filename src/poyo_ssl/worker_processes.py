"""Long calls in processes of this machine, which end with the process that asked for them."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing import active_children
from typing import Any

from joblib import Parallel, delayed

from poyo_ssl.ending import (
    SIGNALS,
    STOPPED_BY,
    ToldToEnd,
    on_signals,
    signals_of_terminals_held_back,
)
from poyo_ssl.output_directory import leave_out_lost_files

logger = logging.getLogger(__name__)

Call = Callable[[], Any]
Caller = Callable[[Sequence[Call], int], Generator[None, None, None]]
"""Makes calls, so many at a time (0: as many as there are cores), and yields once after each."""

_TO_SAVE = 20.0
"""Seconds that workers get to save what they do when they are told to end."""
_GLANCE = 0.5
"""Seconds between a worker's looks at whether its parent still lives."""


def call_in_processes(calls: Sequence[Call], workers: int = 0) -> Generator[None, None, None]:
    """Makes calls in several processes at a time; yields once after each, in no order.

    Workers are told when this process is told to end, and get ``_TO_SAVE`` seconds to save what
    they do; they end by themselves where it was killed. Where a worker is killed, the calls that
    have not come to an end are made again, with half as many workers: memory may have run out.

    Args:
        calls: Each importable in another process, such as a ``functools.partial``; a call may be
            made again.
        workers: Processes; one is this process, 0 one per core.

    Raises:
        ToldToEnd: If a worker alone was told to end.
    """
    waiting = dict(enumerate(calls))
    workers = workers or os.cpu_count() or 1
    while waiting:
        workers = min(workers, len(waiting))
        if workers == 1:
            for call in waiting.values():
                call()
                yield
            return
        try:
            for place in _in_workers(waiting, workers):
                del waiting[place]
                yield
        except BrokenProcessPool as error:
            workers //= 2
            logger.warning(
                "A worker process was killed; memory may have run out (%s). What was finished is "
                "kept, and %d fits go on in %d at a time. Set jobs to as many from the start.",
                _exit_codes(error), len(waiting), workers,
            )  # fmt: skip


def _exit_codes(error: BrokenProcessPool) -> str:
    """The last line of loky's explanation."""
    return str(error).strip().splitlines()[-1] if str(error) else type(error).__name__


def _in_workers(calls: Mapping[int, Call], workers: int) -> Generator[int, None, None]:
    """The place of every call that came to an end."""
    parallel = Parallel(
        n_jobs=workers,
        return_as="generator_unordered",
        batch_size=1,
        initializer=_begin_as_worker,
        initargs=(os.getpid(),),
    )
    jobs = [delayed(_call_as_worker)(place, call) for place, call in calls.items()]

    def tell_workers(number: int, before: Any) -> None:
        for process in active_children():
            if process.name.startswith("Loky"):
                process.terminate()
        latest = time.monotonic() + _TO_SAVE
        while parallel.n_completed_tasks < len(jobs) and time.monotonic() < latest:
            time.sleep(0.02)
        if not callable(before):
            raise ToldToEnd(number)
        before(number, None)

    with warnings.catch_warnings(), on_signals(tell_workers):
        warnings.filterwarnings("ignore", "A generator produced by joblib", UserWarning)
        warnings.filterwarnings("ignore", r"\d+ tasks which were still being", UserWarning)
        # loky renews a worker that has grown, between two calls: nothing is lost
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        with signals_of_terminals_held_back():  # from workers, and from what cleans up after them
            started = parallel(jobs)
        with closing(started) as results:
            for place, told_by in results:
                if told_by:
                    raise ToldToEnd(told_by)
                yield place


class _Worker:
    """What a worker process knows of being told to end: then it takes no more calls."""

    def __init__(self) -> None:
        self.told_by = 0
        self.is_busy = False
        self._parent: int | None = None

    def begin(self, parent: int) -> None:
        """Listens to signals and to the life of the parent, from before the first call on."""
        self._parent = parent
        gc.disable()  # until the first call, whose imports take a third less
        atexit.register(gc.freeze)  # the last look for garbage takes a second
        for number in SIGNALS:  # the parent gets Ctrl-C, too, and tells
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._note)
        threading.excepthook = leave_out_lost_files
        threading.Thread(target=self._watch_parent, daemon=True).start()

    def _note(self, number: int, _: Any) -> None:
        self.told_by = number
        if self.is_busy:
            raise ToldToEnd(number)

    def _watch_parent(self) -> None:
        while os.getppid() == self._parent:
            time.sleep(_GLANCE)
        os.kill(os.getpid(), signal.SIGTERM)
        latest = time.monotonic() + _TO_SAVE
        while self.is_busy and time.monotonic() < latest:
            time.sleep(0.02)
        os._exit(STOPPED_BY + signal.SIGTERM)


_WORKER = _Worker()


def _begin_as_worker(parent: int) -> None:
    """What a worker does first; the imports of its first call take seconds, in which it is told."""
    _WORKER.begin(parent)


def _call_as_worker(place: int, call: Call) -> tuple[int, int]:
    """Makes a call; gives its place and the signal that told this process to end, or 0."""
    gc.enable()
    try:
        _WORKER.is_busy = True
        if not _WORKER.told_by:
            call()
    except SystemExit as told:  # a fit has saved what it had
        _WORKER.told_by = _WORKER.told_by or int(told.code or 0) - STOPPED_BY
    finally:
        _WORKER.is_busy = False
    gc.collect()  # recordings and networks that refer to themselves would wait for many calls
    return place, _WORKER.told_by
