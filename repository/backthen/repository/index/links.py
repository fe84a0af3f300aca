"""The link groups of a running snapshot: there may be millions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backthen.repository.crypto import SpillCipher
from backthen.repository.index.temporary import TemporaryTable

_COUNT_BYTES = 4


class LinkTable:
    """Group key to record and number of names. Use from one thread; `close` it.

    Every method raises `CacheError` when the disk cannot be written.
    """

    def __init__(self, folder: Path, cipher: SpillCipher) -> None:
        """Make an empty table in a folder on a local disk; records are sealed with `cipher`."""
        self._cipher = cipher
        self._table = TemporaryTable(folder)

    def close(self) -> None:
        """Drop the table."""
        self._table.close()

    def add_name(self, key: bytes) -> bool:
        """Count one more name of a group; False when the group has no record yet."""
        value = self._table.get(key)
        if value is None:
            return False
        names = int.from_bytes(value[:_COUNT_BYTES], "big") + 1
        self._table.put(key, names.to_bytes(_COUNT_BYTES, "big") + value[_COUNT_BYTES:])
        return True

    def add_record(self, key: bytes, record: bytes) -> None:
        """Keep the record of a group at its first name."""
        self._table.put(key, (1).to_bytes(_COUNT_BYTES, "big") + self._cipher.seal(record))

    def __iter__(self) -> Iterator[tuple[bytes, int, bytes]]:
        """(group key, names, record) in order of the keys."""
        for key, value in self._table:
            yield key, int.from_bytes(value[:_COUNT_BYTES], "big"), self._cipher.open(value[_COUNT_BYTES:])
