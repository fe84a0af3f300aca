"""Making what is not a directory: written under a temporary name in its own folder, given its attributes, then renamed.

So a name holds the old thing or the whole new one, and what is damaged in the repository never stays. Only what one
call writes into a directory made by this restore has its own name at once: renames are a sixth of the time.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat

from backthen.repository.content import read_xattrs as stored_xattrs
from backthen.repository.errors import MalformedError
from backthen.repository.model.entry import Entry, EntryType
from backthen.repository.objects.source import BlobSource
from backthen.repository.restore.attributes import AttributeSetter
from backthen.repository.restore.content import ContentWriter, has_one_chunk_at_most, safe_attributes
from backthen.repository.restore.folders import Folder
from backthen.repository.restore.tally import Note, Tally
from backthen.repository.source import path_in, path_of, read_target, read_xattrs

_TEMPORARY_MODE = 0o600
_CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NODE_BITS: dict[int, int] = {
    EntryType.FIFO: stat.S_IFIFO,
    EntryType.SOCKET: stat.S_IFSOCK,
    EntryType.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryType.BLOCK_DEVICE: stat.S_IFBLK,
}
_TYPE_BITS: dict[int, int] = {**_NODE_BITS, EntryType.FILE: stat.S_IFREG, EntryType.SYMLINK: stat.S_IFLNK}
_NO_LINK_ERRORS = frozenset((errno.EMLINK, errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.ENOENT))


class Unrestorable(Exception):
    """What cannot be made here at all; a note says so."""


class ItemMaker:
    """Makes files, symlinks, FIFOs, sockets and devices in open folders."""

    def __init__(self, source: BlobSource, tally: Tally, attributes: AttributeSetter, *, uses_threads: bool) -> None:
        self._source = source
        self._tally = tally
        self._attributes = attributes
        self._content = ContentWriter(source, tally.part, uses_threads=uses_threads)
        self._numbers = itertools.count()
        self._prefix = b".backthen-%d-" % os.getpid()

    def close(self) -> None:
        """Stop writing."""
        self._content.close()

    def make(self, folder: Folder, name: bytes, entry: Entry) -> str:
        """Make one, in place of what is there; returns what is wrong with its attributes, or empty.

        Raises:
            Unrestorable: this system does not allow it; it was noted.
            OSError: it cannot be made.
            RepositoryError: its content cannot be read.
        """
        attributes, xattrs, lost = safe_attributes(self._source, entry)
        directory = folder.descriptor
        is_file = entry.type == EntryType.FILE
        is_small = has_one_chunk_at_most(entry)
        first_name = name if folder.is_made and is_small else self._temporary_name()
        create = self._create_file if is_file else self._create_special
        made, descriptor = create(directory, first_name, entry)
        try:
            try:
                if is_file:
                    write = self._content.write_only_chunk if is_small else self._content.write
                    self._tally.bytes_written += write(entry, descriptor)
                handle = descriptor if is_file else path_of(descriptor)
                clear_acl = folder.inherits_acl and entry.type != EntryType.SYMLINK
                problem = self._attributes.set_all(handle, attributes, xattrs, clear_acl=clear_acl)
            finally:
                os.close(descriptor)
            if made != name:
                _rename(directory, made, name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(made, dir_fd=directory)
            raise
        return self._tally.damage(lost) if lost else problem

    def link(self, folder: Folder, name: bytes, first: tuple[int, bytes]) -> bool:
        """Make a further name of a file; False when it cannot be a hard link, which is noted.

        Raises:
            OSError: the name cannot be made.
        """
        temporary = self._temporary_name()
        directory = folder.descriptor
        try:
            os.link(first[1], temporary, src_dir_fd=first[0], dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_LINK_ERRORS:
                self._tally.notes[Note.LINK_UNSUPPORTED] += 1
                return False
            raise
        try:
            _rename(directory, temporary, name)
        finally:
            # Renaming one name of a file over another name of it does nothing, and leaves both (rename(2)).
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
        return True

    def update(self, folder: Folder, name: bytes, entry: Entry, status: os.stat_result) -> str:
        """Bring the attributes of something that is kept in line; returns what went wrong, or empty.

        Raises:
            OSError: it cannot be opened, or its attributes cannot be set.
            RepositoryError: its extended attributes cannot be read from the repository.
        """
        xattrs = stored_xattrs(self._source, entry)
        found = read_xattrs(path_in(folder.descriptor, name))
        handle = os.open(name, _LOOK_FLAGS, dir_fd=folder.descriptor)
        try:
            if not os.path.samestat(os.fstat(handle), status):
                raise OSError(errno.ESTALE, "it was replaced while it was looked at")
            return self._attributes.update(path_of(handle), entry, xattrs, status, found.xattrs)
        finally:
            os.close(handle)

    def _create_file(self, directory: int, name: bytes, entry: Entry) -> tuple[bytes, int]:
        """An empty file of that name, or if it is taken of another: (its name, descriptor)."""
        while True:
            try:
                return name, os.open(name, _CREATE_FLAGS, _TEMPORARY_MODE, dir_fd=directory)
            except FileExistsError:
                name = self._temporary_name()

    def _create_special(self, directory: int, name: bytes, entry: Entry) -> tuple[bytes, int]:
        """Anything else, likewise: (its name, descriptor that only names it)."""
        while True:
            try:
                self._make_special(directory, name, entry)
                return name, os.open(name, _LOOK_FLAGS, dir_fd=directory)
            except FileExistsError:
                name = self._temporary_name()

    def _make_special(self, directory: int, name: bytes, entry: Entry) -> None:
        if entry.type == EntryType.SYMLINK:
            os.symlink(entry.target, name, dir_fd=directory)
            return
        bits = _NODE_BITS.get(entry.type)
        if bits is None:
            raise MalformedError("an entry has a type that nothing can be made of")
        device = os.makedev(entry.device_major, entry.device_minor)
        try:
            os.mknod(name, bits | _TEMPORARY_MODE, device, dir_fd=directory)
        except PermissionError as error:
            if error.errno != errno.EPERM:
                raise
            self._tally.notes[Note.DEVICE] += 1
            raise Unrestorable from error

    def _temporary_name(self) -> bytes:
        return self._prefix + b"%d" % next(self._numbers)


def is_unchanged(folder: Folder, name: bytes, entry: Entry, status: os.stat_result) -> bool:
    """Whether what is in the target passes for the entry: by type, size and modification time, or where it leads."""
    if stat.S_IFMT(status.st_mode) != _TYPE_BITS.get(entry.type):
        return False
    if entry.type == EntryType.SYMLINK:
        return read_target(folder.descriptor, name) == entry.target
    if entry.type in (EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE):
        return status.st_rdev == os.makedev(entry.device_major, entry.device_minor)
    if entry.type == EntryType.FILE:
        return (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns)
    return True


def open_for_comparison(folder: Folder, name: bytes) -> int:
    """Open a regular file to read it back.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(name, _OPEN_FLAGS, dir_fd=folder.descriptor)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ESTALE, "it is not a regular file")
    return descriptor


def _rename(directory: int, temporary: bytes, name: bytes) -> None:
    """Rename over what stands there, which may be an empty directory."""
    try:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except IsADirectoryError:
        os.rmdir(name, dir_fd=directory)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
