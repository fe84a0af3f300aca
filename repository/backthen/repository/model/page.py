"""Pages: the search trees that hold directories, link groups and the extents of long files (FORMAT.md, section 8.1).

Writing: a `PageWriter` is fed items in order and hands finished pages to a `put` function. Reading: `decode_…` give
checked pages in which a key, a position or an offset is found by binary search. Nothing here knows where pages are
kept.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate, islice
from operator import ge

import msgspec

from backthen.repository import format as fmt
from backthen.repository.errors import MalformedError
from backthen.repository.ids import BlobId
from backthen.repository.model.entry import UNDECODABLE, BlobRef, Entry, Extent, check_names

_BORDER_LIMIT = (1 << 64) // fmt.PAGE_BORDER_ONE_IN

BorderPrf = Callable[[int, bytes], int]
"""(level, key) to a number below 2^64; keyed, from the repository's keys."""

PutPage = Callable[[bytes], BlobRef]


class Child(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A page as its parent page names it: first key, blob, positions and bytes under it."""

    first: bytes
    id: BlobId
    length: int
    count: int
    size: int

    @property
    def ref(self) -> BlobRef:
        """The page's blob."""
        return BlobRef(self.id, self.length)


class Summary(msgspec.Struct, frozen=True):
    """What a finished page tree amounts to. `page` is None when nothing was added."""

    page: BlobRef | None
    count: int
    size: int


class _Level:
    """The page being filled on one level."""

    __slots__ = ("count", "encoded", "encoded_bytes", "first", "size")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.encoded: list[bytes] = []
        self.encoded_bytes = 0
        self.first = b""
        self.count = 0
        self.size = 0

    def copy(self) -> _Level:
        other = _Level()
        other.encoded = list(self.encoded)
        other.encoded_bytes, other.first, other.count, other.size = (
            self.encoded_bytes,
            self.first,
            self.count,
            self.size,
        )
        return other


def _array_header(length: int) -> bytes:
    if length < 16:
        return bytes((0x90 | length,))
    return b"\xdc" + length.to_bytes(2, "big")


class PageWriter:
    """Builds the pages of one sorted sequence, holding one open page for each level.

    The result depends on the sequence alone: equal sequences give equal pages, whatever their history.
    """

    __slots__ = ("_border", "_encode", "_levels", "_put")

    def __init__(self, put: PutPage, border: BorderPrf) -> None:
        self._put = put
        self._border = border
        self._encode = msgspec.msgpack.Encoder().encode
        self._levels = [_Level()]

    def add(self, item: Entry | Extent, key: bytes, *, count: int, size: int) -> None:
        """Append one item.

        Args:
            item: the entry or extent.
            key: what it is sorted and split by.
            count: positions it takes.
            size: bytes it stands for.
        """
        self._add(0, self._encode(item), key, count, size)

    def copy(self) -> PageWriter:
        """An independent writer with the same items so far, to finish a part while the whole goes on."""
        other = PageWriter(self._put, self._border)
        other._levels = [level.copy() for level in self._levels]
        return other

    def finish(self) -> Summary:
        """Put all open pages and return the top one. The writer must not be used afterwards."""
        if not self._levels[0].encoded and len(self._levels) == 1:
            return Summary(None, 0, 0)
        number = 0
        while True:
            level = self._levels[number]
            is_top = number == len(self._levels) - 1
            if is_top and number and len(level.encoded) == 1:
                only = msgspec.msgpack.decode(level.encoded[0], type=Child)
                return Summary(only.ref, only.count, only.size)
            if level.encoded:
                child = self._close(number)
                if is_top:
                    return Summary(child.ref, child.count, child.size)
                self._add_child(number + 1, child)
            number += 1

    def _add(self, number: int, encoded: bytes, key: bytes, count: int, size: int) -> None:
        level = self._levels[number]
        if not level.encoded:
            level.first = key
        level.encoded.append(encoded)
        level.encoded_bytes += len(encoded)
        level.count += count
        level.size += size
        items = len(level.encoded)
        if items < fmt.PAGE_ITEMS_MIN and level.encoded_bytes < fmt.PAGE_ITEM_BYTES_MAX:
            return
        if (
            items >= fmt.PAGE_ITEMS_MAX
            or level.encoded_bytes >= fmt.PAGE_ITEM_BYTES_MAX
            or self._border(number, key) < _BORDER_LIMIT
        ):
            self._add_child(number + 1, self._close(number))

    def _close(self, number: int) -> Child:
        level = self._levels[number]
        header = b"\x92" + bytes((number,)) + _array_header(len(level.encoded))
        ref = self._put(header + b"".join(level.encoded))
        child = Child(level.first, ref.id, ref.length, level.count, level.size)
        level.clear()
        return child

    def _add_child(self, number: int, child: Child) -> None:
        if number == fmt.PAGE_LEVELS_MAX:
            raise AssertionError("a page tree grew beyond its highest level")
        if number == len(self._levels):
            self._levels.append(_Level())
        self._add(number, self._encode(child), child.first, child.count, child.size)


class Page:
    """A decoded page with what is needed to search it.

    `items` are entries, extents or children; `starts[i]` is how many positions (or for lists of extents: bytes) come
    before item i
    in this page, with the total as last element.
    """

    __slots__ = ("count", "first", "items", "keys", "level", "size", "starts")

    def __init__(
        self,
        level: int,
        items: list[Entry] | list[Extent] | list[Child],
        keys: list[bytes],
        counts: list[int],
        sizes: list[int],
        *,
        by_size: bool,
    ) -> None:
        self.level = level
        self.items = items
        self.keys = keys
        self.first = keys[0]
        self.count = sum(counts)
        self.size = sum(sizes)
        self.starts = [0, *accumulate(sizes if by_size else counts)]

    def index_at(self, start: int) -> int:
        """The index of the item that holds the position or byte `start`, which must be below the total."""
        return bisect_right(self.starts, start) - 1

    def index_of(self, key: bytes) -> int:
        """The index of the last item whose key is not above `key`, or -1."""
        return bisect_right(self.keys, key) - 1


_level_decoder = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw])
_entries_decoder = msgspec.msgpack.Decoder(list[Entry])
_extents_decoder = msgspec.msgpack.Decoder(list[Extent])
_children_decoder = msgspec.msgpack.Decoder(list[Child])


