"""One file over HTTP: resumed where it stopped, checked, and never half there under its name.

Written on requests, since pooch, the library for fetching published data, begins a file anew after
a cut, and sessions have up to a gigabyte.
"""

from __future__ import annotations

import email.utils
import errno
import hashlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

import requests
from filelock import FileLock, Timeout
from urllib3.exceptions import HTTPError

from poyo_ssl.recordings.recording import RecordingError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_FIRST_WAIT = 0.5  # seconds before the second attempt; doubles with every further one
_LONGEST_WAIT = 60.0  # seconds, whatever the server asks for
_PROGRESS = 2**20  # bytes that a connection has to bring for the failures before it to be forgotten
_BLOCK = 2**16  # bytes taken from the socket at once
_LOCK_POLL = 0.5  # seconds between looks at another process's lock
_HASH_ATTEMPTS = 2
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_CONNECTION_ERRORS = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    HTTPError,  # what reading a body without requests' help raises
)
_MENDABLE = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class DownloadError(RecordingError):
    """A file that could not be fetched; the message says why and what to do."""


class Interruption(Exception):  # noqa: N818 - an event that is mended, not an error to show
    """A failed attempt that another one may mend."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a server is waited for, and how often it is asked again."""

    retries: int = 5
    """Further attempts after a failure, in a row; a connection that brought at least 1 MiB
    begins a new row."""
    timeout: float = 30.0
    """Seconds without an answer or without a byte after which a connection counts as failed."""
    stop: threading.Event = field(default_factory=threading.Event)
    """When set, whoever waits or reads ends with a ``CancelledError``."""

    def __post_init__(self) -> None:
        problems = []
        if self.retries < 0:
            problems.append(f"retries must not be negative, got {self.retries}.")
        if not self.timeout > 0:
            problems.append(f"timeout must be a positive number of seconds, got {self.timeout}.")
        if problems:
            raise ValueError(" ".join(problems))

    def persist(self, attempt: Callable[[], Result], progress: Callable[[], int]) -> Result:
        """The result of the first attempt that succeeds.

        Args:
            attempt: Raises ``Interruption`` if it is worth another one.
            progress: Bytes that were reached so far.

        Raises:
            DownloadError: If more attempts failed in a row than ``retries`` allows.
        """
        reached, failures = progress(), 0
        while True:
            self.raise_if_stopped()
            try:
                return attempt()
            except Interruption as problem:
                if progress() >= reached + _PROGRESS:
                    reached, failures = progress(), 0
                failures += 1
                if failures > self.retries:
                    raise DownloadError(
                        f"Gave up after {failures} failures in a row; the last: {problem}. Run "
                        "the same command again later: it resumes where it stopped."
                    ) from problem
                wait = min(problem.wait or _FIRST_WAIT * 2 ** (failures - 1), _LONGEST_WAIT)
                logger.info("Trying again in %.1f s: %s.", wait, problem)
                self.stop.wait(wait)

    def raise_if_stopped(self) -> None:
        """Ends the calling thread's work after a stop."""
        if self.stop.is_set():
            raise CancelledError


@contextmanager
def open_url(
    session: requests.Session, url: str, patience: Patience, headers: dict[str, str] | None = None
) -> Iterator[requests.Response]:
    """A successful answer, its body still to be read with ``response.raw``.

    Redirects are followed. The body is asked for as it is stored, since a compressed one cannot
    be resumed.

    Raises:
        Interruption: If the connection fails, while it is opened or while it is read.
        DownloadError: If the server refuses for good.
    """
    try:
        with session.get(
            url,
            headers={"Accept-Encoding": "identity"} | (headers or {}),
            stream=True,
            timeout=patience.timeout,
        ) as response:
            _require_success(response, url)
            yield response
    except _CONNECTION_ERRORS as error:
        raise Interruption(f"{url}: {type(error).__name__}: {error}") from error
    except requests.RequestException as error:
        raise DownloadError(f"Cannot fetch '{url}': {error}. Check the address.") from error


