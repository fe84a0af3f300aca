"""Growing the tree of a snapshot from entries that come depth first, each directory's in order of their names."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from backthen.repository.backup.file import BlobSink
from backthen.repository.crypto import BlobKind, RepositoryKeys
from backthen.repository.index import LinkTable
from backthen.repository.model.entry import BlobRef, Entry
from backthen.repository.model.page import PageWriter, Summary

_record_decoder = msgspec.msgpack.Decoder(Entry)


@dataclass(slots=True)
class _OpenDirectory:
    """A directory whose entries are coming; `entry` has its attributes but not yet what is below."""

    entry: Entry
    writer: PageWriter

    def finished(self, summary: Summary) -> Entry:
        return msgspec.structs.replace(self.entry, page=summary.page, below=summary.count, size=summary.size)


class TreeBuilder:
    """The open directories from the top to the current one."""

    def __init__(self, sink: BlobSink, keys: RepositoryKeys, top: Entry) -> None:
        """Begin with the top directory."""
        self._sink = sink
        self._keys = keys
        self._stack = [_OpenDirectory(top, self._new_writer())]

    def enter(self, entry: Entry) -> None:
        """The entries that follow are below this directory, until `leave`."""
        self._stack.append(_OpenDirectory(entry, self._new_writer()))

    def add(self, entry: Entry) -> None:
        """An entry of the current directory."""
        self._stack[-1].writer.add(entry, entry.name, count=1 + entry.below, size=entry.size)

    def leave(self, error: str = "") -> None:
        """The current directory is complete, or lacks what `error` says."""
        done = self._stack.pop()
        if error:
            done.entry = msgspec.structs.replace(done.entry, error=error)
        self.add(done.finished(done.writer.finish()))

    def finish(self) -> Entry:
        """The top directory, when all others are complete."""
        (top,) = self._stack
        return top.finished(top.writer.finish())

    def so_far(self) -> Entry:
        """The top directory as it would be if nothing more came; the builder goes on unchanged."""
        below: Entry | None = None
        for directory in reversed(self._stack):
            writer = directory.writer.copy()
            if below is not None:
                writer.add(below, below.name, count=1 + below.below, size=below.size)
            below = directory.finished(writer.finish())
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
