"""The link groups of a running snapshot: there may be millions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backthen.repository.crypto import SpillCipher
from backthen.repository.index.temporary import TemporaryTable

_COUNT_BYTES = 4
_INCOMPLETE = 1 << 31


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
        """Count one more name of a group; False when it has no complete record yet, so that one should be added."""
        value = self._table.get(key)
        if value is None:
            return False
        count = int.from_bytes(value[:_COUNT_BYTES], "big") + 1
        self._table.put(key, count.to_bytes(_COUNT_BYTES, "big") + value[_COUNT_BYTES:])
        return not count & _INCOMPLETE

    def add_record(self, key: bytes, record: bytes, *, is_complete: bool = True) -> None:
        """Keep the record of a group at its first name, or in place of one that was not complete."""
        value = self._table.get(key)
        names = 1 if value is None else int.from_bytes(value[:_COUNT_BYTES], "big") & ~_INCOMPLETE
        count = names if is_complete else names | _INCOMPLETE
        self._table.put(key, count.to_bytes(_COUNT_BYTES, "big") + self._cipher.seal(record))

    def __iter__(self) -> Iterator[tuple[bytes, int, bytes]]:
        """(group key, names, record) in order of the keys."""
        for key, value in self._table:
            names = int.from_bytes(value[:_COUNT_BYTES], "big") & ~_INCOMPLETE
            yield key, names, self._cipher.open(value[_COUNT_BYTES:])
