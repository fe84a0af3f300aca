"""A history that lives in memory: trees made from descriptions, blobs in a dict, and every way of failing at a word."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import blake3
import msgspec

from backthen.repository import (
    BlobSource,
    CacheUse,
    Entry,
    EntryType,
    MissingError,
    NotInMemory,
    RepositoryError,
    SnapshotId,
    SnapshotInfo,
    SnapshotTree,
    StorageState,
    TamperedError,
)
from backthen.repository import format as fmt
from backthen.repository.ids import BlobId, ObjectId
from backthen.repository.model.entry import HOLE, BlobRef, Extent, encode_xattrs, pack_extents
from backthen.repository.model.page import Page, PageWriter
from backthen.repository.model.records import Root, Statistics

NS = 1_000_000_000


def keyed(label: str, data: bytes) -> int:
    """A number below 2^64, as the repository's PRFs give."""
    return int.from_bytes(blake3.blake3(label.encode() + b"\0" + data).digest(8), "big")


@dataclass(eq=False)
class MemoryBlobs:
    """Blobs in a dict. `source` and `near` are two views of it.

    Attributes:
        damaged: blobs that do not open.
        distant: blobs that the near source does not have; all, when it is None.
        gates: blobs that the blocking source gives only when the event is set.
        expected: blobs that were said to be read soon.
        expects_max: how many of those are taken; all, when it is None.
        eagerness: see `BlobSource.eagerness`.
    """

    damaged: set[BlobId] = field(default_factory=set)
    distant: set[BlobId] | None = field(default_factory=set)
    gates: dict[BlobId, threading.Event] = field(default_factory=dict)
    expected: list[BlobId] = field(default_factory=list)
    expects_max: int | None = None
    eagerness: int = 1
    _data: dict[BlobId, bytes] = field(default_factory=dict)
    _pages: dict[BlobId, Page] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._source = _MemorySource(self, is_near=False)
        self._near = _MemorySource(self, is_near=True)

    @property
    def source(self) -> BlobSource:
        return self._source

    @property
    def near(self) -> BlobSource:
        return self._near

    def put(self, data: bytes) -> BlobRef:
        id_ = BlobId(blake3.blake3(data).digest())
        self._data[id_] = data
        return BlobRef(id_, len(data))

    def find(self, ref: BlobRef, *, is_near: bool) -> bytes:
        if is_near and (self.distant is None or ref.id in self.distant or ref.id in self.gates):
            raise NotInMemory
        if ref.id in self.gates:
            self.gates[ref.id].wait()
        if ref.id in self.damaged:
            raise TamperedError("a segment does not open", name="packs/12/1234")
        if ref.id not in self._data:
            raise MissingError("no such blob", name=ref.id.hex())
        return self._data[ref.id]

    def page(self, ref: BlobRef, decode: Callable[[bytes], Page], *, is_near: bool) -> Page:
        data = self.find(ref, is_near=is_near)
        page = self._pages.get(ref.id)
        if page is None:
            page = self._pages[ref.id] = decode(data)
        return page

    def ids(self) -> set[BlobId]:
        """The ids of all blobs."""
        return set(self._data)

    @property
    def size(self) -> int:
        return sum(len(data) for data in self._data.values())


@dataclass(frozen=True)
class _MemorySource:
    blobs: MemoryBlobs
    is_near: bool

    def page(self, ref: BlobRef, decode: Callable[[bytes], Page]) -> Page:
        return self.blobs.page(ref, decode, is_near=self.is_near)

    def read(self, ref: BlobRef, offset: int = 0, length: int | None = None) -> bytes | memoryview:
        data = self.blobs.find(ref, is_near=self.is_near)
        return memoryview(data)[offset : None if length is None else offset + length]

    def segment_of(self, ref: BlobRef) -> Hashable:
        return ref.id

    def read_together(self, refs: Sequence[BlobRef]) -> list[bytes | memoryview]:
        return [self.read(ref) for ref in refs]

    @property
    def eagerness(self) -> int:
        """See `BlobSource.eagerness`."""
        return self.blobs.eagerness

    def expect(self, ref: BlobRef) -> bool:
        if len(self.blobs.expected) == self.blobs.expects_max:
            return False
        self.blobs.expected.append(ref.id)
        return True


@dataclass(frozen=True)
class Name:
    """One of several names of a file: its group, and what the file is."""

    group: bytes
    record: Entry


@dataclass(frozen=True)
class Folder:
    """A directory: its children by name, and what it is itself."""

    children: Mapping[bytes, Entry | Name | Folder]
    entry: Entry = Entry(b"", EntryType.DIRECTORY, 0o755, 1000, 1000, mtime_ns=5 * NS, ctime_ns=6 * NS)


Described = Entry | Name | Folder


