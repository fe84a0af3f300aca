"""Writing the content of files, holes included, and comparing it with what is on the disk."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import msgspec

from backthen.repository.content import extents_from, read_xattrs
from backthen.repository.errors import DamageError, MalformedError
from backthen.repository.model.entry import BlobRef, Entry, Extent
from backthen.repository.objects.source import BlobSource
from backthen.repository.source import Xattrs

_ZEROS = bytes(1 << 20)
_WORKERS = 2
_CHUNKS_UNDER_WAY_MAX = 4
"""At most 8 MiB, as a chunk has at most 2 MiB."""
_OWNER_MODE = 0o700


def safe_attributes(source: BlobSource, entry: Entry) -> tuple[Entry, Xattrs, str]:
    """(the entry, its extended attributes, what is wrong with them or empty).

    Where they are damaged the entry is one for its owner alone: a list of who may read it may be among what is lost.

    Raises:
        StorageError: the storage failed.
    """
    try:
        return entry, read_xattrs(source, entry), ""
    except DamageError as error:
        private = msgspec.structs.replace(entry, mode=entry.mode & _OWNER_MODE)
        return private, (), f"its extended attributes are lost, so it is for its owner alone now: {error}"


class ContentWriter:
    """Writes the content of files, the chunks of a large one side by side; close it when done."""

    def __init__(self, source: BlobSource, on_bytes: Callable[[int], None]) -> None:
        """Read chunks from `source`; `on_bytes` is told of each that is written."""
        self._source = source
        self._on_bytes = on_bytes
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="write")

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()

    def write(self, entry: Entry, descriptor: int) -> int:
        """Write a file into an open empty one; returns how many bytes were not in holes.

        Raises:
            OSError: it cannot be written.
            RepositoryError: the content cannot be read from the repository.
        """
        written = 0
        ends_in_hole = False
        under_way: deque[Future[None]] = deque()
        try:
            for start, extent in _checked_extents(self._source, entry):
                ends_in_hole = extent.is_hole
                if ends_in_hole:
                    continue
                if extent.length == entry.size:
                    self._write_chunk(descriptor, start, extent)
                else:
                    if len(under_way) == _CHUNKS_UNDER_WAY_MAX:
                        under_way.popleft().result()
                    under_way.append(self._pool.submit(self._write_chunk, descriptor, start, extent))
                written += extent.length
                self._on_bytes(extent.length)
            while under_way:
                under_way.popleft().result()
        finally:
            if under_way:
                wait(under_way)  # the caller closes the file
        if ends_in_hole:
            os.ftruncate(descriptor, entry.size)
        return written

    def _write_chunk(self, descriptor: int, start: int, extent: Extent) -> None:
        _write_all(descriptor, _read_chunk(self._source, extent), start)


def has_content(source: BlobSource, entry: Entry, descriptor: int, on_bytes: Callable[[int], None]) -> bool:
    """Whether an open file holds exactly the content of an entry; `on_bytes` is told of what was compared.

    Raises:
        OSError: the file cannot be read.
        RepositoryError: the content cannot be read from the repository.
    """
    if os.fstat(descriptor).st_size != entry.size:
        return False
    for start, extent in _checked_extents(source, entry):
        on_bytes(extent.length)
        if extent.is_hole:
            if not _is_zero(descriptor, start, extent.length):
                return False
        elif _read_all(descriptor, start, extent.length) != _read_chunk(source, extent):
            return False
    return True


def _checked_extents(source: BlobSource, entry: Entry) -> Iterator[tuple[int, Extent]]:
    """The extents of a file, which follow one another and fill it."""
    end = 0
    for start, extent in extents_from(source, entry, 0):
        if start != end or extent.length <= 0:
            raise MalformedError("the extents of a file do not follow one another")
        end += extent.length
        if end > entry.size:
            break
        yield start, extent
    if end != entry.size:
        raise MalformedError("the extents of a file do not fill it")


def _read_chunk(source: BlobSource, extent: Extent) -> bytes | memoryview:
    chunk = source.read(BlobRef(extent.id, extent.length))
    if len(chunk) != extent.length:
        raise MalformedError("a chunk has another length than its extent")
    return chunk


def _write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):
        written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)


def _read_all(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            return data
        data += more
    return data


def _is_zero(descriptor: int, offset: int, length: int) -> bool:
    """Whether a stretch reads as zeros; what the file system knows to be a hole is not read."""
    end = offset + length
    while offset < end:
        try:
            offset = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError:
            return True
        if offset >= end:
            return True
        count = min(len(_ZEROS), end - offset)
        if _read_all(descriptor, offset, count) != _ZEROS[:count]:
            return False
        offset += count
    return True
