"""From what the kernel says of a file to an entry: type, owner by name, extended attributes.

Here are the Linux calls for extended attributes; other systems get theirs in this module.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from typing import NamedTuple

from backthen.repository.model.entry import BlobRef, Entry, EntryType
from backthen.repository.source.files import Status, reason_of

TYPES = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.DIRECTORY,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFSOCK: EntryType.SOCKET,
    stat.S_IFCHR: EntryType.CHARACTER_DEVICE,
    stat.S_IFBLK: EntryType.BLOCK_DEVICE,
}
_DEVICES = (EntryType.CHARACTER_DEVICE, EntryType.BLOCK_DEVICE)
_PERMISSIONS = 0o7777
TYPE_BITS = 0o170000
_NAMES_KEPT_MAX = 10_000
_TIME_NS_MIN, _TIME_NS_MAX = -(1 << 63), (1 << 64) - 1
"""What an integer of MessagePack can hold: the years 1677 to 2554. Some file systems know others."""
_QUIET_ERRORS = frozenset((errno.ENOTSUP, errno.ENODATA, errno.ENOSYS))

Xattrs = tuple[tuple[bytes, bytes], ...]


class OwnerNames:
    """Names of users and groups by number, asked of the system once each."""

    def __init__(self) -> None:
        self._users: dict[int, str] = {}
        self._groups: dict[int, str] = {}

    def user(self, uid: int) -> str:
        """The name of a user, or empty."""
        name = self._users.get(uid)
        if name is None:
            try:
                name = pwd.getpwuid(uid).pw_name
            except KeyError:
                name = ""
            _remember(self._users, uid, name)
        return name

    def group(self, gid: int) -> str:
        """The name of a group, or empty."""
        name = self._groups.get(gid)
        if name is None:
            try:
                name = grp.getgrgid(gid).gr_name
            except KeyError:
                name = ""
            _remember(self._groups, gid, name)
        return name


def _remember(names: dict[int, str], number: int, name: str) -> None:
    if len(names) >= _NAMES_KEPT_MAX:
        names.clear()
    names[number] = name


def entry_type(status: Status) -> EntryType:
    """What kind of thing the kernel describes."""
    return TYPES[status.st_mode & TYPE_BITS]


def make_entry(
    name: bytes,
    status: Status,
    owners: OwnerNames,
    *,
    xattrs: Xattrs = (),
    xattr_blob: BlobRef | None = None,
    target: bytes = b"",
    size: int = 0,
    page: BlobRef | None = None,
    extents: bytes = b"",
    allocated: int = 0,
    link_group: bytes = b"",
    error: str = "",
) -> Entry:
    """An entry with the attributes in `status`.

    Args:
        name: the raw name.
        status: what the kernel says of it.
        owners: names of users and groups.
        xattrs: extended attributes that stand in the entry.
        xattr_blob: extended attributes that do not.
        target: where a symlink points; its length is the entry's size.
        size: length of a file, as far as it was read.
        page: list of a file's extents.
        extents: a file's extents, when they are few.
        allocated: bytes of a file that are not in holes.
        link_group: group key, in the record of a link group.
        error: why it could not be read whole.
    """
    mode = status.st_mode
    kind = TYPES[mode & TYPE_BITS]
    is_device = kind in _DEVICES
    # In the order of the fields: by their names it takes three times as long, and this is done for every new file.
    return Entry(
        name,
        kind,
        mode & _PERMISSIONS,
        status.st_uid,
        status.st_gid,
        owners.user(status.st_uid),
        owners.group(status.st_gid),
        bounded_time(status.st_mtime_ns),
        bounded_time(status.st_ctime_ns),
        len(target) if target else size,
        0,  # entries below
        page,
        extents,
        allocated,
        target,
        os.major(status.st_rdev) if is_device else 0,
        os.minor(status.st_rdev) if is_device else 0,
        xattrs,
        xattr_blob,
        link_group,
        0,  # names of a link group
        error,
    )


def bounded_time(time_ns: int) -> int:
    """The nearest time that an entry can hold."""
    if _TIME_NS_MIN <= time_ns <= _TIME_NS_MAX:
        return time_ns
    return min(max(time_ns, _TIME_NS_MIN), _TIME_NS_MAX)


def read_target(directory: int, name: bytes) -> bytes:
    """Where a symlink points.

    Raises:
        OSError: it cannot be read, or is no symlink any more.
    """
    return os.readlink(name, dir_fd=directory)


class XattrRead(NamedTuple):
    """Extended attributes sorted by name, and why some are missing (empty when none is)."""

    xattrs: Xattrs
    problem: str


NO_XATTRS = XattrRead((), "")


def path_in(directory: int, name: bytes) -> bytes:
    """A path to a name in an open directory, for calls that take no directory; only its last part can be a link."""
    return b"/proc/self/fd/%d/%b" % (directory, name)


def path_of(descriptor: int) -> bytes:
    """A path to what is open, for calls that take no descriptor opened with `O_PATH`; such calls must follow it."""
    return b"/proc/self/fd/%d" % descriptor


def read_xattrs(file: int | bytes) -> XattrRead:
    """All extended attributes that can be read, POSIX ACLs among them.

    Args:
        file: an open file, or what `path_in` gives; a link at its end is not followed.
    """
    follow = isinstance(file, int)
    try:
        names = os.listxattr(file, follow_symlinks=follow)
    except OSError as error:
        return NO_XATTRS if error.errno in _QUIET_ERRORS else XattrRead((), _unread("extended attributes", error))
    if not names:
        return NO_XATTRS
    pairs: list[tuple[bytes, bytes]] = []
    problem = ""
    for name in names:
        try:
            pairs.append((os.fsencode(name), os.getxattr(file, name, follow_symlinks=follow)))
        except OSError as error:
            if error.errno not in _QUIET_ERRORS:
                problem = _unread(f"extended attribute {name}", error)
    return XattrRead(tuple(sorted(pairs)), problem)


def _unread(what: str, error: OSError) -> str:
    text = f"{what} cannot be read: {reason_of(error)}"
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
