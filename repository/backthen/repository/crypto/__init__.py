"""All cryptography: keys and their derivation, sealed objects, the parts of packs, key slots.

Nothing outside this package imports `cryptography`; blob ids aside nothing outside it holds key bytes.
"""

from backthen.repository.crypto.keys import BlobKind, ObjectKind, RepositoryKeys, new_bundle, object_id
from backthen.repository.crypto.packs import PackCipher, new_pack_cipher, open_pack_cipher
from backthen.repository.crypto.sealed import open_object, seal_object
from backthen.repository.crypto.slots import (
    ConfigHeader,
    KdfParameters,
    Slot,
    SlotKind,
    decode_config,
    decode_slot,
    derive_master,
    encode_config,
    encode_slot,
    new_recovery_key,
    normalize_recovery_key,
    open_configuration,
    open_slot,
    open_slot_note,
)
from backthen.repository.crypto.spill import SpillCipher

__all__ = [
    "BlobKind",
    "ConfigHeader",
    "KdfParameters",
    "ObjectKind",
    "PackCipher",
    "RepositoryKeys",
    "Slot",
    "SlotKind",
    "SpillCipher",
    "decode_config",
    "decode_slot",
    "derive_master",
    "encode_config",
    "encode_slot",
    "new_bundle",
    "new_pack_cipher",
    "new_recovery_key",
    "normalize_recovery_key",
    "object_id",
    "open_configuration",
    "open_object",
    "open_pack_cipher",
    "open_slot",
    "open_slot_note",
    "seal_object",
]