class TreeWriter:
    """Writes described trees as pages."""

    def __init__(self, blobs: MemoryBlobs) -> None:
        self._blobs = blobs
        self._links: dict[bytes, list[Entry]] = {}

    def file(
        self, content: bytes | Sequence[bytes | int], *, mode: int = 0o644, error: str = "", **fields: int
    ) -> Entry:
        """A file of one chunk, or of several; a number is a hole of that length."""
        pieces: Sequence[bytes | int] = ([content] if content else []) if isinstance(content, bytes) else content
        extents = [
            Extent(HOLE, piece) if isinstance(piece, int) else Extent(self._blobs.put(piece).id, len(piece))
            for piece in pieces
        ]
        page, packed = None, b""
        if len(extents) > fmt.INLINE_EXTENTS_MAX:
            writer = PageWriter(self._blobs.put, _border)
            for extent in extents:
                writer.add(extent, extent.id, count=1, size=extent.length)
            page = writer.finish().page
        else:
            packed = pack_extents(extents)
        return Entry(
            b"",
            EntryType.FILE,
            mode,
            fields.get("uid", 1000),
            fields.get("gid", 1000),
            mtime_ns=fields.get("mtime_ns", 7 * NS),
            ctime_ns=fields.get("ctime_ns", 8 * NS),
            size=sum(extent.length for extent in extents),
            page=page,
            extents=packed,
            allocated=sum(extent.length for extent in extents if not extent.is_hole),
            error=error,
        )

    def with_xattrs(self, entry: Entry, xattrs: Mapping[bytes, bytes]) -> Entry:
        """The same entry with extended attributes."""
        pairs = tuple(sorted(xattrs.items()))
        if sum(len(name) + len(value) for name, value in pairs) > fmt.INLINE_XATTR_BYTES_MAX:
            return msgspec.structs.replace(entry, xattr_blob=self._blobs.put(encode_xattrs(pairs)))
        return msgspec.structs.replace(entry, xattrs=pairs)

    def write(self, folder: Folder) -> tuple[Entry, BlobRef | None, int]:
        """Write a tree: its top entry, the top page of its link records, how many there are."""
        self._links.clear()
        top = self._write_folder(b"", folder)
        writer = PageWriter(self._blobs.put, _border)
        for key, records in sorted(self._links.items()):
            record = msgspec.structs.replace(records[0], name=key, link_group=key, names=len(records))
            writer.add(record, key, count=1, size=record.size)
        summary = writer.finish()
        return top, summary.page, summary.count

    def _write_folder(self, name: bytes, folder: Folder) -> Entry:
        writer = PageWriter(self._blobs.put, _border)
        for child_name, entry in self._entries(folder):
            writer.add(entry, child_name, count=1 + entry.below, size=entry.size)
        summary = writer.finish()
        return msgspec.structs.replace(
            folder.entry, name=name, page=summary.page, below=summary.count, size=summary.size
        )

    def _entries(self, folder: Folder) -> Iterator[tuple[bytes, Entry]]:
        for name in sorted(folder.children):
            child = folder.children[name]
            if isinstance(child, Folder):
                yield name, self._write_folder(name, child)
            elif isinstance(child, Name):
                key = blake3.blake3(child.group).digest(fmt.GROUP_KEY_BYTES)
                self._links.setdefault(key, []).append(child.record)
                yield name, Entry(name, EntryType.LINK_NAME, link_group=key)
            else:
                yield name, msgspec.structs.replace(child, name=name)


def _border(level: int, key: bytes) -> int:
    return keyed("border", bytes((level,)) + key)


class MemoryHistory:
    """A `History` that lives in memory.

    Attributes:
        failure: what listing the snapshots raises, if anything.
        gate: when it is set, listing waits for it.
        listings: how often the snapshots were listed.
        storage_state: how the storage is said to answer.
    """

    location = "memory"
    cache_uses = (CacheUse("blobs", 1 << 20, 2 << 20),)

    def __init__(self) -> None:
        self.blobs = MemoryBlobs()
        self.writer = TreeWriter(self.blobs)
        self.failure: RepositoryError | None = None
        self.gate: threading.Event | None = None
        self.listings = 0
        self.storage_state = StorageState(7, 3 << 20, 0, None, None, "")
        self._infos: list[SnapshotInfo] = []

    def add(
        self, folder: Folder, *, host: str = "host", tags: tuple[str, ...] = (), started_ns: int = 0
    ) -> SnapshotInfo:
        """A further snapshot, after all others in the log."""
        top, links, link_count = self.writer.write(folder)
        order = len(self._infos)
        id_ = SnapshotId(ObjectId(blake3.blake3(f"{order} {host} {started_ns}".encode()).digest()))
        root = Root(
            nonce=bytes(32),
            started_ns=started_ns,
            ended_ns=started_ns,
            host=host,
            user="me",
            paths=(b"/",),
            tags=tags,
            top=top,
            links=links,
            link_count=link_count,
            parents=(),
            partial=False,
            program="test",
            excludes=(),
            statistics=Statistics(),
        )
        info = SnapshotInfo(id=id_, root=root, tags=tags, order=order, entry_id=ObjectId(id_))
        self._infos = [*self._infos, info]
        return info

    def forget(self, info: SnapshotInfo) -> None:
        """Take a snapshot out of the list."""
        self._infos = [other for other in self._infos if other.id != info.id]

    def snapshots(self) -> Sequence[SnapshotInfo]:
        self.listings += 1
        if self.gate is not None:
            self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return self._infos

    def tree(self, info: SnapshotInfo) -> SnapshotTree:
        return SnapshotTree(info.id, info.root)

    def inode_prf(self, data: bytes) -> int:
        return keyed("inode", data)

    def stored_bytes(self) -> int:
        return self.blobs.size
