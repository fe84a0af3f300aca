"""`versions`: the union of all snapshots, in which each file is a folder of its distinct contents.

    versions/<path of a folder>/<every name that was ever in it>/…
    versions/<path of a file>/2026-11-20 10.15.00.odt          each distinct content, ever

Nothing is made before it is asked for: a folder is merged from the distinct pages that it ever had. A path that was a
folder once and a file at another time shows both, its names and its contents.

A folder here has the number of its path's first name, in the oldest snapshot that has it, plus `VERSIONS_START`. So it
is found again from the number alone: what is remembered here is only to save time. The contents are the snapshots' own
files, with their numbers, so that the kernel keeps their pages once; each is that of the oldest snapshot that has it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import overload

from backthen.fsmount.view.attributes import Attributes, Listed, Owner, virtual_directory_attributes
from backthen.fsmount.view.errors import Gone
from backthen.fsmount.view.layout import Located, ShownSnapshot
from backthen.fsmount.view.names import version_name
from backthen.fsmount.view.numbers import VERSIONS_START
from backthen.repository import (
    BlobSource,
    LRUCache,
    NotInMemory,
    Past,
    UnionChild,
    child_past,
    timeline,
    top_past,
    union_children,
)

PAST_STATES_MAX = 32768
"""States of folders and contents of files that are remembered: about 20 MiB."""
CHILDREN_MAX = 16384
"""Names of folders whose numbers and times are remembered: about 7 MiB."""
STATES_AT_ONCE = 16
"""A folder with more states than this is looked into by a thread that may wait, even if all of it is in memory."""

_NOT_THERE = 0
"""In place of a number: file managers look for `.hidden` again and again."""
_MTIME_MIN, _MTIME_MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class VersionsFolder:
    """A folder of the union, as seen through one source; stands where a `VirtualDirectory` would."""

    attributes: Attributes
    _versions: Versions
    _source: BlobSource
    _wait: bool

    def lookup(self, name: bytes) -> Attributes | None:
        """The attributes of a child, or None."""
        return self._versions.lookup(self._source, self.attributes.number, name, wait=self._wait)

    def listing(self) -> Sequence[Listed]:
        """All children."""
        return self._versions.listing(self._source, self.attributes.number, wait=self._wait)


class Versions:
    """The union of the snapshots of one layout. Safe to use from several threads."""

    def __init__(self, snapshots: Sequence[ShownSnapshot], owner: Owner, zone: tzinfo | None, number: int) -> None:
        """Take the snapshots that are shown.

        Args:
            snapshots: in the order of the log.
            owner: to whom the folders belong.
            zone: the times in names are local in this zone; None for the machine's.
            number: that of `versions` itself.
        """
        by_id = {shown.id: shown for shown in snapshots}
        self._trees = timeline([shown.tree for shown in snapshots])
        self._shown = [by_id[tree.id] for tree in self._trees]
        self._index = {tree.id: index for index, tree in enumerate(self._trees)}
        self._by_base = sorted(self._shown, key=lambda shown: shown.base)
        self._bases = [shown.base for shown in self._by_base]
        self._owner = owner
        self._zone = zone
        self._number = number
        self._newest_ns = max((tree.root.started_ns for tree in self._trees), default=0)
        self._pasts: LRUCache[int, Past] = LRUCache(PAST_STATES_MAX, _states)
        self._children: LRUCache[tuple[int, bytes], int] = LRUCache(CHILDREN_MAX)
        self._mtimes: LRUCache[int, int] = LRUCache(CHILDREN_MAX)

    def place(self, source: BlobSource, number: int, *, wait: bool) -> VersionsFolder | None:
        """The folder of a number, or None where it is none of these.

        Raises:
            Gone: the snapshot that gave the number is not shown any more.
            NotInMemory: `wait` is not set, and it takes longer.
            RepositoryError: what is needed cannot be read.
        """
        if number < VERSIONS_START and number != self._number:
            return None
        # What the kernel asks about each name of a long listing is told without looking into the states of each.
        mtime_ns = self._newest_ns if number == self._number else self._mtimes.get(number)
        if mtime_ns is None:
            mtime_ns = self._find(source, number, wait=wait).mtime_ns
        return VersionsFolder(self._attributes(number, mtime_ns), self, source, wait)

    def past_of(self, source: BlobSource, located: Located, *, wait: bool) -> Past:
        """The past of the path of a snapshot's node, which must not be one of several names of a file.

        Raises:
            Gone: the snapshot is not shown any more.
            NotInMemory: `wait` is not set, and it takes longer.
            RepositoryError: what is needed cannot be read.
        """
        snapshot, node = located
        if snapshot.id not in self._index:
            raise Gone("the snapshot is not shown any more")
        return self._find(source, VERSIONS_START + snapshot.base + node.place, wait=wait)

    def seen(self, index: int) -> ShownSnapshot:
        """A snapshot by the index that sightings have."""
        return self._shown[index]

    def lookup(self, source: BlobSource, parent: int, name: bytes, *, wait: bool) -> Attributes | None:
        """The attributes of a child of the folder with the number `parent`, or None."""
        number = self._children.get((parent, name))
        mtime_ns = None if number is None else self._mtimes.get(number)
        if number is not None and mtime_ns is not None:
            return self._attributes(number, mtime_ns)
        past = self._past(source, parent, wait=wait)
        if past is None:
            return None
        found = self._child(source, parent, past, name, wait=wait)
        if found is not None:
            return self._attributes(found[0], found[1].mtime_ns)
        return self._contents(source, past, wait=wait).get(name) if past.contents else None

    def listing(self, source: BlobSource, number: int, *, wait: bool) -> Sequence[Listed]:
        """All children of a folder: what the path held itself, then the names that were below it."""
        if not wait:
            raise NotInMemory  # there may be very many
        past = self._past(source, number, wait=wait)
        if past is None:
            return ()
        contents = self._contents(source, past, wait=wait) if past.contents else {}
        children = union_children(source, self._trees, past) if past.folders else []
        for child in children[:CHILDREN_MAX]:
            self._remember(number, child.name, self._number_of(child.first, child.place), child.mtime_ns)
        return _UnionListing(list(contents.items()), children, self._shown, self._owner)

    def _past(self, source: BlobSource, number: int, *, wait: bool) -> Past | None:
        """The past of a folder's path; None is that of the top where there is no snapshot."""
        return self._top() if number == self._number else self._find(source, number, wait=wait)

    def _number_of(self, first: int, place: int) -> int:
        return VERSIONS_START + self._shown[first].base + place

    def _remember(self, parent: int, name: bytes, number: int, mtime_ns: int) -> None:
        self._children[parent, name] = number
        self._mtimes[number] = mtime_ns

    def _top(self) -> Past | None:
        past = self._pasts.get(self._number)
        if past is None and self._trees:
            past = top_past(self._trees)
            assert past is not None
            self._pasts[self._number] = past
        return past

    def _child(
        self, source: BlobSource, parent: int, past: Past, name: bytes, *, wait: bool
    ) -> tuple[int, Past] | None:
        number = self._children.get((parent, name))
        if number == _NOT_THERE:
            return None
        known = None if number is None else self._pasts.get(number)
        if number is not None and known is not None:
            return number, known
        _check_may_take(past, wait=wait)
        found = child_past(source, self._trees, past, name)
        if found is None:
            self._children[parent, name] = _NOT_THERE
            return None
        first = found.oldest
        number = self._number_of(first.first, first.node.place)
        self._pasts[number] = found
        self._remember(parent, name, number, found.mtime_ns)
        return number, found

    def _find(self, source: BlobSource, number: int, *, wait: bool) -> Past:
        known = self._pasts.get(number)
        if known is not None:
            return known
        if not wait:
            raise NotInMemory
        here, past = self._number, self._top()
        for name in self._path(source, number - VERSIONS_START):
            found = None if past is None else self._child(source, here, past, name, wait=wait)
            assert found is not None, "a name that a snapshot has is in the union"
            here, past = found
        if past is None:
            raise Gone(f"nothing that is shown now has the number {number}")
        return past

    def _path(self, source: BlobSource, number: int) -> list[bytes]:
        index = bisect_left(self._bases, number + 1) - 1
        if index < 0 or number >= self._by_base[index].end:
            raise Gone(f"nothing that is shown now has the number {number}")
        shown = self._by_base[index]
        return [node.name for node in shown.tree.route(source, number - shown.base)]

    def _contents(self, source: BlobSource, past: Past, *, wait: bool) -> dict[bytes, Attributes]:
        """The distinct contents of a path by the names that they are given here, oldest first."""
        found: dict[bytes, Attributes] = {}
        for sighting in past.contents:
            node = sighting.node
            for name in _candidates(node.name, node.entry.mtime_ns, self._zone):
                if name not in found and not self._is_below(source, past, name, wait=wait):
                    found[name] = self._shown[sighting.first].attributes(node)
                    break
        return found

    def _is_below(self, source: BlobSource, past: Past, name: bytes, *, wait: bool) -> bool:
        if not past.folders:
            return False
        _check_may_take(past, wait=wait)
        return child_past(source, self._trees, past, name) is not None

    def _attributes(self, number: int, mtime_ns: int) -> Attributes:
        return virtual_directory_attributes(number, self._owner, mtime_ns)


