"""The folders around the snapshots: a frozen picture of one list of snapshots. Pure.

    latest -> snapshots/<newest>
    snapshots/<time>_<host>_<id>/…
    hosts/<host>/<time>   tags/<tag>/<time>   dates/<year>/<month>/<day>/<time>      symlinks into `snapshots`
    at/…   versions/…                          made when they are asked for, by modules of their own

A directory can be at one path only, since the kernel moves it where it was seen last; hence the symlinks. When one
snapshot's directory is shown alone, it is node 1 and there is nothing of the above.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from backthen.fsmount.view.attributes import (
    Attributes,
    Describe,
    Listed,
    Owner,
    virtual_directory_attributes,
    virtual_symlink_attributes,
)
from backthen.fsmount.view.errors import Gone, NotADirectory
from backthen.fsmount.view.names import day_names, distinct_prefixes, label_name, time_name
from backthen.fsmount.view.numbers import ROOT_NUMBER, VIRTUAL_START, Prf, SnapshotRanges, VirtualNumbers
from backthen.repository import BlobSource, Leaf, Node, SnapshotId, SnapshotInfo, SnapshotTree


@dataclass(frozen=True, slots=True)
class ShownSnapshot:
    """A snapshot with its range of numbers.

    Attributes:
        base: the number of position 0.
        end: the first number after the range.
        describe: gives the attributes of its entries.
        root_position: the position that has number 1 instead, or -1.
        name: what it is called in `snapshots`.
        host: what its host is called.
    """

    id: SnapshotId
    tree: SnapshotTree
    base: int
    end: int
    describe: Describe
    root_position: int = -1
    name: str = ""
    host: str = ""

    def number(self, position: int) -> int:
        """The number of the inode at a position."""
        return ROOT_NUMBER if position == self.root_position else self.base + position

    def attributes(self, node: Node) -> Attributes:
        """The attributes of a node of the snapshot."""
        return self.describe(node.entry, self.number(node.position))


class Located(NamedTuple):
    """A node and the snapshot that it is in."""

    snapshot: ShownSnapshot
    node: Node


class InLeaf(NamedTuple):
    """A node that was listed: the snapshot, and what holds it."""

    snapshot: ShownSnapshot
    leaf: Leaf

    def located(self, number: int) -> Located:
        """The node at a number, which is that of its name."""
        return Located(self.snapshot, self.leaf.node_at(number - self.snapshot.base))


@dataclass(frozen=True, slots=True)
class VirtualSymlink:
    """A symlink that is in no snapshot."""

    attributes: Attributes
    target: bytes


@dataclass(frozen=True, slots=True)
class VirtualDirectory:
    """A directory that is in no snapshot; its children by name, in order."""

    attributes: Attributes
    children: dict[bytes, Attributes]

    def lookup(self, name: bytes) -> Attributes | None:
        """The attributes of a child, or None."""
        return self.children.get(name)

    def listing(self) -> Sequence[Listed]:
        """All children."""
        children = enumerate(self.children.items(), start=1)
        return [Listed(name, found, cookie) for cookie, (name, found) in children]


@dataclass(frozen=True, slots=True)
class MadeDirectory:
    """A directory whose children are made when they are looked up, and not listed."""

    attributes: Attributes
    lookup: Callable[[bytes], Attributes | None]

    def listing(self) -> Sequence[Listed]:
        """Nothing."""
        return ()


@dataclass(frozen=True, slots=True)
class VirtualFile:
    """A file that is in no snapshot; its text is made when it is opened."""

    attributes: Attributes
    text: Callable[[], bytes]


class Folder(Protocol):
    """A directory that is in no snapshot."""

    @property
    def attributes(self) -> Attributes:
        """Its attributes."""
        ...

    @property
    def lookup(self) -> Callable[[bytes], Attributes | None]:
        """Gives the attributes of a child, or None."""
        ...

    def listing(self) -> Sequence[Listed]:
        """All children as they are at this moment."""
        ...


Place = Located | VirtualFile | VirtualSymlink | Folder


class Maker(Protocol):
    """Makes what is at some numbers when it is asked for."""

    def place(self, source: BlobSource, number: int, *, wait: bool) -> Place | None:
        """What is at a number, or None where it is not one of these.

        Raises:
            Gone: the number once was one of these.
            NotInMemory: `wait` is not set, and it takes longer.
            RepositoryError: what is needed cannot be read.
        """
        ...


_LATEST = b"latest"
"""The one name at the top that is not always there."""


class Layout:
    """Everything that is shown at one time, by number. Never changes.

    Attributes:
        snapshots: those that are shown, by their numbers.
        entry_count: how many entries they have.
        makers: make what is not among the places.
    """

    __slots__ = ("_bases", "_places", "entry_count", "makers", "snapshots")

    def __init__(
        self, snapshots: Sequence[ShownSnapshot], places: dict[int, Place], makers: Sequence[Maker] = ()
    ) -> None:
        self.makers = makers
        self.snapshots = sorted(snapshots, key=lambda shown: shown.base)
        self.entry_count = sum(shown.tree.position_count for shown in snapshots)
        self._bases = [shown.base for shown in self.snapshots]
        self._places = places

    def special(self, number: int) -> Place | None:
        """What is at a number that is not found by its position in a snapshot, or None."""
        return self._places.get(number)

    def never_has(self, number: int, name: bytes) -> bool:
        """Whether a directory around the snapshots lacks a name, and will, whatever snapshots come.

        Programs look for `.hidden`, `.Trash`, `autorun.inf` and the like wherever they are; the storage need not be
        asked then.
        """
        place = self._places.get(number)
        if not isinstance(place, VirtualDirectory) or name in place.children:
            return False
        return name.startswith(b".") or (number == ROOT_NUMBER and name != _LATEST)

    def snapshot(self, number: int) -> ShownSnapshot:
        """The snapshot in whose range a number is.

        Raises:
            Gone: in none.
        """
        index = bisect_right(self._bases, number) - 1
        if index < 0 or number >= self.snapshots[index].end:
            raise Gone(f"nothing that is shown now has the number {number}")
        return self.snapshots[index]


MakeMakers = Callable[[Sequence[ShownSnapshot], Mapping[str, int]], Sequence[Maker]]
"""What makes `at` and `versions`, from the snapshots in the order of the log and the numbers of the two."""
_MADE = ("at", "versions")


def is_lasting(number: int, layout: Layout) -> bool:
    """Whether a number is that of a snapshot's node, whose attributes and children never change."""
    return number < VIRTUAL_START and not isinstance(layout.special(number), VirtualDirectory)


