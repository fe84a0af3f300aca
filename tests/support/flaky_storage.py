"""A storage that fails as it is told: before a call is done, after it was done, or in the middle of a listing."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from typing_extensions import Buffer

from backthen.repository.errors import StorageError
from backthen.repository.storage import Storage, StoredObject
from backthen.repository.storage.local_file import of_local_file
from backthen.repository.storage.wrappers.wrapper import StorageWrapper

_Result = TypeVar("_Result")


def broken_line() -> StorageError:
    """What a backend raises when the connection breaks."""
    return StorageError("the connection broke", hint="Is there a network?", transient=True)


class FlakyStorage(StorageWrapper):
    """A `Storage` over another one. Each fault is for one call, in the order in which they were told.

    Attributes:
        calls: the calls that came, as `get index/…`.
        on_call: is told of each call before it is done.
    """

    def __init__(self, storage: Storage, *, concurrency: int = 1) -> None:
        """Fail at nothing yet."""
        super().__init__(storage)
        self._concurrency = concurrency
        self._faults: deque[tuple[StorageError, bool, int]] = deque()
        self._lock = threading.Lock()
        self.calls: list[str] = []
        self.on_call: Callable[[str], object] = lambda _: None

    def fail(self, times: int = 1, *, error: StorageError | None = None, is_late: bool = False, shown: int = 0) -> None:
        """Let the next calls fail.

        Args:
            times: so many calls.
            error: what they raise, a broken line where nothing else is said.
            is_late: they are done all the same, and only their answer is lost.
            shown: so many objects a listing shows before.
        """
        self._faults.extend([(error or broken_line(), is_late, shown)] * times)

    def recover(self) -> None:
        """Fail no more."""
        self._faults.clear()

    @property
    def concurrency(self) -> int:
        """See `Storage.concurrency`."""
        return self._concurrency

    def create(self) -> None:
        """See `Storage.create`."""
        self._call("create", self._storage.create)

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`."""
        self._call(f"put {name}", lambda: self._storage.put(name, data))

    def put_file(self, name: str, path: Path) -> None:
        """See `Storage.put_file`; where only the answer is lost the file is left."""
        with of_local_file(path):
            kept = path.read_bytes()
        try:
            self._call(f"put_file {name}", lambda: self._storage.put_file(name, path))
        except StorageError as error:
            if error.transient and not path.exists():
                path.write_bytes(kept)
            raise

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Storage.get`."""
        return self._call(f"get {name}", lambda: self._storage.get(name, offset, length))

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        return self._list(folder, self._storage.list(folder))

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        self._call(f"delete {name}", lambda: self._storage.delete(name))

    def remove_abandoned_spool(self) -> int:
        """See `Storage.remove_abandoned_spool`."""
        return self._call("remove_abandoned_spool", self._storage.remove_abandoned_spool)

    def close(self) -> None:
        """See `Storage.close`."""
        self.calls.append("close")
        self._storage.close()

    def _list(self, folder: str, listing: Iterator[StoredObject]) -> Iterator[StoredObject]:
        fault = self._next(f"list {folder}")
        for number, stored in enumerate(listing):
            if fault is not None and number == fault[2]:
                raise fault[0]
            yield stored
        if fault is not None:
            raise fault[0]

    def _call(self, what: str, call: Callable[[], _Result]) -> _Result:
        fault = self._next(what)
        if fault is not None and not fault[1]:
            raise fault[0]
        result = call()
        if fault is not None:
            raise fault[0]
        return result

    def _next(self, what: str) -> tuple[StorageError, bool, int] | None:
        self.on_call(what)
        with self._lock:
            self.calls.append(what)
            return self._faults.popleft() if self._faults else None