class _UnionListing(Sequence[Listed]):
    """A folder's frozen listing, of which only what cannot be computed is kept: it may have very many names."""

    def __init__(
        self,
        contents: list[tuple[bytes, Attributes]],
        children: list[UnionChild],
        shown: Sequence[ShownSnapshot],
        owner: Owner,
    ) -> None:
        self._contents = contents
        self._names = [child.name for child in children]
        self._numbers = array("Q", (VERSIONS_START + shown[child.first].base + child.place for child in children))
        self._mtimes = array("q", (min(max(child.mtime_ns, _MTIME_MIN), _MTIME_MAX) for child in children))
        self._owner = owner

    def __len__(self) -> int:
        return len(self._contents) + len(self._names)

    @overload
    def __getitem__(self, index: int) -> Listed: ...

    @overload
    def __getitem__(self, index: slice) -> list[Listed]: ...

    def __getitem__(self, index: int | slice) -> Listed | list[Listed]:
        if isinstance(index, slice):
            return [self._listed(each) for each in range(*index.indices(len(self)))]
        return self._listed(range(len(self))[index])

    def _listed(self, index: int) -> Listed:
        below = index - len(self._contents)
        if below < 0:
            name, found = self._contents[index]
            return Listed(name, found, index + 1)
        found = virtual_directory_attributes(self._numbers[below], self._owner, self._mtimes[below])
        return Listed(self._names[below], found, index + 1)


def _candidates(name: bytes, mtime_ns: int, zone: tzinfo | None) -> Iterator[bytes]:
    """What a content may be called, the best name first."""
    count = 1
    while True:
        yield version_name(name, mtime_ns, zone, count)
        count += 1


def _states(past: Past) -> int:
    return len(past.contents) + len(past.folders)


def _check_may_take(past: Past, *, wait: bool) -> None:
    if not wait and len(past.folders) > STATES_AT_ONCE:
        raise NotInMemory
