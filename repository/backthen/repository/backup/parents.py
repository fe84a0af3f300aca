"""The entries of earlier snapshots, walked beside the live tree in its order, so that finding one costs little."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import msgspec

from backthen.repository.content import SnapshotTree, blobs_of, entry_lists_of
from backthen.repository.errors import RepositoryError
from backthen.repository.model.entry import BlobRef, Entry, EntryType
from backthen.repository.objects import BlobSource
from backthen.repository.source import TYPE_BITS, TYPES, Items, Status

_log = logging.getLogger(__name__)
_LINK_NAME = int(EntryType.LINK_NAME)
_KEPT_TYPES = {bits: int(kind) for bits, kind in TYPES.items() if kind != EntryType.DIRECTORY}
_CLOCK_GRANULARITY_NS = 20_000_000
"""File systems stamp times with a clock that ticks every 1 to 10 ms: a change in the tick of a read leaves no trace."""


@dataclass(frozen=True, slots=True)
class Parent:
    """An earlier snapshot, or what an unfinished one left.

    Attributes:
        tree: its tree.
        vouches: it is logged, so everything that it reaches is stored; else each blob is asked for.
    """

    tree: SnapshotTree
    vouches: bool


class Unchanged(NamedTuple):
    """Entries of a parent's directory that are still the same, one after another; `start` of its entries are before."""

    start: int
    entries: list[Entry]


class Place(NamedTuple):
    """An entry of a parent's directory; so many others are before it."""

    before: int
    entry: Entry


class _ParentDirectory:
    """One directory of a parent, asked for its names in ascending order.

    Its entries are looked at page by page: `_index` is where the next one is in the list `_page`, of which
    `_pages_before` entries went before.
    """

    __slots__ = (
        "_index",
        "_is_damaged",
        "_page",
        "_pages",
        "_pages_before",
        "_source",
        "entry",
        "parent",
        "trusted_before_ns",
    )

    def __init__(self, source: BlobSource, parent: Parent, entry: Entry) -> None:
        self._source = source
        self.parent = parent
        self.entry = entry
        self._pages = entry_lists_of(source, entry)
        self._page: list[Entry] = []
        self._pages_before = 0
        self._index = 0
        self._is_damaged = False
        self.trusted_before_ns = parent.tree.root.started_ns - _CLOCK_GRANULARITY_NS

    def find(self, name: bytes) -> Entry | None:
        """The metadata of a name."""
        entry = self._find(name)
        if entry is None or entry.type != _LINK_NAME:
            return entry
        try:
            return self.parent.tree.record_of(self._source, entry)
        except RepositoryError as error:
            self._warn(error)
            return None

    def place(self, name: bytes) -> Place | None:
        """Where a name stands, as it stands there."""
        entry = self._find(name)
        return None if entry is None else Place(self._pages_before + self._index, entry)

    def ends_after(self, count: int) -> bool:
        """Whether there are so many entries and no more, all of which were found; nothing may be asked afterwards."""
        self._index = max(self._index, count - self._pages_before)
        return not self._has_next() and not self._is_damaged

    def enter(self, name: bytes) -> _ParentDirectory | None:
        entry = self._find(name)
        if entry is None or not entry.is_directory:
            return None
        return _ParentDirectory(self._source, self.parent, entry)

    def take_unchanged(self, items: Items, first: int) -> Unchanged:
        """The next entries, as far as they are the items from `first` on, unchanged (see `Parents.find_unchanged`).

        Names of link groups are not among them.
        """
        begin = self._index if self._has_next() else 0
        start, index, trusted_before_ns = self._pages_before + begin, begin, self.trusted_before_ns
        for entry, (name, status) in zip(self._page[begin:], islice(items.found, first, None), strict=False):
            if (
                entry.mtime_ns != status.st_mtime_ns
                or entry.ctime_ns != status.st_ctime_ns
                or entry.name != name
                or entry.size != status.st_size
                or entry.type != _KEPT_TYPES.get(status.st_mode & TYPE_BITS)
                or status.st_nlink > 1
                or status.st_ctime_ns >= trusted_before_ns
                or entry.error
            ):
                break
            index += 1
        self._index = index
        return Unchanged(start, self._page[begin:index])

    def _find(self, name: bytes) -> Entry | None:
        while self._has_next():
            entry = self._page[self._index]
            if entry.name >= name:
                return entry if entry.name == name else None
            self._index += 1
        return None

    def _has_next(self) -> bool:
        """Whether there is a next entry; a damaged parent only costs reading the files again."""
        while self._index == len(self._page):
            self._pages_before += len(self._page)
            self._index = 0
            try:
                self._page = next(self._pages, [])
            except RepositoryError as error:
                self._warn(error)
                self._is_damaged = True
                self._pages, self._page = iter(()), []
            if not self._page:
                return False
        return True

    def _warn(self, error: RepositoryError) -> None:
        _log.warning("the parent snapshot %s cannot be used further: %s", self.parent.tree.id.hex()[:8], error)


