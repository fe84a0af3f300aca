"""The bytes of files and their extended attributes, by offset, holes included."""

from __future__ import annotations

from collections.abc import Iterator

from backthen.repository import format as fmt
from backthen.repository.errors import MalformedError
from backthen.repository.model.entry import BlobRef, Entry, Extent, decode_xattrs, unpack_extents
from backthen.repository.model.page import Child, Page, check_child, decode_list_page
from backthen.repository.objects.source import BlobSource


def extents_from(source: BlobSource, entry: Entry, offset: int) -> Iterator[tuple[int, Extent]]:
    """The extents of a file with their starts, from the one that holds the byte at `offset`."""
    if offset >= entry.size:
        return
    if entry.page is None:
        start = 0
        for extent in unpack_extents(entry.extents):
            if start + extent.length > offset:
                yield start, extent
            start += extent.length
        return
    yield from _list_extents(source, entry.page, offset)


def blobs_of(source: BlobSource, entry: Entry) -> Iterator[BlobRef]:
    """Every blob that an entry which is no directory stands on: chunks, pages of its list, extended attributes."""
    if entry.xattr_blob is not None:
        yield entry.xattr_blob
    waiting = [entry.page] if entry.page is not None else []
    while waiting:
        ref = waiting.pop()
        yield ref
        for item in source.page(ref, decode_list_page).items:
            if isinstance(item, Child):
                waiting.append(item.ref)
    for _, extent in extents_from(source, entry, 0):
        if not extent.is_hole:
            yield BlobRef(extent.id, extent.length)


def read_file(source: BlobSource, entry: Entry, offset: int, length: int) -> bytes | memoryview:
    """Bytes of a file from `offset`, `length` of them or fewer at its end; holes read as zeros.

    Raises:
        MalformedError: the extents do not fill the file.
        RepositoryError: as the source raises.
    """
    parts = read_parts(source, entry, offset, length)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_parts(source: BlobSource, entry: Entry, offset: int, length: int) -> list[bytes | memoryview]:
    """The same as they are in memory, one after the other and not copied.

    Raises:
        MalformedError: the extents do not fill the file.
        RepositoryError: as the source raises.
    """
    end = min(offset + length, entry.size)
    parts: list[bytes | memoryview] = []
    position = offset
    for start, extent in extents_from(source, entry, offset) if offset < end else ():
        inner = position - start
        count = min(extent.length - inner, end - position)
        parts.append(bytes(count) if extent.is_hole else source.read(BlobRef(extent.id, extent.length), inner, count))
        position += count
        if position == end:
            break
    if position < end:
        raise MalformedError("the extents of a file end before the file")
    return parts


def expect_file(source: BlobSource, entry: Entry, begin: int, end: int) -> int:
    """Have bytes `begin` to `end` of a file opened in the background, as far as there is room; to where that is.

    Raises:
        RepositoryError, NotInMemory: as the source raises where it gives the list of extents.
    """
    for start, extent in extents_from(source, entry, begin):
        if start >= end or not (extent.is_hole or source.expect(BlobRef(extent.id, extent.length))):
            break
        begin = start + extent.length
    return begin


def next_data(source: BlobSource, entry: Entry, offset: int) -> int | None:
    """Where the first data of a file at or after `offset` is, or None where there is none.

    Raises:
        RepositoryError: as the source raises.
    """
    if entry.allocated == entry.size:
        return offset if offset < entry.size else None
    return next((max(start, offset) for start, found in extents_from(source, entry, offset) if not found.is_hole), None)


def next_hole(source: BlobSource, entry: Entry, offset: int) -> int | None:
    """Where the first hole of a file at or after `offset` is; its end counts as one. None from the end on.

    Raises:
        RepositoryError: as the source raises.
    """
    if offset >= entry.size:
        return None
    if entry.allocated == entry.size:
        return entry.size
    holes = (max(start, offset) for start, found in extents_from(source, entry, offset) if found.is_hole)
    return next(holes, entry.size)


def read_xattrs(source: BlobSource, entry: Entry) -> tuple[tuple[bytes, bytes], ...]:
    """The extended attributes of an entry as (name, value), sorted by name."""
    if entry.xattr_blob is None:
        return entry.xattrs
    return decode_xattrs(bytes(source.read(entry.xattr_blob)))


def _list_extents(source: BlobSource, ref: BlobRef, offset: int) -> Iterator[tuple[int, Extent]]:
    stack: list[tuple[int, Page, int]] = []
    page = source.page(ref, decode_list_page)
    if offset >= page.size:
        raise MalformedError("the extents of a file end before the file")
    base, index = 0, page.index_at(offset)
    while True:
        if index == len(page.items):
            if not stack:
                return
            base, page, index = stack.pop()
            continue
        start = base + page.starts[index]
        item = page.items[index]
        if isinstance(item, Child):
            if len(stack) > fmt.PAGE_LEVELS_MAX:
                raise MalformedError("an extent list is too deep")
            stack.append((base, page, index + 1))
            lower = source.page(item.ref, decode_list_page)
            check_child(item, lower, parent_level=page.level)
            page, base = lower, start
            index = page.index_at(max(offset - start, 0))
            continue
        index += 1
        assert isinstance(item, Extent)
        yield start, item
