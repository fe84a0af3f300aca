"""A snapshot as a tree of nodes: by path, by name, by position, without any table (FORMAT.md, section 8.3).

Every function takes the `BlobSource` to read from, so that a caller may first try the one that never blocks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import NamedTuple, cast

from backthen.repository import format as fmt
from backthen.repository.errors import MalformedError, MissingError, PathNotFound
from backthen.repository.ids import BlobId, SnapshotId
from backthen.repository.model.entry import BlobRef, Entry, EntryType
from backthen.repository.model.page import Child, Page, check_child, decode_links_page, decode_tree_page
from backthen.repository.model.records import Root
from backthen.repository.objects.source import BlobSource

_LINK_NAME = int(EntryType.LINK_NAME)
_type_of = attrgetter("type")


class Node(NamedTuple):
    """An entry at its place in a snapshot.

    Attributes:
        place: position of the name in the snapshot.
        position: position of the inode: `place`, or for a name of a link group that of the group's record.
        name: the raw name.
        entry: the metadata; for a name of a link group that of the group's record, whose `names` is the link count.
    """

    place: int
    position: int
    name: bytes
    entry: Entry


class Leaf(NamedTuple):
    """A stretch of a directory: what stands in one of its pages.

    Attributes:
        place: position of the page's first name in the snapshot.
        page: the page, whose entries for names of link groups have no metadata.
        first: the index in the page of the first entry that is meant; it may be the number of all of them.
    """

    place: int
    page: Page
    first: int

    @property
    def end(self) -> int:
        """The first position behind all that is below the page."""
        return self.place + self.page.count

    @property
    def has_link_names(self) -> bool:
        """Whether a name of a link group is among the entries."""
        return _LINK_NAME in map(_type_of, self.page.items)

    @property
    def names(self) -> list[bytes]:
        """The names that are meant."""
        return self.page.keys[self.first :]

    @property
    def entries(self) -> list[Entry]:
        """Their entries."""
        return cast("list[Entry]", self.page.items[self.first :])

    @property
    def places(self) -> list[int]:
        """Their positions."""
        place = self.place
        return [place + start for start in self.page.starts[self.first : -1]]

    def node_at(self, place: int) -> Node:
        """The node at the position of a name, which is none of a link group."""
        entry = _entry(self.page, self.page.index_at(place - self.place))
        return Node(place, place, entry.name, entry)


@dataclass(frozen=True, slots=True)
class SnapshotTree:
    """The tree of one snapshot. Holds no pages itself."""

    id: SnapshotId
    root: Root

    @property
    def top(self) -> Node:
        """The top directory, at position 0."""
        return Node(0, 0, b"", self.root.top)

    @property
    def position_count(self) -> int:
        """How many positions the snapshot uses: the top, all entries, all link groups."""
        return self._links_start + self.root.link_count

    @property
    def _links_start(self) -> int:
        return 1 + self.root.top.below

    def lookup(self, source: BlobSource, directory: Node, name: bytes) -> Node | None:
        """The child of `directory` called `name`, or None."""
        if directory.entry.page is None:
            return None
        found = _find_key(source, _checked_top(source, directory), name, decode_tree_page)
        if found is None:
            return None
        start, entry = found
        return self._node(source, directory.position + 1 + start, entry)

    def children(self, source: BlobSource, directory: Node, *, after: int = 0) -> Iterator[Node]:
        """The children of `directory` in order, from the first whose `place - directory.position` is above `after`."""
        for leaf in self.leaves(source, directory, after=after):
            yield from self.nodes(source, leaf)

    def leaves(self, source: BlobSource, directory: Node, *, after: int = 0) -> Iterator[Leaf]:
        """The same, page by page; the first one may have no such entry."""
        if directory.entry.page is not None:
            below = directory.position + 1
            for base, page, first in _leaves(source, _checked_page(source, directory.entry), after):
                yield Leaf(below + base, page, first)

    def nodes(self, source: BlobSource, leaf: Leaf) -> Iterator[Node]:
        """The nodes of a leaf."""
        for place, entry in zip(leaf.places, leaf.entries, strict=True):
            if entry.type == _LINK_NAME:
                yield self._node(source, place, entry)
            else:
                yield Node(place, place, entry.name, entry)

    def record_of(self, source: BlobSource, entry: Entry) -> Entry:
        """The metadata behind an entry: itself, or for a name of a link group the group's record."""
        return self._node(source, 0, entry).entry if entry.type == _LINK_NAME else entry

    def at(self, source: BlobSource, position: int) -> Node:
        """The node at a position.

        Raises:
            PathNotFound: the snapshot has no such position.
        """
        if position < 0:
            raise PathNotFound(f"the snapshot {self.id.hex()[:8]} has no position {position}")
        if position == 0:
            return self.top
        if position >= self._links_start:
            return self._link_at(source, position)
        for node in self.route(source, position):
            if node.place == position:
                return node
        raise AssertionError("a route ends at its position")

    def route(self, source: BlobSource, position: int) -> Iterator[Node]:
        """The nodes from below the top down to the name at a position, which must not be 0 or that of a link group.

        Raises:
            MalformedError: the directories do not hold what their entries say.
        """
        directory = self.top
        while directory.place != position:
            ref = _checked_top(source, directory)
            start, entry = _find_start(source, ref, position - directory.position - 1, decode_tree_page)
            place = directory.position + 1 + start
            directory = self._node(source, place, entry) if place == position else Node(place, place, entry.name, entry)
            yield directory

    def resolve(self, source: BlobSource, path: bytes) -> Node:
        """The node at a path of names joined by slashes; no link is followed.

        Raises:
            PathNotFound: there is nothing at the path.
        """
        node = self.top
        for name in path.split(b"/"):
            if name:
                child = self.lookup(source, node, name) if node.entry.is_directory else None
                if child is None:
                    shown = path.strip(b"/").decode(errors="backslashreplace")
                    raise PathNotFound(
                        f"the snapshot {self.id.hex()[:8]} has no {'/' + shown!r}",
                        hint="`backthen ls --recursive` shows what is in it.",
                    )
                node = child
        return node

    def _node(self, source: BlobSource, place: int, entry: Entry) -> Node:
        if entry.type != _LINK_NAME:
            return Node(place, place, entry.name, entry)
        if self.root.links is None:
            raise MissingError("a name of a link group has no record")
        found = _find_key(source, self.root.links, entry.link_group, decode_links_page)
        if found is None:
            raise MissingError("a name of a link group has no record")
        ordinal, record = found
        return Node(place, self._links_start + ordinal, entry.name, record)

    def _link_at(self, source: BlobSource, position: int) -> Node:
        ordinal = position - self._links_start
        if self.root.links is None or ordinal >= self.root.link_count:
            raise PathNotFound(f"the snapshot {self.id.hex()[:8]} has no position {position}")
        _, record = _find_start(source, self.root.links, ordinal, decode_links_page)
        return Node(position, position, b"", record)


