"""A table on disk for what a walk must remember and memory must not hold.

Keys are PRFs and values are sealed or say nothing, so nothing readable reaches the disk. The file is unlinked at once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import lmdb

from backthen.repository import format as fmt
from backthen.repository.errors import CacheError
from backthen.repository.private import make_private_folder

_MAP_BYTES = 64 * 1024 * fmt.MIB
_OPERATIONS_PER_TRANSACTION = 10_000


class TemporaryTable:
    """Keys and values in an unlinked file that goes with the process. Use from one thread."""

    def __init__(self, folder: Path) -> None:
        """Make an empty table in a folder on a local disk.

        Raises:
            CacheError: the folder cannot be written.
        """
        try:
            make_private_folder(folder)
            with tempfile.TemporaryDirectory(prefix="table-", dir=folder) as temporary:
                path = str(Path(temporary) / "table")
                self._env = lmdb.open(path, subdir=False, map_size=_MAP_BYTES, sync=False, lock=False, mode=0o600)
        except (OSError, lmdb.Error) as error:
            raise CacheError(f"{folder} cannot be written: {error}", hint="Choose another --cache-dir.") from error
        self._transaction = self._env.begin(write=True)
        self._operations = 0

    def close(self) -> None:
        """Drop the table."""
        self._transaction.abort()
        self._env.close()

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        value: bytes | None = self._transaction.get(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of a key.

        Raises:
            CacheError: the disk is full.
        """
        try:
            self._transaction.put(key, value)
            self._operations += 1
            if self._operations % _OPERATIONS_PER_TRANSACTION == 0:
                self._transaction.commit()
                self._transaction = self._env.begin(write=True)
        except lmdb.Error as error:
            raise CacheError(
                f"a temporary table cannot be written: {error}", hint="Make room in --cache-dir."
            ) from error

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in order of the keys."""
        return iter(self._transaction.cursor())
