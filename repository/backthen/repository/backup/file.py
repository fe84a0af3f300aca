"""The content of one file: from stretches of data and holes to extents."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from typing_extensions import Buffer

from backthen.repository import format as fmt
from backthen.repository.chunking import Cutter
from backthen.repository.crypto import BlobKind
from backthen.repository.model.entry import HOLE, BlobRef, Extent, pack_extents
from backthen.repository.model.page import BorderPrf, PageWriter
from backthen.repository.source import Stretch


class BlobSink(Protocol):
    """Takes blobs; see `BlobWriter.put`."""

    def put(self, kind: BlobKind, data: Buffer) -> BlobRef:
        """Store a blob if it is not stored yet."""
        ...


class FileContent(NamedTuple):
    """What an entry says of a file's content; sizes in bytes."""

    size: int
    allocated: int
    page: BlobRef | None
    extents: bytes


EMPTY = FileContent(0, 0, None, b"")


class FileSaver:
    """Stores the content of files one after another."""

    def __init__(self, sink: BlobSink, cutter: Cutter, border: BorderPrf, on_bytes: Callable[[int], None]) -> None:
        """Store into `sink`; `on_bytes` is told how many bytes of data were read."""
        self._sink = sink
        self._cutter = cutter
        self._border = border
        self._on_bytes = on_bytes

    def save_small(self, data: bytes) -> FileContent:
        """The content of a file of at most 256 KiB that was read whole."""
        if not data:
            return EMPTY
        ref = self._sink.put(BlobKind.CHUNK, data)
        self._on_bytes(len(data))
        return FileContent(ref.length, ref.length, None, ref.id + ref.length.to_bytes(8, "big"))

    def save(self, descriptor: int, stretches: Iterable[Stretch]) -> FileContent:
        """The content of an open file.

        A file that gets shorter while it is read ends where it ended; one that grows is read up to the size it had.

        Raises:
            OSError: the file cannot be read.
            StorageError, CacheError: the content cannot be stored.
        """
        extents = _ExtentList(self._sink, self._border)
        for stretch in stretches:
            if stretch.is_hole:
                extents.add(Extent(HOLE, stretch.length))
            elif not self._save_data(descriptor, stretch, extents):
                break
        return extents.finish()

    def _save_data(self, descriptor: int, stretch: Stretch, extents: _ExtentList) -> bool:
        """Store one stretch of data; False when the file ended before it did."""
        left = stretch.length

        def read_into(window: memoryview) -> int:
            nonlocal left
            count = os.preadv(descriptor, [window[:left]], stretch.offset + stretch.length - left) if left else 0
            left -= count
            return count

        for chunk in self._cutter.cut(read_into):
            ref = self._sink.put(BlobKind.CHUNK, chunk)
            extents.add(Extent(ref.id, ref.length))
            self._on_bytes(ref.length)
        return left == 0


class _ExtentList:
    """Extents inline while they are few, as pages beyond."""

    def __init__(self, sink: BlobSink, border: BorderPrf) -> None:
        self._sink = sink
        self._border = border
        self._few: list[Extent] = []
        self._writer: PageWriter | None = None
        self._size = 0
        self._allocated = 0

    def add(self, extent: Extent) -> None:
        self._size += extent.length
        self._allocated += 0 if extent.is_hole else extent.length
        if self._writer is not None:
            self._add_to_pages(extent)
            return
        self._few.append(extent)
        if len(self._few) > fmt.INLINE_EXTENTS_MAX:
            self._writer = PageWriter(lambda page: self._sink.put(BlobKind.LIST, page), self._border)
            for earlier in self._few:
                self._add_to_pages(earlier)

    def finish(self) -> FileContent:
        if self._writer is None:
            return FileContent(self._size, self._allocated, None, pack_extents(self._few))
        return FileContent(self._size, self._allocated, self._writer.finish().page, b"")

    def _add_to_pages(self, extent: Extent) -> None:
        assert self._writer is not None
        self._writer.add(extent, extent.id, count=1, size=extent.length)
