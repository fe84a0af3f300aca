"""Reading one sealed record: the bytes must be those of the name, the seal must hold, and the record decode."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from backthen.repository import format as fmt
from backthen.repository.crypto import ObjectKind, RepositoryKeys, object_id, open_object
from backthen.repository.errors import TamperedError
from backthen.repository.ids import ObjectId
from backthen.repository.model.records import decode_record
from backthen.repository.storage import Storage

_Record = TypeVar("_Record", bound=msgspec.Struct)


def read_record(
    storage: Storage,
    keys: RepositoryKeys,
    kind: ObjectKind,
    name: str,
    id_: ObjectId,
    record: type[_Record],
    length_max: int = fmt.PAYLOAD_BYTES_MAX,
) -> _Record:
    """The record in the object of that name, whose bytes must have the SHA-256 `id_`.

    Bounded, so that an invented object of any length cannot fill the memory: what is cut fails the comparison.

    Args:
        storage: where it is.
        keys: what it is sealed with.
        kind: what kind of object it is.
        name: its name.
        id_: the SHA-256 of its bytes.
        record: what is in it.
        length_max: so many bytes of it are read, `PAYLOAD_BYTES_MAX` at most.

    Raises:
        ObjectMissing: there is no such object.
        TamperedError, MalformedError: it was damaged or changed.
        NewerFormatError: it needs a newer version of the program.
        StorageError: the storage failed.
    """
    data = storage.get(name, 0, min(length_max, fmt.PAYLOAD_BYTES_MAX))
    if object_id(data) != id_:
        raise TamperedError("its bytes are not those of its name", name=name)
    return decode_record(open_object(keys, kind, data, name=name), record, name=name)