def entries_of(source: BlobSource, directory: Entry) -> Iterator[Entry]:
    """The entries of a directory in order as they stand in its pages, where a name of a link group has no metadata."""
    return chain.from_iterable(entry_lists_of(source, directory))


def entry_lists_of(source: BlobSource, directory: Entry) -> Iterator[list[Entry]]:
    """The same, page by page; the lists are not to be changed."""
    if directory.page is not None:
        yield from _entry_lists_below(source, _checked_page(source, directory))


def distinct_leaves(source: BlobSource, directory: Node, seen: set[BlobId]) -> Iterator[tuple[int, Page]]:
    """The leaves of a directory that are not below a page in `seen`, each with the position of its first entry.

    What was read is put into `seen`, so that a next directory gives only what differs. Damaged or missing pages are not
    put there.
    """
    if directory.entry.page is not None and directory.entry.page.id not in seen:
        page = _checked_page(source, directory.entry)
        yield from _distinct_below(source, directory.entry.page.id, page, directory.position + 1, seen)


def _distinct_below(
    source: BlobSource, id_: BlobId, page: Page, base: int, seen: set[BlobId]
) -> Iterator[tuple[int, Page]]:
    if page.level == 0:
        yield base, page
    else:
        for start, child in zip(page.starts, cast("list[Child]", page.items), strict=False):
            if child.id not in seen:
                lower = source.page(child.ref, decode_tree_page)
                check_child(child, lower, parent_level=page.level)
                yield from _distinct_below(source, child.id, lower, base + start, seen)
    seen.add(id_)


