"""What the view needs of a repository, and nothing else: a test gives it one that lives in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from backthen.repository import BlobSource, CacheUse, SnapshotInfo, SnapshotTree, StorageState


class Blobs(Protocol):
    """The two sources of blobs."""

    @property
    def source(self) -> BlobSource:
        """The one that may block on storage."""
        ...

    @property
    def near(self) -> BlobSource:
        """The one that answers from memory at once, or raises `NotInMemory`."""
        ...


class History(Protocol):
    """A repository as the view sees it. Safe to use from several threads; may raise any `RepositoryError`."""

    @property
    def blobs(self) -> Blobs:
        """The sources of blobs."""
        ...

    @property
    def location(self) -> str:
        """Where it is, for messages."""
        ...

    @property
    def storage_state(self) -> StorageState:
        """How the storage answers now. Never blocks."""
        ...

    @property
    def cache_uses(self) -> Sequence[CacheUse]:
        """How full each of its caches in memory is. Never blocks."""
        ...

    def snapshots(self) -> Sequence[SnapshotInfo]:
        """All snapshots as the storage has them now, oldest first in the order of the log. May block."""
        ...

    def tree(self, info: SnapshotInfo) -> SnapshotTree:
        """The tree of a snapshot. Never blocks."""
        ...

    def inode_prf(self, data: bytes) -> int:
        """A number below 2^64 that depends on the data and on the repository's keys alone."""
        ...

    def stored_bytes(self) -> int:
        """How many bytes the storage holds. May block."""
        ...
