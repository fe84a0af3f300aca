"""What is known of a node without reading it, free of any platform's idea of `stat`. Pure."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
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


def as_listed(names: Iterable[bytes], attributes: Iterable[Attributes], cookies: Iterable[int]) -> Iterator[Listed]:
    """The entries of a directory from what is known of each; to be preferred to `Listed` where there are many."""
    return map(tuple.__new__, repeat(Listed), zip(names, attributes, cookies, strict=True))


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
    fields = (
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
    # What `Attributes(*fields)` does, without the call in between: a listing spends its time here.
    return tuple.__new__(Attributes, fields)


_DIRECTORY = int(EntryType.DIRECTORY)


Describe = Callable[[Entry, int], Attributes]
"""Gives the attributes of an entry that has a number."""

ACL_NAMES = frozenset({b"system.posix_acl_access", b"system.posix_acl_default"})


def owned_by(owner: Owner) -> Describe:
    """Lets every entry belong to one owner, for snapshots of a machine whose ids mean nothing on this one.

    An ACL names others by such ids, so it must not be shown; the group's bits are its mask then, no longer what the
    group may do, and nobody is to gain by it.
    """

    def describe(entry: Entry, number: int) -> Attributes:
        found = entry_attributes(entry, number)
        mode = found.mode & ~stat.S_IRWXG if _may_have_acl(entry) else found.mode
        return found._replace(mode=mode, uid=owner.uid, gid=owner.gid)

    return describe


def _may_have_acl(entry: Entry) -> bool:
    return entry.xattr_blob is not None or any(name in ACL_NAMES for name, _ in entry.xattrs)


def virtual_directory_attributes(number: int, owner: Owner, mtime_ns: int) -> Attributes:
    """The attributes of a directory that is in no snapshot."""
    return Attributes(number, stat.S_IFDIR | 0o555, 1, owner.uid, owner.gid, 0, 0, mtime_ns, mtime_ns)


def virtual_symlink_attributes(number: int, owner: Owner, mtime_ns: int, target: bytes) -> Attributes:
    """The attributes of a symlink that is in no snapshot."""
    return Attributes(number, stat.S_IFLNK | 0o777, 1, owner.uid, owner.gid, len(target), 0, mtime_ns, mtime_ns)


def status_attributes(number: int, owner: Owner, time_ns: int, size: int) -> Attributes:
    """The attributes of the file that says how the mount fares; for its owner alone, since it says where things are."""
    return Attributes(number, stat.S_IFREG | 0o400, 1, owner.uid, owner.gid, size, 0, time_ns, time_ns)
