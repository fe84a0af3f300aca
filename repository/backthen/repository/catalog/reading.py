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
    storage: Storage, keys: RepositoryKeys, kind: ObjectKind, name: str, id_: ObjectId, record: type[_Record]
) -> _Record:
    """The record in the object of that name, whose bytes must have the SHA-256 `id_`.

    Raises:
        ObjectMissing: there is no such object.
        TamperedError, MalformedError: it was damaged or changed.
        NewerFormatError: it needs a newer version of the program.
        StorageError: the storage failed.
    """
    # Bounded, so that an invented object of any length cannot fill the memory: what is cut fails the comparison.
    data = storage.get(name, 0, fmt.PAYLOAD_BYTES_MAX)
    if object_id(data) != id_:
        raise TamperedError("its bytes are not those of its name", name=name)
    return decode_record(open_object(keys, kind, data, name=name), record, name=name)
