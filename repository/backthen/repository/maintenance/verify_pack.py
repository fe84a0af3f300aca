"""Reading one pack whole: its name, every segment, every blob."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import accumulate, pairwise

from backthen.repository import format as fmt
from backthen.repository.crypto import BlobKind, RepositoryKeys, open_pack_cipher
from backthen.repository.errors import DamageError, MalformedError, NewerFormatError, ObjectMissing, TamperedError
from backthen.repository.ids import PackId
from backthen.repository.objects import load_pack_directory
from backthen.repository.packs import BlobRecord, PackDirectory, RunPiece, SolidBody, open_segment
from backthen.repository.storage import CachedStorage, Storage, pack_name

_READ_BYTES = 1 * fmt.MIB
"""So much of a pack is read at once, and a segment more: each reading costs a round trip or a few system calls."""

_AHEAD_BYTES = 4 * fmt.MIB
"""So much of a pack is fetched ahead where it is elsewhere; two are verified at once."""


def verify_pack(
    storage: Storage, keys: RepositoryKeys, pack_id: PackId, length: int, cached: CachedStorage | None = None
) -> Iterator[str]:
    """What is wrong with a pack of `length` bytes, one sentence each; all its bytes are read.

    `cached` is the storage, where it is elsewhere and can be fetched from ahead.

    Raises:
        StorageError: the storage failed.
    """
    name = pack_name(pack_id)
    try:
        directory = load_pack_directory(storage, keys, pack_id, length)
    except (DamageError, ObjectMissing, NewerFormatError) as error:
        yield f"its directory cannot be read ({error})"
        return
    digest = hashlib.sha256(storage.get(name, 0, fmt.PACK_HEADER_BYTES))
    end = fmt.PACK_HEADER_BYTES + sum(directory.lengths)
    yield from _verify_segments(storage, keys, name, directory, digest, cached)
    digest.update(storage.get(name, end, length - end))
    if digest.digest() != pack_id:
        yield "its bytes are not those of its name"


def _verify_segments(
    storage: Storage,
    keys: RepositoryKeys,
    name: str,
    directory: PackDirectory,
    digest: hashlib._Hash,
    cached: CachedStorage | None,
) -> Iterator[str]:
    cipher = open_pack_cipher(keys, storage.get(name, 0, fmt.PACK_HEADER_BYTES))
    blobs = iter(directory.blobs)
    run: _Run | None = None
    for number, offset, sealed in _read_segments(storage, name, directory, digest, cached):
        begins = [next(blobs) for _ in range(directory.counts[number])]
        try:
            body = open_segment(cipher, number, sealed, directory.forms[number])
            if isinstance(body, SolidBody):
                _verify_solid(keys, body, begins)
            else:
                run = _Run(keys, begins[0]) if begins else run
                _verify_piece(run, body)
        except (TamperedError, MalformedError) as error:
            yield f"segment {number} at byte {offset}: {error}"
            run = None


def _read_segments(
    storage: Storage, name: str, directory: PackDirectory, digest: hashlib._Hash, cached: CachedStorage | None
) -> Iterator[tuple[int, int, memoryview]]:
    """(number, offset, sealed bytes) of each segment, all of which go into the digest."""
    offsets = list(accumulate(directory.lengths, initial=fmt.PACK_HEADER_BYTES))
    read_from = read_to = offsets[0]
    part = memoryview(b"")
    for number, (begin, end) in enumerate(pairwise(offsets)):
        if begin == read_to:
            read_from = begin
            read_to = next((offset for offset in offsets[number + 1 :] if offset >= begin + _READ_BYTES), offsets[-1])
            if cached is not None:
                cached.prefetch(name, read_from, min(_AHEAD_BYTES, offsets[-1] - read_from))
            part = memoryview(storage.get(name, read_from, read_to - read_from))
            digest.update(part)
        yield number, begin, part[begin - read_from : end - read_from]


def _verify_solid(keys: RepositoryKeys, body: SolidBody, records: list[BlobRecord]) -> None:
    if len(records) != len(body.ends):
        raise MalformedError("it holds another number of blobs than the directory says")
    for ordinal, record in enumerate(records):
        blob = body.blob(ordinal)
        if len(blob) != record.length or keys.blob_id(BlobKind(record.kind), blob) != record.id:
            raise MalformedError(f"blob {ordinal} is not the one the directory says")


class _Run:
    """The pieces of one large blob, checked as they come."""

    def __init__(self, keys: RepositoryKeys, record: BlobRecord) -> None:
        self._hash = keys.blob_hash(BlobKind(record.kind))
        self.record = record
        self.pieces = 0
        self.bytes = 0

    def add(self, piece: RunPiece) -> None:
        if (piece.id, piece.number, piece.blob_length) != (self.record.id, self.pieces, self.record.length):
            raise MalformedError("it is not the piece that the directory says")
        self._hash.update(piece.data)
        self.pieces += 1
        self.bytes += len(piece.data)
        if self.bytes == self.record.length and self._hash.digest() != self.record.id:
            raise MalformedError("its blob is not the one the directory says")


def _verify_piece(run: _Run | None, body: RunPiece) -> None:
    if run is None:
        raise MalformedError("it continues a blob whose beginning is damaged or missing")
    run.add(body)
