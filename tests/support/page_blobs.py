"""Pages in a dict, for tests of what is made of pages."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from backthen.repository.crypto import BlobKind, RepositoryKeys
from backthen.repository.model.entry import BlobRef
from backthen.repository.model.page import Page


class PageBlobs:
    """A `BlobSource` of what was put.

    Attributes:
        pages: every page that was put, by id.
        reads: how many pages were asked for.
    """

    def __init__(self, keys: RepositoryKeys) -> None:
        self._keys = keys
        self.pages: dict[bytes, bytes] = {}
        self.reads = 0

    def put(self, data: bytes) -> BlobRef:
        """Keep a blob."""
        id_ = self._keys.blob_id(BlobKind.PAGE, data)
        self.pages[id_] = data
        return BlobRef(id_, len(data))

    def page(self, ref: BlobRef, decode: Callable[[bytes], Page]) -> Page:
        """See `BlobSource.page`."""
        self.reads += 1
        data = self.pages[ref.id]
        assert ref.length == len(data)
        return decode(data)

    def read(self, ref: BlobRef, offset: int = 0, length: int | None = None) -> bytes | memoryview:
        """See `BlobSource.read`."""
        data = memoryview(self.pages[ref.id])
        return data[offset:] if length is None else data[offset : offset + length]

    def segment_of(self, ref: BlobRef) -> Hashable:
        """See `BlobSource.segment_of`: each blob has its own."""
        return ref.id

    def read_together(self, refs: Sequence[BlobRef]) -> list[bytes | memoryview]:
        """See `BlobSource.read_together`."""
        return [self.read(ref) for ref in refs]

    @property
    def eagerness(self) -> int:
        """See `BlobSource.eagerness`."""
        return 1

    def expect(self, ref: BlobRef) -> bool:
        """See `BlobSource.expect`."""
        return True
