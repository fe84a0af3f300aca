"""Growing the tree of a snapshot from entries that come depth first, each directory's in order of their names."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import msgspec

from backthen.repository.backup.file import BlobSink
from backthen.repository.backup.parents import Place, Unchanged
from backthen.repository.content import entries_of
from backthen.repository.crypto import BlobKind, RepositoryKeys
from backthen.repository.index import LinkTable
from backthen.repository.model.entry import BlobRef, Entry
from backthen.repository.model.page import PageWriter, Summary
from backthen.repository.objects import BlobSource

_record_decoder = msgspec.msgpack.Decoder(Entry)


class _OpenDirectory:
    """A directory whose entries are coming; `entry` has its attributes but not yet what is below.

    While the entries are those of the same directory in a parent nothing is encoded: its pages are the parent's. The
    first one that differs has the earlier ones encoded after all.
    """

    __slots__ = ("_matched", "_new_writer", "_old", "_source", "_writer", "entry")

    def __init__(
        self, entry: Entry, old: Entry | None, source: BlobSource, new_writer: Callable[[], PageWriter]
    ) -> None:
        self.entry = entry
        self._old = old
        self._source = source
        self._new_writer = new_writer
        self._matched = 0
        self._writer = new_writer() if old is None else None

    def add_unchanged(self, unchanged: Unchanged) -> None:
        if self._writer is None:
            if unchanged.start == self._matched:
                self._matched += len(unchanged.entries)
                return
            self._writer = self._replayed()
        for entry in unchanged.entries:
            self._writer.add(entry, entry.name, count=1, size=entry.size)

    def add(self, entry: Entry, place: Place | None) -> None:
        if self._writer is None:
            if place is not None and place.before == self._matched and place.entry == entry:
                self._matched += 1
                return
            self._writer = self._replayed()
        self._writer.add(entry, entry.name, count=1 + entry.below, size=entry.size)

    def finished(self, ends_after: Callable[[int], bool]) -> Entry:
        """The entry with all that was added below it; `ends_after` tells whether the parent's has so many entries."""
        if self._writer is None and not ends_after(self._matched):
            self._writer = self._replayed()
        if self._writer is not None:
            return self._with(self._writer.finish())
        assert self._old is not None
        if self.entry is self._old:
            return self._old
        return self._with(Summary(self._old.page, self._old.below, self._old.size))

    def so_far(self, below: Entry | None) -> Entry:
        """The entry as it would be if only `below` came any more; this directory goes on unchanged."""
        writer = self._replayed() if self._writer is None else self._writer.copy()
        if below is not None:
            writer.add(below, below.name, count=1 + below.below, size=below.size)
        return self._with(writer.finish())

    def _replayed(self) -> PageWriter:
        writer = self._new_writer()
        if self._old is not None:
            for entry in islice(entries_of(self._source, self._old), self._matched):
                writer.add(entry, entry.name, count=1 + entry.below, size=entry.size)
        return writer

    def _with(self, summary: Summary) -> Entry:
        return msgspec.structs.replace(self.entry, page=summary.page, below=summary.count, size=summary.size)


class TreeBuilder:
    """The open directories from the top to the current one."""

    def __init__(self, sink: BlobSink, keys: RepositoryKeys, source: BlobSource, top: Entry, old: Entry | None) -> None:
        """Begin with the top directory.

        Args:
            sink: takes the pages.
            keys: the repository's keys.
            source: where a parent's pages are read from.
            top: the top directory's attributes.
            old: the top directory of a parent that vouches for all below it, or None.
        """
        self._sink = sink
        self._keys = keys
        self._source = source
        self._stack = [_OpenDirectory(top, old, source, self._new_writer)]

    def enter(self, entry: Entry, old: Entry | None) -> None:
        """The entries that follow are below this directory, which the parent has as `old`, until `leave`."""
        self._stack.append(_OpenDirectory(entry, old, self._source, self._new_writer))

    def add(self, entry: Entry, place: Place | None) -> None:
        """An entry of the current directory, and where its name stands in the parent's."""
        self._stack[-1].add(entry, place)

    def add_unchanged(self, unchanged: Unchanged) -> None:
        """Entries of the current directory that are the ones of the parent it was entered with."""
        self._stack[-1].add_unchanged(unchanged)

    def leave(self, ends_after: Callable[[int], bool], error: str = "") -> Entry:
        """The current directory is complete, or lacks what `error` says: its entry, to be added to the one above.

        `ends_after` tells whether the parent's has so many entries and no more.
        """
        done = self._stack.pop()
        if error:
            done.entry = msgspec.structs.replace(done.entry, error=error)
        return done.finished(ends_after)

    def so_far(self) -> Entry:
        """The top directory as it would be if nothing more came; the builder goes on unchanged."""
        below: Entry | None = None
        for directory in reversed(self._stack):
            below = directory.so_far(below)
        assert below is not None
        return below

    def _new_writer(self) -> PageWriter:
        return PageWriter(lambda page: self._sink.put(BlobKind.PAGE, page), self._keys.page_border)


def write_links(sink: BlobSink, keys: RepositoryKeys, table: LinkTable) -> tuple[BlobRef | None, int]:
    """The hidden tree of link groups: its top page and how many there are."""
    writer = PageWriter(lambda page: sink.put(BlobKind.PAGE, page), keys.page_border)
    for key, names, encoded in table:
        record = msgspec.structs.replace(_record_decoder.decode(encoded), name=key, names=names)
        writer.add(record, key, count=1, size=record.size)
    summary = writer.finish()
    return summary.page, summary.count
