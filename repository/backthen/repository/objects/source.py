"""What readers of blobs can rely on, whether the bytes come from memory or from storage."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol

from backthen.repository.model.entry import BlobRef
from backthen.repository.model.page import Page


class NotInMemory(Exception):
    """A source that must not block was asked for something that is not in memory. Ask the blocking source instead."""


class CacheUse(NamedTuple):
    """How full a cache in memory is: what it holds, and the bytes it has and may have at most, about."""

    name: str
    bytes_used: int
    bytes_max: int


class BlobSource(Protocol):
    """Gives blobs by reference; safe to use from several threads.

    There are two for each repository: one that may block on storage, and one that answers from memory at once or raises
    `NotInMemory`. Each verifies what it gives.

    `page`, `read` and `read_together` raise:
        NotInMemory: only the source that must not block.
        TamperedError, MalformedError, MissingError: the blob is damaged or gone.
        StorageError: the storage failed.
    """

    def page(self, ref: BlobRef, decode: Callable[[bytes], Page]) -> Page:
        """The decoded page at `ref`; the decoded form is kept in memory within a bound."""
        ...

    def read(self, ref: BlobRef, offset: int = 0, length: int | None = None) -> bytes | memoryview:
        """Bytes `offset` to `offset + length` of the blob (to its end when None)."""
        ...

    def segment_of(self, ref: BlobRef) -> Hashable:
        """What the blobs of one segment have in common, to tell which are worth reading together.

        Raises:
            CacheError: the local index is damaged.
        """
        ...

    def read_together(self, refs: Sequence[BlobRef]) -> list[bytes | memoryview]:
        """Several blobs whole, best of one segment: where they are all that is in it, it is not kept in memory."""
        ...

    @property
    def eagerness(self) -> int:
        """How many times as much as was read in order is worth expecting: the more the farther the storage is."""
        ...

    def expect(self, ref: BlobRef) -> bool:
        """Begin to open a blob that will be read soon, in the background; whether there was room for it.

        It never waits, and what fails is told to whoever reads the blob.
        """
        ...
