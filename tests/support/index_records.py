"""Index objects of made-up packs."""

from __future__ import annotations

import hashlib
import struct

from backthen.repository import format as fmt
from backthen.repository.ids import BlobId, ObjectId, PackId
from backthen.repository.model.records import IndexedPack, IndexObject


def blob_id(number: int) -> BlobId:
    """The id of blob `number`."""
    return BlobId(hashlib.sha256(b"blob %d" % number).digest())


def pack_id(number: int) -> PackId:
    """The id of pack `number`."""
    return PackId(object_id(-number - 1))


def object_id(number: int) -> ObjectId:
    """The id of index object `number`."""
    return ObjectId(hashlib.sha256(b"object %d" % number).digest())


def indexed_pack(number: int, blobs: range, *, per_segment: int = 10) -> IndexedPack:
    """A pack of those blobs; each segment has `per_segment` of them, and segment i is 1,000 + i bytes long."""
    counts = [min(per_segment, len(blobs) - at) for at in range(0, len(blobs), per_segment)]
    lengths = [1000 + at for at in range(len(counts))]
    prefixes = b"".join(blob_id(blob)[: fmt.ID_PREFIX_BYTES] for blob in blobs)
    return IndexedPack(pack_id(number), _packed(lengths), _packed(counts), prefixes)


def index_object(*packs: IndexedPack, pack_class: int = fmt.PACK_CLASS_DATA) -> IndexObject:
    """An index object of those packs."""
    return IndexObject(pack_class, packs)


def _packed(numbers: list[int]) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)
