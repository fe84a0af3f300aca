"""Hides what a running snapshot spills to a local disk, under a key that is never written anywhere."""

from __future__ import annotations

import itertools

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backthen.repository import entropy
from backthen.repository import format as fmt
from backthen.repository.errors import TamperedError

_NONCE_BYTES = 12


class SpillCipher:
    """One random key for the life of the object; nonces count, and stand before each block."""

    def __init__(self) -> None:
        self._cipher = AESGCM(entropy.random_bytes(fmt.KEY_BYTES))
        self._numbers = itertools.count()

    def seal(self, block: bytes) -> bytes:
        """Hide a block."""
        nonce = next(self._numbers).to_bytes(_NONCE_BYTES, "big")
        return nonce + self._cipher.encrypt(nonce, block, None)

    def open(self, sealed: bytes) -> bytes:
        """The block again.

        Raises:
            TamperedError: it is not a block that was sealed here.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        except (InvalidTag, ValueError) as error:  # the latter for a nonce that was cut
            raise TamperedError("a temporary file was changed while in use") from error
