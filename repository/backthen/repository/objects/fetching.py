"""What to fetch from afar before it is asked for: whoever goes on in order, or walks a tree, does not wait each time.

Who reads here and there gets what they ask for and no more, but for packs of pages: those are small, and whoever reads
one page of one soon reads others. How much is fetched ahead at one time is bounded by `CachedStorage`.
"""

from __future__ import annotations

from backthen.repository import format as fmt
from backthen.repository.bounded import LRUCache
from backthen.repository.ids import PackId
from backthen.repository.index import LocalIndex, PackRecord
from backthen.repository.model.entry import BlobRef, Entry
from backthen.repository.model.page import Child, Page
from backthen.repository.storage import CachedStorage, pack_name

WINDOW_BYTES_MIN = 1 * fmt.MIB
WINDOW_BYTES_MAX = 12 * fmt.MIB
"""How far ahead of a reader is fetched at first, and after it went on in order for a while."""
_PAGES_BYTES_MAX = 4 * fmt.MIB
"""What is fetched ahead of the pages below one page."""
_REMEMBERED = 256


class Prefetcher:
    """Fetches ahead into a cached storage. Safe to use from several threads; nothing waits and nothing fails."""

    def __init__(self, cached: CachedStorage, index: LocalIndex) -> None:
        """Fetch from `cached` what `index` knows."""
        self._cached = cached
        self._index = index
        self._brought: LRUCache[PackId, int] = LRUCache(_REMEMBERED)
        self._fetched: LRUCache[PackId, int] = LRUCache(_REMEMBERED)
        self._in_order_bytes = 0

    def bring(self, pack: PackRecord) -> None:
        """A page of a pack was read: fetch all of it, as much at a time as may be."""
        begin, end = self._brought.get(pack.id) or 0, pack.offsets[-1]
        if begin < end:
            self._brought[pack.id] = self._cached.prefetch(pack_name(pack.id), begin, end - begin)

    def go_on(self, pack: PackRecord, segment: int, *, is_in_order: bool) -> None:
        """A segment is read: fetch what follows in its pack, the more the longer the reader has gone on in order.

        Packs are filled side by side, so who reads in order changes between them now and then: that alone is no reason
        to begin anew. What follows a large chunk is left to who reads the file, and knows where it ends.
        """
        if segment >= len(pack.counts):
            return
        here, after = pack.offsets[segment : segment + 2]
        if is_in_order:
            self._in_order_bytes += after - here
            window = max(2 * self._in_order_bytes, WINDOW_BYTES_MIN)
        else:
            self._in_order_bytes //= 2
            window = self._in_order_bytes
        if window >= WINDOW_BYTES_MIN:
            last = _end_of_run(pack, segment) if pack.is_run(segment) else len(pack.counts)
            begin = max(after, self._fetched.get(pack.id) or 0)
            end = min(after + min(window, WINDOW_BYTES_MAX), pack.offsets[last])
            if begin < end:
                self._fetched[pack.id] = self._cached.prefetch(pack_name(pack.id), begin, end - begin)

    def fetch(self, pack: PackRecord, segments: range) -> bool:
        """Fetch segments of a pack; whether there was room for all of them."""
        begin, end = pack.offsets[segments.start], pack.offsets[segments.stop]
        return self._cached.prefetch(pack_name(pack.id), begin, end - begin) == end

    def is_near(self, pack: PackRecord, segments: range) -> bool:
        """Whether segments are near, or on their way."""
        begin, end = pack.offsets[segments.start], pack.offsets[segments.stop]
        return self._cached.is_near(pack_name(pack.id), begin, end - begin)

    def pages_below(self, page: Page) -> None:
        """A page was read that was not in memory: whoever walks a tree reads those below it next."""
        room = _PAGES_BYTES_MAX
        for item in page.items:
            ref = item.ref if isinstance(item, Child) else item.page if isinstance(item, Entry) else None
            location = None if ref is None else self._index.lookup(ref.id[: fmt.ID_PREFIX_BYTES])
            if ref is not None and location is not None:
                pack = self._index.pack(location)
                segments = segments_of(pack, location.segment, ref)
                if self._brought.get(pack.id) != pack.offsets[-1] and self.fetch(pack, segments):
                    room -= pack.offsets[segments.stop] - pack.offsets[segments.start]
                    if room <= 0:
                        break


def segments_of(pack: PackRecord, first: int, ref: BlobRef) -> range:
    """The segments of a pack in which a blob lies that begins in `first`, as far as there are so many."""
    count = -(-ref.length // fmt.RUN_PIECE_BYTES) if pack.is_run(first) else 1
    return range(first, min(first + count, len(pack.counts)))


def _end_of_run(pack: PackRecord, segment: int) -> int:
    """The first segment behind a piece of a blob that does not belong to the blob."""
    return next((after for after in range(segment + 1, len(pack.counts)) if pack.counts[after]), len(pack.counts))
