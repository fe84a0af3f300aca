"""What all that stands before a storage has in common: it is where that one is."""

from __future__ import annotations

from pathlib import Path

from backthen.repository.storage.contract import Storage


class StorageWrapper:
    """The part of a `Storage` that is the one below, as it is."""

    def __init__(self, storage: Storage) -> None:
        """Stand before a storage."""
        self._storage = storage

    @property
    def location(self) -> str:
        """See `Storage.location`."""
        return self._storage.location

    @property
    def folder(self) -> Path | None:
        """See `Storage.folder`."""
        return self._storage.folder

    @property
    def spool(self) -> Path | None:
        """See `Storage.spool`."""
        return self._storage.spool

    @property
    def concurrency(self) -> int:
        """See `Storage.concurrency`."""
        return self._storage.concurrency
