"""Writing the content of files, holes included, and comparing it with what is on the disk."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import msgspec

from backthen.repository import format as fmt
from backthen.repository.content import extents_from, read_xattrs
from backthen.repository.errors import DamageError, MalformedError
from backthen.repository.model.entry import BlobRef, Entry, Extent, unpack_extents
from backthen.repository.objects.source import BlobSource
from backthen.repository.source import Xattrs

_ZEROS = bytes(1 << 20)
_WORKERS = 2
_BATCHES_UNDER_WAY_MAX = 4
_BATCH_BYTES_MAX = fmt.SEGMENT_BODY_BYTES_MAX
_BATCH_CHUNKS_MAX = 512
"""As many buffers as every system writes in one call."""
_OWNER_MODE = 0o700
_ONE_EXTENT_BYTES = 40


def safe_attributes(source: BlobSource, entry: Entry) -> tuple[Entry, Xattrs, str]:
    """(the entry, its extended attributes, what is wrong with them or empty).

    Where they are damaged the entry is one for its owner alone: a list of who may read it may be among what is lost.

    Raises:
        StorageError: the storage failed.
    """
    if entry.xattr_blob is None:
        return entry, entry.xattrs, ""
    try:
        return entry, read_xattrs(source, entry), ""
    except DamageError as error:
        private = msgspec.structs.replace(entry, mode=entry.mode & _OWNER_MODE)
        return private, (), f"its extended attributes are lost, so it is for its owner alone now: {error}"


def has_one_chunk_at_most(entry: Entry) -> bool:
    """Whether one call writes a file."""
    return entry.page is None and len(entry.extents) <= _ONE_EXTENT_BYTES


class ContentWriter:
    """Writes the content of files, where it may the chunks of a large one side by side; close it when done."""

    def __init__(self, source: BlobSource, on_bytes: Callable[[int], None], *, uses_threads: bool) -> None:
        """Read chunks from `source`; `on_bytes` is told of what is written of a file of several."""
        self._source = source
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="write") if uses_threads else None
        self._on_bytes = on_bytes

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def write_only_chunk(self, entry: Entry, descriptor: int) -> int:
        """Write a file that `has_one_chunk_at_most` likewise, in this thread alone.

        Raises:
            OSError: it cannot be written.
            RepositoryError: the content cannot be read from the repository.
        """
        extent = next(unpack_extents(entry.extents), None)
        if (extent.length if extent is not None else 0) != entry.size:
            raise MalformedError("the extents of a file do not fill it")
        if extent is None:
            return 0
        if extent.is_hole:
            os.ftruncate(descriptor, entry.size)
            return 0
        _write_all(descriptor, [_read_chunk(self._source, extent)], 0)
        return extent.length

    def write(self, entry: Entry, descriptor: int) -> int:
        """Write a file into an open empty one; returns how many bytes were not in holes.

        Raises:
            OSError: it cannot be written.
            RepositoryError: the content cannot be read from the repository.
        """
        written = 0
        under_way: deque[Future[None]] = deque()
        try:
            for batch in _batches(self._source, _checked_extents(self._source, entry)):
                if len(under_way) == _BATCHES_UNDER_WAY_MAX:
                    under_way.popleft().result()
                if self._pool is None:
                    self._write_batch(descriptor, batch)
                else:
                    under_way.append(self._pool.submit(self._write_batch, descriptor, batch))
                written += batch.length
                self._on_bytes(batch.length)
            while under_way:
                under_way.popleft().result()
        finally:
            if under_way:
                wait(under_way)  # the caller closes the file
        if entry.size > written:
            os.ftruncate(descriptor, entry.size)  # it may end in a hole
        return written

    def _write_batch(self, descriptor: int, batch: _Batch) -> None:
        chunks = self._source.read_together(batch.refs)
        if [len(chunk) for chunk in chunks] != [ref.length for ref in batch.refs]:
            raise MalformedError("a chunk has another length than its extent")
        _write_all(descriptor, chunks, batch.start)


class _Batch(NamedTuple):
    """Chunks that follow one another in a file, and lie in one segment."""

    start: int
    length: int
    refs: list[BlobRef]


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


def _batches(source: BlobSource, extents: Iterator[tuple[int, Extent]]) -> Iterator[_Batch]:
    """The chunks of a file, those together that are read and written together; holes are left out."""
    start = length = 0
    refs: list[BlobRef] = []
    segment: Hashable = None
    for offset, extent in extents:
        if extent.is_hole:
            continue
        ref = BlobRef(extent.id, extent.length)
        found = source.segment_of(ref)
        follows = refs and offset == start + length and found == segment is not None
        if not follows or length + extent.length > _BATCH_BYTES_MAX or len(refs) == _BATCH_CHUNKS_MAX:
            if refs:
                yield _Batch(start, length, refs)
            start, length, refs, segment = offset, 0, [], found
        refs.append(ref)
        length += extent.length
    if refs:
        yield _Batch(start, length, refs)


def _write_all(descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> None:
    """Write buffers one after another, in one call where the system takes them in one."""
    written = os.pwritev(descriptor, buffers, offset)
    for buffer in buffers:
        rest = memoryview(buffer)[written:]
        written = max(written - len(buffer), 0)
        offset += len(buffer)
        while rest:
            rest = rest[os.pwrite(descriptor, rest, offset - len(rest)) :]


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
