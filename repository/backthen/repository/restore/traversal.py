"""Going through the part of a snapshot that is restored, depth first.

Without recursion and with nothing held for what was passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from backthen.repository.content import Node, SnapshotTree
from backthen.repository.errors import DamageError
from backthen.repository.objects.source import BlobSource
from backthen.repository.source import PatternList

_PATH_KEPT_BYTES_MAX = 4096
_SKIPS_MAX = 256
"""As many entries as a page can hold."""


class Selection:
    """Which names are restored."""

    __slots__ = ("_exclude", "_include")

    def __init__(self, include: tuple[str, ...], exclude: tuple[str, ...]) -> None:
        """Compile patterns.

        Raises:
            InvalidRequest: they cannot be compiled.
        """
        self._include = PatternList(include) if include else None
        self._exclude = PatternList(exclude) if exclude else None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self._include is None and self._exclude is None

    def chooses(self, place: Place | None, name: bytes, *, is_directory: bool) -> bool | None:
        """True for what is restored, False for what is left out with all below.

        None where only something below may be.
        """
        if self._exclude is not None:
            path = place.relative if place is not None and self._exclude.needs_paths else b""
            if self._exclude.decide(path, name, is_directory=is_directory) is True:
                return False
        if self._include is None or (place is not None and place.is_selected):
            return True
        path = place.relative if place is not None and self._include.needs_paths else b""
        if self._include.decide(path, name, is_directory=is_directory) is True:
            return True
        return None if is_directory else False


class Place:
    """A directory of the snapshot that is being gone through.

    Attributes:
        node: the directory.
        parent: the one above; None for the directory that stands for the target.
        is_selected: all below is restored that is not excluded.
    """

    __slots__ = ("_path", "children", "is_selected", "node", "parent")

    def __init__(self, node: Node, parent: Place | None, *, is_selected: bool) -> None:
        self.node = node
        self.parent = parent
        self.is_selected = is_selected
        self.children: Iterator[Node] = iter(())
        self._path: bytes | None = b"" if parent is None else None

    @property
    def relative(self) -> bytes:
        """Path below the target, with a slash at its end; empty for the target."""
        if self._path is not None:
            return self._path
        names = [b""]
        above: Place | None = self
        while above is not None and above._path is None:
            names.append(above.node.name)
            above = above.parent
        start = above._path if above is not None and above._path is not None else b""
        path = start + b"/".join(reversed(names))
        if len(path) <= _PATH_KEPT_BYTES_MAX:
            self._path = path
        return path

    def skip(self) -> None:
        """Go through no more of its children."""
        self.children = iter(())


class Entering(NamedTuple):
    """What follows, up to the matching `Leaving`, is below this directory."""

    place: Place


class Found(NamedTuple):
    """A name that is not a directory."""

    place: Place
    node: Node


class Leaving(NamedTuple):
    """The directory is done."""

    place: Place


TraversalEvent = Entering | Found | Leaving


def traverse(
    source: BlobSource,
    tree: SnapshotTree,
    top: Node,
    selection: Selection,
    on_damage: Callable[[bytes, DamageError], None],
) -> Iterator[TraversalEvent]:
    """All that is selected below a directory.

    Args:
        source: where pages are read from.
        tree: the snapshot.
        top: the directory.
        selection: what is restored.
        on_damage: told the relative path of a directory of which an entry cannot be read; the rest goes on.

    Raises:
        StorageError: the storage failed.
    """
    here = Place(top, None, is_selected=False)
    here.children = _children(source, tree, here, on_damage)
    stack = [here]
    yield Entering(here)
    while stack:
        here = stack[-1]
        while (node := next(here.children, None)) is not None:
            is_directory = node.entry.is_directory
            choice = selection.chooses(here, node.name, is_directory=is_directory)
            if choice is False:
                continue
            if not is_directory:
                yield Found(here, node)
                continue
            below = Place(node, here, is_selected=choice is True)
            below.children = _children(source, tree, below, on_damage)
            stack.append(below)
            yield Entering(below)
            break
        else:
            yield Leaving(stack.pop())


def _children(
    source: BlobSource, tree: SnapshotTree, place: Place, on_damage: Callable[[bytes, DamageError], None]
) -> Iterator[Node]:
    """The children of a directory.

    Where an entry is damaged the next position is tried; a damaged page ends the directory.
    """
    after = 0
    for _ in range(_SKIPS_MAX):
        try:
            for node in tree.children(source, place.node, after=after):
                after = node.place - place.node.position + (node.entry.below if node.entry.is_directory else 0)
                yield node
            return
        except DamageError as error:
            on_damage(place.relative, error)
            after += 1
            if after >= place.node.entry.below:
                return
