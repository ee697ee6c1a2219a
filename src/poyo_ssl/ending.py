"""Signals that tell a process to end, and the exit status that names the signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPPED_BY = 128
"""Exit status of a process that a signal ended, less the number of the signal."""
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""Ctrl-C, a batch system, and a terminal that was closed."""


class ToldToEnd(SystemExit):
    """A signal told this process to end.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(STOPPED_BY + number)
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.number,)


@contextmanager
def signals_of_terminals_held_back() -> Iterator[None]:
    """Holds Ctrl-C and the end of a terminal back until the block ends.

    Processes that are started meanwhile never get them: a terminal tells every process of a group,
    and those that serve another one should end after it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*SIGNALS} - {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end(number: int, before: Any = None) -> None:
    """Ends this process as a signal asks; what it holds is cleaned up.

    Raises:
        ToldToEnd: Always.
    """
    raise ToldToEnd(number)


@contextmanager
def on_signals(act: Callable[[int, Any], None]) -> Iterator[None]:
    """Calls a function where a signal tells this process to end.

    Signals that are ignored stay so, as under ``nohup``; in other threads than the main one
    nothing changes.

    Args:
        act: Called with the number of the signal and the handler that was there before.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):
                before[number] = handler
                signal.signal(number, lambda told, _: act(told, before[told]))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
