"""Index objects put into storage, and replaced by others that no longer name certain packs."""

from __future__ import annotations

from collections.abc import Sequence, Set

from backthen.repository import format as fmt
from backthen.repository.crypto import RepositoryKeys, object_id
from backthen.repository.errors import ObjectMissing, TamperedError
from backthen.repository.ids import ObjectId, PackId
from backthen.repository.index import decode_index, encode_index
from backthen.repository.model.records import IndexedPack
from backthen.repository.storage import Storage, index_name, parse_index_name, parse_pack_name

_PACKS_PER_INDEX = 64
_BLOBS_PER_INDEX = 262_144


def is_index_full(packs: Sequence[IndexedPack]) -> bool:
    """Whether one index object describes enough with these packs, where they are gathered from others."""
    blobs = sum(len(pack.prefixes) for pack in packs) // fmt.ID_PREFIX_BYTES
    return len(packs) >= _PACKS_PER_INDEX or blobs >= _BLOBS_PER_INDEX


def put_index(
    storage: Storage, keys: RepositoryKeys, pack_class: int, packs: Sequence[IndexedPack]
) -> tuple[ObjectId, int]:
    """Describe packs of one class by an index object: its id, and its length in bytes.

    Raises:
        StorageError: the storage failed.
    """
    data = encode_index(keys, pack_class, packs)
    index_id = object_id(data)
    storage.put(index_name(index_id), data)
    return index_id, len(data)


def remove_from_index(storage: Storage, keys: RepositoryKeys, packs: Set[PackId]) -> None:
    """Let no index object name these packs, nor any that is gone.

    What else those say that do is put anew, and then they are deleted.

    Raises:
        TamperedError, MalformedError: an index object was damaged or changed; none was deleted.
        StorageError: the storage failed.
    """
    replaced: list[str] = []
    kept: dict[int, list[IndexedPack]] = {}
    done: set[PackId] = set()
    listed = list(storage.list("index"))
    # After that listing: packs are there before an index object names them, so what is not there has been deleted.
    staying = {pack for stored in storage.list("packs") if (pack := parse_pack_name(stored.name)) is not None} - packs
    for stored in listed:
        index_id = parse_index_name(stored.name)
        if index_id is None:
            continue
        try:
            data = storage.get(stored.name, 0, fmt.PAYLOAD_BYTES_MAX)
        except ObjectMissing:
            continue  # replaced by another prune since the listing
        if object_id(data) != index_id:
            raise TamperedError("its bytes are not those of its name", name=stored.name)
        described = decode_index(keys, data, name=stored.name)
        if any(pack.id not in staying for pack in described.packs):
            replaced.append(stored.name)
            rest = kept.setdefault(described.pack_class, [])
            rest.extend(pack for pack in described.packs if pack.id in staying - done)
            done.update(pack.id for pack in rest)  # of those described twice once is enough
            if is_index_full(rest):
                put_index(storage, keys, described.pack_class, kept.pop(described.pack_class))
    for pack_class, rest in kept.items():
        if rest:
            put_index(storage, keys, pack_class, rest)
    for name in replaced:
        storage.delete(name)
