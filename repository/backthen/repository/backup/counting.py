"""What a snapshot would store, without storing it."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import Buffer

from backthen.repository import format as fmt
from backthen.repository.crypto import BlobKind, RepositoryKeys
from backthen.repository.ids import PackId
from backthen.repository.index import LocalIndex, TemporaryTable
from backthen.repository.model.entry import BlobRef


class BlobCounter:
    """Counts the bytes of blobs that are not stored yet. Stands in for a `BlobWriter` in a dry run; use in a `with`."""

    def __init__(self, keys: RepositoryKeys, index: LocalIndex, *, usable: set[PackId], folder: Path) -> None:
        """Ask `index`, of whose packs the `usable` ones are in storage.

        Raises:
            CacheError: the folder cannot be written.
        """
        self._keys = keys
        self._index = index
        self._usable = usable
        self._seen = TemporaryTable(folder)
        self.bytes_added = 0
        self.relied: set[PackId] = set()

    def __enter__(self) -> BlobCounter:
        """Start."""
        return self

    def __exit__(self, *_: object) -> None:
        """Drop what was remembered."""
        self._seen.close()

    def put(self, kind: BlobKind, data: Buffer) -> BlobRef:
        """Count a blob if it is neither stored nor counted yet.

        Raises:
            CacheError: the folder cannot be written.
        """
        view = memoryview(data)
        ref = BlobRef(self._keys.blob_id(kind, view), len(view))
        prefix = ref.id[: fmt.ID_PREFIX_BYTES]
        if self._seen.get(prefix) is None and not self.rely(ref):
            self._seen.put(prefix, b"")
            self.bytes_added += ref.length
        return ref

    def rely(self, ref: BlobRef) -> bool:
        """Whether a blob is stored."""
        places = self._index.copies(ref.id[: fmt.ID_PREFIX_BYTES])
        return any(self._index.pack_id(place) in self._usable for place in places)

    def flush(self) -> None:
        """There is nothing to wait for."""
