"""Says what the reader of a file will want next, so that it is opened before it is asked for.

Nothing is expected of a file of which little was read, nor of one that is read here and there.
"""

from __future__ import annotations

from contextlib import suppress

from backthen.repository import BlobSource, Entry, NotInMemory, RepositoryError, expect_file

AHEAD_BYTES_MAX = 8 << 20
"""How far ahead of a reader: what two threads open while he takes a quarter of it."""
STRAY_BYTES = 2 << 20
"""How far from the last one a request may be to count as in order: the kernel makes several at once."""
_STEP_BYTES = 1 << 20
_EAGER_BYTES = 256 << 10
"""Who reads less may look at the beginning alone."""


class Ahead:
    """How far a file was read in order, and what of it was said to come next.

    Threads that meet in it may say something twice.
    """

    __slots__ = ("_begin", "_end", "_expected")

    def __init__(self) -> None:
        """Of a file of which nothing was read."""
        self._begin = 0
        self._end = 0
        self._expected = 0

    def follow(self, near: BlobSource, entry: Entry, offset: int, length: int) -> None:
        """Take note of a request, and say what comes after it, within the bound.

        That is as much as was read in order, or a few times as much where it comes from afar.
        """
        end = offset + length
        if end >= entry.size:
            return
        if abs(offset - self._end) > STRAY_BYTES:
            self._begin, self._end, self._expected = offset, end, end
            return
        self._end = max(self._end, end)
        in_order = self._end - self._begin
        eagerness = near.eagerness if in_order >= _EAGER_BYTES else 1
        wanted = min(self._end + min(in_order * eagerness, AHEAD_BYTES_MAX), entry.size)
        begin = max(self._expected, offset)
        if wanted - begin < _STEP_BYTES and wanted < entry.size:
            return
        # Where the list of extents is not in memory, or damaged, whoever reads there will bring it, or meet it.
        with suppress(NotInMemory, RepositoryError):
            self._expected = expect_file(near, entry, begin, wanted)
