"""Entries of directories and extents of files (FORMAT.md, section 8.2). Pure data: no I/O, no keys.

Invariant: what `decode_…` of this package returns was checked: names are safe to hand to a file system.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import Annotated, NamedTuple

import msgspec

from backthen.repository import format as fmt
from backthen.repository.errors import MalformedError
from backthen.repository.ids import BlobId

HOLE = BlobId(bytes(fmt.ID_BYTES))
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for MessagePack that it cannot decode: broken, not UTF-8, or nested without end."""

_EXTENT = struct.Struct(">32sQ")


Count = Annotated[int, msgspec.Meta(ge=0)]
"""What is refused where it is negative."""


class EntryType(enum.IntEnum):
    """What an entry is; the numbers are part of the format."""

    FILE = 0
    DIRECTORY = 1
    SYMLINK = 2
    FIFO = 3
    SOCKET = 4
    CHARACTER_DEVICE = 5
    BLOCK_DEVICE = 6
    LINK_NAME = 7
    UNKNOWN = 8


class BlobRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a blob is: its id and its length in bytes."""

    id: BlobId
    length: int


class Extent(NamedTuple):
    """A stretch of a file: a chunk, or a hole when the id is `HOLE`. `length` is in bytes."""

    id: BlobId
    length: int

    @property
    def is_hole(self) -> bool:
        """Whether the stretch holds no data."""
        return self.id == HOLE


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One name in a directory, with its metadata; FORMAT.md section 8.2 gives each field.

    Not followed by the garbage collector: it cannot be part of a cycle, and caches hold very many.
    Sizes are bytes, times nanoseconds. `size` of a directory is the sum of what is below it, `below` how many entries
    that is.
    """

    name: bytes
    type: int
    mode: int = 0
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    mtime_ns: int = 0
    ctime_ns: int = 0
    size: Count = 0
    below: Count = 0
    page: BlobRef | None = None
    extents: bytes = b""
    allocated: int = 0
    target: bytes = b""
    device_major: int = 0
    device_minor: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    xattr_blob: BlobRef | None = None
    link_group: bytes = b""
    names: int = 0
    error: str = ""

    @property
    def is_content_lost(self) -> bool:
        """Whether its content could not be read at all; an error may be about less, such as extended attributes."""
        return bool(self.error) and self.page is None and not self.extents

    @property
    def is_directory(self) -> bool:
        """Whether the entry is a directory."""
        return self.type == EntryType.DIRECTORY


def pack_extents(extents: Iterable[Extent]) -> bytes:
    """The inline form of up to eight extents: 40 bytes each."""
    return b"".join(_EXTENT.pack(*extent) for extent in extents)


def unpack_extents(data: bytes) -> Iterator[Extent]:
    """The extents of an inline form.

    Raises:
        MalformedError: the length is not a multiple of 40 bytes.
    """
    if len(data) % _EXTENT.size:
        raise MalformedError("an extent list has a broken length")
    return (Extent(BlobId(id_), length) for id_, length in _EXTENT.iter_unpack(data))


_NO_NAMES = frozenset((b"", b".", b".."))
_xattr_decoder = msgspec.msgpack.Decoder(tuple[tuple[bytes, bytes], ...])


def encode_xattrs(xattrs: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The blob of extended attributes that are too large to stand in the entry."""
    return msgspec.msgpack.encode(xattrs)


def decode_xattrs(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The `(name, value)` pairs of a blob of extended attributes.

    Raises:
        MalformedError: the blob does not follow the format.
    """
    try:
        return _xattr_decoder.decode(data)
    except UNDECODABLE as error:
        raise MalformedError(f"extended attributes cannot be decoded ({error})") from error


def check_names(names: list[bytes]) -> None:
    """Refuse names that no file system can hold in one directory and what would lead out of it.

    Raises:
        MalformedError: a name is empty, `.`, `..`, too long, or holds a slash or NUL.
    """
    # All at once, which takes a fifth of asking each: a backup does it for every name of its parent.
    joined = b"\0".join(names)
    if (
        b"/" in joined
        or joined.count(b"\0") != len(names) - 1
        or max(map(len, names)) > fmt.NAME_BYTES_MAX
        or not _NO_NAMES.isdisjoint(names)
    ):
        for name in names:
            _check_name(name)


def _check_name(name: bytes) -> None:
    if not 0 < len(name) <= fmt.NAME_BYTES_MAX or name in _NO_NAMES or b"/" in name or b"\0" in name:
        raise MalformedError(f"unsafe name {name[:64]!r}")
