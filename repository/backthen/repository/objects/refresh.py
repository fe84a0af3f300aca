"""Bringing the local index up to what the storage's index objects say."""

from __future__ import annotations

from collections.abc import Iterator

from backthen.repository import format as fmt
from backthen.repository.crypto import RepositoryKeys, object_id
from backthen.repository.errors import DamageError, NewerFormatError, ObjectMissing, TamperedError
from backthen.repository.ids import ObjectId
from backthen.repository.index import LocalIndex, decode_index
from backthen.repository.model.records import IndexObject
from backthen.repository.storage import Storage, index_name, parse_index_name, side_by_side


def refresh_index(storage: Storage, keys: RepositoryKeys, index: LocalIndex) -> bool:
    """Take in index objects that are new; begin anew where some are gone. Whether anything changed.

    Raises:
        StorageError: the storage failed.
        TamperedError, MalformedError: an index object was damaged or changed; all others were taken in.
        NewerFormatError: one needs a newer version of the program; all others were taken in.
        CacheError: the local index cannot be written.
    """
    known = (
        index.object_ids()
    )  # first: what another process stores and adds while this lists must not look as if it were gone
    listed = ((parse_index_name(stored.name), stored.length) for stored in storage.list("index"))
    present = {id_: length for id_, length in listed if id_ is not None}
    is_any_gone = bool(known - present.keys())
    if is_any_gone:
        index.clear()
        known = set()
    missing = sorted((id_, length) for id_, length in present.items() if id_ not in known)
    if missing:
        unreadable: list[DamageError | NewerFormatError] = []
        index.add(_read(storage, keys, missing, unreadable))
        if unreadable:
            raise unreadable[0]
    return is_any_gone or bool(missing)


def _read(
    storage: Storage,
    keys: RepositoryKeys,
    objects: list[tuple[ObjectId, int]],
    unreadable: list[DamageError | NewerFormatError],
) -> Iterator[tuple[ObjectId, IndexObject]]:
    """The objects that can be read; what is wrong with the others is added to `unreadable`."""

    def get(listed: tuple[ObjectId, int]) -> bytes | None:
        return _get(storage, *listed)

    read = side_by_side(storage, get, objects, weigh=lambda listed: listed[1])
    for (id_, _), data in zip(objects, read, strict=True):
        name = index_name(id_)
        if data is None:
            continue  # merged away since the listing; what it said stands in the merged object, listed next time
        try:
            if object_id(data) != id_:
                raise TamperedError("its bytes are not those of its name", name=name)
            decoded = decode_index(keys, data, name=name)
        except (DamageError, NewerFormatError) as error:
            unreadable.append(error)
            continue
        yield id_, decoded


def _get(storage: Storage, id_: ObjectId, length: int) -> bytes | None:
    try:
        return storage.get(index_name(id_), 0, min(length, fmt.PAYLOAD_BYTES_MAX))
    except ObjectMissing:
        return None
