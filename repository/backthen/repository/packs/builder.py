"""Assembling one pack in a spool file: header, sealed segments, directory, trailer (FORMAT.md, section 5)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from backthen.repository import format as fmt
from backthen.repository.crypto import PackCipher, RepositoryKeys, new_pack_cipher
from backthen.repository.errors import StorageError
from backthen.repository.ids import ObjectId, PackId
from backthen.repository.model.records import IndexedPack
from backthen.repository.packs.segment import Segment

SEGMENT_RECORD = struct.Struct(">IIBx")
BLOB_RECORD = struct.Struct(">B32sI")
TRAILER = struct.Struct(">II")
_FIXED_BYTES = fmt.PACK_HEADER_BYTES + 4 + fmt.TAG_BYTES + fmt.PACK_TRAILER_BYTES
_DIRECTORY_OVERHEAD_BYTES = 16


class BuiltPack(NamedTuple):
    """A finished pack in its spool file, and what the index says of it."""

    path: Path
    length: int
    indexed: IndexedPack


class PackBuilder:
    """One pack being filled. Not safe to share between threads; unusable after an error."""

    def __init__(self, keys: RepositoryKeys, pack_class: int, path: Path, file: BinaryIO) -> None:
        self._keys = keys
        self._class = pack_class
        self._path = path
        self._file = file
        self._hash = hashlib.sha256()
        self._cipher: PackCipher | None = None
        self._memory = _Memory()
        self._segments: list[tuple[int, int, int]] = []
        self._blobs = bytearray()
        self._prefixes = bytearray()
        self._bytes = _FIXED_BYTES + _DIRECTORY_OVERHEAD_BYTES
        self._failure: BaseException | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added yet."""
        return not self._segments

    @property
    def room(self) -> int:
        """Bytes that may still be added; what a unit takes is `cost` of it. None for a pack of very many blobs."""
        if len(self._blobs) >= fmt.PACK_BLOBS_MAX * BLOB_RECORD.size:
            return 0
        return fmt.PACK_BYTES_TARGET - self._bytes

    @staticmethod
    def cost(unit: Sequence[Segment]) -> int:
        """Bytes that a unit of segments takes in a pack, its place in the directory included."""
        fixed = len(unit) * (fmt.TAG_BYTES + SEGMENT_RECORD.size)
        return fixed + sum(len(segment.plaintext) + len(segment.blobs) * BLOB_RECORD.size for segment in unit)

    def add(self, unit: Sequence[Segment]) -> None:
        """Seal and append segments that must stay together.

        Raises:
            StorageError: the spool file cannot be written.
        """
        with self._usable():
            self._add(unit)

    def _add(self, unit: Sequence[Segment]) -> None:
        if self._cipher is None:
            self._cipher = new_pack_cipher(self._keys, self._class, unit[0].plaintext[: fmt.KIB])
            self._write(self._cipher.header)
        for segment in unit:
            sealed = self._memory.seal_verified(self._cipher, len(self._segments), segment.plaintext)
            self._write(sealed)
            self._segments.append((len(sealed), len(segment.blobs), segment.form))
            for blob in segment.blobs:
                self._blobs += BLOB_RECORD.pack(*blob)
                self._prefixes += blob.id[: fmt.ID_PREFIX_BYTES]
        self._bytes += self.cost(unit)

    def finish(self) -> BuiltPack:
        """Append directory and trailer; the file is complete but not yet durable.

        Raises:
            StorageError: the spool file cannot be written.
        """
        with self._usable():
            return self._finish()

    def _finish(self) -> BuiltPack:
        cipher = self._cipher
        assert cipher is not None and self._segments
        before = fmt.PACK_HEADER_BYTES + sum(length for length, _, _ in self._segments)
        directory = self._directory(before + 4 + fmt.TAG_BYTES + fmt.PACK_TRAILER_BYTES)
        sealed = self._memory.seal_verified(cipher, len(self._segments), directory, last=True)
        self._write(sealed)
        self._write(cipher.seal_trailer(TRAILER.pack(len(self._segments), len(sealed))))
        self._flush()
        length = before + len(sealed) + fmt.PACK_TRAILER_BYTES
        assert length == fmt.padded_pack_length(length)
        return BuiltPack(self._path, length, self._indexed())

    def _directory(self, other_bytes: int) -> bytes:
        segments = b"".join(SEGMENT_RECORD.pack(*record) for record in self._segments)
        payload = msgspec.msgpack.encode((segments, self._blobs))
        needed = other_bytes + len(payload)
        return len(payload).to_bytes(4, "big") + payload + bytes(fmt.padded_pack_length(needed) - needed)

    def _indexed(self) -> IndexedPack:
        lengths = pack_numbers([length for length, _, _ in self._segments])
        counts = pack_numbers([count for _, count, _ in self._segments])
        pack_id = PackId(ObjectId(self._hash.digest()))
        return IndexedPack(pack_id, lengths, counts, bytes(self._prefixes))

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """After a failure a segment's number may be used up, and numbers are nonces; a unit may be there in part.

        Nothing more may be sealed.
        """
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except BaseException as error:
            self._failure = error
            raise

    def _write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        try:
            self._file.write(data)
        except OSError as error:
            raise _spool_error(error) from error

    def _flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            raise _spool_error(error) from error


def pack_numbers(numbers: Sequence[int]) -> bytes:
    """The numbers as 4 bytes each, most significant first."""
    return struct.pack(f">{len(numbers)}I", *numbers)


class _Memory:
    """What is sealed into and opened into, used again for each segment: fresh memory costs more than the cipher."""

    __slots__ = ("_opened", "_sealed")

    def __init__(self) -> None:
        self._sealed = bytearray()
        self._opened = bytearray()

    def seal_verified(self, cipher: PackCipher, number: int, plaintext: bytes, *, last: bool = False) -> memoryview:
        """Seal, and open again before the result is trusted. The result is valid until the next call."""
        length = len(plaintext)
        if length > len(self._opened):
            self._sealed, self._opened = bytearray(length + fmt.TAG_BYTES), bytearray(length)
        sealed = memoryview(self._sealed)[: length + fmt.TAG_BYTES]
        cipher.seal_into(number, plaintext, sealed, last=last)
        cipher.open_into(number, sealed, memoryview(self._opened)[:length], last=last)
        if not self._opened.startswith(plaintext):
            raise AssertionError("a sealed segment did not open to what was sealed")
        return sealed


def _spool_error(error: OSError) -> StorageError:
    return StorageError(
        f"a temporary file of a pack cannot be written: {error.strerror}", hint="Make room and try again."
    )
