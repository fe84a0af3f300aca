"""The key slots in storage.

Opening a repository with a password, adding and removing ways in (FORMAT.md, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from backthen.repository import clock
from backthen.repository import format as fmt
from backthen.repository.crypto import (
    ConfigHeader,
    RepositoryKeys,
    Slot,
    SlotKind,
    decode_slot,
    derive_master,
    encode_slot,
    new_recovery_key,
    normalize_recovery_key,
    object_id,
    open_slot,
    open_slot_note,
)
from backthen.repository.errors import (
    DamageError,
    InvalidRequest,
    MissingError,
    ObjectMissing,
    TamperedError,
    WrongPassword,
)
from backthen.repository.ids import ObjectId
from backthen.repository.model.records import SlotNote
from backthen.repository.storage import Storage, StoredObject, key_name, parse_key_name, side_by_side


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """A way into the repository.

    `current` is the one it was opened with; `kind` is `password`, `key file` or `recovery key`.
    """

    id: ObjectId
    kind: str
    created_ns: int
    host: str
    user: str
    label: str
    current: bool


@dataclass(frozen=True, slots=True)
class OpenedSlot:
    """The keys, and which slot gave them."""

    id: ObjectId
    keys: RepositoryKeys


FoundSlot = tuple[ObjectId, Slot | DamageError]
"""A slot, still closed, or what is wrong with it."""


def password_bytes(text: bytes) -> bytes:
    """What goes into the key derivation: a recovery key in its canonical form, anything else as it is.

    Raises:
        InvalidRequest: it looks like a recovery key, but its checksum is wrong.
    """
    try:
        canonical = normalize_recovery_key(text.decode())
    except UnicodeDecodeError:
        return text
    return text if canonical is None else canonical.encode()


def read_slots(storage: Storage, header: ConfigHeader, listed: Iterable[StoredObject]) -> list[FoundSlot]:
    """All slots among the objects that were listed.

    Raises:
        StorageError: the storage failed.
    """

    def read(slot: tuple[ObjectId, int]) -> FoundSlot:
        id_, length = slot
        try:
            return id_, _read_slot(storage, header, id_, length)
        except DamageError as error:
            return id_, error

    return list(side_by_side(storage, read, _slots(listed), weigh=lambda slot: slot[1]))


def find_own_slot(header: ConfigHeader, slots: Sequence[FoundSlot], master: bytes) -> OpenedSlot:
    """The keys from the slot of the password that `master` was derived from; each slot's commitment is compared.

    Raises:
        WrongPassword: no slot belongs to the password.
        DamageError: `config` or the slot of this password was damaged or changed, or there is no slot at all.
    """
    damage: DamageError | None = None
    for id_, slot in slots:
        if isinstance(slot, DamageError):
            damage = slot
            continue
        try:
            keys = open_slot(header, slot, master)
        except DamageError as error:
            damage = error
            continue
        if keys is not None:
            return OpenedSlot(id_, keys)
    if damage is not None:
        raise damage
    if not slots:
        raise MissingError("the repository has no key slot", name="keys")
    raise WrongPassword("the password is wrong", hint="Try again, or use the recovery key in its place.")


def put_slot(
    storage: Storage, header: ConfigHeader, keys: RepositoryKeys, password: bytes, kind: SlotKind, note: SlotNote
) -> ObjectId:
    """Add a way in.

    Raises:
        InvalidRequest: the password is empty.
        StorageError: the storage failed.
    """
    if not password:
        raise InvalidRequest("an empty password protects nothing", hint="Choose a password.")
    master = derive_master(password_bytes(password), header.kdf)
    data = encode_slot(header, keys, master, kind, note)
    if open_slot(header, decode_slot(header, data, name="new key slot"), master) is None:
        raise AssertionError("a new key slot does not open")
    storage.put(key_name(object_id(data)), data)
    return object_id(data)


def put_recovery_slot(
    storage: Storage, header: ConfigHeader, keys: RepositoryKeys, *, host: str, user: str
) -> tuple[str, ObjectId]:
    """Add a recovery key: the key to be printed, and its slot.

    Raises:
        StorageError: the storage failed.
    """
    recovery_key = new_recovery_key()
    note = SlotNote(clock.now_ns(), host, user, "recovery key")
    return recovery_key, put_slot(storage, header, keys, recovery_key.encode(), SlotKind.RECOVERY_KEY, note)


def list_slots(storage: Storage, header: ConfigHeader, opened: OpenedSlot) -> list[SlotInfo]:
    """All ways into the repository, oldest first.

    Raises:
        DamageError: a slot was damaged or changed.
        StorageError: the storage failed.
    """
    infos = [_read_info(storage, header, opened, id_, length) for id_, length in _slots(storage.list("keys"))]
    return sorted(infos, key=lambda info: (info.created_ns, info.id))


def damaged_slots(storage: Storage, header: ConfigHeader, opened: OpenedSlot) -> Iterator[DamageError]:
    """What is wrong with ways into the repository.

    Raises:
        StorageError: the storage failed.
    """
    for id_, length in _slots(storage.list("keys")):
        try:
            _read_info(storage, header, opened, id_, length)
        except DamageError as error:
            yield error


def find_slot(slots: list[SlotInfo], prefix: str) -> SlotInfo:
    """The one slot whose id begins with the hexadecimal prefix.

    Raises:
        InvalidRequest: there is none, or more than one.
    """
    found = [slot for slot in slots if slot.id.hex().startswith(prefix.lower())]
    if len(found) != 1:
        problem = "several key slots begin" if found else "no key slot begins"
        raise InvalidRequest(f"{problem} with {prefix!r}", hint="See `backthen key list`.")
    return found[0]


def remove_slot(storage: Storage, slots: list[SlotInfo], slot: SlotInfo) -> None:
    """Remove a way in.

    Raises:
        InvalidRequest: it is the last one, or the one the repository was opened with.
        StorageError: the storage failed.
    """
    if slot.current:
        raise InvalidRequest(
            "this key slot belongs to the password in use", hint="Open it with another password to remove this one."
        )
    if len(slots) == 1:
        raise InvalidRequest("this is the only way into the repository", hint="Add another password first.")
    storage.delete(key_name(slot.id))


def remove_foreign_slots(storage: Storage, header: ConfigHeader) -> None:
    """Remove what killed attempts to make a repository here have left: slots that open nothing.

    Raises:
        StorageError: the storage failed.
    """
    for id_, length in _slots(storage.list("keys")):
        try:
            _read_slot(storage, header, id_, length)
        except DamageError:
            storage.delete(key_name(id_))


def _slots(listed: Iterable[StoredObject]) -> list[tuple[ObjectId, int]]:
    """The key slots among objects, with their lengths in bytes."""
    found = ((parse_key_name(stored.name), stored.length) for stored in listed)
    return sorted((id_, length) for id_, length in found if id_ is not None)


def _read_info(storage: Storage, header: ConfigHeader, opened: OpenedSlot, id_: ObjectId, length: int) -> SlotInfo:
    slot = _read_slot(storage, header, id_, length)
    note = open_slot_note(opened.keys, slot)
    kind = SlotKind(slot.kind).name.lower().replace("_", " ")
    return SlotInfo(id_, kind, note.created_ns, note.host, note.user, note.label, id_ == opened.id)


def _read_slot(storage: Storage, header: ConfigHeader, id_: ObjectId, length: int) -> Slot:
    name = key_name(id_)
    try:
        data = storage.get(name, 0, min(length, fmt.PAYLOAD_BYTES_MAX))
    except ObjectMissing as error:
        raise MissingError("it is gone", name=name) from error
    if object_id(data) != id_:
        raise TamperedError("its bytes are not those of its name", name=name)
    return decode_slot(header, data, name=name)
