"""What Linux and a FUSE server say to each other, as far as a read-only one needs it. Pure.

The numbers and layouts are those of <linux/fuse.h> (protocol 7, minor 31), which are the same on all architectures but
for the order of bytes, and which later kernels go on to speak. A request is a header and a body, a reply a header and a
payload.
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

from backthen.fsmount.adapters.libfuse import NAME_BYTES_MAX, SECTOR_BYTES
from backthen.fsmount.view import Attributes, Listed

REQUEST_BYTES = 1 << 16
"""Room for one request. The kernel asks for at least 8192, and fills it when it forgets many inodes at once."""
MINOR = 31
MINOR_LEAST = 28
"""Linux 4.20; the first that caches symlinks and listings and reads more than 128 KiB at once."""
_MAJOR = 7
_WRITE_BYTES = 4096
_PAGES_MAX = 256
_TYPE_SHIFT = 12
"""Where the type of an inode begins in its mode."""
_DIRECTORY_TYPE = stat.S_IFDIR >> _TYPE_SHIFT
_NS_PER_S = 1_000_000_000


class Opcode(enum.IntEnum):
    """What a request asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    INIT = 26
    OPENDIR = 27
    RELEASEDIR = 29
    CREATE = 35
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    TMPFILE = 51


class Capability(enum.IntFlag):
    """What is agreed on when the connection is opened."""

    ASYNC_READ = 1 << 0
    READDIRPLUS = 1 << 13
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    EXPLICIT_INVAL_DATA = 1 << 25


# Without READDIRPLUS_AUTO each listing brings the attributes. What is kept of contents never depends on them, hence
# EXPLICIT_INVAL_DATA.
_WANTED = (
    Capability.ASYNC_READ
    | Capability.READDIRPLUS
    | Capability.PARALLEL_DIROPS
    | Capability.ABORT_ERROR
    | Capability.MAX_PAGES
    | Capability.CACHE_SYMLINKS
    | Capability.EXPLICIT_INVAL_DATA
)

KEEP_CACHE = 1 << 1
CACHE_LISTING = 1 << 3

REQUEST = Struct("=IIQQIIIHH")
"""The header: length, opcode, number of the request, number of the inode; then who asks."""
_REPLY = Struct("=IiQ")
READING = Struct("=QQI")
"""Handle, offset and size in bytes, of files and directories."""
SEEKING = Struct("=QQII")
"""Handle, offset, and what to look for; then nothing."""
HANDLE = Struct("=Q")
OFFSET = Struct("=Q")
FLAGS = Struct("=I")
XATTR = Struct("=II")
"""Size in bytes: how much room there is, or is needed."""

