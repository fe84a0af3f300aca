"""The ways into a repository: passwords and recovery keys, listed, added, removed, changed."""

from __future__ import annotations

from backthen.repository import clock
from backthen.repository.crypto import SlotKind
from backthen.repository.ids import ObjectId
from backthen.repository.model.records import SlotNote
from backthen.repository.opening import Repository
from backthen.repository.slots import SlotInfo, find_slot, list_slots, put_recovery_slot, put_slot, remove_slot
from backthen.repository.storage import key_name


def list_access(repository: Repository) -> list[SlotInfo]:
    """All ways into the repository, oldest first.

    Raises:
        DamageError: a key slot was damaged or changed.
        StorageError: the storage failed.
    """
    return list_slots(repository.storage, repository.header, repository.opened)


def add_password(repository: Repository, password: bytes) -> ObjectId:
    """Let a further password open the repository; the id of its key slot.

    Raises:
        InvalidRequest: the password is empty.
        StorageError: the storage failed.
    """
    note = SlotNote(clock.now_ns(), repository.client.host, repository.client.user, "")
    return put_slot(repository.storage, repository.header, repository.keys, password, SlotKind.PASSWORD, note)


def add_recovery_key(repository: Repository) -> tuple[str, ObjectId]:
    """Make a recovery key: its text, to be printed and kept, and the id of its key slot.

    Raises:
        StorageError: the storage failed.
    """
    client = repository.client
    return put_recovery_slot(repository.storage, repository.header, repository.keys, host=client.host, user=client.user)


def change_password(repository: Repository, password: bytes) -> ObjectId:
    """Put a slot for the new password, then delete the one in use; a recovery key in use stays.

    Raises:
        InvalidRequest: the new password is empty.
        DamageError: a key slot was damaged or changed.
        StorageError: the storage failed.
    """
    is_password = any(slot.current and slot.kind == "password" for slot in list_access(repository))
    slot_id = add_password(repository, password)
    if is_password:
        repository.storage.delete(key_name(repository.opened.id))
    return slot_id


def remove_access(repository: Repository, prefix: str) -> SlotInfo:
    """Remove the way in whose slot id begins with a hexadecimal prefix.

    Raises:
        InvalidRequest: there is not exactly one, it is the last, or it is the one in use.
        DamageError: a key slot was damaged or changed.
        StorageError: the storage failed.
    """
    slots = list_access(repository)
    slot = find_slot(slots, prefix)
    remove_slot(repository.storage, slots, slot)
    return slot
