"""Work that several processes share, on one machine or on many: each piece is done by one of them.

All that they share is a directory. Who does a piece holds the file ``.claim`` in the directory of
the piece, and renews it; who finds it there leaves the piece alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from filelock import SoftFileLease, Timeout

from poyo_ssl.output_directory import require_output
from poyo_ssl.worker_processes import Call, Caller, call_in_processes

Item = TypeVar("Item")

CLAIM = ".claim"
"""File in the directory of a piece of work that someone does."""
_LEASE = 300.0
"""Seconds without a renewal after which others take a claim that another machine made. Network
file systems may show a renewal a minute late. A process of this machine is asked for directly."""
_GLANCE = 1.0
"""Seconds between looks at whether others have finished."""


class Claim:
    """The right to do a piece of work, which one process at a time has.

    Args:
        directory: Where the piece of work writes.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / CLAIM
        self._lease = SoftFileLease(self._path, timeout=0, lease_duration=_LEASE)

    def is_free(self) -> bool:
        """Whether nobody has it; ends that of a process that is gone.

        A machine that is gone cannot be asked. Its claim ends when one object has seen it unchanged
        for five minutes.
        """
        if self._path.exists():
            with suppress(Timeout), self._lease.acquire():
                pass
        return not self._path.exists()

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Takes it if it is free, and gives it back at the end; yields whether it is ours."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lease.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            self._lease.release()

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Takes it as soon as it is free, and gives it back at the end."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._lease.acquire(timeout=-1):
            yield


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """A piece of work; called, it is done unless another process does it."""

    directory: Path
    """Its own; what it makes goes there."""
    results: tuple[str, ...]
    """Names of files in the directory; all are there when it is done."""
    make: Call
    """Does the work, and goes on with what an earlier call left."""
    needed: tuple[Path, ...] = ()
    """Files that must be there before."""

    def is_done(self) -> bool:
        """Whether all of it is there."""
        return all((self.directory / name).is_file() for name in self.results)

    def is_ready(self) -> bool:
        """Whether what it needs is there."""
        return all(path.is_file() for path in self.needed)

    def __call__(self) -> None:
        """Does the work, unless another process does it or has done it."""
        with Claim(self.directory).taken() as is_ours:
            if is_ours and not self.is_done():
                self.make()


@dataclass(frozen=True)
class Part:
    """One of several processes that share the work of a run."""

    number: int
    """From 1 on."""
    count: int
    """How many there are."""

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(
                f"part must be NUMBER/COUNT with a NUMBER from 1 to COUNT, such as 3/8, got "
                f"'{self.number}/{self.count}'."
            )

    @classmethod
    def from_text(cls, text: str) -> Part:
        """The part that a text such as ``3/8`` says."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if found is None:
            raise ValueError(f"part must be NUMBER/COUNT, such as 3/8, got '{text}'.")
        return cls(int(found[1]), int(found[2]))

    def order(self, items: Sequence[Item]) -> list[Item]:
        """All items, its own share first and then those of the following parts."""
        shares = [items[start :: self.count] for start in range(self.count)]
        first = self.number - 1
        return [item for share in [*shares[first:], *shares[:first]] for item in share]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How a process does its part of the work."""

    marker: Path
    """A file of the output directory, which must stay where it is."""
    jobs: int = 0
    """Pieces at a time, one CPU core each; 0 takes every core."""
    call: Caller = call_in_processes
    """Calls pieces, so many at a time, here or elsewhere; yields once after each."""
    is_patient: bool = True
    """Whether to wait until others have finished what they do, and take over what they leave; if
    not, only for pieces that others need."""
    on_progress: Callable[[str, int, int], None] = field(default=lambda stage, done, total: None)
    """Called with a stage's name, pieces done and pieces in all."""

    def do(self, stages: Mapping[str, Sequence[Piece]]) -> None:
        """Does pieces of work until none is left, or none that is not being done elsewhere.

        Args:
            stages: Pieces by the name of their stage, in order.
        """
        claims = {p: Claim(p.directory) for pieces in stages.values() for p in pieces}
        while True:
            found_some = False
            for stage, pieces in stages.items():
                waiting = [piece for piece in pieces if not piece.is_done()]
                free = [p for p in waiting if p.is_ready() and claims[p].is_free()]
                self._call(stage, free, len(pieces) - len(waiting), len(pieces))
                found_some = found_some or bool(free)
            left = [piece for piece in claims if not piece.is_done()]
            if not left:
                return
            if not found_some:
                if not self.is_patient and all(piece.is_ready() for piece in left):
                    return
                time.sleep(_GLANCE)
                require_output(self.marker)

    def _call(self, stage: str, pieces: list[Piece], num_done: int, total: int) -> None:
        """Calls pieces, one core each, so that results do not depend on how many run at once."""
        with closing(self.call(pieces, self.jobs)) as finished:
            for done, _ in enumerate(finished, start=num_done + 1):
                require_output(self.marker)
                self.on_progress(stage, done, total)
