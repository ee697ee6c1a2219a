"""Warnings about data: each is said once, and kept with what it is about."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, KeysView
from contextlib import contextmanager


@contextmanager
def collect_warnings(package: str) -> Iterator[KeysView[str]]:
    """Collects what a package warns of meanwhile in this thread, and says each warning once.

    Warnings are records of :mod:`logging`, from any module of the package that was imported before.

    Args:
        package: Such as ``poyo_ssl.recordings``.

    Yields:
        The texts so far, in order.
    """
    collector = _Collector()
    loggers = [
        logger
        for name, logger in list(logging.root.manager.loggerDict.items())
        if isinstance(logger, logging.Logger) and f"{name}.".startswith(f"{package}.")
    ]
    for logger in loggers:
        logger.addFilter(collector)
    try:
        yield collector.texts.keys()
    finally:
        for logger in loggers:
            logger.removeFilter(collector)


class _Collector(logging.Filter):
    """Keeps warnings, and lets pass what was not said before."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, None] = {}
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be said."""
        if record.levelno < logging.WARNING or record.thread != self._thread:
            return True
        text = record.getMessage()
        is_new = text not in self.texts
        self.texts[text] = None
        return is_new
