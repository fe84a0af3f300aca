"""Roots, log entries and marks that others have put, for tests that need no tree."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from backthen.repository.crypto import ObjectKind, object_id, seal_object
from backthen.repository.ids import ObjectId, PackId, SnapshotId
from backthen.repository.model.entry import Entry, EntryType
from backthen.repository.model.records import LogEntry, LogKind, Mark, Root, Statistics, encode_record
from backthen.repository.storage import Storage, log_name, mark_name, pack_name, root_name
from tests.support.fixed_keys import fixed_keys

OTHER_CLIENT = b"another client.."
KEYS = fixed_keys()


def make_root(number: int = 0, **changes: object) -> Root:
    """A root of an empty directory, begun at `number` seconds."""
    top = Entry(b"", EntryType.DIRECTORY)
    started_ns = number * 1_000_000_000
    nonce = number.to_bytes(32, "big")
    plain = Root(
        nonce, started_ns, started_ns + 1, "host", "user", (b"/home",), ("tag",), top, None, 0, (), False, "test", (),
        Statistics(),
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def put_pack(storage: Storage, data: bytes) -> PackId:
    """Put something in the place of a pack."""
    pack = PackId(object_id(data))
    storage.put(pack_name(pack), data)
    return pack


def put_root(storage: Storage, root: Root) -> SnapshotId:
    """Put a root."""
    data = seal_object(KEYS, ObjectKind.ROOT, encode_record(root))
    id_ = SnapshotId(object_id(data))
    storage.put(root_name(id_), data)
    return id_


def put_mark(storage: Storage, *, packs: Iterable[PackId] = (), abandoned: Iterable[SnapshotId] = ()) -> ObjectId:
    """Condemn packs and unfinished roots."""
    data = seal_object(KEYS, ObjectKind.MARK, encode_record(Mark(tuple(packs), tuple(abandoned), ())))
    storage.put(mark_name(object_id(data)), data)
    return object_id(data)


def seal_entry(entry: LogEntry) -> tuple[str, bytes]:
    """Name and bytes of a log entry."""
    data = seal_object(KEYS, ObjectKind.LOG, encode_record(entry))
    return log_name(entry.root, object_id(data)), data


def put_entry(
    storage: Storage,
    kind: LogKind | int,
    root: SnapshotId,
    heads: Iterable[ObjectId] = (),
    *,
    counter: int,
    client: bytes = OTHER_CLIENT,
    time_ns: int = 0,
    detail: object = None,
) -> ObjectId:
    """Put a log entry of another client."""
    raw = msgspec.Raw(msgspec.msgpack.encode(detail))
    name, data = seal_entry(LogEntry(int(kind), root, tuple(heads), client, counter, time_ns, raw))
    storage.put(name, data)
    return object_id(data)
