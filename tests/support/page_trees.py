"""Trees and files made of pages, described in a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backthen.repository import format as fmt
from backthen.repository.content.tree import SnapshotTree
from backthen.repository.ids import ObjectId, SnapshotId
from backthen.repository.model.entry import (
    Entry,
    EntryType,
    Extent,
    pack_extents,
)
from backthen.repository.model.page import (
    PageWriter,
    Summary,
)
from backthen.repository.model.records import Root, Statistics
from tests.support.fixed_keys import fixed_keys
from tests.support.page_blobs import PageBlobs

KEYS = fixed_keys()


def file_entry(name: bytes, size: int = 1) -> Entry:
    """A file of so many bytes, by name."""
    return Entry(name, EntryType.FILE, 0o644, size=size)


def write_pages(entries: Sequence[Entry], blobs: PageBlobs) -> Summary:
    """The pages of a directory with those entries."""
    writer = PageWriter(blobs.put, KEYS.page_border)
    for entry in entries:
        writer.add(entry, entry.name, count=1 + entry.below, size=entry.size)
    return writer.finish()


@dataclass(frozen=True)
class Folder:
    """A directory as the tests describe it: names to folders, files (None) or link groups (their keys)."""

    children: dict[bytes, Folder | bytes | None]


def make_tree(folder: Folder, blobs: PageBlobs, groups: dict[bytes, int]) -> SnapshotTree:
    """A snapshot of a described tree; `groups` gets the number of names of each link group."""
    top = _write_folder(b"", folder, blobs, groups)
    links = PageWriter(blobs.put, KEYS.page_border)
    for key, names in sorted(groups.items()):
        links.add(Entry(key, EntryType.FILE, size=5, link_group=key, names=names), key, count=1, size=5)
    summary = links.finish()
    root = Root(
        bytes(32),
        1,
        2,
        "host",
        "user",
        (b"/",),
        (),
        top,
        summary.page,
        summary.count,
        (),
        False,
        "test",
        (),
        Statistics(),
    )
    return SnapshotTree(SnapshotId(ObjectId(bytes(32))), root)


def _write_folder(name: bytes, folder: Folder, blobs: PageBlobs, groups: dict[bytes, int]) -> Entry:
    entries = []
    for child, what in sorted(folder.children.items()):
        if isinstance(what, Folder):
            entries.append(_write_folder(child, what, blobs, groups))
        elif what is None:
            entries.append(file_entry(child, len(child)))
        else:
            groups[what] = groups.get(what, 0) + 1
            entries.append(Entry(child, EntryType.LINK_NAME, link_group=what))
    summary = write_pages(entries, blobs)
    return Entry(name, EntryType.DIRECTORY, 0o755, size=summary.size, below=summary.count, page=summary.page)


def filled(children: dict[bytes, Folder | bytes | None], count: int) -> Folder:
    """A folder of those children and `count` files."""
    made: dict[bytes, Folder | bytes | None] = {b"f%05d" % number: None for number in range(count)}
    return Folder(made | children)


def file_of_extents(extents: list[Extent], size: int, blobs: PageBlobs) -> Entry:
    """A file of those extents, inline or as pages."""
    if len(extents) <= fmt.INLINE_EXTENTS_MAX:
        return Entry(b"file", EntryType.FILE, size=size, extents=pack_extents(extents))
    writer = PageWriter(blobs.put, KEYS.page_border)
    for extent in extents:
        writer.add(extent, extent.id, count=1, size=extent.length)
    return Entry(b"file", EntryType.FILE, size=size, page=writer.finish().page)
