"""Sealed objects: one payload, padded and encrypted under a key of its own (FORMAT.md, section 4)."""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backthen.repository import entropy
from backthen.repository import format as fmt
from backthen.repository.compression import compress_payload, decompress_payload
from backthen.repository.crypto.keys import ObjectKind, RepositoryKeys
from backthen.repository.errors import MalformedError, NewerFormatError, TamperedError

_HEADER = struct.Struct(">4sBBBxI32s")
_NONCE = bytes(12)


def seal_object(
    keys: RepositoryKeys, kind: ObjectKind, payload: bytes, associated: bytes = b"", *, before: int = 0
) -> bytes:
    """Seal a payload.

    Args:
        keys: the repository's keys.
        kind: what it is; opening as another kind fails.
        payload: the bytes to hide.
        associated: further bytes that must be the same at opening.
        before: how many bytes stand before it in the stored object, so that the whole has a padded length.
    """
    frame = compress_payload(payload)
    salt = entropy.fresh_salt(frame)
    generation = keys.seal_generation
    header = _HEADER.pack(fmt.OBJECT_MAGIC, fmt.FORMAT_VERSION, kind, fmt.SCHEME_DERIVED, generation, salt)
    needed = before + len(header) + 4 + len(frame) + fmt.TAG_BYTES
    padding = fmt.padded_object_length(needed) - needed
    plaintext = len(frame).to_bytes(4, "big") + frame + bytes(padding)
    cipher = AESGCM(keys.sealing_key(kind.name.lower(), generation, salt))
    return header + cipher.encrypt(_NONCE, plaintext, header + keys.repository_id + associated)


def open_object(keys: RepositoryKeys, kind: ObjectKind, data: bytes, *, name: str, associated: bytes = b"") -> bytes:
    """The payload of a sealed object.

    Args:
        keys: the repository's keys.
        kind: what it must be.
        data: the sealed bytes.
        name: the object's name, for errors.
        associated: as at sealing.

    Raises:
        TamperedError: it is not what was sealed for this place.
        MalformedError: it is not a sealed object of this kind.
        NewerFormatError: it needs a newer version of the program.
    """
    header, generation, salt = _parse_header(kind, data, name)
    try:
        cipher = AESGCM(keys.sealing_key(kind.name.lower(), generation, salt))
        plaintext = cipher.decrypt(_NONCE, data[len(header) :], header + keys.repository_id + associated)
    except InvalidTag as error:
        raise TamperedError("authentication failed: it was damaged or changed", name=name) from error
    except TamperedError as error:
        raise TamperedError(str(error), name=name) from error
    length = int.from_bytes(plaintext[:4], "big")
    if length > len(plaintext) - 4:
        raise MalformedError("its payload is longer than the object", name=name)
    return decompress_payload(plaintext[4 : 4 + length], name=name)


def _parse_header(kind: ObjectKind, data: bytes, name: str) -> tuple[bytes, int, bytes]:
    if len(data) < _HEADER.size + 4 + fmt.TAG_BYTES:
        raise MalformedError("it is too short", name=name)
    magic, version, found_kind, scheme, generation, salt = _HEADER.unpack_from(data)
    if magic != fmt.OBJECT_MAGIC:
        raise MalformedError("it is not an object of a repository", name=name)
    if version > fmt.FORMAT_VERSION or scheme != fmt.SCHEME_DERIVED:
        raise NewerFormatError(
            f"{name} was made by a newer version of Backthen", hint="Update Backthen on this machine and try again."
        )
    if found_kind != kind:
        raise MalformedError("it is an object of another kind", name=name)
    return data[: _HEADER.size], generation, salt
