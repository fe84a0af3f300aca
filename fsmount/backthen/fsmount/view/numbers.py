"""Inode numbers that are the same at every mount, without a table of inodes.

    1                        the top of the mount
    base + position          entries of a snapshot; base is a 62-bit PRF of the snapshot's id
    2^62 + 61-bit PRF        virtual directories and symlinks, by their path
    2^62 + 2^61              the file that says how the mount fares
    2^63 + base + position   folders of `versions`, by the position of their path in the oldest snapshot that has it

Invariant: the ranges of two snapshots never overlap, and a range once given stays for as long as its snapshot is shown.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable

ROOT_NUMBER = 1
_BASE_MIN = 2
VIRTUAL_START = 1 << 62
_VIRTUAL_MASK = (1 << 61) - 1
STATUS_NUMBER = VIRTUAL_START + _VIRTUAL_MASK + 1
VERSIONS_START = 1 << 63

Prf = Callable[[bytes], int]
"""Bytes to a number below 2^64; keyed, so that nobody can aim for an overlap."""


class SnapshotRanges:
    """Gives each snapshot its range of numbers."""

    def __init__(self, prf: Prf) -> None:
        self._prf = prf
        self._bases: dict[bytes, int] = {}

    def assign(self, snapshots: Iterable[tuple[bytes, int]]) -> dict[bytes, int]:
        """The base of each snapshot's range.

        Args:
            snapshots: (id, how many numbers it needs) in the order of the log, so that on an overlap the later one
            gives way.
        """
        needed = dict(snapshots)
        kept = {id_: base for id_, base in self._bases.items() if id_ in needed}
        taken = sorted((base, base + needed[id_]) for id_, base in kept.items())
        for id_, count in needed.items():
            if id_ not in kept:
                base = self._free_base(id_, count, taken)
                kept[id_] = base
                insort(taken, (base, base + count))
        self._bases = kept
        return {id_: kept[id_] for id_ in needed}

    def _free_base(self, id_: bytes, count: int, taken: list[tuple[int, int]]) -> int:
        data = b"snapshot\0" + id_
        while True:
            base = self._prf(data) >> 2
            if base >= _BASE_MIN and base + count <= VIRTUAL_START and not _overlaps(base, base + count, taken):
                return base
            data += b"\0"


class VirtualNumbers:
    """Gives the virtual directories and symlinks of one listing their numbers."""

    def __init__(self, prf: Prf) -> None:
        self._prf = prf
        self._taken: set[int] = set()

    def assign(self, path: bytes) -> int:
        """The number of a path; on a clash the one that asks later gives way."""
        while True:
            number = virtual_number(self._prf, path)
            if number not in self._taken:
                self._taken.add(number)
                return number
            path += b"\0"


def virtual_number(prf: Prf, path: bytes) -> int:
    """The number of a virtual path, as long as no other one has it."""
    return VIRTUAL_START + (prf(b"virtual\0" + path) & _VIRTUAL_MASK)


def _overlaps(start: int, end: int, taken: list[tuple[int, int]]) -> bool:
    index = bisect_right(taken, (start, end))
    before = index > 0 and taken[index - 1][1] > start
    return before or (index < len(taken) and taken[index][0] < end)
