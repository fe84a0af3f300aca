"""Storing again what is needed of a pack that is to be deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from backthen.repository import format as fmt
from backthen.repository.crypto import BlobKind, PackCipher, RepositoryKeys, open_pack_cipher
from backthen.repository.errors import MalformedError, ObjectMissing
from backthen.repository.ids import PackId
from backthen.repository.model.entry import BlobRef
from backthen.repository.objects import BlobWriter
from backthen.repository.packs import BlobRecord, Segment, SolidBody, open_segment, read_pack_directory
from backthen.repository.storage import Storage, pack_name

_DEAD_SHARE_MAX = 1 / 4


class _Unit(NamedTuple):
    """Segments that stay together: number of the first, how many, and the blobs that begin in them."""

    first: int
    segments: int
    blobs: list[BlobRecord]
    is_needed: list[bool]


def is_moved_whole(blobs: int, needed: int) -> bool:
    """Whether a segment of so many blobs, of which so many are needed, is moved as it is, and not made anew."""
    return blobs - needed <= blobs * _DEAD_SHARE_MAX


def move_needed(storage: Storage, keys: RepositoryKeys, pack_id: PackId, needed: bytes, writer: BlobWriter) -> None:
    """Put those blobs of a pack that are needed, and not stored elsewhere, into other packs.

    Args:
        storage: holds the pack.
        keys: the repository's keys.
        pack_id: the pack.
        needed: one byte for each of its blobs, not 0 where it is needed.
        writer: stores them; does not rely on this pack.

    Raises:
        TamperedError, MalformedError: the pack was damaged or changed.
        StorageError: the storage failed.
        CacheError: the local index cannot be used.
    """
    try:
        data = memoryview(storage.get(pack_name(pack_id)))
    except ObjectMissing:
        return  # another prune sweeps the same mark, and has stored again what is needed
    cipher = open_pack_cipher(keys, bytes(data[: fmt.PACK_HEADER_BYTES]))
    directory = read_pack_directory(cipher, len(data), lambda offset, count: bytes(data[offset : offset + count]))
    if len(directory.blobs) != len(needed):
        raise MalformedError("the index says something else of it than it says itself", name=pack_name(pack_id))
    offsets = list(accumulate(directory.lengths, initial=fmt.PACK_HEADER_BYTES))
    for unit in _units(directory.counts, directory.blobs, needed):
        pairs = zip(unit.blobs, unit.is_needed, strict=True)
        alive = [is_needed and not writer.rely(_ref(blob)) for blob, is_needed in pairs]
        if not any(alive):
            continue
        numbers = range(unit.first, unit.first + unit.segments)
        sealed = [data[begin:end] for begin, end in pairwise(offsets[unit.first : unit.first + unit.segments + 1])]
        forms = directory.forms[unit.first : unit.first + unit.segments]
        if is_moved_whole(len(alive), sum(alive)):
            plain = [cipher.open(number, part) for number, part in zip(numbers, sealed, strict=True)]
            blobs = [tuple(unit.blobs), *([()] * (unit.segments - 1))]
            writer.move([Segment(*parts) for parts in zip(forms, plain, blobs, strict=True)])
        else:
            _put_alive(cipher, unit, sealed[0], forms[0], alive, writer)


def _units(counts: Sequence[int], blobs: Sequence[BlobRecord], needed: bytes) -> Iterator[_Unit]:
    """The segments of a pack: each by itself, or as many as hold the pieces of one large blob."""
    at = first = 0
    while first < len(counts):
        stop = first + 1
        while stop < len(counts) and not counts[stop]:
            stop += 1
        end = at + counts[first]
        yield _Unit(first, stop - first, list(blobs[at:end]), [bool(byte) for byte in needed[at:end]])
        at, first = end, stop


def _put_alive(
    cipher: PackCipher, unit: _Unit, sealed: memoryview, form: int, alive: Sequence[bool], writer: BlobWriter
) -> None:
    body = open_segment(cipher, unit.first, sealed, form)
    if not isinstance(body, SolidBody) or len(body.ends) != len(unit.blobs):
        raise MalformedError("a segment does not hold the blobs that its pack says")
    for ordinal, (blob, is_alive) in enumerate(zip(unit.blobs, alive, strict=True)):
        if is_alive and writer.put(BlobKind(blob.kind), body.blob(ordinal)) != _ref(blob):
            raise MalformedError("a segment holds another blob than its pack says")


def _ref(blob: BlobRecord) -> BlobRef:
    return BlobRef(blob.id, blob.length)