def _require_success(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return
    answer = f"{url} answers {status} {response.reason or ''}".rstrip()
    if status in _MENDABLE or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise Interruption(answer, parse_retry_after(response.headers.get("Retry-After")))
    raise DownloadError(
        f"{answer}. Asking again would not help: check the address, and that the file is still "
        "published and open to all."
    )


def parse_retry_after(value: str | None) -> float | None:
    """Seconds that a server asks to wait, given as a number or as a date; None if it does not."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.astimezone(UTC) - datetime.now(UTC)).total_seconds())


@dataclass(kw_only=True)
class Transfer:
    """The way of one file from an address to its place.

    Bytes gather in ``<name>.part`` beside the place; they outlive a failed or killed process and
    are not fetched again. A server that ignores ranges, or whose file changed in between, makes
    the part begin anew. The finished part must have the published size and SHA-256 before it is
    renamed, so a file under its final name is whole.

    Processes that want the same file take turns: the later one waits, finds the file and checks
    it. (The lock belongs to the operating system, which frees it when a process is killed.)
    """

    url: Callable[[], str]
    """Finds the address; called only if something has to be fetched."""
    path: Path
    """Where the file shall lie."""
    num_bytes: int
    """Published size."""
    sha256: str
    """Published SHA-256 in hexadecimal digits."""
    patience: Patience
    on_progress: Callable[[int], None]
    """Called with the number of bytes that are there."""
    _etag: str | None = None

    @property
    def part(self) -> Path:
        """Where the bytes gather."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def num_missing_bytes(self) -> int:
        """What is still to be fetched."""
        return 0 if self.path.exists() else max(0, self.num_bytes - self._part_size())

    def run(self) -> None:
        """Brings the file to its place.

        Raises:
            DownloadError: If it cannot be fetched or stored, or is not what was published.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._claim():
                if self.path.exists():
                    self._require_published()
                else:
                    self._fetch()
        except OSError as error:
            raise self._cannot_store(error) from error
        self.on_progress(self.num_bytes)

    @contextmanager
    def _claim(self) -> Iterator[None]:
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        is_waiting = False
        while not lock.is_locked:
            self.patience.raise_if_stopped()
            try:
                lock.acquire(timeout=_LOCK_POLL)
            except Timeout:
                if not is_waiting:
                    logger.info("Waiting: another process is downloading '%s'.", self.path)
                is_waiting = True
        try:
            yield
            # whoever comes next finds the whole file, so two locks would do no harm
            Path(lock.lock_file).unlink(missing_ok=True)
        finally:
            lock.release()

    def _require_published(self) -> None:
        found = self.path.stat().st_size
        if found != self.num_bytes or not self._is_published(self.path):
            raise DownloadError(
                f"'{self.path}' is not the published file (found: {found} bytes; published: "
                f"{self.num_bytes} bytes with SHA-256 {self.sha256[:12]}...). It was damaged or "
                "changed after its download: move it away and run the same command again."
            )

    def _is_published(self, path: Path) -> bool:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256

    def _fetch(self) -> None:
        for _ in range(_HASH_ATTEMPTS):
            self._complete_part()
            if self._is_published(self.part):
                return self._publish()
            logger.warning("'%s' has the wrong SHA-256; removed.", self.part)
            self.part.unlink()
        raise DownloadError(
            f"What the server sends for '{self.path.name}' does not have the published SHA-256 "
            f"{self.sha256[:12]}... ({_HASH_ATTEMPTS} attempts). The file was replaced or is "
            "damaged on its way: try another network, or report it to the archive."
        )

    def _complete_part(self) -> None:
        if self._part_size() > self.num_bytes:
            self.part.unlink()
        if self._part_size() == self.num_bytes:
            return
        url = self.url()
        with requests.Session() as session:
            self.patience.persist(lambda: self._attempt(session, url), self._part_size)

    def _part_size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self, session: requests.Session, url: str) -> None:
        """One connection: what it brings stays, however it ends."""
        offset = self._part_size()
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and self._etag and not self._etag.startswith("W/"):
            headers["If-Range"] = self._etag
        with open_url(session, url, self.patience, headers) as response:
            is_part = response.status_code == HTTPStatus.PARTIAL_CONTENT
            start = offset if is_part else 0
            self._require_rest(response, start)
            self._append(response, start)

    def _require_rest(self, response: requests.Response, start: int) -> None:
        """Checks that the body is the file from byte ``start`` to its end."""
        etag = response.headers.get("ETag")
        if start and self._etag not in (None, etag):
            self._etag = None
            os.truncate(self.part, 0)
            raise Interruption(f"{response.url}: the file changed (ETag {etag})")
        self._etag = etag
        announced = response.headers.get("Content-Length", str(self.num_bytes - start))
        content_range = response.headers.get("Content-Range")
        if announced != str(self.num_bytes - start) or (
            start and not _is_range(content_range, start, self.num_bytes)
        ):
            raise Interruption(
                f"the server announces {announced} bytes (range: {content_range}) where bytes "
                f"{start} to {self.num_bytes} of '{self.path.name}' are needed"
            )

    def _append(self, response: requests.Response, start: int) -> None:
        with self.part.open("ab") as file:
            if file.tell() > start:
                file.truncate(start)
                file.seek(start)
            while (missing := self.num_bytes - file.tell()) > 0:
                self.patience.raise_if_stopped()
                # read1 hands over what has arrived: a block that a cut leaves half is kept
                block = response.raw.read1(min(_BLOCK, missing), decode_content=False)
                if not block:
                    raise Interruption(f"'{self.path.name}' ended {missing} bytes early")
                file.write(block)
                self.on_progress(file.tell())

    def _publish(self) -> None:
        with self.part.open("rb+") as file:
            os.fsync(file.fileno())
        self.part.replace(self.path)
        if os.name != "nt":  # Windows opens no directories, and journals the rename itself
            directory = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _cannot_store(self, error: OSError) -> DownloadError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            missing = self.num_bytes - self._part_size()
            return DownloadError(
                f"The disk of '{self.path.parent}' is full: '{self.path.name}' needs {missing} "
                "bytes more. Free space and run the same command again; what was fetched is kept."
            )
        return DownloadError(
            f"Cannot store '{self.path}': {error.strerror or error}. Choose another directory, "
            "or mend this one."
        )


def _is_range(content_range: str | None, start: int, num_bytes: int) -> bool:
    match = _CONTENT_RANGE.fullmatch(content_range or "")
    return match is not None and int(match[1]) == start and match[2] in ("*", str(num_bytes))
