"""Putting many keys and values in order on the disk, because memory must not grow with the repository."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from backthen.repository import format as fmt

_BUCKETS = 256
_BYTES_IN_MEMORY_MAX = 8 * fmt.MIB


class Sorter:
    """Keys and values of fixed lengths. Keys are PRFs, so those with one first byte are few enough to sort at once.

    The file is unlinked from the beginning. Every method raises `OSError` when the disk does not take it.
    """

    def __init__(self, folder: Path, *, key_bytes: int, value_bytes: int) -> None:
        """Nothing yet; the folder is on a local disk."""
        self._key_bytes = key_bytes
        self._entry_bytes = key_bytes + value_bytes
        self._file = tempfile.TemporaryFile(prefix="sort-", dir=folder)  # noqa: SIM115  Closed by `close`.
        self._buckets = [bytearray() for _ in range(_BUCKETS)]
        self._runs: list[list[tuple[int, int]]] = [[] for _ in range(_BUCKETS)]
        self._held = 0

    def close(self) -> None:
        """Drop everything."""
        self._file.close()

    def add(self, key: bytes, value: bytes) -> None:
        """Take one in."""
        self._buckets[key[0]] += key + value
        self._held += self._entry_bytes
        if self._held > _BYTES_IN_MEMORY_MAX:
            self._write()

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """All that was added, in order of keys, then of values."""
        self._write()
        split, step = self._key_bytes, self._entry_bytes
        for runs in self._runs:
            data = b"".join(self._read(*run) for run in runs)
            for entry in sorted(data[at : at + step] for at in range(0, len(data), step)):
                yield entry[:split], entry[split:]

    def _read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)

    def _write(self) -> None:
        for bucket, runs in zip(self._buckets, self._runs, strict=True):
            if bucket:
                runs.append((self._file.tell(), len(bucket)))
                self._file.write(bucket)
                bucket.clear()
        self._held = 0
