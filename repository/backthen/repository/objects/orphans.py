"""Packs that no index object describes: what a killed snapshot left behind, to be used by the next one."""

from __future__ import annotations

from collections.abc import Iterable

from backthen.repository import format as fmt
from backthen.repository.crypto import RepositoryKeys, open_pack_cipher
from backthen.repository.errors import DamageError, NewerFormatError, ObjectMissing
from backthen.repository.ids import PackId
from backthen.repository.index import LocalIndex
from backthen.repository.model.records import IndexedPack, IndexObject
from backthen.repository.objects.indexing import is_index_full, put_index
from backthen.repository.packs import PackDirectory, read_pack_directory
from backthen.repository.storage import Storage, pack_name, side_by_side


def load_pack_directory(storage: Storage, keys: RepositoryKeys, pack_id: PackId, length: int) -> PackDirectory:
    """What a stored pack of `length` bytes says of itself.

    Raises:
        DamageError: it was damaged, changed, or is gone.
        StorageError: the storage failed.
    """
    name = pack_name(pack_id)
    cipher = open_pack_cipher(keys, storage.get(name, 0, fmt.PACK_HEADER_BYTES))
    return read_pack_directory(cipher, length, lambda offset, count: storage.get(name, offset, count))


def index_orphans(
    storage: Storage, keys: RepositoryKeys, index: LocalIndex, packs: Iterable[tuple[PackId, int]]
) -> int:
    """Index those of the given packs (id, length in bytes) that no index object describes; how many there were.

    A pack that cannot be read is left alone: nothing relies on it, and `check` names it.

    Raises:
        StorageError: the storage failed.
        CacheError: the local index cannot be written.
    """
    count = 0
    found: dict[int, list[IndexedPack]] = {}

    def load(pack: tuple[PackId, int]) -> tuple[PackId, PackDirectory | None]:
        try:
            return pack[0], load_pack_directory(storage, keys, *pack)
        except (DamageError, ObjectMissing, NewerFormatError):
            return pack[0], None

    orphans = [pack for pack in packs if not index.has_pack(pack[0])]
    # A directory is a part of its pack: of the smallest files nearly all of it.
    for pack_id, directory in side_by_side(storage, load, orphans, weigh=lambda pack: pack[1]):
        if directory is None:
            continue
        count += 1
        waiting = found.setdefault(directory.pack_class, [])
        waiting.append(directory.indexed(pack_id))
        if is_index_full(waiting):
            _index(storage, keys, index, directory.pack_class, found.pop(directory.pack_class))
    for pack_class, waiting in found.items():
        _index(storage, keys, index, pack_class, waiting)
    return count


def _index(
    storage: Storage, keys: RepositoryKeys, index: LocalIndex, pack_class: int, packs: list[IndexedPack]
) -> None:
    index_id, _ = put_index(storage, keys, pack_class, packs)
    index.add([(index_id, IndexObject(pack_class, tuple(packs)))])
