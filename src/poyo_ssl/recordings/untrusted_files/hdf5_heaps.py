"""Heaps of text in HDF5 files, checked before libhdf5 reads them: it loops over damaged ones."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MAGIC = b"GCOL\x01\0\0\0"
"""Signature, version and reserved bytes of a global heap collection."""
_HEADER = 16
"""Bytes before the objects of a heap, and before the content of each."""
_LOOKED_AT = 2**24
"""Bytes at either end of a file in which heaps are looked for; all of a file of twice as many."""
_CHUNK = 2**18
"""Bytes that are looked through at a time."""


def find_damaged_heap(path: Path) -> int | None:
    """Where a global heap lies whose objects do not fill it, in bytes from the beginning.

    libhdf5 walks from object to object by their sizes. A wrong one leads among other bytes, and
    where these are zeros it never ends.

    Args:
        path: An HDF5 file with lengths of 8 bytes, as all that are written today.

    Returns:
        None if no such heap was found. Of files above 32 MiB only both ends are looked at.

    References:
        HDF5 File Format Specification Version 3.0, III.E, Disk Format: Global Heap.
    """
    with path.open("rb") as file:
        for start in _starts_of_chunks(path.stat().st_size):
            file.seek(start)
            chunk = file.read(_CHUNK + len(_MAGIC) - 1)
            place = chunk.find(_MAGIC)
            while place >= 0:
                file.seek(start + place)
                if not _is_filled(file):
                    return start + place
                place = chunk.find(_MAGIC, place + 1)
    return None


def _starts_of_chunks(size: int) -> Iterator[int]:
    if size <= 2 * _LOOKED_AT:
        yield from range(0, size, _CHUNK)
        return
    yield from range(0, _LOOKED_AT, _CHUNK)
    yield from range(size - _LOOKED_AT, size, _CHUNK)


def _is_filled(file: BinaryIO) -> bool:
    """Whether objects, and the free space that ends them, fill the heap that begins here.

    One that is cut off, or larger than what is looked at, may.
    """
    header = file.read(_HEADER)
    size = int.from_bytes(header[8:], "little")
    heap = header + file.read(max(0, min(size, _LOOKED_AT) - _HEADER))
    if size > len(heap) or len(header) < _HEADER:
        return True
    place = _HEADER
    while place + _HEADER <= size:
        index, _, _, length = struct.unpack_from("<HHIQ", heap, place)
        if index == 0:
            return bool(place + length == size)
        place += _HEADER + (length + 7) // 8 * 8
    return place <= size
