"""A storage that takes a while to answer, and knows what was asked of it, and what had to wait for what.

A call's `depth` is one more than the deepest call that was answered before it began, so calls at once have one depth;
the deepest is how many round trips there were.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from typing_extensions import Buffer

from backthen.repository.storage import Storage, StoredObject


class Call(NamedTuple):
    """What was asked, of which folder (or `config`), and after how many answers in turn."""

    what: str
    folder: str
    depth: int


class DistantStorage:
    """A `Storage` over another one."""

    def __init__(self, storage: Storage, *, answer_s: float = 0.0, concurrency: int = 1) -> None:
        """Answer each call after `answer_s` seconds."""
        self._storage = storage
        self._answer_s = answer_s
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._deepest = 0
        self.calls: list[Call] = []

    def forget(self) -> None:
        """Count anew."""
        with self._lock:
            self._deepest = 0
            self.calls.clear()

    @property
    def rounds(self) -> list[list[str]]:
        """What was asked at once, in turn."""
        deepest = max((call.depth for call in self.calls), default=0)
        return [
            sorted(f"{call.what} {call.folder}" for call in self.calls if call.depth == depth)
            for depth in range(1, deepest + 1)
        ]

    @property
    def location(self) -> str:
        """See `Storage.location`."""
        return self._storage.location

    @property
    def folder(self) -> Path | None:
        """See `Storage.folder`."""
        return None

    @property
    def spool(self) -> Path | None:
        """See `Storage.spool`."""
        return None

    @property
    def concurrency(self) -> int:
        """See `Storage.concurrency`."""
        return self._concurrency

    def create(self) -> None:
        """See `Storage.create`."""
        with self._asked("create", ""):
            self._storage.create()

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`."""
        with self._asked("put", name):
            self._storage.put(name, data)

    def put_file(self, name: str, path: Path) -> None:
        """See `Storage.put_file`."""
        with self._asked("put", name):
            self._storage.put_file(name, path)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Storage.get`."""
        with self._asked("get", name):
            return self._storage.get(name, offset, length)

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        with self._asked("list", folder):
            return iter(list(self._storage.list(folder)))

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        with self._asked("delete", name):
            self._storage.delete(name)

    def remove_abandoned_spool(self) -> int:
        """See `Storage.remove_abandoned_spool`."""
        with self._asked("clean", ""):
            return self._storage.remove_abandoned_spool()

    def close(self) -> None:
        """See `Storage.close`."""
        self._storage.close()

    @contextmanager
    def _asked(self, what: str, name: str) -> Iterator[None]:
        with self._lock:
            depth = self._deepest + 1
            self.calls.append(Call(what, name.split("/", 1)[0], depth))
        try:
            time.sleep(self._answer_s)  # the distance itself
            yield
        finally:
            with self._lock:
                self._deepest = max(self._deepest, depth)
