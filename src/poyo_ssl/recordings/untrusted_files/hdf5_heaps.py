"""Heaps of text in HDF5 files, checked before libhdf5 reads them: it loops over damaged ones."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

_MAGIC = b"GCOL\x01\0\0\0"
"""Signature, version and reserved bytes of a global heap collection."""
_HEADER = 16
"""Bytes before the objects of a heap, and before the content of each."""
_LOOKED_AT = 2**24
"""Bytes at either end of a file in which heaps are looked for; all of a file of twice as many."""


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
    for offset, content in _ends(path):
        place = content.find(_MAGIC)
        while place >= 0:
            if not _is_filled(content[place:]):
                return offset + place
            place = content.find(_MAGIC, place + 1)
    return None


def _ends(path: Path) -> Iterator[tuple[int, bytes]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= 2 * _LOOKED_AT:
            yield 0, file.read()
            return
        yield 0, file.read(_LOOKED_AT)
        file.seek(size - _LOOKED_AT)
        yield size - _LOOKED_AT, file.read()


def _is_filled(heap: bytes) -> bool:
    """Whether objects, and the free space that ends them, fill a heap; one that is cut off may."""
    (size,) = struct.unpack_from("<Q", heap, 8)
    if size > len(heap):
        return True  # goes on where nothing is looked at
    place = _HEADER
    while place + _HEADER <= size:
        index, _, _, length = struct.unpack_from("<HHIQ", heap, place)
        if index == 0:
            return bool(place + length == size)
        place += _HEADER + (length + 7) // 8 * 8
    return place <= size