def _entry_lists_below(source: BlobSource, page: Page) -> Iterator[list[Entry]]:
    if page.level == 0:
        yield cast("list[Entry]", page.items)
        return
    for item in cast("list[Child]", page.items):
        lower = source.page(item.ref, decode_tree_page)
        check_child(item, lower, parent_level=page.level)
        yield from _entry_lists_below(source, lower)


def _checked_top(source: BlobSource, directory: Node) -> BlobRef:
    """The top page of a directory, held against what the entry says is below."""
    entry = directory.entry
    _checked_page(source, entry)
    assert entry.page is not None
    return entry.page


def _checked_page(source: BlobSource, directory: Entry) -> Page:
    if directory.page is None:
        raise MalformedError("a directory has entries below it but no page")
    page = source.page(directory.page, decode_tree_page)
    if (page.count, page.size) != (directory.below, directory.size):
        raise MalformedError("a directory does not hold what its entry says")
    return page


def _descend(
    source: BlobSource, ref: BlobRef, decode: Callable[[bytes], Page], choose: Callable[[Page, int], int]
) -> tuple[int, Page, int]:
    """Go down to the leaf that `choose` leads to: (positions before the leaf, leaf, index in it; -1 for none)."""
    page = source.page(ref, decode)
    base = 0
    for _ in range(fmt.PAGE_LEVELS_MAX):
        index = choose(page, base)
        if page.level == 0 or index < 0:
            return base, page, index
        child = page.items[index]
        assert isinstance(child, Child)
        base += page.starts[index]
        lower = source.page(child.ref, decode)
        check_child(child, lower, parent_level=page.level)
        page = lower
    raise MalformedError("a page tree is too deep")


def _find_key(
    source: BlobSource, ref: BlobRef, key: bytes, decode: Callable[[bytes], Page]
) -> tuple[int, Entry] | None:
    base, leaf, index = _descend(source, ref, decode, lambda page, _: page.index_of(key))
    if index < 0 or leaf.keys[index] != key:
        return None
    return base + leaf.starts[index], _entry(leaf, index)


def _find_start(source: BlobSource, ref: BlobRef, start: int, decode: Callable[[bytes], Page]) -> tuple[int, Entry]:
    def choose(page: Page, base: int) -> int:
        if start - base >= page.count:
            raise MalformedError("a position lies beyond its page")
        return page.index_at(start - base)

    base, leaf, index = _descend(source, ref, decode, choose)
    return base + leaf.starts[index], _entry(leaf, index)


def _leaves(source: BlobSource, page: Page, after: int) -> Iterator[tuple[int, Page, int]]:
    """Leaves below a page with the positions before each, and the index of the first entry that is meant.

    That is the first one for which 1 + positions exceeds `after`; the first leaf may have no such entry.
    """
    stack: list[tuple[int, Page, int]] = []
    base = 0
    while True:
        before = max(after - base, 0)
        if page.level == 0:
            yield base, page, bisect_left(page.starts, before)
        else:
            stack.append((base, page, min(page.index_at(before), len(page.items) - 1)))
        while stack and stack[-1][2] == len(stack[-1][1].items):
            stack.pop()
        if not stack:
            return
        parent_base, parent, index = stack[-1]
        stack[-1] = (parent_base, parent, index + 1)
        child = parent.items[index]
        assert isinstance(child, Child)
        page = source.page(child.ref, decode_tree_page)
        check_child(child, page, parent_level=parent.level)
        base = parent_base + parent.starts[index]


def _entry(leaf: Page, index: int) -> Entry:
    entry = leaf.items[index]
    assert isinstance(entry, Entry)
    return entry
