"""Index objects: the sealed records of what is in which pack (FORMAT.md, section 6)."""

from __future__ import annotations

from collections.abc import Sequence

from backthen.repository import format as fmt
from backthen.repository.crypto import ObjectKind, RepositoryKeys, open_object, seal_object
from backthen.repository.errors import MalformedError
from backthen.repository.model.records import IndexedPack, IndexObject, decode_record, encode_record


def encode_index(keys: RepositoryKeys, pack_class: int, packs: Sequence[IndexedPack]) -> bytes:
    """The stored bytes of an index object."""
    return seal_object(keys, ObjectKind.INDEX, encode_record(IndexObject(pack_class, tuple(packs))))


def decode_index(keys: RepositoryKeys, data: bytes, *, name: str) -> IndexObject:
    """An index object from its stored bytes.

    Raises:
        TamperedError, MalformedError: it was damaged or changed.
    """
    index = decode_record(open_object(keys, ObjectKind.INDEX, data, name=name), IndexObject, name=name)
    if index.pack_class not in (fmt.PACK_CLASS_DATA, fmt.PACK_CLASS_TREE):
        raise MalformedError("it describes packs of an unknown class", name=name)
    for pack in index.packs:
        check_indexed_pack(pack, name=name)
    return index


def check_indexed_pack(pack: IndexedPack, *, name: str) -> None:
    """Hold the parts of a pack's record against each other.

    Raises:
        MalformedError: they contradict each other.
    """
    counts = [int.from_bytes(pack.counts[at : at + 4], "big") for at in range(0, len(pack.counts), 4)]
    fits = (
        len(pack.id) == fmt.ID_BYTES
        and len(pack.lengths) == len(pack.counts)
        and len(pack.lengths) % 4 == 0
        and max(counts, default=0) <= fmt.SEGMENT_BLOBS_MAX
        and sum(counts) * fmt.ID_PREFIX_BYTES == len(pack.prefixes)
    )
    if not fits:
        raise MalformedError("its record of a pack contradicts itself", name=name)
