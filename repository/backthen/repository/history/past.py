"""The past of a path: what was there in any of many snapshots, each distinct content once.

Snapshots that share a directory's page share all that is below it, so they are one case from there on: a path is
resolved once for each distinct page above it, and a folder's names are merged once for each distinct page that it ever
had. The records of link groups are the exception, since they lie in a tree of their own (FORMAT.md, section 8.3): what
is below equal pages is the same only where the snapshots' link groups are too.

Nothing here is kept: a caller that asks for many paths keeps the `Past` of those above them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from backthen.repository.content import Node, SnapshotTree, distinct_leaves
from backthen.repository.errors import PathNotFound, RepositoryError
from backthen.repository.ids import BlobId
from backthen.repository.model.entry import BlobRef, Entry, EntryType
from backthen.repository.model.page import decode_tree_page
from backthen.repository.objects import BlobSource, NotInMemory

Timeline = Sequence[SnapshotTree]
"""Snapshots in the order in which they were begun; the functions below speak of them by their index."""

_DIRECTORY = int(EntryType.DIRECTORY)
_LINK_NAME = int(EntryType.LINK_NAME)
_AHEAD_BYTES = 1024
"""The pages on one path of a snapshot lie in one segment. Where a path is followed name by name through thousands of
snapshots, a segment has left memory when its next name is asked for; so much of what follows is taken out at once."""


class Sighting(NamedTuple):
    """One distinct content of a path.

    Attributes:
        first: the oldest snapshot that has it.
        last: the newest one; those between need not have it.
        node: what is at the path in `first`.
    """

    first: int
    last: int
    node: Node


@dataclass(frozen=True, slots=True)
class Past:
    """All that was ever at one path, where something was.

    Attributes:
        contents: whatever was no directory, oldest first. Two are distinct if their bytes, their types, their targets
            or their device numbers are; other metadata makes no difference. All times at which the content could not be
            read count as one.
        folders: the directory in all its states, oldest first: distinct in what is anywhere below them, as far as
            their pages tell.
        mtime_ns: the latest modification time that anything there ever had.
    """

    contents: tuple[Sighting, ...]
    folders: tuple[Sighting, ...]
    mtime_ns: int

    @property
    def oldest(self) -> Sighting:
        """The one that was seen first."""
        return min(self.contents[:1] + self.folders[:1])

    @property
    def last(self) -> int:
        """The newest snapshot in which anything was there."""
        return max(sighting.last for sighting in self.contents + self.folders)


class UnionChild(NamedTuple):
    """A name that was ever in a folder.

    Attributes:
        first: the oldest snapshot that has it.
        place: its position in that snapshot.
        mtime_ns: as `Past.mtime_ns` of its path.
        is_folder: whether it ever was a directory.
    """

    name: bytes
    first: int
    place: int
    mtime_ns: int
    is_folder: bool


def timeline(trees: Iterable[SnapshotTree]) -> Timeline:
    """Snapshots in the order in which they were begun; those begun at one time stay in the order given."""
    return tuple(sorted(trees, key=lambda tree: tree.root.started_ns))


def top_past(trees: Timeline) -> Past | None:
    """The past of the top directory, or None where there is no snapshot."""
    return _gather(trees, [Sighting(index, index, tree.top) for index, tree in enumerate(trees)])


def child_past(source: BlobSource, trees: Timeline, past: Past, name: bytes) -> Past | None:
    """The past of a name in a folder, or None where it never was there.

    Raises:
        RepositoryError: as the source raises.
        NotInMemory: as the source raises.
    """
    found = []
    for folder in past.folders:
        node = trees[folder.first].lookup(source, folder.node, name)
        if node is not None:
            found.append(Sighting(folder.first, folder.last, node))
            _take_ahead(source, node.entry, _AHEAD_BYTES)
    return _gather(trees, found)


def past_at(source: BlobSource, trees: Timeline, path: bytes) -> Past:
    """The past of a path of names joined by slashes; no link is followed.

    Raises:
        PathNotFound: nothing ever was there.
        RepositoryError: as the source raises.
    """
    past = top_past(trees)
    for name in filter(None, path.split(b"/")):
        past = None if past is None else child_past(source, trees, past, name)
    if past is None:
        shown = path.strip(b"/").decode(errors="backslashreplace")
        raise PathNotFound(
            f"no snapshot has {'/' + shown!r}", hint="`backthen snapshot list` shows which paths were saved."
        )
    return past


def union_children(source: BlobSource, trees: Timeline, past: Past) -> list[UnionChild]:
    """All names that were ever in a folder, sorted.

    Raises:
        RepositoryError: as the source raises.
        NotInMemory: as the source raises.
    """
    seen: set[BlobId] = set()
    found: dict[bytes, UnionChild] = {}
    linked: set[bytes] = set()
    for folder in past.folders:
        room = _AHEAD_BYTES
        for base, leaf in distinct_leaves(source, folder.node, seen):
            for start, entry in zip(leaf.starts, leaf.items, strict=False):
                assert isinstance(entry, Entry)
                if entry.type == _LINK_NAME:
                    linked.add(entry.name)
                elif entry.type == _DIRECTORY:
                    room = _take_ahead(source, entry, room)
                _note(found, entry, folder.first, base + start)
    for name in linked:
        whole = child_past(source, trees, past, name)
        assert whole is not None
        found[name] = found[name]._replace(mtime_ns=whole.mtime_ns)
    return [found[name] for name in sorted(found)]


def find_sighting(past: Past, entry: Entry) -> Sighting | None:
    """The one among the sightings of a path that is what a snapshot has there, or None.

    Args:
        past: of the path.
        entry: its metadata; for a name of a link group that of the group's record.
    """
    if entry.is_directory:
        pages = (sighting for sighting in past.folders if sighting.node.entry.page == entry.page)
        first = next(pages, None)
        if first is None:
            return None
        return first._replace(last=max([first.last, *(sighting.last for sighting in pages)]))
    wanted = _content_key(entry)
    return next((sighting for sighting in past.contents if _content_key(sighting.node.entry) == wanted), None)


def count_contents(past: Past) -> tuple[int, int]:
    """How many distinct contents a path had as something else than a directory, and as a directory."""
    return len(past.contents), len({sighting.node.entry.page for sighting in past.folders})


def _take_ahead(source: BlobSource, entry: Entry, room: int) -> int:
    """Take the pages of a folder and of those below it into memory, as far as they are small; how much room is left."""
    if entry.type == _DIRECTORY and entry.page is not None and entry.page.length <= room:
        room -= entry.page.length
        with suppress(NotInMemory, RepositoryError):  # whoever opens the folder meets the same, and says so
            for item in source.page(entry.page, decode_tree_page).items:
                room = _take_ahead(source, item, room) if isinstance(item, Entry) else room
    return room


def _note(found: dict[bytes, UnionChild], entry: Entry, first: int, place: int) -> None:
    known = found.get(entry.name)
    if known is None:
        found[entry.name] = UnionChild(entry.name, first, place, entry.mtime_ns, entry.is_directory)
    elif entry.mtime_ns > known.mtime_ns or (entry.is_directory and not known.is_folder):
        mtime_ns = max(known.mtime_ns, entry.mtime_ns)
        found[entry.name] = known._replace(mtime_ns=mtime_ns, is_folder=known.is_folder or entry.is_directory)


def _gather(trees: Timeline, sightings: Sequence[Sighting]) -> Past | None:
    """Merge sightings of one path, which come oldest first."""
    if not sightings:
        return None
    contents: dict[object, Sighting] = {}
    folders: dict[object, Sighting] = {}
    for sighting in sightings:
        entry = sighting.node.entry
        if entry.is_directory:
            _merge(folders, (entry.page, trees[sighting.first].root.links), sighting)
        else:
            _merge(contents, _content_key(entry), sighting)
    mtime_ns = max(sighting.node.entry.mtime_ns for sighting in sightings)
    return Past(tuple(contents.values()), tuple(folders.values()), mtime_ns)


def _merge(kept: dict[object, Sighting], key: object, sighting: Sighting) -> None:
    known = kept.get(key)
    if known is None:
        kept[key] = sighting
    elif sighting.last > known.last:
        kept[key] = known._replace(last=sighting.last)


def _content_key(entry: Entry) -> tuple[int, bool, BlobRef | None, bytes, bytes, int, int]:
    if entry.is_content_lost or entry.type == EntryType.UNKNOWN:
        return entry.type, True, None, b"", b"", 0, 0
    return (
        entry.type,
        False,
        entry.page,
        entry.extents,
        entry.target,
        entry.device_major,
        entry.device_minor,
    )
