"""From a name of the live file system to its entry, with its content stored."""

from __future__ import annotations

import errno
import os
import stat

import msgspec

from backthen.repository import format as fmt
from backthen.repository.backup.file import EMPTY, BlobSink, FileContent, FileSaver
from backthen.repository.backup.parents import Parents
from backthen.repository.backup.tally import Tally
from backthen.repository.crypto import BlobKind, RepositoryKeys
from backthen.repository.index import LinkTable
from backthen.repository.model.entry import BlobRef, Entry, EntryType, encode_xattrs
from backthen.repository.source import (
    EnterDirectory,
    FileSystems,
    Item,
    OwnerNames,
    Problem,
    Status,
    XattrRead,
    Xattrs,
    entry_type,
    is_changed,
    is_gone,
    is_sparse,
    make_entry,
    open_file,
    read_target,
    read_whole,
    read_xattrs,
    reason_of,
    stretches,
)

_encode_entry = msgspec.msgpack.Encoder().encode


class EntryMaker:
    """Makes the entries of one snapshot. What cannot be saved is told to the tally, and the entry says so."""

    def __init__(self, sink: BlobSink, keys: RepositoryKeys, saver: FileSaver, links: LinkTable, tally: Tally) -> None:
        """Store content through `saver` and the rest into `sink`."""
        self._sink = sink
        self._keys = keys
        self._saver = saver
        self._links = links
        self._tally = tally
        self._owners = OwnerNames()
        self._file_systems = FileSystems()

    def item(self, item: Item, parents: Parents) -> Entry | None:
        """The entry of a name that is not entered; None where it is gone since it was looked at."""
        status = item.status
        if status.st_nlink > 1 and entry_type(status) != EntryType.DIRECTORY:
            return self._link_name(item, parents)
        return self._inode(item, parents)

    def directory(self, event: EnterDirectory, old: Entry | None) -> Entry:
        """The entry of a directory whose contents are still to come; a parent that vouches for it has it as `old`."""
        self._tally.directories += 1
        read, status = event.directory.read_xattrs(), event.status
        if (
            old is not None
            and old.ctime_ns == status.st_ctime_ns
            and old.mtime_ns == status.st_mtime_ns
            and old.mode == stat.S_IMODE(status.st_mode)
            and (old.uid, old.gid) == (status.st_uid, status.st_gid)
            and (old.xattrs, "") == read
            and old.xattr_blob is None
            and not old.error
        ):
            return old
        found = self._xattrs(event.path, read)
        return make_entry(event.name, status, self._owners, xattrs=found[0], xattr_blob=found[1])

    def problem(self, problem: Problem) -> Entry:
        """The entry of a name that could not be examined or entered."""
        self._tally.problem(problem.path, problem.message)
        if problem.status is None:
            return Entry(problem.name, EntryType.UNKNOWN, error=problem.message)
        return make_entry(problem.name, problem.status, self._owners, error=problem.message)

    def _link_name(self, item: Item, parents: Parents) -> Entry | None:
        """One of several names of an inode; the inode is saved at the first of them through which it can be read."""
        top = self._file_systems.top_of_device(item.status.st_dev, item.path)
        group = self._keys.link_group(top, item.status.st_ino)
        if self._links.add_name(group):
            self._count_further_name(item, parents)
        else:
            record = self._inode(item, parents)
            if record is None:
                return None
            self._links.add_record(group, _encode_entry(record), is_complete=not record.error)
        return Entry(item.name, EntryType.LINK_NAME, link_group=group)

    def _count_further_name(self, item: Item, parents: Parents) -> None:
        kind = entry_type(item.status)
        if kind == EntryType.FILE:
            _, is_known = parents.find_unchanged(item.name, kind, item.status)
            self._tally.file(item.path, 0, known=is_known, unchanged=is_known)
        else:
            self._tally.others += 1

    def _inode(self, item: Item, parents: Parents, *, is_second_look: bool = False) -> Entry | None:
        kind = entry_type(item.status)
        old, is_known = parents.find_unchanged(item.name, kind, item.status)
        if old is not None:
            if kind == EntryType.FILE:
                self._tally.file(item.path, old.size, known=True, unchanged=True)
            else:
                self._tally.others += 1
            return old
        try:
            entry = self._file(item, is_known=is_known) if kind == EntryType.FILE else self._other(item, kind)
        except OSError as error:
            if error.errno == errno.ENOENT and is_gone(item.directory.descriptor, item.name):
                return None
            replacing = None if is_second_look else _replacing(item)
            if replacing is not None:
                return self._inode(replacing, parents, is_second_look=True)
            self._tally.problem(item.path, reason_of(error))
            entry = make_entry(item.name, item.status, self._owners, error=reason_of(error))
        if kind == EntryType.DIRECTORY:
            self._tally.directories += 1
        elif kind != EntryType.FILE:
            self._tally.others += 1
        return entry

    def _other(self, item: Item, kind: EntryType) -> Entry:
        target = read_target(item.directory.descriptor, item.name) if kind == EntryType.SYMLINK else b""
        xattrs, blob = self._xattrs(item.path, read_xattrs(item.xattr_source))
        return make_entry(item.name, item.status, self._owners, xattrs=xattrs, xattr_blob=blob, target=target)

    def _file(self, item: Item, *, is_known: bool) -> Entry:
        descriptor, status = open_file(item.directory.descriptor, item.name, item.status)
        try:
            found = read_xattrs(descriptor)
            if status.st_size > fmt.CHUNK_BYTES_MAX:
                self._tally.begin(item.path)
            content = self._content(descriptor, status)
            if is_changed(status, os.fstat(descriptor)):
                self._tally.problem(item.path, "it changed while it was read")
        finally:
            os.close(descriptor)
        xattrs, blob = self._xattrs(item.path, found)
        self._tally.file(item.path, content.size, known=is_known, unchanged=False)
        return make_entry(
            item.name,
            status,
            self._owners,
            xattrs=xattrs,
            xattr_blob=blob,
            size=content.size,
            page=content.page,
            extents=content.extents,
            allocated=content.allocated,
            error=found.problem,
        )

    def _content(self, descriptor: int, status: Status) -> FileContent:
        if status.st_size == 0:
            return EMPTY
        if status.st_size <= fmt.CHUNK_BYTES_MIN and not is_sparse(status):
            return self._saver.save_small(read_whole(descriptor, status.st_size))
        return self._saver.save(descriptor, stretches(descriptor, status))

    def _xattrs(self, path: bytes, found: XattrRead) -> tuple[Xattrs, BlobRef | None]:
        if found.problem:
            self._tally.problem(path, found.problem)
        if not found.xattrs:
            return (), None
        if sum(len(name) + len(value) for name, value in found.xattrs) <= fmt.INLINE_XATTR_BYTES_MAX:
            return found.xattrs, None
        return (), self._sink.put(BlobKind.XATTR, encode_xattrs(found.xattrs))


def _replacing(item: Item) -> Item | None:
    """What has taken the place of a name's inode since it was looked at, which may be a while ago; None for nothing.

    A directory or one of several names of an inode would have had to be met by the walk.
    """
    try:
        status = os.stat(item.name, dir_fd=item.directory.descriptor, follow_symlinks=False)
    except OSError:
        return None
    is_same = (status.st_dev, status.st_ino) == (item.status.st_dev, item.status.st_ino)
    if is_same or stat.S_ISDIR(status.st_mode) or status.st_nlink > 1:
        return None
    return item._replace(status=status)
