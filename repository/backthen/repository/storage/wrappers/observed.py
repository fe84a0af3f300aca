"""A storage that is watched: how much was asked of it, whether it answers, and since when it does not.

It changes nothing of what the storage below does.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from typing_extensions import Buffer

from backthen.repository import clock
from backthen.repository.errors import ObjectExists, ObjectMissing, StorageError
from backthen.repository.storage.contract import Storage, StoredObject
from backthen.repository.storage.wrappers.wrapper import StorageWrapper


class StorageState(NamedTuple):
    """How a storage answers. Times are nanoseconds by the monotonic clock.

    Attributes:
        calls: how often it answered, also with an error.
        bytes_read: what it gave.
        waiting: how many calls it has not answered yet.
        silent_since_ns: since when it has answered nothing although it was asked; None where nothing is waiting.
        failing_since_ns: since when each answer was a failure; None where the last one was none.
        failure: what the last answer said, or nothing where it was no failure.
        bytes_sent: what it took.
    """

    calls: int
    bytes_read: int
    waiting: int
    silent_since_ns: int | None
    failing_since_ns: int | None
    failure: str
    bytes_sent: int = 0


class ObservedStorage(StorageWrapper):
    """A `Storage` over another one. A listing counts as waiting until it was read to its end."""

    def __init__(self, storage: Storage, monotonic_ns: Callable[[], int] = clock.monotonic_ns) -> None:
        """Watch a storage."""
        super().__init__(storage)
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, int] = {}
        self._calls = 0
        self._bytes_read = 0
        self._bytes_sent = 0
        self._answered_ns = monotonic_ns()
        self._failing_since_ns: int | None = None
        self._failure = ""
        self._has_ended = False

    @property
    def state(self) -> StorageState:
        """How it answers now."""
        with self._lock:
            oldest_ns = min(self._waiting.values(), default=None)
            return StorageState(
                self._calls,
                self._bytes_read,
                len(self._waiting),
                None if oldest_ns is None else max(oldest_ns, self._answered_ns),
                self._failing_since_ns,
                self._failure,
                self._bytes_sent,
            )

    def create(self) -> None:
        """See `Storage.create`.

        Raises:
            RepositoryExists: there is a repository.
            InvalidRequest: something else is there.
            StorageError: the storage failed.
        """
        with self._observed():
            self._storage.create()

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`.

        Raises:
            ObjectExists: the name is taken.
            StorageError: the storage failed.
        """
        with self._observed():
            self._storage.put(name, data)
        self._sent(memoryview(data).nbytes)

    def put_file(self, name: str, path: Path) -> None:
        """See `Storage.put_file`.

        Raises:
            ObjectExists: the name is taken.
            StorageError: the storage failed.
        """
        with self._observed():
            length = _length(path)
            self._storage.put_file(name, path)
        self._sent(length)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Storage.get`.

        Raises:
            ObjectMissing: there is no such object.
            StorageError: the storage failed.
        """
        with self._observed():
            data = self._storage.get(name, offset, length)
        with self._lock:
            self._bytes_read += len(data)
        return data

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        return self._list(self._storage.list(folder))

    def delete(self, name: str) -> None:
        """See `Storage.delete`.

        Raises:
            StorageError: the storage failed.
        """
        with self._observed():
            self._storage.delete(name)

    def remove_abandoned_spool(self) -> int:
        """See `Storage.remove_abandoned_spool`.

        Raises:
            StorageError: the storage failed.
        """
        with self._observed():
            return self._storage.remove_abandoned_spool()

    def close(self) -> None:
        """See `Storage.close`."""
        self._storage.close()

    def end(self) -> None:
        """Close it for good: threads that nobody waits for may be at work still, and shall not begin anew."""
        self._has_ended = True
        self._storage.close()

    def _sent(self, count: int) -> None:
        with self._lock:
            self._bytes_sent += count

    def _list(self, listing: Iterator[StoredObject]) -> Iterator[StoredObject]:
        with self._observed():
            yield from listing

    @contextmanager
    def _observed(self) -> Iterator[None]:
        if self._has_ended:
            raise StorageError(f"{self.location}: it was closed")
        number = next(self._numbers)
        with self._lock:
            self._waiting[number] = self._monotonic_ns()
        failure = ""
        try:
            yield
        except (ObjectExists, ObjectMissing):
            raise
        except StorageError as error:
            failure = str(error)
            raise
        finally:
            self._answered(number, failure)

    def _answered(self, number: int, failure: str) -> None:
        with self._lock:
            del self._waiting[number]
            self._calls += 1
            self._answered_ns = self._monotonic_ns()
            self._failure = failure
            if not failure:
                self._failing_since_ns = None
            elif self._failing_since_ns is None:
                self._failing_since_ns = self._answered_ns


def _length(path: Path) -> int:
    """The length of a file in bytes; 0 where it is not there, which the storage says."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
