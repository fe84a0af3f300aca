"""What Windows keeps of a file, made from what a snapshot keeps of it. Pure.

Numbers and layouts are those of [MS-FSCC] (file attributes, reparse data, times) and of [MS-DTYP] (security descriptors
as strings).
"""

from __future__ import annotations

import stat
import struct

from backthen.fsmount.adapters.windows_names import encode_target
from backthen.fsmount.view import Attributes

FILE_ATTRIBUTE_READONLY = 0x1
FILE_ATTRIBUTE_DIRECTORY = 0x10
FILE_ATTRIBUTE_NORMAL = 0x80
FILE_ATTRIBUTE_REPARSE_POINT = 0x400

REPARSE_TAG_SYMLINK = 0xA000000C
REPARSE_TAG_NFS = 0x80000014

_EPOCH_FILETIME = 116_444_736_000_000_000
"""1970 in units of 100 ns since 1601."""
_FILETIME_MAX = 2**63 - 1
_NS_PER_FILETIME = 100

_SYMLINK_FLAG_RELATIVE = 1
_REPARSE_HEADER = struct.Struct("<IHH")
_SYMLINK_HEADER = struct.Struct("<HHHHI")
_SPECIAL_FILES = {
    stat.S_IFIFO: b"FIFO\0\0\0\0",
    stat.S_IFSOCK: b"SOCK\0\0\0\0",
    stat.S_IFCHR: b"CHR\0\0\0\0\0",
    stat.S_IFBLK: b"BLK\0\0\0\0\0",
}
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)

_ALL_READ = 0x1200A9
"""FILE_GENERIC_READ and FILE_GENERIC_EXECUTE."""
_RIGHTS = ((stat.S_IROTH, 0x120089), (stat.S_IXOTH, 0x1200A0))
"""What a permission of the mode allows: FILE_GENERIC_READ, FILE_GENERIC_EXECUTE."""


def filetime(time_ns: int) -> int:
    """A time since 1970 in nanoseconds, in units of 100 ns since 1601, held within what Windows can show."""
    return min(max(time_ns // _NS_PER_FILETIME + _EPOCH_FILETIME, 0), _FILETIME_MAX)


def reparse_tag(mode: int) -> int:
    """What kind of reparse point is shown for a mode: 0 for files and directories."""
    if stat.S_ISLNK(mode):
        return REPARSE_TAG_SYMLINK
    return REPARSE_TAG_NFS if stat.S_IFMT(mode) in _SPECIAL_FILES else 0


def file_attributes(mode: int, *, is_directory: bool) -> int:
    """The file attributes for a mode.

    Args:
        is_directory: it is one, or it is a symlink to one, which Windows tells from a symlink to a file.
    """
    found = FILE_ATTRIBUTE_DIRECTORY if is_directory else 0
    if reparse_tag(mode):
        found |= FILE_ATTRIBUTE_REPARSE_POINT
    # The volume itself cannot be written to; a copy of a file should have this only if the file had it.
    elif not is_directory and not mode & 0o222:
        found |= FILE_ATTRIBUTE_READONLY
    return found or FILE_ATTRIBUTE_NORMAL


def reparse_data(found: Attributes, target: bytes) -> bytes:
    """The reparse data of what has a reparse tag; `target` is a symlink's.

    A symlink is relative to where it is, or to the top of the volume, and so never leads out of it.
    """
    kind = stat.S_IFMT(found.mode)
    if kind == stat.S_IFLNK:
        path = encode_target(target).encode("utf-16-le", errors="surrogatepass")
        data = _SYMLINK_HEADER.pack(0, len(path), 0, len(path), _SYMLINK_FLAG_RELATIVE) + path
    else:
        data = _SPECIAL_FILES[kind]
        if kind in _DEVICES:
            data += struct.pack("<II", found.device_major, found.device_minor)
    return _REPARSE_HEADER.pack(reparse_tag(found.mode), len(data), 0) + data


def security_descriptor(uid: int, gid: int, mode: int, *, reader: str, has_acl: bool, allow_other: bool) -> str:
    """The security descriptor of a file, as a string.

    Owner and group are the saved ones, by the SIDs that Samba gives to the users and groups of Unix, which no token of
    Windows has. Everybody else is in the list only where others are let in.

    Args:
        reader: the SID of the user who mounts, who may read everything.
        has_acl: the mode says only the most that group and others may do, so nothing is granted by it.
        allow_other: let others in, as far as the mode does.
    """
    owner, group = f"S-1-22-1-{uid}", f"S-1-22-2-{gid}"
    classes = [(owner, mode >> 6)]
    if not has_acl:
        classes.append((group, mode >> 3))
        if allow_other:
            classes.append(("WD", mode))
    entries = [(reader, _ALL_READ), *((sid, _rights(permissions)) for sid, permissions in classes)]
    granted = "".join(f"(A;;{rights:#x};;;{sid})" for sid, rights in entries if rights)
    return f"O:{owner}G:{group}D:P{granted}"


def _rights(permissions: int) -> int:
    rights = 0
    for permission, allowed in _RIGHTS:
        if permissions & permission:
            rights |= allowed
    return rights
