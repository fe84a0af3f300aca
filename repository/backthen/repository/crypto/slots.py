"""`config` and key slots: from a password to the bundle of keys (FORMAT.md, sections 3.1 and 3.2).

Pure: no storage here.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import struct
from dataclasses import dataclass

import msgspec
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from backthen.repository import entropy
from backthen.repository import format as fmt
from backthen.repository.crypto.keys import ObjectKind, RepositoryKeys, hkdf
from backthen.repository.crypto.sealed import open_object, seal_object
from backthen.repository.errors import InvalidRequest, MalformedError, NewerFormatError, TamperedError
from backthen.repository.ids import RepositoryId
from backthen.repository.model.entry import UNDECODABLE
from backthen.repository.model.records import BundledKey, Configuration, SlotNote, decode_record, encode_record

CONFIG_NAME = "config"
_CONFIG_HEADER = struct.Struct(">4sBB2x32s32sIII")
_SLOT_HEADER = struct.Struct(">4sBBBx32s32s32s32s")
_NONCE = bytes(12)
_RECOVERY_RANDOM_BYTES = 23
_RECOVERY_CHECK_BYTES = 2
_RECOVERY_GROUP = 5
_RECOVERY_GROUPS = 8
_RECOVERY_MISREAD = str.maketrans("018", "OIB")


class SlotKind(enum.IntEnum):
    """What opens a slot; the numbers are part of the format."""

    PASSWORD = 0
    KEY_FILE = 1
    RECOVERY_KEY = 2


@dataclass(frozen=True, slots=True)
class KdfParameters:
    """Salt and cost of Argon2id (RFC 9106) for one repository; memory in KiB."""

    salt: bytes
    memory_kib: int
    passes: int
    lanes: int

    @classmethod
    def fresh(cls) -> KdfParameters:
        """A random salt with the cost of new repositories."""
        return cls(entropy.random_bytes(fmt.SALT_BYTES), fmt.KDF_MEMORY_KIB_MIN, fmt.KDF_PASSES_MIN, fmt.KDF_LANES_MAX)


@dataclass(frozen=True, slots=True)
class ConfigHeader:
    """The clear part of `config`."""

    repository_id: RepositoryId
    kdf: KdfParameters

    @property
    def encoded(self) -> bytes:
        """Its 84 bytes."""
        kdf = self.kdf
        numbers = (kdf.memory_kib, kdf.passes, kdf.lanes)
        return _CONFIG_HEADER.pack(
            fmt.OBJECT_MAGIC, fmt.FORMAT_VERSION, ObjectKind.CONFIG, self.repository_id, kdf.salt, *numbers
        )


@dataclass(frozen=True, slots=True)
class Slot:
    """A decoded key slot, still closed."""

    name: str
    kind: int
    header: bytes
    salt: bytes
    commitment: bytes
    wrapped: bytes
    note: bytes


def encode_config(header: ConfigHeader, keys: RepositoryKeys, configuration: Configuration) -> bytes:
    """The bytes of `config`."""
    clear = header.encoded
    sealed = seal_object(keys, ObjectKind.CONFIG, encode_record(configuration), clear, before=len(clear))
    return clear + sealed


def decode_config(data: bytes) -> ConfigHeader:
    """The clear part of `config`, with its bounds checked.

    Raises:
        MalformedError: it is not the `config` of a repository, or its parameters are out of bounds.
        NewerFormatError: it needs a newer version of the program.
    """
    if len(data) < _CONFIG_HEADER.size or data[:4] != fmt.OBJECT_MAGIC:
        raise MalformedError("it is not the configuration of a Backthen repository", name=CONFIG_NAME)
    _, version, kind, repository_id, salt, memory_kib, passes, lanes = _CONFIG_HEADER.unpack_from(data)
    if version > fmt.FORMAT_VERSION:
        raise NewerFormatError(
            "the repository was made by a newer version of Backthen",
            hint="Update Backthen on this machine and try again.",
        )
    header = ConfigHeader(RepositoryId(repository_id), KdfParameters(salt, memory_kib, passes, lanes))
    in_bounds = (
        kind == ObjectKind.CONFIG
        and fmt.KDF_MEMORY_KIB_MIN <= memory_kib <= fmt.KDF_MEMORY_KIB_MAX
        and fmt.KDF_PASSES_MIN <= passes <= fmt.KDF_PASSES_MAX
        and fmt.KDF_LANES_MIN <= lanes <= fmt.KDF_LANES_MAX
    )
    if not in_bounds or header.encoded != data[: _CONFIG_HEADER.size]:
        raise MalformedError("its clear part was damaged or changed", name=CONFIG_NAME)
    return header


def open_configuration(header: ConfigHeader, keys: RepositoryKeys, data: bytes) -> Configuration:
    """The sealed part of `config`.

    Raises:
        TamperedError, MalformedError: it was changed.
        NewerFormatError: it needs features that this version does not know.
    """
    clear = header.encoded
    payload = open_object(keys, ObjectKind.CONFIG, data[len(clear) :], name=CONFIG_NAME, associated=clear)
    configuration = decode_record(payload, Configuration, name=CONFIG_NAME)
    if configuration.features:
        raise NewerFormatError(
            f"the repository needs what this version does not know: {', '.join(configuration.features)}",
            hint="Update Backthen on this machine and try again.",
        )
    return configuration


def derive_master(password: bytes, kdf: KdfParameters) -> bytes:
    """Argon2id (RFC 9106) of a password; the parameters must have been checked. Takes about 0.15 s and 64 MiB.

    Raises:
        InvalidRequest: this machine's cryptography library has no Argon2id.
    """
    try:
        function = Argon2id(
            salt=kdf.salt, length=fmt.KEY_BYTES, iterations=kdf.passes, lanes=kdf.lanes, memory_cost=kdf.memory_kib
        )
    except UnsupportedAlgorithm as error:
        raise InvalidRequest("the installed cryptography library has no Argon2id") from error
    return function.derive(password)


def encode_slot(header: ConfigHeader, keys: RepositoryKeys, master: bytes, kind: SlotKind, note: SlotNote) -> bytes:
    """The bytes of a new key slot that opens with `master`."""
    salt = entropy.fresh_salt(master)
    digest = hashlib.sha256(header.encoded).digest()
    commitment = hkdf(master, salt, b"backthen v1 slot commitment")
    clear = _SLOT_HEADER.pack(
        fmt.OBJECT_MAGIC, fmt.FORMAT_VERSION, ObjectKind.SLOT, kind, header.repository_id, digest, salt, commitment
    )
    wrapping = AESGCM(hkdf(master, salt, b"backthen v1 slot key"))
    wrapped = wrapping.encrypt(_NONCE, msgspec.msgpack.encode(keys.bundle), clear)
    front = clear + len(wrapped).to_bytes(4, "big") + wrapped
    return front + seal_object(keys, ObjectKind.SLOT, encode_record(note), clear, before=len(front))


def decode_slot(header: ConfigHeader, data: bytes, *, name: str) -> Slot:
    """A slot of this repository, still closed.

    Raises:
        MalformedError: it is not a key slot of this repository, or `config` is not the one it was made for.
    """
    size = _SLOT_HEADER.size
    if len(data) < size + 4 or data[:4] != fmt.OBJECT_MAGIC:
        raise MalformedError("it is not a key slot", name=name)
    _, version, kind, slot_kind, repository_id, digest, salt, commitment = _SLOT_HEADER.unpack_from(data)
    made_for = ConfigHeader(RepositoryId(repository_id), header.kdf)
    is_known = repository_id == header.repository_id or digest == hashlib.sha256(made_for.encoded).digest()
    if version > fmt.FORMAT_VERSION or kind != ObjectKind.SLOT or not is_known:
        raise MalformedError("it is not a key slot of this repository", name=name)
    if digest != hashlib.sha256(header.encoded).digest():
        raise MalformedError(
            f"it is not what the key slot {name} was made for: it was damaged or changed", name=CONFIG_NAME
        )
    end = size + 4 + int.from_bytes(data[size : size + 4], "big")
    if end > len(data):
        raise MalformedError("it is cut short", name=name)
    return Slot(name, slot_kind, data[:size], salt, commitment, data[size + 4 : end], data[end:])


def open_slot(header: ConfigHeader, slot: Slot, master: bytes) -> RepositoryKeys | None:
    """The repository's keys, or None when the slot belongs to another password.

    Raises:
        TamperedError: the password is right but the slot was changed.
        MalformedError: the bundle does not follow the format.
    """
    if not hmac.compare_digest(slot.commitment, hkdf(master, slot.salt, b"backthen v1 slot commitment")):
        return None
    wrapping = AESGCM(hkdf(master, slot.salt, b"backthen v1 slot key"))
    try:
        bundle = wrapping.decrypt(_NONCE, slot.wrapped, slot.header)
        keys = msgspec.msgpack.decode(bundle, type=tuple[BundledKey, ...])
    except InvalidTag as error:
        raise TamperedError("the password is right but the slot was changed", name=slot.name) from error
    except UNDECODABLE as error:
        raise MalformedError("its keys cannot be decoded", name=slot.name) from error
    return RepositoryKeys(header.repository_id, keys)


def open_slot_note(keys: RepositoryKeys, slot: Slot) -> SlotNote:
    """What a slot says about itself.

    Raises:
        TamperedError, MalformedError: it was changed.
    """
    payload = open_object(keys, ObjectKind.SLOT, slot.note, name=slot.name, associated=slot.header)
    return decode_record(payload, SlotNote, name=slot.name)


def new_recovery_key() -> str:
    """A random recovery key of 184 bits with a checksum: eight groups of five, to be printed."""
    random = entropy.random_bytes(_RECOVERY_RANDOM_BYTES)
    text = base64.b32encode(random + _recovery_check(random)).decode()
    return "-".join(text[index : index + _RECOVERY_GROUP] for index in range(0, len(text), _RECOVERY_GROUP))


def normalize_recovery_key(text: str) -> str | None:
    """The canonical form of a typed recovery key; None when the text does not look like one.

    Raises:
        InvalidRequest: it looks like one, but its checksum is wrong.
    """
    groups = text.strip().upper().replace(" ", "-").split("-")
    if len(groups) != _RECOVERY_GROUPS or any(len(group) != _RECOVERY_GROUP for group in groups):
        return None
    letters = "".join(groups).translate(_RECOVERY_MISREAD)
    try:
        data = base64.b32decode(letters)
    except ValueError:
        return None
    if _recovery_check(data[:_RECOVERY_RANDOM_BYTES]) != data[_RECOVERY_RANDOM_BYTES:]:
        raise InvalidRequest(
            "the recovery key is mistyped: its checksum is wrong", hint="Compare it with the printed one."
        )
    return "-".join(letters[index : index + _RECOVERY_GROUP] for index in range(0, len(letters), _RECOVERY_GROUP))


def _recovery_check(random: bytes) -> bytes:
    return hashlib.sha256(random).digest()[:_RECOVERY_CHECK_BYTES]
