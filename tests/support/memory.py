"""Snapshots in memory, made of real directory trees: enough to test what reads the live system and what restores it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import msgspec

from backthen.repository import format as fmt
from backthen.repository.content import SnapshotTree
from backthen.repository.errors import MissingError, TamperedError
from backthen.repository.ids import BlobId, ObjectId, SnapshotId
from backthen.repository.model.entry import (
    HOLE,
    BlobRef,
    Entry,
    EntryType,
    Extent,
    encode_xattrs,
    pack_extents,
)
from backthen.repository.model.page import Page, PageWriter
from backthen.repository.model.records import Root, Statistics
from backthen.repository.source import (
    EnterDirectory,
    ExclusionRules,
    Item,
    Items,
    LeaveDirectory,
    OwnerNames,
    Problem,
    Spill,
    Status,
    Xattrs,
    make_entry,
    open_file,
    read_target,
    read_xattrs,
    reason_of,
    saved_paths,
    stretches,
    walk,
)

_CHUNK_BYTES = 1 << 20


def border(level: int, key: bytes) -> int:
    """A page border function without keys."""
    return int.from_bytes(hashlib.sha256(bytes((level,)) + key).digest()[:8], "big")


class MemoryBlobs:
    """A `BlobSource` over a dict.

    Attributes:
        blobs: plaintext by id.
        damaged: ids of blobs that do not open.
        reads: ids in the order in which they were read, pages not counted.
    """

    def __init__(self) -> None:
        self.blobs: dict[bytes, bytes] = {}
        self.damaged: set[bytes] = set()
        self.reads: list[bytes] = []
        self._pages: dict[bytes, Page] = {}

    def put(self, data: bytes) -> BlobRef:
        """Keep a blob."""
        id_ = BlobId(hashlib.sha256(data).digest())
        self.blobs[id_] = data
        return BlobRef(id_, len(data))

    def damage(self, data: bytes) -> None:
        """The blob of these bytes does not open any more."""
        id_ = hashlib.sha256(data).digest()
        assert id_ in self.blobs
        self.damaged.add(id_)
        self._pages.clear()

    @property
    def eagerness(self) -> int:
        """See `BlobSource.eagerness`."""
        return 1

    def expect(self, ref: BlobRef) -> bool:
        """See `BlobSource.expect`."""
        return True

    def page(self, ref: BlobRef, decode: Callable[[bytes], Page]) -> Page:
        """See `BlobSource.page`."""
        page = self._pages.get(ref.id)
        if page is None:
            page = decode(self._find(ref))
            if len(self._pages) > 1000:
                self._pages.clear()
            self._pages[ref.id] = page
        return page

    def read(self, ref: BlobRef, offset: int = 0, length: int | None = None) -> bytes | memoryview:
        """See `BlobSource.read`."""
        self.reads.append(ref.id)
        data = memoryview(self._find(ref))
        return data[offset:] if length is None else data[offset : offset + length]

    def segment_of(self, ref: BlobRef) -> Hashable:
        """See `BlobSource.segment_of`: four blobs that were put one after another."""
        return list(self.blobs).index(ref.id) // 4 if ref.id in self.blobs else None

    def read_together(self, refs: Sequence[BlobRef]) -> list[bytes | memoryview]:
        """See `BlobSource.read_together`."""
        return [self.read(ref) for ref in refs]

    def _find(self, ref: BlobRef) -> bytes:
        if ref.id in self.damaged:
            raise TamperedError("it was changed", name="packs/00")
        if ref.id not in self.blobs:
            raise MissingError("it is not there", name="packs/00")
        return self.blobs[ref.id]


class MemorySaver:
    """Saves real trees into memory the way a snapshot does, as simply as possible.

    Attributes:
        blobs: where pages and chunks go.
        problems: paths and messages of what could not be saved.
    """

    def __init__(self, spill_folder: Path) -> None:
        self.blobs = MemoryBlobs()
        self.problems: list[tuple[bytes, str]] = []
        self._spill = Spill(spill_folder, lambda block: block[::-1], lambda block: block[::-1])
        self._owners = OwnerNames()
        self._groups: dict[tuple[int, int], tuple[Entry, int]] = {}

    def save(self, *paths: bytes, rules: ExclusionRules | None = None, one_file_system: bool = False) -> SnapshotTree:
        """A snapshot of real paths."""
        self._groups.clear()
        stack: list[tuple[Entry, PageWriter]] = []
        top: Entry | None = None
        saved = saved_paths(paths)
        for event in walk(saved, self._spill, rules=rules, one_file_system=one_file_system):
            if isinstance(event, EnterDirectory):
                xattrs = event.directory.read_xattrs()
                stack.append((self._entry(event.name, event.status, xattrs.xattrs), PageWriter(self.blobs.put, border)))
            elif isinstance(event, LeaveDirectory):
                entry, writer = stack.pop()
                summary = writer.finish()
                entry = msgspec.structs.replace(
                    entry, page=summary.page, below=summary.count, size=summary.size, error=event.error
                )
                top = entry
                if stack:
                    stack[-1][1].add(entry, entry.name, count=1 + entry.below, size=entry.size)
            else:
                names = map(self._name, event.one_by_one()) if isinstance(event, Items) else (self._problem(event),)
                for entry in names:
                    stack[-1][1].add(entry, entry.name, count=1 + entry.below, size=entry.size)
        assert top is not None
        return self._snapshot(top, saved.paths)

    def _snapshot(self, top: Entry, paths: tuple[bytes, ...]) -> SnapshotTree:
        writer = PageWriter(self.blobs.put, border)
        records = {_group_key(*where): record for where, record in self._groups.items()}
        for key, (record, names) in sorted(records.items()):
            writer.add(msgspec.structs.replace(record, name=key, names=names), key, count=1, size=record.size)
        summary = writer.finish()
        return snapshot_tree(top, summary.page, summary.count, paths)

    def _problem(self, problem: Problem) -> Entry:
        self.problems.append((problem.path, problem.message))
        if problem.status is None:
            return Entry(problem.name, EntryType.UNKNOWN, error=problem.message)
        return make_entry(problem.name, problem.status, self._owners, error=problem.message)

    def _name(self, item: Item) -> Entry:
        status = item.status
        if status.st_nlink < 2:
            return self._inode(item)
        where = (status.st_dev, status.st_ino)
        record, names = self._groups.get(where) or (self._inode(item), 0)
        self._groups[where] = (record, names + 1)
        return Entry(item.name, EntryType.LINK_NAME, link_group=_group_key(*where))

    def _inode(self, item: Item) -> Entry:
        directory = item.directory.descriptor
        mode = item.status.st_mode & 0o170000
        if mode == 0o100000:
            return self._file(item)
        target = read_target(directory, item.name) if mode == 0o120000 else b""
        entry = self._entry(item.name, item.status, read_xattrs(item.xattr_source).xattrs)
        return msgspec.structs.replace(entry, target=target, size=len(target))

    def _file(self, item: Item) -> Entry:
        try:
            descriptor, status = open_file(item.directory.descriptor, item.name, item.status)
        except OSError as error:
            self.problems.append((item.path, reason_of(error)))
            return make_entry(item.name, item.status, self._owners, error=reason_of(error))
        extents = []
        for stretch in stretches(descriptor, status):
            if stretch.is_hole:
                extents.append(Extent(HOLE, stretch.length))
                continue
            for offset in range(stretch.offset, stretch.offset + stretch.length, _CHUNK_BYTES):
                end = min(offset + _CHUNK_BYTES, stretch.offset + stretch.length)
                ref = self.blobs.put(os.pread(descriptor, end - offset, offset))
                extents.append(Extent(ref.id, ref.length))
        entry = self._entry(item.name, status, read_xattrs(descriptor).xattrs)
        os.close(descriptor)
        return with_extents(self.blobs, entry, extents)

    def _entry(self, name: bytes, status: Status, xattrs: Xattrs) -> Entry:
        if sum(len(key) + len(value) for key, value in xattrs) <= fmt.INLINE_XATTR_BYTES_MAX:
            return make_entry(name, status, self._owners, xattrs=xattrs)
        return make_entry(name, status, self._owners, xattr_blob=self.blobs.put(encode_xattrs(xattrs)))


def with_extents(blobs: MemoryBlobs, entry: Entry, extents: list[Extent]) -> Entry:
    """A file's entry with its content: inline while that is short, as a list beyond."""
    size = sum(extent.length for extent in extents)
    allocated = sum(extent.length for extent in extents if not extent.is_hole)
    if len(extents) <= fmt.INLINE_EXTENTS_MAX:
        return msgspec.structs.replace(entry, size=size, allocated=allocated, extents=pack_extents(extents))
    writer = PageWriter(blobs.put, border)
    for extent in extents:
        writer.add(extent, extent.id, count=1, size=extent.length)
    return msgspec.structs.replace(entry, size=size, allocated=allocated, page=writer.finish().page)


def snapshot_tree(
    top: Entry, links: BlobRef | None = None, link_count: int = 0, paths: tuple[bytes, ...] = (b"/",)
) -> SnapshotTree:
    """A snapshot of a finished top directory."""
    root = Root(bytes(32), 0, 0, "host", "user", paths, (), top, links, link_count, (), False, "test", (), Statistics())
    return SnapshotTree(SnapshotId(ObjectId(bytes(32))), root)


def directory_of(blobs: MemoryBlobs, name: bytes, entries: list[Entry], *, mode: int = 0o755) -> Entry:
    """A directory made of entries."""
    writer = PageWriter(blobs.put, border)
    for entry in sorted(entries, key=lambda entry: entry.name):
        writer.add(entry, entry.name, count=1 + entry.below, size=entry.size)
    summary = writer.finish()
    return Entry(name, EntryType.DIRECTORY, mode, page=summary.page, below=summary.count, size=summary.size)


def _group_key(device: int, inode: int) -> bytes:
    return hashlib.sha256(b"%d %d" % (device, inode)).digest()[: fmt.GROUP_KEY_BYTES]
