"""Listings that are begun before anybody can use them, while the keys of a repository are on their way.

Invariant: a listing of before is handed out once, and to nobody after this object has changed anything in the storage.
So whoever puts and then looks sees no less than what was there when it put.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from typing_extensions import Buffer

from backthen.repository.storage.contract import Storage, StoredObject
from backthen.repository.storage.wrappers.wrapper import StorageWrapper


class ListedAhead(StorageWrapper):
    """A `Storage` over another one. Safe to use from several threads."""

    def __init__(self, storage: Storage, folders: Iterable[str]) -> None:
        """Begin to list folders of a storage, each in a thread, to be asked for once each."""
        super().__init__(storage)
        self._lock = threading.Lock()
        self._listings: dict[str, Future[list[StoredObject]]] = {}
        for folder in folders:
            thread = ThreadPoolExecutor(1, thread_name_prefix="list")
            self._listings[folder] = thread.submit(_listed, storage, folder)
            thread.shutdown(wait=False)

    def create(self) -> None:
        """See `Storage.create`.

        Raises:
            RepositoryExists: there is a repository.
            InvalidRequest: something else is there.
            StorageError: the storage failed.
        """
        self._forget()
        self._storage.create()

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`.

        Raises:
            ObjectExists: the name is taken.
            StorageError: the storage failed.
        """
        self._forget()
        self._storage.put(name, data)

    def put_file(self, name: str, path: Path) -> None:
        """See `Storage.put_file`.

        Raises:
            ObjectExists: the name is taken.
            StorageError: the storage failed.
        """
        self._forget()
        self._storage.put_file(name, path)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Storage.get`.

        Raises:
            ObjectMissing: there is no such object.
            StorageError: the storage failed.
        """
        return self._storage.get(name, offset, length)

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`; for the first who asks, what was there when this object was made."""
        with self._lock:
            ahead = self._listings.pop(folder, None)
        return self._storage.list(folder) if ahead is None else _taken(ahead)

    def delete(self, name: str) -> None:
        """See `Storage.delete`.

        Raises:
            StorageError: the storage failed.
        """
        self._forget()
        self._storage.delete(name)

    def remove_abandoned_spool(self) -> int:
        """See `Storage.remove_abandoned_spool`.

        Raises:
            StorageError: the storage failed.
        """
        return self._storage.remove_abandoned_spool()

    def close(self) -> None:
        """See `Storage.close`."""
        self._forget()
        self._storage.close()

    def _forget(self) -> None:
        with self._lock:
            self._listings.clear()


def _listed(storage: Storage, folder: str) -> list[StoredObject]:
    return list(storage.list(folder))


def _taken(listing: Future[list[StoredObject]]) -> Iterator[StoredObject]:
    yield from listing.result()
