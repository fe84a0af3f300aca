"""Watches every encryption, to find a key and nonce used twice."""

from __future__ import annotations

from collections import Counter

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backthen.repository.crypto import packs, sealed, slots, spill

_Data = bytes | bytearray | memoryview


class CipherRecord:
    """How often each pair of key and nonce encrypted something."""

    def __init__(self) -> None:
        self.uses: Counter[tuple[bytes, bytes]] = Counter()

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count from now on, until the test ends."""
        record = self

        class Watched:
            def __init__(self, key: bytes) -> None:
                self._key = bytes(key)
                self._cipher = AESGCM(key)

            def encrypt(self, nonce: bytes, data: _Data, associated: bytes | None) -> bytes:
                record.uses[self._key, bytes(nonce)] += 1
                return self._cipher.encrypt(nonce, data, associated)

            def decrypt(self, nonce: bytes, data: _Data, associated: bytes | None) -> bytes:
                return self._cipher.decrypt(nonce, data, associated)

            def encrypt_into(self, nonce: bytes, data: _Data, associated: bytes | None, target: memoryview) -> int:
                record.uses[self._key, bytes(nonce)] += 1
                return self._cipher.encrypt_into(nonce, data, associated, target)

            def decrypt_into(self, nonce: bytes, data: _Data, associated: bytes | None, target: memoryview) -> int:
                return self._cipher.decrypt_into(nonce, data, associated, target)

        for module in (packs, sealed, slots, spill):
            monkeypatch.setattr(module, "AESGCM", Watched)

    def check_unique(self, *, at_least: int) -> None:
        """Fail when a pair was used twice, or when fewer were used than the test must have caused."""
        assert len(self.uses) >= at_least
        assert {1} == set(self.uses.values())