_INIT_IN = Struct("=IIII")
_INIT_OUT = Struct("=IIIIHHIIHHI28x")
_ENTRY = Struct("=QQQQIIQQQqqqIIIIIIIIII")
_LISTED = Struct("=QQQQIIQQQqqqIIIIIIII8xQQII")
_WORD_BYTES = 8
"""What is listed is filled up with zeros to whole words."""
_PACK_OF_WORDS = [
    Struct(f"{_LISTED.format}{words * _WORD_BYTES}s").pack for words in range(NAME_BYTES_MAX // _WORD_BYTES + 2)
]
"""The same with a name, by how many words that takes."""
_TWO_DOTS = Struct("=" + 2 * "128xQQII8s")
_ATTRIBUTES = Struct("=QIIQQQqqqIIIIIIIIII")
_OPENED = Struct("=QII")
_STATFS = Struct("=QQQQQIIII24x")
DOT_COUNT = 2
"""How many cookies the beginning of each listing takes."""


class Lifetime(NamedTuple):
    """For how long the kernel may keep something: seconds, and nanoseconds of a second."""

    seconds: int
    nanoseconds: int = 0


LASTING = Lifetime(10 * 365 * 24 * 3600)


def lifetime(seconds: float) -> Lifetime:
    """A lifetime of so many seconds."""
    return Lifetime(*divmod(int(seconds * _NS_PER_S), _NS_PER_S))


class UnknownProtocol(Exception):
    """The kernel speaks a FUSE that this module does not."""


def reply_header(request: int, length: int) -> bytes:
    """What comes before a payload of so many bytes."""
    return _REPLY.pack(_REPLY.size + length, 0, request)


def refusal(request: int, number: int) -> bytes:
    """The reply to a request that is refused with an error number."""
    return _REPLY.pack(_REPLY.size, -number, request)


def opened_connection(body: bytes, *, enable_acl: bool) -> bytes:
    """The answer to what the kernel offers when it opens the connection.

    Raises:
        UnknownProtocol: it is too old.
    """
    major, minor, read_ahead, offered = _INIT_IN.unpack_from(body)
    if major != _MAJOR or minor < MINOR_LEAST:
        raise UnknownProtocol(f"the kernel speaks FUSE {major}.{minor}, needed is {_MAJOR}.{MINOR_LEAST} or later")
    agreed = offered & (_WANTED | Capability.POSIX_ACL if enable_acl else _WANTED)
    # Nought leaves the number of requests in flight to the kernel.
    return _INIT_OUT.pack(_MAJOR, MINOR, read_ahead, agreed, 0, 0, _WRITE_BYTES, 1, _PAGES_MAX, 0, 0)


def entry(found: Attributes, name: Lifetime, attributes: Lifetime) -> bytes:
    """What a name leads to, and for how long the kernel may keep the name and the attributes."""
    return _ENTRY.pack(*_entry_fields(found, name, attributes))


def no_entry(name: Lifetime) -> bytes:
    """That there is no such name, for the kernel to keep."""
    return _ENTRY.pack(0, 0, name.seconds, 0, name.nanoseconds, *(0,) * 17)


def attributes(found: Attributes, kept: Lifetime) -> bytes:
    """The attributes of a number, and for how long the kernel may keep them."""
    return _ATTRIBUTES.pack(kept.seconds, kept.nanoseconds, 0, *_attribute_fields(found))


def dots(number: int, after: int) -> bytes:
    """How a listing of a directory begins, after a cookie: with itself and the one above.

    Of the kernel's concern is only that they are directories; it looks for neither.
    """
    both = _TWO_DOTS.pack(*(number, 1, 1, _DIRECTORY_TYPE, b"."), *(number, 2, 2, _DIRECTORY_TYPE, b".."))
    return both[after * _TWO_DOTS.size // DOT_COUNT :]


def listing(listed: Iterable[Listed], size: int, name: Lifetime, attributes: Iterable[Lifetime]) -> list[bytes]:
    """As many entries of a directory as fit into so many bytes.

    Args:
        listed: the entries.
        size: how much room there is, in bytes.
        name: for how long the kernel may keep the names.
        attributes: for how long it may keep the attributes of each.
    """
    given: list[bytes] = []
    fixed, by_words = _LISTED.size, _PACK_OF_WORDS
    name_s, name_ns = name
    # A walk spends its time here, so what `entry` says with other functions is spelt out.
    for (text, found, cookie), (kept_s, kept_ns) in zip(listed, attributes, strict=False):
        length = len(text)
        words = -(-length // _WORD_BYTES)
        size -= fixed + words * _WORD_BYTES
        if size < 0:
            break
        number, mode, links, uid, gid, bytes_, allocated, mtime_ns, ctime_ns, major, minor = found
        mtime = mtime_ns // _NS_PER_S
        ctime = ctime_ns // _NS_PER_S
        rest = mtime_ns - mtime * _NS_PER_S
        device = _device(major, minor) if major or minor else 0
        given.append(
            by_words[words](
                number, 0, name_s, kept_s, name_ns, kept_ns,
                number, bytes_, allocated // SECTOR_BYTES, mtime, mtime, ctime,
                rest, rest, ctime_ns - ctime * _NS_PER_S, mode, links, uid, gid, device,
                number, cookie + DOT_COUNT, length, mode >> _TYPE_SHIFT, text,
            )
        )  # fmt: skip
    return given


def opened(handle: int, flags: int) -> bytes:
    """What was opened, and what the kernel may keep of it."""
    return _OPENED.pack(handle, flags, 0)


def statfs(fields: dict[str, int]) -> bytes:
    """The fields of statvfs(3)."""
    blocks = (fields["f_blocks"], fields["f_bfree"], fields["f_bavail"], fields["f_files"], fields["f_ffree"])
    return _STATFS.pack(*blocks, fields["f_bsize"], fields["f_namemax"], fields["f_frsize"], 0)


def _entry_fields(found: Attributes, name: Lifetime, attributes: Lifetime) -> tuple[int, ...]:
    kept = (name.seconds, attributes.seconds, name.nanoseconds, attributes.nanoseconds)
    return (found.number, 0, *kept, *_attribute_fields(found))


def _attribute_fields(found: Attributes) -> tuple[int, ...]:
    number, mode, links, uid, gid, size, allocated, mtime_ns, ctime_ns, major, minor = found
    mtime = mtime_ns // _NS_PER_S
    mtime_rest = mtime_ns - mtime * _NS_PER_S
    ctime = ctime_ns // _NS_PER_S
    device = _device(major, minor) if major or minor else 0
    return (
        *(number, size, allocated // SECTOR_BYTES, mtime, mtime, ctime),
        *(mtime_rest, mtime_rest, ctime_ns - ctime * _NS_PER_S, mode, links, uid, gid, device, 0, 0),
    )


def _device(major: int, minor: int) -> int:
    """A device as the kernel takes it, in 32 bits."""
    return os.makedev(major, minor) & 0xFFFF_FFFF