def decode_tree_page(data: bytes) -> Page:
    """A page of a directory.

    Raises:
        MalformedError: it does not follow the format, or holds a name that is not safe.
    """
    page = _decode_entries(data)
    if page.level == 0:
        check_names(page.keys)
    return page


def decode_links_page(data: bytes) -> Page:
    """A page of the records of link groups, whose keys are group keys and not names.

    Raises:
        MalformedError: it does not follow the format.
    """
    page = _decode_entries(data)
    if any(len(key) != fmt.GROUP_KEY_BYTES for key in page.keys):
        raise MalformedError("a link group has a key of the wrong length")
    if page.level == 0 and page.count != len(page.keys):
        raise MalformedError("a link group cannot have entries below it")
    return page


def _decode_entries(data: bytes) -> Page:
    try:
        level, raw = _level_decoder.decode(data)
        if level:
            return _decode_children(level, raw, by_size=False, ascending=True)
        entries = _entries_decoder.decode(raw)
    except UNDECODABLE as error:
        raise MalformedError(f"a directory page cannot be decoded ({error})") from error
    names = [entry.name for entry in entries]
    _check_ascending(names)
    counts = [1 + entry.below for entry in entries]
    return Page(0, entries, names, counts, [entry.size for entry in entries], by_size=False)


def decode_list_page(data: bytes) -> Page:
    """A page of a long file's extents; `starts` are byte offsets.

    Raises:
        MalformedError: it does not follow the format.
    """
    try:
        level, raw = _level_decoder.decode(data)
        if level:
            return _decode_children(level, raw, by_size=True, ascending=False)
        extents = _extents_decoder.decode(raw)
    except UNDECODABLE as error:
        raise MalformedError(f"an extent page cannot be decoded ({error})") from error
    if not extents or any(extent.length <= 0 for extent in extents):
        raise MalformedError("an extent page is empty or has an empty extent")
    lengths = [extent.length for extent in extents]
    return Page(0, extents, [extent.id for extent in extents], [1] * len(extents), lengths, by_size=True)


def _decode_children(level: int, raw: msgspec.Raw, *, by_size: bool, ascending: bool) -> Page:
    if not 0 < level < fmt.PAGE_LEVELS_MAX:
        raise MalformedError("a page has an impossible level")
    children = _children_decoder.decode(raw)
    firsts = [child.first for child in children]
    if ascending:
        _check_ascending(firsts)
    if not children or any(child.count <= 0 or child.size < 0 for child in children):
        raise MalformedError("an inner page is empty or has an empty child")
    counts = [child.count for child in children]
    return Page(level, children, firsts, counts, [child.size for child in children], by_size=by_size)


def _check_ascending(keys: list[bytes]) -> None:
    if not keys:
        raise MalformedError("a page is empty")
    if any(map(ge, keys, islice(keys, 1, None))):
        raise MalformedError("the keys of a page are not in order")


def check_child(child: Child, page: Page, *, parent_level: int) -> None:
    """Hold a loaded page against what its parent page says of it.

    Raises:
        MalformedError: level, first key, count or size differ.
    """
    found = (page.level + 1, page.first, page.count, page.size)
    if found != (parent_level, child.first, child.count, child.size):
        raise MalformedError("a page is not what the page above it says")
