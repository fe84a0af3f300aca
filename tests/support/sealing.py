"""Keys and records for tests that need no real tree."""

from __future__ import annotations

from functools import cache

import msgspec

from backthen.repository.crypto import ObjectKind, RepositoryKeys, object_id, seal_object
from backthen.repository.ids import ObjectId, RepositoryId, SnapshotId
from backthen.repository.model.entry import Entry, EntryType
from backthen.repository.model.records import (
    BundledKey,
    LogEntry,
    LogKind,
    Mark,
    Root,
    Statistics,
    encode_record,
)
from backthen.repository.storage import Storage, log_name, mark_name, root_name

CLIENT = b"another client.."


@cache
def test_keys() -> RepositoryKeys:
    """Keys that are the same in every run."""
    labels = ("blob", "chunker", "tree", "mount", "seal")
    return RepositoryKeys(RepositoryId(bytes(32)), [BundledKey(label, 0, label.encode().ljust(32)) for label in labels])