class Parents:
    """The same directory in each of the parents, nearest first."""

    __slots__ = ("_directories", "_rely", "_source", "_vouching")

    def __init__(
        self, source: BlobSource, directories: tuple[_ParentDirectory, ...], rely: Callable[[BlobRef], bool]
    ) -> None:
        self._source = source
        self._directories = directories
        self._rely = rely
        self._vouching = next((directory for directory in directories if directory.parent.vouches), None)

    @classmethod
    def at_top(cls, source: BlobSource, parents: list[Parent], rely: Callable[[BlobRef], bool]) -> Parents:
        """The top directories; `rely` tells whether a blob that nobody vouches for is stored."""
        return cls(source, tuple(_ParentDirectory(source, parent, parent.tree.root.top) for parent in parents), rely)

    @property
    def vouched(self) -> Entry | None:
        """This directory in the nearest parent that vouches for all below it."""
        directory = self._vouching
        return None if directory is None else directory.entry

    def place(self, name: bytes) -> Place | None:
        """Where a name stands in the `vouched` directory; names are asked in ascending order."""
        directory = self._vouching
        return None if directory is None else directory.place(name)

    def ends_after(self, count: int) -> bool:
        """Whether the `vouched` directory has so many entries and no more; nothing may be asked afterwards."""
        directory = self._vouching
        return directory is not None and directory.ends_after(count)

    def enter(self, name: bytes) -> Parents:
        """The directory of that name; names are asked in ascending order."""
        entered = (directory.enter(name) for directory in self._directories)
        return Parents(self._source, tuple(each for each in entered if each is not None), self._rely)

    def take_unchanged(self, items: Items, first: int) -> Unchanged | None:
        """The entries of items from `first` on that are unchanged in a nearest parent that vouches for them.

        None when the next item has to be asked for by itself: what this does not find may still be unchanged.
        """
        nearest = self._directories[0] if self._directories else None
        if nearest is None or not nearest.parent.vouches:
            return None
        unchanged = nearest.take_unchanged(items, first)
        return unchanged if unchanged.entries else None

    def find_unchanged(self, name: bytes, kind: EntryType, status: Status) -> tuple[Entry | None, bool]:
        """(the entry of a file whose content and attributes are still the same, whether the name was there at all).

        Times and size must be equal, and older than the tick of the clock in which the parent began. A directory is
        never taken over: what is below it is for the walk to find. Names are asked in ascending order.
        """
        is_known = False
        for directory in self._directories:
            entry = directory.find(name)
            if entry is None:
                continue
            is_known = True
            if (
                entry.mtime_ns == status.st_mtime_ns
                and entry.ctime_ns == status.st_ctime_ns
                and entry.type == kind != EntryType.DIRECTORY
                and (entry.size == status.st_size or kind not in (EntryType.FILE, EntryType.SYMLINK))
                and status.st_ctime_ns < directory.trusted_before_ns
                and not entry.error
                and (directory.parent.vouches or self._is_stored(entry))
            ):
                return _as_single(entry, name), True
        return None, is_known

    def _is_stored(self, entry: Entry) -> bool:
        """Whether all blobs of an entry are stored; a list that cannot be read only costs reading the file again."""
        try:
            return all(map(self._rely, blobs_of(self._source, entry)))
        except RepositoryError as error:
            _log.warning("the unfinished snapshot cannot be used for a file: %s", error)
            return False


def _as_single(entry: Entry, name: bytes) -> Entry:
    """The entry under its own name, where a parent had it as the record of a link group."""
    return entry if entry.name == name else msgspec.structs.replace(entry, name=name, names=0)
