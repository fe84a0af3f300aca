"""The cipher of one pack: a key from the pack's salt, nonces that count (FORMAT.md, section 5)."""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backthen.repository import entropy
from backthen.repository import format as fmt
from backthen.repository.crypto.keys import RepositoryKeys
from backthen.repository.errors import MalformedError, NewerFormatError, TamperedError

_HEADER = struct.Struct(">4sBBBxI32s")
_TRAILER_NUMBER = (1 << 64) - 1
_KINDS = {fmt.PACK_CLASS_DATA: "data pack", fmt.PACK_CLASS_TREE: "tree pack"}


class PackCipher:
    """Seals and opens the parts of one pack; `header` are the pack's first bytes."""

    __slots__ = ("_associated", "_cipher", "header", "pack_class")

    def __init__(self, keys: RepositoryKeys, header: bytes, pack_class: int, generation: int, salt: bytes) -> None:
        self.header = header
        self.pack_class = pack_class
        self._cipher = AESGCM(keys.sealing_key(_KINDS[pack_class], generation, salt))
        self._associated = header + keys.repository_id

    def seal(self, number: int, plaintext: bytes, *, last: bool = False) -> bytes:
        """Seal part `number`; each number once only, or the nonce would repeat."""
        return self._cipher.encrypt(number.to_bytes(12, "big"), plaintext, self._bind(number, last=last))

    def open(self, number: int, sealed: bytes | memoryview, *, last: bool = False) -> bytes:
        """The plaintext of part `number`.

        Raises:
            TamperedError: it is not the part that was sealed there.
        """
        try:
            return self._cipher.decrypt(number.to_bytes(12, "big"), sealed, self._bind(number, last=last))
        except InvalidTag as error:
            raise TamperedError("authentication failed: it was damaged or changed") from error

    def seal_into(self, number: int, plaintext: bytes, sealed: memoryview, *, last: bool = False) -> None:
        """Like `seal`, into memory of exactly the length of the plaintext and its tag."""
        self._cipher.encrypt_into(number.to_bytes(12, "big"), plaintext, self._bind(number, last=last), sealed)

    def open_into(self, number: int, sealed: memoryview, plaintext: memoryview, *, last: bool = False) -> None:
        """Like `open`, into memory of exactly the plaintext's length, which is to be wiped or dropped when this raises.

        Raises:
            TamperedError: it is not the part that was sealed there.
        """
        try:
            self._cipher.decrypt_into(number.to_bytes(12, "big"), sealed, self._bind(number, last=last), plaintext)
        except InvalidTag as error:
            raise TamperedError("authentication failed: it was damaged or changed") from error

    def seal_trailer(self, plaintext: bytes) -> bytes:
        """Seal the trailer."""
        return self.seal(_TRAILER_NUMBER, plaintext)

    def open_trailer(self, sealed: bytes) -> bytes:
        """The plaintext of the trailer.

        Raises:
            TamperedError: it is not the trailer that was sealed.
        """
        return self.open(_TRAILER_NUMBER, sealed)

    def _bind(self, number: int, *, last: bool) -> bytes:
        return self._associated + number.to_bytes(8, "big") + bytes((last,))


def new_pack_cipher(keys: RepositoryKeys, pack_class: int, content: bytes) -> PackCipher:
    """The cipher of a new pack, under a fresh salt hedged with `content`."""
    salt = entropy.fresh_salt(content)
    generation = keys.seal_generation
    header = _HEADER.pack(fmt.PACK_MAGIC, fmt.FORMAT_VERSION, pack_class, fmt.SCHEME_DERIVED, generation, salt)
    return PackCipher(keys, header, pack_class, generation, salt)


def open_pack_cipher(keys: RepositoryKeys, header: bytes) -> PackCipher:
    """The cipher of a stored pack, from its first 44 bytes.

    Raises:
        MalformedError: that is not the header of a pack.
        NewerFormatError: it needs a newer version of the program.
        TamperedError: it names a key that the repository does not have.
    """
    if len(header) != fmt.PACK_HEADER_BYTES:
        raise MalformedError("it is too short for a pack")
    magic, version, pack_class, scheme, generation, salt = _HEADER.unpack(header)
    if magic != fmt.PACK_MAGIC or pack_class not in _KINDS:
        raise MalformedError("it is not a pack")
    if version > fmt.FORMAT_VERSION or scheme != fmt.SCHEME_DERIVED:
        raise NewerFormatError(
            "a pack was made by a newer version of Backthen", hint="Update Backthen on this machine and try again."
        )
    return PackCipher(keys, header, pack_class, generation, salt)
