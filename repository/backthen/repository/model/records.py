"""Records inside sealed objects.

Roots, log entries, marks, index objects, configuration (FORMAT.md, sections 3, 6, 9 to 11).

Each is a MessagePack array whose unknown further elements are ignored, so that a later version can add some.
"""

from __future__ import annotations

import enum
from typing import TypeVar

import msgspec

from backthen.repository.errors import MalformedError
from backthen.repository.ids import ObjectId, PackId, SnapshotId
from backthen.repository.model.entry import UNDECODABLE, BlobRef, Entry


class Statistics(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot holds and what making it took; sizes in bytes."""

    files: int = 0
    directories: int = 0
    others: int = 0
    size: int = 0
    files_new: int = 0
    files_changed: int = 0
    files_unchanged: int = 0
    bytes_read: int = 0
    bytes_added: int = 0
    errors: int = 0


class Root(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot as it is stored; FORMAT.md section 9."""

    nonce: bytes
    started_ns: int
    ended_ns: int
    host: str
    user: str
    paths: tuple[bytes, ...]
    tags: tuple[str, ...]
    top: Entry
    links: BlobRef | None
    link_count: int
    parents: tuple[SnapshotId, ...]
    partial: bool
    program: str
    excludes: tuple[str, ...]
    statistics: Statistics


class LogKind(enum.IntEnum):
    """What a log entry does to its root; the numbers are part of the format."""

    COMMIT = 0
    FORGET = 1
    UNFORGET = 2
    KEEP = 3
    TAG = 4
    CHECKPOINT = 5


class LogEntry(msgspec.Struct, frozen=True, array_like=True):
    """One entry of the log; FORMAT.md section 10. The fields of `detail` that its kind does not use are empty."""

    kind: int
    root: SnapshotId
    heads: tuple[ObjectId, ...]
    client: bytes
    counter: int
    time_ns: int
    detail: msgspec.Raw = msgspec.Raw(b"\xc0")
    signature: bytes = b""


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """What a prune condemned; FORMAT.md section 11."""

    packs: tuple[PackId, ...]
    abandoned_roots: tuple[SnapshotId, ...]
    forgotten_roots: tuple[SnapshotId, ...]

    @property
    def is_empty(self) -> bool:
        """Whether it condemns nothing."""
        return not (self.packs or self.abandoned_roots or self.forgotten_roots)


class IndexedPack(msgspec.Struct, frozen=True, array_like=True):
    """One pack in an index object; FORMAT.md section 6. The byte strings are packed numbers and ids."""

    id: PackId
    lengths: bytes
    counts: bytes
    prefixes: bytes


class IndexObject(msgspec.Struct, frozen=True, array_like=True):
    """An index object: packs of one class."""

    pack_class: int
    packs: tuple[IndexedPack, ...]


class ChunkerParameters(msgspec.Struct, frozen=True, array_like=True):
    """The chunker's sizes in bytes, as `config` records them."""

    cut_min: int
    cut_max: int
    cut_spread: int
    fastcdc_min: int
    fastcdc_average: int
    fastcdc_max: int


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """The sealed part of `config`."""

    created_ns: int
    features: tuple[str, ...]
    chunker: ChunkerParameters


class SlotNote(msgspec.Struct, frozen=True, array_like=True):
    """What a key slot tells those who have the keys about itself."""

    created_ns: int
    host: str
    user: str
    label: str


class BundledKey(msgspec.Struct, frozen=True, array_like=True):
    """One key of the bundle: what it is for, its generation, 32 bytes."""

    label: str
    generation: int
    key: bytes

    def __repr__(self) -> str:
        """Say nothing about the key."""
        return f"BundledKey(label={self.label!r}, generation={self.generation})"


_Record = TypeVar("_Record", bound=msgspec.Struct)


def encode_record(record: msgspec.Struct) -> bytes:
    """The MessagePack form of a record."""
    return msgspec.msgpack.encode(record)


def decode_record(data: bytes, kind: type[_Record], *, name: str = "") -> _Record:
    """A record from its MessagePack form.

    Raises:
        MalformedError: it does not follow the format; `name` says in which object.
    """
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except UNDECODABLE as error:
        raise MalformedError(f"cannot be decoded ({error})", name=name) from error