def tree_layout(info: SnapshotInfo, tree: SnapshotTree, node: Node, prf: Prf, describe: Describe) -> Layout:
    """The layout of one snapshot's directory alone.

    Raises:
        NotADirectory: the node is none.
    """
    if not node.entry.is_directory:
        raise NotADirectory("only a directory can be mounted")
    base = SnapshotRanges(prf).assign([(info.id, tree.position_count)])[info.id]
    shown = ShownSnapshot(info.id, tree, base, base + tree.position_count, describe, node.position)
    return Layout([shown], {ROOT_NUMBER: Located(shown, node)})


def history_layout(
    snapshots: Sequence[tuple[SnapshotInfo, SnapshotTree]],
    ranges: SnapshotRanges,
    prf: Prf,
    owner: Owner,
    make: MakeMakers,
    describe: Describe,
) -> Layout:
    """The layout of all snapshots, given oldest first in the order of the log."""
    bases = ranges.assign([(info.id, tree.position_count) for info, tree in snapshots])
    prefixes = distinct_prefixes([info.id for info, _ in snapshots])
    shown = []
    for (info, tree), digits in zip(snapshots, prefixes, strict=True):
        base, host = bases[info.id], label_name(info.host, prf)
        name = f"{time_name(info.started_ns)}_{host}_{digits}"
        shown.append(ShownSnapshot(info.id, tree, base, base + tree.position_count, describe, name=name, host=host))
    root = _arrange([info for info, _ in snapshots], shown, prefixes, prf)
    builder = _Builder(owner, VirtualNumbers(prf))
    builder.add(root, b"")
    top = builder.places[ROOT_NUMBER]
    assert isinstance(top, VirtualDirectory)
    numbers = {kind: top.children[kind.encode()].number for kind in _MADE}
    for number in numbers.values():
        del builder.places[number]
    makers = make(shown, numbers)
    return Layout(shown, builder.places, makers)


