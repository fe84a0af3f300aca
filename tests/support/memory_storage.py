"""A storage in memory: passes the same contract suite as the real ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from typing_extensions import Buffer

from backthen.repository.errors import InvalidRequest, ObjectExists, ObjectMissing, RepositoryExists
from backthen.repository.storage import CONFIG_NAME, StoredObject, check_folder, check_object_name
from backthen.repository.storage.local_file import of_local_file


class MemoryStorage:
    """A `Storage` whose objects live as long as it does."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @property
    def location(self) -> str:
        """See `Storage.location`."""
        return "memory"

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
        return 1

    def create(self) -> None:
        """See `Storage.create`."""
        with self._lock:
            if CONFIG_NAME in self._objects:
                raise RepositoryExists("there is a repository in memory already")
            if any(not name.startswith("keys/") for name in self._objects):
                raise InvalidRequest("the memory is not empty")

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`."""
        check_object_name(name)
        with self._lock:
            if name in self._objects:
                raise ObjectExists(f"{name} exists already")
            self._objects[name] = bytes(data)

    def put_file(self, name: str, path: Path) -> None:
        """See `Storage.put_file`."""
        check_object_name(name)
        with of_local_file(path):
            data = path.read_bytes()
        try:
            self.put(name, data)
        finally:
            path.unlink()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Storage.get`."""
        check_object_name(name)
        data = self._objects.get(name)
        if data is None:
            raise ObjectMissing(f"{name} is not there")
        return data[offset:] if length is None else data[offset : offset + length]

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        check_folder(folder)
        with self._lock:
            found = [item for item in self._objects.items() if item[0].startswith(f"{folder}/")]
        return (StoredObject(name, len(data)) for name, data in found)

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        check_object_name(name)
        with self._lock:
            self._objects.pop(name, None)

    def remove_abandoned_spool(self) -> int:
        """See `Storage.remove_abandoned_spool`."""
        return 0

    def close(self) -> None:
        """See `Storage.close`."""

    def tamper(self, name: str, data: bytes) -> None:
        """Change or invent an object, as an adversary who holds the storage can."""
        with self._lock:
            self._objects[name] = data
