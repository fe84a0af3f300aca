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
    present = {id_ for stored in storage.list("index") if (id_ := parse_index_name(stored.name)) is not None}
    is_any_gone = bool(known - present)
    if is_any_gone:
        index.clear()
        known = set()
    missing = sorted(present - known)
    if missing:
        unreadable: list[DamageError | NewerFormatError] = []
        index.add(_read(storage, keys, missing, unreadable))
        if unreadable:
            raise unreadable[0]
    return is_any_gone or bool(missing)


def _read(
    storage: Storage, keys: RepositoryKeys, ids: list[ObjectId], unreadable: list[DamageError | NewerFormatError]
) -> Iterator[tuple[ObjectId, IndexObject]]:
    """The objects that can be read; what is wrong with the others is added to `unreadable`."""
    for id_, data in zip(ids, side_by_side(storage, lambda id_: _get(storage, id_), ids), strict=True):
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


def _get(storage: Storage, id_: ObjectId) -> bytes | None:
    try:
        return storage.get(index_name(id_), 0, fmt.PAYLOAD_BYTES_MAX)
    except ObjectMissing:
        return None
