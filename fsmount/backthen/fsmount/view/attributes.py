"""What is known of a node without reading it, free of any platform's idea of `stat`. Pure."""

from __future__ import annotations

import stat
from typing import NamedTuple

from backthen.repository import Entry, EntryType

ALLOCATION_BYTES = 4096
"""What is allocated is counted in blocks of this size, as file systems do."""


class Owner(NamedTuple):
    """To whom the virtual directories and symlinks belong."""

    uid: int
    gid: int


class Attributes(NamedTuple):
    """A node's metadata; sizes in bytes, times in nanoseconds. `mode` holds type and permissions as POSIX has them."""

    number: int
    mode: int
    links: int
    uid: int
    gid: int
    size: int
    allocated: int
    mtime_ns: int
    ctime_ns: int
    device_major: int = 0
    device_minor: int = 0

    @property
    def is_directory(self) -> bool:
        """Whether the node is a directory."""
        return stat.S_ISDIR(self.mode)


class Listed(NamedTuple):
    """One entry of a directory as it is listed. A listing goes on after it when its `cookie` is handed back."""

    name: bytes
    attributes: Attributes
    cookie: int


# What could not be examined (and what a later version may add) is shown as a file that does not open.
_TYPE_BITS: dict[int, int] = {
    EntryType.FILE: stat.S_IFREG,
    EntryType.DIRECTORY: stat.S_IFDIR,
    EntryType.SYMLINK: stat.S_IFLNK,
    EntryType.FIFO: stat.S_IFIFO,
    EntryType.SOCKET: stat.S_IFSOCK,
    EntryType.CHARACTER_DEVICE: stat.S_IFCHR,
    EntryType.BLOCK_DEVICE: stat.S_IFBLK,
}
_PERMISSIONS = 0o7777


def entry_attributes(entry: Entry, number: int) -> Attributes:
    """The attributes of an entry of a snapshot.

    A directory counts one link, because the number of its subdirectories is not known without reading them, and
    programs take one for "unknown"; and no size, because what is kept with it is the size of everything below.
    """
    kind = entry.type
    return Attributes(
        number,
        _TYPE_BITS.get(kind, stat.S_IFREG) | (entry.mode & _PERMISSIONS),
        entry.names or 1,
        entry.uid,
        entry.gid,
        0 if kind == _DIRECTORY else entry.size,
        (entry.allocated + ALLOCATION_BYTES - 1) // ALLOCATION_BYTES * ALLOCATION_BYTES,
        entry.mtime_ns,
        entry.ctime_ns,
        entry.device_major,
        entry.device_minor,
    )


_DIRECTORY = int(EntryType.DIRECTORY)


def virtual_directory_attributes(number: int, owner: Owner, mtime_ns: int) -> Attributes:
    """The attributes of a directory that is in no snapshot."""
    return Attributes(number, stat.S_IFDIR | 0o555, 1, owner.uid, owner.gid, 0, 0, mtime_ns, mtime_ns)


def virtual_symlink_attributes(number: int, owner: Owner, mtime_ns: int, target: bytes) -> Attributes:
    """The attributes of a symlink that is in no snapshot."""
    return Attributes(number, stat.S_IFLNK | 0o777, 1, owner.uid, owner.gid, len(target), 0, mtime_ns, mtime_ns)