class _Link(NamedTuple):
    """A symlink to be: where it leads, and when the snapshot there was made."""

    target: str
    made_ns: int


@dataclass(slots=True)
class _Folder:
    """A virtual directory while it is filled."""

    children: dict[str, _Child] = field(default_factory=dict)
    mtime_ns: int = 0

    def folder(self, *names: str) -> _Folder:
        here = self
        for name in names:
            child = here.children.setdefault(name, _Folder())
            assert isinstance(child, _Folder)
            here = child
        return here

    def link(self, time_ns: int, digits: str, target: str) -> None:
        name = time_name(time_ns)
        if name in self.children:
            name = f"{name}_{digits}"
        self.children[name] = _Link(target, time_ns)


_Child = _Folder | ShownSnapshot | _Link


def _arrange(infos: list[SnapshotInfo], shown: list[ShownSnapshot], prefixes: list[str], prf: Prf) -> _Folder:
    root = _Folder()
    by_kind = {kind: root.folder(kind) for kind in ("snapshots", "hosts", "tags", "dates")}
    for kind in _MADE:
        root.folder(kind).mtime_ns = max((info.started_ns for info in infos), default=0)
    for info, snapshot, digits in zip(infos, shown, prefixes, strict=True):
        time_ns = info.started_ns
        by_kind["snapshots"].children[snapshot.name] = snapshot
        target = f"snapshots/{snapshot.name}"
        by_kind["hosts"].folder(snapshot.host).link(time_ns, digits, f"../../{target}")
        for tag in dict.fromkeys(info.tags):
            by_kind["tags"].folder(label_name(tag, prf)).link(time_ns, digits, f"../../{target}")
        by_kind["dates"].folder(*day_names(time_ns)).link(time_ns, digits, f"../../../../{target}")
        root.children[_LATEST.decode()] = _Link(target, time_ns)
    return root


class _Builder:
    """Turns folders into places with numbers and attributes."""

    def __init__(self, owner: Owner, numbers: VirtualNumbers) -> None:
        self.places: dict[int, Place] = {}
        self._owner = owner
        self._numbers = numbers

    def add(self, folder: _Folder, path: bytes) -> Attributes:
        number = self._numbers.assign(path) if path else ROOT_NUMBER
        children: dict[bytes, Attributes] = {}
        for name, child in sorted(((text.encode(), child) for text, child in folder.children.items()), key=_name):
            below = path + b"/" + name
            if isinstance(child, _Folder):
                children[name] = self.add(child, below)
            elif isinstance(child, ShownSnapshot):
                children[name] = child.attributes(child.tree.top)
            else:
                children[name] = self._add_symlink(below, child.target.encode(), child.made_ns)
        mtime_ns = max((_made_ns(child) for child in folder.children.values()), default=folder.mtime_ns)
        folder.mtime_ns = mtime_ns
        attributes = virtual_directory_attributes(number, self._owner, mtime_ns)
        self.places[number] = VirtualDirectory(attributes, children)
        return attributes

    def _add_symlink(self, path: bytes, target: bytes, time_ns: int) -> Attributes:
        # The kernel may keep where a number points for ever: who points elsewhere is another.
        number = self._numbers.assign(path + b"\0" + target)
        attributes = virtual_symlink_attributes(number, self._owner, time_ns, target)
        self.places[number] = VirtualSymlink(attributes, target)
        return attributes


def _name(item: tuple[bytes, _Child]) -> bytes:
    return item[0]


def _made_ns(child: _Child) -> int:
    if isinstance(child, _Folder):
        return child.mtime_ns
    if isinstance(child, ShownSnapshot):
        return child.tree.root.started_ns
    return child.made_ns
